"""What is trained: an ImageNet backbone under one common head, with the input convention inside the model."""

import hashlib
import os
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from braintumor.support.download import reachable
from braintumor.support.files import checksum
from braintumor.support.processor import multiplies_bfloat16

import keras

WEIGHTS_HOST = "storage.googleapis.com"  # where keras.applications keeps its weights
NOT_CHECKED = "imagenet, not checked"  # what provenance says where there is no fingerprint to compare with


class Backbone(NamedTuple):
    """A network of ``keras.applications``; a new one is one more entry in ``BACKBONES``."""

    constructor: Callable
    imagenet_file: (
        str  # as keras.applications caches it, without the classification top
    )
    imagenet_scaling: (
        dict  # from [0, 1] to the pixels that its ImageNet weights were trained on
    )
    fine_tune_from: str  # first layer that fine-tuning moves
    scratch_learning_rate: (
        float  # AdamW, for batches of 32; without batch norm only a lower one is stable
    )
    imagenet_fingerprint: str | None = (
        None  # of its ImageNet weights, see ``fingerprint``; None: not known
    )


# mode "caffe" of keras.applications: 0-255, less the mean of blue, green, red; grey scans need no swap
CAFFE = dict(scale=255.0, offset=[-103.939, -116.779, -123.68])
SMALLEST_IMAGE = 32  # pixels: what every backbone can be built for
NO_TOP = "weights_tf_dim_ordering_tf_kernels_notop.h5"
BACKBONES = {
    "vgg16": Backbone(
        keras.applications.VGG16,
        f"vgg16_{NO_TOP}",
        CAFFE,
        "block4_conv1",
        3e-4,
        imagenet_fingerprint="c94d410ea35e6dea69c610955ec09a2c5eea4af5e4b1334d781b0a701bbcbfc1",
    ),
    "resnet50": Backbone(
        keras.applications.ResNet50,
        f"resnet50_{NO_TOP}",
        CAFFE,
        "conv4_block1_1_conv",
        1e-3,
    ),
}


def backbone_named(name: str) -> Backbone:
    """The entry of ``BACKBONES``; raises ValueError for a name that is not there."""
    if name not in BACKBONES:
        raise ValueError(
            f"There is no backbone '{name}'; choose one of: {', '.join(BACKBONES)}."
        )
    return BACKBONES[name]


def build_classifier(
    name: str,
    *,
    image_size: int,
    classes: int,
    weights: str,
    precision: str,
    seed: int,
    convention: str,
    batch_norm_momentum: float | None,
    zero_init=False,
    **_,
):
    """A model from scans, float32 in [0, 1], shape (batch, size, size, 1), to probabilities (batch, classes).

    ``weights``, ``precision``: see ``Settings``; ``batch_norm_momentum``: None leaves 0.99; ``convention``: imagenet
    (the backbone's own scaling), unit ([0, 1], as the original did) or centred (about zero mean, unit variance).
    ``zero_init``: with random weights, the last batch norm of a residual block starts at 0 (arXiv:1706.02677, 5.1).
    What else a recipe or settings hold may be given too, and makes no difference here.
    """
    keras.utils.set_random_seed(seed)
    backbone, before = backbone_named(name), keras.config.dtype_policy()
    scalings = dict(
        imagenet=backbone.imagenet_scaling,
        unit=dict(scale=1.0),
        centred=dict(scale=4.0, offset=-1.0),
    )
    keras.config.set_dtype_policy(choose_precision(precision))
    try:
        inputs = keras.Input((image_size, image_size, 1), name="scan")
        three = keras.layers.Concatenate(name="grey_to_three_channels")(
            [inputs, inputs, inputs]
        )
        scaled = keras.layers.Rescaling(
            **scalings[convention], name=f"{convention}_convention"
        )(three)
        base = _build_backbone(name, backbone, image_size, weights)
        pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(base(scaled))
        hidden = keras.layers.Dense(512, activation="relu", name="hidden")(pooled)
        dropped = keras.layers.Dropout(0.5, name="dropout")(hidden)
        outputs = keras.layers.Dense(
            classes, activation="softmax", dtype="float32", name="probabilities"
        )(dropped)
    finally:
        keras.config.set_dtype_policy(before)
    for layer in batch_norms(base):
        layer.momentum = batch_norm_momentum or layer.momentum
        if zero_init and weights == "random" and layer.name.endswith("_3_bn"):
            layer.gamma.assign(keras.ops.zeros(layer.gamma.shape))
    fuse_batch_norms(base)
    return keras.Model(inputs, outputs, name=name)


