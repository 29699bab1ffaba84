"""How little has to change in a scan to change what a network predicts?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from braintumor import plots
from braintumor.metrics import mean_interval

import keras
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import ndimage

SCANS_AT_ONCE = 32  # are predicted together
# where nearly all predictions are one class, accuracy is the share of that class
CONSTANT = 0.95


def shift(image: np.ndarray, percent: float) -> np.ndarray:
    """Move an image to the right; its edge is repeated.

    Args:
        image: (size, size), in [0, 1].
        percent: Of the side.

    Returns:
        The changed image, as for all changes: (size, size), in [0, 1].
    """
    columns = percent / 100 * image.shape[1]
    return ndimage.shift(image, (0, columns), order=1, mode="nearest")


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn an image counterclockwise; its edge is repeated."""
    return ndimage.rotate(image, degrees, reshape=False, order=1, mode="nearest")


def flip(image: np.ndarray, kind: float) -> np.ndarray:
    """Mirror an image: 0 not at all, 1 left and right, 2 up and down."""
    if kind == 0:
        return image
    return np.flip(image, axis=2 - int(kind))


def blur(image: np.ndarray, percent: float) -> np.ndarray:
    """Smooth an image with a Gaussian of so many percent of the side."""
    return ndimage.gaussian_filter(image, percent / 100 * image.shape[1])


def add_noise(image: np.ndarray, percent: float) -> np.ndarray:
    """Add normal noise of so many percent of white, the same for all images."""
    noise = np.random.default_rng(0).normal(size=image.shape)
    changed = image + noise.astype("float32") * (percent / 100)
    return np.clip(changed, 0, 1)


def change_contrast(image: np.ndarray, percent: float) -> np.ndarray:
    """Scale the differences from the mean intensity; 100 changes nothing."""
    mean = image.mean()
    return np.clip(mean + (image - mean) * (percent / 100), 0, 1)


@dataclass(frozen=True)
class Change:
    """A kind of change, in growing strength.

    Attributes:
        name: With its unit.
        strengths: To evaluate.
        unchanged: The strength that leaves an image as it is.
        apply: Takes an image (size, size) in [0, 1], and a strength.
        labels: Names of the strengths, where they are kinds and no numbers.
    """

    name: str
    strengths: tuple[float, ...]
    unchanged: float
    apply: Callable[[np.ndarray, float], np.ndarray]
    labels: tuple[str, ...] = ()

    def describe(self, strength: float) -> str:
        """Name one strength, such as ``blur 2`` or ``mirrored``."""
        if self.labels:
            return self.labels[self.strengths.index(strength)]
        kind, _, _ = self.name.partition(" (")
        return f"{kind} {strength:g}"


SHIFT = Change("shift (% of the side)", (0, 5, 10, 20), 0, shift)
ROTATION = Change("rotation (degrees)", (0, 10, 20, 45), 0, rotate)
FLIP = Change(
    "flip (1: sides, 2: upside down)",
    strengths=(0, 1, 2),
    unchanged=0,
    apply=flip,
    labels=("none", "mirrored", "upside down"),
)
BLUR = Change("blur (sigma, % of the side)", (0, 0.5, 1, 2), 0, blur)
NOISE = Change("noise (deviation, % of white)", (0, 2, 5, 10), 0, add_noise)
CONTRAST = Change("contrast (%)", (25, 50, 100, 150), 100, change_contrast)
CHANGES = [SHIFT, ROTATION, FLIP, BLUR, NOISE, CONTRAST]


def change_scans(scans: np.ndarray, change: Change, strength: float) -> np.ndarray:
    """Apply one change to all scans.

    Args:
        scans: (n, size, size, 1), float32 in [0, 1].
        change: A kind of change.
        strength: One of its strengths.

    Returns:
        The changed scans, of the same shape and dtype.
    """
    changed = [change.apply(scan[..., 0], strength) for scan in scans]
    return np.stack(changed).astype("float32")[..., np.newaxis]


