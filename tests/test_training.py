"""How is it trained? Training that is stopped and goes on must end where training in one go ends."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from braintumor import backbones, config, generators, models, runs, training
from braintumor.support import checkpoints, files, progress

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

SOURCE = Path(training.__file__).parent


class Stopped(Exception):
    """Somebody pressed the stop button."""


@pytest.fixture
def stop_after(monkeypatch):
    """``stop_after(2)`` stops every training at the end of its second epoch; ``stop_after(None)`` no longer does."""
    original = checkpoints.EpochKeeper.on_epoch_end

    def arrange(last):
        def on_epoch_end(self, epoch, logs=None):
            original(self, epoch, logs)
            if epoch + 1 == last:
                raise Stopped

        monkeypatch.setattr(checkpoints.EpochKeeper, "on_epoch_end", on_epoch_end)

    return arrange


def run(settings, model, sequences, folder):
    """Train a fresh network, as a restarted notebook does: (network, history)."""
    network = models.build_classifier(settings, model, classes=4)
    return network, training.train(network, *sequences(settings.seed), settings, folder)


def assert_same_weights(one, other):
    for weight, same in zip(one.weights, other.weights):
        if not weight.path.endswith("seed_generator_state"):
            np.testing.assert_array_equal(
                *(keras.ops.convert_to_numpy(each) for each in (weight, same)),
                err_msg=weight.path,
            )


def assert_same_history(one, other):
    one, other = (
        history.drop(columns=["seconds", "checkpoint"]) for history in (one, other)
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="module")
def finished(tiny, quick, two_sequences, tmp_path_factory):
    """A run of three epochs whose second and third are equally good: what it left and what it was like meanwhile."""
    folder, seen = tmp_path_factory.mktemp("finished"), []
    original = checkpoints.EpochKeeper.on_epoch_end

    def look(keeper, epoch, logs=None):
        original(keeper, epoch, logs | {"val_accuracy": [0.2, 0.6, 0.6][epoch]})
        seen.append(
            (
                checkpoints.read_history(folder),
                keeper.model.get_weights(),
                keeper.train_scans.epoch,
            )
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.EpochKeeper, "on_epoch_end", look)
        history = run(quick(), tiny, two_sequences, folder)[1]
    histories, weights, epochs = zip(*seen)
    return SimpleNamespace(
        folder=folder,
        history=history,
        histories=histories,
        weights=weights,
        epochs=epochs,
    )


# --- the plan ---


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            dict(recipe="transfer", head_epochs=5, epochs=20),
            [("head", 1, 5, 1e-3), ("fine_tune", 6, 20, 5e-5)],
        ),
        (
            dict(recipe="transfer", head_epochs=0, epochs=20),
            [("fine_tune", 1, 20, 5e-5)],
        ),
        (dict(recipe="transfer", head_epochs=5, epochs=5), [("head", 1, 5, 1e-3)]),
        (dict(recipe="transfer", head_epochs=5, epochs=3), [("head", 1, 3, 1e-3)]),
        (dict(recipe="original", head_epochs=0, epochs=20), [("all", 1, 20, 1e-3)]),
        (
            dict(recipe="scratch", head_epochs=0, epochs=20, batch_size=32),
            [("all", 1, 20, 3e-4)],
        ),
        (
            dict(recipe="scratch", head_epochs=0, epochs=20, batch_size=16),
            [("all", 1, 20, 1.5e-4)],
        ),
        (
            dict(recipe="scratch+quick", head_epochs=0, epochs=6, batch_size=16),
            [("all", 1, 6, 2.5e-4)],
        ),
    ],
)
def test_the_phases_of_each_recipe(quick, changes, expected):
    plan = training.training_phases(quick(**changes), "vgg16")
    assert [phase.name for phase in plan] == [phase[0] for phase in expected]
    epochs = [(phase.first_epoch, phase.last_epoch) for phase in plan]
    assert epochs == [phase[1:3] for phase in expected]
    peaks = [phase.learning_rate for phase in plan]
    assert peaks == pytest.approx([phase[3] for phase in expected])


def test_an_unknown_recipe_is_an_error_that_lists_the_known_ones(quick):
    with pytest.raises(
        ValueError,
        match="no recipe 'magic'; choose one of: original, transfer, scratch",
    ):
        models.build_classifier(quick(recipe="magic"), "vgg16", classes=4)


def rates(quick, recipe, epochs=10, steps=10):
    """The learning rate at each step of the recipe's last phase."""
    settings = quick(recipe=recipe, head_epochs=0, epochs=epochs, batch_size=32)
    phase = training.training_phases(settings, "resnet50")[-1]
    return training.learning_rates(phase, config.parse_recipe(recipe), steps)


