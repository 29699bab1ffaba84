"""How scans reach the network: decoded once, augmented in one resampling, repeatable from (seed, epoch)."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy
import pandas

from .config import Settings

# the original's augmentation: degrees, share of the width or height, mirrored left to right or not
AUGMENTATION = {"rotation": 20.0, "shift": 0.2, "flip": True}


def read_scan(path: Path) -> numpy.ndarray:
    """One scan as grey uint8 pixels (0-255), shape (height, width); raises ValueError for a file that is no image."""
    pixels = cv2.imdecode(numpy.fromfile(path, numpy.uint8), cv2.IMREAD_GRAYSCALE) if path.stat().st_size else None
    if pixels is None:
        raise ValueError(f"'{'/'.join(path.parts[-3:])}' cannot be read as an image: replace it or remove it.")
    return pixels


def load_images(table: pandas.DataFrame, root: Path, image_size: int) -> numpy.ndarray:
    """All scans of the table as squares: uint8 (0-255), shape (scans, image_size, image_size), in row order."""

    def load(path):
        return cv2.resize(read_scan(root / path), (image_size, image_size), interpolation=cv2.INTER_AREA)

    with ThreadPoolExecutor() as pool:
        return numpy.stack(list(pool.map(load, table["path"])))


def random_affine(generator: numpy.random.Generator, size: int, *, rotation: float, shift: float, flip: bool):
    """A random 2 x 3 matrix from output to input pixels; largest rotation in degrees, shift as a share of ``size``."""
    angle = math.radians(generator.uniform(-rotation, rotation))
    move = generator.uniform(-shift, shift, 2) * size
    mirror = -1.0 if flip and generator.random() < 0.5 else 1.0
    turn = numpy.array([[math.cos(angle) * mirror, -math.sin(angle)], [math.sin(angle) * mirror, math.cos(angle)]])
    centre = numpy.full(2, (size - 1) / 2)
    return numpy.column_stack([turn, centre - turn @ centre + move])


def augment(image: numpy.ndarray, generator: numpy.random.Generator, *, rotation: float, shift: float, flip: bool):
    """One square uint8 image, randomly flipped, rotated and shifted; the edge is repeated, as the original did."""
    matrix = random_affine(generator, image.shape[0], rotation=rotation, shift=shift, flip=flip)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, image.shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)


class ScanSequence(keras.utils.PyDataset):
    """Batches ``(images, one_hot)``: float32 in [0, 1], shape (batch, size, size, 1), and float32 (batch, classes).

    ``labels`` are class indices, shape (scans,). With an ``augmentation`` (see ``AUGMENTATION``) each epoch
    has its own order and its own augmentation, both fixed by (seed, epoch); with None, scans come as they
    are and in their order: that is how validation and test scans are judged.
    """

    def __init__(self, images, labels, *, classes, batch_size, augmentation, seed):
        super().__init__(workers=1, max_queue_size=4)
        self.images, self.labels, self.one_hot = images, numpy.asarray(labels), numpy.eye(classes, dtype="float32")
        self.batch_size, self.augmentation = batch_size, augmentation
        self.seed, self.epoch = seed, 0  # training sets the epoch

    def __len__(self):
        return math.ceil(len(self.images) / self.batch_size)

    def __getitem__(self, index):
        rows = numpy.arange(len(self.images))
        if self.augmentation is not None:
            rows = numpy.random.default_rng([self.seed, self.epoch, 0]).permutation(rows)
        rows = rows[index * self.batch_size : (index + 1) * self.batch_size]
        images = self.images[rows]
        if self.augmentation is not None:
            generator = numpy.random.default_rng([self.seed, self.epoch, 1 + index])
            images = numpy.stack([augment(image, generator, **self.augmentation) for image in images])
        return images[..., None].astype("float32") / 255, self.one_hot[self.labels[rows]]


def sequences(table: pandas.DataFrame, root: Path, settings: Settings) -> tuple[ScanSequence, ScanSequence]:
    """The train sequence, augmented, and the validation sequence, untouched; None where nothing is held out."""
    held_out = (table["subset"] == "validation").any()
    validation = subset_sequence(table, "validation", root, settings) if held_out else None
    return subset_sequence(table, "train", root, settings, AUGMENTATION), validation


def subset_sequence(table: pandas.DataFrame, subset: str, root: Path, settings: Settings, augmentation=None):
    """The scans of one subset, in row order, decoded."""
    labels, rows = sorted(table["label"].unique()), table[table["subset"] == subset]
    targets, images = rows["label"].map(labels.index).to_numpy(), load_images(rows, root, settings.image_size)
    return ScanSequence(images, targets, classes=len(labels), batch_size=settings.batch_size,
                        augmentation=augmentation, seed=settings.seed)  # fmt: skip
