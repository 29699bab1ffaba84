"""The card of a classifier: what its file says about the network in it."""

import json
import math
from collections.abc import Sequence
from numbers import Real
from typing import TypedDict, cast

FRAMES = ("scan", "head")  # see images.to_square


class _Needed(TypedDict):
    """What an answer depends on."""

    labels: list[str]
    image_size: int
    frame: str
    threshold: float


class Card(_Needed, total=False):
    """What is known of a classifier, as JSON in its file.

    Attributes:
        labels: The classes, in the order of the probabilities.
        image_size: Side of the square that the network sees (px).
        frame: How an image becomes that square, see ``images.to_square``.
        threshold: A scan whose similarity is lower is flagged as out of distribution.
        temperature: What the logits were divided by.
        use: What it may be used for.
        run: The name of its run.
        credits: Whose work it rests on, and under which licenses.
        data: The data set it was trained on.
        checksums: Whether these scans were as published.
        model: Its backbone.
        recipe: How it was trained.
        weights: Where the backbone began.
        protocol: How the scans were split.
        preset: The preset of the settings.
        seed: Of all random draws.
        precision: The dtype of the network in the file.
        versions: Of the programs that trained it.
    """

    temperature: float
    use: str
    run: str
    credits: list[str]
    data: str
    checksums: str
    model: str
    recipe: str
    weights: str
    protocol: str
    preset: str
    seed: int
    precision: str
    versions: dict[str, str]


def read_card(text: str | bytes, name: str) -> Card:
    """Read the card of a classifier, and check what an answer depends on.

    Args:
        text: JSON.
        name: The file that it is from.

    Returns:
        The card.

    Raises:
        ValueError: It is no card, or lacks something; names the file and what.
    """
    try:
        card = json.loads(text)
        wrong = _unusable_entries(card)
    except (ValueError, TypeError, AttributeError):  # no JSON, or no table of entries
        wrong = ["all"]
    if wrong:
        entries = ", ".join(wrong)
        advice = "take one that tools/release_classifier.py made."
        raise ValueError(f"The card of '{name}' is not usable ({entries}): {advice}")
    return cast(Card, card)


def _unusable_entries(card: dict) -> list[str]:
    """The entries that every card needs and that this one lacks, or has wrong."""
    unusable = []
    if not _are_labels(card.get("labels")):
        unusable.append("labels")
    size = card.get("image_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        unusable.append("image_size")
    if card.get("frame") not in FRAMES:
        unusable.append("frame")
    threshold = card.get("threshold")
    is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not is_number or not math.isfinite(cast(float, threshold)):
        unusable.append("threshold")
    return unusable


def _are_labels(labels: object) -> bool:
    """Whether something is a list of names, two or more, each another one."""
    if not isinstance(labels, list) or len(labels) < 2:
        return False
    if not all(isinstance(label, str) and label for label in labels):
        return False
    return len(set(labels)) == len(labels)


def check_fit(
    card: Card, name: str, input_shape: Sequence, output_shape: Sequence
) -> None:
    """Compare a card with the network beside it.

    Args:
        card: Its card.
        name: The file that both are from.
        input_shape: Of a batch of scans; what the file leaves open is not compared.
        output_shape: Of their probabilities.

    Raises:
        ValueError: The network is of other classes, or of another size.
    """
    compared = [
        ("classes", len(card["labels"]), output_shape[-1]),
        ("pixels a side", card["image_size"], input_shape[1]),
    ]
    for unit, wanted, found in compared:
        if isinstance(found, int) and found != wanted:
            advice = "take one that tools/release_classifier.py made."
            raise ValueError(
                f"'{name}' does not fit its card, which says {wanted} {unit}, "
                f"while its network has {found}: {advice}"
            )
