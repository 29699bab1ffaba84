"""What does a person see? Every figure of the main notebooks, in one look.

A figure takes tables, changes none, and returns a ``Figure`` that a notebook shows
once. A ``banner`` is a warning across its top, see ``dataset.DataReport.banner``.
"""

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from braintumor.dataset import NO_TUMOR
from braintumor.metrics import class_labels
from braintumor.splits import KNOWN_PATIENTS

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

# Okabe and Ito's palette, which color-blind people can tell apart
MODEL_COLORS = {"vgg16": "#0072B2", "resnet50": "#D55E00"}
CLASS_PALETTE = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#999999"]
TESTING_COLOR = "#AA3377"
INK = "#222222"
GRAY = "#6E6E6E"
PALE = "#C8C8C8"
WARNING = "#FFC400"
BOX = "#F0E442"
HEATMAP_COLORS = "inferno"
DISPLAY_NAMES = {
    "vgg16": "VGG16",
    "imagenet": "ImageNet",
    "resnet50": "ResNet50",
    "fine_tune": "fine-tuning",
    "all": "all layers",
    "training": "Training folder",
    "testing": "Testing folder",
}
WIDTH = 8.4  # inches: at 100 dpi, GitHub shows it unscaled
NARROW = 6.0  # inches: on a phone, its text stays readable
SMALL = 9  # points
WITHOUT_AXES = {"xticks": [], "yticks": [], "frame_on": False}
FORMULA_OF_TICKS = r"\mathdefault"  # how matplotlib writes numbers at an axis


class NotebookFigure(Figure):
    """A figure that pyplot does not know: shown once, where a cell ends with it."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Save the figure; names are no formulas, whatever dollar signs they hold.

        Args:
            *arguments: Of ``Figure.savefig``.
            **options: Of ``Figure.savefig``.
        """
        for text in self.findobj(Text):
            words = text.get_text()
            if "$" in words and FORMULA_OF_TICKS not in words:
                text.set_parse_math(False)
        super().savefig(*arguments, **options)

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def display_name(name: str) -> str:
    """Write a model, class, phase or folder as a person does.

    Args:
        name: As in tables and settings.

    Returns:
        Such as ``ResNet50`` or ``no tumor``.
    """
    return DISPLAY_NAMES.get(name.lower(), name.replace("_", " "))


def setting_name(values: Mapping[str, Any]) -> str:
    """Write what was trained, how it started, and by which recipe.

    Args:
        values: With ``model``, ``weights`` and ``recipe``, as a row of metrics.csv.

    Returns:
        Such as ``VGG16 (ImageNet), transfer``.
    """
    return f"{network_name(values)}, {display_name(values['recipe'])}"


def network_name(values: Mapping[str, Any]) -> str:
    """Write what was trained and how it started.

    Args:
        values: With ``model`` and ``weights``, as a row of metrics.csv.

    Returns:
        Such as ``VGG16 (ImageNet)``.
    """
    return f"{display_name(values['model'])} ({display_name(values['weights'])})"


def network_color(name: str) -> str:
    """Look up the color of a network.

    Args:
        name: Begins with the backbone, as ``vgg16`` and ``VGG16 (ImageNet)`` do.

    Returns:
        The color of the backbone in all figures; that of ink for other backbones.
    """
    for model, color in MODEL_COLORS.items():
        if name.lower().startswith(model):
            return color
    return INK


def percent(share: float, _: Any = None) -> str:
    """Write a share as a whole percentage.

    Args:
        share: Such as 0.75.
        _: Ignored, so that this can format the ticks of an axis.

    Returns:
        Such as ``75%``.
    """
    return f"{100 * share:z.0f}%"  # z: zero has no minus sign


