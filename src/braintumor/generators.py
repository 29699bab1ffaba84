"""How scans reach the network: decoded once, augmented in one resampling, repeatable from (seed, epoch)."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy
import pandas

from .config import Settings, recipe_named

# the largest rotation in degrees, shift as a share of the width, zoom as a logarithm; mirrored left to right or not;
# the shares of scans that get another grey scale, blur, noise, or a patch of another scan
_GEOMETRIC = dict(rotation=25.0, shift=0.12, flip=True, zoom=0.3)
_STRONG = _GEOMETRIC | dict(grey=0.8, blur=0.3, noise=0.3)
AUGMENTATIONS = {
    "original": dict(rotation=20.0, shift=0.2, flip=True),
    "geometric": _GEOMETRIC,
    "strong": _STRONG,
    "transplant": _STRONG | dict(transplant=0.4),
}


def read_scan(path: Path) -> numpy.ndarray:
    """One scan as grey uint8 pixels (0-255), shape (height, width).

    Raises ValueError where the file cannot be decoded as an image.
    """
    pixels = cv2.imdecode(numpy.fromfile(path, numpy.uint8), cv2.IMREAD_GRAYSCALE) if path.stat().st_size else None
    if pixels is None:
        raise ValueError(f"'{'/'.join(path.parts[-3:])}' cannot be read as an image: replace it or remove it.")
    return pixels


def head_frame(image: numpy.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height (px) around the rows and columns with more than 2 % of bright pixels; else all."""
    low, high = numpy.percentile(image, (1, 99))
    bright = image > low + 0.1 * (high - low)
    rows, columns = (numpy.flatnonzero(bright.mean(axis=axis) > 0.02) for axis in (1, 0))
    if not (len(rows) and len(columns)):
        return 0, 0, image.shape[1], image.shape[0]
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def prepare(image: numpy.ndarray, size: int, preparation: str) -> tuple[numpy.ndarray, tuple]:
    """A grey uint8 scan as a square of ``size`` px, and where it lies: left, top (px of the file), scale in x and y.

    ``resize`` stretches the whole scan, as the original did. ``head`` crops to the head, spreads its grey levels
    between their 1st and 99th percentile over 0-255, and keeps the aspect with black borders.
    """
    height, width = image.shape
    left = top = 0
    side_x, side_y = width, height
    if preparation == "head":
        left, top, width, height = head_frame(image)
        image = image[top : top + height, left : left + width]
        low, high = numpy.percentile(image, (1, 99))
        image = numpy.uint8(numpy.clip((image - low) * (255 / max(high - low, 1)), 0, 255))
        side_x = side_y = max(width, height)
        x, y = (side_x - width) // 2, (side_y - height) // 2
        image = cv2.copyMakeBorder(image, y, side_y - height - y, x, side_x - width - x, cv2.BORDER_CONSTANT)
        left, top = left - x, top - y
    square = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return square, (left, top, size / side_x, size / side_y)


def load_images(table: pandas.DataFrame, root: Path, image_size: int, preparation: str = "resize"):
    """All scans as squares, in row order: uint8 (0-255), shape (scans, image_size, image_size), and their boxes.

    Boxes: float, shape (scans, 4): x, y, width, height of the tumour in pixels of the square, NaN where unknown.
    """

    def load(path):
        return prepare(read_scan(root / path), image_size, preparation)

    with ThreadPoolExecutor() as pool:
        images, frames = zip(*pool.map(load, table["path"]))
    left, top, *scale = numpy.array(frames).T
    boxes = table.reindex(columns=["box_x", "box_y", "box_w", "box_h"]).to_numpy(float, copy=True)
    boxes[:, :2] -= numpy.column_stack([left, top])
    return numpy.stack(images), boxes * numpy.column_stack(scale * 2)


def random_affine(generator: numpy.random.Generator, size: int, *, rotation: float, shift: float, flip: bool,
                  zoom: float = 0.0) -> numpy.ndarray:  # fmt: skip
    """A random 2 x 3 matrix that takes output pixels to input pixels: flip, rotation, zoom and shift in one step.

    ``rotation`` is the largest angle in degrees, ``shift`` the largest share of ``size`` in both directions,
    ``zoom`` the largest logarithm of the scale.
    """
    angle = math.radians(generator.uniform(-rotation, rotation))
    move = generator.uniform(-shift, shift, 2) * size
    mirror = -1.0 if flip and generator.random() < 0.5 else 1.0
    turn = numpy.array([[math.cos(angle) * mirror, -math.sin(angle)], [math.sin(angle) * mirror, math.cos(angle)]])
    if zoom:
        turn *= numpy.exp(generator.uniform(-zoom, zoom) + generator.uniform(-zoom / 3, zoom / 3, 2))  # and stretch
    centre = numpy.full(2, (size - 1) / 2)
    return numpy.column_stack([turn, centre - turn @ centre + move])


def random_grey_scale(generator: numpy.random.Generator) -> numpy.ndarray:
    """A lookup table, uint8 (256,): mostly gamma, contrast and brightness, else any curve, as between T1 and T2."""
    levels = numpy.linspace(0, 1, 256)
    if generator.random() < 0.3:
        curve = numpy.interp(levels, [0, 0.2, 0.45, 0.7, 1], [0, *generator.uniform(0.1, 1, 4)])
    else:
        contrast, brightness = generator.uniform([0.6, -0.15], [1.3, 0.15])
        curve = (levels ** math.exp(generator.uniform(-0.6, 0.6)) - 0.5) * contrast + 0.5 + brightness
    return numpy.uint8(255 * numpy.clip(curve, 0, 1))


