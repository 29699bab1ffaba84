"""Where does a network look? The heat is that of the gradient."""

from braintumor import models
from braintumor.app import gradcam

import cv2
import keras
import numpy as np
import pytest

SCANS = np.random.default_rng(0).random((2, 96, 96, 1), dtype="float32")


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_the_heat_is_that_of_the_numerical_gradient(name, quick):
    """The slope of the class logit in the direction of the features of each place, by differences."""
    settings = quick(recipe="scratch", image_size=96)
    network = models.build_classifier(settings, name, classes=4)
    layer, hidden, last = (
        network.get_layer(part) for part in ("pooled", "hidden", "probabilities")
    )
    features, pooled = keras.Model(network.input, [layer.input, layer.output]).predict(
        SCANS, verbose=0
    )
    weights = [
        np.float64(array) for part in (hidden, last) for array in part.get_weights()
    ]

    def logits(values):
        return np.maximum(values @ weights[0] + weights[1], 0) @ weights[2] + weights[3]

    for scan, which in enumerate(logits(pooled).argmax(axis=1)):
        step = 1e-6 * np.float64(features[scan])
        slope = (logits(pooled[scan] + step) - logits(pooled[scan] - step))[
            ..., which
        ] / 2e-6
        expected = cv2.resize(
            np.float32(np.maximum(slope, 0)), (96, 96), interpolation=cv2.INTER_LINEAR
        )
        heat = gradcam.grad_cam(network, SCANS[scan : scan + 1], np.array([which]))
        assert heat.shape == (1, 96, 96) and heat.dtype == "float32" and expected.any()
        np.testing.assert_allclose(heat[0], expected / expected.max(), atol=1e-3)
