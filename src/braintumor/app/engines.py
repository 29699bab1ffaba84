"""A trained network as one file, whichever program runs it: find, check, load it."""

from pathlib import Path
from typing import NamedTuple, Protocol

from braintumor import config
from braintumor.app.cards import Card
from braintumor.support.files import checksum

import numpy as np

CHECKSUMS = "checksums.txt"  # beside released classifiers, as sha256sum writes it
# names in an ONNX file; besides HEATMAPS it gives the fields of Prediction
INPUT = "scan"  # float32 (n, size, size, 1) in [0, 1]
HEATMAPS = "heatmaps"  # float32 (n, height, width, classes): a value a feature-map cell
CARD = "card"  # the entry of its metadata that holds the card, as JSON


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

    Attributes:
        network: What the engine has loaded.
        card: Labels, frame, image_size, threshold, temperature, and its provenance.
    """

    network: object
    card: Card

    def predict(self, scans: np.ndarray) -> Prediction:
        """Answer a batch of scans, all at once."""

    def heatmaps(self, scans: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Draw Grad-CAM (arXiv:1610.02391) of one class index for each scan.

        Returns:
            float32 (n, size, size), in [0, 1]; all 0 where nothing speaks for the
            class.
        """


def load_classifier(
    place: str | Path | None = None, sha256: str | None = None
) -> Classifier:
    """Load a classifier: ``.onnx`` with ONNX Runtime, ``.keras`` with Keras.

    Args:
        place: Its file, or a URL, which is fetched once; None: the one in ``models/``.
        sha256: Its checksum; one in ``checksums.txt`` beside the file is compared
            anyway.

    Raises:
        ValueError: It is damaged, or another one than the checksum says.
        FileNotFoundError: There is none.
        ConnectionError: It cannot be fetched.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """
    if place is None:
        file = released_classifier()
    elif str(place).startswith(("http://", "https://")):
        file = _fetch(str(place), sha256)
        sha256 = None  # compared already
    else:
        file = Path(place)
    if not file.is_file():
        advice = "make one with 07_classify_a_scan."
        raise FileNotFoundError(f"There is no classifier '{file.name}': {advice}")
    _check(file, sha256)
    # each engine only where it is asked for: Keras takes seconds
    if file.suffix != ".onnx":
        from braintumor.app.keras_engine import KerasClassifier

        return KerasClassifier.load(file)
    try:
        from braintumor.app.onnx_engine import OnnxClassifier
    except ModuleNotFoundError as error:
        advice = f"pip install {error.name}"
        raise ModuleNotFoundError(
            f"'{file.name}' needs {error.name}: {advice}"
        ) from error
    return OnnxClassifier.load(file)


def released_classifier() -> Path:
    """The classifier that comes with the repository: the last one in ``checksums.txt``.

    Raises:
        FileNotFoundError: None was released, or its file is missing.
    """
    folder = config.MODELS_DIR
    place = f"{folder.name}/"
    names = list(recorded_checksums(folder))
    if not names:
        advice = "name one with --model, or make one with 07_classify_a_scan."
        raise FileNotFoundError(f"There is no classifier in {place}: {advice}")
    file = folder / names[-1]
    if not file.is_file():
        advice = f"get it back with 'git checkout {place}'."
        raise FileNotFoundError(f"'{place}{file.name}' is missing: {advice}")
    return file


def recorded_checksums(folder: Path) -> dict[str, str]:
    """The sha256 of each file that ``checksums.txt`` of a folder names, in its order."""
    table = folder / CHECKSUMS
    if not table.is_file():
        return {}
    lines = table.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return {name: digest for digest, name in pairs}


def _check(file: Path, sha256: str | None) -> None:
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


def _fetch(url: str, sha256: str | None) -> Path:
    """Get a file once over the network."""
    import keras  # takes seconds, and most files lie here

    try:
        file = keras.utils.get_file(
            origin=url, file_hash=sha256, cache_subdir="braintumor"
        )
    except Exception as error:  # Keras raises no kind of its own
        raise ConnectionError(f"The classifier cannot be fetched: {error}") from error
    return Path(file)
