"""Try it on scans of your own: the answers of a classifier as tables."""

import math
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from braintumor.app.answers import Answer, answer_batches
from braintumor.app.engines import Classifier
from braintumor.app.engines import (
    load_classifier as load_classifier,  # notebooks find them here
)
from braintumor.app.readers import images_in
from braintumor.app.readers import read_pages as read_pages
from braintumor.support.files import write_table

import pandas as pd


def classify(scans, classifier: Classifier) -> pd.DataFrame:
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
    images: list, classifier: Classifier, batch_size: int = 32
) -> Iterator[pd.DataFrame]:
    """``classify`` for ``images_in``, so many files a table, to bound the memory."""
    labels = classifier.card["labels"]
    for answers in answer_batches(images, classifier, batch_size):
        yield as_table(answers, labels)


def as_table(answers: list[Answer], labels: list[str]) -> pd.DataFrame:
    """Answers as the rows of a table: see ``classify`` for its columns."""
    columns = {"file": [answer.file for answer in answers]}
    columns["page"] = [answer.page for answer in answers]
    for label in labels:
        shares = [answer.probabilities.get(label, math.nan) for answer in answers]
        columns[f"p_{label}"] = shares
    columns["similarity"] = [answer.similarity for answer in answers]
    columns["problem"] = [answer.problem for answer in answers]
    columns["unlike"] = [answer.unlike for answer in answers]
    columns["predicted"] = [answer.predicted for answer in answers]
    columns["says"] = [answer.says for answer in answers]
    return pd.DataFrame(columns)


def resume_answers(file: Path) -> dict[str, str]:
    """Make a CSV file of answers ready to go on with.

    The last file in it may be cut, so its rows are taken out.

    Args:
        file: What an earlier command wrote; it need not exist.

    Returns:
        The files that have their answers, with their problems, or "".
    """
    text = ""
    if file.exists():
        text = file.read_text(encoding="utf-8", errors="replace")
    whole_lines = text[: text.rfind("\n") + 1]
    if not whole_lines:
        file.unlink(missing_ok=True)
        return {}
    text = StringIO(whole_lines)
    table = pd.read_csv(text, dtype={"file": str}, keep_default_na=False)
    last = table["file"].tail(1).squeeze()
    table = table[table["file"] != last]
    write_table(table, file)
    return table.groupby("file")["problem"].max().to_dict()
