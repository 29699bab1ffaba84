"""Can the scans be trusted? Copies, near-duplicates, and a shortcut baseline."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from braintumor.images import head_frame, read_scan

import cv2
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.ensemble import HistGradientBoostingClassifier

# what can be measured of a scan without seeing the brain in it, see ``ScanDescription``
FEATURES = ["width", "height", "bytes", "mean_intensity", "contrast", "border"]
# Perceptual hashes of near-duplicates differ in at most so many of 256 bits.
NEAR = 24


@dataclass(frozen=True)
class ScanDescription:
    """What is measured of one scan.

    Attributes:
        pixels: sha256 of its size and its intensities.
        perceptual_hash: 256 bits (bool), see ``perceptual_hash``.
        width: In px.
        height: In px.
        bytes: Size of the file.
        mean_intensity: Of all pixels, 0 to 255.
        contrast: Standard deviation of the intensities.
        border: Share of the area outside the frame around the head.
    """

    pixels: str
    perceptual_hash: np.ndarray
    width: int
    height: int
    bytes: int
    mean_intensity: float
    contrast: float
    border: float


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """Reduce a scan to bits that resizing and compression hardly change (Zauner 2010).

    Args:
        image: Gray uint8 pixels (height, width).

    Returns:
        bool (256,): which of the 16 x 16 lowest frequencies, at 64 px, exceed their
        median.
    """
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype("float32"))
    lowest = frequencies[:16, :16]
    return (lowest > np.median(lowest)).ravel()


def describe_scan(file: Path) -> ScanDescription:
    """Read and measure one scan.

    Args:
        file: An image file.

    Returns:
        Its measurements.

    Raises:
        ValueError: It cannot be read.
    """
    image = read_scan(file)
    height, width = image.shape
    _, _, head_width, head_height = head_frame(image)
    size_and_pixels = str(image.shape).encode() + image.tobytes()
    return ScanDescription(
        pixels=hashlib.sha256(size_and_pixels).hexdigest(),
        perceptual_hash=perceptual_hash(image),
        width=width,
        height=height,
        bytes=file.stat().st_size,
        mean_intensity=image.mean(),
        contrast=image.std(),
        border=1 - head_width * head_height / image.size,
    )


def describe_scans(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Measure all scans.

    Args:
        table: The scan table.
        root: The folder that its paths start from.

    Returns:
        The table with a column for each attribute of ``ScanDescription``.

    Raises:
        ValueError: A scan cannot be read; names it.
    """
    files = [root / path for path in table["path"]]
    with ThreadPoolExecutor() as pool:
        descriptions = list(pool.map(describe_scan, files))
    return table.join(pd.DataFrame(descriptions, index=table.index))


def nearest_in_training(scans: pd.DataFrame) -> pd.Series:
    """Compare each scan of the folder Testing with the most similar one in Training.

    Args:
        scans: The table of ``describe_scans``.

    Returns:
        For each scan in Testing, in how many of 256 bits the perceptual hashes differ.
    """
    hashes = np.stack(scans["perceptual_hash"].to_list())
    testing = (scans["split"] == "testing").to_numpy()
    differing_bits = cdist(hashes[testing], hashes[~testing], "cityblock")
    least = differing_bits.min(axis=1).astype(int)
    return pd.Series(least, scans.index[testing], name="bits")


def shortcut_baseline(scans: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Classify scans by the six image-level ``FEATURES`` alone, with gradient boosting.

    What this reaches, a network can reach without looking at the brain.

    Args:
        scans: The table of ``describe_scans`` with the column ``subset``.
        seed: Of the classifier.

    Returns:
        The scans of ``validation`` and ``test`` with the columns ``p_<label>`` and
        ``predicted``, as ``runs.predict`` adds them.
    """
    training_scans = scans[scans["subset"] == "train"]
    evaluation_scans = scans[scans["subset"].isin(["validation", "test"])]
    baseline = HistGradientBoostingClassifier(random_state=seed, early_stopping=False)
    baseline.fit(training_scans[FEATURES], training_scans["label"])

    features = evaluation_scans[FEATURES]
    probabilities = pd.DataFrame(
        baseline.predict_proba(features),
        index=evaluation_scans.index,
        columns=[f"p_{label}" for label in baseline.classes_],
    )
    predicted = baseline.predict(features)
    return evaluation_scans.join(probabilities).assign(predicted=predicted)
