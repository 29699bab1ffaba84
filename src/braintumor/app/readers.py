"""From what a person names, files or folders or arrays, to gray pixels."""

import re
from io import BytesIO
from pathlib import Path

from braintumor.images import examine

import cv2
import numpy as np

NAMES = r"(?i)\.(jpe?g|png|bmp|tiff?|webp|dcm|dicom)$"  # what is taken from a folder


def images_in(scans) -> list:
    """List the images that were named.

    Args:
        scans: A file, a folder, an array (height, width), or a list of these.

    Returns:
        Paths of files, of folders those of the images in them, sorted; arrays stay.

    Raises:
        FileNotFoundError: There is no image in what was named.
    """
    if isinstance(scans, str | Path | np.ndarray):
        scans = [scans]
    found = []
    for scan in scans:
        if isinstance(scan, np.ndarray) or not Path(scan).is_dir():
            found.append(scan)
            continue
        files = sorted(file for file in Path(scan).rglob("[!.]*") if file.is_file())
        found += [file for file in files if re.search(NAMES, file.name)]
    if not found:
        raise FileNotFoundError("There is no image in what was named.")
    return found


def read_pages(path: Path | np.ndarray) -> tuple[list[np.ndarray], str]:
    """Read all pages or frames of an image file.

    What has more than 8 bits is spread over 0-255. Of DICOM's tags only those are read
    that shape the image.

    Args:
        path: An image file, or an array, which is its only page.

    Returns:
        The pages, gray uint8 (height, width); and what is wrong with the file, or "".
    """
    if isinstance(path, np.ndarray):
        return [path], ""
    try:
        content = np.fromfile(path, "uint8")
        if content[128:132].tobytes() == b"DICM":
            pages = dicom_frames(content)
        else:
            _, pages = cv2.imdecodemulti(content, cv2.IMREAD_ANYDEPTH)
        pages = [_in_8_bits(page) for page in pages]
    except (OSError, cv2.error):
        return [], examine(Path(path))[1] or "no whole image"
    except Exception as error:  # pydicom has many kinds
        return [], " ".join(str(error).split())[:300] or type(error).__name__
    return pages, "" if pages else "no whole image"


def _in_8_bits(page):
    if page.dtype == np.uint8:
        return page
    return cv2.normalize(page, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)


def dicom_frames(content: np.ndarray) -> np.ndarray:
    """Read the frames of a DICOM file as they want to be seen.

    Args:
        content: The bytes of the file.

    Returns:
        float32 (frames, height, width), larger is brighter.

    Raises:
        ValueError: pydicom is not installed; it raises others itself.
    """
    try:
        from pydicom import dcmread, pixels
    except ModuleNotFoundError:
        raise ValueError("DICOM needs pydicom: pip install pydicom") from None
    scan = dcmread(BytesIO(content))
    values = pixels.apply_modality_lut(scan.pixel_array, scan)
    values = pixels.apply_voi_lut(values, scan)
    if scan.SamplesPerPixel > 1:
        values = values.mean(axis=-1)
    values = np.float32(values)
    if scan.PhotometricInterpretation == "MONOCHROME1":  # in which white is low
        values = values.max() - values
    return values.reshape(-1, scan.Rows, scan.Columns)
