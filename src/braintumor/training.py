"""How it is trained: three recipes, one loop that shows progress and goes on where it was stopped."""

import dataclasses
import functools
import hashlib
import json
import re
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

from braintumor.config import BUILD_DIR, Settings, recipe_named
from braintumor.models import (
    backbone_named,
    build_classifier,
    imagenet_available,
    set_trainable,
    weights_identity,
)
from braintumor.support.cluster import agree, apart
from braintumor.support.files import checksum, claim, read_file, replace_file

import keras
import numpy as np
import pandas as pd

HEAD_RATE, FINE_TUNE_RATE, WEIGHT_DECAY = 1e-3, 5e-5, 0.01
EMA = 0.99  # how much of the moving average of the weights each step keeps
HEAD_VIEWS = 4  # augmented views of each scan that a new head sees in turn, while its backbone is frozen
CHECKPOINT = "epoch-{:03d}.weights.h5"
FIRST_LINE, NEXT_LINE = (
    10.0,
    60.0,
)  # seconds until something shows how far it is, and at most until it does so again


def with_available_weights(settings: Settings, model: str) -> Settings:
    """The settings as they can be run: without ImageNet weights at hand, the sample preset alone starts at random."""
    if (
        settings.preset != "sample"
        or settings.weights != "imagenet"
        or imagenet_available(model)
    ):
        return settings
    print(
        "ImageNet weights cannot be had: this quick run starts from random ones, with the recipe 'scratch+quick'."
    )
    return dataclasses.replace(
        settings, weights="random", recipe="scratch+quick", head_epochs=0
    )


def run_name(settings: Settings, model: str) -> str:
    """One folder a run, in results and among the model files."""
    return f"{model}-{settings.recipe}-{settings.protocol}-{settings.image_size}px-seed{settings.seed}"


def run_folder(settings: Settings, model: str, table: pd.DataFrame) -> Path:
    """Where checkpoints live: other settings or other scans lead to another folder, so nothing stale is ever hit.

    A weights file counts by its content, so it may lie elsewhere; FileNotFoundError where it is missing.
    """
    scans = (
        table[["path", "sha256", "label", "subset"]]
        .sort_values("path")
        .to_csv(index=False)
    )
    decisive = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name != "unreadable"
    }
    decisive["weights"] = weights_identity(model, settings.weights)
    identity = json.dumps(decisive, sort_keys=True) + scans + keras.backend.backend()
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return BUILD_DIR / "models" / f"{run_name(settings, model)}-{digest}"


def build_for(settings: Settings, model: str, classes: int) -> keras.Model:
    """The classifier that the settings' recipe asks for, with untrained head."""
    return build_classifier(
        model,
        classes=classes,
        **dataclasses.asdict(settings),
        **recipe_named(settings.recipe),
    )


def phases(settings: Settings, model: str) -> list[dict]:
    """The recipe as phases: name, first and last epoch (1-based) and learning rate."""
    if settings.recipe.startswith("transfer"):
        last = min(settings.head_epochs, settings.epochs)
        head = dict(phase="head", first=1, last=last, learning_rate=HEAD_RATE)
        tune = dict(
            phase="fine_tune",
            first=last + 1,
            last=settings.epochs,
            learning_rate=FINE_TUNE_RATE,
        )
        return [phase for phase in (head, tune) if phase["first"] <= phase["last"]]
    rate = 1e-3
    if settings.recipe.startswith("scratch"):
        per_scan = backbone_named(model).scratch_learning_rate / 32
        rate = (
            per_scan * settings.batch_size * recipe_named(settings.recipe)["rate"]
        )  # linear: arXiv:1706.02677
    return [dict(phase="all", first=1, last=settings.epochs, learning_rate=rate)]


