"""What happened to the reference study's ResNet50?"""

from braintumor.models import batch_norms
from braintumor.studies import batchnorm_collapse

import keras
import numpy as np
import pytest

SCANS = np.random.default_rng(0).random((32, 8, 8, 3), dtype="float32")
FIRST_CHANNEL = SCANS[..., :1].mean(axis=(1, 2, 3))
OTHER_CHANNELS = SCANS[..., 1:].mean(axis=(1, 2, 3))
LABELS = (FIRST_CHANNEL > OTHER_CHANNELS).astype(int)
ONE_HOT = np.eye(2, dtype="float32")[LABELS]
BATCHES = [SCANS[:16], SCANS[16:]]


def compile_with_fresh_adam(model):
    """Eager steps are faster here than compiling a graph."""
    model.compile(
        keras.optimizers.Adam(1e-3),
        "categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=True,
    )


@pytest.fixture
def model():
    """Two convolutions with batch norms, whose statistics are mean 0 and variance 1."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    values = inputs
    for _ in range(2):
        values = keras.layers.Conv2D(4, 3)(values)
        values = keras.layers.BatchNormalization()(values)
        values = keras.layers.ReLU()(values)
    pooled = keras.layers.GlobalAveragePooling2D()(values)
    outputs = keras.layers.Dense(2, activation="softmax")(pooled)
    network = keras.Model(inputs, outputs)
    compile_with_fresh_adam(network)
    return network


def evaluate(model):
    return batchnorm_collapse.evaluate_statistics(model, SCANS, LABELS, BATCHES)


def train_and_track(model, steps=4):
    return batchnorm_collapse.train_and_track(
        model,
        train=(SCANS, ONE_HOT),
        validation=(SCANS, LABELS),
        batches=BATCHES,
        steps=steps,
        every=2,
        batch_size=8,
        seed=0,
    )


def mean_and_variance(norm):
    """The statistics that a batch norm has stored."""
    mean = keras.ops.convert_to_numpy(norm.moving_mean)
    variance = keras.ops.convert_to_numpy(norm.moving_variance)
    return mean, variance


def assert_equal_weights(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


# --- statistics, estimated anew ---


def test_reestimated_statistics_are_the_means_over_the_batches(model):
    first, second = batch_norms(model)
    batchnorm_collapse.reestimate_statistics(model, BATCHES, [first, second])

    up_to_norm = keras.Model(model.input, first.input)
    inputs = [keras.ops.convert_to_numpy(up_to_norm(batch)) for batch in BATCHES]
    mean = np.mean([batch.mean((0, 1, 2)) for batch in inputs], axis=0)
    variance = np.mean([batch.var((0, 1, 2)) for batch in inputs], axis=0)
    stored_mean, stored_variance = mean_and_variance(first)
    np.testing.assert_allclose(stored_mean, mean, atol=1e-5)
    np.testing.assert_allclose(stored_variance, variance, rtol=1e-4)


def test_reestimation_changes_neither_weights_nor_momenta(model):
    before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    norms = batch_norms(model)
    batchnorm_collapse.reestimate_statistics(model, BATCHES, norms)
    assert_equal_weights(before, model.trainable_weights)
    assert [norm.momentum for norm in norms] == [0.99, 0.99]


def test_only_the_statistics_that_are_named_are_reestimated(model):
    first, second = batch_norms(model)
    batchnorm_collapse.reestimate_statistics(model, BATCHES, [second])
    mean, variance = mean_and_variance(first)
    assert mean.tolist() == [0, 0, 0, 0]
    assert variance.tolist() == [1, 1, 1, 1]
    _, variance = mean_and_variance(second)
    assert (variance != 1).all()


def test_frozen_batch_norms_are_reestimated_too_and_stay_frozen(model):
    norms = batch_norms(model)
    batchnorm_collapse.reestimate_statistics(model, BATCHES, norms)
    expected = [mean_and_variance(norm) for norm in norms]

    for norm in norms:
        norm.moving_mean.assign([5] * 4)
        norm.moving_variance.assign([1e6] * 4)
        norm.trainable = False
    batchnorm_collapse.reestimate_statistics(model, BATCHES, norms)
    for norm, statistics in zip(norms, expected, strict=True):
        np.testing.assert_array_equal(mean_and_variance(norm), statistics)
        assert not norm.trainable


def test_reestimation_on_the_way_alters_no_training_with_frozen_batch_norms(model):
    """A compiled step, that is traced while the batch norms are frozen."""
    weights = model.get_weights()
    trained = []
    for every in (1, 4):
        model.set_weights(weights)
        for norm in batch_norms(model):
            norm.trainable = False
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        batchnorm_collapse.train_and_track(
            model,
            train=(SCANS, ONE_HOT),
            validation=(SCANS, LABELS),
            batches=BATCHES,
            steps=4,
            every=every,
            batch_size=8,
            seed=0,
        )
        trained.append(model.get_weights())
    assert_equal_weights(*trained)
    for norm in batch_norms(model):
        mean, variance = mean_and_variance(norm)
        assert mean.tolist() == [0, 0, 0, 0]
        assert variance.tolist() == [1, 1, 1, 1]


# --- a network, evaluated ---


def test_statistics_of_brighter_scans_make_the_prediction_constant(model):
    brighter = [255 * batch for batch in BATCHES]
    batchnorm_collapse.reestimate_statistics(model, brighter, batch_norms(model))
    found = evaluate(model)
    assert found.variance_ratio == pytest.approx(255**2, rel=0.1)
    assert found.one_answer == 1
    assert found.validation in {LABELS.mean(), 1 - LABELS.mean()}


def test_statistics_that_fit_gain_nothing_from_reestimation(model):
    batchnorm_collapse.reestimate_statistics(model, BATCHES, batch_norms(model))
    found = evaluate(model)
    assert found.validation == found.first_renewed == found.all_renewed
    assert found.variance_ratio == pytest.approx(1, rel=0.1)


def test_evaluation_leaves_the_model_as_it_was(model):
    before = model.get_weights()
    evaluate(model)
    assert_equal_weights(before, model.get_weights())


# --- a training, followed ---


def test_a_training_is_evaluated_every_so_many_steps(model):
    rows = train_and_track(model)
    assert rows["step"].to_list() == [0, 2, 4]
    assert rows["training"].isna().to_list() == [True, False, False]
    shares = rows[["validation", "first_renewed", "all_renewed", "one_answer"]]
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)


def test_the_stored_variance_decays_with_the_momentum(model):
    first, _ = batch_norms(model)
    first.moving_variance.assign([1e6] * 4)
    start, after_two, after_four = train_and_track(model)["variance_ratio"]
    assert after_two == pytest.approx(start * 0.99**2, rel=0.05)
    assert after_four == pytest.approx(start * 0.99**4, rel=0.05)


def test_the_same_seed_draws_the_same_batches(model):
    weights = model.get_weights()
    first = train_and_track(model, steps=2)
    model.set_weights(weights)
    compile_with_fresh_adam(model)
    again = train_and_track(model, steps=2)
    assert first["training"].equals(again["training"])
