"""How is it trained? A recipe becomes phases; each is compiled, then fitted."""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from braintumor.backbones import backbone_named
from braintumor.config import Recipe, Settings
from braintumor.generators import ScanSequence
from braintumor.models import set_trainable
from braintumor.support.checkpoints import EpochKeeper, read_history, restore_checkpoint
from braintumor.support.files import claim
from braintumor.support.frozen_features import fit_head

import keras
import numpy as np
import pandas as pd

DEFAULT_LEARNING_RATE = 1e-3  # Adam's default; also that of a new head
FINE_TUNE_LEARNING_RATE = 5e-5
WEIGHT_DECAY = 0.01
EMA_MOMENTUM = 0.99  # share of the moving average of the weights that a step keeps
WARMUP_EPOCHS = 2


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a training in which the same layers train.

    Attributes:
        name: ``head``, ``fine_tune`` or ``all``, see ``models.set_trainable``.
        first_epoch: Counted from 1.
        last_epoch: Counted from 1.
        learning_rate: The highest of the phase.
    """

    name: str
    first_epoch: int
    last_epoch: int
    learning_rate: float


def training_phases(settings: Settings, model: str) -> list[Phase]:
    """Turn a recipe into the phases of a training.

    Args:
        settings: Of the run.
        model: The backbone.

    Returns:
        One phase or two, in order.
    """
    recipe = settings.parsed_recipe
    epochs = settings.epochs
    if recipe.base == "transfer":
        head_epochs = min(settings.head_epochs, epochs)
        head = Phase("head", 1, head_epochs, DEFAULT_LEARNING_RATE)
        fine_tune = Phase("fine_tune", head_epochs + 1, epochs, FINE_TUNE_LEARNING_RATE)
        phases = [head, fine_tune]
        return [phase for phase in phases if phase.first_epoch <= phase.last_epoch]
    learning_rate = DEFAULT_LEARNING_RATE
    if recipe.base == "scratch":
        # in proportion to the batch size (arXiv:1706.02677)
        learning_rate_per_scan = backbone_named(model).scratch_learning_rate / 32
        learning_rate = learning_rate_per_scan * settings.batch_size
        learning_rate *= recipe.learning_rate_factor
    return [Phase("all", 1, epochs, learning_rate)]


def learning_rates(phase: Phase, recipe: Recipe, steps_per_epoch: int) -> np.ndarray:
    """Compute the learning rate of each step of a phase.

    It is constant, or falls to zero along a cosine (arXiv:1608.03983). Where all layers
    train, it first rises linearly for two epochs.

    Args:
        phase: The phase.
        recipe: Of the run.
        steps_per_epoch: Batches in an epoch.

    Returns:
        The rates, and one for after the last step, shape (steps + 1,).
    """
    epochs = phase.last_epoch - phase.first_epoch + 1
    steps = steps_per_epoch * epochs
    if recipe.base == "original" or phase.name == "head":
        return np.full(steps + 1, phase.learning_rate)
    warmup = 0
    if phase.name == "all":
        warmup = min(WARMUP_EPOCHS * steps_per_epoch, steps // 4)
    step = np.arange(steps + 1)
    rise = step / max(warmup, 1)
    cosine = 0.5 + 0.5 * np.cos(np.pi * (step - warmup) / (steps - warmup))
    return phase.learning_rate * np.where(step < warmup, rise, cosine)


class LearningRateTable(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that looks the rate of each step up in a table.

    AdamW asks for the rate once a variable, so a formula would be slow to compile.

    Args:
        rates: The rate of each step, see ``learning_rates``.
    """

    def __init__(self, rates: np.ndarray):
        super().__init__()
        self.rates = keras.ops.convert_to_tensor(rates, "float32")

    def __call__(self, step: Any) -> Any:
        """Look up the rate of a step."""
        return keras.ops.take(self.rates, step)

    def get_config(self) -> dict[str, Any]:
        """Give what the schedule can be made from again."""
        return {"rates": keras.ops.convert_to_numpy(self.rates).tolist()}


def compile_phase(
    model: keras.Model, phase: Phase, recipe: Recipe, steps_per_epoch: int
) -> None:
    """Set which layers train, and with which optimizer.

    Args:
        model: A classifier, changed in place.
        phase: The phase.
        recipe: Of the run. ``scratch`` takes decoupled weight decay (arXiv:1711.05101).
        steps_per_epoch: Batches in an epoch.
    """
    set_trainable(model, phase.name)
    schedule = LearningRateTable(learning_rates(phase, recipe, steps_per_epoch))
    average = {"use_ema": recipe.ema, "ema_momentum": EMA_MOMENTUM}
    optimizer: keras.optimizers.Optimizer
    if recipe.base == "scratch":
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=WEIGHT_DECAY, global_clipnorm=1.0, **average
        )
    else:
        optimizer = keras.optimizers.Adam(schedule, **average)
    if model.get_layer("hidden").compute_dtype == "float16":
        # gradients can be too small for float16; Keras would ask the model's policy
        # alone, which is float32
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # a metric object made here, as TensorFlow traces twice where fit has to make it
    accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    model.compile(optimizer, loss="categorical_crossentropy", metrics=[accuracy])
    # a checkpoint can only be loaded into an optimizer that has its variables
    optimizer.build(model.trainable_variables)