def test_the_original_keeps_one_rate(quick):
    assert set(rates(quick, "original")) == {1e-3}


def test_a_new_head_keeps_one_rate(quick):
    head, fine_tune = training.training_phases(
        quick(recipe="transfer", head_epochs=2), "resnet50"
    )
    recipe = config.parse_recipe("transfer")
    assert set(training.learning_rates(head, recipe, 10)) == {1e-3}
    assert training.learning_rates(fine_tune, recipe, 10)[0] == 5e-5


def test_fine_tuning_ends_at_zero(quick):
    assert rates(quick, "transfer")[[0, 50, 100]] == pytest.approx(
        [5e-5, 2.5e-5, 0], abs=1e-9
    )


def test_from_scratch_warms_up_for_two_epochs_and_ends_at_zero(quick):
    assert rates(quick, "scratch")[[0, 10, 20, 100]] == pytest.approx(
        [0, 5e-4, 1e-3, 0], abs=1e-7
    )


def test_a_very_short_run_warms_up_for_a_quarter_of_it(quick):
    assert rates(quick, "scratch", epochs=1, steps=8)[[1, 2, 8]] == pytest.approx(
        [5e-4, 1e-3, 0], abs=1e-7
    )


@hypothesis_settings(deadline=None, max_examples=20)
@given(peak=st.floats(1e-5, 1), total=st.integers(2, 60), warmup=st.integers(0, 1))
def test_the_rates_are_those_of_the_cosine_decay_of_keras(peak, total, warmup):
    phase = training.Phase("all" if warmup else "fine_tune", 1, 1, peak)
    warm = warmup * (total // 4)
    start = (
        dict(initial_learning_rate=0.0, warmup_target=peak)
        if warm
        else dict(initial_learning_rate=peak)
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        decay_steps=total - warm, warmup_steps=warm, **start
    )
    expected = [
        float(keras.ops.convert_to_numpy(schedule(step))) for step in range(total + 1)
    ]
    scratch = config.parse_recipe("scratch")
    assert training.learning_rates(phase, scratch, total) == pytest.approx(
        expected, rel=1e-4, abs=1e-6 * peak
    )


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [("original", "Adam"), ("transfer", "Adam"), ("scratch", "AdamW")],
)
def test_the_optimizer_follows_the_rates(tiny, quick, recipe, kind):
    settings = quick(recipe=recipe)
    network = models.build_classifier(settings, tiny, classes=4)
    phase = training.training_phases(settings, tiny)[-1]
    training.compile_phase(network, phase, settings.recipe_options, 5)
    assert type(network.optimizer) is getattr(keras.optimizers, kind)
    expected = training.learning_rates(phase, settings.recipe_options, 5)
    for step, rate in enumerate(expected):
        network.optimizer.iterations.assign(step)
        found = keras.ops.convert_to_numpy(network.optimizer.learning_rate)
        assert float(found) == pytest.approx(rate, abs=1e-10)


