"""Draw the pictures of the README from committed results, and the scans where they are.

`make results` calls this. The text is larger than in the notebooks' figures, as a page
that is read on a phone shrinks them to half their width.
"""

from pathlib import Path

from braintumor import dataset, images, plots

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from docs_values import results_table
from docs_values.formatting import Estimate, class_name, display_name
from docs_values.result_files import (
    Setting,
    mean_over_scans,
    read_metrics,
    seed_predictions,
)
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
FIGURES = RESULTS / "figures"
WIDTH = 7.0  # inches
DPI = 100
# two training scans, then two test scans of each class
SCANS = {
    "glioma": [
        "Training/glioma_tumor/gg (552).jpg",
        "Training/glioma_tumor/gg (139).jpg",
        "Testing/glioma_tumor/image(27).jpg",
        "Testing/glioma_tumor/image(37).jpg",
    ],
    "meningioma": [
        "Training/meningioma_tumor/m (118).jpg",
        "Training/meningioma_tumor/m3 (122).jpg",
        "Testing/meningioma_tumor/image(97).jpg",
        "Testing/meningioma_tumor/image(73).jpg",
    ],
    "pituitary tumor": [
        "Training/pituitary_tumor/p (270).jpg",
        "Training/pituitary_tumor/p (114).jpg",
        "Testing/pituitary_tumor/image(63).jpg",
        "Testing/pituitary_tumor/image(44).jpg",
    ],
    "no tumor": [
        "Training/no_tumor/image (20).jpg",
        "Training/no_tumor/image(278).jpg",
        "Testing/no_tumor/image(15).jpg",
        "Testing/no_tumor/image(99).jpg",
    ],
}


def draw_scans(root: Path) -> Figure:
    """Four scans of each class, half of them from the test set.

    Args:
        root: The folder of the scans, with `Training/` and `Testing/` inside.

    Returns:
        The figure.
    """
    rows = len(SCANS)
    figure, panels = plt.subplots(rows, 4, figsize=(WIDTH, 7.6), layout="constrained")
    title = "The four classes: training scans (left) and test scans (right)"
    figure.suptitle(title, weight="bold")
    for (label, paths), axes_of_class in zip(SCANS.items(), panels, strict=True):
        axes_of_class[0].set_ylabel(label)
        for path, axes in zip(paths, axes_of_class, strict=True):
            scan = padded_to_square(images.read_scan(root / path))
            axes.imshow(scan, cmap="gray")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for column, axes in enumerate(panels[0]):
        axes.set_title("training" if column < 2 else "test set")
    return figure


def padded_to_square(scan: np.ndarray) -> np.ndarray:
    """A scan in the middle of a black square.

    Args:
        scan: Gray pixels, shape (height, width).

    Returns:
        Gray pixels, shape (side, side), the side being the longer one of the scan.
    """
    height, width = scan.shape
    side = max(height, width)
    top = (side - height) // 2
    left = (side - width) // 2
    square = np.zeros((side, side), scan.dtype)
    square[top : top + height, left : left + width] = scan
    return square


def accuracy_of(setting: Setting, subset: str) -> Estimate:
    """The accuracy of a setting: mean of its seeds, with the interval over groups."""
    predictions = seed_predictions(RESULTS, setting, subset)
    return mean_over_scans(predictions["correct"], predictions["group"])


