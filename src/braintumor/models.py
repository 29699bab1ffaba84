"""What is trained: a backbone under one common head, with its scaling inside."""

import dataclasses
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from braintumor.backbones import backbone_named, build_backbone, imagenet_available
from braintumor.config import Recipe, Settings
from braintumor.support.batch_norm import use_fused_kernels
from braintumor.support.processor import multiplies_bfloat16

import keras

HIDDEN_UNITS = 512
DROPOUT = 0.5


def build_classifier(settings: Settings, name: str, classes: int) -> keras.Model:
    """Build a classifier with an untrained head.

    Args:
        settings: Its ``recipe``, ``weights``, ``image_size``, ``precision`` and
            ``seed`` decide.
        name: A key of ``backbones.BACKBONES``; also the name of the model.
        classes: How many classes there are.

    Returns:
        A model from scans, float32 in [0, 1], shape (batch, size, size, 1), to
        probabilities, float32, shape (batch, classes).

    Raises:
        FileNotFoundError: The weights are not here and cannot be had.
        ConnectionError: Keras cannot load its own weights.
        ValueError: There is no such backbone, the file does not hold its weights, or
            the recipe is not for this backbone.
    """
    recipe = settings.parsed_recipe
    if recipe.zero_init:
        _check_residual_blocks(name)
    keras.utils.set_random_seed(settings.seed)
    with _dtype_policy(choose_precision(settings.precision)):
        inputs, base, outputs = _connect_layers(settings, name, classes)
    if recipe.batch_norm_momentum is not None:
        for layer in batch_norms(base):
            layer.momentum = recipe.batch_norm_momentum
    if recipe.zero_init:
        _start_blocks_as_identity(base, name)
    use_fused_kernels(batch_norms(base), on_gpu=_on_gpu())
    return keras.Model(inputs, outputs, name=name)


def _check_residual_blocks(name: str) -> None:
    """ValueError where a backbone has no residual blocks."""
    if backbone_named(name).last_batch_norm_of_block is None:
        raise ValueError(
            f"{name} has no residual blocks: take a recipe without +zero_init."
        )


@contextmanager
def _dtype_policy(policy: str) -> Iterator[None]:
    """Give all layers that are made inside the ``with`` a dtype policy."""
    policy_before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy_before)


def _connect_layers(
    settings: Settings, name: str, classes: int
) -> tuple[keras.KerasTensor, keras.Model, keras.KerasTensor]:
    """From scan to probabilities: the input, the backbone, the output."""
    inputs = keras.Input((settings.image_size, settings.image_size, 1), name="scan")
    rgb = keras.layers.Concatenate(name="gray_to_rgb")([inputs, inputs, inputs])
    scaled = scaling_layer(settings.parsed_recipe, name)(rgb)
    base = build_backbone(name, settings.image_size, settings.weights)
    outputs = classification_head(base(scaled), classes)
    return inputs, base, outputs


def _start_blocks_as_identity(base: keras.Model, name: str) -> None:
    """Let a residual block begin as its shortcut (arXiv:1706.02677, section 5.1)."""
    ending = backbone_named(name).last_batch_norm_of_block
    for layer in batch_norms(base):
        if layer.name.endswith(ending):
            layer.gamma.assign(keras.ops.zeros(layer.gamma.shape))


def scaling_layer(recipe: Recipe, name: str) -> keras.layers.Layer:
    """Make the layer from inputs in [0, 1] to what the backbone receives.

    Args:
        recipe: Its ``convention`` decides.
        name: A key of ``backbones.BACKBONES``.

    Returns:
        The layer.
    """
    scalings = {
        "unit": {"scale": 1.0},
        "imagenet": backbone_named(name).imagenet_scaling,
        # near zero mean and unit variance: scans have a mean and a standard deviation
        # of 0.18, which become -0.3 and 0.7
        "centred": {"scale": 4.0, "offset": -1.0},
    }
    scaling = scalings[recipe.convention]
    layer_name = f"{recipe.convention}_convention"
    return keras.layers.Rescaling(**scaling, name=layer_name)