def test_half_precision_scales_its_loss_and_follows_the_rates(tiny, quick):
    settings = quick(recipe="scratch", precision="mixed_float16")
    network = models.build_classifier(settings, tiny, classes=4)
    phase = training.training_phases(settings, tiny)[-1]
    training.compile_phase(network, phase, settings.recipe_options, 5)
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
    network.optimizer.iterations.assign(3)
    rate = training.learning_rates(phase, settings.recipe_options, 5)[3]
    assert float(
        keras.ops.convert_to_numpy(network.optimizer.learning_rate)
    ) == pytest.approx(rate, abs=1e-10)


# --- stop and go on ---


def stop_and_go_on(settings, model, sequences, stop_after, folder, stops):
    """Train in one go, and again with stops after some epochs, and compare every bit; gives the history."""
    whole, expected = run(settings, model, sequences, folder / "whole")
    for last in stops:
        stop_after(last)
        with pytest.raises(Stopped):
            run(settings, model, sequences, folder / "stopped")
    stop_after(None)
    resumed, history = run(settings, model, sequences, folder / "stopped")
    assert_same_history(history, expected)
    assert_same_weights(resumed, whole)
    assert_same_weights(
        *(
            keras.saving.load_model(folder / name / "best.keras")
            for name in ("whole", "stopped")
        )
    )
    return history


@pytest.mark.slow
def test_vgg16_stopped_between_head_and_fine_tuning_ends_with_the_same_bits(
    quick, two_sequences, stop_after, tmp_path
):
    history = stop_and_go_on(
        quick(epochs=2), "vgg16", two_sequences, stop_after, tmp_path, stops=[1]
    )
    assert history["phase"].tolist() == ["head", "fine_tune"]


def test_fine_tuning_may_be_stopped_after_every_epoch(
    tiny, quick, two_sequences, stop_after, tmp_path
):
    stop_and_go_on(quick(), tiny, two_sequences, stop_after, tmp_path, stops=[1, 2])


@pytest.mark.parametrize(
    "changes", [{}, dict(recipe="scratch+ema", precision="mixed_float16")]
)
def test_training_from_scratch_may_be_stopped_too(
    tiny, quick, two_sequences, stop_after, tmp_path, changes
):
    from_scratch = dict(
        recipe="scratch", head_epochs=0, epochs=2
    )  # moves batch-norm statistics, and warms up
    settings = quick(**(from_scratch | changes))
    stop_and_go_on(settings, tiny, two_sequences, stop_after, tmp_path, stops=[1])


def test_an_epoch_that_was_cut_short_is_done_again(
    tiny, finished, quick, two_sequences, monkeypatch, tmp_path
):
    read = generators.ScanSequence.__getitem__

    def power_cut(self, index):
        if (self.epoch, index) == (1, 2):
            raise Stopped
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(generators.ScanSequence, "__getitem__", power_cut)
        with pytest.raises(Exception, match="Stopped"):
            run(quick(), tiny, two_sequences, tmp_path)
    assert len(checkpoints.read_history(tmp_path)) == 1
    history = run(quick(), tiny, two_sequences, tmp_path)[1]
    assert_same_history(
        history.drop(columns="val_accuracy"),
        finished.history.drop(columns="val_accuracy"),
    )


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(
        keras.Model, "fit", lambda *_, **__: pytest.fail("it trains again")
    )


def test_a_finished_run_returns_at_once(
    finished, tiny, quick, two_sequences, no_training
):
    files = {file.name: file.stat().st_mtime_ns for file in finished.folder.iterdir()}
    network, history = run(quick(), tiny, two_sequences, finished.folder)
    pd.testing.assert_frame_equal(history, finished.history)
    assert {
        file.name: file.stat().st_mtime_ns for file in finished.folder.iterdir()
    } == files


def test_a_finished_run_leaves_the_network_as_training_did(
    finished, tiny, quick, two_sequences, no_training
):
    network, _ = run(quick(), tiny, two_sequences, finished.folder)
    for weight, trained in zip(network.get_weights(), finished.weights[-1]):
        np.testing.assert_array_equal(weight, trained)


