"""More than one machine: a process on each computes its part of every batch, and the first of them writes."""

import hashlib
import os
import subprocess
import traceback
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple

import keras
import numpy as np

LOST, JUDGING = (
    20,
    7200,
)  # seconds: without a sign of life a process is lost; so long the others wait for the first
ENDED = (
    "This process of the training ended early, by itself (see above) or because another one did. "
    "Once the cause is mended, start all again: they go on after the last epoch."
)


class Share(NamedTuple):
    """The part of every batch that this process computes."""

    process: int = 0
    processes: int = 1
    devices: int = 1  # of all processes together, the same number in each

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.process == 0

    def of(self, rows: np.ndarray) -> np.ndarray:
        """This process's rows of a batch, in order; devices get equally many, so the last ``devices`` - 1 may go."""
        return np.split(rows[: len(rows) - len(rows) % self.devices], self.processes)[
            self.process
        ]


ALONE = Share()


@contextmanager
def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
):
    """For a ``with``: meet the other processes, before anything is computed, and let Keras share batches; the Share.

    None: JAX finds out, from what SLURM, Open MPI or Kubernetes tell each process. ``coordinator``: host:port of the
    first process. One process alone shares batches among the devices of its machine. Raises ValueError without Keras'
    JAX backend, or where there is no such cluster. An exception inside ends this process, and with it all others.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several processes need Keras on JAX: pip install jax, and set KERAS_BACKEND=jax."
        )
    jax = import_module("jax")
    jax.config.update(
        "jax_enable_preemption_service", False
    )  # it would take SIGTERM, and tell nobody
    try:
        if processes != 1:
            how = dict(heartbeat_timeout_seconds=LOST, shutdown_timeout_seconds=JUDGING)
            jax.distributed.initialize(coordinator, processes, process, **how)
    except (ValueError, IndexError) as error:
        by_hand = "each with --coordinator HOST:PORT --processes N --process 0 ... N-1"
        how = f"start them under SLURM, Open MPI or Kubernetes, or {by_hand}"
        raise ValueError(f"The processes cannot meet ({error}): {how}.") from error
    share = Share(jax.process_index(), jax.process_count(), jax.device_count())
    # JAX ends a process that has lost another too abruptly for words of its own: the shell reads until that happens
    watcher = subprocess.Popen(
        ["sh", "-c", f"read -r end || echo '{ENDED}' >&2"], stdin=subprocess.PIPE
    )
    try:  # Keras would cut each batch itself, but every process would have made all of it
        with keras.distribution.DataParallel(auto_shard_dataset=False).scope():
            yield share
    except BaseException:
        if share.processes == 1:
            raise
        traceback.print_exc()
        os._exit(1)  # JAX would first wait for the others, and they for this one
    if share.processes > 1:
        jax.distributed.shutdown()  # waits until all are here
    watcher.communicate(b"end\n")


def agree(share: Share, what: str) -> None:
    """Raise an AssertionError in every process unless all have got the same ``what``."""
    if share.processes > 1:
        digest = np.frombuffer(hashlib.sha256(what.encode()).digest(), "uint8")
        same = import_module("jax.experimental.multihost_utils").assert_equal
        same(
            digest,
            f"not all processes see the same scans, settings, build/ and results/; here: {what}",
        )


@contextmanager
def apart():
    """For a ``with``: what Keras makes, as to save, is this process's own; else each variable would wait for all."""
    shared = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(shared)
