"""A trained network as one file, whichever program runs it: find, check, load it."""

import re
from pathlib import Path
from typing import NamedTuple, Protocol

from braintumor import config
from braintumor.app import remote
from braintumor.app.cards import Card
from braintumor.images import LFS_BEGINNING, LFS_POINTER
from braintumor.support.files import checksum

import numpy as np

CHECKSUMS = "checksums.txt"  # beside released classifiers, as sha256sum writes it
# names in an ONNX file; besides HEATMAPS it gives the fields of Prediction
INPUT = "scan"  # float32 (n, size, size, 1) in [0, 1]
HEATMAPS = "heatmaps"  # float32 (n, height, width, classes): a value a feature-map cell
CARD = "card"  # the entry of its metadata that holds the card, as JSON
KERAS_BEGINNING = b"PK"  # of a zip archive
ONNX_BEGINNING = b"\x08"
# what people take for a classifier, by its first bytes
FOREIGN_BEGINNINGS = {
    b"\x89HDF": "an HDF5 file",
    LFS_BEGINNING: LFS_POINTER,
    b"<": "a web page: take the address of the file itself",
}


class Prediction(NamedTuple):
    """What a network says of a batch of scans.

    Attributes:
        probabilities: float32 (n, classes), calibrated on validation scans.
        similarity: float32 (n,), -1 to 1, to the most similar training scan.
    """

    probabilities: np.ndarray
    similarity: np.ndarray


