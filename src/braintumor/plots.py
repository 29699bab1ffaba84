"""The figures of the data, and what every figure is made from; the figures of results are in ``plots_results``.

A figure takes tables, alters none, and returns a Figure that a notebook shows once; a ``note`` becomes a banner.
"""

import io
import textwrap

import numpy
import pandas
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

MODEL_COLOURS = {"vgg16": "#0072B2", "resnet50": "#D55E00"}  # Okabe-Ito, as the classes: safe for the colour-blind
CLASS_PALETTE = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#999999"]
INK, GREY, PALE, WARNING, BOX = "#222222", "#6E6E6E", "#C8C8C8", "#FFC400", "#F0E442"
NAMES = {"vgg16": "VGG16", "resnet50": "ResNet50", "fine_tune": "fine-tuning", "all": "all layers"}
NAMES |= {"training": "Training folder", "testing": "Testing folder"}
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


def class_colours(labels) -> dict:
    """One colour a class, in sorted label order."""
    return {label: CLASS_PALETTE[i % len(CLASS_PALETTE)] for i, label in enumerate(sorted(set(labels)))}


def percent(share: float, _=None) -> str:
    """A share as whole per cent, without its sign; also a formatter of ticks, hence the second argument."""
    return f"{100 * abs(share):.0f}\N{NO-BREAK SPACE}%"


def base_figure(title, note, height, rows=1, columns=1, footnote="", layout="constrained", **grid):
    """A figure with title, banner and footnote, and its panels as a flat array; ``height`` is that of the panels."""
    title, note, footnote = textwrap.fill(title, 80), textwrap.fill(note, 90), textwrap.fill(footnote, 124)
    banner = 0.2 + 0.18 * len(note.splitlines()) if note else 0
    head = banner + 0.15 + 0.2 * len(title.splitlines())
    height += head
    figure = NotebookFigure(figsize=(WIDTH, height), dpi=100, facecolor="white")
    figure.set_layout_engine(layout, rect=(0, 0, 1, 1 - head / height))
    figure.suptitle(title, x=0.01, y=1 - (banner + 0.08) / height, ha="left", va="top", size=12, weight="bold")
    figure.supxlabel(footnote, x=0.01, ha="left", size=SMALL, color=GREY)
    if note:
        figure.add_artist(Rectangle((0, 1 - banner / height), 1, banner / height, color=WARNING))
        figure.text(0.5, 1 - banner / height / 2, note, ha="center", va="center", weight="bold")
    panels = figure.subplots(rows, columns, squeeze=False, **grid).ravel()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def show_curves(axes, name, histories):
    """Training thin and validation thick for each (history, colour, who); labels at the right, kept from touching."""
    write, unit = (percent, "share of scans") if name == "accuracy" else ("{:.3g}".format, "cross-entropy")
    ends, place = [], -1.0
    for history, colour, who in histories:
        for column, kind, width in ((name, "training", 1), (f"val_{name}", "validation", 2.4)):
            axes.plot(history["epoch"], history[column], color=colour, linewidth=width)
            ends += [(last, f"{who}{kind} {write(last)}", colour) for last in history[column].tail(1)]
    axes.set(xlabel="epoch", ylabel=f"{name} ({unit})", ylim=(0, 1.02 if name == "accuracy" else None))
    axes.locator_params("x", integer=True)
    axes.yaxis.set_major_formatter(write)
    for value, text, colour in sorted(ends):
        place = max(place + 0.065, value / axes.get_ylim()[1])
        axes.text(1.02, place, text, color=colour, size=SMALL, va="center", transform=axes.transAxes)


def image_grid(images, captions, *, title, columns, note, footnote="") -> Figure:
    """Images (uint8, or float in [0, 1]) in rows of ``columns``, each with a caption above."""
    rows, lines = max(1, -(-len(images) // columns)), 1 + "".join(captions[:1]).count("\n")
    height = rows * (WIDTH / columns + 0.2 * lines)
    figure, panels = base_figure(title, note, height, rows, columns, footnote, layout="compressed", subplot_kw=BLANK)
    for axes, image, caption in zip(panels, images, captions, strict=False):
        axes.imshow(numpy.squeeze(image), cmap="gray", vmin=0, vmax=255 if image.dtype == numpy.uint8 else 1)
        axes.set_title(caption, size=SMALL)
    return figure


def scan_grid(images, table, *, columns, note) -> Figure:
    """Scans (uint8), a row of ``columns`` for each class, with the tumour boxes (px) that are known."""
    colours = class_colours(table["label"])
    positions = [i for label in colours for i in numpy.flatnonzero(table["label"] == label)[:columns]]
    images, boxes = [images[i] for i in positions], table[["box_x", "box_y", "box_w", "box_h"]].iloc[positions]
    captions = [" × ".join(map(str, image.shape[::-1])) + " px" for image in images]
    title, footnote = "What the networks have to tell apart", "Yellow: box around the tumour, where its place is known."
    figure = image_grid(images, captions, title=title, columns=columns, note=note, footnote=footnote)
    for axes, (x, y, *size) in zip(figure.axes, boxes.to_numpy(), strict=True):
        if pandas.notna(x):
            axes.add_patch(Rectangle((x, y), *size, fill=False, color=BOX, linewidth=1.5))
    for axes, (label, colour) in zip(figure.axes[::columns], colours.items(), strict=True):
        axes.set_ylabel(display_name(label), weight="bold")
        axes.axvline(-0.5, color=colour, linewidth=6, clip_on=False)
    return figure


def class_counts(table, *, note) -> Figure:
    """Count and share of each class, a panel a folder."""
    colours, totals = class_colours(table["label"]), table["label"].value_counts()
    most, *_, least = map(display_name, totals.index)
    title = f"{most.capitalize()} has {totals.max() / totals.min():.1f} times as many scans as {least}"
    figure, panels = base_figure(title, note, 2.4, 1, 2, sharex=True, sharey=True, subplot_kw={"xmargin": 0.15})
    counts = pandas.crosstab(table["label"], table["split"])
    for axes, split in zip(panels, ("training", "testing"), strict=True):
        scans, share = counts[split].sum(), counts[split] / counts[split].sum()
        bars = axes.barh(list(map(display_name, counts.index)), share, color=list(colours.values()))
        axes.bar_label(bars, [f"{n:,}" for n in counts[split]], padding=3)
        axes.set(title=f"{display_name(split)} (n = {scans:,} scans)", xlabel="share of the folder's scans")
        axes.xaxis.set_major_formatter(percent)
    panels[0].invert_yaxis()
    return figure


def source_shift(scans, features, *, title, note) -> Figure:
    """Testing against Training: histograms of three ``features`` (column: axis label), and ``first`` by ``second``."""
    figure, panels = base_figure(title, note, 4.4, 2, 2, "Grey: Training. Yellow: Testing.")
    for split, colour in (("training", PALE), ("testing", WARNING)):
        part = scans[scans["split"] == split]
        look, weights = dict(color=colour, edgecolor=INK), numpy.full(len(part), 1 / len(part))
        for axes, (column, label) in zip(panels, features.items(), strict=False):
            edges = numpy.linspace(*numpy.quantile(scans[column], (0.01, 0.99)), 25)
            axes.hist(part[column].clip(edges[0], edges[-1]), edges, weights=weights, alpha=0.7, linewidth=0.5, **look)
            axes.set(xlabel=label, ylabel="share of folder")
            axes.yaxis.set_major_formatter(percent)
        panels[-1].scatter(part["first"], part["second"], 6, linewidth=0.2, **look)
    panels[-1].set(xlabel="first principal component", ylabel="second")
    return figure