def test_going_on_shows_what_was_done(finished, tiny, quick, two_sequences, capsys):
    run(quick(), tiny, two_sequences, finished.folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 of 3 epochs are on disk:"
    assert [line[:11] for line in lines[1:]] == [
        "epoch  1/3 ",
        "epoch  2/3 ",
        "epoch  3/3 ",
    ]


# --- features of a frozen backbone ---


def test_a_head_learns_from_features_what_it_learns_from_scans(
    tiny, quick, two_sequences, monkeypatch, tmp_path
):
    settings = quick(epochs=3, head_epochs=3)
    fast = run(settings, tiny, two_sequences, tmp_path / "features")[1]
    monkeypatch.setattr(
        training,
        "fit_head",
        lambda model, scans, held_out, epochs, keeper: model.fit(
            scans,
            validation_data=held_out,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[keeper],
        ),
    )
    slow = run(settings, tiny, two_sequences, tmp_path / "scans")[1]
    columns = ["loss", "accuracy", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(fast[columns], slow[columns], rtol=1e-4)


def test_the_frozen_backbone_sees_each_view_once(
    tiny, quick, two_sequences, monkeypatch, tmp_path
):
    settings, seen = quick(epochs=7, head_epochs=7), []
    read = generators.ScanSequence.__getitem__
    monkeypatch.setattr(
        generators.ScanSequence,
        "__getitem__",
        lambda self, index: seen.append(index) or read(self, index),
    )
    run(settings, tiny, two_sequences, tmp_path)
    assert sorted(seen) == sorted(
        [0, 1, 2] * (config.CACHED_AUGMENTATIONS + 1)
    )  # the validation scans once


# --- what a run leaves ---


def test_the_history_is_on_disk_after_every_epoch(finished):
    assert [history["epoch"].tolist() for history in finished.histories] == [
        [1],
        [1, 2],
        [1, 2, 3],
    ]


def test_every_epoch_draws_its_own_order_and_augmentation(finished):
    assert finished.epochs == (0, 1, 2)


def test_a_row_of_the_history_says_everything_about_an_epoch(finished):
    assert list(finished.history.columns) == [
        *(
            "epoch",
            "phase",
            "seconds",
            "learning_rate",
            "loss",
            "accuracy",
            "val_loss",
            "val_accuracy",
            "checkpoint",
        )
    ]
    assert finished.history["phase"].tolist() == ["head", "fine_tune", "fine_tune"]
    assert finished.history["learning_rate"].tolist() == pytest.approx(
        [1e-3, 2.5e-5, 0], abs=1e-9
    )
    assert finished.history["accuracy"].between(0, 1).all()


def test_the_best_model_is_the_first_of_highest_validation_accuracy(finished):
    saved = keras.saving.load_model(finished.folder / "best.keras").get_weights()
    same = [
        all(np.array_equal(*pair) for pair in zip(weights, saved))
        for weights in finished.weights
    ]
    assert same == [False, True, False]


def test_a_run_leaves_three_files_and_nothing_temporary(finished):
    names = sorted(file.name for file in finished.folder.iterdir())
    assert names == ["best.keras", "epoch-003.weights.h5", "history.csv"]


# --- what a person sees meanwhile ---


def history_of(*epochs):
    """A made-up history of epochs, each a phase and the seconds it took."""
    table = pd.DataFrame(epochs, columns=["phase", "seconds"])
    table.insert(0, "epoch", range(1, len(table) + 1))
    return table.assign(loss=1.5, accuracy=0.25, val_loss=1.25, val_accuracy=0.5)


def times_left(history, plan):
    """What the line of each epoch says after the scores."""
    return [
        line.split("accuracy 0.500   ")[1]
        for line in progress.progress_lines(history, plan)
    ]


def test_every_epoch_is_a_line_with_the_time_left(quick):
    plan = training.training_phases(quick(recipe="scratch", epochs=3), "vgg16")
    assert progress.progress_lines(history_of(("all", 60.0)), plan) == [
        "epoch  1/3 all         60.0 s   loss 1.500  accuracy 0.250   "
        "validation loss 1.250  accuracy 0.500   about 2 min left, or less"
    ]


def test_the_time_left_is_not_known_before_an_epoch_of_fine_tuning_has_ended(quick):
    plan = training.training_phases(quick(head_epochs=5, epochs=20), "vgg16")
    head = [("head", 190.0), *[("head", 150.0)] * 3, ("head", 1.1)]
    history = history_of(
        *head, ("fine_tune", 200.0), ("fine_tune", 170.0), ("fine_tune", 170.0)
    )
    assert times_left(history, plan) == [
        *["time left: known after epoch 6"] * 5,
        "about 47 min left, or less",  # 14 epochs like the first, which compiles as well
        "about 37 min left",  # 13 like the second
        "about 34 min left",
    ]


def test_head_epochs_that_have_their_features_are_not_taken_for_those_that_compute_them(
    quick,
):
    plan = training.training_phases(quick(head_epochs=8, epochs=8), "vgg16")
    history = history_of(*[("head", 150.0)] * 4, *[("head", 1.0)] * 4)
    later = ["less than 1 min left"] * 3 + ["done"]
    assert times_left(history, plan) == ["time left: known after epoch 5"] * 4 + later


def test_a_short_head_alone_is_known_after_its_first_epoch(quick):
    plan = training.training_phases(quick(head_epochs=3, epochs=3), "vgg16")
    history = history_of(("head", 180.0), ("head", 120.0), ("head", 120.0))
    assert times_left(history, plan) == [
        "about 6 min left, or less",
        "about 2 min left",
        "done",
    ]


def test_an_epoch_in_which_the_laptop_slept_misleads_nobody(quick):
    plan = training.training_phases(quick(recipe="scratch", epochs=12), "vgg16")
    history = history_of(*[("all", 60.0)] * 4, ("all", 2000.0), ("all", 60.0))
    assert times_left(history, plan)[-2:] == ["about 7 min left", "about 6 min left"]


@pytest.fixture
def clock(monkeypatch):
    """Stands in for the clock of training: ``clock.now`` says how late it is, and it stands still."""
    stand_in = SimpleNamespace(now=1000.0)
    stopped = SimpleNamespace(perf_counter=lambda: stand_in.now)
    monkeypatch.setattr(checkpoints, "time", stopped)
    monkeypatch.setattr(progress, "time", stopped)
    return stand_in


def lines_of(progress, clock, batches, seconds, capsys):
    """What is printed while batches are done that take so long each."""
    for done in range(1, batches + 1):
        clock.now += seconds
        progress.update(done)
    return capsys.readouterr().out.splitlines()


def test_what_takes_less_than_ten_seconds_is_silent(clock, capsys):
    assert (
        lines_of(
            progress.Progress("features of augmentation 1", 9), clock, 9, 1.0, capsys
        )
        == []
    )


def test_what_takes_longer_says_how_far_it_is_soon_and_then_less_often(clock, capsys):
    features = progress.Progress("features of augmentation 1", 61)
    assert lines_of(features, clock, 61, 5.0, capsys) == [
        "features of augmentation 1: 2 of 61 batches, about 5 min left",
        "features of augmentation 1: 6 of 61 batches, about 5 min left",
        "features of augmentation 1: 14 of 61 batches, about 4 min left",
        "features of augmentation 1: 26 of 61 batches, about 3 min left",
        "features of augmentation 1: 38 of 61 batches, about 2 min left",
        "features of augmentation 1: 50 of 61 batches, less than 1 min left",
    ]


def test_the_first_batch_which_compiles_foretells_nothing(clock, capsys):
    epoch = progress.Progress("epoch 1", 11)
    assert lines_of(epoch, clock, 1, 40.0, capsys) == ["epoch 1: 1 of 11 batches"]
    clock.now += 100
    epoch.update(2)
    assert capsys.readouterr().out == "epoch 1: 2 of 11 batches, about 15 min left\n"


def test_features_count_as_time_of_the_epoch_that_needs_them_first(
    tiny, quick, two_sequences, monkeypatch, clock, tmp_path, capsys
):
    read = generators.ScanSequence.__getitem__

    def slowly(self, index):
        clock.now += 20
        return read(self, index)

    monkeypatch.setattr(generators.ScanSequence, "__getitem__", slowly)
    history = run(quick(epochs=6, head_epochs=6), tiny, two_sequences, tmp_path)[1]
    assert history["seconds"].tolist() == [
        120,
        60,
        60,
        60,
        0,
        0,
    ]  # three batches to train on, three held out
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [
        "features of augmentation 1: 1 of 3 batches",
        "features of augmentation 1: 2 of 3 batches, less than 1 min left",
        "features of validation scans: 1 of 3 batches",
        "features of validation scans: 2 of 3 batches, less than 1 min left",
    ]
    assert [line.split("  ")[0] for line in printed[4:7]] == [
        "epoch",
        "features of augmentation 2: 1 of 3 batches",
        "features of augmentation 2: 2 of 3 batches, less than 1 min left",
    ]


def test_a_long_first_epoch_shows_how_far_it_is_and_a_later_one_once_a_minute(
    tiny, quick, two_sequences, monkeypatch, clock, tmp_path, capsys
):
    original = checkpoints.EpochKeeper.on_train_batch_end

    def after_a_while(self, batch, logs=None):
        clock.now += 35
        original(self, batch, logs)

    monkeypatch.setattr(checkpoints.EpochKeeper, "on_train_batch_end", after_a_while)
    run(quick(recipe="scratch", epochs=2), tiny, two_sequences, tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("   ")[0] for line in printed] == [
        "epoch 1: 1 of 3 batches",
        "epoch 1: 2 of 3 batches, less than 1 min left",
        "epoch  1/2 all",
        "epoch 2: 2 of 3 batches, less than 1 min left",
        "epoch  2/2 all",
    ]


def test_a_folder_without_history_has_no_epoch(tmp_path):
    assert checkpoints.read_history(tmp_path).empty


def test_a_loss_that_is_no_number_stops_with_epoch_and_rate(
    tiny, quick, two_sequences, tmp_path
):
    network = models.build_classifier(quick(), tiny, classes=4)
    output = network.get_layer("probabilities")
    output.kernel.assign(keras.ops.full_like(output.kernel, np.nan))
    with pytest.raises(
        FloatingPointError,
        match=r"^The loss is nan in epoch 1 at learning rate 1.0e-03: .*float32",
    ):
        training.train(network, *two_sequences(), quick(), tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing to go on from


def test_where_nothing_is_held_out_the_last_epoch_is_kept(
    tiny, quick, two_sequences, tmp_path
):
    network = models.build_classifier(quick(epochs=2), tiny, classes=4)
    train_scans, judges = two_sequences()
    history = training.train(network, train_scans, None, quick(epochs=2), tmp_path)
    assert history["accuracy"].notna().all() and history["val_accuracy"].isna().all()
    kept = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_array_equal(
        kept.predict(judges, verbose=0), network.predict(judges, verbose=0)
    )


def judge(network, scans):
    """Loss and accuracy."""
    network.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    return network.evaluate(scans, verbose=0)


def test_averaged_weights_are_judged_and_kept(tiny, quick, two_sequences, tmp_path):
    settings = quick(recipe="scratch+ema", epochs=3)
    network, history = run(settings, tiny, two_sequences, tmp_path)
    best = history.loc[history["val_accuracy"].idxmax()]
    kept, judges = keras.saving.load_model(tmp_path / "best.keras"), two_sequences()[1]
    assert judge(kept, judges) == pytest.approx(
        (best["val_loss"], best["val_accuracy"]), rel=1e-5
    )
    assert judge(network, judges)[0] == pytest.approx(
        history["val_loss"].iloc[-1], rel=1e-5
    )
    moving = models.build_classifier(settings, tiny, classes=4)
    moving.load_weights(tmp_path / "epoch-003.weights.h5")
    assert (
        abs(judge(moving, judges)[0] - history["val_loss"].iloc[-1]) > 1e-4
    )  # training goes on where it was


@pytest.mark.parametrize(
    ("balanced", "expected"),
    [
        (
            False,
            32 / 40,
        ),  # cross-entropy is least where the answer is the share of the class in training
        (
            True,
            1 / 2,
        ),  # weights make both classes count alike, whatever their numbers are
    ],
)
def test_a_network_that_sees_nothing_learns_how_much_each_class_counts(
    quick, monkeypatch, tmp_path, balanced, expected
):
    """All scans are black and alike, so only one answer can be learned: the one with the least mean loss."""

    def constructor(*, weights, include_top, input_shape, name):
        inputs = keras.Input(input_shape)
        # no batch norm: what does not vary cannot be normalized
        return keras.Model(
            inputs, keras.layers.Conv2D(4, 3, strides=4, name="only")(inputs), name=name
        )

    fast = backbones.Backbone(
        constructor, "", backbones.CAFFE, "only", scratch_learning_rate=0.04
    )  # for batches of 32
    monkeypatch.setitem(backbones.BACKBONES, "plain", fast)
    settings = quick(recipe="scratch", epochs=12)
    black = np.zeros((40, 32, 32), "uint8")
    labels = [0, 0, 0, 0, 1] * 8
    scans = generators.ScanSequence(
        black,
        labels,
        classes=2,
        batch_size=8,
        augmentation=None,
        seed=0,
        class_weights=balanced,
    )
    network = models.build_classifier(settings, "plain", classes=2)
    training.train(network, scans, None, settings, tmp_path)
    assert network.predict_on_batch(scans[0][0])[:, 0] == pytest.approx(
        expected, abs=0.05
    )


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "a.txt"
    for text in ("old", "new"):
        files.replace_file(
            file, lambda temporary, text=text: temporary.write_text(text)
        )
        assert file.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_writing_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def half(temporary):
        temporary.write_text("ne")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        files.replace_file(file, half)
    assert file.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


# --- where a run lives ---


@pytest.fixture
def scans():
    table = pd.DataFrame(
        {"path": ["a", "b"], "sha256": ["1", "2"], "label": ["x", "y"]}
    )
    return table.assign(subset=["train", "validation"], group=["g", "h"])


OTHER = dict(
    preset="cpu",
    protocol="patient",
    recipe="scratch",
    weights="imagenet",
    image_size=64,
    batch_size=4,
    head_epochs=2,
    epochs=9,
    max_scans=1,
    precision="auto",
    seed=1,
)


@pytest.mark.parametrize("setting", OTHER)
def test_any_other_setting_is_another_folder(quick, scans, setting):
    settings = dataclasses.replace(quick(), **{setting: OTHER[setting]})
    assert runs.checkpoint_folder(settings, "vgg16", scans) != runs.checkpoint_folder(
        quick(), "vgg16", scans
    )


@pytest.mark.parametrize("column", ["path", "sha256", "label", "subset"])
def test_other_scans_are_another_folder(quick, scans, column):
    changed = scans.assign(**{column: [scans[column][0], "other"]})
    assert runs.checkpoint_folder(quick(), "vgg16", changed) != runs.checkpoint_folder(
        quick(), "vgg16", scans
    )
    assert runs.checkpoint_folder(
        quick(), "vgg16", scans[:1]
    ) != runs.checkpoint_folder(quick(), "vgg16", scans)


def test_the_same_run_is_the_same_folder_whatever_the_order_of_scans(
    quick, scans, build_folder
):
    folder = runs.checkpoint_folder(quick(), "vgg16", scans)
    assert runs.checkpoint_folder(quick(), "vgg16", scans[::-1]) == folder
    assert folder.parent == build_folder / "models"
    assert re.fullmatch("vgg16-transfer-original-32px-seed0-[0-9a-f]{8}", folder.name)


# --- any backend ---


def test_no_module_chooses_a_backend():
    for file in SOURCE.glob("*.py"):
        chosen = re.findall(
            r"^\s*(?:import|from)\s+(?:tensorflow|jax|torch)\b.*",
            file.read_text(),
            re.MULTILINE,
        )
        assert not chosen, f"{file.name}: {chosen}"


WITHOUT_TENSORFLOW = """
import sys
class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow'")
sys.meta_path.insert(0, NoTensorFlow())
import keras, numpy
from pathlib import Path
from braintumor import backbones, config, generators, models, plots, runs, splits, training
from conftest import tiny_backbone
assert keras.backend.backend() == "jax"
backbones.BACKBONES["tiny"] = tiny_backbone()
labels = numpy.arange(8) % 4
images = (numpy.random.default_rng(1).integers(0, 60, (8, 32, 32)) + 60 * labels[:, None, None]).astype("uint8")
sequences = [generators.ScanSequence(images, labels, classes=4, batch_size=8, augmentation=augmentation, seed=0)
             for augmentation in (generators.AUGMENTATIONS["original"], None)]
settings = config.settings_from("sample", seed=0, image_size=32, epochs=1, head_epochs=1, weights="random",
                                precision="float32")
model, folder = models.build_classifier(settings, "tiny", classes=4), Path(sys.argv[1])
before = model.get_layer("hidden").get_weights()[0].copy()
print(len(training.train(model, *sequences, settings, folder)), "epoch")
print("moved", not numpy.array_equal(model.get_layer("hidden").get_weights()[0], before))
saved = keras.saving.load_model(folder / "best.keras")
assert "tensorflow" not in sys.modules
scans = images[..., None].astype("float32") / 255
print("same", numpy.array_equal(model.predict(scans, verbose=0), saved.predict(scans, verbose=0)))
"""


def test_jax_alone_is_enough(tmp_path):
    pytest.importorskip("jax")
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": paths,
    }
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.stdout.splitlines()[-3:] == ["1 epoch", "moved True", "same True"], (
        done.stderr[-2000:]
    )


TWICE = """
import json
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1], str(Path(sys.argv[1]).with_name("tools"))
from conftest import QUICK, made_up
from braintumor import config, models, training
settings = config.Settings(preset="sample", **(QUICK | json.loads(sys.argv[4])))
scans = made_up()
network = models.build_classifier(settings, sys.argv[3], classes=4)
training.train(network, *scans, settings, Path(sys.argv[2]))
print(network.predict(scans[1], verbose=0).tobytes().hex())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "model", "changes"),
    [
        ("tensorflow", "vgg16", {}),
        ("jax", "vgg16", {}),
        (
            "tensorflow",
            "resnet50",
            dict(recipe="scratch", head_epochs=0, precision="mixed_bfloat16"),
        ),
    ],
)
def test_two_runs_on_one_machine_predict_the_same_bits(
    backend, model, changes, tmp_path
):
    pytest.importorskip(backend)
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command, told = [sys.executable, "-c", TWICE, Path(__file__).parent], []
    for run in ("one", "other"):
        arguments = [*command, tmp_path / run, model, json.dumps(changes)]
        done = subprocess.run(
            arguments, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(done.stdout.splitlines()[-1])
    assert told[0] == told[1] and len(set(told[0])) > 4