def base_figure(
    title: str,
    banner: str,
    height: float,
    rows: int = 1,
    columns: int = 1,
    footnote: str = "",
    width: float = WIDTH,
    layout: Literal["constrained", "compressed"] = "constrained",
    **grid: Any,
) -> tuple[NotebookFigure, np.ndarray]:
    """Make a figure with title, banner, footnote and empty panels.

    Args:
        title: The message of the figure.
        banner: A warning across the top, or nothing.
        height: Of the panels together, in inches.
        rows: Of panels.
        columns: Of panels.
        footnote: A sentence below the panels.
        width: Of the figure, in inches.
        layout: Of matplotlib: ``constrained`` or ``compressed``.
        **grid: More arguments of ``Figure.subplots``.

    Returns:
        The figure, and its panels as a flat array.
    """
    # as many characters as fit in a line
    share_of_width = width / WIDTH
    title = textwrap.fill(title, int(80 * share_of_width))
    banner = textwrap.fill(banner, int(90 * share_of_width))
    footnote = textwrap.fill(footnote, int(124 * share_of_width))
    title_lines = len(title.splitlines())
    banner_lines = len(banner.splitlines())
    banner_height = 0.2 + 0.18 * banner_lines if banner else 0
    head = banner_height + 0.15 + 0.2 * title_lines
    height += head
    figure = NotebookFigure(figsize=(width, height), dpi=100, facecolor="white")
    top_of_panels = 1 - head / height
    figure.set_layout_engine(layout, rect=(0, 0, 1, top_of_panels))
    figure.suptitle(
        title,
        x=0.01,
        y=1 - (banner_height + 0.08) / height,
        ha="left",
        va="top",
        size=12,
        weight="bold",
    )
    figure.supxlabel(footnote, x=0.01, ha="left", size=SMALL, color=GRAY)
    if banner:
        bottom = 1 - banner_height / height
        strip = Rectangle((0, bottom), 1, banner_height / height, color=WARNING)
        figure.add_artist(strip)
        middle = 1 - banner_height / height / 2
        figure.text(0.5, middle, banner, ha="center", va="center", weight="bold")
    panels = figure.subplots(rows, columns, squeeze=False, **grid).ravel()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def class_colors(labels: Sequence[str]) -> dict[str, str]:
    """Give every class its color, the same in all figures.

    Args:
        labels: The classes, sorted.

    Returns:
        A color for each class; from the seventh class on, colors repeat.
    """
    colors = itertools.cycle(CLASS_PALETTE)
    return {label: next(colors) for label in labels}


def show_curves(
    axes: Axes, history: pd.DataFrame, score: str, color: str, owner: str = ""
) -> None:
    """Draw one score of a training by epoch: training thin, validation thick.

    Args:
        axes: The panel.
        history: One row an epoch.
        score: ``accuracy``, or ``loss`` on a logarithmic axis.
        color: Of both lines.
        owner: What the legend calls the training, such as ``VGG16``; or nothing.
    """
    lines = [(score, "training", 1.0), (f"val_{score}", "validation", 2.4)]
    for column, subset, width in lines:
        label = f"{owner} {subset}".strip()
        axes.plot(
            history["epoch"], history[column], color=color, linewidth=width, label=label
        )
    axes.set_xlabel("epoch")
    axes.locator_params("x", integer=True)
    if score == "accuracy":
        axes.set_ylabel("accuracy (share of scans)")
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(percent)
    else:
        axes.set_ylabel("loss (cross-entropy, log scale)")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def training_curves(
    history: pd.DataFrame, *, model: str, baseline: float, banner: str
) -> Figure:
    """Draw accuracy and loss of one training, and mark the epoch that is kept.

    Args:
        history: One row an epoch.
        model: The backbone.
        baseline: Accuracy of always predicting the largest class.
        banner: A warning, or nothing.

    Returns:
        The figure.

    Raises:
        ValueError: Nothing was validated.
    """
    if history["val_accuracy"].isna().all():
        raise ValueError("No epoch was validated, so there is no best one to draw.")
    best_row = history["val_accuracy"].idxmax()
    best = history.loc[best_row]
    last = history.iloc[-1]
    best_accuracy = percent(best["val_accuracy"])
    last_accuracy = percent(last["val_accuracy"])
    color = network_color(model)
    title = (
        f"{display_name(model)}: validation accuracy {best_accuracy} "
        f"at best (epoch {best['epoch']}), {last_accuracy} at the end"
    )
    figure, panels = base_figure(title, banner, 5.6, 2, 1, width=NARROW)
    later_phases = history.drop_duplicates("phase")[1:]
    for axes, score in zip(panels, ("accuracy", "loss"), strict=True):
        show_curves(axes, history, score, color)
        axes.plot(
            best["epoch"],
            best[f"val_{score}"],
            "o",
            color=INK,
            markerfacecolor="none",
            markersize=10,
            label="epoch that is kept",
        )
        for start in later_phases.itertuples():
            between_epochs = start.epoch - 0.5
            axes.axvline(between_epochs, color=GRAY, linestyle=":")
            above_panel = axes.get_xaxis_transform()
            axes.text(
                between_epochs,
                1.01,
                f"{display_name(start.phase)} from epoch {start.epoch}",
                size=SMALL,
                ha="center",
                transform=above_panel,
            )
    panels[0].axhline(
        baseline,
        color=GRAY,
        linewidth=1,
        linestyle="--",
        label=f"always the largest class, {percent(baseline)}",
    )
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    return figure


