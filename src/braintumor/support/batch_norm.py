"""Batch norm by TensorFlow's fused kernel, for a processor: see docs/speed.md."""

from functools import partial
from importlib import import_module
from typing import Any

import keras


def use_fused_kernels(
    layers: list[keras.layers.BatchNormalization], on_gpu: bool
) -> None:
    """Let batch norms use TensorFlow's fused kernel on a processor.

    It passes once over the features, in their own precision, where Keras makes a dozen
    passes in float32. The layers stay those of Keras, so a saved file needs nothing
    from here. On a GPU, with another backend, and in layers without scale or center,
    nothing changes.

    Args:
        layers: Batch norms of a network, changed in place.
        on_gpu: Whether it will run on a GPU.
    """
    if keras.backend.backend() != "tensorflow" or on_gpu:
        return
    kernel = import_module("tensorflow").raw_ops.FusedBatchNormV3
    for layer in layers:
        # the kernel needs both, and InceptionV3 has batch norms without a scale
        if layer.scale and layer.center:
            layer.call = partial(_normalize, layer, kernel)


def _normalize(
    layer: keras.layers.BatchNormalization,
    kernel: Any,
    inputs: Any,
    training: bool | None = None,
    mask: Any = None,
) -> Any:
    """What ``BatchNormalization.call`` computes."""
    learns = bool(training and layer.trainable)
    if learns:
        # the kernel computes the statistics of the batch
        mean = variance = keras.ops.zeros(0)
    else:
        mean = keras.ops.convert_to_tensor(layer.moving_mean)
        variance = keras.ops.convert_to_tensor(layer.moving_variance)
    result = kernel(
        x=inputs,
        scale=keras.ops.convert_to_tensor(layer.gamma),
        offset=keras.ops.convert_to_tensor(layer.beta),
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=learns,
    )
    if learns:
        # the kernel gives the unbiased variance, Keras keeps the biased one
        count = keras.ops.cast(keras.ops.size(inputs[..., 0]), "float32")
        biased_variance = result.batch_variance * (count - 1) / count
        _update(layer.moving_mean, result.batch_mean, layer.momentum)
        _update(layer.moving_variance, biased_variance, layer.momentum)
    return result.y


def _update(statistic: keras.Variable, batch_value: Any, momentum: float) -> None:
    """Move a moving statistic towards its value in the batch."""
    statistic.assign(statistic * momentum + batch_value * (1 - momentum))