class Classifier(Protocol):
    """A network and its card, as ``load_classifier`` gives them.

    Scans are float32 (n, size, size, 1) in [0, 1], as ``ScanSequence`` yields them.
    """

    @property
    def network(self) -> object:
        """What the engine has loaded."""

    @property
    def card(self) -> Card:
        """What is known of the network."""

    def predict(self, scans: np.ndarray) -> Prediction:
        """Answer a batch of scans, all at once."""

    def heatmaps(self, scans: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Draw Grad-CAM (arXiv:1610.02391) of one class index for each scan.

        Args:
            scans: A batch.
            classes: Shape (n,).

        Returns:
            float32 (n, size, size), in [0, 1]; all 0 where nothing speaks for the
            class.
        """


def load_classifier(
    place: str | Path | None = None, sha256: str | None = None
) -> Classifier:
    """Load a classifier: an ONNX file with ONNX Runtime, a Keras file with Keras.

    Args:
        place: Its file, or a URL, which is fetched once; None: the one in ``models/``.
        sha256: Its checksum; one in ``checksums.txt`` beside the file is compared
            anyway.

    Returns:
        The classifier.

    Raises:
        ValueError: It is damaged, no classifier, or another one than the checksum says.
        FileNotFoundError: There is none.
        ConnectionError: It cannot be fetched.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """
    return open_classifier(find_classifier(place, sha256))


def find_classifier(place: str | Path | None = None, sha256: str | None = None) -> Path:
    """Find the file of a classifier, and compare it with its checksums.

    Args:
        place: Its file, or a URL, which is fetched once; None: the one in ``models/``.
        sha256: Its checksum; that in ``checksums.txt`` beside it is compared anyway.

    Returns:
        The file.

    Raises:
        ValueError: It is another one than the checksum says, or that is no checksum.
        FileNotFoundError: There is none.
        ConnectionError: It cannot be fetched.
    """
    digest = parse_sha256(sha256) if sha256 else None
    if place is None:
        file = released_classifier()
    elif str(place).lower().startswith(("http://", "https://")):
        return remote.fetch(str(place), digest, open_classifier)
    else:
        file = Path(place).expanduser()
    if not file.is_file():
        advice = "make one with tools/release_classifier.py."
        raise FileNotFoundError(f"There is no classifier '{file.name}': {advice}")
    _compare_checksums(file, digest)
    return file


def open_classifier(file: Path) -> Classifier:
    """Load a classifier with the program that its content asks for.

    Args:
        file: One of ``release.package`` or ``release.write_onnx``, whatever its name.

    Returns:
        The classifier.

    Raises:
        ValueError: It is damaged, or no classifier; says what it is.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """
    with file.open("rb") as content:
        beginning = content.read(64)
    foreign = _foreign_kind(beginning)
    if foreign:
        raise ValueError(f"'{file.name}' is no classifier: it is {foreign}.")
    # each engine only where it is asked for: Keras takes seconds
    if beginning.startswith(KERAS_BEGINNING):
        from braintumor.app.keras_engine import KerasClassifier

        return KerasClassifier.load(file)
    if file.suffix.lower() != ".onnx" and not beginning.startswith(ONNX_BEGINNING):
        advice = "take one that tools/release_classifier.py made."
        raise ValueError(f"'{file.name}' is no classifier: {advice}")
    try:
        from braintumor.app.onnx_engine import OnnxClassifier
    except ModuleNotFoundError as error:
        advice = f"pip install {error.name}"
        raise ModuleNotFoundError(
            f"'{file.name}' needs {error.name}: {advice}"
        ) from error
    return OnnxClassifier.load(file)


def _foreign_kind(beginning: bytes) -> str:
    """What a file is, if it is known to be no classifier, or ""."""
    beginning = beginning.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not beginning:
        return "empty"
    for known, kind in FOREIGN_BEGINNINGS.items():
        if beginning.startswith(known):
            return kind
    return ""


def released_classifier() -> Path:
    """Find the classifier of the repository: the last one in ``checksums.txt``.

    Returns:
        Its file.

    Raises:
        FileNotFoundError: None was released, or its file is missing.
    """
    folder = config.MODELS_DIR
    place = f"{folder.name}/"
    names = list(recorded_checksums(folder))
    if not names:
        advice = "name one with --model, or make one with tools/release_classifier.py."
        raise FileNotFoundError(f"There is no classifier in {place}: {advice}")
    file = folder / names[-1]
    if not file.is_file():
        advice = f"get it back with 'git checkout {place}'."
        raise FileNotFoundError(f"'{place}{file.name}' is missing: {advice}")
    return file


def parse_sha256(text: str) -> str:
    """Read a checksum as people copy it.

    Args:
        text: 64 hexadecimal digits in any case, alone, behind ``sha256:``, or in a line
            of ``sha256sum`` or ``shasum``.

    Returns:
        The digits in lower case.

    Raises:
        ValueError: There are no such digits, or several.
    """
    found = re.findall(r"\b[0-9a-f]{64}\b", text.lower())
    if len(found) != 1:
        raise ValueError(f"'{text}' is no sha256: it has 64 hexadecimal digits.")
    return found[0]


def recorded_checksums(folder: Path) -> dict[str, str]:
    """Read ``checksums.txt`` of a folder.

    Args:
        folder: Where it may lie.

    Returns:
        The sha256 of each file that it names, in its order; empty where it is missing.
    """
    table = folder / CHECKSUMS
    if not table.is_file():
        return {}
    recorded = {}
    for line in table.read_text(encoding="utf-8").splitlines():
        if line.strip():
            digest, name = line.split(maxsplit=1)
            # a star before the name says that the file was read as it is
            recorded[name.strip().removeprefix("*")] = digest.lower()
    return recorded


def _compare_checksums(file: Path, sha256: str | None) -> None:
    """Compare a file with the checksum asked for, and with the one recorded for it."""
    recorded = recorded_checksums(file.parent).get(file.name)
    if not sha256 and not recorded:
        return
    found = checksum(file)
    if sha256 and found != sha256:
        wrong = f"'{file.name}' does not have the checksum {sha256[:12]}..."
        raise ValueError(f"{wrong}: get it again.")
    if recorded and found != recorded:
        place = f"{file.parent.name}/"
        wrong = f"'{place}{file.name}' was changed since its release"
        raise ValueError(f"{wrong}: get it back with 'git checkout {place}'.")