def curves_beside_reference(
    histories: dict[str, pd.DataFrame],
    reference: pd.DataFrame,
    *,
    title: str,
    banner: str,
) -> Figure:
    """Draw the accuracy of our trainings beside those of the reference study.

    Args:
        histories: One row an epoch, by the ``network_name`` of the training.
        reference: One row an epoch, with the networks in the column ``model``.
        title: The message of the figure.
        banner: A warning, or nothing.

    Returns:
        The figure, one panel a network.
    """
    rows = len(histories)
    height = 3.3 * rows
    figure, panels = base_figure(title, banner, height, rows, 1, width=NARROW)
    for axes, (network, history) in zip(panels, histories.items(), strict=True):
        is_same_backbone = [network.startswith(name) for name in reference["model"]]
        their_history = reference[is_same_backbone]
        show_curves(axes, their_history, "accuracy", GRAY, "reference study,")
        show_curves(axes, history, "accuracy", network_color(network), f"{network},")
        axes.set_title(network, size=10, weight="bold")
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}
        axes.legend(ncols=2, frameon=False, fontsize=SMALL, **below)
    return figure


def roc_curves(
    predictions: dict[str, pd.DataFrame], *, subset: str, banner: str
) -> Figure:
    """Draw the ROC curve of each class against all others.

    Args:
        predictions: The predictions of each network, by its backbone or by its
            ``network_name``.
        subset: The subset to show.
        banner: A warning, or nothing.

    Returns:
        The figure, one panel a network.

    Raises:
        ValueError: All scans of the subset are of one class.
    """
    curves: dict[str, list[RocCurve]] = {}
    for model, table in predictions.items():
        curves[model] = _roc_curves_of(table[table["subset"] == subset])
    all_curves = list(itertools.chain.from_iterable(curves.values()))
    if not all_curves:
        raise ValueError(f"The {subset} scans are of one class: there is no ROC curve.")
    lowest_area = min(curve.area for curve in all_curves)
    # the title names all classes whose areas look the same in it
    hardest = []
    for curve in all_curves:
        name = display_name(curve.label)
        if f"{curve.area:.3f}" == f"{lowest_area:.3f}" and name not in hardest:
            hardest.append(name)
    noun = "class" if len(hardest) == 1 else "classes"
    title = (
        f"Hardest {noun} to tell apart on {subset} scans: {' and '.join(hardest)} "
        f"(AUROC {lowest_area:.3f})"
    )
    rows = len(predictions)
    figure, panels = base_figure(title, banner, 4.2 * rows, rows, 1, width=NARROW)
    for axes, (model, curves_of_model) in zip(panels, curves.items(), strict=True):
        colors = class_colors(class_labels(predictions[model]))
        for curve in curves_of_model:
            name = f"{display_name(curve.label)}: AUROC {curve.area:.3f}"
            color = colors[curve.label]
            axes.plot(
                curve.false_positive, curve.true_positive, color=color, label=name
            )
        axes.plot([0, 1], [0, 1], color=GRAY, linestyle=":", label="guessing: 0.500")
        axes.set_xlabel("false positive rate (share of the other classes)")
        axes.set_ylabel("true positive rate (share of the class)")
        axes.xaxis.set_major_formatter(percent)
        axes.yaxis.set_major_formatter(percent)
        axes.set_title(display_name(model), size=10, weight="bold")
        axes.legend(loc="lower right", fontsize=SMALL, frameon=False)
    return figure


