"""Several machines: a process on each computes its part of every batch.

The first process alone writes. Nothing of the core needs this module; it extends the
batches of ``generators`` and the files of ``training``.
"""

import hashlib
import os
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from braintumor import runs
from braintumor.config import Settings
from braintumor.generators import ScanSequence, sequences
from braintumor.models import with_available_weights
from braintumor.support.checkpoints import EpochKeeper, read_history
from braintumor.support.files import claim
from braintumor.training import Phase, fit_phases, named_out_of_memory

import keras
import numpy as np
import pandas as pd

LOST = 20  # seconds without a sign of life, after which a process counts as lost
EVALUATION = 7200  # seconds that the other processes wait while the first one evaluates
ENDED = (
    "This process of the training ended early, by itself (see above) or because "
    "another one did. Once the cause is mended, start all again: they go on after the "
    "last epoch."
)


class Share(NamedTuple):
    """The part of every batch that this process computes.

    Attributes:
        process: Its number, from 0.
        processes: How many there are.
        devices: Of all processes together; each has the same number.
    """

    process: int = 0
    processes: int = 1
    devices: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.process == 0

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Choose this process's part of a batch.

        Args:
            rows: The whole batch.

        Returns:
            Its rows, in order. Devices get equally many, so that up to ``devices`` - 1
            rows at the end of the batch are left out.
        """
        divisible = len(rows) - len(rows) % self.devices
        return np.split(rows[:divisible], self.processes)[self.process]


class SharedScanSequence(ScanSequence):
    """Batches of which only the part of this process is read and augmented.

    Args:
        images, labels, **options: See ``ScanSequence``; ``batch_size`` is that of all
            processes together.
        share: The part.

    Raises:
        ValueError: Devices cannot get equally many scans.
    """

    def __init__(self, images: Any, labels: Any, *, share: Share, **options: Any):
        batch_size = options["batch_size"]
        if batch_size % share.devices:
            raise ValueError(
                f"{share.devices} devices cannot share {batch_size} scans: "
                "set batch_size to a multiple."
            )
        if 0 < len(images) < share.devices:
            raise ValueError(
                f"{share.devices} devices cannot share {len(images)} scans of a "
                "subset: start fewer."
            )
        super().__init__(images, labels, **options)
        self.share = share

    def __len__(self) -> int:
        full_batches, rest = divmod(len(self.images), self.batch_size)
        has_short_batch = rest >= self.share.devices
        return full_batches + has_short_batch

    def positions_in_batch(self, batch_length: int) -> np.ndarray:
        """Which scans of a batch are made by this process."""
        return self.share.of(np.arange(batch_length))


class SharedEpochKeeper(EpochKeeper):
    """Writes and prints in the first process alone.

    Args:
        network, folder, settings, train_scans: See ``EpochKeeper``.
        share: The part of this process.
    """

    def __init__(
        self,
        network: keras.Model,
        folder: Path,
        settings: Settings,
        train_scans: ScanSequence,
        share: Share,
    ):
        super().__init__(network, folder, settings, train_scans)
        self.share = share

    def begin_training(self, phases: list[Phase]) -> None:
        """Take note of the phases; the first process prints the epochs on disk."""
        self.phases = phases
        if self.share.is_first:
            super().begin_training(phases)

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Print a line of progress in the first process."""
        if self.share.is_first:
            super().on_train_batch_end(batch, logs)

    def save_if_best(self, row: dict[str, Any]) -> None:
        """Write the best network in the first process."""
        if self.share.is_first:
            with without_sharding():
                super().save_if_best(row)

    def save_epoch(self, row: dict[str, Any]) -> None:
        """Write the checkpoint and the history in the first process."""
        if self.share.is_first:
            with without_sharding():
                super().save_epoch(row)


def train_and_evaluate(settings: Settings, model: str, share: Share) -> runs.Run | None:
    """Train a run together and evaluate it, as ``runs.train_and_evaluate`` does alone.

    Args:
        settings: Of the run, the same in all processes.
        model: The backbone.
        share: The part of this process.

    Returns:
        The run; None in all processes but the first.

    Raises:
        ValueError, FloatingPointError, MemoryError, RuntimeError: See
            ``runs.train_and_evaluate``.
        AssertionError: Not all processes see the same scans, settings or files.
    """
    settings = with_available_weights(settings, model)
    stored = runs.stored_run(settings, model)
    if stored is not None and stored.evaluated_on_test_set:
        runs.check_scans(stored, settings)
        return stored if share.is_first else None
    preparation = runs.prepare(settings, model)
    sequence_class = partial(SharedScanSequence, share=share)
    train_scans, validation_scans = sequences(
        preparation.table, preparation.root, settings, sequence_class
    )
    history = train(
        preparation.network,
        train_scans,
        validation_scans,
        settings,
        preparation.checkpoints,
        share,
    )
    if not share.is_first:
        return None
    with without_sharding():
        return runs.evaluate(preparation, history)


