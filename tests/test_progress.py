"""How far is a training, and how long will it take?"""

from types import SimpleNamespace

from braintumor import generators, models, training
from braintumor.support import checkpoints, progress

import pandas as pd
import pytest


def run(settings, model, sequences, folder):
    """Train a fresh network, as a restarted notebook does: (network, history)."""
    network = models.build_classifier(settings, model, classes=4)
    return network, training.train(network, *sequences(settings.seed), settings, folder)


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
