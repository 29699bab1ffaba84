"""What uses a trained network: files to give away, answers to scans of your own. The study needs none of it."""