class RocCurve(NamedTuple):
    """The ROC curve of one class against all others.

    Attributes:
        label: The class.
        area: Under the curve, in [0, 1].
        false_positive: Rates, in [0, 1].
        true_positive: Rates, in [0, 1], as many.
    """

    label: str
    area: float
    false_positive: np.ndarray
    true_positive: np.ndarray


def _roc_curves_of(rows: pd.DataFrame) -> list[RocCurve]:
    """One curve a class, of those that have scans inside and outside of it."""
    curves = []
    for column in rows.filter(regex="^p_"):
        label = column.removeprefix("p_")
        is_class = rows["label"] == label
        if is_class.nunique() < 2:  # without both kinds of scans there is no curve
            continue
        probabilities = rows[column]
        false_positive, true_positive, _ = roc_curve(is_class, probabilities)
        area = roc_auc_score(is_class, probabilities)
        curves.append(RocCurve(label, area, false_positive, true_positive))
    return curves


def class_counts(table: pd.DataFrame, *, banner: str) -> Figure:
    """Draw which share of each folder each class has.

    Args:
        table: A ``dataset.scan_table``.
        banner: A warning, or nothing.

    Returns:
        The figure, one panel a folder, with the number of scans at each bar.
    """
    counts = pd.crosstab(table["split"], table["label"]).loc[["training", "testing"]]
    shares = counts.div(counts.sum(axis="columns"), axis="index")
    differences = abs(shares.loc["training"] - shares.loc["testing"])
    most_different = differences.idxmax()
    title = (
        f"{display_name(most_different).capitalize()}: "
        f"{percent(shares.at['training', most_different])} of the Training folder, "
        f"{percent(shares.at['testing', most_different])} of the Testing folder"
    )
    figure, panels = base_figure(title, banner, 2.4, 1, 2, width=NARROW, sharey=True)
    colors = class_colors(counts.columns)
    for axes, (split, scans) in zip(panels, counts.iterrows(), strict=True):
        names = [display_name(label) for label in scans.index]
        bar_colors = [colors[label] for label in scans.index]
        rows = range(len(names))
        bars = axes.barh(rows, shares.loc[split], color=bar_colors)
        axes.set_yticks(rows, names)
        counts_as_text = [f"{count:,}" for count in scans]
        axes.bar_label(bars, counts_as_text, padding=3)
        axes.set_title(f"{display_name(split)} (n = {scans.sum():,})", size=10)
        axes.set_xlabel("share of the folder\n(at the bars: scans)")
        axes.xaxis.set_major_formatter(percent)
        axes.set_xlim(0, 1.3 * shares.to_numpy().max())
    panels[0].invert_yaxis()
    return figure


