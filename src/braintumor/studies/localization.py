"""What does it look at? Grad-CAM from the head's closed form, and how well the heat meets the tumour."""

from braintumor.app.heatmaps import heatmaps_from, upsample

import cv2
import keras
import numpy as np
import pandas as pd


def grad_cam(model: keras.Model, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Grad-CAM (arXiv:1610.02391) of one class index for each image: float32 (n, size, size), in [0, 1].

    ``images``: (n, size, size, 1) in [0, 1]. The gradient of a class logit by the pooled features has a closed form,
    dropout being off: that of Dense-ReLU-Dense. Heat is scaled to a maximum of 1; where no feature speaks for the
    class, it is all 0.
    """
    pooled, hidden, last = (
        model.get_layer(name) for name in ("pooled", "hidden", "probabilities")
    )
    watched = keras.Model(model.inputs, [pooled.input, hidden.output])
    parts = [
        watched([part], training=False)
        for part in np.array_split(images, -(-len(images) // 64))
    ]
    features, activity = (
        np.concatenate([keras.ops.convert_to_numpy(x) for x in part])
        for part in zip(*parts)
    )
    features, activity = np.float32(features), np.float32(activity)
    first, second = (
        keras.ops.convert_to_numpy(layer.kernel).astype("float32")
        for layer in (hidden, last)
    )
    weights = ((activity > 0) * second.T[classes]) @ first.T
    evidence = np.einsum("nhwc,nc->nhw", features, weights)
    return heatmaps_from(evidence, images.shape[1])


def on_fields(maps: np.ndarray, fields: int) -> np.ndarray:
    """Maps (n, size, size) as a heat map of ``fields`` x ``fields`` values could show them at best: float32.

    Such a map has its warmest pixels in the middle of a field, or at the border, and can miss what lies between.
    """
    means = [
        cv2.resize(np.float32(one), (fields, fields), interpolation=cv2.INTER_AREA)
        for one in maps
    ]
    return upsample(means, len(maps[0]))


def in_boxes(boxes: np.ndarray, size: int) -> np.ndarray:
    """Which pixels have their centre in the box (n, 4: x, y, width, height in px): bool (n, size, size)."""
    rows, columns = np.indices((size, size)) + 0.5
    x, y, width, height = boxes.T[:, :, None, None]
    return (columns >= x) & (columns < x + width) & (rows >= y) & (rows < y + height)


def localise(heat: np.ndarray, boxes: np.ndarray) -> pd.DataFrame:
    """How heat (n, size, size) meets tumour boxes (n, 4: x, y, width, height in px), one row an image:

    ``hit``: the warmest pixel is in the box (the pointing game, arXiv:1608.00507), or the share of them that is where
    several are equally warm; ``share`` of all heat in the box; ``iou``: intersection over union of the box and what has
    at least half of the largest heat. No heat: all three 0.
    """
    inside, largest, total = (
        in_boxes(boxes, len(heat[0])),
        heat.max(axis=(1, 2), keepdims=True),
        heat.sum(axis=(1, 2)),
    )
    warm, warmest = (
        (heat >= largest * part) & (largest > 0) for part in (0.5, 1 - 1e-6)
    )
    hit = (warmest & inside).sum(axis=(1, 2)) / np.maximum(warmest.sum(axis=(1, 2)), 1)
    share = (heat * inside).sum(axis=(1, 2)) / np.where(total > 0, total, 1)
    iou = (warm & inside).sum(axis=(1, 2)) / np.maximum(
        (warm | inside).sum(axis=(1, 2)), 1
    )
    return pd.DataFrame({"hit": hit, "share": share, "iou": iou})
