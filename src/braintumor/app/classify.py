"""Try it on scans of your own: the answers of a classifier as tables."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from braintumor.app.answers import (
    COLUMNS_AFTER_PROBABILITIES,
    FILES_AT_ONCE,
    Answer,
    answer_batches,
)
from braintumor.app.engines import Classifier
from braintumor.app.engines import load_classifier as load_classifier  # for notebooks
from braintumor.app.readers import Source, images_in
from braintumor.app.readers import read_pages as read_pages

import pandas as pd


def classify(scans: Source | Iterable[Source], classifier: Classifier) -> pd.DataFrame:
    """Ask a classifier about scans.

    Args:
        scans: A file, a folder, an array (height, width; 0-255), or a list of these.
        classifier: See ``engines.load_classifier``.

    Returns:
        One row a page: ``file``, ``page``, ``p_<label>``, ``similarity``, ``problem``
        ("" or why there is no answer), ``unlike`` (less similar to the training scans
        than nearly all of validation), ``predicted``, ``says`` for a person.
    """
    images = images_in(scans)
    tables = classify_batches(images, classifier)
    return pd.concat(tables, ignore_index=True)


def classify_batches(
    images: list[Source], classifier: Classifier, batch_size: int = FILES_AT_ONCE
) -> Iterator[pd.DataFrame]:
    """Ask about many scans, some files at a time, so that memory does not grow.

    Args:
        images: What ``readers.images_in`` lists.
        classifier: See ``engines.load_classifier``.
        batch_size: So many files make a table.

    Yields:
        Tables as ``classify`` returns them.
    """
    labels = classifier.card["labels"]
    for answers in answer_batches(images, classifier, batch_size):
        yield as_table(answers, labels)


def as_table(answers: list[Answer], labels: list[str]) -> pd.DataFrame:
    """Write answers as the rows of a table.

    Args:
        answers: One a page.
        labels: Of the classifier.

    Returns:
        The columns that ``classify`` names.
    """
    probability_columns = [f"p_{label}" for label in labels]
    columns = ["file", "page", *probability_columns, *COLUMNS_AFTER_PROBABILITIES]
    rows = []
    for answer in answers:
        row: dict[str, Any] = {"file": answer.file, "page": answer.page}
        for label in labels:
            row[f"p_{label}"] = answer.probabilities.get(label, math.nan)
        for name in COLUMNS_AFTER_PROBABILITIES:
            row[name] = getattr(answer, name)
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)