def sizes_and_intensities(scans: pd.DataFrame, *, banner: str) -> Figure:
    """Draw how large and how bright the scans of each folder are.

    Args:
        scans: One row a scan, with ``split``, ``label``, ``width`` and ``height`` (px)
            and ``mean_intensity`` (0 to 255).
        banner: A warning, or nothing.

    Returns:
        The figure: sizes as points, mean intensities as quartiles of each class.
    """
    of_tumors = scans[scans["label"] != NO_TUMOR]
    medians = of_tumors.groupby("split")["mean_intensity"].median()
    title = (
        f"Tumor scans: median intensity {medians['training']:.0f} in Training, "
        f"{medians['testing']:.0f} in Testing (of 255)"
    )
    figure, (sizes, intensities) = base_figure(title, banner, 6.2, 2, 1, width=NARROW)
    colors = {"training": GRAY, "testing": TESTING_COLOR}
    # the smaller folder over the larger one, which would hide it
    for split in ("training", "testing"):
        of_split = scans[scans["split"] == split]
        counts = of_split.groupby(["width", "height"]).size().reset_index(name="scans")
        sizes.scatter(
            counts["width"],
            counts["height"],
            s=8 + counts["scans"] / 4,
            color=colors[split],
            alpha=0.5,
            linewidths=0,
        )
        sizes.plot([], [], "o", color=colors[split], label=display_name(split))
    sizes.set_xlabel(
        "width (px) of all scans\n"
        "the area of a dot grows with the number of scans of that size"
    )
    sizes.set_ylabel("height (px)")
    labels = sorted(scans["label"].unique())
    shifts = {"training": -0.15, "testing": 0.15}
    for (split, label), rows in scans.groupby(["split", "label"]):
        low, middle, high = rows["mean_intensity"].quantile([0.25, 0.5, 0.75])
        color = colors[split]
        y = labels.index(label) + shifts[split]
        intensities.plot([low, high], [y, y], color=color, linewidth=3)
        intensities.plot(middle, y, "o", color=color, markersize=7)
    names_of_classes = [display_name(label) for label in labels]
    intensities.set_yticks(range(len(labels)), names_of_classes)
    intensities.invert_yaxis()
    intensities.set_xlabel(
        "mean intensity of a scan (0 to 255)\n"
        "dot: median; line: middle half of the scans"
    )
    handles, names = sizes.get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    return figure


def split_flow(table: pd.DataFrame, *, banner: str) -> Figure:
    """Draw how scans come into their subsets.

    Args:
        table: Scans with their subsets.
        banner: A warning, or nothing.

    Returns:
        A flow chart with the scans, and the groups and known patients among them.
    """
    folders = {}
    for folder in ("training", "testing"):
        folders[folder] = _subsets_of(table[table["split"] == folder])
    lines = sum(len(subsets) for subsets in folders.values())
    used = table[table["subset"] != "excluded"]
    subsets_of_group = used.groupby("group")["subset"].nunique()
    torn = int((subsets_of_group > 1).sum())
    title = "No group (a known patient, or near-duplicates) is in two subsets"
    if torn:
        title = f"Groups (patients, or near-duplicates) in several subsets: {torn}"
    footnote = (
        "A group can have scans in a subset and others that are excluded, so the "
        "numbers of groups do not add up."
    )
    figure, (axes,) = base_figure(
        title, banner, 0.62 * lines, footnote=footnote, subplot_kw=WITHOUT_AXES
    )
    axes.set_xlim(0, 3)
    axes.set_ylim(lines - 0.5, -0.5)  # the first line at the top
    gap = 0.05  # between an arrow and the box that it points at
    line = 0
    for folder, subsets in folders.items():
        line_of_folder = line
        for name, scans in subsets.items():
            _show_box(axes, 2.1, line, display_name(name), scans)
            _show_arrow(axes, (1.35, line_of_folder), (2.1 - gap, line))
            line += 1
        scans_of_folder = table[table["split"] == folder]
        _show_box(axes, 1.05, line_of_folder, display_name(folder), scans_of_folder)
        _show_arrow(axes, (0.4, 0), (1.05 - gap, line_of_folder))
    _show_box(axes, 0.1, 0, "all scans", table)
    return figure


