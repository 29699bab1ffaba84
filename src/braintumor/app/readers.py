"""From what a person names, files or folders or arrays, to gray pixels."""

import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from braintumor.app import dicom, tiff
from braintumor.images import (
    IMAGE_ENDINGS,
    JPEG_2000_BEGINNINGS,
    LONGEST_SIDE,
    NOT_WHOLE,
    TIFF_BEGINNINGS,
    TOO_LONG,
    decode_page,
    first_damaged_page,
    opacities,
    to_8_bits,
    without_hidden,
)

import cv2
import numpy as np

Source = str | os.PathLike | np.ndarray

# what is taken from a folder, besides what is an image by its first bytes
NAMES = rf"\.{IMAGE_ENDINGS}$"
DICOM_NAMES = r"(?i)\.(dcm|dicom)$"
NAMED_AT_MOST = 5  # of the files that are skipped
FIRST_BYTES = 1024  # what tells a DICOM file
IMAGE_BEGINNINGS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    *TIFF_BEGINNINGS,
    *JPEG_2000_BEGINNINGS,
)
WEBP_MARK = b"WEBP"  # at byte 8
# what people take for an image, by its first bytes, and what it is
OTHER_KINDS = {
    b"\x1f\x8b": "a compressed file: unpack it first",
    b"PK\x03\x04": "an archive: unpack it first",
    b"%PDF": "a document: save its image as PNG",
}
OTHER_KINDS_AT_4 = {
    b"ftypheic": "HEIC: save it as PNG or JPEG",
    b"ftypmif1": "HEIC: save it as PNG or JPEG",
}
NIFTI_MARKS = (b"n+1\0", b"ni1\0")  # at byte 344
# kinds of letters that a terminal obeys, a table breaks at, or UTF-8 has no bytes for
NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")


class ImageFile(NamedTuple):
    """What was read of one image file, or of one array.

    Attributes:
        pages: Gray uint8 (height, width), one a page or frame; empty where there is a
            problem.
        problem: What is wrong, or "".
        sha256: The checksum of the file; "" where there is none.
    """

    pages: list[np.ndarray]
    problem: str
    sha256: str = ""


class FoundImages(NamedTuple):
    """What was found in what a person named.

    Attributes:
        images: Paths of files, and arrays.
        skipped: Files in folders that are no images, links that lead nowhere, and
            folders that cannot be read.
    """

    images: list[Source]
    skipped: list[Path]

    @property
    def skipped_in_words(self) -> str:
        """A sentence about what was skipped, or ""."""
        if not self.skipped:
            return ""
        names = [shown_name(path.name) for path in self.skipped[:NAMED_AT_MOST]]
        if len(self.skipped) > NAMED_AT_MOST:
            names.append("...")
        return f"Skipped {len(self.skipped):,} that are no images: {', '.join(names)}"


def images_in(scans: Source | Iterable[Source]) -> list[Source]:
    """List the images that were named; what is skipped is counted on stderr.

    Args:
        scans: A file, a folder, an array (height, width), or a list of these.

    Returns:
        Paths of files, of folders those of the images in them, sorted; arrays stay.

    Raises:
        FileNotFoundError: There is no image in what was named.
        TypeError: What was named is none of these.
    """
    found = find_images(scans)
    if found.skipped:
        print(found.skipped_in_words, file=sys.stderr)
    if not found.images:
        raise FileNotFoundError("There is no image in what was named.")
    return found.images


def find_images(scans: Source | Iterable[Source]) -> FoundImages:
    """List the images that were named, and what else is in the folders.

    Args:
        scans: A file, a folder, an array (height, width), or a list of these.

    Returns:
        Named files and arrays as they come; of folders what is an image by its name or
        by its first bytes, sorted. Links to folders are followed, each folder once.
        Hidden files and folders are left out.

    Raises:
        TypeError: What was named is none of these.
    """
    if isinstance(scans, str | os.PathLike | np.ndarray):
        scans = [scans]
    images: list[Source] = []
    skipped: list[Path] = []
    for scan in scans:
        if isinstance(scan, np.ndarray):
            images.append(scan)
        elif not isinstance(scan, str | os.PathLike):
            kind = type(scan).__name__
            raise TypeError(f"A scan is a file, a folder or a NumPy array, no {kind}.")
        elif os.path.isdir(scan):
            for path in _files_in(Path(scan), skipped):
                if _is_image(path):
                    images.append(path)
                else:
                    skipped.append(path)
        else:
            images.append(Path(scan))
    return FoundImages(images, skipped)


