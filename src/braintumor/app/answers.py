"""What a classifier says of images, one answer a page, in numbers and in words."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from braintumor.app.engines import Classifier
from braintumor.app.readers import read_pages
from braintumor.images import to_square

import numpy as np

WARNING = "It is unlike the scans the model learned from: do not rely on this."
PART = 32  # scans that a network answers at once: a file can have thousands of pages


class Page(NamedTuple):
    """A page of a file, before it is answered.

    Attributes:
        file: The path as it was given, or "array".
        number: Which page or frame of the file, from 0.
        pixels: Gray uint8 (height, width); None where there is a problem.
        problem: Why it cannot be read, or "".
    """

    file: str
    number: int
    pixels: np.ndarray | None
    problem: str


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one page.

    Attributes:
        file: The path as it was given, or "array".
        page: Which page or frame of the file, from 0.
        probabilities: Of each label; empty where there is no answer.
        similarity: To the most similar training scan, -1 to 1; NaN without an answer.
        unlike: Whether that is less than of nearly all validation scans.
        problem: Why there is no answer, or "".
    """

    file: str
    page: int
    probabilities: dict[str, float]
    similarity: float
    unlike: bool
    problem: str

    @property
    def ranked(self) -> list[str]:
        """The labels, most probable first."""
        return sorted(self.probabilities, key=self.probabilities.get, reverse=True)

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

    def _in_words(self, label):
        percent = 100 * self.probabilities[label]
        return f"{label.replace('_', ' ')} ({percent:.0f} %)"


def answer_batches(
    images: list, classifier: Classifier, batch_size: int = 32
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
            read = pool.map(read_pages, batch)
            for image, (found, problem) in zip(batch, read, strict=True):
                name = "array" if isinstance(image, np.ndarray) else str(image)
                for number, pixels in enumerate(found or [None]):
                    pages.append(Page(name, number, pixels, problem))
            yield answer(pages, classifier)


def answer(pages: list[Page], classifier: Classifier) -> list[Answer]:
    """Answer pages, in their order; a page with a problem gets no answer."""
    labels, threshold = classifier.card["labels"], classifier.card["threshold"]
    readable = [page for page in pages if not page.problem]
    predictions = _predict(readable, classifier)
    answers = []
    for file, number, _, problem in pages:
        probabilities, similarity = {}, math.nan
        if not problem:
            row, similarity = next(predictions)
            probabilities = dict(zip(labels, row, strict=True))
        unlike = similarity < threshold
        answers.append(Answer(file, number, probabilities, similarity, unlike, problem))
    return answers


def _predict(pages, classifier):
    """Probabilities and similarity of each page, as Python's own numbers."""
    size, frame = classifier.card["image_size"], classifier.card["frame"]
    for first in range(0, len(pages), PART):
        part = pages[first : first + PART]
        squares = [to_square(page.pixels, size, frame)[0] for page in part]
        scans = np.float32(squares)[..., None] / 255
        prediction = classifier.predict(scans)
        yield from zip(*(output.tolist() for output in prediction), strict=True)
