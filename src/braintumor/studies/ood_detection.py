"""Does a classifier notice images that are not like its training scans?"""

from typing import Any

from braintumor import plots
from braintumor.metrics import mean_interval, probability_scores

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.datasets import load_digits


def upside_down(scan: np.ndarray) -> np.ndarray:
    """Mirror a scan (height, width) top to bottom."""
    return scan[::-1].copy()


def inverted(scan: np.ndarray) -> np.ndarray:
    """Swap dark and bright in a uint8 scan (height, width)."""
    return 255 - scan


def in_shuffled_stripes(scan: np.ndarray) -> np.ndarray:
    """Cut a scan (height, width) into four stripes and put them in another order."""
    stripes = np.array_split(scan, 4)
    return np.vstack([stripes[place] for place in (2, 0, 3, 1)])


# what makes of a scan something that no scan is
SCAN_CHANGES = {
    "scans, upside down": upside_down,
    "scans, inverted": inverted,
    "scans, stripes shuffled": in_shuffled_stripes,
}


def handwritten_digits(count: int) -> list[np.ndarray]:
    """Take digits that people wrote, each another one, from scikit-learn.

    Args:
        count: How many, at most 1797.

    Returns:
        uint8 (128, 128) each, white on black.
    """
    digits = load_digits().images[:count]  # 8 x 8 px, 0 to 16
    large = [np.kron(digit, np.ones((16, 16))) for digit in digits]
    return [(digit * (255 / 16)).astype("uint8") for digit in large]


def noise(count: int, seed: int) -> list[np.ndarray]:
    """Draw images of independent intensities.

    Args:
        count: How many.
        seed: Of the draw.

    Returns:
        uint8 (128, 128) each.
    """
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 128, 128), dtype="uint8")
    return list(images)


def auroc(known: pd.DataFrame, other: pd.DataFrame, score: str) -> pd.Series:
    """Measure how well a score tells other images from known ones.

    Args:
        known: One row an image: ``group`` and the score, at most 1.
        other: The same of images that should score lower.
        score: The column.

    Returns:
        ``value``: how often a known image scores higher than another one, 0.5 is a
        guess; ``low`` and ``high``: its 95% interval over groups.
    """
    known = known.assign(label="known")
    other = other.assign(label="other")
    both = pd.concat([known, other], ignore_index=True)
    # a stand-in for a probability: only the order matters
    p_known = (both[score] + 1) / 2
    table = both[["label", "group"]].copy()
    table["p_known"] = p_known
    table["p_other"] = 1 - p_known
    scores = probability_scores(table)
    return scores.loc["auroc"]


def describe_kinds(answers: dict[str, pd.DataFrame], known: str) -> pd.DataFrame:
    """Summarize what a classifier says of each kind of images.

    Args:
        answers: By kind: one row an image, with ``similarity``, ``confidence``,
            ``unlike`` and ``group``.
        known: The kind that the others are told from.

    Returns:
        One row a kind. ``images``: the kind; ``n``; ``flagged``: the share that is
        called unlike; ``auroc``: of similarity; ``confidence_auroc``: of confidence;
        each with ``_low`` and ``_high``; and ``median_confidence``. The AUROCs of
        ``known`` are NaN.
    """
    rows = []
    for kind, images in answers.items():
        row: dict[str, Any] = {"images": kind, "n": len(images)}
        flags = images["unlike"].astype(float)
        estimates = {"flagged": mean_interval(flags, images["group"])}
        if kind != known:
            estimates["auroc"] = auroc(answers[known], images, "similarity")
            estimates["confidence_auroc"] = auroc(answers[known], images, "confidence")
        for name, (value, low, high) in estimates.items():
            row[name] = value
            row[f"{name}_low"] = low
            row[f"{name}_high"] = high
        row["median_confidence"] = images["confidence"].median()
        rows.append(row)
    return pd.DataFrame(rows)


def draw_similarities(
    answers: dict[str, pd.DataFrame], threshold: float, *, title: str, banner: str
) -> Figure:
    """Draw the similarity of every image, a line for each kind.

    Args:
        answers: By kind, as for ``describe_kinds``; scans as they are come first.
        threshold: Of the classifier.
        title: The message of the figure.
        banner: A warning, or nothing.

    Returns:
        The figure.
    """
    figure, (axes,) = plots.base_figure(title, banner, 0.9 + 0.35 * len(answers))
    generator = np.random.default_rng(0)
    for y, rows in enumerate(answers.values()):
        places = y + generator.uniform(-0.3, 0.3, len(rows))
        color = plots.INK if y == 0 else plots.GRAY
        axes.plot(rows["similarity"], places, ".", color=color, markersize=2)
        share_flagged = rows["unlike"].mean()
        text = f"{plots.percent(share_flagged)} flagged"
        axes.text(1.03, y, text, size=plots.SMALL, va="center")
    axes.axvline(threshold, color=plots.INK, linestyle="--")
    axes.text(threshold, -0.65, "threshold ", size=plots.SMALL, ha="right")
    axes.set_yticks(range(len(answers)), list(answers))
    axes.set_ylim(len(answers) - 0.5, -0.6)
    axes.set_xlim(right=1.01)
    axes.set_xlabel("similarity to the most similar training scan (correlation)")
    return figure