def evaluate_changes(
    network: keras.Model,
    scans: np.ndarray,
    labels: pd.Series,
    groups: pd.Series,
    changes: Sequence[Change] = CHANGES,
) -> pd.DataFrame:
    """Evaluate a network on scans after each change.

    Args:
        network: A classifier.
        scans: (n, size, size, 1), float32 in [0, 1].
        labels: The class index of each scan, index 0 to n - 1.
        groups: Their groups, likewise.
        changes: The changes.

    Returns:
        One row a change and strength, with 95% intervals over groups. ``change``,
        ``strength``, ``described`` (both as words); ``accuracy``, ``low``, ``high``;
        ``difference`` (to the unchanged scans, in pairs), ``difference_low``,
        ``difference_high``; ``most_frequent`` (the class index predicted most often),
        ``most_frequent_share`` (of the scans).
    """
    predictions_unchanged = _predict_classes(network, scans)
    hits_unchanged = (labels == predictions_unchanged).astype(float)
    rows = []
    for change in changes:
        for strength in change.strengths:
            predictions = predictions_unchanged
            if strength != change.unchanged:
                changed = change_scans(scans, change, strength)
                predictions = _predict_classes(network, changed)
            hits = (labels == predictions).astype(float)
            accuracy, low, high = mean_interval(hits, groups)
            row: dict[str, Any] = {"change": change.name, "strength": strength}
            row["described"] = change.describe(strength)
            row.update({"accuracy": accuracy, "low": low, "high": high})
            difference, low, high = mean_interval(hits - hits_unchanged, groups)
            row["difference"] = difference
            row.update({"difference_low": low, "difference_high": high})
            counts = np.bincount(predictions)
            row["most_frequent"] = counts.argmax()
            row["most_frequent_share"] = counts.max() / len(predictions)
            rows.append(row)
    return pd.DataFrame(rows)


def _predict_classes(network: keras.Model, scans: np.ndarray) -> np.ndarray:
    """The most probable class of each scan."""
    parts_count = -(-len(scans) // SCANS_AT_ONCE)
    parts = np.array_split(scans, parts_count)
    # without the setting up of each call of ``predict``
    probabilities = [network.predict_on_batch(part) for part in parts]
    return np.concatenate(probabilities).argmax(axis=1)


def draw_changes(
    table: pd.DataFrame,
    *,
    title: str,
    banner: str,
    footnote: str,
    changes: Sequence[Change] = CHANGES,
) -> Figure:
    """Draw the accuracy after each change, one panel a kind of change.

    Args:
        table: Rows of ``evaluate_changes`` with the column ``model``.
        title: The message of the figure.
        banner: A warning, or nothing.
        footnote: A sentence below.
        changes: The changes, six or fewer.

    Returns:
        The figure. Hollow points are constant predictions.
    """
    figure, panels = plots.base_figure(title, banner, 4.8, 2, 3, footnote, sharey=True)
    models = table["model"].unique()
    for axes, change in zip(panels, changes, strict=False):
        rows = table[table["change"] == change.name]
        for model in models:
            _draw_curve(axes, rows[rows["model"] == model], change, model)
        is_kind = len(change.labels) > 0
        label = change.name.partition(" (")[0] if is_kind else change.name
        axes.set(xlabel=label, ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(plots.percent)
    for axes in panels[::3]:
        axes.set_ylabel("accuracy (share of scans)")
    colors = [plots.MODEL_COLORS[model] for model in models]
    dots = [Line2D([], [], marker="o", color=color) for color in colors]
    hollow = Line2D([], [], linestyle="none", marker="o", color=plots.INK)
    hollow.set_markerfacecolor("white")
    dots.append(hollow)
    names = [plots.display_name(model) for model in models]
    names.append("a constant prediction")
    panels[0].legend(dots, names, loc="lower left", frameon=False)
    return figure


def _draw_curve(axes: Axes, rows: pd.DataFrame, change: Change, model: str) -> None:
    """Points with intervals; joined by a line if the strengths are numbers."""
    color = plots.MODEL_COLORS[model]
    places = rows["strength"].to_numpy()
    if change.labels:
        axes.set_xticks(places, change.labels)
    else:
        axes.set_xticks(places)
        axes.plot(places, rows["accuracy"], color=color)
    axes.vlines(places, rows["low"], rows["high"], color=color, linewidth=1)
    is_constant = rows["most_frequent_share"] > CONSTANT
    fill = np.where(is_constant, "white", color)
    axes.scatter(places, rows["accuracy"], 36, fill, edgecolors=color, zorder=3)
