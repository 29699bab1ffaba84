"""The two figures of `make bench`: all ratios, and where the time goes."""

from collections.abc import Mapping

from braintumor import plots

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from turns import REPEATS

STAGES = {
    "stage_decoding": "reading, decoding",
    "stage_augmenting": "augmenting",
    "stage_vgg16": "VGG16 learns",
    "stage_resnet50": "ResNet50 learns",
}
RATIO_TICKS = [0.5, 1, 2, 5, 10, 20, 50]


def draw_ratios(
    rows: pd.DataFrame,
    descriptions: Mapping[str, str],
    machine: str,
) -> Figure:
    """Draw all ratios but those of stages.

    Args:
        rows: The table of ``benchmark.csv``.
        descriptions: What each name compares.
        machine: What it was measured on.

    Returns:
        The figure.
    """
    rows = rows[~rows["name"].str.startswith("stage_")]
    ratios = rows.set_index("name")["ratio"]
    title = "All ratios: above 1, ours is better"
    if "study" in ratios:
        title = (
            f"From scans to two trained models {ratios['study']:.0f} times as fast "
            "as the original recipe"
        )
    footnote = (
        "Dot: ratio of ours to the other, above 1 ours is better "
        f"(medians of {REPEATS} or more, taking turns). {machine}."
    )
    height = 0.7 + 0.3 * len(ratios)
    figure, (axes,) = plots.base_figure(title, "", height, footnote=footnote)
    labels = []
    for y, name in enumerate(rows["name"]):
        _draw_ratio(axes, y, ratios[name])
        labels.append(descriptions[name])
    axes.set_yticks(range(len(labels)), labels, size=plots.SMALL)
    axes.axvline(1, color=plots.GRAY, linewidth=1, linestyle="--")
    _use_logarithmic_scale(axes, len(labels), "ratio")
    axes.set_xticks(RATIO_TICKS, [str(tick) for tick in RATIO_TICKS])
    axes.minorticks_off()
    return figure


def _draw_ratio(axes: Axes, y: int, ratio: float) -> None:
    """A dot on a line from 1, and its number at the right."""
    _draw_line(axes, 1, ratio, y)
    _draw_dot(axes, ratio, y, plots.INK)
    number = axes.text(1.02, y, f"{ratio:.2f}", size=plots.SMALL, va="center")
    number.set_transform(axes.get_yaxis_transform())  # beside the axes


def draw_stages(rows: pd.DataFrame, machine: str) -> Figure:
    """Draw how long each stage takes for one scan in one epoch.

    Args:
        rows: The table of ``benchmark.csv``.
        machine: What it was measured on.

    Returns:
        The figure.
    """
    stages = rows.set_index("name").loc[list(STAGES)]
    ours = stages["ours"]
    original = stages["reference"]
    feeding = original["stage_decoding"] + original["stage_augmenting"]
    of_vgg16 = plots.percent(feeding / (feeding + original["stage_vgg16"]))
    of_resnet50 = plots.percent(feeding / (feeding + original["stage_resnet50"]))
    title = (
        f"On a processor, feeding takes {of_vgg16} of the original's time with VGG16, "
        f"{of_resnet50} with ResNet50"
    )
    footnote = (
        "Milliseconds for one scan in one epoch. Gray: the original recipe. Black: "
        "ours, all layers. Where a GPU makes networks fast, feeding decides. "
        f"{machine}."
    )
    height = 0.7 + 0.45 * len(stages)
    figure, (axes,) = plots.base_figure(title, "", height, footnote=footnote)
    for y, name in enumerate(STAGES):
        _draw_stage(axes, y, ours[name], original[name])
    axes.set_yticks(range(len(stages)), list(STAGES.values()))
    _use_logarithmic_scale(axes, len(stages), "ms", margin=0.7)
    return figure


def _draw_stage(axes: Axes, y: int, ours: float, original: float) -> None:
    """Two dots with their numbers, and a line between them."""
    _draw_line(axes, ours, original, y)
    for milliseconds, color in ((ours, plots.INK), (original, plots.GRAY)):
        _draw_dot(axes, milliseconds, y, color)
        number = f"{milliseconds:.3g}"
        dot = (milliseconds, y)
        above = (0, 7)  # points
        axes.annotate(
            number,
            dot,
            above,
            textcoords="offset points",
            ha="center",
            size=plots.SMALL,
        )


def _draw_line(axes: Axes, start: float, end: float, y: int) -> None:
    """A line below the dots."""
    axes.plot([start, end], [y, y], color=plots.PALE, linewidth=2, zorder=1)


def _draw_dot(axes: Axes, x: float, y: int, color: str) -> None:
    """A measurement."""
    axes.plot(x, y, "o", color=color, markersize=8)


def _use_logarithmic_scale(
    axes: Axes, rows: int, quantity: str, margin: float = 0.5
) -> None:
    """A logarithmic x axis; rows from top to bottom."""
    axes.set_xscale("log")
    axes.set_xlabel(f"{quantity} (logarithmic)")
    axes.set_ylim(rows - 0.5, -margin)