def learning_rates(phase: dict, recipe: str, steps: int) -> np.ndarray:
    """The rate of each step of a phase, and after its last; ``steps`` are those of an epoch.

    Constant, or a cosine to zero (arXiv:1608.03983), after two epochs of linear warm-up where everything trains.
    """
    total, rate = steps * (phase["last"] - phase["first"] + 1), phase["learning_rate"]
    step = np.arange(total + 1)
    if recipe.startswith("original") or phase["phase"] == "head":
        return np.full(total + 1, rate)
    warmup = min(2 * steps, total // 4) if phase["phase"] == "all" else 0
    cosine = 0.5 + 0.5 * np.cos(np.pi * (step - warmup) / (total - warmup))
    return rate * np.where(step < warmup, step / max(warmup, 1), cosine)


def compile_phase(model: keras.Model, phase: dict, recipe: str, steps: int) -> None:
    """Set what trains, and how fast; ``scratch`` with decoupled weight decay (arXiv:1711.05101)."""
    set_trainable(model, phase["phase"])
    how = (
        dict(weight_decay=WEIGHT_DECAY, global_clipnorm=1.0)
        if recipe.startswith("scratch")
        else {}
    )
    ema, kind = (
        recipe_named(recipe)["ema"],
        keras.optimizers.AdamW if how else keras.optimizers.Adam,
    )
    # looked up in a table: AdamW asks once a variable, which makes a formula slow to compile
    rates = keras.ops.convert_to_tensor(learning_rates(phase, recipe, steps), "float32")
    inner = optimizer = kind(
        lambda: keras.ops.take(rates, inner.iterations),
        use_ema=ema,
        ema_momentum=EMA,
        **how,
    )
    if (
        model.get_layer("hidden").compute_dtype == "float16"
    ):  # gradients too small for it; Keras asks only the model
        optimizer = keras.optimizers.LossScaleOptimizer(inner)
    accuracy = keras.metrics.CategoricalAccuracy(
        name="accuracy"
    )  # made here: made by fit, TensorFlow traces twice
    model.compile(
        optimizer=optimizer, loss="categorical_crossentropy", metrics=[accuracy]
    )
    optimizer.build(
        model.trainable_variables
    )  # a checkpoint can only fill an optimizer that is built


def train(
    model: keras.Model, train_scans, validation_scans, settings: Settings, folder: Path
) -> pd.DataFrame:
    """Train by the settings' recipe and return the history, one row an epoch.

    After every epoch ``folder`` holds the history, a checkpoint to go on from, and ``best.keras`` by validation
    accuracy. Called again, it goes on after the last epoch on disk. Raises FloatingPointError for a loss that is no
    number, MemoryError that names a smaller batch, RuntimeError while another process trains this run. Processes that
    share batches (cluster.py) call it alike, with one ``folder``; there, a head learns from scans, a new view an epoch.
    """
    share, plan = train_scans.share, phases(settings, model.name)
    with (
        claim(folder) if share.first else nullcontext(),
        named_out_of_memory(settings.batch_size),
    ):
        history = read_history(folder)
        done = len(history)
        agree(share, f"{folder.name}, {done} epochs done")
        if done and share.first:
            print(f"{done} of {settings.epochs} epochs are on disk:")
            print(*progress_lines(history, plan), sep="\n")
        for phase in [phase for phase in plan if done <= phase["last"]]:
            compile_phase(model, phase, settings.recipe, len(train_scans))
            if done >= phase["first"]:
                read_file(
                    folder / CHECKPOINT.format(done),
                    model.load_weights,
                    history["checkpoint"].iloc[-1],
                )
                # another number of devices can make another number of steps
                model.optimizer.iterations.assign(
                    (done - phase["first"] + 1) * len(train_scans)
                )
            first = max(done, phase["first"] - 1)
            keeper = EpochKeeper(model, folder, phase, settings, train_scans)
            if phase["phase"] == "head" and share.devices == 1:
                fit_head(
                    model,
                    train_scans,
                    validation_scans,
                    range(first, phase["last"]),
                    keeper,
                )
            elif first < phase["last"]:
                # elsewhere fit takes a batch to build what is not built, and mixes what it drew for that into an epoch
                if keras.backend.backend() != "tensorflow":
                    model.test_on_batch(*train_scans[0])
                model.fit(
                    train_scans,
                    validation_data=validation_scans,
                    initial_epoch=first,
                    epochs=phase["last"],
                    shuffle=False,
                    verbose=0,
                    callbacks=[keeper.average, keeper],
                    class_weight=train_scans.class_weight,
                )
    return read_history(folder)


def fit_head(
    model: keras.Model, train_scans, validation_scans, epochs: range, keeper
) -> None:
    """Train the head as ``fit`` would, on features that the frozen backbone computes once a view, not once an epoch.

    The first ``HEAD_VIEWS`` epochs see the batches they would see in ``fit``; later ones those views in other orders.
    Computing features counts as time of the epoch that needs them first.
    """
    pooled = model.get_layer("pooled").output
    backbone, head = keras.Model(model.input, pooled), keras.Model(pooled, model.output)
    head.compile(
        model.optimizer,
        model.loss,
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )

    @functools.cache
    def features(scans, view, of_what):
        scans.epoch = view
        progress = Progress(f"features of {of_what}", len(scans))
        pairs = []
        for index in range(len(scans)):
            images, one_hot = scans[index]
            pairs.append((backbone.predict_on_batch(images), one_hot))
            progress.update(index + 1)
        return [np.concatenate(part) for part in zip(*pairs)]

    for epoch in epochs:
        keeper.start_clock()
        view = epoch % HEAD_VIEWS
        inputs, one_hot = features(train_scans, view, f"view {view + 1}")
        held_out = (
            features(validation_scans, 0, "validation scans")
            if validation_scans
            else None
        )
        order = np.arange(len(inputs))
        if epoch >= HEAD_VIEWS:
            order = np.random.default_rng([train_scans.seed, epoch, 0]).permutation(
                order
            )
        head.fit(
            inputs[order],
            one_hot[order],
            batch_size=train_scans.batch_size,
            validation_data=held_out,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=[keeper.average, keeper],
            class_weight=train_scans.class_weight,
        )


def read_history(folder: Path) -> pd.DataFrame:
    """``history.csv`` of a run folder; an empty table where no epoch has ended."""
    file = folder / "history.csv"
    return read_file(file, pd.read_csv) if file.exists() else pd.DataFrame()


@contextmanager
def named_out_of_memory(batch_size: int):
    """Turn the out-of-memory error of any backend into a MemoryError that names a smaller batch."""
    try:
        yield
    except Exception as error:
        if not re.search("(?i)memoryerror|out.?of.?memory|exhausted", repr(error)):
            raise
        raise MemoryError(
            f"Out of memory: set batch_size={max(1, batch_size // 2)} in settings_from."
        ) from error


class EpochKeeper(keras.callbacks.Callback):
    """After each epoch: a line of progress, the best model, a checkpoint, and last the history that names it.

    In a long epoch there are lines of progress too: soon in the first, whose length nobody knows, later once a minute.
    """

    async_safe = True  # to Keras: no batch needs to wait until a line is printed

    def __init__(self, network, folder, phase, settings, train_scans):
        super().__init__()
        self.network, self.folder, self.phase, self.settings = (
            network,
            folder,
            phase,
            settings,
        )
        self.train_scans = train_scans
        self.started, self.progress, self.first_line = None, None, FIRST_LINE
        # puts the averaged weights in the network's place while it is judged; else nothing
        ema = recipe_named(settings.recipe)["ema"]
        self.average = (
            keras.callbacks.SwapEMAWeights() if ema else keras.callbacks.Callback()
        )

    def start_clock(self):
        """Let the time of an epoch begin, unless it has."""
        if self.started is None:
            self.started = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        # order, augmentation and dropout follow (seed, epoch), so a stop in between changes nothing
        self.train_scans.epoch = epoch
        self.network.get_layer("dropout").seed_generator.state.assign(
            [self.train_scans.seed, epoch << 20]
        )
        self.start_clock()
        self.progress = Progress(
            f"epoch {epoch + 1}", len(self.train_scans), self.first_line
        )

    def on_train_batch_end(self, batch, logs=None):
        if self.train_scans.share.first:
            self.progress.update(batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        step = keras.ops.convert_to_numpy(self.network.optimizer.iterations)
        rates = learning_rates(self.phase, self.settings.recipe, len(self.train_scans))
        rate = float(np.float32(rates[step]))
        if not np.isfinite(logs["loss"]):
            when = f"in epoch {epoch + 1} at learning rate {rate:.1e}"
            raise FloatingPointError(
                f"The loss is {logs['loss']} {when}: lower the rate or use precision='float32'."
            )
        seconds = round(time.perf_counter() - self.started, 2)
        self.started, self.first_line = None, NEXT_LINE
        row = dict(
            epoch=epoch + 1,
            phase=self.phase["phase"],
            seconds=seconds,
            learning_rate=rate,
        )
        row |= {
            name: logs.get(name, np.nan)
            for name in ("loss", "accuracy", "val_loss", "val_accuracy")
        }
        first = self.train_scans.share.first
        before = read_history(self.folder) if first else None
        self.average.on_test_begin()
        if first and (
            before.empty or not row["val_accuracy"] <= before["val_accuracy"].max()
        ):  # NaN: keep the last
            with apart():
                bare = keras.Model(
                    self.network.inputs, self.network.outputs, name=self.network.name
                )  # no optimizer
                replace_file(self.folder / "best.keras", bare.save)
        self.average.on_test_end()
        if first:
            with apart():
                self.keep(before, row)

    def keep(self, before, row):
        checkpoint = self.folder / CHECKPOINT.format(row["epoch"])
        replace_file(checkpoint, self.network.save_weights)
        row["checkpoint"] = checksum(checkpoint)
        history = pd.concat([before, pd.DataFrame([row])], ignore_index=True)
        replace_file(
            self.folder / "history.csv", lambda file: history.to_csv(file, index=False)
        )
        (self.folder / CHECKPOINT.format(row["epoch"] - 1)).unlink(missing_ok=True)
        print(
            progress_lines(history, phases(self.settings, self.network.name))[-1],
            flush=True,
        )


class Progress:
    """Says how far something is, in lines that suit a log and a notebook; nothing where it ends soon.

    Args:
        what: What is done batch by batch, such as ``features of view 1``.
        total: How many batches there are.
        first_line: Seconds until the first line; from one line to the next it takes twice as long as before, at most
            ``NEXT_LINE``.
    """

    def __init__(self, what: str, total: int, first_line: float = FIRST_LINE):
        self.what, self.total = what, total
        self.wait = first_line
        self.last_line = time.perf_counter()
        self.first_batch = None  # when it was done: what is compiled for it says nothing about the others

    def update(self, done: int) -> None:
        """Print a line if it is time for one; ``done`` batches are."""
        now = time.perf_counter()
        if self.first_batch is None:
            self.first_batch = now
        if now - self.last_line < self.wait or done == self.total:
            return
        line = f"{self.what}: {done} of {self.total} batches"
        if done > 1:
            seconds_each = (now - self.first_batch) / (done - 1)
            line += f", {in_minutes(seconds_each * (self.total - done))} left"
        print(line, flush=True)
        self.last_line = now
        self.wait = min(2 * self.wait, NEXT_LINE)


def in_minutes(seconds: float) -> str:
    """A time that is about to pass, as people say it."""
    return f"about {seconds / 60:.0f} min" if seconds >= 60 else "less than 1 min"


def progress_lines(history: pd.DataFrame, plan: list[dict]) -> list[str]:
    """A line an epoch: time taken, loss and accuracy on training and validation scans, time left (``time_left``)."""
    lines, last = [], plan[-1]["last"]
    for done, row in enumerate(history.itertuples(), start=1):
        taken = f"epoch {row.epoch:2d}/{last} {row.phase:9s} {row.seconds:6.1f} s"
        training = f"loss {row.loss:.3f}  accuracy {row.accuracy:.3f}"
        validation = (
            f"validation loss {row.val_loss:.3f}  accuracy {row.val_accuracy:.3f}"
        )
        lines.append(
            f"{taken}   {training}   {validation}   {time_left(history[:done], plan)}"
        )
    return lines


def time_left(history: pd.DataFrame, plan: list[dict]) -> str:
    """How long the epochs still to come will take, by those of the same kind that have ended.

    Args:
        history: The epochs so far, one row each, with ``epoch``, ``phase`` and ``seconds``.
        plan: See ``phases``.

    Returns:
        The time left, or, while an epoch of some kind to come has never been seen, when it will be known.
    """
    taken = {}  # seconds of the epochs that have ended, by kind
    for row in history.itertuples():
        taken.setdefault(epoch_kind(row.epoch, row.phase), []).append(row.seconds)
    coming = {}  # epochs still to come, by kind
    for phase in plan:
        for epoch in range(max(phase["first"], len(history) + 1), phase["last"] + 1):
            coming.setdefault(epoch_kind(epoch, phase["phase"]), []).append(epoch)
    if not coming:
        return "done"
    unknown = [epochs[0] for kind, epochs in coming.items() if kind not in taken]
    if unknown:
        return f"time left: known after epoch {max(unknown)}"
    left, first_alone = 0.0, False
    for kind, epochs in coming.items():
        later = taken[
            kind
        ][
            1:
        ]  # the first of a kind takes longer: it compiles, or computes validation features too
        first_alone = first_alone or not later
        # the median, as a laptop may have slept during an epoch
        left += len(epochs) * np.median(later[-3:] or taken[kind])
    at_most = ", or less" if first_alone and left >= 60 else ""
    return f"{in_minutes(left)} left{at_most}"


def epoch_kind(epoch: int, phase: str) -> tuple[str, bool]:
    """What epochs have in common that take equally long: the phase, and whether a head has its features by then."""
    return phase, phase == "head" and epoch > HEAD_VIEWS