def train(
    model: keras.Model,
    train_scans: ScanSequence,
    validation_scans: ScanSequence | None,
    settings: Settings,
    folder: Path,
    share: Share,
) -> pd.DataFrame:
    """Train a classifier together, as ``training.train`` does alone.

    With more than one device a head learns from scans, a new augmentation an epoch.

    Args:
        model: A classifier, trained in place.
        train_scans: Batches to train on, of which this process makes its part.
        validation_scans: Batches to choose the best epoch by, or None.
        settings: Of the run.
        folder: Of the run's model files, the same for all processes.
        share: The part of this process.

    Returns:
        The history, one row an epoch.

    Raises:
        FloatingPointError, MemoryError, RuntimeError, ValueError: See
            ``training.train``.
        AssertionError: Not all processes see the same files.
    """
    keeper = SharedEpochKeeper(model, folder, settings, train_scans, share)
    exclusive = claim(folder) if share.is_first else nullcontext()
    with exclusive, named_out_of_memory(settings.batch_size):
        epochs_done = len(read_history(folder))
        agree(share, f"{folder.name}, {epochs_done} epochs done")
        return fit_phases(
            model,
            train_scans,
            validation_scans,
            settings,
            keeper,
            cache_features=share.devices == 1,
        )


@contextmanager
def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> Iterator[Share]:
    """Meet the other processes, before anything is computed, and share batches.

    An exception inside the ``with`` ends this process, and with it all others. One
    process alone shares batches among the devices of its machine.

    Args:
        coordinator: host:port of the first process.
        processes: How many there are.
        process: Which of them this is, from 0. Where all three are None, JAX finds out
            from what SLURM, Open MPI or Kubernetes tell each process.

    Yields:
        The part of this process.

    Raises:
        ValueError: Keras does not run on JAX, or there is no such cluster.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several processes need Keras on JAX: pip install jax, "
            "and set KERAS_BACKEND=jax."
        )
    jax = import_module("jax")
    # it would take SIGTERM, and tell nobody
    jax.config.update("jax_enable_preemption_service", False)
    if processes != 1:
        try:
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                heartbeat_timeout_seconds=LOST,
                shutdown_timeout_seconds=EVALUATION,
            )
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"The processes cannot meet ({error}): start them under SLURM, Open "
                "MPI or Kubernetes, or each with --coordinator HOST:PORT --processes N "
                "--process 0 ... N-1."
            ) from error
    share = Share(jax.process_index(), jax.process_count(), jax.device_count())
    watcher = None
    if share.processes > 1:
        # JAX ends a process that has lost another one too abruptly for words of its
        # own. So a shell waits for the word "end", and explains what happened if it
        # never comes.
        explanation = f"read -r end || echo '{ENDED}' >&2"
        watcher = subprocess.Popen(["sh", "-c", explanation], stdin=subprocess.PIPE)
    try:
        # Keras would cut each batch itself, but every process would have made all of it
        with keras.distribution.DataParallel(auto_shard_dataset=False).scope():
            yield share
    except BaseException:
        if share.processes == 1:
            raise
        traceback.print_exc()
        os._exit(1)  # JAX would first wait for the others, and they for this one
    if watcher is not None:
        jax.distributed.shutdown()  # waits until all are here
        watcher.communicate(b"end\n")


def agree(share: Share, what: str) -> None:
    """Check that all processes have got the same text.

    Args:
        share: The part of this process.
        what: The text.

    Raises:
        AssertionError: Another process has another one; raised in every process.
    """
    if share.processes == 1:
        return
    digest = np.frombuffer(hashlib.sha256(what.encode()).digest(), "uint8")
    utilities = import_module("jax.experimental.multihost_utils")
    utilities.assert_equal(
        digest,
        "not all processes see the same scans, settings, build/ and results/; "
        f"here: {what}",
    )


@contextmanager
def without_sharding() -> Iterator[None]:
    """Let what Keras makes inside the ``with`` be this process's own, as to save it.

    Else each variable would wait for all processes.

    Yields:
        Nothing.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
