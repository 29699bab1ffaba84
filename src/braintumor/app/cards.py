"""The card of a classifier: what its file says about the network in it."""

from typing import TypedDict


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
