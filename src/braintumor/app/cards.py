"""The card of a classifier: what its file says about the network in it."""

import json
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
    labels = card.get("labels", [])
    is_list = isinstance(labels, list) and len(labels) > 1
    if not is_list or not all(isinstance(label, str) for label in labels):
        unusable.append("labels")
    size = card.get("image_size")
    if not isinstance(size, int) or size < 1:
        unusable.append("image_size")
    if card.get("frame") not in FRAMES:
        unusable.append("frame")
    if not isinstance(card.get("threshold"), Real):
        unusable.append("threshold")
    return unusable
