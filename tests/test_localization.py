"""Where does a network look? The heat is that of the gradient, and the scores know a box when they see one."""

from braintumor import models
from braintumor.studies import localization

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SCANS = np.random.default_rng(0).random((2, 96, 96, 1), dtype="float32")


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_the_heat_is_that_of_the_numerical_gradient(name):
    """The slope of the class logit in the direction of the features of each place, by differences."""
    network = models.build_classifier(
        name,
        image_size=96,
        classes=4,
        weights="random",
        convention="centred",
        batch_norm_momentum=None,
        precision="float32",
        seed=0,
    )
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
        heat = localization.grad_cam(network, SCANS[scan : scan + 1], np.array([which]))
        assert heat.shape == (1, 96, 96) and heat.dtype == "float32" and expected.any()
        np.testing.assert_allclose(heat[0], expected / expected.max(), atol=1e-3)


def test_heat_is_highest_where_the_evidence_is():
    """A network whose only feature is brightness, and whose class 1 is 'bright'."""
    scan = keras.Input((32, 32, 1))
    features = keras.layers.AveragePooling2D(8, name="backbone")(scan)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    hidden = keras.layers.Dense(
        1, activation="relu", name="hidden", kernel_initializer="ones"
    )(pooled)
    last = keras.layers.Dense(2, activation="softmax", name="probabilities")
    network = keras.Model(scan, last(hidden))
    last.set_weights([np.array([[-1.0, 1.0]]), np.zeros(2)])
    images = np.zeros((2, 32, 32, 1), "float32")
    images[:, 16:24, 8:16] = 1  # one cell of the 4 x 4 features
    bright, dark = localization.grad_cam(network, images, np.array([1, 0]))
    assert np.unravel_index(bright.argmax(), bright.shape)[0] in range(16, 24)
    assert bright.max() == 1
    assert not dark.any()  # nothing speaks for 'dark'
    box = np.array([[8, 16, 8, 8]] * 2, float)
    scores = localization.localise(np.stack([bright, dark]), box)
    assert scores["hit"].tolist() == [1, 0]
    assert scores.loc[0, "share"] > 0.4 and scores.loc[0, "iou"] > 0.6
    assert (scores.loc[1] == 0).all()


@settings(max_examples=50)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(1, 16), st.integers(1, 16))
def test_heat_that_is_the_box_scores_full_marks_and_even_heat_its_share_of_the_area(
    x, y, width, height
):
    box = np.array([[x, y, min(width, 16 - x), min(height, 16 - y)]], float)
    exact, even = np.zeros((1, 16, 16)), np.ones((1, 16, 16))
    exact[0, y : y + height, x : x + width] = 1
    assert localization.localise(exact, box).loc[0].tolist() == [1, 1, 1]
    area = box[0, 2] * box[0, 3] / 256
    assert localization.localise(even, box).loc[0].tolist() == pytest.approx(
        [area] * 3
    )  # every pixel is the warmest


def test_a_heat_map_of_few_fields_meets_a_field_and_misses_what_lies_between():
    boxes = np.array(
        [[32, 32, 32, 32], [28, 28, 8, 8]], float
    )  # a field of the 4 x 4, and the corner of four
    tumours = localization.in_boxes(boxes, 128)
    assert localization.localise(tumours.astype(float), boxes)["hit"].tolist() == [1, 1]
    coarse = localization.localise(localization.on_fields(tumours, 4), boxes)["hit"]
    assert coarse[0] == 1 and coarse[1] < 0.1


def test_the_centre_of_the_image_is_not_to_one_side_on_an_even_number_of_fields():
    bump = np.hanning(130)[1:-1]
    heat = localization.on_fields([np.outer(bump, bump)] * 4, 4)
    corners = np.array([[x, y, 64, 64] for x in (0, 64) for y in (0, 64)], float)
    assert localization.localise(heat, corners)["hit"].tolist() == pytest.approx(
        [0.25] * 4
    )