def _subsets_of(scans: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The scans of each subset, and the excluded ones of each reason; none is empty."""
    parts = {}
    for subset in ("train", "validation", "other_source", "test"):
        parts[subset] = scans[scans["subset"] == subset]
    excluded = scans[scans["subset"] == "excluded"]
    for reason, rows in excluded.groupby("excluded_because"):
        parts[f"excluded: {reason}"] = rows
    return {name: rows for name, rows in parts.items() if len(rows)}


def _show_box(
    axes: Axes, x: float, y: float, heading: str, scans: pd.DataFrame
) -> None:
    """A box of a flow chart: how many scans, groups and known patients."""
    groups = scans["group"]
    known_patients = groups[groups.str.startswith(KNOWN_PATIENTS)]
    text = (
        f"{heading}: {len(scans):,} scans\n{groups.nunique()} groups, "
        f"{known_patients.nunique()} known patients"
    )
    frame = {"boxstyle": "round", "facecolor": "white", "edgecolor": GRAY}
    axes.annotate(text, xy=(x, y), va="center", size=SMALL, bbox=frame)


def _show_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float]
) -> None:
    """An arrow of a flow chart."""
    style = {"arrowstyle": "->", "color": GRAY}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def probability_bars(probabilities: pd.Series, *, title: str, banner: str) -> Figure:
    """Draw the probabilities of one scan.

    Args:
        probabilities: By class, in [0, 1].
        title: The message of the figure.
        banner: A warning, or nothing.

    Returns:
        The figure.
    """
    height = 0.6 + 0.35 * len(probabilities)
    figure, (axes,) = base_figure(title, banner, height, width=NARROW)
    labels = list(probabilities.index)
    names = [display_name(label) for label in labels]
    colors = class_colors(labels)
    rows = range(len(names))
    bars = axes.barh(rows, probabilities, color=list(colors.values()))
    axes.set_yticks(rows, names)
    percentages = [_stated(share) for share in probabilities]
    axes.bar_label(bars, percentages, padding=3)
    axes.set_xlabel("probability")
    axes.set_xlim(0, 1.2)  # with room for the numbers at the bars
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(percent)
    axes.invert_yaxis()
    return figure


def _stated(probability: float) -> str:
    """A probability in the words of the classifier, which is never fully sure."""
    return "over 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def confusion_matrices(
    predictions: dict[str, pd.DataFrame], *, subset: str, banner: str
) -> Figure:
    """Draw true against predicted labels, as shares and counts.

    Args:
        predictions: The predictions of each network, by its backbone or by its
            ``network_name``.
        subset: The subset to show.
        banner: A warning, or nothing.

    Returns:
        The figure, one panel a network.
    """
    tables = {}
    for model, table in predictions.items():
        tables[model] = table[table["subset"] == subset]
    any_table = next(iter(tables.values()))
    labels = class_labels(any_table)
    message = _most_frequent_error(tables, subset)
    rows = len(tables)
    figure, panels = base_figure(message, banner, 3.9 * rows, rows, 1, width=NARROW)
    for axes, (model, table) in zip(panels, tables.items(), strict=True):
        counts = confusion_matrix(table["label"], table["predicted"], labels=labels)
        _show_confusion(axes, counts, labels, network_color(model))
        title = f"{display_name(model)}: {counts.trace()} of {len(table)} scans correct"
        axes.set_title(title, size=10, weight="bold")
        axes.set_ylabel("true label")
    return figure


def _most_frequent_error(tables: dict[str, pd.DataFrame], subset: str) -> str:
    """A sentence about the largest number beside the diagonal of any matrix."""
    rows = pd.concat(table.assign(model=model) for model, table in tables.items())
    is_error = rows["label"] != rows["predicted"]
    errors = rows[is_error]
    if errors.empty:
        return f"No errors on {subset} scans"
    counts = errors.value_counts(["model", "label", "predicted"])
    model, label, predicted = map(display_name, counts.index[0])
    return (
        f"Most frequent error on {subset} scans: "
        f"{model} calls {counts.iloc[0]} {label} scans {predicted}"
    )


def _show_confusion(
    axes: Axes, counts: np.ndarray, labels: list[str], color: str
) -> None:
    """One confusion matrix: the color is the share of the true label's scans."""
    scans_of_label = counts.sum(axis=1)
    shares = counts / scans_of_label[:, None].clip(1)
    shades = LinearSegmentedColormap.from_list("shades", ["white", color])
    axes.imshow(shares, cmap=shades, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{percent(share)}\n{counts[row, column]}"
        text_color = "white" if share > 0.75 else INK
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            size=SMALL,
            color=text_color,
        )
    names = [display_name(label) for label in labels]
    names_in_lines = [name.replace(" ", "\n") for name in names]
    names_with_counts = []
    for name, scans in zip(names, scans_of_label, strict=True):
        names_with_counts.append(f"{name}\nn = {scans}")
    ticks = range(len(labels))
    axes.set_xticks(ticks, names_in_lines, size=SMALL)
    axes.set_yticks(ticks, names_with_counts, size=SMALL)
    axes.set_xlabel("predicted label")


def image_grid(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    title: str,
    columns: int,
    banner: str,
    footnote: str = "",
    width: float = WIDTH,
    boxes: Sequence[Any] | np.ndarray = (),
    heatmaps: Sequence[np.ndarray] = (),
) -> Figure:
    """Draw images in rows, each with its caption.

    Args:
        images: Gray, uint8 (0 to 255) or float in [0, 1].
        captions: One an image.
        title: The message of the figure.
        columns: Images in a row.
        banner: A warning, or nothing.
        footnote: A sentence below.
        width: Of the figure, in inches.
        boxes: x, y, width, height of a tumor box in each image, in pixels, NaN where
            there is none; or nothing at all.
        heatmaps: In [0, 1], of the images' size, drawn over them; or nothing.

    Returns:
        The figure.
    """
    rows = max(1, math.ceil(len(images) / columns))
    first_caption = captions[0] if len(captions) else ""
    lines_of_caption = 1 + first_caption.count("\n")
    height = rows * (width / columns + 0.2 * lines_of_caption)
    figure, panels = base_figure(
        title,
        banner,
        height,
        rows,
        columns,
        footnote,
        width,
        layout="compressed",
        subplot_kw=WITHOUT_AXES,
    )
    for position, (image, caption) in enumerate(zip(images, captions, strict=True)):
        axes = panels[position]
        pixels = np.squeeze(image)
        brightest = 255 if image.dtype == np.uint8 else 1
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=brightest)
        axes.set_title(caption, size=SMALL)
        if len(heatmaps):
            heatmap = heatmaps[position]
            overlay = axes.imshow(
                heatmap, cmap=HEATMAP_COLORS, vmin=0, vmax=1, alpha=0.45
            )
        if len(boxes) and np.isfinite(boxes[position][0]):
            x, y, box_width, box_height = boxes[position]
            corner = (x, y)
            frame = Rectangle(
                corner, box_width, box_height, fill=False, color=BOX, linewidth=1.5
            )
            axes.add_patch(frame)
    if len(heatmaps):
        label = "Grad-CAM (1: largest)"
        all_panels = panels.tolist()
        figure.colorbar(overlay, ax=all_panels, shrink=0.6, label=label)
    return figure


