"""How does an image file become the square that a network sees? Read, crop, resize.

Nothing here needs Keras or pandas, so that a classifier can answer soon.
"""

import hashlib
from pathlib import Path

import cv2
import numpy as np


def examine(path: Path, sha256: str | None = None) -> tuple[np.ndarray | None, str]:
    """Read one scan, and say what is wrong with its file.

    Args:
        path: An image file.
        sha256: Its checksum when it was listed; None is not compared.

    Returns:
        The gray uint8 pixels (height, width), turned as the EXIF data say, or None; and
        what is wrong, or "".
    """
    try:
        content = np.fromfile(path, "uint8")
        pixels = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error) as error:  # OpenCV has no words for people
        problem = getattr(error, "strerror", None)
        return None, problem or "empty, or larger than 67 million pixels"
    if pixels is None:
        return None, "no whole image"
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        return pixels, "changed since it was listed"
    return pixels, ""


def read_scan(path: Path, sha256: str | None = None) -> np.ndarray:
    """Read one scan.

    Args:
        path: An image file.
        sha256: Its checksum when it was listed; None is not compared.

    Returns:
        Gray uint8 pixels (0-255), shape (height, width).

    Raises:
        ValueError: It cannot be read, or has changed; names the file and what is wrong.
    """
    pixels, problem = examine(path, sha256)
    if problem:
        name = "/".join(path.parts[-3:])
        advice = "replace it or remove it."
        raise ValueError(f"'{name}' cannot be read ({problem}): {advice}")
    return pixels


def head_frame(image: np.ndarray) -> tuple[int, int, int, int]:
    """Find the head: rows and columns in which more than 2 % of the pixels are bright.

    Args:
        image: Gray pixels (height, width).

    Returns:
        x, y, width, height (px) of the frame around them; all where there are none.
    """
    low, high = np.percentile(image, (1, 99))
    bright = image > low + 0.1 * (high - low)
    rows = bright.mean(axis=1) > 0.02
    columns = bright.mean(axis=0) > 0.02
    head = np.outer(rows, columns)
    if not head.any():
        height, width = image.shape
        return 0, 0, width, height
    return cv2.boundingRect(np.uint8(head))


def head_square(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut out the square around the head, black where the scan ends.

    Args:
        image: Gray uint8 pixels (height, width).

    Returns:
        The square, its intensities spread between their 1st and 99th percentile; x, y
        (px) of its corner.
    """
    x, y, width, height = head_frame(image)
    side = max(width, height)
    x = x - (side - width) // 2
    y = y - (side - height) // 2
    shift = np.float32([[1, 0, -x], [0, 1, -y]])
    head = cv2.warpAffine(image, shift, (side, side))
    low, high = np.percentile(head, (1, 99))
    spread = (head - low) * (255 / max(high - low, 1))
    return np.uint8(np.clip(spread, 0, 255)), (x, y)


def to_square(
    image: np.ndarray, size: int, frame: str
) -> tuple[np.ndarray, tuple[int, int], list[float]]:
    """Make the square that a network of this size sees.

    Args:
        image: Gray uint8 pixels (height, width).
        size: Side of the square (px).
        frame: ``head`` cuts out the head first, see ``head_square``; ``scan`` stretches
            the whole image.

    Returns:
        The uint8 square; x, y of its corner (px of the image); what they are scaled by.
    """
    corner = (0, 0)
    if frame == "head":
        image, corner = head_square(image)
    square = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    height, width = image.shape
    return square, corner, [size / width, size / height]
