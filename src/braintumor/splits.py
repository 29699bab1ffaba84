"""Who trains and who evaluates: every scan gets exactly one subset."""

import dataclasses
from pathlib import Path

from braintumor import dataset, images
from braintumor.config import FOLDS, PROTOCOLS, Settings
from braintumor.dataset import NO_TUMOR, DataReport

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

# other groups are near-duplicates ("cluster-...") and single files ("file-...")
KNOWN_PATIENTS = ("patient-", "phantom-")
OTHER_SOURCE_FOLD = 1  # whose scans without a tumor are evaluated as another source


def load_scans(settings: Settings) -> tuple[Path, pd.DataFrame, DataReport]:
    """Find and verify the scans, and print what was found.

    Args:
        settings: ``unreadable`` decides what happens to damaged files.

    Returns:
        The data folder, its ``dataset.scan_table``, and the report.

    Raises:
        ValueError: A file is damaged, or only synthetic scans are there and the preset
            is for real ones.
    """
    root = dataset.locate_data()
    table = dataset.scan_table(root)
    report = dataset.verify(root, table)
    print(report.summary())
    if report.status == "phantoms" and settings.preset != "sample":
        raise ValueError(
            f"The preset '{settings.preset}' is for real scans: "
            "set BRAINTUMOR_DATA or use 'sample'."
        )
    problems = {}
    for path in report.changed + report.extra:
        _, problem = images.examine(root / path)
        if problem:
            problems[path] = problem
    if problems and settings.unreadable == "stop":
        lines = [f"{path}: {problem}" for path, problem in problems.items()]
        advice = "Mend these, or set unreadable='leave_out' (--unreadable leave_out):"
        raise ValueError("\n".join([advice, *lines]))
    if problems:
        print(f"left out, as damaged ({len(problems)}): {', '.join(problems)}")
    readable = table[~table["path"].isin(problems)].reset_index(drop=True)
    return root, readable, dataclasses.replace(report, left_out=list(problems))


def load_study(settings: Settings) -> tuple[Path, pd.DataFrame, DataReport]:
    """Find the scans that the settings ask for, and split them.

    Args:
        settings: ``max_scans``, ``protocol`` and ``seed`` decide.

    Returns:
        As ``load_scans``, the table with the columns of ``assign_subsets``.

    Raises:
        ValueError: See ``load_scans`` and ``assign_subsets``.
    """
    root, table, report = load_scans(settings)
    return root, split_scans(table, settings), report