def draw_accuracy() -> Figure:
    """Accuracy of each setting on validation scans and on the test set.

    Returns:
        The figure: a row for each setting, an interval for each subset.
    """
    all_metrics = read_metrics(RESULTS)
    settings = [row.setting for row in results_table.table_rows(all_metrics)]
    height = 1.9 + 0.62 * len(settings)
    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle("Every network loses accuracy on other sources", weight="bold")
    for place, setting in enumerate(settings):
        color = plots.MODEL_COLORS[setting.model]
        validation = accuracy_of(setting, "validation")
        test = accuracy_of(setting, "test")
        _draw_interval(axes, place - 0.17, validation, color, face="white")
        _draw_interval(axes, place + 0.17, test, color, face=color)
    chance = largest_class_share(settings[0])
    axes.axvline(chance, color=plots.GRAY, linestyle="--", linewidth=1)
    axes.text(chance + 0.01, -0.6, "always meningioma", color=plots.GRAY, size=10)
    axes.set_yticks(range(len(settings)), [_setting_name(each) for each in settings])
    axes.set(xlim=(0, 1), ylim=(len(settings) - 0.5, -0.75))
    axes.set_xlabel("accuracy (bar: 95% interval over patients)")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x", color=plots.PALE, linewidth=0.5)
    marks = {"new patients (validation)": "white", "test set": plots.INK}
    for name, face in marks.items():
        (mark,) = axes.plot([], [], "o", markersize=8, label=name)
        mark.set(color=plots.INK, markerfacecolor=face)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_interval(
    axes: Axes, place: float, share: Estimate, color: str, face: str
) -> None:
    """One share as a circle on its interval, with its number."""
    axes.plot([share.low, share.high], [place, place], color=color, linewidth=2)
    (mark,) = axes.plot(share.value, place, "o", markersize=8)
    mark.set(color=color, markerfacecolor=face)
    text = f"{100 * share.value:.0f}%"
    axes.text(share.high + 0.012, place, text, color=color, va="center", size=10)


def _setting_name(setting: Setting) -> str:
    """A setting in two short lines."""
    model = display_name(setting.model)
    start = display_name(setting.weights)
    name = f"{model}, {start}, {setting.image_size} px"
    if "head" in setting.recipe:
        return f"{name}\nwith head crop"
    return name


def largest_class_share(setting: Setting) -> float:
    """The accuracy on the test set of always answering its largest class."""
    labels = seed_predictions(RESULTS, setting, "test")["label"]
    shares = labels.value_counts(normalize=True)
    if shares.index[0] != "meningioma":
        raise ValueError(f"The largest class is {shares.index[0]}: change the figure.")
    return shares.iloc[0]


def draw_confusion() -> Figure:
    """True against predicted class of the first setting of the table, on the test set.

    Returns:
        The figure: shares of each true class, mean of all seeds.
    """
    setting = results_table.table_rows(read_metrics(RESULTS))[0].setting
    predictions = seed_predictions(RESULTS, setting, "test")
    labels = sorted(predictions["label"].unique())
    names = [class_name(label) for label in labels]
    counts = confusion_matrix(
        predictions["label"], predictions["predicted"], labels=labels
    )
    shares = counts / counts.sum(axis=1, keepdims=True)
    recalls = [recall_of(predictions, label) for label in labels]
    hardest = int(np.argmin(shares.diagonal()))
    found = f"{100 * recalls[hardest].value:.0f}%"

    figure, axes = plt.subplots(figsize=(WIDTH, 5.4), layout="constrained")
    title = f"Hardest class of the test set: {names[hardest]}, {found} recognized"
    figure.suptitle(title, weight="bold")
    color = plots.MODEL_COLORS[setting.model]
    colors = LinearSegmentedColormap.from_list("model", ["white", color])
    display = ConfusionMatrixDisplay(shares, display_labels=names)
    display.plot(ax=axes, cmap=colors, colorbar=False)
    display.im_.set_clim(0, 1)
    for (row, column), text in np.ndenumerate(display.text_):
        share = shares[row, column]
        words = f"{100 * share:.0f}%"
        if row == column:
            recall = recalls[row]
            words += f"\n({100 * recall.low:.0f} to {100 * recall.high:.0f})"
        text.set_text(words)
        text.set_color("white" if share > 0.65 else plots.INK)
    axes.set(xlabel="predicted class", ylabel="true label")
    return figure


def recall_of(predictions: pd.DataFrame, label: str) -> Estimate:
    """The share of the scans of a class that are recognized, with its interval."""
    scans = predictions[predictions["label"] == label]
    return mean_over_scans(scans["predicted"] == label, scans["group"])


def main() -> None:
    """Draw all figures that can be drawn; without the scans, theirs stays as it is."""
    plt.rc("font", size=11)
    plt.rc("axes", titlesize=12)
    plt.rc("axes.spines", top=False, right=False)
    draw_accuracy().savefig(FIGURES / "accuracy.png", dpi=DPI)
    draw_confusion().savefig(FIGURES / "confusion_test.png", dpi=DPI)
    root = dataset.data_at_hand(verbose=False)
    if root is not None:
        draw_scans(root).savefig(FIGURES / "scans.png", dpi=DPI)


if __name__ == "__main__":
    main()
