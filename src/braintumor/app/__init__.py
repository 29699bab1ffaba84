"""What uses a trained network: readers of scans, classifier files, answers, exports.

Only the command line, tools, notebooks and tests import it; of it, ``studies`` imports
``gradcam`` alone, which draws the heatmaps, and the core nothing.
"""
