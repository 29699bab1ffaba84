"""Values of the pages on speed and scaling."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import bench
import pandas as pd
import scaling


@dataclass(frozen=True)
class Ratio:
    """A row of the benchmark, as text: ours beside another way to do the same.

    Attributes:
        ours: What of ours is measured.
        other: What it is compared with.
        our_value: What was measured of ours, with its unit.
        other_value: What was measured of the other, with its unit.
        times: How many times better ours is.
    """

    ours: str
    other: str
    our_value: str
    other_value: str
    times: str


@dataclass(frozen=True)
class Wait:
    """How long a person waits, as text.

    Attributes:
        what: What for.
        way: How it is done.
        value: The median with its unit, and the least and the most of the repeats.
        note: Why it was not measured.
    """

    what: str
    way: str
    value: str
    note: str


@dataclass(frozen=True)
class Machine:
    """Where the benchmark ran."""

    processor: str
    cores: int
    flags: list[str]
    versions: dict[str, str]
    data: str = ""


@dataclass(frozen=True)
class Cost:
    """What a scan or a step costs, measured or assumed."""

    name: str
    value: str
    measured: bool


@dataclass(frozen=True)
class Check:
    """A number of the model beside the measured one."""

    name: str
    model: str
    measured: str
    fitted: bool


@dataclass(frozen=True)
class Forecast:
    """What a larger study takes."""

    scans: int
    gpus: int
    time: str
    dollars: float
    longest: str
    disk_gb: float


def waits(results: Path) -> list[Wait]:
    """Every row of ``waiting.csv``."""
    rows = []
    for row in pd.read_csv(results / "waiting.csv").fillna({"note": ""}).itertuples():
        value = ""
        if row.repeats:
            value = f"{_three_digits(row.value)} {row.unit}"
        if row.repeats > 1:
            value += f" ({_three_digits(row.least)} to {_three_digits(row.most)})"
        rows.append(Wait(row.what, row.way, value, row.note))
    return rows


def ratios(results: Path) -> list[Ratio]:
    """Every ratio of the benchmark."""
    rows = []
    for row in pd.read_csv(results / "benchmark.csv").itertuples():
        ours, other = bench.ROWS[row.name].split(" / ")
        times = f"{row.ratio:.2f}"
        if not math.isnan(row.ratio_least):
            times += f" ({row.ratio_least:.2f} to {row.ratio_most:.2f})"
        ratio = Ratio(
            ours=ours,
            other=other,
            our_value=f"{_rate(row.ours)} {row.unit}",
            other_value=f"{_rate(row.reference)} {row.unit}",
            times=times,
        )
        rows.append(ratio)
    return rows


@dataclass(frozen=True)
class TransferStages:
    """What the stages of a `transfer` training take.

    Attributes:
        minutes: Of the whole training.
        longest: The stage that takes longest.
        longest_share: Its share of the time.
        features_share: The share of computing features of the frozen backbone.
    """

    minutes: float
    longest: str
    longest_share: float
    features_share: float


def transfer_stages(results: Path) -> TransferStages:
    """What ``benchmarks/transfer_stages.py`` measured."""
    rows = pd.read_csv(results / "transfer_stages.csv")
    longest = rows.loc[rows["share"].idxmax()]
    is_features = rows["stage"].str.startswith("features")
    return TransferStages(
        minutes=rows["seconds"].sum() / 60,
        longest=longest["stage"].split(",")[0],
        longest_share=longest["share"],
        features_share=rows.loc[is_features, "share"].sum(),
    )


def _rate(value: float) -> str:
    """A rate with three digits, or whole where it is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine(file: Path) -> Machine:
    """Where a benchmark ran.

    Args:
        file: ``benchmark.json`` or ``waiting.json``.

    Returns:
        The machine.
    """
    return Machine(**json.loads(file.read_text()))


def costs(results: Path) -> list[Cost]:
    """What a scan or a step costs."""
    rows = []
    for row in pd.read_csv(results / "scaling.csv").itertuples():
        rows.append(
            Cost(scaling.COSTS[row.cost], _three_digits(row.value), row.measured)
        )
    return rows


def checks(results: Path) -> list[Check]:
    """The model of costs beside what was measured."""
    rows = []
    for row in pd.read_csv(results / "scaling_checks.csv").itertuples():
        model = _three_digits(row.model)
        # the file is older than the words of the documents
        what = row.what.replace("phantoms", "synthetic images")
        rows.append(Check(what, model, _three_digits(row.measured), row.fitted))
    return rows


def forecasts(results: Path) -> list[Forecast]:
    """What larger studies take, according to the model."""
    rows = []
    for row in pd.read_csv(results / "scaling_forecast.csv").itertuples():
        forecast = Forecast(
            scans=row.scans,
            gpus=row.gpus,
            time=duration(row.hours),
            dollars=row.dollars,
            longest=row.longest,
            disk_gb=row.disk_gb,
        )
        rows.append(forecast)
    return rows


def _three_digits(value: float) -> str:
    """A number with three digits, or all of those before its point: 0.0472, 1,667."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(hours: float) -> str:
    """Two digits, in the largest unit that there is one of.

    Args:
        hours: A time in hours.

    Returns:
        Such as ``1.4 h``, ``24 min`` or ``0.62 s``.
    """
    if hours >= 1:
        return f"{hours:.2g} h"
    if hours >= 1 / 60:
        return f"{60 * hours:.2g} min"
    return f"{3600 * hours:.2g} s"
