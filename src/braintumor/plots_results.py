"""The figures of results: how training went, and how good the networks are; conventions as in ``plots``."""

import numpy
import pandas
from matplotlib.colors import LinearSegmentedColormap
from sklearn.metrics import confusion_matrix

from .plots import GREY, INK, MODEL_COLOURS, PALE, SMALL, Figure, base_figure, display_name, percent, show_curves

LEAKY = "Leaky: the original's validation shares patients with its training."


def training_curves(history, *, model, baseline, note) -> Figure:
    """Accuracy and loss by epoch, and which epoch is kept; ``baseline``: accuracy of always the largest class."""
    best, last, colour = history.loc[history["val_accuracy"].idxmax()], history.iloc[-1], MODEL_COLOURS.get(model, INK)
    kept, end = percent(best["val_accuracy"]), percent(last["val_accuracy"])
    title = f"{display_name(model)}: {kept} of validation scans right at best (epoch {best['epoch']}), {end} at the end"
    footnote = "Thin: training. Thick: validation. Circle: the epoch that is kept. Dashed: always the largest class, "
    figure, panels = base_figure(title, note, 3.3, 1, 2, footnote + percent(baseline))
    for axes, name in zip(panels, ("accuracy", "loss"), strict=True):
        show_curves(axes, name, [(history, colour, "")])
        axes.plot(best["epoch"], best[f"val_{name}"], "o", color=INK, markerfacecolor="none", markersize=10)
        for start in history.drop_duplicates("phase")[1:].itertuples():
            axes.axvline(start.epoch - 0.5, color=GREY, linestyle=":")
            place = {"size": SMALL, "ha": "center", "transform": axes.get_xaxis_transform()}
            axes.text(start.epoch - 0.5, 1.01, f"{display_name(start.phase)} from epoch {start.epoch}", **place)
    panels[0].axhline(baseline, color=GREY, linewidth=1, linestyle="--")
    return figure


def compare_curves(history, original, *, note) -> Figure:
    """Accuracy by epoch, a panel a model: ours in the model's colour, the original's log (if there is one) in grey."""
    runs, ends = {}, []
    for model, ours in history.groupby("model", sort=False):
        log = original[original["model"].str.lower() == model]
        promised = "".join(f" (original {percent(last)})" for last in log["val_accuracy"].tail(1))
        ends.append(f"{display_name(model)} {percent(ours['val_accuracy'].iloc[-1])}{promised}")
        runs[model] = [(log, GREY, "original's "), (ours, MODEL_COLOURS.get(model, INK), "our ")]
    title, footnote = f"Last validation accuracy: {', '.join(ends)}", f"Thin: training. Thick: validation. {LEAKY}"
    figure, panels = base_figure(title, note, 3.5, 1, len(runs), footnote, sharey=True)
    for axes, (model, histories) in zip(panels, runs.items(), strict=True):
        show_curves(axes, "accuracy", histories)
        axes.set_title(display_name(model), size=10, weight="bold", color=MODEL_COLOURS.get(model, INK))
        axes.label_outer()
    return figure


def confusion_matrices(predictions, *, subset, note) -> Figure:
    """True against predicted class, as shares and counts; ``predictions`` is a dict of model to predictions table."""
    rows = pandas.concat([table.assign(model=model) for model, table in predictions.items()])
    rows = rows[rows["subset"] == subset]
    labels = sorted(column.removeprefix("p_") for column in rows if column.startswith("p_"))
    mistakes = rows[rows["label"] != rows["predicted"]].value_counts(["model", "label", "predicted"])
    title = f"No mistakes on {subset} scans"
    for names, n in mistakes[:1].items():
        model, label, predicted = map(display_name, names)
        title = f"Most frequent mistake on {subset} scans: {model} calls {n} {label} scans {predicted}"
    figure, panels = base_figure(title, note, 3.8, 1, len(predictions))
    for axes, (model, table) in zip(panels, rows.groupby("model", sort=False), strict=True):
        counts = confusion_matrix(table["label"], table["predicted"], labels=labels)
        shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
        colours = LinearSegmentedColormap.from_list(model, ["white", MODEL_COLOURS.get(model, INK)])
        axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
        for (row, column), share in numpy.ndenumerate(shares):
            text, colour = f"{percent(share)}\n{counts[row, column]}", "white" if share > 0.75 else INK
            axes.text(column, row, text, ha="center", va="center", size=SMALL, color=colour)
        sums = [f"{display_name(label)}\nn = {n}" for label, n in zip(labels, counts.sum(axis=1))]
        axes.set_xticks(range(len(labels)), map(display_name, labels), size=SMALL)
        axes.set_yticks(range(len(labels)), sums, size=SMALL)
        axes.set(xlabel="predicted class", ylabel="class in the data set" if axes is panels[0] else "")
        right = f"{display_name(model)}: {counts.trace()} of {len(table)} scans right"
        axes.set_title(right, size=10, weight="bold")
    return figure


