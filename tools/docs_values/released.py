"""What is released: the version, and the classifier with its own scores."""

import re
from dataclasses import dataclass
from pathlib import Path

from docs_values.formatting import Estimate
from docs_values.result_files import estimate, select

import pandas as pd

FILE_NAME = re.compile(
    r"braintumor-(?P<model>[^-]+)-(?P<recipe>[^-]+)-(?P<split>.+)"
    r"-(?P<image_size>\d+)px-seed(?P<seed>\d+)\.onnx"
)


CITATION_LINE = re.compile(r"^(version|date-released): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class SeedScores:
    """One run: how it scores on its validation scans and on the test set.

    Attributes:
        seed: Its seed.
        validation: Accuracy on its validation scans, with its interval.
        test: Accuracy on the test set, with its interval.
        missed: Test tumors that it calls ``no_tumor``.
        missed_rate: Their share of the test tumors, with its interval.
        false_alarms: Test scans without a tumor that it calls a tumor.
        alarm_rate: Their share of the test scans without a tumor, with its interval.
        glioma_recall: Share of the test gliomas that it calls glioma.
    """

    seed: int
    validation: Estimate
    test: Estimate
    missed: int
    missed_rate: Estimate
    false_alarms: int
    alarm_rate: Estimate
    glioma_recall: Estimate


@dataclass(frozen=True)
class Released:
    """The classifier in ``models/``, beside the other seeds of its setting.

    Attributes:
        file: The name of its file.
        megabytes: The size of its file.
        model: Its backbone.
        recipe: How it was trained.
        split: How the scans were split.
        image_size: Side of its input, in pixels.
        scores: Its own scores.
        others: Those of the other seeds of its setting.
    """

    file: str
    megabytes: float
    model: str
    recipe: str
    split: str
    image_size: int
    scores: SeedScores
    others: list[SeedScores]

    @property
    def misses_most(self) -> bool:
        """Whether no other seed of its setting misses as many tumors."""
        return all(self.scores.missed > other.missed for other in self.others)

    @property
    def fewest_false_alarms(self) -> bool:
        """Whether every other seed of its setting gives more false alarms."""
        alarms = self.scores.false_alarms
        return all(alarms < other.false_alarms for other in self.others)


def released(metrics: pd.DataFrame, models: Path) -> Released:
    """Read which classifier is released, and its scores.

    Args:
        metrics: Rows of ``metrics.csv``.
        models: The folder of ``checksums.txt`` and of the classifier.

    Returns:
        The classifier.

    Raises:
        ValueError: The name of its file does not say which run it is of.
    """
    last_line = (models / "checksums.txt").read_text().splitlines()[-1]
    _, file = last_line.split(maxsplit=1)
    named = FILE_NAME.fullmatch(file)
    if not named:
        raise ValueError(f"'{file}' in checksums.txt does not name a run.")
    runs = select(
        metrics,
        model=named["model"],
        recipe=named["recipe"],
        protocol=named["split"],
        image_size=int(named["image_size"]),
    )
    by_seed = {}
    for seed, rows in runs.groupby("seed"):
        by_seed[seed] = _seed_scores(int(seed), rows)
    scores = by_seed.pop(int(named["seed"]))
    return Released(
        file=file,
        megabytes=(models / file).stat().st_size / 1e6,
        model=named["model"],
        recipe=named["recipe"],
        split=named["split"],
        image_size=int(named["image_size"]),
        scores=scores,
        others=list(by_seed.values()),
    )


def _seed_scores(seed: int, rows: pd.DataFrame) -> SeedScores:
    """The scores of one run."""
    by_subset = rows.set_index("subset")
    test = by_subset.loc["test"]
    accuracy_on_validation = estimate(by_subset.loc["validation"], "accuracy")
    accuracy_on_test = estimate(test, "accuracy")
    missed_rate = estimate(test, "missed_tumor_rate")
    alarm_rate = estimate(test, "false_alarm_rate")
    return SeedScores(
        seed=seed,
        validation=accuracy_on_validation,
        test=accuracy_on_test,
        missed=int(test["missed_tumors"]),
        missed_rate=missed_rate,
        false_alarms=int(test["false_alarms"]),
        alarm_rate=alarm_rate,
        glioma_recall=estimate(test, "recall_glioma"),
    )


def citation(file: Path) -> dict[str, str]:
    """Read the version and its date.

    Args:
        file: The ``CITATION.cff`` of the repository.

    Returns:
        ``version`` and ``date-released``.
    """
    return dict(CITATION_LINE.findall(file.read_text()))
