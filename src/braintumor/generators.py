"""How do scans reach the network? Decoded once, augmented anew in every epoch."""

import functools
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from braintumor.config import Settings
from braintumor.dataset import BOX, class_names
from braintumor.images import Square, read_scan, to_square

import cv2
import keras
import numpy as np
import pandas as pd

# Ranges of random changes. rotation: degrees to either side. shift: share of the side.
# flip: whether half of the scans are mirrored. zoom: largest logarithm of the factor.
# gray, blur, noise: share of scans whose intensities change, that are blurred, noisy.
AS_REFERENCE_STUDY = {"rotation": 20.0, "shift": 0.2, "flip": True}
OTHER_INTENSITIES_AND_ZOOM = {
    "rotation": 25.0,
    "shift": 0.12,
    "flip": True,
    "zoom": 0.3,
    "gray": 0.5,
    "blur": 0.2,
    "noise": 0.2,
}
TEST_TIME = {"rotation": 10.0, "shift": 0.05, "flip": True}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "original": AS_REFERENCE_STUDY,
    "looks": OTHER_INTENSITIES_AND_ZOOM,
    "views": TEST_TIME,
}
# scans of a batch that share a random generator; another number draws other changes
SCANS_PER_GENERATOR = 32


class ImagesOnDisk:
    """Square images, uint8, kept in a temporary file instead of in memory.

    It is indexed like an array of shape (images, size, size).

    Args:
        images: Arrays of shape (size, size), uint8.
        size: Side of the images, in pixels.
    """

    def __init__(self, images: Iterable[np.ndarray], size: int):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        for image in images:
            self.file.write(image.tobytes())
        self.file.flush()
        count = self.file.tell() // size**2
        self.shape = (count, size, size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        # mapped anew each time, because what stays mapped counts as used memory
        mapped = np.memmap(self.file, "uint8", "r", shape=self.shape)
        return np.array(mapped[rows])


def load_images(
    table: pd.DataFrame, root: Path, image_size: int, frame: str = "scan"
) -> tuple[ImagesOnDisk, np.ndarray]:
    """Decode all scans of a table, in the order of its rows.

    Args:
        table: A ``dataset.scan_table``.
        root: The data folder.
        image_size: Side of the squares, in pixels.
        frame: ``scan``, or ``head`` for a crop to the head, see ``images.to_square``.

    Returns:
        The squares, uint8 (0 to 255), and their tumor boxes, float, shape (scans, 4):
        x, y, width and height in pixels of the square, NaN where unknown.

    Raises:
        ValueError: A file cannot be read, or has changed since it was listed.
    """
    boxes = table.reindex(columns=BOX).to_numpy(float)
    checksums = table.get("sha256", [None] * len(table))
    boxes_in_squares = []

    def load(path: str, sha256: str | None) -> Square:
        return to_square(read_scan(root / path, sha256), image_size, frame)

    def pixels_of(squares: Iterable[Square]) -> Iterator[np.ndarray]:
        # one by one, as all squares together may not fit into memory
        for box, square in zip(boxes, squares, strict=True):
            boxes_in_squares.append(_box_in_square(box, square))
            yield square.pixels

    with ThreadPoolExecutor() as pool:
        squares = pool.map(load, table["path"], checksums)
        images = ImagesOnDisk(pixels_of(squares), image_size)
    return images, np.reshape(boxes_in_squares, boxes.shape)


def _box_in_square(box: np.ndarray, square: Square) -> np.ndarray:
    """A box (x, y, width, height), from pixels of the scan to pixels of the square."""
    x_and_y = (box[:2] - square.corner) * square.scale
    width_and_height = box[2:] * square.scale
    return np.concatenate([x_and_y, width_and_height])


def random_affine(
    generator: np.random.Generator,
    size: int,
    *,
    rotation: float,
    shift: float,
    flip: bool,
    zoom: float = 0.0,
) -> np.ndarray:
    """Draw a random rotation, shift, mirror image and zoom.

    Args:
        generator: The source of randomness.
        size: Side of the image, in pixels.
        rotation: Degrees to either side.
        shift: Share of the side.
        flip: Whether half of the images are mirrored.
        zoom: Largest logarithm of the factor.

    Returns:
        A matrix of shape (2, 3) from output to input pixels.
    """
    angle = math.radians(generator.uniform(-rotation, rotation))
    offset = generator.uniform(-shift, shift, 2) * size
    mirrored = flip and generator.random() < 0.5
    mirror = -1.0 if mirrored else 1.0
    cosine = math.cos(angle)
    sine = math.sin(angle)
    linear = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
    if zoom:
        # both axes together, and each by up to a third of that by itself
        together = generator.uniform(-zoom, zoom)
        stretch = generator.uniform(-zoom / 3, zoom / 3, 2)
        linear *= np.exp(together + stretch)
    center = np.full(2, (size - 1) / 2)
    translation = center - linear @ center + offset
    return np.column_stack([linear, translation])


def random_intensity_curve(generator: np.random.Generator) -> np.ndarray:
    """Draw a random mapping of intensities.

    Mostly gamma, contrast and brightness change; else it is any curve, as between the
    sequences T1 and T2.

    Args:
        generator: The source of randomness.

    Returns:
        A lookup table, uint8, shape (256,).
    """
    levels = np.linspace(0, 1, 256)
    if generator.random() < 0.3:
        heights = [0, *generator.uniform(0.1, 1, 4)]
        curve = np.interp(levels, [0, 0.2, 0.45, 0.7, 1], heights)
    else:
        contrast, brightness = generator.uniform([0.6, -0.15], [1.3, 0.15])
        gamma = math.exp(generator.uniform(-0.6, 0.6))
        curve = (levels**gamma - 0.5) * contrast + 0.5 + brightness
    scaled = 255 * np.clip(curve, 0, 1)
    return scaled.astype("uint8")


class RandomChange:
    """A random change of one scan, drawn once and applied later.

    Drawing is cheap, so each process can draw the changes of a whole batch and apply
    those of its own scans.

    Args:
        generator: The source of randomness.
        size: Side of the image, in pixels.
        gray, blur, noise: Shares of changed scans, see ``AUGMENTATIONS``.
        **motion: Ranges of ``random_affine``.
    """

    def __init__(
        self,
        generator: np.random.Generator,
        size: int,
        *,
        gray: float = 0.0,
        blur: float = 0.0,
        noise: float = 0.0,
        **motion: Any,
    ):
        self.matrix = random_affine(generator, size, **motion)
        self.curve = None
        if gray and generator.random() < gray:
            self.curve = random_intensity_curve(generator)
        self.blur_sigma = None
        if blur and generator.random() < blur:
            self.blur_sigma = generator.uniform(0.002, 0.01) * size
        self.noise = None
        if noise and generator.random() < noise:
            deviation = generator.uniform(0, 12)
            self.noise = generator.normal(0, deviation, (size, size))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Change one image.

        Args:
            image: A square, uint8, shape (size, size).

        Returns:
            The changed image, of the same shape and dtype. Where the scan ends, its
            edge is repeated, as in the reference study.
        """
        changed = cv2.warpAffine(
            image,
            self.matrix,
            image.shape,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if self.curve is not None:
            changed = cv2.LUT(changed, self.curve)
        if self.blur_sigma is not None:
            changed = cv2.GaussianBlur(changed, (0, 0), self.blur_sigma)
        if self.noise is not None:
            noisy = np.clip(changed + self.noise, 0, 255)
            changed = noisy.astype("uint8")
        return changed


def augment(
    image: np.ndarray, generator: np.random.Generator, **ranges: Any
) -> np.ndarray:
    """Change one image at random.

    Args:
        image: A square, uint8, shape (size, size).
        generator: The source of randomness.
        **ranges: An entry of ``AUGMENTATIONS``.

    Returns:
        The changed image, of the same shape and dtype.
    """
    return RandomChange(generator, len(image), **ranges).apply(image)


@functools.lru_cache(maxsize=2)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Draw the order of scans in an epoch, once for all its batches.

    Args:
        count: How many scans there are.
        seed: Of the run.
        epoch: Counted from 0.

    Returns:
        The positions of the scans, shape (count,).
    """
    return np.random.default_rng([seed, epoch, 0]).permutation(np.arange(count))


class ScanSequence(keras.utils.PyDataset):
    """Batches of scans for ``fit`` and ``predict``.

    A batch is ``(images, one_hot)``: float32 in [0, 1], shape (batch, size, size, 1),
    and float32, shape (batch, classes). The order of scans and their augmentation are
    fixed by the seed and the epoch, so that a run can be stopped and continued.

    Args:
        images: Squares, uint8, shape (scans, size, size): an array or
            ``ImagesOnDisk``.
        labels: The class index of each scan, shape (scans,).
        classes: How many classes there are.
        batch_size: Scans in a batch.
        augmentation: An entry of ``AUGMENTATIONS``. None: scans come unchanged and in
            the order of ``images``.
        seed: Of the run.
        label_smoothing: Weight of the uniform distribution in ``one_hot``
            (arXiv:1512.00567).
        class_weights: Whether ``class_weight`` makes all classes count alike in the
            loss.

    Attributes:
        epoch: Counted from 0; whoever trains sets it.
        target_of_class: The target of each class, one-hot and smoothed: float32, shape
            (classes, classes).
        class_weight: What ``fit`` takes: a factor for each class, or None.
    """

    def __init__(
        self,
        images: np.ndarray | ImagesOnDisk,
        labels: np.ndarray,
        *,
        classes: int,
        batch_size: int,
        augmentation: dict[str, Any] | None,
        seed: int,
        label_smoothing: float = 0.0,
        class_weights: bool = False,
    ):
        # with several workers Keras turns off TensorFlow's tuning of the pipeline,
        # which can wait for seconds
        workers = max(2, (os.cpu_count() or 1) // 2)
        super().__init__(workers=workers, max_queue_size=2 * workers)
        self.images = images
        self.labels = np.asarray(labels)
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0

        one_hot = np.eye(classes, dtype="float32")
        one_hot += label_smoothing * (1 / classes - one_hot)
        self.target_of_class = one_hot
        self.class_weight = None
        if class_weights:
            scans_per_class = np.bincount(self.labels, minlength=classes).clip(1)
            weights = len(images) / classes / scans_per_class
            self.class_weight = dict(enumerate(weights))

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def order(self) -> np.ndarray:
        """The positions of the scans in the order of this epoch."""
        if self.augmentation is None:
            return np.arange(len(self.images))
        return epoch_order(len(self.images), self.seed, self.epoch)

    def positions_in_batch(self, batch_length: int) -> np.ndarray:
        """Choose the scans of a batch that this object makes: here, all of them.

        ``support.cluster.SharedScanSequence`` makes those of its process alone.

        Args:
            batch_length: How many scans the batch has.

        Returns:
            Their positions in the batch.
        """
        return np.arange(batch_length)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        start = index * self.batch_size
        batch = self.order()[start : start + self.batch_size]
        positions = self.positions_in_batch(len(batch))
        rows = batch[positions]
        images = self.images[rows]
        if self.augmentation is not None:
            changes = self._draw_changes(
                index, len(batch), positions, self.augmentation
            )
            changed = []
            for position, image in zip(positions, images, strict=True):
                changed.append(changes[position].apply(image))
            images = np.stack(changed)
        scaled = np.divide(images[..., None], 255, dtype="float32")
        targets = self.target_of_class[self.labels[rows]]
        return scaled, targets

    def _draw_changes(
        self,
        index: int,
        batch_length: int,
        positions: np.ndarray,
        ranges: dict[str, Any],
    ) -> dict[int, RandomChange]:
        """Draw the changes of one batch, by position in the batch.

        Each block of scans has a generator of its own, so that other scans of the batch
        need not be drawn, yet every scan gets what it would get if all were made here.
        """
        size = self.images.shape[1]
        changes: dict[int, RandomChange] = {}
        for block in np.unique(positions // SCANS_PER_GENERATOR):
            seeds = [self.seed, self.epoch, 1 + index, block]
            generator = np.random.default_rng(seeds)
            first = block * SCANS_PER_GENERATOR
            last = min(first + SCANS_PER_GENERATOR, batch_length)
            for position in range(first, last):
                changes[position] = RandomChange(generator, size, **ranges)
        return changes


def subset_sequence(
    table: pd.DataFrame,
    subset: str | list[str],
    root: Path,
    settings: Settings,
    augmentation: dict[str, Any] | None = None,
    sequence_class: Callable[..., ScanSequence] = ScanSequence,
    **options: Any,
) -> ScanSequence:
    """Decode the scans of a subset and make batches of them.

    Args:
        table: Scans with their subsets; the labels of all of them are the classes.
        subset: A subset, or a list of them.
        root: The data folder.
        settings: Of the run; the recipe decides between the scan and its head crop.
        augmentation: An entry of ``AUGMENTATIONS``. None: scans come unchanged and in
            the order of the table.
        sequence_class: ``ScanSequence`` or a subclass.
        **options: More arguments of ``sequence_class``.

    Returns:
        The batches.

    Raises:
        ValueError: A file cannot be read, or has changed since it was listed.
    """
    labels = class_names(table)
    scans = table[np.isin(table["subset"], subset)]
    class_indices = scans["label"].map(labels.index).to_numpy()
    frame = settings.parsed_recipe.frame
    images, _ = load_images(scans, root, settings.image_size, frame)
    return sequence_class(
        images,
        class_indices,
        classes=len(labels),
        batch_size=settings.batch_size,
        augmentation=augmentation,
        seed=settings.seed,
        **options,
    )


def sequences(
    table: pd.DataFrame,
    root: Path,
    settings: Settings,
    sequence_class: Callable[..., ScanSequence] = ScanSequence,
) -> tuple[ScanSequence, ScanSequence | None]:
    """Make the batches of a training.

    Args:
        table: Scans with their subsets.
        root: The data folder.
        settings: Of the run; the recipe decides on augmentation and targets.
        sequence_class: ``ScanSequence`` or a subclass.

    Returns:
        The training scans, augmented, and the validation scans, unchanged; None where
        no scan is held out.

    Raises:
        ValueError: A file cannot be read, or has changed since it was listed.
    """
    validation_scans = None
    is_held_out = table["subset"] == "validation"
    if is_held_out.any():
        validation_scans = subset_sequence(
            table, "validation", root, settings, sequence_class=sequence_class
        )
    recipe = settings.parsed_recipe
    train_scans = subset_sequence(
        table,
        "train",
        root,
        settings,
        AUGMENTATIONS[recipe.augmentation],
        sequence_class,
        label_smoothing=recipe.label_smoothing,
        class_weights=recipe.class_weights,
    )
    return train_scans, validation_scans
