"""Values of the model card: what each run rests on, its scores, recalls and subgroups."""

from dataclasses import dataclass
from pathlib import Path

from braintumor import metrics as scoring
from docs_values.formatting import Estimate
from docs_values.result_files import (
    RANDOM_WEIGHTS,
    estimate,
    read_predictions,
    read_settings,
)

import pandas as pd

FEWEST_GROUPS = 10  # with fewer, a bootstrap over groups says nothing
NO_TUMOR = "no_tumor"


@dataclass(frozen=True)
class Mistake:
    """The most frequent mistake: a class that is taken for another one."""

    label: str
    predicted: str
    times: int
    scans: int


@dataclass(frozen=True)
class Share:
    """How many scans of a subgroup were called something.

    Attributes:
        scans: Scans in the subgroup.
        share: The share of them; None where there is no scan.
        interval: The share with its interval; None where there are too few groups.
    """

    scans: int
    share: float | None
    interval: Estimate | None


@dataclass(frozen=True)
class EvaluatedRun:
    """A run on one subset.

    Attributes:
        folder: The name of its folder.
        row: Its row of ``metrics.csv``.
        accuracy: Its accuracy.
        macro_f1: Its macro-F1.
        recalls: Recall by class.
        mistake: The most frequent mistake, or None.
        correct: Correct scans of each subgroup of tumors.
        missed: Tumors called ``no_tumor``, by whether their patient is known.
    """

    folder: str
    row: dict
    accuracy: Estimate
    macro_f1: Estimate
    recalls: dict[str, Estimate]
    mistake: Mistake | None
    correct: dict[str, Share]
    missed: dict[str, Share]


def runs(results: Path) -> list[dict]:
    """The settings of the runs that the card is about."""
    found = []
    for settings in read_settings(results):
        if all(settings[key] == value for key, value in RANDOM_WEIGHTS.items()):
            found.append(settings)
    return found


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


def evaluated_runs(results: Path, thirds: pd.DataFrame) -> list[EvaluatedRun]:
    """Every run of the card on every subset that it was evaluated on.

    Args:
        results: The folder of results.
        thirds: The areas of ``area_thirds``.

    Returns:
        A run and subset each, in the order of ``metrics.csv``.
    """
    metrics = pd.read_csv(results / "metrics.csv")
    same = (metrics[list(RANDOM_WEIGHTS)] == pd.Series(RANDOM_WEIGHTS)).all(axis=1)
    evaluated = []
    for _, row in metrics[same].iterrows():
        evaluated.append(_evaluated_run(row, results, thirds))
    return evaluated


def _evaluated_run(row: pd.Series, results: Path, thirds: pd.DataFrame) -> EvaluatedRun:
    """One row of metrics.csv, with what the predictions say of subgroups."""
    size = row["image_size"]
    folder = (
        f"{row['model']}-{row['recipe']}-{row['protocol']}-{size}px-seed{row['seed']}"
    )
    table = read_predictions(results / folder, row["subset"])
    correct = {}
    missed = {}
    for name, part in subgroups(table, thirds).items():
        correct[name] = share(table[part], table[part]["label"])
        if "patient" in name:
            missed[name] = share(table[part], NO_TUMOR)
    return EvaluatedRun(
        folder=folder,
        row=row.to_dict(),
        accuracy=estimate(row, "accuracy"),
        macro_f1=estimate(row, "macro_f1"),
        recalls=_recalls(row),
        mistake=most_frequent_mistake(table),
        correct=correct,
        missed=missed,
    )


def _recalls(row: pd.Series) -> dict[str, Estimate]:
    """The recall of each class."""
    recalls = {}
    for column in row.index:
        if column.startswith("recall_") and f"{column}_low" in row.index:
            label = column.removeprefix("recall_")
            recalls[label] = estimate(row, column)
    return recalls


def most_frequent_mistake(table: pd.DataFrame) -> Mistake | None:
    """The class that is most often taken for one other class.

    Args:
        table: Predictions of one subset.

    Returns:
        Both classes and how often, or None where nothing is wrong.
    """
    wrong = table[table["label"] != table["predicted"]]
    if wrong.empty:
        return None
    pairs = wrong.groupby(["label", "predicted"]).size()
    label, predicted = pairs.nlargest(1).index[0]
    scans = (table["label"] == label).sum()
    return Mistake(label, predicted, int(pairs.max()), int(scans))


def subgroups(table: pd.DataFrame, thirds: pd.DataFrame) -> dict[str, pd.Series]:
    """Which scans are in each subgroup of the tumors.

    Args:
        table: Predictions of one subset.
        thirds: The areas of ``area_thirds``.

    Returns:
        A mask of the rows for each subgroup, by its name.
    """
    tumor = table["label"] != NO_TUMOR
    known = table["group"].str.startswith("patient-")
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
    if table["group"].nunique() < FEWEST_GROUPS:
        return Share(scans=len(table), share=hits.mean(), interval=None)
    interval = Estimate(*scoring.mean_interval(hits, table["group"]))
    return Share(scans=len(table), share=interval.value, interval=interval)
