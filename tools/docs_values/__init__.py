"""The numbers of the documents, read from result files; templates hold the words."""

import sys
from pathlib import Path

# where the rows of the pages on speed and scaling have their names
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
