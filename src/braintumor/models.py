"""What is trained: an ImageNet backbone under one common head, with the input convention inside the model."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import keras

from .download import reachable

WEIGHTS_HOST = "storage.googleapis.com"  # where keras.applications keeps its weights


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network of ``keras.applications``; a new one is one more entry in ``BACKBONES``."""

    constructor: Callable
    imagenet_file: str  # as keras.applications caches it, without the classification top
    imagenet_mean: tuple[float, float, float]  # subtracted from 0-255 pixels; grey scans need no BGR swap
    fine_tune_from: str  # first layer that fine-tuning moves
    scratch_learning_rate: float  # AdamW, for batches of 32; without batch norm only a lower one is stable


CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red: keras.applications.imagenet_utils, mode "caffe"
BACKBONES = {
    "vgg16": Backbone(keras.applications.VGG16, "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                      CAFFE_MEAN, "block4_conv1", 3e-4),
    "resnet50": Backbone(keras.applications.ResNet50, "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
                         CAFFE_MEAN, "conv4_block1_1_conv", 1e-3),
}  # fmt: skip


def backbone_named(name: str) -> Backbone:
    """The entry of ``BACKBONES``; raises ValueError for a name that is not there."""
    if name not in BACKBONES:
        raise ValueError(f"There is no backbone '{name}'; choose one of: {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def build_classifier(name: str, *, image_size: int, classes: int, weights: str, convention: str,
                     batch_norm_momentum: float | None, precision: str, seed: int) -> keras.Model:  # fmt: skip
    """Scans, float32 in [0, 1], shape (batch, image_size, image_size, 1), to probabilities (batch, classes).

    ``weights``: ``imagenet``, ``random``, a weights file, or a folder that holds Keras' file.
    ``convention``: ``imagenet`` (0-255, mean-subtracted), ``unit`` ([0, 1] straight in, as the original did)
    or ``centred`` (about zero mean and unit variance for MR slices).
    ``batch_norm_momentum``: None leaves Keras' 0.99. ``precision``: a Keras dtype policy.
    """
    keras.utils.set_random_seed(seed)
    with dtype_policy(precision):
        inputs = keras.Input((image_size, image_size, 1), name="scan")
        three = keras.layers.Concatenate(name="grey_to_three_channels")([inputs, inputs, inputs])
        base = _build_backbone(name, image_size, weights)
        features = base(_to_convention(three, backbone_named(name), convention))
        pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
        hidden = keras.layers.Dense(512, activation="relu", name="hidden")(pooled)
        dropped = keras.layers.Dropout(0.5, name="dropout")(hidden)
        outputs = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(dropped)
    for layer in batch_norms(base):
        layer.momentum = batch_norm_momentum or layer.momentum
    return keras.Model(inputs, outputs, name=name)


def freeze(model: keras.Model) -> None:
    """Only the head trains: backbone weights and batch-norm statistics stay as they are."""
    model.get_layer("backbone").trainable = False


def unfreeze(model: keras.Model, from_layer: str | None) -> None:
    """Train the backbone from a layer on, with batch norm in inference mode; None trains all of it, batch norm too."""
    base = model.get_layer("backbone")
    base.trainable = False  # TensorFlow's Keras ignores an unchanged value, and layers would stay frozen
    base.trainable = True
    if from_layer is None:
        return
    names = [layer.name for layer in base.layers]
    for layer in base.layers[: names.index(from_layer)] + batch_norms(base):
        layer.trainable = False


def batch_norms(network: keras.Model) -> list:
    """The batch-norm layers of a network, first to last."""
    return [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]


def imagenet_available(name: str) -> bool:
    """Whether Keras has the ImageNet weights in its cache or can reach them (answers within 3 s)."""
    keras_home = os.environ.get("KERAS_HOME", "~/.keras")
    cached = Path(keras_home).expanduser() / "models" / backbone_named(name).imagenet_file
    return cached.exists() or reachable(WEIGHTS_HOST)


def choose_precision(precision: str) -> str:
    """A Keras dtype policy; for ``auto`` the fastest one that the hardware computes natively.

    That is half precision on GPUs, and on processors that have bfloat16 instructions.
    """
    if precision != "auto":
        return precision
    if re.search("(?i)gpu|cuda|rocm", str(keras.ops.zeros(()).device)):  # torch lists no devices to Keras
        return "mixed_float16"
    processor = Path("/proc/cpuinfo")
    flags = processor.read_text() if processor.exists() else ""
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


@contextlib.contextmanager
def dtype_policy(precision: str):
    """Layers made inside get this dtype policy; afterwards the global one is what it was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(choose_precision(precision))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build_backbone(name, image_size, weights):
    backbone = backbone_named(name)
    shape = dict(include_top=False, input_shape=(image_size, image_size, 3), name="backbone")
    if weights == "imagenet":
        if not imagenet_available(name):
            raise FileNotFoundError(
                f"ImageNet weights for {name} are neither cached nor can {WEIGHTS_HOST} be reached: connect once, "
                f"set weights to a folder that holds '{backbone.imagenet_file}', or use the preset 'cpu-scratch'."
            )
        return backbone.constructor(weights="imagenet", **shape)
    base = backbone.constructor(weights=None, **shape)
    if weights == "random":
        return _initialise_he(base)
    file = Path(weights) / backbone.imagenet_file if Path(weights).is_dir() else Path(weights)
    if not file.exists():
        raise FileNotFoundError(f"There is no weights file '{file.name}' for {name}: check the setting 'weights'.")
    try:
        base.load_weights(file)
    except (ValueError, OSError) as error:
        raise ValueError(f"'{file.name}' holds no {name} weights without classification top.") from error
    return base


def _initialise_he(base):
    """He initialisation (arXiv:1502.01852) of all convolutions: without it a plain VGG16 does not start to learn."""
    for layer in base.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
    return base


def _to_convention(images, backbone, convention):
    scales = {
        "imagenet": dict(scale=255.0, offset=[-mean for mean in backbone.imagenet_mean]),
        "unit": dict(scale=1.0),
        "centred": dict(scale=4.0, offset=-1.0),
    }
    return keras.layers.Rescaling(**scales[convention], name=f"{convention}_convention")(images)
