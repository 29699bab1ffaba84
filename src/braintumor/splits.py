"""Who trains and who judges: a protocol gives every scan exactly one subset; quick runs take a part of the scans."""

from functools import partial
from pathlib import Path

import pandas
from sklearn.model_selection import StratifiedGroupKFold

from . import dataset
from .config import Settings

FOLDS = 5  # one of them, 20 %, is held out for validation


def load_scans(settings: Settings) -> tuple[Path, pandas.DataFrame, dict]:
    """The data folder, the table of all its scans, and the report on them, which is also printed.

    Raises ValueError where there are only phantoms and the preset's results would stand among the real ones.
    """
    root = dataset.locate_data()
    table = dataset.scan_table(root)
    report = dataset.verify(root, table)
    print(dataset.describe(report))
    if report["status"] == "phantoms" and settings.preset != "sample":
        raise ValueError(f"The preset '{settings.preset}' is for real scans: set BRAINTUMOR_DATA or use 'sample'.")
    return root, table, report


def load_study(settings: Settings) -> tuple[Path, pandas.DataFrame, dict]:
    """As ``load_scans``, but only the scans that the settings ask for, with their subsets."""
    root, table, report = load_scans(settings)
    part = stratified_part(table, settings.max_scans, settings.seed)
    return root, assign_subsets(part, settings.protocol, settings.seed), report


def assign_subsets(table: pandas.DataFrame, protocol: str, seed: int) -> pandas.DataFrame:
    """The scan table, sorted by path, with two new columns.

    ``subset`` is train, validation, test or excluded; ``excluded_because`` is empty or the reason.
    The result does not depend on the order of the rows that come in.

    Raises ValueError for an unknown protocol or a class with too few groups to be split.
    """
    protocols = {"patient": _patient, "original": _original, "testing": _testing, "source": _source}
    protocols |= {f"patient-{fold}": partial(_patient, fold=fold) for fold in range(1, FOLDS)}
    if protocol not in protocols:
        raise ValueError(f"There is no protocol '{protocol}'; choose one of: {', '.join(protocols)}.")
    table = table.sort_values("path", ignore_index=True)
    table["excluded_because"] = ""
    table["subset"] = (table["split"] == "testing").map({True: "test", False: "train"})
    return protocols[protocol](table, seed)


def _original(table, seed):
    """The original's hold-out, as Keras' ``validation_split`` makes it: the first 20 % by name of each class.

    Scans of one patient land on both sides: this protocol leaks, and is kept to measure how much.
    """
    training = table[table["split"] == "training"]
    rank = training.groupby("label").cumcount()
    held_out = training.groupby("label")["path"].transform("size") // FOLDS
    table.loc[training.index[rank < held_out], "subset"] = "validation"
    return table


def _testing(table, seed):
    """All of Training but conflicts and groups that occur in Testing; nothing is held out, so nothing can be chosen."""
    in_testing = table["group"].isin(table.loc[table["split"] == "testing", "group"])
    _exclude(table, table["label_conflict"], "label conflict")
    _exclude(table, (table["subset"] == "train") & in_testing, "group occurs in Testing")
    return table


def _patient(table, seed, fold=0):
    """No group on two sides: as ``testing``, and whole groups are held out: ``patient`` is the first of five folds.

    The folds are those of a shuffled ``StratifiedGroupKFold`` (scikit-learn).
    """
    table = _testing(table, seed)
    table.loc[_folds(table, seed)[fold], "subset"] = "validation"
    return table


def _source(table, seed):
    """Leave one source out, inside Training: tumours of known patients train and validate, the other tumours judge.

    Scans without a tumour have no known patients: one fold of them validates, another one judges.
    """
    table = _testing(table, seed)
    _exclude(table, table["subset"] == "test", "Testing folder")
    folds, healthy = _folds(table, seed), table["label"] == "no_tumor"
    other = (table["subset"] == "train") & ~healthy & ~table["group"].str.startswith(("patient-", "phantom-"))
    table.loc[folds[0], "subset"] = "validation"
    table.loc[other | table.index.isin(folds[1]) & healthy, "subset"] = "test"
    return table


def _folds(table, seed):
    """Rows of each of five folds of the train scans: groups stay whole, classes keep their shares."""
    training = table[table["subset"] == "train"]
    groups = training.groupby("label")["group"].nunique().reindex(sorted(table["label"].unique()), fill_value=0)
    if groups.min() < FOLDS:
        raise ValueError(
            f"Class '{groups.idxmin()}' has {groups.min()} groups to train on, and keeping groups apart "
            f"needs at least {FOLDS}: add scans of this class or use the protocol 'original'."
        )
    splitter = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=seed)
    return [training.index[rows] for _, rows in splitter.split(training, training["label"], training["group"])]


def _exclude(table, rows, reason):
    table.loc[rows, ["subset", "excluded_because"]] = ["excluded", reason]


def subset_counts(table: pandas.DataFrame) -> pandas.DataFrame:
    """Scans of each label (rows) in each subset and reason of exclusion (columns), with totals."""
    where = table["subset"].where(table["excluded_because"] == "", "excluded: " + table["excluded_because"])
    return pandas.crosstab(table["label"], where, margins=True, margins_name="all").rename_axis(columns=None)


def leakage(table: pandas.DataFrame) -> dict:
    """How many validation scans show a known patient who is also in training: ``known``, ``shared`` and their share.

    Groups made of near-duplicates (``cluster-...``) and single files say nothing about a patient and are not counted.
    """
    known = table[table["group"].str.startswith(("patient-", "phantom-"))]
    groups = known.loc[known["subset"] == "train", "group"]
    validation = known[known["subset"] == "validation"]
    shared = int(validation["group"].isin(groups).sum())
    return {"known": len(validation), "shared": shared, "share": shared / max(len(validation), 1)}


def stratified_part(table: pandas.DataFrame, scans: int | None, seed: int) -> pandas.DataFrame:
    """About ``scans`` scans for quick runs, sorted by path: whole groups, every class in its proportion.

    Drawn from what the patient protocol can use, with at least five groups (where there are as many) of each class
    in each folder, even if the part gets larger by that. The same for any order of rows; None gives all scans.
    """
    table = table.sort_values("path", ignore_index=True)
    if scans is None or len(table) <= scans:
        return table
    testing = table["split"] == "testing"
    usable = ~table["label_conflict"] & (testing == table["group"].isin(table.loc[testing, "group"]))
    order = pandas.Series(sorted(set(table["group"]))).sample(frac=1, random_state=seed)
    chosen = set()
    for _, rows in table[usable].groupby(["split", "label"]):
        sizes = rows["group"].value_counts().reindex(order).dropna()
        keep = sizes.cumsum() - sizes / 2 <= len(rows) * scans / len(table)
        keep.iloc[:FOLDS] = True
        chosen |= set(sizes.index[keep])
    return table[table["group"].isin(chosen)].reset_index(drop=True)