def train(
    model: keras.Model,
    train_scans: ScanSequence,
    validation_scans: ScanSequence | None,
    settings: Settings,
    folder: Path,
) -> pd.DataFrame:
    """Train a classifier, or go on after the last epoch that is on disk.

    After every epoch the folder holds the history, a checkpoint to go on from, and
    ``best.keras``, the network with the best validation accuracy so far.

    Args:
        model: A classifier of ``models.build_classifier``, trained in place.
        train_scans: Batches to train on.
        validation_scans: Batches to choose the best epoch by. None: the last epoch is
            kept.
        settings: Of the run.
        folder: Of the run's model files.

    Returns:
        The history, one row an epoch.

    Raises:
        FloatingPointError: The loss is no number.
        MemoryError: The batch is too large; the message names a smaller one.
        RuntimeError: Another process trains this run.
        ValueError: A file of an earlier epoch is damaged.
    """
    keeper = EpochKeeper(model, folder, settings, train_scans)
    with claim(folder), named_out_of_memory(settings.batch_size):
        return fit_phases(model, train_scans, validation_scans, settings, keeper)


def fit_phases(
    model: keras.Model,
    train_scans: ScanSequence,
    validation_scans: ScanSequence | None,
    settings: Settings,
    keeper: EpochKeeper,
    cache_features: bool = True,
) -> pd.DataFrame:
    """Fit all phases of a training that have not ended yet.

    Args:
        model: A classifier, trained in place.
        train_scans: Batches to train on.
        validation_scans: Batches to choose the best epoch by, or None.
        settings: Of the run.
        keeper: Writes the files of the run.
        cache_features: Whether a head is trained on stored features of the frozen
            backbone, which are computed only once for each augmentation.

    Returns:
        The history, one row an epoch.

    Raises:
        FloatingPointError: The loss is no number.
        ValueError: A file of an earlier epoch is damaged.
    """
    phases = training_phases(settings, model.name)
    keeper.begin_training(phases)
    history = read_history(keeper.folder)
    epochs_done = len(history)
    for phase in phases:
        # A finished phase is skipped. One whose last epoch is the last on disk is
        # entered once more: its checkpoint holds the weights for the next phase.
        if epochs_done > phase.last_epoch:
            continue
        compile_phase(model, phase, settings.parsed_recipe, len(train_scans))
        if epochs_done >= phase.first_epoch:
            restore_checkpoint(model, keeper.folder, history)
            # another number of devices can make another number of steps
            epochs_done_in_phase = epochs_done - phase.first_epoch + 1
            model.optimizer.iterations.assign(epochs_done_in_phase * len(train_scans))

        # Keras counts epochs from 0
        initial_epoch = max(epochs_done, phase.first_epoch - 1)
        if initial_epoch == phase.last_epoch:
            continue
        rates = learning_rates(phase, settings.parsed_recipe, len(train_scans))
        keeper.begin_phase(phase.name, rates)
        if phase.name == "head" and cache_features:
            epochs = range(initial_epoch, phase.last_epoch)
            fit_head(model, train_scans, validation_scans, epochs, keeper)
            continue
        if keras.backend.backend() != "tensorflow":
            # Other backends build what is not built yet when fit takes its first batch,
            # and mix what they draw for that into the epoch: build it before.
            model.test_on_batch(*train_scans[0])
        model.fit(
            train_scans,
            validation_data=validation_scans,
            initial_epoch=initial_epoch,
            epochs=phase.last_epoch,
            shuffle=False,
            verbose=0,
            callbacks=keeper.callbacks,
            class_weight=train_scans.class_weight,
        )
    return read_history(keeper.folder)


@contextmanager
def named_out_of_memory(batch_size: int) -> Iterator[None]:
    """Turn the out-of-memory error of any backend into a sentence.

    Args:
        batch_size: Of the training, to name a smaller one.

    Yields:
        Nothing.

    Raises:
        MemoryError: The backend ran out of memory.
    """
    try:
        yield
    except Exception as error:
        if not re.search("(?i)memoryerror|out.?of.?memory|exhausted", repr(error)):
            raise
        smaller = max(1, batch_size // 2)
        raise MemoryError(
            f"Out of memory: use batch_size={smaller}, or --batch-size {smaller}."
        ) from error