def accuracy_comparison(metrics, original, *, baseline, note) -> Figure:
    """Accuracy of each model under what the original's log promised; ``baseline``: that of always the largest class."""
    rows, falls = [], []
    metrics = metrics.sort_values("subset", ascending=False, kind="stable")
    for model, part in metrics.groupby("model", sort=False):
        name, colour = display_name(model), MODEL_COLOURS.get(model, INK)
        logged = original.loc[original["model"].str.lower() == model, "val_accuracy"].tail(1)
        rows += [(f"{name}, original's validation (leaky)", GREY, share, share, share) for share in logged]
        for row in part.itertuples():
            text = f"{name}, {row.subset} (n = {row.n:,} scans)"
            rows.append((text, colour, row.accuracy, row.accuracy_low, row.accuracy_high))
        falls.append(f"{name} {' → '.join(map(percent, part['accuracy']))}")
    rows.append(("always the largest class", GREY, baseline, baseline, baseline))
    title = f"Accuracy, {' → '.join(metrics['subset'].unique())}: {'; '.join(falls)}"
    footnote = f"Bars: 95 % intervals, bootstrap over patient groups. {LEAKY}"
    return interval_chart(rows, title=title, xlabel="accuracy (share of scans)", note=note, footnote=footnote)


def interval_chart(rows, *, title, xlabel, note, footnote) -> Figure:
    """Shares with their intervals, a line for each (text, colour, share, low, high)."""
    figure, (axes,) = base_figure(title, note, 0.9 + 0.3 * len(rows), footnote=footnote)
    for y, (_, colour, share, low, high) in enumerate(rows):
        axes.plot([low, share, high], [y] * 3, "o-", color=colour, linewidth=2, markersize=8, markevery=[1])
        interval = f" ({percent(low)} to {percent(high)})" if low < high else ""
        axes.text(1.02, y, percent(share) + interval, size=SMALL, va="center", color=colour)
    axes.set_yticks(range(len(rows)), [text for text, *_ in rows])
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel=xlabel)
    axes.grid(axis="x", color=PALE, linewidth=0.5)
    axes.xaxis.set_major_formatter(percent)
    return figure


def reliability_diagrams(panels_of, *, title, note) -> Figure:
    """How often a model is right against how sure it is: a panel for each title, a line a name to ``reliability``."""
    footnote = "Dots: tenths of the confidence scale, larger with more scans. Dashed: as often right as sure."
    figure, panels = base_figure(title, note, 3.4, 1, len(panels_of), footnote, sharey=True)
    for axes, (name, lines) in zip(panels, panels_of.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        for (kind, table), colour in zip(lines.items(), (GREY, MODEL_COLOURS.get(name, INK)), strict=True):
            axes.plot(table["confidence"], table["accuracy"], color=colour, label=kind)
            axes.scatter(table["confidence"], table["accuracy"], 4 + table["scans"] / 2, color=colour)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (largest probability)", ylabel="share of scans right")
        axes.set_title(display_name(name), size=10, weight="bold")
        axes.legend(frameon=False, fontsize=SMALL, loc="upper left")
        axes.label_outer()
    return figure


def constant_answers(log, shares, *, note) -> Figure:
    """The original's accuracy by epoch over what always one class would score; ``shares``: label to share of scans."""
    hits = log["val_accuracy"].round(4).isin(shares.round(4))
    title = f"In {hits.sum()} of {len(log)} epochs the original's ResNet50 scores exactly like one constant answer"
    footnote = "Thin: training. Thick: validation. Dashed: always one class. Circles: the same to four digits."
    figure, (axes,) = base_figure(title, note, 3.2, footnote=footnote)
    show_curves(axes, "accuracy", [(log, MODEL_COLOURS["resnet50"], "")])
    axes.plot(log["epoch"][hits], log["val_accuracy"][hits], "o", color=INK, markerfacecolor="none", markersize=10)
    for share, part in shares.sort_index().groupby(shares.round(2)):
        axes.axhline(share, color=GREY, linewidth=1, linestyle="--")
        text, place = "always " + "\nor ".join(map(display_name, part.index)), axes.get_yaxis_transform()
        axes.text(1.02, share, text, size=SMALL, va="center", color=GREY, transform=place)
    return figure


def collapse_curves(followed, *, note) -> Figure:
    """Accuracy by training step with wrong and with fitting statistics; the first batch norm's variance ratio."""
    wrong, right = (followed[followed["arm"] == arm] for arm in ("as the original", "fitting statistics"))
    title, place, red = "Wrong statistics at inference", -1.0, MODEL_COLOURS["resnet50"]
    for row in wrong[(wrong["one_answer"] > 0.99).cummin()].tail(1).itertuples():
        title += f": one answer for over 99 % of scans to step {row.step}, {percent(row.all_renewed)} right if renewed"
    footnote = "Thin: training. Thick: validation. Renewed: same weights, statistics estimated anew. Line: predicted."
    figure, (left, axes) = base_figure(title, note, 3.4, 1, 2, footnote, width_ratios=(3, 2))
    lines = [("wrong statistics", wrong["validation"], red), ("right statistics", right["validation"], GREY),
             ("wrong, renewed", wrong["all_renewed"], INK), ("training", wrong["training"], red)]  # fmt: skip
    for text, values, colour in sorted(lines, key=lambda line: line[1].iloc[-1]):
        left.plot(wrong["step"], values, color=colour, linewidth=1 if text == "training" else 2.4)
        place = max(place + 0.065, values.iloc[-1])
        left.text(1.02, place, text, color=colour, size=SMALL, va="center", transform=left.get_yaxis_transform())
    left.set(xlabel="training step", ylabel="accuracy (share of scans)", ylim=(0, 1.02))
    left.yaxis.set_major_formatter(percent)
    axes.semilogy(wrong["step"], wrong["predicted"], color=INK)
    axes.plot(wrong["step"], wrong["variance_ratio"], "o", color=red)
    axes.set(xlabel="training step", ylabel="stored variance / present variance")
    return figure
