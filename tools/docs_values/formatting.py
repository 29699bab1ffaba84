"""How numbers are written in the documents: the filters of the templates."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from braintumor import plots

# with spaces that do not break, as cells of tables are narrow on a phone
PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
NAMES = {
    "validation": "validation",
    "test": "test set",
    "imagenet": "ImageNet",
    "random": "random",
    "tensorflow": "TensorFlow",
    "jax": "JAX",
    "mixed_bfloat16": "bfloat16",
    "mixed_float16": "float16",
}


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of shares, with its 95% interval.

    Attributes:
        value: The share, or the difference; NaN where it is undefined.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
    """

    value: float
    low: float
    high: float


def display_name(name: str) -> str:
    """The name of a model, subset or start as a person writes it."""
    return NAMES.get(name) or plots.display_name(name)


def class_name(label: str) -> str:
    """The name of a class in a sentence: no_tumor is ``no tumor``."""
    return label.replace("_", " ")


def percent(share: float) -> str:
    """A share in [0, 1] in percent, with one digit after the point: 93.4%."""
    return f"{100 * share:.1f}%"


def whole_percent(share: float) -> str:
    """A share in [0, 1] in whole percent: 93%."""
    return f"{100 * share:.0f}%"


def percent_interval(estimate: Estimate) -> str:
    """A share with its interval: 93.4% (89.9 to 96.1); a dash where undefined."""
    if math.isnan(estimate.value):
        return "–"
    return f"{percent(estimate.value)} ({interval(estimate)})"


def complement(estimate: Estimate) -> Estimate:
    """The share of all others: 91.2% (85.9 to 95.4) for 8.8% (4.6 to 14.1)."""
    return Estimate(1 - estimate.value, 1 - estimate.high, 1 - estimate.low)


def interval(estimate: Estimate) -> str:
    """The bounds of a share: 89.9 to 96.1."""
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def points(estimate: Estimate) -> str:
    """A difference of shares in points: +9.7 (+4.4 to +15.3)."""
    difference = 100 * estimate.value
    low = 100 * estimate.low
    high = 100 * estimate.high
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"


def in_points(difference: float) -> str:
    """A difference of shares in points, without sign: 11.9."""
    return f"{100 * abs(difference):.1f}"


def mean(values: Sequence[float]) -> float:
    """The mean of several seeds."""
    return statistics.mean(values)


def mean_sd(shares: Sequence[float]) -> str:
    """Mean ± standard deviation of several seeds in percent; one seed has no ±."""
    center = percent(statistics.mean(shares))
    if len(shares) == 1:
        return center
    return f"{center}{PLUS_MINUS}{100 * statistics.stdev(shares):.1f}"


def mean_sd_number(values: Sequence[float]) -> str:
    """Mean ± standard deviation of numbers that are no shares: 0.986 ± 0.002."""
    center = f"{statistics.mean(values):.3f}"
    if len(values) == 1:
        return center
    return f"{center}{PLUS_MINUS}{statistics.stdev(values):.3f}"


def listed(values: Iterable) -> str:
    """Values side by side: 22, 24 and 24."""
    *first, last = map(str, values)
    if not first:
        return last
    return f"{', '.join(first)} and {last}"


def value_range(values: Sequence[float]) -> str:
    """The smallest and the largest value: 86 to 88, or 37 where they are equal."""
    low = thousands(min(values))
    high = thousands(max(values))
    return low if low == high else f"{low} to {high}"


def number_of_seeds(seeds: int) -> str:
    """One seed is said where it is one."""
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def thousands(number: float) -> str:
    """A whole number with commas: 3,264."""
    return f"{number:,.0f}"


def one_digit(number: float) -> str:
    """A number with commas and one digit after the point: 1,505.3."""
    return f"{number:,.1f}"


FILTERS = {
    function.__name__: function
    for function in (
        display_name,
        class_name,
        percent,
        whole_percent,
        percent_interval,
        complement,
        interval,
        points,
        in_points,
        mean,
        mean_sd,
        mean_sd_number,
        listed,
        value_range,
        number_of_seeds,
        thousands,
        one_digit,
    )
}