def classification_head(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """Add the head of the reference study to a backbone.

    Args:
        features: Feature maps, shape (batch, height, width, channels).
        classes: How many classes there are.

    Returns:
        Probabilities, float32, shape (batch, classes).
    """
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    hidden = keras.layers.Dense(HIDDEN_UNITS, activation="relu", name="hidden")(pooled)
    dropped = keras.layers.Dropout(DROPOUT, name="dropout")(hidden)
    # softmax in float32, whatever the precision of the layers before
    softmax = keras.layers.Dense(
        classes, activation="softmax", dtype="float32", name="probabilities"
    )
    return softmax(dropped)


def set_trainable(model: keras.Model, phase: str) -> None:
    """Freeze and unfreeze the layers of the backbone.

    Args:
        model: A classifier.
        phase: ``head``: the backbone is frozen. ``fine_tune``: its late layers train,
            but no batch norm. ``all``: all of it trains, batch norms too.

    Raises:
        ValueError: There is no such phase.
    """
    base = model.get_layer("backbone")
    if phase == "head":
        frozen = base.layers
    elif phase == "fine_tune":
        first_trained = base.get_layer(backbone_named(model.name).fine_tune_from)
        early_layers = base.layers[: base.layers.index(first_trained)]
        frozen = early_layers + batch_norms(base)
    elif phase == "all":
        frozen = []
    else:
        raise ValueError(
            f"There is no phase '{phase}'; choose one of: head, fine_tune, all."
        )
    for layer in base.layers:
        layer.trainable = layer not in frozen


def batch_norms(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """List the batch-norm layers of a network, first to last.

    Args:
        network: Any model, such as a backbone.

    Returns:
        The layers.
    """
    return [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def forward_gflop(network: keras.Model) -> float:
    """Count the work of one forward pass, in the convolutions of a backbone.

    Args:
        network: A classifier, or a backbone.

    Returns:
        Billions of floating-point operations for one scan, a multiplication and an
        addition counted as two. A training step takes about three times as many.
    """
    if "backbone" in [layer.name for layer in network.layers]:
        network = network.get_layer("backbone")
    operations = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, height, width, _ = layer.output.shape
            kernel_size = math.prod(layer.kernel.shape)
            operations += 2 * height * width * kernel_size
    return operations / 1e9


def choose_precision(precision: str) -> str:
    """Turn the setting ``precision`` into a Keras dtype policy.

    Args:
        precision: See ``config.Settings``.

    Returns:
        For ``auto`` the fastest policy that the hardware computes natively, else the
        setting as it is.
    """
    if precision != "auto":
        return precision
    if _on_gpu():
        return "mixed_float16"
    if multiplies_bfloat16():
        return "mixed_bfloat16"
    return "float32"


def _on_gpu() -> bool:
    # a tensor's device, as Keras on torch lists no devices
    device = str(keras.ops.zeros(()).device)
    return re.search("(?i)gpu|cuda|rocm", device) is not None


def with_available_weights(settings: Settings, name: str) -> Settings:
    """Find out where ImageNet weights come from, before anything is built.

    The environment variable ``BRAINTUMOR_WEIGHTS`` may name a folder that holds them,
    for machines that cannot download them. Without them, the preset ``sample`` alone
    starts from random weights. Both are printed.

    Args:
        settings: Of a run.
        name: A key of ``backbones.BACKBONES``.

    Returns:
        The settings as they can be run.
    """
    if settings.weights != "imagenet":
        return settings
    folder = os.environ.get("BRAINTUMOR_WEIGHTS")
    if folder and (Path(folder) / backbone_named(name).imagenet_file).exists():
        print("BRAINTUMOR_WEIGHTS: ImageNet weights are read from there.")
        return dataclasses.replace(settings, weights=folder)
    if settings.preset != "sample" or imagenet_available(name):
        return settings
    print(
        "ImageNet weights cannot be had: this quick run starts from random ones, "
        "with the recipe 'scratch+quick'."
    )
    return dataclasses.replace(
        settings, weights="random", recipe="scratch+quick", head_epochs=0
    )
