"""Train a head on stored features, as long as its backbone is frozen."""

from typing import TYPE_CHECKING

from braintumor.config import CACHED_AUGMENTATIONS
from braintumor.support.checkpoints import EpochKeeper
from braintumor.support.progress import Progress

import keras
import numpy as np

if TYPE_CHECKING:
    from braintumor.generators import ScanSequence

Features = tuple[np.ndarray, np.ndarray]  # pooled features and one-hot labels


def fit_head(
    model: keras.Model,
    train_scans: "ScanSequence",
    validation_scans: "ScanSequence | None",
    epochs: range,
    keeper: EpochKeeper,
) -> None:
    """Train the head as ``fit`` would, but run the frozen backbone only a few times.

    The first ``CACHED_AUGMENTATIONS`` epochs see the batches that they would see in
    ``fit``. Later epochs see the same augmented scans again, in other orders. Computing
    features counts as time of the epoch that needs them first.

    Args:
        model: A classifier, compiled for the phase ``head``; trained in place.
        train_scans: Batches to train on.
        validation_scans: Batches to evaluate after each epoch, or None.
        epochs: The epochs to train, counted from 0.
        keeper: Writes the files of the run.
    """
    # the same layers and weights as two models: up to the pooled features, and from
    # them
    pooled = model.get_layer("pooled").output
    backbone = keras.Model(model.input, pooled)
    head = keras.Model(pooled, model.output)
    accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    head.compile(model.optimizer, model.loss, metrics=[accuracy])

    train_features: dict[int, Features] = {}
    validation_features: Features | None = None
    for epoch in epochs:
        keeper.start_clock()
        # 1. Features of the training scans, in one of a few augmented versions.
        version = epoch % CACHED_AUGMENTATIONS
        if version not in train_features:
            what = f"features of augmentation {version + 1}"
            train_scans.epoch = version
            train_features[version] = compute_features(backbone, train_scans, what)
        features, one_hot = train_features[version]
        # 2. Features of the validation scans, which are never augmented.
        if validation_scans is not None and validation_features is None:
            what = "features of validation scans"
            validation_features = compute_features(backbone, validation_scans, what)
        # 3. The order: at first that of the batches, then a new one in each epoch.
        order = np.arange(len(features))
        if epoch >= CACHED_AUGMENTATIONS:
            generator = np.random.default_rng([train_scans.seed, epoch, 0])
            order = generator.permutation(order)
        # 4. One epoch of the head.
        head.fit(
            features[order],
            one_hot[order],
            batch_size=train_scans.batch_size,
            validation_data=validation_features,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=keeper.callbacks,
            class_weight=train_scans.class_weight,
        )


def compute_features(
    backbone: keras.Model, scans: "ScanSequence", what: str
) -> Features:
    """Run a backbone over all batches of an epoch.

    Args:
        backbone: A model from scans to pooled features.
        scans: The batches.
        what: What lines of progress call it.

    Returns:
        Features, shape (scans, channels), and one-hot labels, shape (scans, classes),
        in the order of the batches.
    """
    progress = Progress(what, len(scans))
    features = []
    one_hot = []
    for index in range(len(scans)):
        images, batch_one_hot = scans[index]
        features.append(backbone.predict_on_batch(images))
        one_hot.append(batch_one_hot)
        progress.update(index + 1)
    return np.concatenate(features), np.concatenate(one_hot)