def split_scans(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Choose the scans that the settings ask for, and split them.

    Args:
        table: A ``dataset.scan_table``.
        settings: ``max_scans``, ``protocol`` and ``seed`` decide.

    Returns:
        The part, see ``stratified_part``, with the columns of ``assign_subsets``.

    Raises:
        ValueError: See ``assign_subsets``.
    """
    part = stratified_part(table, settings.max_scans, settings.seed)
    return assign_subsets(part, settings.protocol, settings.seed)


def assign_subsets(table: pd.DataFrame, protocol: str, seed: int) -> pd.DataFrame:
    """Give every scan a subset.

    Args:
        table: A ``dataset.scan_table``.
        protocol: ``original`` holds out the first 20% by name of each class, as Keras'
            ``validation_split`` does: patients leak. ``testing`` trains on all of
            Training but label conflicts and groups that occur in Testing; it holds
            nothing out. ``patient`` is ``testing`` with the first of five folds of
            whole groups held out for validation, so no group is on two sides;
            ``patient-1`` to ``patient-4`` take another fold. ``source`` is ``patient``
            without one source: tumors of unknown patients, which come from elsewhere,
            are evaluated apart, with another fold of the scans without a tumor.
        seed: Decides the folds.

    Returns:
        The table, sorted by path, with ``subset`` (``train``, ``validation``, ``test``,
        ``other_source`` or ``excluded``) and ``excluded_because`` (empty, or why).

    Raises:
        ValueError: There is no such protocol, or a class has too few groups.
    """
    if protocol not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise ValueError(f"There is no protocol '{protocol}'; choose one of: {known}.")
    table = table.sort_values("path", ignore_index=True)
    table = table.assign(excluded_because="", subset="train")
    in_test_set = table["split"] == "testing"
    table.loc[in_test_set, "subset"] = "test"
    if protocol == "original":
        _hold_out_first_by_name(table)
        return table
    _exclude_leaks(table, in_test_set)
    if protocol == "testing":
        return table

    folds = _folds_of_whole_groups(table, seed)
    table.loc[folds[_held_out_fold(protocol)], "subset"] = "validation"
    if protocol == "source":
        _leave_one_source_out(table, folds)
    return table


def _held_out_fold(protocol: str) -> int:
    """The fold that validates: ``patient-2`` names its own, others take the first."""
    _, _, fold = protocol.partition("-")
    return int(fold) if fold else 0


def _hold_out_first_by_name(table: pd.DataFrame) -> None:
    """Hold out the first 20% of each class, in place."""
    training = table[table["subset"] == "train"]
    for _, scans in training.groupby("label"):
        held_out = scans.index[: len(scans) // FOLDS]
        table.loc[held_out, "subset"] = "validation"


def _exclude_leaks(table: pd.DataFrame, in_test_set: pd.Series) -> None:
    """Exclude what would leak from the test set, and label conflicts, in place."""
    test_groups = table.loc[in_test_set, "group"]
    shares_group = table["group"].isin(test_groups)
    leaks = shares_group & ~in_test_set
    table.loc[leaks, "excluded_because"] = "group occurs in Testing"
    table.loc[table["label_conflict"], "excluded_because"] = "label conflict"
    excluded = table["excluded_because"] != ""
    table.loc[excluded, "subset"] = "excluded"


def _folds_of_whole_groups(table: pd.DataFrame, seed: int) -> list[pd.Index]:
    """Deal the training scans to five folds: groups whole, classes in proportion."""
    training = table[table["subset"] == "train"]
    groups = training.groupby("label")["group"].nunique()
    all_labels = table["label"].unique()
    groups = groups.reindex(all_labels, fill_value=0)
    if groups.min() < FOLDS:
        raise ValueError(
            f"Class '{groups.idxmin()}' has {groups.min()} groups to train on, and "
            f"keeping groups apart needs at least {FOLDS}: add scans of this class or "
            "use the protocol 'original'."
        )
    splitter = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=seed)
    folds = splitter.split(training, training["label"], training["group"])
    return [training.index[positions] for _, positions in folds]


def _leave_one_source_out(table: pd.DataFrame, folds: list[pd.Index]) -> None:
    """Move the tumors of another source, and some scans without one, in place."""
    without_tumor = table["label"] == NO_TUMOR
    known_patient = table["group"].str.startswith(KNOWN_PATIENTS)
    usable = table["subset"].isin(["train", "validation"])
    foreign_tumor = usable & ~known_patient & ~without_tumor
    in_fold = table.index.isin(folds[OTHER_SOURCE_FOLD])
    held_out_without_tumor = in_fold & without_tumor
    other_source = foreign_tumor | held_out_without_tumor
    table.loc[other_source, "subset"] = "other_source"


def subset_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Count scans by label and subset.

    Args:
        table: Scans with their subsets.

    Returns:
        Labels as rows; subsets, and each reason of exclusion, as columns; with totals.
    """
    reason = "excluded: " + table["excluded_because"]
    is_used = table["excluded_because"] == ""
    subset = table["subset"].where(is_used, reason)
    counts = pd.crosstab(table["label"], subset, margins=True, margins_name="all")
    return counts.rename_axis(columns=None)


def leakage(table: pd.DataFrame) -> dict[str, float]:
    """Count validation scans whose patient is also in training.

    Args:
        table: Scans with their subsets.

    Returns:
        ``known``: validation scans whose patient is known. ``shared``: those whose
        patient is also in training. ``share``: the ratio of the two.
    """
    is_known = table["group"].str.startswith(KNOWN_PATIENTS)
    known = table[is_known]
    validation = known[known["subset"] == "validation"]
    training = known[known["subset"] == "train"]
    is_shared = validation["group"].isin(training["group"])
    shared = int(is_shared.sum())
    share = shared / max(len(validation), 1)
    return {"known": len(validation), "shared": shared, "share": share}


def stratified_part(table: pd.DataFrame, scans: int | None, seed: int) -> pd.DataFrame:
    """Choose a part of the scans for quick runs: whole groups, classes in proportion.

    Args:
        table: A ``dataset.scan_table``.
        scans: About how many. None: all.
        seed: Decides which.

    Returns:
        The part, sorted by path: whole groups, so also training scans that ``patient``
        excludes. Of the scans that it can use, the part holds at least five groups, if
        there are so many, of each class in Training and in Testing.
    """
    table = table.sort_values("path", ignore_index=True)
    if scans is None or len(table) <= scans:
        return table
    in_test_set = table["split"] == "testing"
    test_groups = table.loc[in_test_set, "group"]
    group_in_test_set = table["group"].isin(test_groups)
    leaks = group_in_test_set & ~in_test_set
    usable = table[~leaks & ~table["label_conflict"]]
    sizes = usable.groupby(["split", "label", "group"]).size()
    sizes = sizes.sample(frac=1, random_state=seed)
    classes = sizes.groupby(["split", "label"])
    # a group is taken while its middle lies within the wanted part of its class
    middle = classes.cumsum() - sizes / 2
    wanted_of_class = classes.transform("sum") * scans / len(table)
    wanted = middle <= wanted_of_class
    among_first = classes.cumcount() < FOLDS
    chosen = sizes[wanted | among_first]
    chosen_groups = chosen.index.get_level_values("group")
    is_chosen = table["group"].isin(chosen_groups)
    return table[is_chosen].reset_index(drop=True)
