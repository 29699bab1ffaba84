"""The last step of Grad-CAM, which is the same for every engine."""

import cv2
import numpy as np


def upsample(maps, size: int) -> np.ndarray:
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
