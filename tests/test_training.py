"""How is it trained? Training that is stopped and goes on must end where training in one go ends."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from braintumor import backbones, config, generators, models, training
from braintumor.support import checkpoints

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import assert_same_history, assert_same_weights
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
    training.compile_phase(network, phase, settings.parsed_recipe, 5)
    assert type(network.optimizer) is getattr(keras.optimizers, kind)
    expected = training.learning_rates(phase, settings.parsed_recipe, 5)
    for step, rate in enumerate(expected):
        network.optimizer.iterations.assign(step)
        found = keras.ops.convert_to_numpy(network.optimizer.learning_rate)
        assert float(found) == pytest.approx(rate, abs=1e-10)


def test_half_precision_scales_its_loss_and_follows_the_rates(tiny, quick):
    settings = quick(recipe="scratch", precision="mixed_float16")
    network = models.build_classifier(settings, tiny, classes=4)
    phase = training.training_phases(settings, tiny)[-1]
    training.compile_phase(network, phase, settings.parsed_recipe, 5)
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
    network.optimizer.iterations.assign(3)
    rate = training.learning_rates(phase, settings.parsed_recipe, 5)[3]
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
    train_scans, validation_scans = two_sequences()
    history = training.train(network, train_scans, None, quick(epochs=2), tmp_path)
    assert history["accuracy"].notna().all() and history["val_accuracy"].isna().all()
    kept = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_array_equal(
        kept.predict(validation_scans, verbose=0),
        network.predict(validation_scans, verbose=0),
    )


def evaluate(network, scans):
    """Loss and accuracy."""
    network.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    return network.evaluate(scans, verbose=0)


def test_averaged_weights_are_evaluated_and_kept(tiny, quick, two_sequences, tmp_path):
    settings = quick(recipe="scratch+ema", epochs=3)
    network, history = run(settings, tiny, two_sequences, tmp_path)
    best = history.loc[history["val_accuracy"].idxmax()]
    kept, validation_scans = (
        keras.saving.load_model(tmp_path / "best.keras"),
        two_sequences()[1],
    )
    assert evaluate(kept, validation_scans) == pytest.approx(
        (best["val_loss"], best["val_accuracy"]), rel=1e-5
    )
    assert evaluate(network, validation_scans)[0] == pytest.approx(
        history["val_loss"].iloc[-1], rel=1e-5
    )
    moving = models.build_classifier(settings, tiny, classes=4)
    moving.load_weights(tmp_path / "epoch-003.weights.h5")
    assert (
        abs(evaluate(moving, validation_scans)[0] - history["val_loss"].iloc[-1]) > 1e-4
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


# --- any backend ---


def backends_named_in(file):
    """The backends that a module imports, inside functions and by name included."""
    named = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
            named.add(ast.unparse(node.args[0]).strip("'"))
    roots = {name.split(".")[0] for name in named}
    return roots & {"tensorflow", "jax", "torch"}


# several machines need JAX; a kernel of TensorFlow is used where that is the backend
BACKEND_OF = {"support/cluster.py": {"jax"}, "support/batch_norm.py": {"tensorflow"}}


@pytest.mark.parametrize(
    "file",
    sorted(SOURCE.rglob("*.py")),
    ids=lambda file: file.relative_to(SOURCE).as_posix(),
)
def test_no_module_chooses_a_backend(file):
    name = file.relative_to(SOURCE).as_posix()
    assert backends_named_in(file) == BACKEND_OF.get(name, set())


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
