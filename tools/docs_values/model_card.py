"""Values of the model card: what each setting rests on, its scores and subgroups."""

import json
from dataclasses import dataclass
from pathlib import Path

from braintumor.dataset import NO_TUMOR
from braintumor.splits import KNOWN_PATIENTS
from docs_values.formatting import Estimate
from docs_values.result_files import (
    SEEDS,
    Setting,
    mean_over_scans,
    run_folder,
    seed_predictions,
    select,
)

import pandas as pd

FEWEST_GROUPS = 10  # with fewer, a bootstrap over groups says nothing


@dataclass(frozen=True)
class Provenance:
    """What the runs of a setting rest on.

    Attributes:
        setting: How the networks were trained.
        data: The data set.
        checksums: How many of its files had the published checksum.
        backend: The backend of Keras.
        precision: The dtype policy.
        epochs: Epochs of a run.
        batch_size: Scans in a training step.
        subsets: Scans of each subset, seed by seed.
        folders: The folders of the runs, relative to the results.
    """

    setting: Setting
    data: str
    checksums: str
    backend: str
    precision: str
    epochs: int
    batch_size: int
    subsets: dict[str, list[int]]
    folders: list[Path]


@dataclass(frozen=True)
class Mistake:
    """The most frequent mistake: a class that is taken for another one."""

    label: str
    predicted: str
    share: float


@dataclass(frozen=True)
class Share:
    """How many scans of a subgroup were called something.

    Attributes:
        scans: Scans of the subgroup; one that several seeds evaluate counts once.
        share: The share of them; None where there is no scan.
        interval: The share with its interval; None where there are too few groups.
    """

    scans: int
    share: float | None
    interval: Estimate | None


@dataclass(frozen=True)
class Evaluation:
    """All seeds of a setting on one subset.

    Attributes:
        setting: How the networks were trained.
        subset: The subset.
        scans: Scans, seed by seed.
        groups: Groups, seed by seed.
        scores: The values of each score, seed by seed.
        recalls: Recall by class, seed by seed.
        mistake: The most frequent mistake, or None.
        correct: Correct scans of each subgroup of tumors.
        missed: Tumors called ``no_tumor``, by whether their patient is known.
    """

    setting: Setting
    subset: str
    scans: list[int]
    groups: list[int]
    scores: dict[str, list[float]]
    recalls: dict[str, list[float]]
    mistake: Mistake | None
    correct: dict[str, Share]
    missed: dict[str, Share]


def provenance(results: Path, setting: Setting) -> Provenance:
    """What the runs of a setting rest on.

    Args:
        results: The folder of results.
        setting: How the networks were trained.

    Returns:
        What is the same in all runs, and the scans of each.

    Raises:
        ValueError: The runs differ by more than their seed.
    """
    folders = [run_folder(results, setting, seed) for seed in range(SEEDS)]
    runs = []
    for folder in folders:
        runs.append(json.loads((folder / "settings.json").read_text()))
    keys = ["data", "checksums", "backend", "precision", "epochs", "batch_size"]
    first = runs[0]
    for run in runs:
        if any(run[key] != first[key] for key in keys):
            raise ValueError(f"{folders[0].name}: runs differ by more than a seed.")
    subsets = {}
    for subset in ("train", "validation", "test", "excluded"):
        subsets[subset] = [run["subsets"][subset] for run in runs]
    names = [folder.relative_to(results) for folder in folders]
    return Provenance(
        setting=setting,
        data=first["data"],
        checksums=first["checksums"],
        backend=first["backend"],
        precision=first["precision"],
        epochs=first["epochs"],
        batch_size=first["batch_size"],
        subsets=subsets,
        folders=names,
    )


def area_thirds(scans: pd.DataFrame) -> pd.DataFrame:
    """Where the areas of a class are cut into small, middle and large tumors.

    Args:
        scans: The group table, with the columns ``label``, ``box_w`` and ``box_h``.

    Returns:
        Two areas for each class, in px² of the file.
    """
    areas = scans["box_w"] * scans["box_h"]
    cuts = areas.groupby(scans["label"]).quantile([1 / 3, 2 / 3])
    return cuts.unstack().dropna()


