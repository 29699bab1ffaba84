"""How far is a training, and how long will it take?"""

import time
from typing import TYPE_CHECKING

from braintumor.config import CACHED_AUGMENTATIONS

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from braintumor.training import Phase

# seconds until the first line of progress, and at most until the next ones
FIRST_LINE = 10.0
NEXT_LINE = 60.0


class Progress:
    """Prints how far something is, in lines that suit a log and a notebook.

    Nothing is printed for what ends soon. From one line to the next it takes twice as
    long as before, at most ``NEXT_LINE``.

    Args:
        what: What is done batch by batch, such as ``epoch 3``.
        total: How many batches there are.
        first_line: Seconds until the first line.
    """

    def __init__(self, what: str, total: int, first_line: float = FIRST_LINE):
        self.what = what
        self.total = total
        self.wait = first_line
        self.last_line = time.perf_counter()
        # when the first batch was done: compiling for it says nothing about the others
        self.first_batch: float | None = None

    def update(self, done: int) -> None:
        """Print a line if it is time for one.

        Args:
            done: How many batches are done.
        """
        now = time.perf_counter()
        if self.first_batch is None:
            self.first_batch = now
        if now - self.last_line < self.wait or done == self.total:
            return
        line = f"{self.what}: {done} of {self.total} batches"
        if done > 1:
            seconds_each = (now - self.first_batch) / (done - 1)
            seconds_left = seconds_each * (self.total - done)
            line += f", {in_minutes(seconds_left)} left"
        print(line, flush=True)
        self.last_line = now
        self.wait = min(2 * self.wait, NEXT_LINE)


def in_minutes(seconds: float) -> str:
    """Say a time that is about to pass.

    Args:
        seconds: The time.

    Returns:
        Such as ``about 5 min``.
    """
    if seconds < 60:
        return "less than 1 min"
    return f"about {seconds / 60:.0f} min"


def progress_lines(history: pd.DataFrame, phases: "list[Phase]") -> list[str]:
    """Make a line for each epoch.

    Args:
        history: The epochs so far.
        phases: Of the whole training.

    Returns:
        Lines with the time taken, loss and accuracy on training and validation scans,
        and the time left.
    """
    lines = []
    last_epoch = phases[-1].last_epoch
    for done, row in enumerate(history.itertuples(), start=1):
        taken = f"epoch {row.epoch:2d}/{last_epoch} {row.phase:9s} {row.seconds:6.1f} s"
        training = f"loss {row.loss:.3f}  accuracy {row.accuracy:.3f}"
        validation = (
            f"validation loss {row.val_loss:.3f}  accuracy {row.val_accuracy:.3f}"
        )
        left = time_left(history[:done], phases)
        lines.append(f"{taken}   {training}   {validation}   {left}")
    return lines


def time_left(history: pd.DataFrame, phases: "list[Phase]") -> str:
    """Estimate how long the epochs to come will take, from those of the same kind.

    Args:
        history: The epochs so far, with ``epoch``, ``phase`` and ``seconds``.
        phases: Of the whole training.

    Returns:
        The time left; or, while no epoch of some kind to come has ended, when it will
        be known.
    """
    seconds_by_kind: dict[tuple[str, bool], list[float]] = {}
    for row in history.itertuples():
        kind = epoch_kind(row.epoch, row.phase)
        seconds_by_kind.setdefault(kind, []).append(row.seconds)

    next_epoch = len(history) + 1
    epochs_by_kind: dict[tuple[str, bool], list[int]] = {}
    for phase in phases:
        first = max(phase.first_epoch, next_epoch)
        for epoch in range(first, phase.last_epoch + 1):
            kind = epoch_kind(epoch, phase.name)
            epochs_by_kind.setdefault(kind, []).append(epoch)
    if not epochs_by_kind:
        return "done"

    never_seen = [
        epochs[0]
        for kind, epochs in epochs_by_kind.items()
        if kind not in seconds_by_kind
    ]
    if never_seen:
        return f"time left: known after epoch {max(never_seen)}"

    left = 0.0
    only_first_known = False
    for kind, epochs in epochs_by_kind.items():
        seconds = seconds_by_kind[kind]
        # the first of a kind takes longer: it compiles, or computes features
        later = seconds[1:]
        if not later:
            only_first_known = True
        # the median, as a laptop may have slept during an epoch
        left += len(epochs) * np.median(later[-3:] or seconds)
    at_most = ", or less" if only_first_known and left >= 60 else ""
    return f"{in_minutes(left)} left{at_most}"


def epoch_kind(epoch: int, phase: str) -> tuple[str, bool]:
    """Say what epochs that take equally long have in common.

    Args:
        epoch: Counted from 1.
        phase: Its name.

    Returns:
        The phase, and whether all features that a head is trained on are there by then.
    """
    has_features = phase == "head" and epoch > CACHED_AUGMENTATIONS
    return phase, has_features
