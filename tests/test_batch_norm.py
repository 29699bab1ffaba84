"""The fused kernel computes what Keras' batch norm does."""

import os

from braintumor import models
from braintumor.support import batch_norm

import keras
import numpy as np
import pytest

HELD_BACK = (
    os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT") != "DEFAULT"
    and models.choose_precision("auto") == "float32"
)
BFLOAT16 = pytest.mark.skipif(
    HELD_BACK, reason="ONEDNN_MAX_CPU_ISA keeps oneDNN from bfloat16"
)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}])
def test_a_batch_norm_without_scale_or_center_stays_that_of_keras(options):
    """As those of InceptionV3, which have no scale."""
    features = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 8)).astype("float32")
    inputs = keras.Input((5, 5, 8))
    network = keras.Model(inputs, keras.layers.BatchNormalization(**options)(inputs))
    expected = keras.ops.convert_to_numpy(network(features))
    batch_norm.use_fused_kernels(models.batch_norms(network), on_gpu=False)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(network(features)), expected
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("policy", "close"),
    [("float32", 1e-4), pytest.param("mixed_bfloat16", 0.1, marks=BFLOAT16)],
)
def test_fused_batch_norms_compute_what_those_of_keras_do(policy, close, training):
    """Values, gradients and statistics, of a layer that has seen something before."""
    draw = np.random.default_rng(0)
    features = draw.normal(3, 2, (4, 5, 5, 8)).astype("float32")
    start = [draw.random(8, dtype="float32") + 0.5 for _ in range(4)]
    found = []
    for fuse in (True, False):
        inputs = keras.Input((5, 5, 8))
        norm = keras.layers.BatchNormalization(dtype=policy, momentum=0.9)
        network = keras.Model(inputs, norm(inputs))
        network.set_weights(start)
        if fuse:
            batch_norm.use_fused_kernels(models.batch_norms(network), on_gpu=False)
        values = keras.ops.convert_to_numpy(
            keras.ops.cast(network(features, training=training), "float32")
        )
        statistics = network.get_weights()[2:]
        if training:
            network.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
            network.train_on_batch(features, features)
        found.append([values, *statistics, *network.get_weights()])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=close, atol=close / 2)
    assert training != np.array_equal(found[0][1], start[2])
