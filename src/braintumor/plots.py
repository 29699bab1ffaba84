"""The figures that several notebooks draw, and what the others are made from: one look, colours, banner, footnote.

A figure takes tables, alters none, and returns a Figure that a notebook shows once; a ``note`` becomes a banner.
"""

import io
import textwrap

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.metrics import confusion_matrix

MODEL_COLOURS = {
    "vgg16": "#0072B2",
    "resnet50": "#D55E00",
}  # Okabe-Ito, as the classes: safe for the colour-blind
CLASS_PALETTE = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#999999"]
INK, GREY, PALE, WARNING, BOX = "#222222", "#6E6E6E", "#C8C8C8", "#FFC400", "#F0E442"
HEAT = ["#56B4E9", "#E69F00", "#D55E00"]  # weak, middle, strong
NAMES = {
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "fine_tune": "fine-tuning",
    "all": "all layers",
    "training": "Training folder",
    "testing": "Testing folder",
}
WIDTH, SMALL = 8.4, 9  # inches, which GitHub shows unscaled at 100 dpi; points
BLANK = {"xticks": [], "yticks": [], "frame_on": False}


class NotebookFigure(Figure):
    """A Figure unknown to pyplot: shown where a cell ends with it, with or without ``%matplotlib inline``."""

    def _repr_png_(self):
        self.savefig(png := io.BytesIO(), format="png")
        return png.getvalue()


def display_name(name: str) -> str:
    """A model, class, phase or folder as a person writes it."""
    return NAMES.get(name.lower(), name.replace("_", " "))


def percent(share: float, _=None) -> str:
    """A share as whole per cent, without its sign; also a formatter of ticks, hence the second argument."""
    return f"{100 * abs(share):.0f}\N{NO-BREAK SPACE}%"


def base_figure(
    title, note, height, rows=1, columns=1, footnote="", layout="constrained", **grid
):
    """A figure with title, banner and footnote, and its panels as a flat array; ``height`` is that of the panels."""
    title, note, footnote = (
        textwrap.fill(title, 80),
        textwrap.fill(note, 90),
        textwrap.fill(footnote, 124),
    )
    banner = 0.2 + 0.18 * len(note.splitlines()) if note else 0
    head = banner + 0.15 + 0.2 * len(title.splitlines())
    height += head
    figure = NotebookFigure(figsize=(WIDTH, height), dpi=100, facecolor="white")
    figure.set_layout_engine(layout, rect=(0, 0, 1, 1 - head / height))
    figure.suptitle(
        title,
        x=0.01,
        y=1 - (banner + 0.08) / height,
        ha="left",
        va="top",
        size=12,
        weight="bold",
    )
    figure.supxlabel(footnote, x=0.01, ha="left", size=SMALL, color=GREY)
    if note:
        figure.add_artist(
            Rectangle((0, 1 - banner / height), 1, banner / height, color=WARNING)
        )
        figure.text(
            0.5, 1 - banner / height / 2, note, ha="center", va="center", weight="bold"
        )
    panels = figure.subplots(rows, columns, squeeze=False, **grid).ravel()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def show_curves(axes, name, histories):
    """Training thin and validation thick for each (history, colour, who); labels at the right, kept from touching."""
    write, unit = (
        (percent, "share of scans")
        if name == "accuracy"
        else ("{:.3g}".format, "cross-entropy")
    )
    ends, place = [], -1.0
    for history, colour, who in histories:
        for column, kind, width in (
            (name, "training", 1),
            (f"val_{name}", "validation", 2.4),
        ):
            axes.plot(history["epoch"], history[column], color=colour, linewidth=width)
            ends += [
                (last, f"{who}{kind} {write(last)}", colour)
                for last in history[column].tail(1)
            ]
    axes.set(
        xlabel="epoch",
        ylabel=f"{name} ({unit})",
        ylim=(0, 1.02 if name == "accuracy" else None),
    )
    axes.locator_params("x", integer=True)
    axes.yaxis.set_major_formatter(write)
    for value, text, colour in sorted(ends):
        place = max(place + 0.065, value / axes.get_ylim()[1])
        axes.text(
            1.02,
            place,
            text,
            color=colour,
            size=SMALL,
            va="center",
            transform=axes.transAxes,
        )


