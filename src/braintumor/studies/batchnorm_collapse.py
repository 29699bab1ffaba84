"""Why did the reference study's ResNet50 predict a single class?

Its batch norms started from statistics of other inputs. Here, a training is followed,
and the statistics are estimated anew to see what the weights alone can do.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from braintumor.models import batch_norms

import keras
import numpy as np
import pandas as pd


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
    momenta = {norm: norm.momentum for norm in batch_norms(model)}
    for index, batch in enumerate(batches):
        for norm in momenta:
            # a moving average with this momentum is the mean of all batches so far;
            # a momentum of 1 keeps what is stored
            norm.momentum = index / (index + 1) if norm in layers else 1.0
        model(batch, training=True)
    for norm, momentum in momenta.items():
        norm.momentum = momentum


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
