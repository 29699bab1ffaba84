"""Where does a network look, and do the scores know a tumor when they see one?"""

from braintumor import models
from braintumor.studies import localization

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SCANS = np.random.default_rng(0).random((2, 96, 96, 1), dtype="float32")


def scores_of(heatmap, box):
    """hit, share and iou of one heatmap (size, size) and one box (x, y, w, h)."""
    heatmaps = np.asarray(heatmap, float)[np.newaxis]
    boxes = np.array([box], float)
    return localization.localize(heatmaps, boxes).loc[0]


@st.composite
def boxes_in_16_px(draw):
    """x, y, width, height of a box inside a square of 16 px."""
    x = draw(st.integers(0, 15))
    y = draw(st.integers(0, 15))
    width = draw(st.integers(1, 16 - x))
    height = draw(st.integers(1, 16 - y))
    return x, y, width, height


@settings(max_examples=50)
@given(boxes_in_16_px())
def test_a_heatmap_that_is_the_box_scores_1(box):
    x, y, width, height = box
    heatmap = np.zeros((16, 16))
    heatmap[y : y + height, x : x + width] = 1
    assert scores_of(heatmap, box).tolist() == [1, 1, 1]


@settings(max_examples=50)
@given(boxes_in_16_px())
def test_an_even_heatmap_scores_the_share_of_the_area(box):
    """Every pixel is the largest, so even the hit is a share."""
    _, _, width, height = box
    area = width * height / 16**2
    assert scores_of(np.ones((16, 16)), box).tolist() == pytest.approx([area] * 3)


def test_an_empty_heatmap_scores_0():
    assert scores_of(np.zeros((16, 16)), (4, 4, 8, 8)).tolist() == [0, 0, 0]


def test_only_the_largest_value_counts_as_a_hit():
    heatmap = np.zeros((16, 16))
    heatmap[2, 2] = 0.9
    heatmap[12, 12] = 1
    around_the_second_largest = (0, 0, 4, 4)
    assert scores_of(heatmap, around_the_second_largest)["hit"] == 0
    around_the_largest = (10, 10, 4, 4)
    assert scores_of(heatmap, around_the_largest)["hit"] == 1


def test_pixels_are_in_a_box_by_their_centers():
    inside = localization.in_boxes(np.array([[1.4, 0, 2, 1]]), size=4)
    assert inside[0].astype(int).tolist() == [
        [0, 1, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


# --- the resolution of a feature map ---


def test_at_4_x_4_cells_a_tumor_in_a_cell_is_hit_and_one_between_cells_missed():
    one_cell = [32, 32, 32, 32]
    corner_of_four_cells = [28, 28, 8, 8]
    boxes = np.array([one_cell, corner_of_four_cells], float)
    tumors = localization.in_boxes(boxes, 128)
    fine = localization.localize(tumors.astype(float), boxes)
    coarse = localization.average_over_cells(tumors, cells=4)
    hit_cell, hit_corner = localization.localize(coarse, boxes)["hit"]
    assert fine["hit"].tolist() == [1, 1]
    assert hit_cell == 1
    assert hit_corner < 0.1


def test_with_an_even_number_of_cells_the_center_of_a_scan_is_in_no_quarter():
    bump = np.hanning(130)[1:-1]
    in_the_center = [np.outer(bump, bump)] * 4
    heatmaps = localization.average_over_cells(in_the_center, cells=4)
    quarters = [[x, y, 64, 64] for x in (0, 64) for y in (0, 64)]
    hits = localization.localize(heatmaps, np.array(quarters, float))["hit"]
    assert hits.tolist() == pytest.approx([0.25] * 4)


# --- heatmaps and their baselines ---


def test_the_fine_heatmap_is_that_of_the_numerical_gradient(quick):
    """The mean gradient of a channel is the slope of the logit as the whole channel rises."""
    network = models.build_classifier(
        quick(recipe="scratch", image_size=96), "vgg16", classes=4
    )
    base = network.get_layer("backbone")
    convolution = keras.Model(base.inputs, base.get_layer("block5_conv3").output)
    scaled = network.get_layer("centred_convention").output
    layers = [convolution(scaled), network.get_layer("pooled").output]
    features, pooled = keras.Model(network.inputs, layers).predict(SCANS, verbose=0)
    hidden, last = (
        [np.float64(array) for array in network.get_layer(name).get_weights()]
        for name in ("hidden", "probabilities")
    )

    def logits(values):
        return np.maximum(values @ hidden[0] + hidden[1], 0) @ last[0] + last[1]

    classes = logits(pooled).argmax(axis=1)
    heatmaps = localization.fine_grad_cam(network, SCANS, classes)
    step = 1e-6 * np.eye(pooled.shape[1])
    for scan, which in enumerate(classes):
        rise = logits(pooled[scan] + step) - logits(pooled[scan] - step)
        evidence = features[scan] @ rise[:, which]
        assert evidence.shape == (6, 6)
        expected = cv2.resize(np.float32(np.maximum(evidence, 0)), (96, 96))
        np.testing.assert_allclose(heatmaps[scan], expected / expected.max(), atol=1e-3)


def test_the_center_of_the_head_is_where_the_head_is():
    images = np.zeros((1, 32, 32, 1), "float32")
    images[0, 4:15, 10:31] = 1
    (bump,) = localization.head_centers(images)
    assert np.unravel_index(bump.argmax(), bump.shape) == (9, 20)
    assert bump[:4].max() == 0 and bump[4:15, 10:31].min() > 0


@pytest.mark.parametrize(("fine", "cells"), [(False, 3), (True, 6)])
def test_baselines_have_the_resolution_of_the_heatmap(quick, fine, cells):
    network = models.build_classifier(
        quick(recipe="scratch", image_size=96), "vgg16", classes=4
    )
    boxes = np.array([[10, 20, 30, 20], [50, 40, 20, 30]], float)
    classes = np.array([0, 1])
    maps = localization.compare_with_baselines(
        network, network, SCANS, boxes, classes, classes, fine
    )
    assert list(maps) == ["trained", "untrained", "head center", "oracle"]
    oracle = localization.average_over_cells(localization.in_boxes(boxes, 96), cells)
    np.testing.assert_array_equal(maps["oracle"], oracle)
    np.testing.assert_array_equal(maps["trained"], maps["untrained"])
