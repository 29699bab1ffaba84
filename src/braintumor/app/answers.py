"""What a classifier says of images, one answer a page, in numbers and in words."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from braintumor.app.engines import Classifier
from braintumor.app.readers import Source, read_image, shown_name
from braintumor.images import to_square

import numpy as np

NO_NUMBERS = "the classifier answers with values that are no numbers"
WARNING = "It is unlike the scans the model learned from: do not rely on this."
FILES_AT_ONCE = 32  # are read together
# of an answer, and of every table of answers, behind the probabilities
COLUMNS_AFTER_PROBABILITIES = ["similarity", "problem", "unlike", "predicted", "says"]
SCANS_AT_ONCE = 32  # are answered together: a file can have thousands of pages


class Page(NamedTuple):
    """A page of a file, before it is answered.

    Attributes:
        file: The path as it is shown, or "array".
        number: Which page or frame of the file, from 0.
        pixels: Gray uint8 (height, width); None where there is a problem.
        problem: Why it cannot be read, or "".
        pages: How many the file has.
        sha256: The checksum of the file, or "".
    """

    file: str
    number: int
    pixels: np.ndarray | None
    problem: str
    pages: int = 1
    sha256: str = ""


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one page.

    Attributes:
        file: The path as it is shown, or "array".
        page: Which page or frame of the file, from 0.
        probabilities: Of each label; empty where there is no answer.
        similarity: To the most similar training scan, -1 to 1; NaN without an answer.
        unlike: Whether that is less than of nearly all validation scans.
        problem: Why there is no answer, or "".
        pages: How many the file has.
        sha256: The checksum of the file, or "".
    """

    file: str
    page: int
    probabilities: dict[str, float]
    similarity: float
    unlike: bool
    problem: str
    pages: int = 1
    sha256: str = ""

    @property
    def ranked(self) -> list[str]:
        """The labels, most probable first."""

        def probability(label: str) -> float:
            return self.probabilities[label]

        return sorted(self.probabilities, key=probability, reverse=True)

    @property
    def predicted(self) -> str:
        """The most probable label, or ""."""
        return self.ranked[0] if self.probabilities else ""

    @property
    def says(self) -> str:
        """A line for a person: the two most probable classes, and a warning."""
        if not self.probabilities:
            return "No answer."
        first, second = [self._in_words(label) for label in self.ranked[:2]]
        line = f"Most like {first}, then {second}."
        if self.unlike:
            line += f" {WARNING}"
        return line

    def _in_words(self, label: str) -> str:
        name = label.replace("_", " ")
        percent = 100 * self.probabilities[label]
        if percent > 99:  # never "100%": the classifier is not that sure of anything
            return f"{name} (over 99%)"
        return f"{name} ({percent:.0f}%)"


def answer_batches(
    images: list[Source], classifier: Classifier, batch_size: int = FILES_AT_ONCE
) -> Iterator[list[Answer]]:
    """Answer images batch by batch, so that memory does not grow with their number.

    Args:
        images: What ``readers.images_in`` lists.
        classifier: See ``engines.load_classifier``.
        batch_size: So many files are read at once.

    Yields:
        The answers to all pages of a batch of files.
    """
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(images), batch_size):
            batch = images[first : first + batch_size]
            pages = []
            for image_pages in pool.map(pages_of, batch):
                pages.extend(image_pages)
            yield answer(pages, classifier)


def pages_of(image: Source) -> list[Page]:
    """Read the pages of an image.

    Args:
        image: An image file, or an array.

    Returns:
        Its pages; one without pixels where there is a problem.
    """
    name = shown_name(image)
    found = read_image(image)
    if found.problem:
        return [Page(name, 0, None, found.problem, sha256=found.sha256)]
    pages = []
    for number, pixels in enumerate(found.pages):
        pages.append(Page(name, number, pixels, "", len(found.pages), found.sha256))
    return pages


def answer(pages: list[Page], classifier: Classifier) -> list[Answer]:
    """Answer pages, in their order; a page with a problem gets no answer.

    Args:
        pages: Of any files.
        classifier: See ``engines.load_classifier``.

    Returns:
        An answer for each page.
    """
    labels = classifier.card["labels"]
    threshold = classifier.card["threshold"]
    readable = [index for index, page in enumerate(pages) if not page.problem]
    predictions = _predict([pages[index] for index in readable], classifier)
    prediction_of = dict(zip(readable, predictions, strict=True))
    answers = []
    for index, page in enumerate(pages):
        probabilities = {}
        similarity = math.nan
        problem = page.problem
        if index in prediction_of:
            values, similarity = prediction_of[index]
            if all(math.isfinite(number) for number in (*values, similarity)):
                probabilities = dict(zip(labels, values, strict=True))
            else:
                problem = NO_NUMBERS
        answers.append(
            Answer(
                file=page.file,
                page=page.number,
                probabilities=probabilities,
                similarity=similarity,
                unlike=similarity < threshold,
                problem=problem,
                pages=page.pages,
                sha256=page.sha256,
            )
        )
    return answers


def _predict(
    pages: list[Page], classifier: Classifier
) -> Iterator[tuple[list[float], float]]:
    """Probabilities and similarity of each page, as Python's own numbers."""
    size = classifier.card["image_size"]
    frame = classifier.card["frame"]
    for first in range(0, len(pages), SCANS_AT_ONCE):
        part = pages[first : first + SCANS_AT_ONCE]
        squares = []
        for page in part:
            assert page.pixels is not None  # as there is no problem
            squares.append(to_square(page.pixels, size, frame).pixels)
        scans = np.stack(squares)[..., None].astype("float32") / 255
        prediction = classifier.predict(scans)
        probabilities = prediction.probabilities.tolist()
        similarities = prediction.similarity.tolist()
        yield from zip(probabilities, similarities, strict=True)
