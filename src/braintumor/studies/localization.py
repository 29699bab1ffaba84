"""Where does a network look? Heatmaps, and how well they meet the tumor."""

from collections.abc import Sequence

from braintumor import plots
from braintumor.app.gradcam import (
    activations,
    evidence_for,
    grad_cam,
    heatmaps_from,
    upsample,
)
from braintumor.images import head_frame
from braintumor.metrics import mean_interval, with_bounds

import cv2
import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

BEFORE_LAST_POOLING = {"vgg16": "block5_conv3"}  # the last convolution of a backbone


def fine_grad_cam(
    model: keras.Model, images: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Make Grad-CAM heatmaps from the last convolution, before the last max pooling.

    Max pooling hands the gradient of a cell to one of the cells that it looks at. So
    the mean of the gradient over a channel, its weight in Grad-CAM, is the same before
    and after the pooling but for a factor that all channels share, and has the closed
    form of ``gradcam.evidence_for``. Only the map is finer.

    Args:
        model: A classifier on a backbone of ``BEFORE_LAST_POOLING``.
        images: (n, size, size, 1), in [0, 1].
        classes: Class indices, shape (n,).

    Returns:
        float32 (n, size, size), largest value 1; all 0 where no feature speaks for the
        class.
    """
    base = model.get_layer("backbone")
    (scaling,) = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)
    ]
    last_convolution = base.get_layer(BEFORE_LAST_POOLING[model.name]).output
    before_pooling = keras.Model(base.inputs, last_convolution)
    hidden = model.get_layer("hidden")
    watched = keras.Model(model.inputs, [before_pooling(scaling.output), hidden.output])
    features, hidden_units = activations(watched, images)
    evidence = evidence_for(model, features, hidden_units, classes)
    return heatmaps_from(evidence, images.shape[1])


def compare_with_baselines(
    trained: keras.Model,
    untrained: keras.Model,
    images: np.ndarray,
    boxes: np.ndarray,
    predicted: np.ndarray,
    labels: np.ndarray,
    fine: bool = False,
) -> dict[str, np.ndarray]:
    """Make the heatmaps of a network, and those of its baselines at their resolution.

    Args:
        trained: A classifier.
        untrained: The same before training.
        images: (n, size, size, 1), in [0, 1].
        boxes: (n, 4): x, y, width, height (px) of tumors.
        predicted: Class indices, shape (n,), as the trained classifier predicts them.
        labels: True class indices, shape (n,).
        fine: Whether the maps are those of ``fine_grad_cam``.

    Returns:
        float32 (n, size, size) each. ``trained``: of the predicted class.
        ``untrained``: of the true class. ``head center``: a bump in the middle of the
        head. ``oracle``: the boxes.
    """
    size = images.shape[1]
    base = trained.get_layer("backbone")
    method = fine_grad_cam if fine else grad_cam
    layer = BEFORE_LAST_POOLING[trained.name] if fine else base.layers[-1].name
    cells = base.get_layer(layer).output.shape[1]
    return {
        "trained": method(trained, images, predicted),
        "untrained": method(untrained, images, labels),
        "head center": average_over_cells(head_centers(images), cells),
        "oracle": average_over_cells(in_boxes(boxes, size), cells),
    }


def head_centers(images: np.ndarray) -> np.ndarray:
    """Draw a bump in the middle of each head, as wide and as high as the head.

    Args:
        images: (n, size, size, 1), in [0, 1].

    Returns:
        float32 (n, size, size), a Hann window over the ``images.head_frame``.
    """
    bumps = np.zeros(images.shape[:3], "float32")
    for bump, image in zip(bumps, images, strict=True):
        x, y, width, height = head_frame(image[..., 0])
        # without the zeros at the ends of the window
        rows = np.hanning(height + 2)[1:-1]
        columns = np.hanning(width + 2)[1:-1]
        bump[y : y + height, x : x + width] = np.outer(rows, columns)
    return bumps


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


def mean_scores(scores: pd.DataFrame, groups: pd.Series) -> dict[str, float]:
    """Average scores over scans, with 95% intervals over groups.

    Args:
        scores: Of ``localize``.
        groups: The group of each scan.

    Returns:
        ``n``, then ``hit``, ``hit_low``, ``hit_high`` and so on; without scans ``n``
        alone.
    """
    if scores.empty:
        return {"n": 0}
    measures = list(scores.columns)
    bounds = [mean_interval(scores[measure], groups) for measure in measures]
    table = pd.DataFrame(bounds, measures, ["value", "low", "high"])
    return {"n": len(scores), **with_bounds(table, measures)}


def _count(mask: np.ndarray) -> np.ndarray:
    """How many pixels of each mask are true: (n,)."""
    return mask.sum(axis=(1, 2))


def draw_hits(table: pd.DataFrame, *, title: str, banner: str, footnote: str) -> Figure:
    """Draw the pointing game: a panel for each map, a line for each kind of heat.

    Args:
        table: One row a map and kind of heat: ``map`` (its first word names the
            network), ``heat`` (``trained`` or a baseline), ``hit``, ``hit_low``,
            ``hit_high``.
        title: The message of the figure.
        banner: A warning, or nothing.
        footnote: A sentence below.

    Returns:
        The figure.
    """
    maps = table.groupby("map", sort=False)
    figure, panels = plots.base_figure(
        title, banner, 2.5, 1, len(maps), footnote, sharey=True
    )
    for axes, (name, rows) in zip(panels, maps, strict=True):
        network = name.split()[0].lower()
        for y, row in enumerate(rows.itertuples()):
            is_network = row.heat == "trained"
            color = plots.MODEL_COLORS[network] if is_network else plots.GRAY
            axes.plot([row.hit_low, row.hit_high], [y, y], color=color, linewidth=2)
            axes.plot(row.hit, y, "o", color=color, markersize=8)
            axes.annotate(
                plots.percent(row.hit),
                (row.hit, y),
                (0, 7),
                textcoords="offset points",
                ha="center",
                size=plots.SMALL,
                color=color,
            )
        axes.set_yticks(range(len(rows)), rows["heat"])
        axes.set(xlim=(-0.04, 1.04), ylim=(len(rows) - 0.6, -0.7))
        axes.set_xlabel("share of hits")
        axes.xaxis.set_major_formatter(plots.percent)
        axes.grid(axis="x", color=plots.PALE, linewidth=0.5)
        axes.set_title(name, size=10, weight="bold")
    return figure
