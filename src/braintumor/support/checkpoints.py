"""What a training leaves on disk after every epoch, so that it can go on from there."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braintumor.config import Settings
from braintumor.support.files import checksum, read_file, replace_file
from braintumor.support.progress import (
    FIRST_LINE,
    NEXT_LINE,
    Progress,
    progress_lines,
)

import keras
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from braintumor.generators import ScanSequence
    from braintumor.training import Phase

BEST_MODEL = "best.keras"
HISTORY = "history.csv"
CHECKPOINT = "epoch-{:03d}.weights.h5"  # of the epoch, counted from 1


def read_history(folder: Path) -> pd.DataFrame:
    """Read the history of a training.

    Args:
        folder: Of the run's model files.

    Returns:
        One row an epoch; an empty table where no epoch has ended.

    Raises:
        ValueError: The file is damaged.
    """
    file = folder / HISTORY
    if not file.exists():
        return pd.DataFrame()
    return read_file(file, pd.read_csv)


def restore_checkpoint(model: keras.Model, folder: Path, history: pd.DataFrame) -> None:
    """Load the weights and the optimizer's state of the last epoch on disk.

    Args:
        model: The network, compiled for the phase of that epoch.
        folder: Of the run's model files.
        history: Its history.

    Raises:
        ValueError: The checkpoint is damaged.
    """
    last_row = history.iloc[-1]
    file = folder / CHECKPOINT.format(len(history))
    read_file(file, model.load_weights, last_row["checkpoint"])


class EpochKeeper(keras.callbacks.Callback):
    """Writes the files of a training after each epoch, and prints its progress.

    The best network comes first, then a checkpoint, and last the history, which names
    the checkpoint: wherever the process ends, what is on disk fits together. In a long
    epoch there are lines of progress, too.

    Args:
        network: The network that is trained.
        folder: Of the run's model files.
        settings: Of the run.
        train_scans: Its training batches.

    Attributes:
        callbacks: What ``fit`` takes, this one included.
    """

    async_safe = True  # to Keras: no batch needs to wait until a line is printed

    def __init__(
        self,
        network: keras.Model,
        folder: Path,
        settings: Settings,
        train_scans: "ScanSequence",
    ):
        super().__init__()
        self.network = network
        self.folder = folder
        self.settings = settings
        self.train_scans = train_scans
        self.phases: list[Phase] = []
        self.phase_name = ""
        self.rates = np.zeros(0)
        self.average = keras.callbacks.Callback()
        self.callbacks: list[keras.callbacks.Callback] = []
        self.epoch_started: float | None = None
        self.progress: Progress | None = None
        self.seconds_to_first_line = FIRST_LINE

    def begin_training(self, phases: "list[Phase]") -> None:
        """Take note of the phases, and print the epochs that are on disk.

        Args:
            phases: Of the whole training.
        """
        self.phases = phases
        history = read_history(self.folder)
        if len(history):
            print(f"{len(history)} of {self.settings.epochs} epochs are on disk:")
            print(*progress_lines(history, phases), sep="\n")

    def begin_phase(self, name: str, rates: np.ndarray) -> None:
        """Take note of a phase that is compiled and about to be fitted.

        Args:
            name: Of the phase.
            rates: The learning rate of each of its steps.
        """
        self.phase_name = name
        self.rates = rates
        self.seconds_to_first_line = FIRST_LINE
        if self.settings.parsed_recipe.ema:
            # swaps the averaged weights in while the network is evaluated
            self.average = keras.callbacks.SwapEMAWeights()
        else:
            self.average = keras.callbacks.Callback()
        self.callbacks = [self.average, self]

    def start_clock(self) -> None:
        """Let the time of an epoch begin, unless it has begun."""
        if self.epoch_started is None:
            self.epoch_started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Fix everything random by seed and epoch, so that a stop changes nothing."""
        self.train_scans.epoch = epoch
        dropout = self.network.get_layer("dropout")
        # room for 2 ** 20 steps in each epoch
        dropout.seed_generator.state.assign([self.train_scans.seed, epoch << 20])
        self.start_clock()
        batches = len(self.train_scans)
        self.progress = Progress(
            f"epoch {epoch + 1}", batches, self.seconds_to_first_line
        )

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Print a line of progress if it is time for one."""
        assert self.progress is not None
        self.progress.update(batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the best network, a checkpoint and the history."""
        assert logs is not None and self.epoch_started is not None
        step = keras.ops.convert_to_numpy(self.network.optimizer.iterations)
        learning_rate = float(np.float32(self.rates[step]))
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"The loss is {logs['loss']} in epoch {epoch + 1} at learning rate "
                f"{learning_rate:.1e}: use a smaller batch_size, or "
                "precision='float32'."
            )
        seconds = round(time.perf_counter() - self.epoch_started, 2)
        self.epoch_started = None
        self.seconds_to_first_line = NEXT_LINE
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "phase": self.phase_name,
            "seconds": seconds,
            "learning_rate": learning_rate,
        }
        for score in ("loss", "accuracy", "val_loss", "val_accuracy"):
            row[score] = logs.get(score, np.nan)
        # with +ema, the averaged weights are what is evaluated and kept
        self.average.on_test_begin()
        self.save_if_best(row)
        self.average.on_test_end()
        self.save_epoch(row)

    def save_if_best(self, row: dict[str, Any]) -> None:
        """Write the network if its validation accuracy is the best so far.

        Args:
            row: Of the history, for this epoch.
        """
        earlier_epochs = read_history(self.folder)
        if len(earlier_epochs):
            best_so_far = earlier_epochs["val_accuracy"].max()
            # without validation scans both are NaN, and the last epoch is kept
            if row["val_accuracy"] <= best_so_far:
                return
        inputs, outputs = self.network.inputs, self.network.outputs
        # a model of the same layers, but without optimizer
        bare = keras.Model(inputs, outputs, name=self.network.name)
        replace_file(self.folder / BEST_MODEL, bare.save)

    def save_epoch(self, row: dict[str, Any]) -> None:
        """Write a checkpoint, then the history that names it, and print the epoch.

        Args:
            row: Of the history, for this epoch.
        """
        checkpoint = self.folder / CHECKPOINT.format(row["epoch"])
        replace_file(checkpoint, self.network.save_weights)
        row = {**row, "checkpoint": checksum(checkpoint)}
        earlier_epochs = read_history(self.folder)
        history = pd.concat([earlier_epochs, pd.DataFrame([row])], ignore_index=True)

        def write(file: Path) -> None:
            history.to_csv(file, index=False)

        replace_file(self.folder / HISTORY, write)
        previous_checkpoint = self.folder / CHECKPOINT.format(row["epoch"] - 1)
        previous_checkpoint.unlink(missing_ok=True)
        print(progress_lines(history, self.phases)[-1], flush=True)
