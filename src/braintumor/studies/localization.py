"""Where does a network look? Heatmaps, and how well they meet the tumor."""

from collections.abc import Sequence

from braintumor.app.gradcam import upsample

import cv2
import numpy as np
import pandas as pd


def average_over_cells(
    maps: np.ndarray | Sequence[np.ndarray], cells: int
) -> np.ndarray:
    """Show maps at the resolution of a feature map.

    No Grad-CAM heatmap of so many cells can match the maps better. Its largest values
    lie in the middle of a cell or at the border, so it can miss what lies between.

    Args:
        maps: (n, size, size).
        cells: Width and height of the feature map.

    Returns:
        float32 (n, size, size).
    """
    size = len(maps[0])
    shape = (cells, cells)
    means = []
    for one in maps:
        values = np.asarray(one, np.float32)
        mean = cv2.resize(values, shape, interpolation=cv2.INTER_AREA)
        means.append(mean)
    return upsample(means, size)


def in_boxes(boxes: np.ndarray, size: int) -> np.ndarray:
    """Mark the pixels whose centers are in boxes.

    Args:
        boxes: (n, 4): x, y, width, height (px).
        size: Width and height of the scans (px).

    Returns:
        bool (n, size, size).
    """
    centers = np.arange(size) + 0.5
    columns = centers[np.newaxis, np.newaxis, :]
    rows = centers[np.newaxis, :, np.newaxis]
    x, y, width, height = boxes.T[:, :, np.newaxis, np.newaxis]
    in_columns = (columns >= x) & (columns < x + width)
    in_rows = (rows >= y) & (rows < y + height)
    return in_columns & in_rows


def localize(heat: np.ndarray, boxes: np.ndarray) -> pd.DataFrame:
    """Score how well heatmaps meet tumor boxes.

    Args:
        heat: Heatmaps (n, size, size), 0 or more.
        boxes: (n, 4): x, y, width, height (px).

    Returns:
        One row a heatmap, 0 where it is 0 everywhere:
        ``hit``: 1 if its largest value is in the box (the pointing game,
        arXiv:1608.00507); where several pixels have it, the share of them in the box.
        ``share``: The share of all heat that is in the box.
        ``iou``: Intersection over union of the box and the pixels with at least half of
        the largest value.
    """
    size = len(heat[0])
    inside = in_boxes(boxes, size)
    largest = heat.max(axis=(1, 2), keepdims=True)
    any_heat = largest > 0

    maxima = any_heat & (heat >= largest * (1 - 1e-6))
    maxima_inside = _count(maxima & inside)
    hit = maxima_inside / np.maximum(_count(maxima), 1)

    total = heat.sum(axis=(1, 2))
    total_or_one = np.where(total > 0, total, 1)
    share = (heat * inside).sum(axis=(1, 2)) / total_or_one

    strong = any_heat & (heat >= largest * 0.5)
    intersection = _count(strong & inside)
    union = _count(strong | inside)
    iou = intersection / np.maximum(union, 1)
    return pd.DataFrame({"hit": hit, "share": share, "iou": iou})


def _count(mask: np.ndarray) -> np.ndarray:
    """How many pixels of each mask are true: (n,)."""
    return mask.sum(axis=(1, 2))
