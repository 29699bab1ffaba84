"""Try it on scans of your own: the answers of a classifier as tables."""

import math
from collections.abc import Iterable, Iterator

from braintumor.app.answers import FILES_AT_ONCE, Answer, answer_batches
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
    return pd.concat(classify_batches(images_in(scans), classifier), ignore_index=True)


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
    columns: dict[str, list] = {"file": [answer.file for answer in answers]}
    columns["page"] = [answer.page for answer in answers]
    for label in labels:
        probabilities = [
            answer.probabilities.get(label, math.nan) for answer in answers
        ]
        columns[f"p_{label}"] = probabilities
    columns["similarity"] = [answer.similarity for answer in answers]
    columns["problem"] = [answer.problem for answer in answers]
    columns["unlike"] = [answer.unlike for answer in answers]
    columns["predicted"] = [answer.predicted for answer in answers]
    columns["says"] = [answer.says for answer in answers]
    return pd.DataFrame(columns)
