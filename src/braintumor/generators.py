"""How scans reach the network: decoded once into a file, augmented in one resampling, repeatable from (seed, epoch)."""

import functools
import math
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from braintumor.config import Settings, recipe_named
from braintumor.dataset import BOX
from braintumor.images import read_scan, to_square
from braintumor.support.cluster import ALONE

import cv2
import keras
import numpy as np
import pandas as pd

# degrees, share of the side, mirrored or not, largest logarithm of the zoom; shares of scans that get other looks
AUGMENTATIONS = {
    "original": {"rotation": 20.0, "shift": 0.2, "flip": True},
    "looks": {
        "rotation": 25.0,
        "shift": 0.12,
        "flip": True,
        "zoom": 0.3,
        "grey": 0.5,
        "blur": 0.2,
        "noise": 0.2,
    },
    "views": {
        "rotation": 10.0,
        "shift": 0.05,
        "flip": True,
    },  # of a scan that is judged
}
BLOCK = 32  # scans of a batch whose changes come from one random generator: another number, other changes


class ImageFile:
    """Square images, uint8, in a nameless file: indexed as an array (images, size, size), but not kept in memory."""

    def __init__(self, images: Iterable, size: int):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.file.writelines(image.tobytes() for image in images)
        self.file.flush()
        self.shape = (self.file.tell() // size**2, size, size)

    def __len__(self):
        return self.shape[0]

    def __getitem__(
        self, rows
    ):  # mapped anew each time: what stays mapped counts as memory
        return np.array(np.memmap(self.file, "uint8", "r", shape=self.shape)[rows])


def load_images(table: pd.DataFrame, root: Path, image_size: int, frame: str = "scan"):
    """All scans or their heads (``head_square``), in row order, as an ``ImageFile`` (0-255), and their boxes.

    Boxes: float, shape (scans, 4): x, y, width, height of the tumour in pixels of the square, NaN where unknown.
    """

    def load(path, sha256, box):
        image, corner, scale = to_square(
            read_scan(root / path, sha256), image_size, frame
        )
        box[:2] -= corner
        box *= scale * 2
        return image

    boxes = table.reindex(columns=BOX).to_numpy(float, copy=True)
    listed = table.get("sha256", [None] * len(table))
    with ThreadPoolExecutor() as pool:
        return ImageFile(
            pool.map(load, table["path"], listed, boxes), image_size
        ), boxes


def random_affine(
    generator: np.random.Generator,
    size: int,
    *,
    rotation: float,
    shift: float,
    flip: bool,
    zoom=0.0,
):
    """A random 2 x 3 matrix from output to input pixels; for the ranges see ``AUGMENTATIONS``."""
    angle = math.radians(generator.uniform(-rotation, rotation))
    move = generator.uniform(-shift, shift, 2) * size
    mirror = -1.0 if flip and generator.random() < 0.5 else 1.0
    turn = np.array(
        [
            [math.cos(angle) * mirror, -math.sin(angle)],
            [math.sin(angle) * mirror, math.cos(angle)],
        ]
    )
    if zoom:  # and stretch, by up to a third of it
        turn *= np.exp(
            generator.uniform(-zoom, zoom) + generator.uniform(-zoom / 3, zoom / 3, 2)
        )
    centre = np.full(2, (size - 1) / 2)
    return np.column_stack([turn, centre - turn @ centre + move])


def random_grey_scale(generator: np.random.Generator) -> np.ndarray:
    """A lookup table, uint8 (256,): mostly gamma, contrast and brightness, else any curve, as between T1 and T2."""
    levels = np.linspace(0, 1, 256)
    if generator.random() < 0.3:
        curve = np.interp(
            levels, [0, 0.2, 0.45, 0.7, 1], [0, *generator.uniform(0.1, 1, 4)]
        )
    else:
        contrast, brightness = generator.uniform([0.6, -0.15], [1.3, 0.15])
        curve = (
            (levels ** math.exp(generator.uniform(-0.6, 0.6)) - 0.5) * contrast
            + 0.5
            + brightness
        )
    return np.uint8(255 * np.clip(curve, 0, 1))


def draw_change(
    generator: np.random.Generator,
    size: int,
    *,
    grey=0.0,
    blur=0.0,
    noise=0.0,
    **motion,
) -> tuple:
    """What ``change`` shall do to one square scan: see ``random_affine``; then its looks, None for what stays."""
    matrix = random_affine(generator, size, **motion)
    levels = (
        random_grey_scale(generator) if grey and generator.random() < grey else None
    )
    sigma = (
        generator.uniform(0.002, 0.01) * size
        if blur and generator.random() < blur
        else None
    )
    grain = None
    if noise and generator.random() < noise:
        grain = generator.normal(0, generator.uniform(0, 12), (size, size))
    return matrix, levels, sigma, grain


def change(image: np.ndarray, matrix, levels, sigma, grain) -> np.ndarray:
    """One square uint8 image, moved, the edge repeated as by the original, its greys mapped, blurred and grained."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(
        image, matrix, image.shape, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    image = image if levels is None else cv2.LUT(image, levels)
    image = image if sigma is None else cv2.GaussianBlur(image, (0, 0), sigma)
    return image if grain is None else np.clip(image + grain, 0, 255).astype("uint8")


def augment(image: np.ndarray, generator: np.random.Generator, **how) -> np.ndarray:
    """One square uint8 image at random, see ``AUGMENTATIONS``."""
    return change(image, *draw_change(generator, len(image), **how))


@functools.lru_cache(maxsize=2)
def epoch_order(count: int, seeds: tuple | None) -> np.ndarray:
    """The rows of so many scans in the order of an epoch, drawn once for all its batches; None: as they are."""
    rows = np.arange(count)
    return (
        rows if seeds is None else np.random.default_rng([*seeds, 0]).permutation(rows)
    )


class ScanSequence(keras.utils.PyDataset):
    """Batches ``(images, one_hot)``: float32 in [0, 1], shape (batch, size, size, 1), and float32 (batch, classes).

    ``labels`` are class indices, shape (scans,). With an ``augmentation`` (see ``AUGMENTATIONS``) each epoch has an
    order and an augmentation of its own, both fixed by (seed, epoch); with None, scans come as they are and in order.
    Of each batch only the ``share`` of this process is read and made; ``batch_size`` is that of all processes together.
    For training, rows of ``one_hot`` may be mixed with ``label_smoothing`` parts of a uniform one (arXiv:1512.00567),
    and with ``class_weights`` a scan shall count in the loss as ``class_weight`` says, so that all classes count alike.
    """

    def __init__(
        self,
        images,
        labels,
        *,
        classes,
        batch_size,
        augmentation,
        seed,
        share=ALONE,
        label_smoothing=0.0,
        class_weights=False,
    ):
        if batch_size % share.devices:
            raise ValueError(
                f"{share.devices} devices cannot share {batch_size} scans: set batch_size to a multiple."
            )
        if 0 < len(images) < share.devices:
            raise ValueError(
                f"{share.devices} devices cannot share {len(images)} scans of a subset: start fewer."
            )
        # with more than one worker Keras turns off TensorFlow's tuning of the pipeline, which can wait for seconds
        workers = max(2, os.cpu_count() // 2)
        super().__init__(workers=workers, max_queue_size=2 * workers)
        self.images, self.labels, self.one_hot = (
            images,
            np.asarray(labels),
            np.eye(classes, dtype="float32"),
        )
        self.one_hot += label_smoothing * (1 / classes - self.one_hot)
        scans = np.bincount(self.labels, minlength=classes).clip(1)
        self.class_weight = (
            dict(enumerate(len(images) / classes / scans)) if class_weights else None
        )
        self.batch_size, self.augmentation, self.share = batch_size, augmentation, share
        self.seed, self.epoch = seed, 0  # training sets the epoch

    def __len__(self):
        full, left = divmod(len(self.images), self.batch_size)
        return full + (left >= self.share.devices)

    def order(self) -> np.ndarray:
        """The rows of the scans in the order of this epoch."""
        return epoch_order(
            len(self.images),
            None if self.augmentation is None else (self.seed, self.epoch),
        )

    def __getitem__(self, index):
        rows = self.order()[index * self.batch_size : (index + 1) * self.batch_size]
        mine = self.share.of(np.arange(len(rows)))
        images = self.images[rows[mine]]
        if self.augmentation is not None:
            drawn, size = {}, images.shape[1]
            # a block is drawn as a whole, but of it only this process's share is computed
            for block in np.unique(mine // BLOCK):
                generator = np.random.default_rng(
                    [self.seed, self.epoch, 1 + index, block]
                )
                block_rows = range(block * BLOCK, min((block + 1) * BLOCK, len(rows)))
                drawn |= {
                    row: draw_change(generator, size, **self.augmentation)
                    for row in block_rows
                }
            images = np.stack(
                [change(image, *drawn[row]) for image, row in zip(images, mine)]
            )
        return np.divide(images[..., None], 255, dtype="float32"), self.one_hot[
            self.labels[rows[mine]]
        ]


def sequences(
    table: pd.DataFrame, root: Path, settings: Settings, share=ALONE
) -> tuple:
    """The train ``ScanSequence``, augmented as the recipe says, and that of validation, untouched; None if empty."""
    recipe, held_out = (
        recipe_named(settings.recipe),
        (table["subset"] == "validation").any(),
    )
    validation = (
        subset_sequence(table, "validation", root, settings, share=share)
        if held_out
        else None
    )
    how = dict(augmentation=AUGMENTATIONS[recipe["augmentation"]], share=share)
    how |= {name: recipe[name] for name in ("label_smoothing", "class_weights")}
    return subset_sequence(table, "train", root, settings, **how), validation


def subset_sequence(
    table: pd.DataFrame,
    subset,
    root: Path,
    settings: Settings,
    augmentation=None,
    **how,
):
    """The scans of one subset, or of a list of them, in row order, decoded and prepared as the recipe says."""
    labels, rows = (
        sorted(table["label"].unique()),
        table[np.isin(table["subset"], subset)],
    )
    targets, frame = (
        rows["label"].map(labels.index).to_numpy(),
        recipe_named(settings.recipe)["frame"],
    )
    images, _ = load_images(rows, root, settings.image_size, frame)
    return ScanSequence(
        images,
        targets,
        classes=len(labels),
        batch_size=settings.batch_size,
        augmentation=augmentation,
        seed=settings.seed,
        **how,
    )