def image_grid(
    images, captions, *, title, columns, note, footnote="", boxes=(), heats=()
) -> Figure:
    """Images (uint8 or [0, 1]) in rows: caption, box x, y, w, h (px), lines at 1/4, 1/2 and 3/4 of a heat in [0, 1]."""
    rows, lines = (
        max(1, -(-len(images) // columns)),
        1 + "".join(captions[:1]).count("\n"),
    )
    height = rows * (WIDTH / columns + 0.2 * lines)
    figure, panels = base_figure(
        title,
        note,
        height,
        rows,
        columns,
        footnote,
        layout="compressed",
        subplot_kw=BLANK,
    )
    boxes = boxes if len(boxes) else np.full((len(images), 4), np.nan)
    for axes, heat in zip(panels, heats):
        axes.contour(
            heat, levels=[0.25, 0.5, 0.75], colors=HEAT, linewidths=[0.8, 1.4, 2]
        )
    for axes, image, caption, (x, y, *size) in zip(panels, images, captions, boxes):
        axes.imshow(
            np.squeeze(image),
            cmap="gray",
            vmin=0,
            vmax=255 if image.dtype == np.uint8 else 1,
        )
        axes.set_title(caption, size=SMALL)
        if np.isfinite(x):
            axes.add_patch(
                Rectangle((x, y), *size, fill=False, color=BOX, linewidth=1.5)
            )
    return figure


def training_curves(history, *, model, baseline, note) -> Figure:
    """Accuracy and loss by epoch, and which epoch is kept; ``baseline``: accuracy of always the largest class."""
    best, last, colour = (
        history.loc[history["val_accuracy"].idxmax()],
        history.iloc[-1],
        MODEL_COLOURS.get(model, INK),
    )
    kept, end = percent(best["val_accuracy"]), percent(last["val_accuracy"])
    title = f"{display_name(model)}: {kept} of validation scans right at best (epoch {best['epoch']}), {end} at the end"
    footnote = "Thin: training. Thick: validation. Circle: the epoch that is kept. Dashed: always the largest class, "
    figure, panels = base_figure(title, note, 3.3, 1, 2, footnote + percent(baseline))
    for axes, name in zip(panels, ("accuracy", "loss"), strict=True):
        show_curves(axes, name, [(history, colour, "")])
        axes.plot(
            best["epoch"],
            best[f"val_{name}"],
            "o",
            color=INK,
            markerfacecolor="none",
            markersize=10,
        )
        for start in history.drop_duplicates("phase")[1:].itertuples():
            axes.axvline(start.epoch - 0.5, color=GREY, linestyle=":")
            place = {
                "size": SMALL,
                "ha": "center",
                "transform": axes.get_xaxis_transform(),
            }
            axes.text(
                start.epoch - 0.5,
                1.01,
                f"{display_name(start.phase)} from epoch {start.epoch}",
                **place,
            )
    panels[0].axhline(baseline, color=GREY, linewidth=1, linestyle="--")
    return figure


def confusion_matrices(predictions, *, subset, note) -> Figure:
    """True against predicted class, as shares and counts; ``predictions`` is a dict of model to predictions table."""
    rows = pd.concat(
        table[table["subset"] == subset].assign(model=model)
        for model, table in predictions.items()
    )
    labels = sorted(
        column.removeprefix("p_") for column in rows if column.startswith("p_")
    )
    mistakes = rows[rows["label"] != rows["predicted"]].value_counts(
        ["model", "label", "predicted"]
    )
    title = f"No mistakes on {subset} scans"
    for names, n in mistakes[:1].items():
        model, label, predicted = map(display_name, names)
        title = f"Most frequent mistake on {subset} scans: {model} calls {n} {label} scans {predicted}"
    figure, panels = base_figure(title, note, 3.8, 1, len(predictions))
    for axes, (model, table) in zip(
        panels, rows.groupby("model", sort=False), strict=True
    ):
        counts = confusion_matrix(table["label"], table["predicted"], labels=labels)
        shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
        colours = LinearSegmentedColormap.from_list(
            model, ["white", MODEL_COLOURS.get(model, INK)]
        )
        axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            text, colour = (
                f"{percent(share)}\n{counts[row, column]}",
                "white" if share > 0.75 else INK,
            )
            axes.text(
                column, row, text, ha="center", va="center", size=SMALL, color=colour
            )
        sums = [
            f"{display_name(label)}\nn = {n}"
            for label, n in zip(labels, counts.sum(axis=1))
        ]
        axes.set_xticks(range(len(labels)), map(display_name, labels), size=SMALL)
        axes.set_yticks(range(len(labels)), sums, size=SMALL)
        axes.set(
            xlabel="predicted class",
            ylabel="class in the data set" if axes is panels[0] else "",
        )
        axes.set_title(
            f"{display_name(model)}: {counts.trace()} of {len(table)} scans right",
            size=10,
            weight="bold",
        )
    return figure


def interval_chart(rows, *, title, xlabel, note, footnote) -> Figure:
    """Shares with their intervals, a line for each (text, colour, share, low, high)."""
    figure, (axes,) = base_figure(title, note, 0.9 + 0.3 * len(rows), footnote=footnote)
    for y, (_, colour, share, low, high) in enumerate(rows):
        axes.plot(
            [low, share, high],
            [y] * 3,
            "o-",
            color=colour,
            linewidth=2,
            markersize=8,
            markevery=[1],
        )
        interval = f" ({percent(low)} to {percent(high)})" if low < high else ""
        axes.text(
            1.02, y, percent(share) + interval, size=SMALL, va="center", color=colour
        )
    axes.set_yticks(range(len(rows)), [text for text, *_ in rows])
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel=xlabel)
    axes.grid(axis="x", color=PALE, linewidth=0.5)
    axes.xaxis.set_major_formatter(percent)
    return figure
