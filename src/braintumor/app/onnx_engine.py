"""A classifier file of ONNX, which answers without Keras, a second after it is asked."""

import json
from pathlib import Path
from typing import NamedTuple, Self

from braintumor.app.cards import Card
from braintumor.app.engines import CARD, HEATMAPS, INPUT, Prediction
from braintumor.app.gradcam import heatmaps_from
from braintumor.support.files import read_file

import numpy as np
import onnxruntime

ERRORS_ONLY = 3
PART = 64  # scans whose heatmaps are made at once


class OnnxClassifier(NamedTuple):
    """See ``engines.Classifier``; its file is one of ``release.write_onnx``."""

    network: onnxruntime.InferenceSession
    card: Card

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a file of ``release.write_onnx``; ValueError where it is none."""
        network = read_file(file, _open)
        metadata = network.get_modelmeta().custom_metadata_map
        if CARD not in metadata:
            raise ValueError(
                f"'{file.name}' has no card, so nothing is known of its labels: "
                "take a file that tools/release_classifier.py wrote."
            )
        return cls(network, json.loads(metadata[CARD]))

    def predict(self, scans: np.ndarray) -> Prediction:
        """See ``engines.Classifier``."""
        return Prediction(*self.network.run(Prediction._fields, {INPUT: scans}))

    def heatmaps(self, scans: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """See ``engines.Classifier``."""
        parts = np.array_split(scans, -(-len(scans) // PART))
        maps = [self.network.run([HEATMAPS], {INPUT: part})[0] for part in parts]
        rows = np.arange(len(scans))
        evidence = np.concatenate(maps)[rows, :, :, classes]
        return heatmaps_from(evidence, scans.shape[1])


def _open(file):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(file), options, providers=providers)
