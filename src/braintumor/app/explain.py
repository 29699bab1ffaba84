"""What does it look at? Grad-CAM from the head's closed form, and how well the heat meets the tumour."""

import cv2
import keras
import numpy
import pandas


def grad_cam(model: keras.Model, images: numpy.ndarray, classes: numpy.ndarray) -> numpy.ndarray:
    """Grad-CAM (arXiv:1610.02391) of one class index for each image: float32 (n, size, size), in [0, 1].

    ``images``: (n, size, size, 1) in [0, 1]. The gradient of a class logit by the pooled features has a closed form,
    dropout being off: that of Dense-ReLU-Dense. Heat is scaled to a maximum of 1; where no feature speaks for the
    class, it is all 0.
    """
    pooled, hidden, last = (model.get_layer(name) for name in ("pooled", "hidden", "probabilities"))
    watched = keras.Model(model.inputs, [pooled.input, hidden.output])
    parts = [watched([part], training=False) for part in numpy.array_split(images, -(-len(images) // 64))]
    features, activity = (numpy.concatenate([keras.ops.convert_to_numpy(x) for x in part]) for part in zip(*parts))
    features, activity = numpy.float32(features), numpy.float32(activity)
    first, second = (keras.ops.convert_to_numpy(layer.kernel).astype("float32") for layer in (hidden, last))
    weights = ((activity > 0) * second.T[classes]) @ first.T
    heat = numpy.maximum(numpy.einsum("nhwc,nc->nhw", features, weights), 0)
    heat = numpy.stack([cv2.resize(one, images.shape[2:0:-1], interpolation=cv2.INTER_LINEAR) for one in heat])
    return heat / numpy.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-9)


def localise(heat: numpy.ndarray, boxes: numpy.ndarray) -> pandas.DataFrame:
    """How heat (n, size, size) meets tumour boxes (n, 4: x, y, width, height in px), one row an image:

    ``hit``: the warmest pixel is in the box (the pointing game, arXiv:1608.00507); ``share`` of all heat in the box;
    ``iou``: intersection over union of the box and what has at least half of the largest heat. No heat: all three 0.
    """
    rows, columns = numpy.indices(heat.shape[1:]) + 0.5
    x, y, width, height = boxes.T[:, :, None, None]
    inside = (columns >= x) & (columns < x + width) & (rows >= y) & (rows < y + height)
    largest, total = heat.max(axis=(1, 2), keepdims=True), heat.sum(axis=(1, 2))
    warm = (heat >= largest / 2) & (largest > 0)
    peak = numpy.take_along_axis(inside.reshape(len(heat), -1), heat.reshape(len(heat), -1).argmax(1)[:, None], 1)
    share = (heat * inside).sum(axis=(1, 2)) / numpy.where(total > 0, total, 1)
    iou = (warm & inside).sum(axis=(1, 2)) / numpy.maximum((warm | inside).sum(axis=(1, 2)), 1)
    return pandas.DataFrame({"hit": (peak[:, 0] & (total > 0)).astype(float), "share": share, "iou": iou})