def augment(image: numpy.ndarray, generator: numpy.random.Generator, *, grey=0.0, blur=0.0, noise=0.0, **motion):
    """One square uint8 image, randomly moved (see ``random_affine``), then its looks changed (see ``AUGMENTATIONS``).

    The edge is repeated, as the original did.
    """
    matrix = random_affine(generator, image.shape[0], **motion)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, matrix, image.shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if grey and generator.random() < grey:
        image = cv2.LUT(image, random_grey_scale(generator))
    if blur and generator.random() < blur:
        image = cv2.GaussianBlur(image, (0, 0), generator.uniform(0.3, 1.2))
    if noise and generator.random() < noise:
        noisy = image + generator.normal(0, generator.uniform(0, 20), image.shape)
        image = numpy.uint8(numpy.clip(noisy, 0, 255))
    return image


def transplant(image: numpy.ndarray, other: numpy.ndarray, box, generator: numpy.random.Generator) -> numpy.ndarray:
    """``image`` with a soft-edged ellipse around ``box`` (x, y, width, height in px) taken from ``other``."""
    x, y, *radii = box[0] + box[2] / 2, box[1] + box[3] / 2, *(box[2:] * generator.uniform(0.65, 0.9))
    down, right = numpy.indices(image.shape)
    share = numpy.clip((1.15 - numpy.hypot((right - x) / radii[0], (down - y) / radii[1])) / 0.25, 0, 1)
    return numpy.uint8(image + share * (other.astype(float) - image))


class ScanSequence(keras.utils.PyDataset):
    """Batches ``(images, one_hot)``: float32 in [0, 1], shape (batch, size, size, 1), and float32 (batch, classes).

    ``labels`` are class indices, shape (scans,); ``boxes`` as ``load_images`` gives them. With an ``augmentation``
    (see ``AUGMENTATIONS``) each epoch has its own order and its own augmentation, both fixed by (seed, epoch); with
    None, scans come as they are and in their order: that is how validation and test scans are judged.
    """

    def __init__(self, images, labels, boxes=None, *, classes, batch_size, augmentation, seed):
        super().__init__(workers=1, max_queue_size=4)
        self.images, self.labels, self.one_hot = images, numpy.asarray(labels), numpy.eye(classes, dtype="float32")
        self.batch_size, self.augmentation = batch_size, augmentation
        self.seed, self.epoch = seed, 0  # training sets the epoch
        self.boxes = numpy.full((len(images), 4), numpy.nan) if boxes is None else boxes
        boxed = ~numpy.isnan(self.boxes[:, 0])
        self.tumours = numpy.flatnonzero(boxed)
        self.healthy = numpy.flatnonzero(~numpy.isin(self.labels, self.labels[boxed])) if boxed.any() else []

    def __len__(self):
        return math.ceil(len(self.images) / self.batch_size)

    def __getitem__(self, index):
        rows = self._order()[index * self.batch_size : (index + 1) * self.batch_size]
        images, labels = self.images[rows], self.labels[rows]
        if self.augmentation is not None:
            generator = numpy.random.default_rng([self.seed, self.epoch, 1 + index])
            how = dict(self.augmentation)
            if share := how.pop("transplant", 0.0):
                images, labels = zip(*(self._transplanted(row, share, generator) for row in rows))
            images = numpy.stack([augment(image, generator, **how) for image in images])
        return images[..., None].astype("float32") / 255, self.one_hot[list(labels)]

    def _transplanted(self, row, share, generator):
        """A scan and its label; at times with a patch of another one, so that sources tell less than tumours.

        Most tumours come from one source, most scans without one from others (see the data card). A tumour that is
        pasted into a scan without one brings its label along; one that is hidden leaves a scan without a tumour
        (copy-paste: arXiv:2012.07177; patches of other scans: arXiv:1905.04899).
        """
        image, label = self.images[row], self.labels[row]
        if generator.random() >= share or not (len(self.tumours) and len(self.healthy)):
            return image, label
        if row in self.healthy:
            other = generator.choice(self.tumours)
            return transplant(image, self.images[other], self.boxes[other], generator), self.labels[other]
        if numpy.isnan(self.boxes[row, 0]):
            return image, label
        other = generator.choice(self.healthy)
        return transplant(image, self.images[other], self.boxes[row], generator), self.labels[other]

    def _order(self):
        rows = numpy.arange(len(self.images))
        if self.augmentation is None:
            return rows
        return numpy.random.default_rng([self.seed, self.epoch, 0]).permutation(rows)


def sequences(table: pandas.DataFrame, root: Path, settings: Settings) -> tuple[ScanSequence, ScanSequence]:
    """The train sequence, augmented as the recipe says, and the validation sequence, untouched, or None if empty."""
    augmentation = AUGMENTATIONS[recipe_named(settings.recipe)["augmentation"]]
    held_out = (table["subset"] == "validation").any()
    validation = subset_sequence(table, "validation", root, settings) if held_out else None
    return subset_sequence(table, "train", root, settings, augmentation), validation


def subset_sequence(table: pandas.DataFrame, subset: str, root: Path, settings: Settings, augmentation=None):
    """The scans of one subset, in row order, decoded and prepared as the recipe says."""
    labels, rows = sorted(table["label"].unique()), table[table["subset"] == subset]
    targets = rows["label"].map(labels.index).to_numpy()
    images, boxes = load_images(rows, root, settings.image_size, recipe_named(settings.recipe)["preparation"])
    return ScanSequence(images, targets, boxes, classes=len(labels), batch_size=settings.batch_size,
                        augmentation=augmentation, seed=settings.seed)  # fmt: skip
