"""What the result files hold: metrics of all runs, stored predictions, provenance."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braintumor import config, metrics
from docs_values.formatting import Estimate

import pandas as pd

CPU_SIZE = config.PRESETS["cpu-scratch"]["image_size"]
FULL_SIZE = config.PRESETS["full"]["image_size"]
# the runs that 05_compare compares; others are smaller, or made for one question
RANDOM_WEIGHTS = {
    key: config.PRESETS["cpu-scratch"][key]
    for key in ("recipe", "protocol", "weights", "image_size")
}
SEEDS = 3  # of each setting in the tables; one with fewer is not shown


@dataclass(frozen=True)
class Setting:
    """How networks were trained that differ by their seed alone."""

    model: str
    weights: str
    image_size: int
    recipe: str
    preset: str
    split: str = "patient"


@dataclass(frozen=True)
class TestSet:
    """What the accuracies on the test set rest on.

    Attributes:
        n: Scans.
        groups: Patients, or clusters of near-duplicates.
        known_patients: Those of the groups that are a known patient.
        tumors: Scans with a tumor.
        healthy: Scans without a tumor.
    """

    n: int
    groups: int
    known_patients: int
    tumors: int
    healthy: int


@dataclass(frozen=True)
class Scores:
    """What the seeds of one setting reach, in the order of the seeds.

    Attributes:
        validation: Accuracy on the validation scans, in [0, 1].
        test: Accuracy on the test set, in [0, 1].
        missed_tumors: Test scans with a tumor that were called ``no_tumor``; empty
            where the data set has no such class.
        false_alarms: Test scans without a tumor that were called a tumor; empty where
            there are none.
    """

    validation: list[float]
    test: list[float]
    missed_tumors: list[int]
    false_alarms: list[int]

    @property
    def seeds(self) -> int:
        """How many seeds were evaluated on the test set."""
        return len(self.test)


def read_metrics(results: Path) -> pd.DataFrame:
    """The scores of all runs, those at 224 px first.

    Args:
        results: The folder of results, with that of the runs at 224 px inside.

    Returns:
        The rows of both ``metrics.csv``, one for each run and subset.
    """
    at_full_size = pd.read_csv(results / "full" / "metrics.csv")
    on_cpu = pd.read_csv(results / "metrics.csv")
    return pd.concat([at_full_size, on_cpu], ignore_index=True)


def select(metrics: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The rows that have all of these values, in the order of their seeds.

    Weights that are wanted as ``imagenet`` may be described otherwise, see
    ``config.starts_from_imagenet``.
    """
    rows = metrics
    if "weights" in wanted:
        rows = metrics.assign(weights=kind_of_weights(metrics))
    same = (rows[list(wanted)] == pd.Series(wanted)).all(axis=1)
    return metrics[same].sort_values("seed")


def kind_of_weights(metrics: pd.DataFrame) -> pd.Series:
    """The weights of rows, ``imagenet`` for all that are those of ImageNet."""
    from_imagenet = metrics["weights"].map(config.starts_from_imagenet)
    return metrics["weights"].mask(from_imagenet, "imagenet")


def setting_scores(metrics: pd.DataFrame, **setting: Any) -> Scores:
    """The scores of the runs of one setting.

    Args:
        metrics: Rows of ``metrics.csv``.
        **setting: The columns that tell the setting, such as ``model`` and ``recipe``.

    Returns:
        The scores, with empty lists where there is no such run.
    """
    runs = select(metrics, **setting)
    validation = runs[runs["subset"] == "validation"]
    test = runs[runs["subset"] == "test"]
    return Scores(
        validation=validation["accuracy"].tolist(),
        test=test["accuracy"].tolist(),
        missed_tumors=test["missed_tumors"].dropna().astype(int).tolist(),
        false_alarms=test["false_alarms"].dropna().astype(int).tolist(),
    )


def test_set(metrics: pd.DataFrame) -> TestSet:
    """Count what the accuracies on the test set rest on.

    Args:
        metrics: Rows of ``metrics.csv``.

    Returns:
        The counts, which are those of all runs that keep patients apart.

    Raises:
        ValueError: The runs were evaluated on different scans.
    """
    rows = select(metrics, protocol="patient", subset="test")
    columns = ["n", "groups", "known_patients", "tumors", "healthy"]
    counts = rows[columns].astype(int).drop_duplicates()
    if len(counts) != 1:
        raise ValueError(
            "The runs in metrics.csv were evaluated on different test scans: "
            "train them on the same data."
        )
    return TestSet(**counts.iloc[0].to_dict())


def estimate(row: pd.Series | dict, score: str) -> Estimate:
    """The score of a row, with its interval."""
    return Estimate(row[score], row[f"{score}_low"], row[f"{score}_high"])


def run_folder(results: Path, setting: Setting, seed: int) -> Path:
    """The folder of one run of a setting."""
    parts = [
        setting.model,
        setting.recipe,
        setting.split,
        f"{setting.image_size}px",
        f"seed{seed}",
    ]
    folder = results / "full" if setting.preset == "full" else results
    return folder / "-".join(parts)


def full_setting(recipe: str, split: str = "patient") -> Setting:
    """VGG16 at 224 px with one recipe and split."""
    weights = "random" if recipe == "scratch" else "imagenet"
    return Setting("vgg16", weights, FULL_SIZE, recipe, "full", split)


def read_predictions(folder: Path, subset: str) -> pd.DataFrame:
    """The stored predictions of a run for one subset."""
    table = pd.read_csv(folder / "predictions.csv")
    return table[table["subset"] == subset]


def seed_predictions(
    results: Path, setting: Setting, subset: str, seeds: int = SEEDS
) -> pd.DataFrame:
    """The stored predictions of several seeds of a setting.

    Args:
        results: The folder of results.
        setting: How the networks were trained.
        subset: The subset that was evaluated.
        seeds: How many seeds, from 0 on.

    Returns:
        The tables of all seeds, one below the other, with two more columns: ``seed``,
        and ``correct``, whether the predicted class is the true one.
    """
    tables = []
    for seed in range(seeds):
        table = read_predictions(run_folder(results, setting, seed), subset)
        correct = table["label"] == table["predicted"]
        tables.append(table.assign(seed=seed, correct=correct))
    return pd.concat(tables, ignore_index=True)


def mean_over_scans(values: pd.Series, groups: pd.Series) -> Estimate:
    """The mean of one value a scan, with its interval over groups.

    Args:
        values: A value for each scan; scans may occur once for each seed.
        groups: The group of each scan, in the same order.

    Returns:
        The mean. A replicate of the bootstrap draws whole groups, each with all of its
        scans, of all seeds.
    """
    return Estimate(*metrics.mean_interval(values, groups))


def accuracy_difference(first: pd.DataFrame, second: pd.DataFrame) -> Estimate:
    """How much more accurate one setting is than another, on the same scans.

    Args:
        first: The predictions of ``seed_predictions``.
        second: Those of another setting, for the same scans and seeds.

    Returns:
        The difference, first minus second, with its interval from a paired bootstrap.
    """
    keys = ["seed", "path", "group"]
    pairs = first[[*keys, "correct"]].merge(
        second[[*keys, "correct"]], on=keys, validate="one_to_one"
    )
    gain = pairs["correct_x"].astype(int) - pairs["correct_y"].astype(int)
    return mean_over_scans(gain, pairs["group"])


def read_settings(folder: Path) -> list[dict]:
    """The ``settings.json`` of each run in a folder, by the name of the run."""
    files = sorted(folder.glob("*/settings.json"))
    return [json.loads(file.read_text()) for file in files]
