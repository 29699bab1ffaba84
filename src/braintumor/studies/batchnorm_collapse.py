"""Why did the reference study's ResNet50 predict a single class?

Its batch norms started from statistics of other inputs. Here, a training is followed,
and the statistics are estimated anew to see what the weights alone can do.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from braintumor.config import Settings
from braintumor.generators import ScanSequence, subset_sequence
from braintumor.models import batch_norms, build_classifier

import keras
import numpy as np
import pandas as pd

SCANS_FOR_STATISTICS = 256  # training scans that statistics are re-estimated from
BATCHES_FOR_STATISTICS = 4


@dataclass(frozen=True)
class Condition:
    """One training of the experiment, by default in the reference study's situation.

    Attributes:
        name: Of the condition.
        steps: How many training steps.
        statistics: The inputs that batch-norm statistics fit at the start: ``0-255``
            (the mean subtracted, as ImageNet weights have them) or ``[0, 1]``.
        inputs: What the network is fed with: ``0-255`` or ``[0, 1]``.
        momentum: Of all batch norms; without effect if they are frozen.
        frozen: Whether batch norms are frozen.
        learning_rate: Of Adam.
    """

    name: str
    steps: int
    statistics: str = "0-255"
    inputs: str = "[0, 1]"
    momentum: float = 0.99
    frozen: bool = False
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class StatisticsEvaluation:
    """How well a network classifies with stored and with re-estimated statistics.

    Attributes:
        variance_ratio: Variance that the first batch norm has stored, divided by that
            of its inputs now; the median over channels.
        validation: Accuracy with the stored statistics.
        one_answer: Share of scans that get the most frequent prediction; 1 is a
            constant prediction.
        first_renewed: Accuracy after the statistics of the first batch norm were
            re-estimated.
        all_renewed: Accuracy after those of all batch norms were.
    """

    variance_ratio: float
    validation: float
    one_answer: float
    first_renewed: float
    all_renewed: float


def reestimate_statistics(
    model: keras.Model,
    batches: Sequence[np.ndarray],
    layers: Collection[keras.layers.BatchNormalization],
) -> None:
    """Set the statistics of batch norms to their means over batches.

    Nothing else of the model changes.

    Args:
        model: The network.
        batches: Its inputs, each (batch, height, width, channels).
        layers: The batch norms to re-estimate.
    """
    norms = batch_norms(model)
    before = [(norm.momentum, norm.trainable) for norm in norms]
    for norm in norms:
        # a frozen one would use what is stored, and learn nothing of the batches
        norm.trainable = True
    for index, batch in enumerate(batches):
        for norm in norms:
            # a moving average with this momentum is the mean of all batches so far;
            # a momentum of 1 keeps what is stored
            norm.momentum = index / (index + 1) if norm in layers else 1.0
        model(batch, training=True)
    for norm, (momentum, trainable) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.trainable = trainable


def evaluate_statistics(
    model: keras.Model,
    inputs: np.ndarray,
    labels: np.ndarray,
    batches: Sequence[np.ndarray],
) -> StatisticsEvaluation:
    """Evaluate a network with stored and with re-estimated statistics.

    Args:
        model: The network; it is left as it was.
        inputs: Scans to classify (n, height, width, channels).
        labels: Their classes, as integers (n,).
        batches: What the statistics are re-estimated from.

    Returns:
        The accuracies, and what the stored statistics do to the predictions.
    """
    weights = model.get_weights()
    first, *others = batch_norms(model)
    variance_ratio = _variance_ratio(model, first, batches[0])
    predictions = _predict_classes(model, inputs)
    most_frequent = np.bincount(predictions).max()

    reestimate_statistics(model, batches, [first])
    with_first = _predict_classes(model, inputs)
    reestimate_statistics(model, batches, others)  # now all of them are
    with_all = _predict_classes(model, inputs)
    model.set_weights(weights)
    return StatisticsEvaluation(
        variance_ratio=variance_ratio,
        validation=np.mean(predictions == labels),
        one_answer=most_frequent / len(predictions),
        first_renewed=np.mean(with_first == labels),
        all_renewed=np.mean(with_all == labels),
    )


def _variance_ratio(
    model: keras.Model, norm: keras.layers.BatchNormalization, batch: np.ndarray
) -> float:
    """Stored variance of a batch norm / variance of its inputs; median of channels."""
    up_to_norm = keras.Model(model.input, norm.input)
    present_variance = keras.ops.var(up_to_norm(batch), axis=(0, 1, 2))
    ratios = keras.ops.convert_to_numpy(norm.moving_variance / present_variance)
    return np.median(ratios)


def _predict_classes(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """The most probable class of each scan."""
    return model.predict(inputs, batch_size=64, verbose=0).argmax(axis=1)


def train_and_track(
    model: keras.Model,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    batches: Sequence[np.ndarray],
    *,
    steps: int,
    every: int,
    batch_size: int,
    seed: int,
) -> pd.DataFrame:
    """Train on random batches, and evaluate the statistics on the way.

    Args:
        model: The network, compiled with accuracy as its only metric.
        train: Inputs (n, height, width, channels) and one-hot classes (n, classes).
        validation: Inputs and classes as integers.
        batches: What the statistics are re-estimated from.
        steps: How many training steps.
        every: The number of steps between evaluations.
        batch_size: Scans in a training batch.
        seed: Of the batches.

    Returns:
        One row an evaluation: step, training (mean accuracy over the batches since the
        last; NaN in step 0), and the attributes of ``StatisticsEvaluation``.
    """
    rng = np.random.default_rng(seed)
    inputs, one_hot = train
    validation_inputs, labels = validation
    accuracies: list[float] = []  # of the training batches
    rows = []
    for step in range(steps + 1):
        if step % every == 0:
            training = np.mean(accuracies[-every:]) if accuracies else np.nan
            found = evaluate_statistics(model, validation_inputs, labels, batches)
            rows.append({"step": step, "training": training, **asdict(found)})
        chosen = rng.integers(len(inputs), size=batch_size)
        _, accuracy = model.train_on_batch(inputs[chosen], one_hot[chosen])
        accuracies.append(accuracy)
        model.reset_metrics()
    return pd.DataFrame(rows)


def run_experiment(
    conditions: Sequence[Condition],
    table: pd.DataFrame,
    root: Path,
    settings: Settings,
    *,
    last_layer: str,
    every: int,
) -> pd.DataFrame:
    """Train a cut ResNet50 under each condition, always from the same weights.

    Args:
        conditions: What to train.
        table: Scans with their subsets.
        root: The data folder.
        settings: ``image_size``, ``batch_size``, ``weights`` and ``seed`` decide.
        last_layer: Of ResNet50; its features are averaged for the classification.
        every: The number of steps between evaluations.

    Returns:
        The rows of ``train_and_track`` for each condition: its name as ``arm``, its
        other attributes, ``predicted`` (the variance ratio if its excess shrinks by the
        momentum in each step), and the settings that decide.
    """
    train_scans = subset_sequence(table, "train", root, settings)
    validation_scans = subset_sequence(table, "validation", root, settings)
    one_hot = train_scans.target_of_class[train_scans.labels]
    train = {name: _inputs(train_scans, name) for name in ("[0, 1]", "0-255")}
    validation = {name: _inputs(validation_scans, name) for name in train}

    model = _cut_classifier(settings, last_layer, classes=one_hot.shape[1])
    rng = np.random.default_rng(settings.seed)
    chosen = rng.permutation(len(one_hot))[:SCANS_FOR_STATISTICS]
    batches = {}
    for name, scans in train.items():
        batches[name] = np.array_split(scans[chosen], BATCHES_FOR_STATISTICS)
    # the same weights, with statistics that fit one or the other kind of inputs
    start = {}
    for name in ("0-255", "[0, 1]"):
        given = name == "0-255" and settings.weights != "random"
        if not given:
            reestimate_statistics(model, batches[name], batch_norms(model))
        start[name] = model.get_weights()

    tables = []
    for condition in conditions:
        for norm in batch_norms(model):
            norm.momentum = condition.momentum
            norm.trainable = not condition.frozen
        model.set_weights(start[condition.statistics])
        optimizer = keras.optimizers.Adam(condition.learning_rate)
        model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
        rows = train_and_track(
            model,
            (train[condition.inputs], one_hot),
            (validation[condition.inputs], validation_scans.labels),
            batches[condition.inputs],
            steps=condition.steps,
            every=every,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        excess = rows["variance_ratio"].iloc[0] - 1
        rows["predicted"] = 1 + excess * condition.momentum ** rows["step"]
        description = asdict(condition)
        description["arm"] = description.pop("name")
        tables.append(rows.assign(**description))
    return pd.concat(tables, ignore_index=True).assign(
        last_layer=last_layer,
        weights=settings.weights,
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        precision=settings.precision,
        seed=settings.seed,
        backend=keras.backend.backend(),
    )


def _inputs(scans: ScanSequence, kind: str) -> np.ndarray:
    """All scans as one kind of inputs: float32 (n, size, size, 3)."""
    gray = scans.images[..., np.newaxis].astype("float32")
    pixels = np.repeat(gray, 3, axis=-1)
    if kind == "[0, 1]":
        return pixels / 255
    return keras.applications.resnet50.preprocess_input(pixels)


def _cut_classifier(settings: Settings, last_layer: str, classes: int) -> keras.Model:
    """ResNet50 up to a layer, global average pooling, softmax."""
    base = build_classifier(settings, "resnet50", classes).get_layer("backbone")
    features = base.get_layer(last_layer).output
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    outputs = keras.layers.Dense(classes, activation="softmax")(pooled)
    return keras.Model(base.input, outputs)
