"""A classifier file of Keras."""

import json
import zipfile
from pathlib import Path
from typing import NamedTuple, Self

from braintumor.app.cards import Card
from braintumor.app.engines import Prediction
from braintumor.app.gradcam import grad_cam
from braintumor.support.files import read_file, read_model

import keras
import numpy as np


class KerasClassifier(NamedTuple):
    """See ``engines.Classifier``; its network is one of ``release.with_detector``."""

    network: keras.Model
    card: Card

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a file of ``release.package``; ValueError where it is none."""
        card = read_file(file, _read_card)
        return cls(read_model(file, keras.saving.load_model), card)

    def predict(self, scans: np.ndarray) -> Prediction:
        """See ``engines.Classifier``."""
        outputs = self.network(scans, training=False)
        parts = [outputs[name] for name in Prediction._fields]
        return Prediction(*map(keras.ops.convert_to_numpy, parts))

    def heatmaps(self, scans: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """See ``engines.Classifier``."""
        return grad_cam(self.network, scans, classes)


def _read_card(file):
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("card.json"))