def evaluation(
    metrics: pd.DataFrame,
    results: Path,
    setting: Setting,
    subset: str,
    thirds: pd.DataFrame,
) -> Evaluation:
    """All seeds of a setting on one subset.

    Args:
        metrics: Rows of ``metrics.csv``.
        results: The folder of results.
        setting: How the networks were trained.
        subset: The subset.
        thirds: The areas of ``area_thirds``.

    Returns:
        Scores seed by seed, and shares of subgroups over all seeds.
    """
    rows = select(
        metrics,
        model=setting.model,
        weights=setting.weights,
        image_size=setting.image_size,
        recipe=setting.recipe,
        protocol=setting.split,
        subset=subset,
    )
    names = ["accuracy", "macro_f1", "balanced_accuracy", "auroc", "ece", "brier"]
    recalls = {}
    for column in rows.columns:
        if column.startswith("recall_") and f"{column}_low" in rows.columns:
            recalls[column.removeprefix("recall_")] = rows[column].tolist()

    predictions = seed_predictions(results, setting, subset)
    correct = {}
    missed = {}
    for name, part in subgroups(predictions, thirds).items():
        scans = predictions[part]
        correct[name] = share(scans, scans["label"])
        if "patient" in name:
            missed[name] = share(scans, NO_TUMOR)
    return Evaluation(
        setting=setting,
        subset=subset,
        scans=rows["n"].tolist(),
        groups=rows["groups"].tolist(),
        scores={name: rows[name].tolist() for name in names},
        recalls=recalls,
        mistake=most_frequent_mistake(predictions),
        correct=correct,
        missed=missed,
    )


def most_frequent_mistake(table: pd.DataFrame) -> Mistake | None:
    """The class that is most often taken for one other class.

    Args:
        table: Predictions of one subset.

    Returns:
        Both classes, and the share of the first; None where nothing is wrong.
    """
    wrong = table[table["label"] != table["predicted"]]
    if wrong.empty:
        return None
    pairs = wrong.groupby(["label", "predicted"]).size()
    label, predicted = pairs.nlargest(1).index[0]
    scans = (table["label"] == label).sum()
    return Mistake(label, predicted, pairs.max() / scans)


def subgroups(table: pd.DataFrame, thirds: pd.DataFrame) -> dict[str, pd.Series]:
    """Which scans are in each subgroup of the tumors.

    Args:
        table: Predictions of one subset.
        thirds: The areas of ``area_thirds``.

    Returns:
        A mask of the rows for each subgroup, by its name.
    """
    tumor = table["label"] != NO_TUMOR
    known = table["group"].str.startswith(KNOWN_PATIENTS)
    area = table["box_w"] * table["box_h"]
    cuts = thirds.reindex(table["label"]).set_index(table.index)
    low, high = (cuts[column] for column in cuts)
    return {
        "patient known": tumor & known,
        "patient unknown": tumor & ~known,
        "small third": area <= low,
        "middle third": (area > low) & (area <= high),
        "large third": area > high,
    }


def share(table: pd.DataFrame, answer: pd.Series | str) -> Share:
    """How many of the scans were called this, with an interval over groups.

    Args:
        table: Predictions of a subgroup.
        answer: A class, or a class for each scan.

    Returns:
        The share. It has no interval where groups are fewer than ``FEWEST_GROUPS``.
    """
    if table.empty:
        return Share(scans=0, share=None, interval=None)
    hits = table["predicted"] == answer
    scans = table["path"].nunique()
    if table["group"].nunique() < FEWEST_GROUPS:
        return Share(scans=scans, share=hits.mean(), interval=None)
    interval = mean_over_scans(hits, table["group"])
    return Share(scans=scans, share=interval.value, interval=interval)
