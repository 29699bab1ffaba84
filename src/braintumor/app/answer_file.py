"""Answers as a CSV file that can be gone on with: one classifier, one file."""

import csv
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from braintumor.app.answers import COLUMNS_AFTER_PROBABILITIES, Answer
from braintumor.app.readers import Source, shown_name
from braintumor.support.files import checksum, replace_file

import numpy as np

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # spreadsheets write it first
OTHER_FILE = "it stays as it is: name another file."


class _Row(NamedTuple):
    """A line of the file, and what of it decides whether it stays.

    Attributes:
        line: The line as it is written.
        file: The scan, as it is shown.
        pages: How many pages it has.
        problem: Why there is no answer, or "".
        sha256: The checksum of the scan.
    """

    line: bytes
    file: str
    pages: int
    problem: str
    sha256: str


class AnswerFile:
    """A CSV file of the answers of one classifier, a row a page.

    Its columns are those of ``classify.classify``, then how many pages the scan has,
    its checksum, and the name and checksum of the classifier.
    """

    def __init__(self, file: Path, labels: list[str], classifier: Path) -> None:
        """Name a file; nothing is read or written yet.

        Args:
            file: Where the answers go; it need not exist.
            labels: Of the classifier.
            classifier: Its file.
        """
        self.file = Path(os.path.realpath(file))
        self.labels = labels
        self.size = 0  # bytes after the last change of ours
        self.classifier = shown_name(classifier.name)
        self.classifier_sha256 = checksum(classifier)
        self.probability_columns = [f"p_{label}" for label in labels]
        self.columns = [
            "file",
            "page",
            *self.probability_columns,
            *COLUMNS_AFTER_PROBABILITIES,
            "pages",
            "sha256",
            "classifier",
            "classifier_sha256",
        ]

    def resume(self, images: list[Source]) -> dict[str, str]:
        """Make the file ready to go on with.

        Rows of scans that lack pages are taken out, and rows of those whose content is
        another one now.

        Args:
            images: All files that are to be answered.

        Returns:
            Those that have answers, as they are shown, with their problems, or "".

        Raises:
            ValueError: It is a file of others, or of another classifier, or damaged; it
                is left as it was.
        """
        rows = self._read_rows()
        asked = {shown_name(image): image for image in images}
        stored = {name: scan for name, scan in _scans(rows).items() if name in asked}
        # a command may have stopped between two pages
        whole = [name for name, scan in stored.items() if len(scan) == scan[0].pages]
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(_checksum_of, [asked[name] for name in whole]))
        finished = set()
        for name, digest in zip(whole, digests, strict=True):
            if stored[name][0].sha256 == digest:
                finished.add(name)
        again = stored.keys() - finished
        self._replace_rows([row for row in rows if row.file not in again])
        self.size = self.file.stat().st_size
        return {name: stored[name][0].problem for name in stored if name in finished}

    def append(self, answers: list[Answer]) -> None:
        """Write answers at the end of the file, after ``resume``.

        Args:
            answers: To all pages of some files.

        Raises:
            ValueError: Something else has changed the file meanwhile.
        """
        lines = [self._line(self._values(answer)) for answer in answers]
        with self.file.open("ab") as file:
            if file.tell() != self.size:
                raise ValueError(
                    f"Something else has changed '{self.file.name}' meanwhile: "
                    "let one command at a time write it, and give this one again."
                )
            file.writelines(lines)
            self.size = file.tell()

    def _values(self, answer: Answer) -> list[str]:
        """An answer as the values of a row."""
        probabilities = [answer.probabilities.get(label) for label in self.labels]
        similarity = answer.similarity if answer.probabilities else None
        return [
            answer.file,
            str(answer.page),
            *[_number(probability) for probability in probabilities],
            _number(similarity),
            answer.problem,
            str(answer.unlike),
            answer.predicted,
            answer.says,
            str(answer.pages),
            answer.sha256,
            self.classifier,
            self.classifier_sha256,
        ]

    def _line(self, values: list[str]) -> bytes:
        """A line of the file."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue().encode()

    def _read_content(self) -> bytes:
        """What is in the file; nothing where there is none."""
        if not self.file.exists():
            return b""
        if not self.file.is_file():
            raise ValueError(
                f"'{self.file.name}' is no file for answers: name another."
            )
        content = self.file.read_bytes().removeprefix(BYTE_ORDER_MARK)
        return content.replace(b"\r\n", b"\n")

    def _read_rows(self) -> list[_Row]:
        """The rows that are whole; ValueError where it is a file of something else."""
        content = self._read_content()
        header = self._line(self.columns)
        if header.startswith(content):  # empty, or cut within its first line
            return []
        if not content.startswith(header):
            holds = "holds something else than answers of this classifier"
            raise ValueError(f"'{self.file.name}' {holds}, so {OTHER_FILE}")
        # what follows the last line end was cut
        lines = content.split(b"\n")[1:-1]
        return [self._read_row(line, number) for number, line in enumerate(lines, 2)]

    def _read_row(self, line: bytes, number: int) -> _Row:
        """A row of this classifier; ValueError where it is damaged or another's."""
        try:
            cells = next(csv.reader([line.decode()], strict=True), [])
            values = dict(zip(self.columns, cells, strict=True))
            pages = int(values["pages"])
            for column in ("page", *self.probability_columns, "similarity"):
                float(values[column] or "nan")  # as empty where there is no answer
        except (ValueError, csv.Error) as error:
            place = f"Line {number} of '{self.file.name}'"
            raise ValueError(
                f"{place} is damaged: mend it, or name another file."
            ) from error
        if values["classifier_sha256"] != self.classifier_sha256:
            other = _named(values["classifier"], values["classifier_sha256"])
            own = _named(self.classifier, self.classifier_sha256)
            wrong = f"'{self.file.name}' holds answers of {other}, not of {own}"
            raise ValueError(f"{wrong}, so {OTHER_FILE}")
        return _Row(line, values["file"], pages, values["problem"], values["sha256"])

    def _replace_rows(self, rows: list[_Row]) -> None:
        """Let the file hold these rows, if it does not yet."""
        lines = [row.line + b"\n" for row in rows]
        content = self._line(self.columns) + b"".join(lines)
        if self.file.exists() and self.file.read_bytes() == content:
            return

        def write(temporary: Path) -> None:
            temporary.write_bytes(content)

        replace_file(self.file, write)


def _scans(rows: list[_Row]) -> dict[str, list[_Row]]:
    """The rows of each scan, in their order."""
    scans: dict[str, list[_Row]] = {}
    for row in rows:
        scans.setdefault(row.file, []).append(row)
    return scans


def _number(value: float | None) -> str:
    """A number with six significant digits, or ""."""
    return "" if value is None else f"{value:.6g}"


def _named(classifier: str, sha256: str) -> str:
    """The name of a classifier, with the beginning of its checksum."""
    return f"'{classifier}' (sha256 {sha256[:12]}...)"


def _checksum_of(image: Source) -> str:
    """The checksum of a file; "" for an array, or where it cannot be read."""
    if isinstance(image, np.ndarray):
        return ""
    try:
        return checksum(Path(image))
    except (OSError, ValueError):
        return ""
