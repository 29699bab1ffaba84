"""A classifier file of Keras."""

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple, Self

from braintumor.app.cards import Card, check_fit, read_card
from braintumor.app.engines import Prediction
from braintumor.app.gradcam import grad_cam

import keras
import numpy as np

KERAS_ENDING = ".keras"
CARD_FILE = "card.json"  # in the archive


class KerasClassifier(NamedTuple):
    """See ``engines.Classifier``; its network is one of ``release.with_detector``."""

    network: keras.Model
    card: Card

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a classifier.

        Args:
            file: One of ``release.package``.

        Returns:
            The classifier.

        Raises:
            ValueError: It is damaged, or a file of others.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                is_whole = archive.testzip() is None
                has_card = CARD_FILE in archive.namelist()
                text = archive.read(CARD_FILE) if is_whole and has_card else b""
        except zipfile.BadZipFile:
            is_whole = False
        if not is_whole:
            raise ValueError(f"'{file.name}' is damaged: get it again.")
        if not has_card:
            raise ValueError(
                f"'{file.name}' has no card, so nothing is known of its labels: "
                "take one that tools/release_classifier.py made."
            )
        card = read_card(text, file.name)
        network = _load_network(file)
        probabilities = network.output["probabilities"]
        check_fit(card, file.name, network.input_shape, probabilities.shape)
        return cls(network, card)

    def predict(self, scans: np.ndarray) -> Prediction:
        """See ``engines.Classifier``."""
        outputs = self.network(scans, training=False)
        parts = [outputs[name] for name in Prediction._fields]
        return Prediction(*map(keras.ops.convert_to_numpy, parts))

    def heatmaps(self, scans: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """See ``engines.Classifier``."""
        return grad_cam(self.network, scans, classes)


def _load_network(file: Path) -> keras.Model:
    """The network in a file that is whole; ValueError where it is none of ours."""
    try:
        network = _load_under_any_name(file)
    except Exception as error:  # Keras raises no kind of its own
        program = f"Keras {keras.__version__}"
        kind = type(error).__name__
        raise ValueError(
            f"'{file.name}' holds no network that {program} loads ({kind})."
        ) from error
    outputs = getattr(network, "output", None)  # which not every model has
    if not isinstance(outputs, dict) or not set(Prediction._fields) <= set(outputs):
        raise ValueError(f"'{file.name}' holds a network that is no classifier.")
    return network


def _load_under_any_name(file: Path) -> keras.Model:
    """Load a network; Keras itself insists on the ending."""
    if file.suffix == KERAS_ENDING:
        return keras.saving.load_model(file)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"network{KERAS_ENDING}"
        shutil.copyfile(file, copy)
        return keras.saving.load_model(copy)
