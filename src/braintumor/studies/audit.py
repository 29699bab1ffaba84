"""Can the scans be trusted? Copies, look-alikes, and what can be told from a scan without seeing the brain in it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from braintumor.images import head_frame, read_scan

import cv2
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.ensemble import HistGradientBoostingClassifier

FEATURES = [
    "width",
    "height",
    "bytes",
    "mean_grey",
    "contrast",
    "border",
]  # contrast: the deviation of greys
NEAR = (
    24  # of 256 bits: two perceptual hashes that differ in no more are near-duplicates
)


def describe_scans(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The scan table with ``pixels`` (sha256 of size and greys), ``look`` and ``FEATURES`` (px, bytes, grey levels).

    ``look``: a perceptual hash, which of the 16 x 16 lowest frequencies at 64 px exceed the median (Zauner 2010).
    """

    def describe(path):
        image = read_scan(root / path)
        border = 1 - np.prod(head_frame(image)[2:]) / image.size
        low = cv2.dct(
            cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype("float32")
        )[:16, :16]
        pixels = hashlib.sha256(str(image.shape).encode() + image.tobytes())
        facts = [
            *image.shape[::-1],
            (root / path).stat().st_size,
            image.mean(),
            image.std(),
            border,
        ]
        return [pixels.hexdigest(), (low > np.median(low)).ravel(), *facts]

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(describe, table["path"]))
    return table.join(pd.DataFrame(rows, table.index, ["pixels", "look", *FEATURES]))


def nearest_in_training(scans: pd.DataFrame) -> pd.Series:
    """In how many of the 256 bits of its look each Testing scan differs from the most similar Training scan."""
    looks, testing = np.stack(scans["look"]), (scans["split"] == "testing").to_numpy()
    bits = cdist(looks[testing], looks[~testing], "cityblock").min(axis=1).astype(int)
    return pd.Series(bits, scans.index[testing], name="bits")


def shortcut_probe(scans: pd.DataFrame, seed: int) -> pd.DataFrame:
    """What gradient boosting makes of the ``FEATURES`` alone: validation and test rows, as ``evaluation.predict``."""
    probe = HistGradientBoostingClassifier(random_state=seed, early_stopping=False)
    train, judged = (
        scans[scans["subset"] == "train"],
        scans[scans["subset"].isin(["validation", "test"])],
    )
    probe.fit(train[FEATURES], train["label"])
    probabilities = pd.DataFrame(
        probe.predict_proba(judged[FEATURES]), judged.index, probe.classes_
    )
    return judged.join(probabilities.add_prefix("p_")).assign(
        predicted=probe.predict(judged[FEATURES])
    )
