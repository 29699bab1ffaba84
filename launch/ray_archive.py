"""Classify an archive of images on as many machines as Ray has, into Parquet files.

All machines see the folder, the classifier and the output folder under the same names.
Needs: pip install 'ray[data]'.
"""

import argparse
import sys
from pathlib import Path

from braintumor.app import classify

import pandas as pd
import ray

FILES_IN_A_BLOCK = 5000  # at most, so that little is repeated when a worker is lost
BATCH = 256  # files that a worker is given at a time


class Worker:
    """Loads the classifier once, then classifies batch after batch.

    Args:
        model: The classifier's file.
    """

    def __init__(self, model: str) -> None:
        self.classifier = classify.load_classifier(model)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        files = batch["file"].tolist()
        tables = classify.classify_batches(files, self.classifier)
        return pd.concat(tables, ignore_index=True)


def classify_archive(folder: str, model: str, workers: int) -> ray.data.Dataset:
    """Classify every image in a folder.

    Args:
        folder: The folder.
        model: The classifier's file.
        workers: How many classify at once.

    Returns:
        One row a page, as ``classify.classify`` gives them.
    """
    files = [str(file) for file in classify.images_in(folder)]
    blocks = max(workers, len(files) // FILES_IN_A_BLOCK)
    table = ray.data.from_pandas(pd.DataFrame({"file": files}))
    return table.repartition(blocks).map_batches(
        Worker,
        fn_constructor_args=[model],
        batch_format="pandas",
        batch_size=BATCH,
        concurrency=workers,
        # with a core for each worker, none might be left to write
        num_cpus=0.5,
    )


def main() -> None:
    """Classify what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="holds the images")
    parser.add_argument("model", help="the classifier's file")
    parser.add_argument("into", help="folder to make, for the Parquet files")
    parser.add_argument("workers", type=int, nargs="?", default=1)
    options = parser.parse_args()
    into = Path(options.into)
    if into.exists():
        # Ray would add the same answers to those that are there
        sys.exit(f"'{into.name}' exists already: remove it or name another folder.")
    answers = classify_archive(options.folder, options.model, options.workers)
    answers.write_parquet(options.into)


if __name__ == "__main__":
    main()
