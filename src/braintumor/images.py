"""How does an image file become the square that a network sees? Read, crop, resize.

Nothing here needs Keras or pandas, so that a classifier can answer soon. Training,
answers, the page and notebooks all read pixels here: same file, same pixels.
"""

import hashlib
import io
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:  # imported only where a file needs it
    from PIL import Image

# of names, as a pattern
IMAGE_ENDINGS = r"(?i:jpe?g|jpe|jfif|png|gif|bmp|tiff?|webp)"
NOT_WHOLE = "no whole image"
LFS_BEGINNING = b"version https://git-lfs"
LFS_POINTER = "a pointer of Git LFS, which 'git lfs pull' replaces"
EMPTY_OR_LARGE = "empty, or larger than 67 million pixels"
LONGEST_SIDE = 16_384  # px: the square around a longer image would fill the memory
TOO_LONG = f"longer than {LONGEST_SIDE:,} pixels"
BLACK_AND_WHITE = (0.1, 99.9)  # percentiles, for what has more than 8 bits
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_2000_BEGINNINGS = (b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51")
OPAQUE_BEGINNINGS = (b"\xff\xd8", b"BM")  # of JPEG and BMP: nothing is transparent
PNG_BEGINNING = b"\x89PNG"
WHITE_IS_ZERO = 0  # of the tag of TIFF that says what its values mean
PHOTOMETRIC_TAG = 262


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
    except OSError as error:
        return None, error.strerror or "no file that can be read"
    pixels, problem = decode(content)
    if not problem and sha256 and hashlib.sha256(content).hexdigest() != sha256:
        return pixels, "changed since it was listed"
    return pixels, problem


def decode(content: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Decode an image file, the first page if it has several.

    Args:
        content: The bytes of the file, uint8.

    Returns:
        The gray uint8 pixels (height, width), or None; and what is wrong, or "".
    """
    pixels, problem = decode_page(content)
    if not problem and first_damaged_page(content, pages=1) is not None:
        return None, NOT_WHOLE
    return pixels, problem


def decode_page(content: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Decode the first page alone, without a second look at it: see ``decode``."""
    if content[: len(LFS_BEGINNING)].tobytes() == LFS_BEGINNING:
        return None, LFS_POINTER
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # it has no words for people
        return None, EMPTY_OR_LARGE
    if pixels is None:
        return None, NOT_WHOLE
    if max(pixels.shape) > LONGEST_SIDE:
        return None, TOO_LONG
    # of 8 bits, OpenCV does it
    if pixels.dtype != np.uint8 and _is_white_zero(content):
        pixels = -pixels.astype("float64")
    (opacity,) = opacities(content, pages=1)
    return to_8_bits(without_hidden(pixels, opacity)), ""


def opacities(content: np.ndarray, pages: int) -> list[np.ndarray | None]:
    """Find out which pixels of a file are transparent.

    OpenCV reads what lies under them, which may be anything.

    Args:
        content: The bytes of an image file, uint8.
        pages: How many pages or frames are looked at.

    Returns:
        For each, the opacity of its pixels, uint8 (height, width), turned as the EXIF
        data say; None where nothing is transparent.
    """
    found: list[np.ndarray | None] = [None] * pages
    if content[:2].tobytes().startswith(OPAQUE_BEGINNINGS):
        return found
    from PIL import ImageOps  # most scans are JPEG, which does not need it

    with suppress(Exception), _open_with_pillow(content) as image:
        for page in range(pages):
            image.seek(page)
            if image.has_transparency_data:
                turned = ImageOps.exif_transpose(image)
                opacity = np.asarray(turned.convert("RGBA").getchannel("A"))
                found[page] = None if opacity.min() == 255 else opacity
    return found


def without_hidden(pixels: np.ndarray, opacity: np.ndarray | None) -> np.ndarray:
    """Lay pixels on black, so that what is transparent shows nothing.

    Args:
        pixels: Gray pixels (height, width).
        opacity: See ``opacities``.

    Returns:
        The same type if it is uint8, else float64 with NaN where nothing is seen.
    """
    if opacity is None or opacity.shape != pixels.shape:
        return pixels
    seen = pixels * (opacity / 255)
    if pixels.dtype == np.uint8:
        return np.rint(seen).astype("uint8")
    return np.where(opacity == 0, np.nan, seen)


def _open_with_pillow(content: np.ndarray) -> "Image.Image":
    """Open an image file with Pillow, which keeps its warnings to itself."""
    from PIL import Image

    # not only inside a ``with``, which would give other threads their filters back
    warnings.filterwarnings("ignore", module="PIL")
    return Image.open(io.BytesIO(content))


def _is_white_zero(content: np.ndarray) -> bool:
    """Whether low values of the first page of a TIFF file are white."""
    if content[:4].tobytes() not in TIFF_BEGINNINGS:
        return False
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file = io.BytesIO(content)
    with suppress(Exception):
        is_big = content[:4].tobytes() in TIFF_BEGINNINGS[2:]
        directory = ImageFileDirectory_v2(file.read(16 if is_big else 8))
        file.seek(directory.next)
        directory.load(file)
        return directory.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO
    return False


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Spread intensities over 0 to 255; uint8 stays as it is.

    Black and white are percentiles, so that no single pixel decides. Values that are no
    numbers are not counted and become black.

    Args:
        values: Real numbers of any type and scale, any shape.

    Returns:
        uint8, the same shape; all 0 where all values are the same.
    """
    if values.dtype == np.uint8:
        return values
    values = values.astype("float64")
    numbers = values[np.isfinite(values)]
    if numbers.size == 0:
        return np.zeros(values.shape, "uint8")
    low, high = np.percentile(numbers, BLACK_AND_WHITE)
    if low == high:  # few pixels differ from all others
        low, high = numbers.min(), numbers.max()
    if low == high:
        return np.zeros(values.shape, "uint8")
    shares = (np.clip(values, low, high) - low) / (high - low)
    levels = np.rint(255 * np.nan_to_num(shares, nan=0))
    return levels.astype("uint8")


def first_damaged_page(content: np.ndarray, pages: int) -> int | None:
    """Find a page of an image file that is damaged.

    OpenCV leaves what it cannot decode as the memory was before, without a word;
    Pillow refuses it. OpenCV itself refuses JPEG and BMP files that were cut. It does
    not notice changed bytes inside them, as these formats have no checksum.

    Args:
        content: The bytes of an image file, uint8.
        pages: How many pages are looked at.

    Returns:
        The first that is damaged, from 0, or None.
    """
    if content[:2].tobytes().startswith(OPAQUE_BEGINNINGS):
        return None
    try:
        _open_with_pillow(content).verify()  # the checksums of a PNG
        image = _open_with_pillow(content)
    except (OSError, SyntaxError):
        # Pillow knows every PNG; of other formats OpenCV knows more kinds
        is_png = content[:4].tobytes() == PNG_BEGINNING
        return 0 if is_png else None
    # Pillow may count fewer pages, or miss a tag that OpenCV does without
    with suppress(EOFError, LookupError, TypeError), image:
        for page in range(pages):
            try:
                image.seek(page)
                image.load()
            except (OSError, SyntaxError, ValueError, zlib.error):
                return page
    return None


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
    if pixels is None or problem:
        name = "/".join(path.parts[-3:])
        advice = "replace it or remove it."
        raise ValueError(f"'{name}' cannot be read ({problem}): {advice}")
    return pixels


def head_frame(image: np.ndarray) -> tuple[int, int, int, int]:
    """Find the head: rows and columns in which more than 2% of the pixels are bright.

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
    x, y, width, height = cv2.boundingRect(head.astype("uint8"))
    return x, y, width, height


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
    shift = np.array([[1, 0, -x], [0, 1, -y]], "float32")
    head = cv2.warpAffine(image, shift, (side, side))
    low, high = np.percentile(head, (1, 99))
    # what becomes of each of the 256 intensities
    spread = (np.arange(256) - low) * (255 / max(high - low, 1))
    table = np.clip(spread, 0, 255).astype("uint8")
    square = np.asarray(cv2.LUT(head, table))
    return square, (x, y)


class Square(NamedTuple):
    """The square that a network sees, and where it lies in its image.

    A point of the image, in pixels, is ``(point - corner) * scale`` in the square.

    Attributes:
        pixels: uint8, shape (size, size).
        corner: x, y of the upper left corner, in pixels of the image.
        scale: Pixels of the square for one of the image, along x and y.
    """

    pixels: np.ndarray
    corner: tuple[int, int]
    scale: tuple[float, float]


def to_square(image: np.ndarray, size: int, frame: str) -> Square:
    """Make the square that a network of this size sees.

    Args:
        image: Gray uint8 pixels (height, width).
        size: Side of the square (px).
        frame: ``head`` cuts out the head first, see ``head_square``; ``scan`` stretches
            the whole image.

    Returns:
        The square.
    """
    corner = (0, 0)
    if frame == "head":
        image, corner = head_square(image)
    pixels = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    height, width = image.shape
    return Square(pixels, corner, (size / width, size / height))