class IntervalRow(NamedTuple):
    """A line of ``interval_chart``.

    Attributes:
        text: What it is about.
        color: Of the line.
        share: The value, in [0, 1].
        low: The lower bound of its interval; the value itself if there is none.
        high: The upper bound.
    """

    text: str
    color: str
    share: float
    low: float
    high: float


def interval_chart(
    rows: Sequence[tuple[str, str, float, float, float]],
    *,
    title: str,
    xlabel: str,
    banner: str,
    footnote: str,
    width: float = WIDTH,
) -> Figure:
    """Draw shares with their intervals, one below the other.

    Args:
        rows: The lines, from top to bottom.
        title: The message of the figure.
        xlabel: What the shares are.
        banner: A warning, or nothing.
        footnote: A sentence below.
        width: Of the figure, in inches.

    Returns:
        The figure.
    """
    lines_of_row = 1 + max(text.count("\n") for text, *_ in rows)
    height = 0.9 + (0.1 + 0.2 * lines_of_row) * len(rows)
    figure, (axes,) = base_figure(title, banner, height, footnote=footnote, width=width)
    names = []
    for y, (name, color, share, low, high) in enumerate(rows):
        names.append(name)
        axes.plot([low, high], [y, y], color=color, linewidth=2)
        axes.plot(share, y, "o", color=color, markersize=8)
        text = percent(share)
        if low < high:
            text += f" ({percent(low)} to {percent(high)})"
        axes.text(1.02, y, text, size=SMALL, va="center", color=color)
    axes.set_yticks(range(len(rows)), names)
    axes.set_xlabel(xlabel)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row at the top
    axes.grid(axis="x", color=PALE, linewidth=0.5)
    axes.xaxis.set_major_formatter(percent)
    return figure
