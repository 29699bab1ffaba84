"""Which networks are there, and what weights do they start from?"""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braintumor.config import NOT_CHECKED, SMALLEST_IMAGE
from braintumor.support.download import reachable
from braintumor.support.files import checksum

import keras

WEIGHTS_HOST = "storage.googleapis.com"  # where keras.applications keeps its weights
NO_TOP = "weights_tf_dim_ordering_tf_kernels_notop.h5"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network of ``keras.applications``; a new one is one more in ``BACKBONES``.

    Attributes:
        constructor: Builds it, as ``keras.applications.VGG16`` does.
        imagenet_file: The name under which Keras caches its ImageNet weights.
        imagenet_scaling: Arguments of the ``Rescaling`` layer from [0, 1] to the pixels
            that its ImageNet weights were trained on.
        fine_tune_from: The first layer that fine-tuning trains.
        scratch_learning_rate: Of AdamW, for batches of 32 scans, from random weights.
            Without batch norm only a lower one is stable.
        imagenet_fingerprint: ``fingerprint`` of its ImageNet weights. None: not known.
        last_batch_norm_of_block: How the name of the last batch norm of each residual
            block ends. None: it has no such blocks.
    """

    constructor: Callable[..., keras.Model]
    imagenet_file: str
    imagenet_scaling: dict[str, Any]
    fine_tune_from: str
    scratch_learning_rate: float
    imagenet_fingerprint: str | None = None
    last_batch_norm_of_block: str | None = None


# mode "caffe" of keras.applications: 0 to 255, less the mean of blue, green and red;
# gray scans need no swap of channels
CAFFE = {"scale": 255.0, "offset": [-103.939, -116.779, -123.68]}
VGG16 = Backbone(
    constructor=keras.applications.VGG16,
    imagenet_file=f"vgg16_{NO_TOP}",
    imagenet_scaling=CAFFE,
    fine_tune_from="block4_conv1",
    scratch_learning_rate=3e-4,
    imagenet_fingerprint=(
        "c94d410ea35e6dea69c610955ec09a2c5eea4af5e4b1334d781b0a701bbcbfc1"
    ),
)
RESNET50 = Backbone(
    constructor=keras.applications.ResNet50,
    imagenet_file=f"resnet50_{NO_TOP}",
    imagenet_scaling=CAFFE,
    fine_tune_from="conv4_block1_1_conv",
    scratch_learning_rate=1e-3,
    last_batch_norm_of_block="_3_bn",
)
BACKBONES = {"vgg16": VGG16, "resnet50": RESNET50}


def backbone_named(name: str) -> Backbone:
    """Look up a backbone.

    Args:
        name: A key of ``BACKBONES``.

    Returns:
        Its entry.

    Raises:
        ValueError: There is no such backbone.
    """
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise ValueError(f"There is no backbone '{name}'; choose one of: {known}.")
    return BACKBONES[name]


def build_backbone(name: str, image_size: int, weights: str) -> keras.Model:
    """Build a backbone, with its weights and without classification top.

    Args:
        name: A key of ``BACKBONES``.
        image_size: Side of the input, in pixels.
        weights: See ``config.Settings``.

    Returns:
        A model from (batch, size, size, 3) to feature maps.

    Raises:
        FileNotFoundError: The weights are not here and cannot be had.
        ConnectionError: Keras cannot load its own weights.
        ValueError: There is no such backbone, or the file does not hold its weights.
    """
    backbone = backbone_named(name)
    options = {
        "include_top": False,
        "input_shape": (image_size, image_size, 3),
        "name": "backbone",
    }
    if weights == "imagenet":
        return _with_imagenet_weights(name, backbone, options)
    base = backbone.constructor(weights=None, **options)
    if weights == "random":
        _initialize_convolutions(base)
    else:
        _load_weights_file(base, name, weights_file(name, weights))
    return base


def _initialize_convolutions(base: keras.Model) -> None:
    """Draw the kernels anew by He (arXiv:1502.01852).

    A plain VGG16 does not learn from Keras' own initial values.
    """
    for layer in base.layers:
        if isinstance(layer, keras.layers.Conv2D):
            initial_kernel = keras.initializers.HeNormal()(layer.kernel.shape)
            layer.kernel.assign(initial_kernel)


def _load_weights_file(base: keras.Model, name: str, file: Path) -> None:
    try:
        base.load_weights(file)
    except MemoryError:
        raise
    except Exception as error:
        # HDF5 and Keras raise many kinds: for other layers, other shapes, half a file
        raise ValueError(
            f"'{file.name}' holds no {name} weights without classification top, or is "
            "damaged: name another file or folder in the setting 'weights'."
        ) from error


def _with_imagenet_weights(
    name: str, backbone: Backbone, options: dict[str, Any]
) -> keras.Model:
    if not imagenet_available(name):
        raise FileNotFoundError(
            f"ImageNet weights for {name} are neither cached nor can {WEIGHTS_HOST} be "
            "reached: connect once, set weights to a folder that holds "
            f"'{backbone.imagenet_file}', or use the preset 'cpu-scratch'."
        )
    try:
        return backbone.constructor(weights="imagenet", **options)
    except Exception as error:
        # Keras raises no kind of its own for what arrives half or not at all
        reason = " ".join(str(error).split())[:200]
        raise ConnectionError(
            f"Keras cannot load its ImageNet weights for {name} ({reason}): try again, "
            f"or set weights to a folder that holds '{backbone.imagenet_file}'."
        ) from error


def imagenet_available(name: str) -> bool:
    """Ask whether Keras has a backbone's ImageNet weights, or can get them.

    Args:
        name: A key of ``BACKBONES``.

    Returns:
        Whether they are in its cache or their server can be reached; within 3 s.
    """
    keras_home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    cached = keras_home / "models" / backbone_named(name).imagenet_file
    return cached.exists() or reachable(WEIGHTS_HOST)


def weights_file(name: str, weights: str) -> Path:
    """Find the file that the setting ``weights`` names, by itself or by its folder.

    Args:
        name: A key of ``BACKBONES``.
        weights: A weights file, or a folder that holds one under Keras' name for it.

    Returns:
        The file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    file = Path(weights)
    if file.is_dir():
        file = file / backbone_named(name).imagenet_file
    if not file.exists():
        raise FileNotFoundError(
            f"There is no weights file '{file.name}' for {name}: "
            "check the setting 'weights'."
        )
    return file


