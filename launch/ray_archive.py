"""Answers for an archive, on as many machines as Ray has, as Parquet files: ray_archive.py FOLDER MODEL INTO [WORKERS].

All machines see the folder, the model file and INTO under the same names. Needs: pip install 'ray[data]'.
"""

import sys
from pathlib import Path

from braintumor.app import classify

import pandas as pd
import ray


class Answers:
    """A worker: it loads the classifier once, then answers batch after batch."""

    def __init__(self, model: str):
        self.classifier = classify.load_classifier(model)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        tables = classify.classify_batches(batch["file"].tolist(), self.classifier)
        return pd.concat(tables, ignore_index=True)


def answer(folder: str, model: str, workers: int) -> ray.data.Dataset:
    """One row a page, as ``classify.classify`` gives them, of every image in the folder."""
    files = pd.DataFrame({"file": [str(file) for file in classify.images_in(folder)]})
    blocks = ray.data.from_pandas(files).repartition(
        max(workers, len(files) // 5000)
    )  # what a lost worker repeats
    # half a core is what Ray reserves for a worker: with as many workers as cores, none would be left to write
    how = dict(batch_format="pandas", batch_size=256, concurrency=workers, num_cpus=0.5)
    return blocks.map_batches(Answers, fn_constructor_args=[model], **how)


if __name__ == "__main__":
    folder, model, into, *workers = sys.argv[1:]
    if Path(into).exists():
        sys.exit(
            f"'{Path(into).name}' exists already: Ray would add the same answers again."
        )
    answer(folder, model, int(*workers or [1])).write_parquet(into)
