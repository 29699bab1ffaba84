"""Who trains and who judges: a protocol gives every scan exactly one subset; quick runs take a part of the scans."""

from pathlib import Path

import pandas
from sklearn.model_selection import StratifiedGroupKFold

from . import dataset
from .config import Settings

FOLDS = 5  # one of them, 20 %, is held out for validation


def load_study(settings: Settings) -> tuple[Path, pandas.DataFrame, dict]:
    """The data folder, the table of the scans the settings ask for with their subsets, and the report on the data."""
    root = dataset.locate_data()
    table = dataset.scan_table(root)
    report = dataset.verify(root, table)
    print(dataset.describe(report))
    part = stratified_part(table, settings.max_scans, settings.seed)
    return root, assign_subsets(part, settings.protocol, settings.seed), report


def assign_subsets(table: pandas.DataFrame, protocol: str, seed: int) -> pandas.DataFrame:
    """The scan table, sorted by path, with two new columns.

    ``subset`` is train, validation, test or excluded; ``excluded_because`` is empty or the reason.
    The result does not depend on the order of the rows that come in.

    Raises ValueError for an unknown protocol or a class with too few groups to be split.
    """
    protocols = {"patient": _patient, "original": _original}
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


def _patient(table, seed):
    """No group on two sides: conflicts and groups that occur in Testing leave Training, whole groups are held out.

    The first fold of a shuffled 5-fold ``StratifiedGroupKFold`` (scikit-learn) is the validation subset.
    """
    in_testing = table["group"].isin(table.loc[table["split"] == "testing", "group"])
    _exclude(table, table["label_conflict"], "label conflict")
    _exclude(table, (table["subset"] == "train") & in_testing, "group occurs in Testing")
    training = table[table["subset"] == "train"]
    groups = training.groupby("label")["group"].nunique().reindex(sorted(table["label"].unique()), fill_value=0)
    if groups.min() < FOLDS:
        raise ValueError(
            f"Class '{groups.idxmin()}' has {groups.min()} groups to train on, and keeping groups apart "
            f"needs at least {FOLDS}: add scans of this class or use the protocol 'original'."
        )
    splitter = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=seed)
    _, held_out = next(splitter.split(training, training["label"], training["group"]))
    table.loc[training.index[held_out], "subset"] = "validation"
    return table


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

    Groups that occur in Testing and the others are drawn apart, so both folders keep their share. Every class
    keeps a scan in each split and, if it had them, five groups to train on, even if the part gets larger by that.
    The same for any order of rows.
    """
    table = table.sort_values("path", ignore_index=True)
    if scans is None or len(table) <= scans:
        return table
    in_testing = table["group"].isin(table.loc[table["split"] == "testing", "group"])
    judged = table[in_testing == (table["split"] == "testing")]  # a group has the label of its first such scan
    groups = judged.groupby("group").agg(label=("label", "first"), split=("split", "first"))
    groups = groups.assign(size=table["group"].value_counts()).sample(frac=1, random_state=seed)
    chosen = set()
    for _, stratum in groups.groupby(["split", "label"]):
        chosen |= _fill(stratum["size"], scans * stratum["size"].sum() / len(table))
    small_first = groups["size"].sort_values(kind="stable").index
    to_train = table[(table["split"] == "training") & ~in_testing & ~table["label_conflict"]]
    needs = [(1, rows) for _, rows in table.groupby(["split", "label"])]
    needs += [(FOLDS, rows) for _, rows in to_train.groupby("label")]
    for least, rows in needs:
        candidates = small_first[small_first.isin(rows["group"])]
        lacking = least - candidates.isin(chosen).sum()
        chosen |= set(candidates[~candidates.isin(chosen)][: max(lacking, 0)])
    return table[table["group"].isin(chosen)].reset_index(drop=True)


def _fill(sizes, quota):
    """Groups that make up about ``quota`` scans: in the order given, but large ones only if the others do not do."""
    large = sizes > quota / (FOLDS + 1)
    taken, names = 0, set()
    for name, size in pandas.concat([sizes[~large], sizes[large].sort_values(kind="stable")]).items():
        if taken + size / 2 <= quota:
            taken, names = taken + size, names | {name}
    return names
