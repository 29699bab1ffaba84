"""Where does a network look, and do the scores know a tumor when they see one?"""

from braintumor.studies import localization

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
