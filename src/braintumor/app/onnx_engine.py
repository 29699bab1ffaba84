"""A classifier file of ONNX, which answers without Keras, within a second."""

import os
from pathlib import Path
from typing import NamedTuple, Self

from braintumor.app.cards import Card, check_fit, read_card
from braintumor.app.engines import CARD, HEATMAPS, INPUT, Prediction
from braintumor.app.gradcam import HEATMAPS_AT_ONCE, heatmaps_from

import numpy as np
import onnxruntime

ERRORS_ONLY = 3


class OnnxClassifier(NamedTuple):
    """See ``engines.Classifier``; its file is one of ``release.write_onnx``."""

    network: onnxruntime.InferenceSession
    card: Card

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a classifier.

        Args:
            file: One of ``release.write_onnx``.

        Returns:
            The classifier.

        Raises:
            ValueError: It is damaged, or a file of others.
        """
        network = _open_session(file)
        metadata = network.get_modelmeta().custom_metadata_map
        if CARD not in metadata:
            raise ValueError(
                f"'{file.name}' has no card, so nothing is known of its labels: "
                "take a file that tools/release_classifier.py wrote."
            )
        card = read_card(metadata[CARD], file.name)
        inputs = {one.name: one.shape for one in network.get_inputs()}
        outputs = {one.name: one.shape for one in network.get_outputs()}
        if set(inputs) != {INPUT} or set(outputs) != {*Prediction._fields, HEATMAPS}:
            raise ValueError(f"'{file.name}' holds a network that is no classifier.")
        check_fit(card, file.name, inputs[INPUT], outputs["probabilities"])
        return cls(network, card)

    def predict(self, scans: np.ndarray) -> Prediction:
        """See ``engines.Classifier``."""
        return Prediction(*self.network.run(Prediction._fields, {INPUT: scans}))

    def heatmaps(self, scans: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """See ``engines.Classifier``."""
        parts_count = -(-len(scans) // HEATMAPS_AT_ONCE)
        maps = []
        for part in np.array_split(scans, parts_count):
            maps.append(self.network.run([HEATMAPS], {INPUT: part})[0])
        scan_index = np.arange(len(scans))
        evidence = np.concatenate(maps)[scan_index, :, :, classes]
        return heatmaps_from(evidence, scans.shape[1])


def _open_session(file: Path) -> onnxruntime.InferenceSession:
    """The network in a file, on the CPU; ValueError where there is none."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = _threads()
    providers = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # ONNX Runtime has many kinds
        raise ValueError(
            f"'{file.name}' is no ONNX file, or it is damaged: get it again."
        ) from error


def _threads() -> int:
    """How many threads answer; 0 leaves it to ONNX Runtime.

    Where this process may not use all processors, as in a container or on a cluster,
    ONNX Runtime would bind threads to others, which fails.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    usable = len(os.sched_getaffinity(0))
    return usable if usable < (os.cpu_count() or 1) else 0
