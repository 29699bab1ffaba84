"""What one study needs; only its notebook and the tests import it, never the core."""
