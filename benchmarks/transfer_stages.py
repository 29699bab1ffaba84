"""Measure what each stage of a `transfer` training takes, and draw the shares.

`make bench` calls it. A training of VGG16 on a part of the scans is measured, and its
times are multiplied to those of all scans.
"""

import argparse
import tempfile
import time
from pathlib import Path

from braintumor import config, generators, models, plots, runs, splits, training
from braintumor.support import files

import pandas as pd
from bench import write_machine
from matplotlib.figure import Figure

MODEL = "vgg16"
TRAINING_SCANS = 320
VALIDATION_SCANS = 80
SUBSETS = {"train": TRAINING_SCANS, "validation": VALIDATION_SCANS}
FINE_TUNE_EPOCHS = 2  # the first compiles, the second is measured


def measure_stages() -> pd.DataFrame:
    """Train on a part of the scans, and estimate the time of each stage for all.

    Returns:
        A row for each stage: ``stage``, its ``seconds`` in a whole training, and its
        ``share`` of them.
    """
    # random weights cost as much time as those of ImageNet
    whole = config.settings_from("cpu", recipe="transfer", weights="random", seed=0)
    epochs = whole.head_epochs + FINE_TUNE_EPOCHS
    short = config.settings_from(
        "cpu", recipe="transfer", weights="random", seed=0, epochs=epochs
    )

    # 1. All scans are listed, checked, and split.
    started = time.perf_counter()
    root, table, _ = splits.load_study(whole)
    listing = time.perf_counter() - started
    counts = table["subset"].value_counts()
    parts = []
    for subset, count in SUBSETS.items():
        in_subset = table[table["subset"] == subset]
        parts.append(in_subset.sample(count, random_state=0))
    part = pd.concat(parts)

    # 2. A part of them is decoded, trained on, and predicted.
    network = models.build_classifier(short, MODEL, table["label"].nunique())
    started = time.perf_counter()
    train_scans, validation_scans = generators.sequences(part, root, short)
    decoding = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        history = training.train(
            network, train_scans, validation_scans, short, Path(folder)
        )
    for _ in range(2):  # the first compiles
        started = time.perf_counter()
        runs.predict(network, part, "validation", root, short)
        predicting = time.perf_counter() - started

    # 3. The times of the stages are told apart by the epochs that have them.
    seconds = history.groupby("phase")["seconds"]
    head_epoch = seconds.get_group("head").iloc[-1]  # its features are there already
    with_features = seconds.get_group("head").iloc[1 : config.CACHED_AUGMENTATIONS]
    features = with_features.median() - head_epoch
    fine_tune_epoch = seconds.get_group("fine_tune").iloc[-1]

    # 4. They are multiplied to all scans and epochs.
    growth = counts["train"] / TRAINING_SCANS
    with_validation = counts["validation"] / counts["train"]
    versions = config.CACHED_AUGMENTATIONS + with_validation
    predicted = counts["validation"] + counts["test"]
    fine_tune_epochs = whole.epochs - whole.head_epochs
    stages = {
        "listing, checking, splitting": listing,
        "reading and decoding": decoding * growth,
        "features of the frozen backbone": features * growth * versions,
        f"classification layers, {whole.head_epochs} epochs": (
            head_epoch * growth * whole.head_epochs
        ),
        f"fine-tuning, {fine_tune_epochs} epochs": (
            fine_tune_epoch * growth * fine_tune_epochs
        ),
        "predicting, validation and test": predicting * predicted / VALIDATION_SCANS,
    }
    rows = pd.DataFrame({"stage": stages.keys(), "seconds": stages.values()})
    rows["share"] = rows["seconds"] / rows["seconds"].sum()
    return rows


def draw_shares(rows: pd.DataFrame, machine: str) -> Figure:
    """Draw the share of each stage.

    Args:
        rows: See ``measure_stages``.
        machine: What it was measured on.

    Returns:
        The figure.
    """
    longest = rows.loc[rows["seconds"].idxmax()]
    minutes = rows["seconds"].sum() / 60
    title = (
        f"{longest['stage'].split(',')[0].capitalize()} takes "
        f"{plots.percent(longest['share'])} of a transfer training"
    )
    footnote = (
        f"VGG16 at 128 px, one seed: about {minutes:.0f} minutes. Measured on "
        f"{TRAINING_SCANS} training scans, and multiplied to all. {machine}."
    )
    height = 0.7 + 0.45 * len(rows)
    figure, (axes,) = plots.base_figure(title, "", height, footnote=footnote)
    for y, row in enumerate(rows.itertuples()):
        axes.barh(y, 100 * row.share, height=0.6, color=plots.MODEL_COLORS[MODEL])
        number = f" {100 * row.share:.1f}%: {row.seconds:,.0f} s"
        axes.text(100 * row.share, y, number, va="center", size=plots.SMALL)
    axes.set_yticks(range(len(rows)), rows["stage"])
    axes.invert_yaxis()
    axes.set_xlim(0, 125)  # room for the numbers
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel("% of the time")
    return figure


def main() -> None:
    """Measure, and write a table, the machine, and a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=config.RESULTS_DIR)
    into = parser.parse_args().into
    rows = measure_stages()
    print(rows.round(3).to_string(index=False))
    files.write_table(rows, into / "transfer_stages.csv")
    machine = write_machine(into / "transfer_stages.json")
    figure = draw_shares(rows, str(machine))
    runs.save_figure(figure, into / "figures" / "transfer_stages.png")


if __name__ == "__main__":
    main()
