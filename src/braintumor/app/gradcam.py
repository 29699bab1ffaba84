"""Grad-CAM (arXiv:1610.02391): where in a scan does a network see a class?

Keras is imported only where it is needed: the ONNX engine shares the last step.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import keras

HEATMAPS_AT_ONCE = 64  # scans whose feature maps are in memory together


def grad_cam(
    model: "keras.Model", images: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Make a Grad-CAM heatmap of one class for each image.

    Args:
        model: One of ``models.build_classifier``.
        images: (n, size, size, 1), in [0, 1].
        classes: Class indices, shape (n,).

    Returns:
        float32 (n, size, size), largest value 1; all 0 where no feature speaks for the
        class.
    """
    import keras

    pooled = model.get_layer("pooled")
    hidden = model.get_layer("hidden")
    watched = keras.Model(model.inputs, [pooled.input, hidden.output])
    features, hidden_units = activations(watched, images)
    evidence = evidence_for(model, features, hidden_units, classes)
    return heatmaps_from(evidence, images.shape[1])


def evidence_for(
    model: "keras.Model",
    features: np.ndarray,
    hidden_units: np.ndarray,
    classes: np.ndarray,
) -> np.ndarray:
    """Compute what each cell of the feature maps contributes to a class.

    The head is Dense, ReLU, Dense, and dropout is off. So the gradient of a class logit
    with respect to the pooled features has a closed form, and none is computed.

    Args:
        model: One of ``models.build_classifier``.
        features: Feature maps, float32 (n, height, width, channels).
        hidden_units: Outputs of the layer ``hidden``, float32 (n, units).
        classes: Class indices, shape (n,).

    Returns:
        float32 (n, height, width); below 0, a cell speaks against the class.
    """
    first_kernel = _float32(model.get_layer("hidden").kernel)
    last_kernel = _float32(model.get_layer("probabilities").kernel)
    # the gradient of each class logit by the pooled features, (n, channels)
    active = hidden_units > 0
    weights = (active * last_kernel.T[classes]) @ first_kernel.T
    return np.einsum("nhwc,nc->nhw", features, weights)


def activations(watched: "keras.Model", images: np.ndarray) -> list[np.ndarray]:
    """Compute the outputs of a model for all images, a part at a time.

    Args:
        watched: A model with several outputs, such as of layers inside a network.
        images: (n, size, size, 1), in [0, 1].

    Returns:
        Each output, float32.
    """
    parts_count = -(-len(images) // HEATMAPS_AT_ONCE)
    parts = []
    for part in np.array_split(images, parts_count):
        outputs = watched([part], training=False)
        parts.append([_float32(output) for output in outputs])
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _float32(tensor: object) -> np.ndarray:
    """A tensor of any backend as a NumPy array."""
    import keras

    return keras.ops.convert_to_numpy(tensor).astype("float32")


def upsample(maps: Iterable[np.ndarray], size: int) -> np.ndarray:
    """Resize small maps to the size of the scans, bilinearly.

    Args:
        maps: Arrays (height, width), one a scan.
        size: Side of the scans (px).

    Returns:
        float32 (n, size, size).
    """
    shape = (size, size)
    resized = [cv2.resize(one, shape, interpolation=cv2.INTER_LINEAR) for one in maps]
    return np.stack(resized)


def heatmaps_from(evidence: np.ndarray, size: int) -> np.ndarray:
    """Make heatmaps of what each feature-map cell contributes to a class.

    Args:
        evidence: float32 (n, height, width); below 0, it speaks against the class.
        size: Side of the scans (px).

    Returns:
        float32 (n, size, size), largest value 1; all 0 where nothing speaks for it.
    """
    heat = upsample(np.maximum(evidence, 0), size)
    largest = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.maximum(largest, 1e-9)
