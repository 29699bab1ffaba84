"""What happened to the original's ResNet50?"""

from braintumor.models import batch_norms
from braintumor.studies import batchnorm_collapse

import keras
import numpy as np
import pytest

SCANS = np.random.default_rng(0).random((32, 8, 8, 3), dtype="float32")
LABELS = (
    SCANS[..., :1].mean(axis=(1, 2, 3)) > SCANS[..., 1:].mean(axis=(1, 2, 3))
).astype(int)
ONE_HOT = np.eye(2, dtype="float32")[LABELS]
BATCHES = [SCANS[:16], SCANS[16:]]


def compiled(network):
    """With a fresh Adam; step by step, which is faster here than compiling a graph."""
    network.compile(
        keras.optimizers.Adam(1e-3),
        "categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=True,
    )
    return network


@pytest.fixture
def model():
    """Two convolutions with batch norm, compiled for training, with Keras' first statistics: mean 0, variance 1."""
    keras.utils.set_random_seed(0)
    inputs = values = keras.Input((8, 8, 3))
    for _ in range(2):
        values = keras.layers.Conv2D(4, 3)(values)
        values = keras.layers.ReLU()(keras.layers.BatchNormalization()(values))
    pooled = keras.layers.GlobalAveragePooling2D()(values)
    return compiled(
        keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(pooled))
    )


def statistics(norm):
    return [
        keras.ops.convert_to_numpy(value)
        for value in (norm.moving_mean, norm.moving_variance)
    ]


def follow(model, **changes):
    arguments = dict(steps=4, every=2, batch_size=8, seed=0) | changes
    return batchnorm_collapse.follow(
        model, (SCANS, ONE_HOT), (SCANS, LABELS), BATCHES, **arguments
    )


def test_renewed_statistics_are_the_means_over_the_batches(model):
    first, second = batch_norms(model)
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    batchnorm_collapse.renew_statistics(model, BATCHES, [first, second])
    entering = keras.Model(model.input, first.input)
    seen = [keras.ops.convert_to_numpy(entering(batch)) for batch in BATCHES]
    mean, variance = statistics(first)
    np.testing.assert_allclose(
        mean, np.mean([batch.mean((0, 1, 2)) for batch in seen], axis=0), atol=1e-5
    )
    np.testing.assert_allclose(
        variance, np.mean([batch.var((0, 1, 2)) for batch in seen], axis=0), rtol=1e-4
    )
    assert (first.momentum, second.momentum) == (0.99, 0.99)
    assert all(np.array_equal(*pair) for pair in zip(weights, model.trainable_weights))


def test_only_the_statistics_that_are_named_are_renewed(model):
    first, second = batch_norms(model)
    batchnorm_collapse.renew_statistics(model, BATCHES, [second])
    assert [value.tolist() for value in statistics(first)] == [[0.0] * 4, [1.0] * 4]
    assert (statistics(second)[1] != 1).all()


def test_statistics_of_brighter_scans_make_every_answer_the_same_until_they_are_renewed(
    model,
):
    first, second = batch_norms(model)
    batchnorm_collapse.renew_statistics(
        model, [255 * batch for batch in BATCHES], [first, second]
    )
    row = batchnorm_collapse.judge(model, SCANS, LABELS, BATCHES)
    assert row["variance_ratio"] == pytest.approx(255**2, rel=0.1)
    assert row["one_answer"] == 1
    assert row["validation"] in {LABELS.mean(), 1 - LABELS.mean()}


def test_judging_leaves_the_model_as_it_was(model):
    before = model.get_weights()
    batchnorm_collapse.judge(model, SCANS, LABELS, BATCHES)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights()))


def test_statistics_that_fit_need_no_renewal(model):
    batchnorm_collapse.renew_statistics(model, BATCHES, batch_norms(model))
    row = batchnorm_collapse.judge(model, SCANS, LABELS, BATCHES)
    assert row["validation"] == row["first_renewed"] == row["all_renewed"]
    assert row["variance_ratio"] == pytest.approx(1, rel=0.1)


def test_the_stored_variance_decays_with_the_momentum(model):
    first = batch_norms(model)[0]
    first.moving_variance.assign([1e6] * 4)
    ratio = follow(model)["variance_ratio"]
    assert ratio.iloc[1:].to_list() == pytest.approx(
        [ratio[0] * 0.99**2, ratio[0] * 0.99**4], rel=0.05
    )


def test_a_training_is_followed_every_so_many_steps(model):
    rows = follow(model)
    assert rows["step"].to_list() == [0, 2, 4]
    assert rows["training"].isna().to_list() == [True, False, False]
    shares = rows[["validation", "first_renewed", "all_renewed", "one_answer"]]
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)


def test_the_same_seed_draws_the_same_batches(model):
    before = model.get_weights()
    first = follow(model, steps=2)["training"][1]
    model.set_weights(before)
    compiled(model)
    assert follow(model, steps=2)["training"][1] == first