def _files_in(folder: Path, unreadable: list[Path]) -> list[Path]:
    """All files below a folder, sorted; what cannot be read goes into a list."""

    def note(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    files: list[Path] = []
    seen = {os.path.realpath(folder)}  # as links may lead back
    for parent, folders, names in os.walk(folder, onerror=note, followlinks=True):
        folders[:] = _new_folders(parent, folders, seen)
        for name in names:
            path = Path(parent, name)
            if name.startswith("."):
                continue
            target = files if os.path.isfile(path) else unreadable
            target.append(path)
    return sorted(files)


def _new_folders(parent: str, names: list[str], seen: set[str]) -> list[str]:
    """The folders that are not hidden and were not seen yet; they are seen then."""
    new = []
    for name in sorted(names):
        place = os.path.realpath(os.path.join(parent, name))
        if not name.startswith(".") and place not in seen:
            seen.add(place)
            new.append(name)
    return new


def _is_image(path: Path) -> bool:
    """Whether a file in a folder is an image by its name or its content."""
    if re.search(NAMES, path.name):
        return True
    try:
        with path.open("rb") as file:
            beginning = file.read(FIRST_BYTES)
    except OSError:
        beginning = b""
    if beginning.startswith(IMAGE_BEGINNINGS) or beginning[8:12] == WEBP_MARK:
        return True
    if dicom.is_dicom(beginning):
        return dicom.holds_image(beginning)
    return bool(re.search(DICOM_NAMES, path.name))


def shown_name(path: Source) -> str:
    """Write a path so that any terminal, table and program can show it.

    Args:
        path: The path of an image, or an array.

    Returns:
        The path, with a backslash and a number for each control character and each byte
        that is no letter; "array" for an array.
    """
    if isinstance(path, np.ndarray):
        return "array"
    return "".join(_shown_letter(letter) for letter in os.fspath(path))


def _shown_letter(letter: str) -> str:
    """A letter, or its escape sequence."""
    if unicodedata.category(letter) in NOT_SHOWN:
        return letter.encode("unicode_escape").decode("ascii")
    return letter


def read_pages(path: Source) -> tuple[list[np.ndarray], str]:
    """Read all pages or frames of an image file: see ``read_image``.

    Args:
        path: An image file, or an array, which is its only page.

    Returns:
        The pages, gray uint8 (height, width); and what is wrong with the file, or "".
    """
    image = read_image(path)
    return image.pages, image.problem


def read_image(path: Source) -> ImageFile:
    """Read all pages or frames of an image file.

    A file is read whole or not at all, as far as its format can tell. What has more
    than 8 bits is spread over 0-255. Of DICOM's tags only those are read that shape the
    image.

    Args:
        path: An image file, or an array, which is its only page.

    Returns:
        Its pages, or what is wrong.
    """
    if isinstance(path, np.ndarray):
        return _read_array(path)
    try:
        content = np.fromfile(path, "uint8")
    except OSError as error:
        return ImageFile([], error.strerror or "no file that can be read")
    except ValueError:  # such as a NUL in the name
        return ImageFile([], "no name of a file")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        pages, problem = _read_content(content)
    except MemoryError:
        pages, problem = [], "too large for the memory"
    if any(max(page.shape) > LONGEST_SIDE for page in pages):
        pages, problem = [], TOO_LONG
    return ImageFile(pages, problem, sha256)


def _read_content(content: np.ndarray) -> tuple[list[np.ndarray], str]:
    """The pages of a file of any format, or a problem."""
    beginning = content[:FIRST_BYTES].tobytes()
    if dicom.is_dicom(beginning):
        try:
            return dicom.read_frames(content.tobytes()), ""
        except ValueError as error:
            return [], str(error)
    if beginning.startswith(TIFF_BEGINNINGS):
        return tiff.read_pages(content)
    try:
        is_whole, pages = cv2.imdecodemulti(content, cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        is_whole, pages = False, []
    if not is_whole or not pages:
        problem = _other_kind(beginning) or decode_page(content)[1]
        return [], problem or NOT_WHOLE
    if first_damaged_page(content, len(pages)) is not None:
        return [], NOT_WHOLE
    shown = []
    for page, opacity in zip(pages, opacities(content, len(pages)), strict=True):
        shown.append(to_8_bits(without_hidden(page, opacity)))
    return shown, ""


def _other_kind(beginning: bytes) -> str:
    """What a file is that is no image, if that is known; else ""."""
    for mark, kind in OTHER_KINDS.items():
        if beginning.startswith(mark):
            return kind
    if beginning[344:348] in NIFTI_MARKS:
        return "a volume (NIfTI): save its slices as PNG"
    return OTHER_KINDS_AT_4.get(beginning[4:12], "")


def _read_array(array: np.ndarray) -> ImageFile:
    """An array as the only page, or what is wrong with it."""
    problem = _array_problem(array)
    if problem:
        return ImageFile([], problem)
    return ImageFile([np.rint(array).astype("uint8")], "")


def _array_problem(array: np.ndarray) -> str:
    """Why an array is no scan with intensities from 0 to 255, or ""."""
    if array.ndim != 2:
        shape = "no axes" if array.ndim == 0 else f"shape {array.shape}"
        return f"the array has {shape}: a scan has (height, width)"
    if array.size == 0:
        return "the array is empty"
    if max(array.shape) > LONGEST_SIDE:
        return f"the array is {TOO_LONG}"
    # whole and real numbers; durations are none, although numpy counts them as such
    if array.dtype.kind not in "uif":
        return f"the array holds {array.dtype}: a scan holds numbers from 0 to 255"
    if not np.isfinite(array).all():
        return "the array holds values that are no numbers (NaN or infinite)"
    low = array.min()
    high = array.max()
    if low < 0 or high > 255 or high <= 1:
        advice = "a scan has 0 to 255; images.to_8_bits spreads other values"
        return f"the array holds values from {low:.6g} to {high:.6g}: {advice}"
    return ""
