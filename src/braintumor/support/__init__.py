"""What makes the core safe and fast, and can be skipped at first reading.

The core may import it. It imports nothing of the core but ``config``, except for
``cluster``, which extends the core for several machines and which the core never
imports.
"""
