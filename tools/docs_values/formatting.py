"""How numbers are written in the documents: the filters of the templates."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAMES = {
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "validation": "validation",
    "test": "test set",
    "imagenet": "ImageNet",
    "random": "random",
}


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of shares, with its 95 % interval.

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
    return NAMES[name]


def percent(share: float) -> str:
    """A share in [0, 1] in per cent, with one digit after the point."""
    return f"{100 * share:.1f} %"


def percent_interval(estimate: Estimate) -> str:
    """A share with its interval, or a dash where it is undefined."""
    if estimate.value != estimate.value:
        return "–"
    low = 100 * estimate.low
    high = 100 * estimate.high
    return f"{percent(estimate.value)} ({low:.1f} to {high:.1f})"


def points(estimate: Estimate) -> str:
    """A difference of shares in points, with its interval."""
    difference = 100 * estimate.value
    low = 100 * estimate.low
    high = 100 * estimate.high
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"


def mean_sd(shares: Sequence[float]) -> str:
    """Mean ± standard deviation of several seeds, or the share of a single one."""
    mean = percent(statistics.mean(shares))
    if len(shares) == 1:
        return mean
    return f"{mean} ± {100 * statistics.stdev(shares):.1f}"


def listed(values: Iterable) -> str:
    """Values side by side: 22, 24 and 24."""
    *first, last = map(str, values)
    if not first:
        return last
    return f"{', '.join(first)} and {last}"


def value_range(values: Sequence[int]) -> str:
    """The smallest and the largest value: 86 to 88, or 37 where they are equal."""
    low = min(values)
    high = max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def number_of_seeds(seeds: int) -> str:
    """One seed is said where it is one."""
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def thousands(number: int) -> str:
    """A whole number with commas: 3,264."""
    return f"{number:,.0f}"


def one_digit(number: float) -> str:
    """A number with commas and one digit after the point: 1,505.3."""
    return f"{number:,.1f}"


def class_name(label: str) -> str:
    """The name of a class in a sentence."""
    return label.replace("_tumor", " tumour")


FILTERS = {
    "display_name": display_name,
    "percent": percent,
    "percent_interval": percent_interval,
    "points": points,
    "mean_sd": mean_sd,
    "listed": listed,
    "value_range": value_range,
    "number_of_seeds": number_of_seeds,
    "thousands": thousands,
    "one_digit": one_digit,
    "class_name": class_name,
}