def weights_identity(name: str, weights: str) -> str:
    """Say which weights a setting means, wherever their file lies.

    Args:
        name: A key of ``BACKBONES``.
        weights: See ``config.Settings``.

    Returns:
        ``imagenet`` and ``random`` as they are, else the sha256 of the file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if weights in ("imagenet", "random"):
        return weights
    return checksum(weights_file(name, weights))


def fingerprint(network: keras.Model) -> str:
    """Compute the sha256 of all tensors of a network, whatever file they came from.

    Of each tensor, in the order of the layers, it takes the name (layer/variable) and
    shape as a line of text, then the values as float32, little-endian. So every layer
    with weights needs a name of its own: those without one are numbered by Keras, which
    goes on counting from one network to the next.

    Args:
        network: Any model, such as a backbone.

    Returns:
        The checksum, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for layer in network.layers:
        for variable in layer.weights:
            values = keras.ops.convert_to_numpy(variable).astype("<f4")
            line = f"{layer.name}/{variable.name} {values.shape}\n"
            digest.update(line.encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def describe_weights(
    name: str, weights: str, base: keras.Model | None = None
) -> dict[str, str]:
    """Say what weights a backbone starts from, for the provenance of a run.

    Args:
        name: A key of ``BACKBONES``.
        weights: See ``config.Settings``.
        base: The backbone with these weights, not yet trained. None: they are loaded.

    Returns:
        ``weights``: ``random``; ``imagenet`` where the fingerprint is the known one;
        ``NOT_CHECKED`` for ImageNet weights, by Keras or by their file's name, of a
        backbone without known fingerprint; else the name of the file.
        ``weights_fingerprint``: see ``fingerprint``; absent for random weights, and
        where Keras cannot get its own.

    Raises:
        FileNotFoundError: There is no such file.
        ConnectionError: Keras cannot load its own weights.
        ValueError: There is no such backbone, or the file does not hold its weights.
    """
    if weights == "random":
        return {"weights": "random"}
    backbone = backbone_named(name)
    if base is None:
        if weights == "imagenet" and not imagenet_available(name):
            # such as on a machine that a trained network was copied to
            return {"weights": NOT_CHECKED}
        base = build_backbone(name, SMALLEST_IMAGE, weights)
    if weights == "imagenet":
        file_name = backbone.imagenet_file
    else:
        file_name = weights_file(name, weights).name
    found = fingerprint(base)
    if found == backbone.imagenet_fingerprint:
        description = "imagenet"
    elif backbone.imagenet_fingerprint is None and file_name == backbone.imagenet_file:
        description = NOT_CHECKED
    else:
        description = file_name
    return {"weights": description, "weights_fingerprint": found}
