"""The table of results: a row for each setting that was trained with all seeds."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from braintumor import config
from docs_values.formatting import display_name, listed
from docs_values.result_files import (
    CPU_SIZE,
    FULL_SIZE,
    RANDOM_WEIGHTS,
    SEEDS,
    Scores,
    Setting,
    kind_of_weights,
    read_settings,
    select,
    setting_scores,
)

import pandas as pd

# rows of the table, in this order, where all seeds are there
SETTINGS_ON_GPU = [
    Setting("vgg16", "imagenet", FULL_SIZE, "transfer+head+looks", "full"),
    Setting("vgg16", "imagenet", FULL_SIZE, "transfer", "full"),
    Setting("resnet50", "imagenet", FULL_SIZE, "transfer", "full"),
]
SETTINGS_ON_CPU = [
    Setting("vgg16", "imagenet", CPU_SIZE, "transfer+head+looks", "cpu"),
    Setting("vgg16", "imagenet", CPU_SIZE, "transfer", "cpu"),
    Setting("resnet50", "imagenet", CPU_SIZE, "transfer", "cpu"),
    Setting("vgg16", "random", CPU_SIZE, "scratch", "cpu-scratch"),
    Setting("resnet50", "random", CPU_SIZE, "scratch", "cpu-scratch"),
]
SETTINGS = SETTINGS_ON_GPU + SETTINGS_ON_CPU
MODELS = ["vgg16", "resnet50"]


@dataclass(frozen=True)
class TableRow:
    """A setting and what its seeds reach."""

    setting: Setting
    scores: Scores


@dataclass(frozen=True)
class LastEpoch:
    """How a training of the reference study ended, on scans that share patients."""

    model: str
    accuracy: float


@dataclass(frozen=True)
class ValidationSets:
    """What the seeds were validated on, in the order of the seeds."""

    n: list[int]
    known_patients: list[int]
    clusters: list[int]


def table_rows(metrics: pd.DataFrame) -> list[TableRow]:
    """The rows of the table.

    Args:
        metrics: Rows of ``metrics.csv``.

    Returns:
        A row for each of ``SETTINGS`` that was evaluated with all seeds.
    """
    rows = []
    for setting in SETTINGS:
        scores = setting_scores(
            metrics,
            model=setting.model,
            weights=setting.weights,
            image_size=setting.image_size,
            recipe=setting.recipe,
            protocol="patient",
        )
        if scores.seeds >= SEEDS:
            rows.append(TableRow(setting, scores))
    return rows


def reference_log(data: Path) -> list[LastEpoch]:
    """The last epochs of the reference study's log.

    Args:
        data: The folder of the log.

    Returns:
        The accuracy on its validation scans, which share patients with training.
    """
    log = pd.read_csv(data / "original_history.csv")
    last = log.groupby("model", sort=False)["val_accuracy"].last()
    return [LastEpoch(name.lower(), accuracy) for name, accuracy in last.items()]


def models_not_run(metrics: pd.DataFrame) -> list[str]:
    """The networks that nobody has trained here from ImageNet weights."""
    missing = []
    for model in MODELS:
        runs = select(metrics, model=model, weights="imagenet", protocol="patient")
        if runs.empty:
            missing.append(model)
    return missing


def validation_sets(metrics: pd.DataFrame) -> ValidationSets:
    """What the seeds were validated on; it is the same for every setting."""
    seeds = select(metrics, subset="validation", **RANDOM_WEIGHTS)
    return ValidationSets(
        n=seeds["n"].tolist(),
        known_patients=seeds["known_patients"].tolist(),
        clusters=(seeds["groups"] - seeds["known_patients"]).tolist(),
    )


def backends(folder: Path) -> str:
    """Backend and precision of the runs in a folder.

    Args:
        folder: A folder of runs.

    Returns:
        Each pair once, such as ``JAX, float16``. Runs of the reference study's
        recipe are left out: they need float32.
    """
    runs = read_settings(folder)
    return listed(_backends_of(runs))


def _backends_of(runs: Iterable[dict]) -> list[str]:
    """Backend and precision of runs, each pair once."""
    pairs = set()
    for run in runs:
        if run["recipe"] != "original":
            backend = display_name(run["backend"])
            pairs.add(f"{backend}, {display_name(run['precision'])}")
    return sorted(pairs)


@dataclass(frozen=True)
class SettingSummary:
    """Every run of a model, start, size and recipe that keeps patients apart.

    Attributes:
        model: The model.
        weights: Where its backbone starts.
        image_size: Side of its input, in pixels.
        recipe: The name of the recipe.
        epochs: How long each of its runs trained, by the settings of the run.
        scores: What its seeds reach.
    """

    model: str
    weights: str
    image_size: int
    recipe: str
    epochs: list[int]
    scores: Scores


def all_settings(metrics: pd.DataFrame, results: Path) -> list[SettingSummary]:
    """All settings that were evaluated on the test set with patients kept apart.

    Args:
        metrics: Rows of ``metrics.csv``.
        results: The folder of results.

    Returns:
        A summary of each, those with few seeds included, the most accurate first.
    """
    rows = select(metrics, protocol="patient", subset="test")
    rows = rows.assign(weights=kind_of_weights(rows))
    columns = ["model", "weights", "image_size", "recipe"]
    summaries = []
    for values, _ in rows.groupby(columns):
        setting = dict(zip(columns, values, strict=True))
        scores = setting_scores(metrics, protocol="patient", **setting)
        epochs = _epochs(results, setting)
        summaries.append(SettingSummary(**setting, epochs=epochs, scores=scores))
    return sorted(summaries, key=_mean_test_accuracy, reverse=True)


def _epochs(results: Path, setting: dict[str, str | int]) -> list[int]:
    """How long the runs of a setting that keep patients apart trained."""
    epochs = []
    for run in read_settings(results) + read_settings(results / "full"):
        if config.starts_from_imagenet(run["weights"]):
            run["weights"] = "imagenet"
        same = all(run[key] == value for key, value in setting.items())
        if same and run["protocol"] == "patient":
            epochs.append(run["epochs"])
    return epochs


def _mean_test_accuracy(summary: SettingSummary) -> float:
    """What the settings are ordered by."""
    return statistics.mean(summary.scores.test)