def set_trainable(model: keras.Model, phase: str) -> None:
    """``head``: it alone changes; ``fine_tune``: late layers too, but no batch norm; ``all``: all, batch norm too."""
    base = model.get_layer("backbone")
    early = base.layers[
        : base.layers.index(base.get_layer(backbone_named(model.name).fine_tune_from))
    ]
    frozen = {"head": base.layers, "fine_tune": early + batch_norms(base), "all": []}[
        phase
    ]
    for layer in base.layers:
        layer.trainable = layer not in frozen


def batch_norms(network: keras.Model) -> list:
    """The batch-norm layers of a network, first to last."""
    return [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def fuse_batch_norms(network: keras.Model) -> None:
    """Let the batch norms of a network use TensorFlow's fused kernel on a processor; elsewhere nothing changes.

    One pass over the features in their own precision, where Keras makes a dozen in float32: see docs/speed.md. The
    layers stay those of Keras, so a saved file needs nothing from here.
    """
    if keras.backend.backend() == "tensorflow" and not _on_gpu():
        for layer in batch_norms(network):
            layer.call = partial(
                _normalise, layer, import_module("tensorflow").raw_ops.FusedBatchNormV3
            )


def _normalise(layer, fused, inputs, training=None, mask=None):
    learns = bool(training and layer.trainable)
    stored = [layer.moving_mean, layer.moving_variance]
    mean, variance = (
        [keras.ops.zeros(0)] * 2 if learns else map(keras.ops.convert_to_tensor, stored)
    )
    scale, offset = map(keras.ops.convert_to_tensor, (layer.gamma, layer.beta))
    result = fused(
        x=inputs,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=learns,
    )
    if learns:
        count = keras.ops.cast(keras.ops.size(inputs[..., 0]), "float32")
        seen = (
            result.batch_mean,
            result.batch_variance * (count - 1) / count,
        )  # Keras' is the biased one
        for statistic, now in zip(stored, seen):
            statistic.assign(statistic * layer.momentum + now * (1 - layer.momentum))
    return result.y


def imagenet_available(name: str) -> bool:
    """Whether Keras has the ImageNet weights in its cache or can reach them (answers within 3 s)."""
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    return (cache / backbone_named(name).imagenet_file).exists() or reachable(
        WEIGHTS_HOST
    )


def choose_precision(precision: str) -> str:
    """``auto`` as the fastest Keras dtype policy that the hardware computes natively; others as they are."""
    if precision != "auto":
        return precision
    if _on_gpu():
        return "mixed_float16"
    return "mixed_bfloat16" if multiplies_bfloat16() else "float32"


def _on_gpu():
    return re.search(
        "(?i)gpu|cuda|rocm", str(keras.ops.zeros(()).device)
    )  # torch lists no devices to Keras


def weights_file(name: str, weights: str) -> Path:
    """The file that the setting ``weights`` names, by itself or by its folder.

    Args:
        name: The backbone, as in ``BACKBONES``.
        weights: A weights file, or a folder that holds one under the name that Keras gives it.

    Raises:
        FileNotFoundError: There is no such file.
    """
    file = Path(weights)
    if file.is_dir():
        file = file / backbone_named(name).imagenet_file
    if not file.exists():
        raise FileNotFoundError(
            f"There is no weights file '{file.name}' for {name}: check the setting 'weights'."
        )
    return file


def weights_identity(name: str, weights: str) -> str:
    """The setting ``weights`` as a run is known by: a file by its content, wherever it lies.

    Args:
        name: The backbone, as in ``BACKBONES``.
        weights: See ``Settings``.

    Returns:
        ``imagenet`` and ``random`` as they are, else the sha256 of the file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if weights in ("imagenet", "random"):
        return weights
    return checksum(weights_file(name, weights))


def fingerprint(network: keras.Model) -> str:
    """The sha256 of all tensors of a network, whatever file they came from and whatever model it is part of.

    For each tensor, in the order of the layers: its name (layer/variable) and shape as a line of text, then its values
    as float32, little-endian.
    """
    digest = hashlib.sha256()
    for layer in network.layers:
        for variable in layer.weights:
            values = keras.ops.convert_to_numpy(variable).astype("<f4")
            digest.update(f"{layer.name}/{variable.name} {values.shape}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def describe_weights(
    name: str, weights: str, base: keras.Model | None = None
) -> dict[str, str]:
    """What provenance says of the weights that a backbone starts from.

    Args:
        name: The backbone, as in ``BACKBONES``.
        weights: See ``Settings``.
        base: The backbone with these weights, before it was trained; None: they are loaded to look at them.

    Returns:
        ``weights``: ``random``; ``imagenet`` where the fingerprint is the committed one; ``NOT_CHECKED`` for ImageNet
        weights, by Keras or by the name of their file, of a backbone that has none; else the name of the file.
        ``weights_fingerprint``: see ``fingerprint``; not there for random weights, nor where Keras cannot get its own.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no such backbone, or the file does not hold its weights.
    """
    if weights == "random":
        return {"weights": "random"}
    backbone = backbone_named(name)
    file_name = (
        backbone.imagenet_file
        if weights == "imagenet"
        else weights_file(name, weights).name
    )
    if base is None:
        if weights == "imagenet" and not imagenet_available(
            name
        ):  # such as where a trained network was copied to
            return {"weights": NOT_CHECKED}
        base = _build_backbone(name, backbone, SMALLEST_IMAGE, weights)
    found = fingerprint(base)
    if found == backbone.imagenet_fingerprint:
        said = "imagenet"
    elif backbone.imagenet_fingerprint is None and file_name == backbone.imagenet_file:
        said = NOT_CHECKED
    else:
        said = file_name
    return {"weights": said, "weights_fingerprint": found}


def _build_backbone(name, backbone, image_size, weights):
    shape = dict(
        include_top=False, input_shape=(image_size, image_size, 3), name="backbone"
    )
    if weights == "imagenet":
        return _with_imagenet_weights(name, backbone, shape)
    base = backbone.constructor(weights=None, **shape)
    if weights == "random":
        for layer in base.layers:
            if isinstance(
                layer, keras.layers.Conv2D
            ):  # He (arXiv:1502.01852), or a plain VGG16 does not learn
                layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
        return base
    file = weights_file(name, weights)
    try:
        base.load_weights(file)
    except MemoryError:
        raise
    except Exception as error:  # HDF5 and Keras raise many kinds: for other layers, other shapes, half a file
        raise ValueError(
            f"'{file.name}' holds no {name} weights without classification top, or is damaged: "
            f"name another file or folder in the setting 'weights'."
        ) from error
    return base


def _with_imagenet_weights(name, backbone, shape):
    if not imagenet_available(name):
        raise FileNotFoundError(
            f"ImageNet weights for {name} are neither cached nor can {WEIGHTS_HOST} be reached: connect once, "
            f"set weights to a folder that holds '{backbone.imagenet_file}', or use the preset 'cpu-scratch'."
        )
    try:
        return backbone.constructor(weights="imagenet", **shape)
    except (
        Exception
    ) as error:  # Keras raises no kind of its own for what arrives half or not at all
        raise ConnectionError(
            f"Keras cannot load its ImageNet weights for {name} ({' '.join(str(error).split())[:200]}): try again, "
            f"or set weights to a folder that holds '{backbone.imagenet_file}'."
        ) from error
