"""Who trains and who judges: a protocol gives every scan exactly one subset; quick runs take a part of the scans."""

from pathlib import Path

from braintumor import dataset
from braintumor.config import Settings

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

FOLDS = 5  # one of them, 20 %, is held out for validation
PROTOCOLS = [
    "patient",
    "original",
    "testing",
    "source",
    *(f"patient-{fold}" for fold in range(1, FOLDS)),
]
KNOWN_PATIENTS = (
    "patient-",
    "phantom-",
)  # other groups are near-duplicates ("cluster-...") and single files


def load_scans(settings: Settings) -> tuple[Path, pd.DataFrame, dict]:
    """The data folder, its scans, and the report, also printed; ValueError for bad files, or phantoms beyond sample."""
    root = dataset.locate_data()
    table = dataset.scan_table(root)
    report = dataset.verify(root, table)
    print(dataset.describe(report))
    if report["status"] == "phantoms" and settings.preset != "sample":
        raise ValueError(
            f"The preset '{settings.preset}' is for real scans: set BRAINTUMOR_DATA or use 'sample'."
        )
    bad = {
        path: why
        for path in report["changed"] + report["extra"]
        if (why := dataset.examine(root / path)[1])
    }
    if bad and settings.unreadable == "stop":
        raise ValueError(
            "\n".join(
                [
                    "Mend these, or set unreadable='leave_out':",
                    *map(": ".join, bad.items()),
                ]
            )
        )
    return (
        root,
        table[~table["path"].isin(bad)].reset_index(drop=True),
        report | {"left_out": list(bad)},
    )


def load_study(settings: Settings) -> tuple[Path, pd.DataFrame, dict]:
    """As ``load_scans``, but only the scans that the settings ask for, with their subsets."""
    root, table, report = load_scans(settings)
    part = stratified_part(table, settings.max_scans, settings.seed)
    return root, assign_subsets(part, settings.protocol, settings.seed), report


def assign_subsets(table: pd.DataFrame, protocol: str, seed: int) -> pd.DataFrame:
    """The scan table, sorted by path whatever its order was, with two new columns.

    ``subset``: train, validation, test, other_source or excluded; ``excluded_because``: empty or the reason. Protocols:

    - ``original`` holds out the first 20 % by name of each class, as Keras' ``validation_split``: patients leak.
    - ``testing`` trains on all of Training but label conflicts and groups that occur in Testing; holds nothing out.
    - ``patient`` has no group on two sides: as ``testing``, and the first of five folds of whole groups validates;
      ``patient-1`` to ``patient-4`` take another fold.
    - ``source`` leaves one source out: as ``patient``, but tumours of unknown patients, which are from elsewhere, judge
      with another fold of the scans without a tumour (``other_source``).

    Raises ValueError for an unknown protocol or a class with too few groups to be split.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"There is no protocol '{protocol}'; choose one of: {', '.join(PROTOCOLS)}."
        )
    table = table.sort_values("path", ignore_index=True).assign(
        excluded_because="", subset="train"
    )
    testing = table["split"] == "testing"
    table.loc[testing, "subset"] = "test"
    if protocol == "original":
        for _, scans in table[~testing].groupby("label"):
            table.loc[scans.index[: len(scans) // FOLDS], "subset"] = "validation"
        return table
    in_testing = table["group"].isin(table.loc[testing, "group"])
    table.loc[in_testing & ~testing, "excluded_because"] = "group occurs in Testing"
    table.loc[table["label_conflict"], "excluded_because"] = "label conflict"
    table.loc[table["excluded_because"] != "", "subset"] = "excluded"
    if protocol == "testing":
        return table
    training = table[table["subset"] == "train"]
    groups = (
        training.groupby("label")["group"]
        .nunique()
        .reindex(table["label"].unique(), fill_value=0)
    )
    if groups.min() < FOLDS:
        few = f"Class '{groups.idxmin()}' has {groups.min()} groups to train on, and keeping groups apart needs"
        raise ValueError(
            f"{few} at least {FOLDS}: add scans of this class or use the protocol 'original'."
        )
    splitter = StratifiedGroupKFold(
        n_splits=FOLDS, shuffle=True, random_state=seed
    )  # groups whole, classes in shares
    folds = [
        training.index[rows]
        for _, rows in splitter.split(training, training["label"], training["group"])
    ]
    table.loc[folds[int(protocol.partition("-")[2] or 0)], "subset"] = "validation"
    if protocol == "source":
        healthy, known = (
            table["label"] == "no_tumor",
            table["group"].str.startswith(KNOWN_PATIENTS),
        )
        usable = table["subset"].isin(["train", "validation"])
        table.loc[
            usable & ~known & ~healthy | table.index.isin(folds[1]) & healthy, "subset"
        ] = "other_source"
    return table


def subset_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Scans of each label (rows) in each subset and reason of exclusion (columns), with totals."""
    where = table["subset"].where(
        table["excluded_because"] == "", "excluded: " + table["excluded_because"]
    )
    return pd.crosstab(
        table["label"], where, margins=True, margins_name="all"
    ).rename_axis(columns=None)


def leakage(table: pd.DataFrame) -> dict:
    """How many validation scans show a known patient who is also in training: ``known``, ``shared`` and their share."""
    known = table[table["group"].str.startswith(KNOWN_PATIENTS)]
    validation = known[known["subset"] == "validation"]
    shared = int(
        validation["group"].isin(known.loc[known["subset"] == "train", "group"]).sum()
    )
    return {
        "known": len(validation),
        "shared": shared,
        "share": shared / max(len(validation), 1),
    }


def stratified_part(table: pd.DataFrame, scans: int | None, seed: int) -> pd.DataFrame:
    """About ``scans`` scans (None: all) for quick runs, sorted by path: whole groups, every class in its proportion.

    Drawn from what the patient protocol can use, with at least five groups, if there are, of each class and folder.
    """
    table = table.sort_values("path", ignore_index=True)
    if scans is None or len(table) <= scans:
        return table
    testing = table["split"] == "testing"
    usable = table[
        ~table["label_conflict"]
        & (testing == table["group"].isin(table.loc[testing, "group"]))
    ]
    sizes = (
        usable.groupby(["split", "label", "group"])
        .size()
        .sample(frac=1, random_state=seed)
    )
    classes = sizes.groupby(["split", "label"])
    wanted = classes.cumsum() - sizes / 2 <= classes.transform("sum") * scans / len(
        table
    )
    chosen = sizes[wanted | (classes.cumcount() < FOLDS)].index.get_level_values(
        "group"
    )
    return table[table["group"].isin(chosen)].reset_index(drop=True)
