"""DICOM: frames as gray pixels, through rescale, window or palette.

Whatever scanners, archives and research tools leave empty or unusable is taken as
absent, as viewers do. Only tags that shape the image are read, and none is ever shown.
"""

import io
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from braintumor.images import NOT_WHOLE, to_8_bits

import cv2
import numpy as np

if TYPE_CHECKING:  # an extra of the package, which most people do not need
    from pydicom import Dataset

MARK = b"DICM"  # after a preamble of 128 bytes
# kinds of files that hold no image, as they stand beside images on disks of scanners
NO_IMAGES = (
    b"1.2.840.10008.1.3.10",  # DICOMDIR, which lists other files
    b"1.2.840.10008.5.1.4.1.1.9.",  # waveforms
    b"1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    b"1.2.840.10008.5.1.4.1.1.66\0",  # raw data
    b"1.2.840.10008.5.1.4.1.1.88.",  # reports
    b"1.2.840.10008.5.1.4.1.1.104.",  # documents
    b"1.2.840.10008.5.1.4.1.1.481.3",  # contours
    b"1.2.840.10008.5.1.4.1.1.481.5",  # plans
)
MOST_PIXELS = 67_108_864  # of a frame, as of any other image
# how a data set without a header begins: its first group, and the kind of the value
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
FIRST_KINDS = (b"AE", b"CS", b"DA", b"LO", b"OB", b"SH", b"TM", b"UI", b"UL")
# where the kind is not written: elements that may come first in group 8
FIRST_ELEMENTS = (0x00, 0x01, 0x05, 0x06, 0x08, 0x12, 0x13, 0x14, 0x16, 0x18)

# how high and how wide a pixel is, the first that can be used
SHAPE_TAGS = [
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
]
PALETTE_TAGS = [
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
]
TAGS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    *SHAPE_TAGS,
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "PresentationLUTShape",
    *PALETTE_TAGS,
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
]
PIXEL_TAGS = TAGS[-3:]
SQUARE = 0.01  # so much may height and width of a pixel differ
MOST_STRETCHED = 10  # a pixel that is longer is an error
ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
PHOTOMETRIC = (
    "MONOCHROME1",
    "MONOCHROME2",
    "PALETTE COLOR",
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_ICT",
    "YBR_RCT",
)


class UnreadableError(ValueError):
    """A DICOM file that is refused; holds a sentence for people, nothing private."""


class _Window(NamedTuple):
    """Which values are black and white: tags of the VOI LUT module."""

    center: float
    width: float
    function: str


def is_dicom(beginning: bytes) -> bool:
    """Say whether a file is DICOM, whatever its name.

    Args:
        beginning: Its first bytes, at least 132.

    Returns:
        Whether it has the mark of DICOM, or begins as a data set without a header.
    """
    if beginning[128:132] == MARK:
        return True
    group = beginning[0:2]
    if len(beginning) < 132 or group not in FIRST_GROUPS:
        return False
    if beginning[4:6] in FIRST_KINDS:
        return True
    element = int.from_bytes(beginning[2:4], "little")
    length = int.from_bytes(beginning[4:8], "little")
    return group == b"\x08\x00" and element in FIRST_ELEMENTS and length < 256


def holds_image(beginning: bytes) -> bool:
    """Say whether a DICOM file is of a kind that may hold an image.

    Args:
        beginning: Its first bytes, at least 512.

    Returns:
        Whether it is none of ``NO_IMAGES``.
    """
    return not any(kind in beginning for kind in NO_IMAGES)


def read_frames(content: bytes) -> list[np.ndarray]:
    """Read the frames of a DICOM file as they want to be seen.

    Args:
        content: The bytes of the file.

    Returns:
        A gray uint8 image (height, width) for each frame. Values go through rescale and
        window, or the file's own tables; without these, 8 bits stay as they are and
        more are spread, see ``images.to_8_bits``. Pixels that are no squares become
        squares.

    Raises:
        UnreadableError: It cannot be read, or pydicom is not installed.
    """
    try:
        import pydicom
    except ModuleNotFoundError:
        raise UnreadableError("DICOM needs pydicom: pip install pydicom") from None
    # they may quote tags; for good, as other threads read as well
    warnings.filterwarnings("ignore", module="pydicom")
    try:
        file = io.BytesIO(content)
        data_set = pydicom.dcmread(file, force=True, specific_tags=TAGS)
        _complete(data_set)
        if data_set.SamplesPerPixel > 1:
            frames = _color_frames(data_set)
        elif data_set.PhotometricInterpretation == "PALETTE COLOR":
            frames = _palette_frames(data_set)
        else:
            frames = _gray_frames(data_set)
        shown = []
        for index, frame in enumerate(frames):
            shown.append(_with_square_pixels(data_set, index, frame))
        return shown
    except UnreadableError:
        raise
    except Exception as error:  # pydicom has many kinds, whose words may quote tags
        kind = type(error).__name__
        raise UnreadableError(f"DICOM that pydicom cannot read ({kind})") from error


def _complete(data_set: "Dataset") -> None:
    """Fill in what a file leaves out; UnreadableError where that cannot be known."""
    if not any(data_set.get(tag) for tag in PIXEL_TAGS):
        raise UnreadableError("DICOM without an image")
    rows = _number(data_set, "Rows")
    columns = _number(data_set, "Columns")
    if not rows or not columns:
        tag = "Columns" if rows else "Rows"
        raise UnreadableError(f"DICOM without the size of its image ({tag})")
    if rows * columns > MOST_PIXELS:
        raise UnreadableError("larger than 67 million pixels")
    _set_number(data_set, "Rows", rows)
    _set_number(data_set, "Columns", columns)
    _set_number(data_set, "NumberOfFrames", _number(data_set, "NumberOfFrames") or 1)
    _complete_colors(data_set)
    if "PixelData" in data_set:
        _complete_bits(data_set)
    _complete_syntax(data_set)


def _complete_colors(data_set: "Dataset") -> None:
    """What the samples of a pixel are, where a file leaves it out."""
    samples = _number(data_set, "SamplesPerPixel") or 1
    if samples not in (1, 3):
        raise UnreadableError(
            f"DICOM of {samples:.0f} values a pixel: 1 or 3 are known"
        )
    _set_number(data_set, "SamplesPerPixel", samples)
    _set_number(
        data_set, "PlanarConfiguration", _number(data_set, "PlanarConfiguration") or 0
    )
    photometric = _text(data_set, "PhotometricInterpretation")
    if not photometric:
        photometric = "RGB" if samples == 3 else "MONOCHROME2"
    if photometric not in PHOTOMETRIC:
        raise UnreadableError("DICOM in colors that pydicom does not know")
    if (photometric in ONE_SAMPLE) != (samples == 1):  # as programs leave it behind
        photometric = "RGB" if samples == 3 else "MONOCHROME2"
    data_set.PhotometricInterpretation = photometric


def _complete_bits(data_set: "Dataset") -> None:
    """How the bits of a pixel are used, where a file leaves it out."""
    allocated = _number(data_set, "BitsAllocated")
    if not allocated:
        raise UnreadableError("DICOM without the size of its pixels (BitsAllocated)")
    stored = _number(data_set, "BitsStored") or allocated
    is_signed = _number(data_set, "PixelRepresentation") == 1
    _set_number(data_set, "BitsAllocated", allocated)
    _set_number(data_set, "BitsStored", min(stored, allocated))
    _set_number(data_set, "PixelRepresentation", is_signed)


def _set_number(data_set: "Dataset", tag: str, value: float) -> None:
    """Set a tag to a whole number, whatever it held."""
    if tag in data_set:
        del data_set[tag]  # pydicom would read the old value first, and may refuse it
    setattr(data_set, tag, int(value))


def _complete_syntax(data_set: "Dataset") -> None:
    """How the pixels are encoded, where the file has no header that says it."""
    from pydicom import uid

    meta = data_set.file_meta
    if meta.get("TransferSyntaxUID"):
        return
    if "PixelData" in data_set and data_set["PixelData"].is_undefined_length:
        raise UnreadableError("DICOM without the name of its compression")
    is_implicit, is_little_endian = data_set.original_encoding
    if is_implicit:
        meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    elif is_little_endian:
        meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    else:
        meta.TransferSyntaxUID = uid.ExplicitVRBigEndian


def _numbers(place: "Dataset", tag: str) -> list[float]:
    """The finite numbers of a tag; none where it is absent, empty or unusable."""
    try:
        values = np.atleast_1d(np.array(place[tag].value, dtype="float64"))
    except Exception:  # absent, or no numbers: pydicom has many kinds
        return []
    return values.tolist() if np.isfinite(values).all() else []


def _number(place: "Dataset", tag: str) -> float | None:
    """The first number of a tag, or None."""
    numbers = _numbers(place, tag)
    return numbers[0] if numbers else None


def _text(place: "Dataset", tag: str) -> str:
    """The text of a tag in capitals, or ""."""
    try:
        value = place.get(tag)
    except Exception:  # no text: pydicom has many kinds
        return ""
    return value.strip().upper() if isinstance(value, str) else ""


def _decoded(data_set: "Dataset") -> np.ndarray:
    """The stored values of all frames; color as RGB."""
    from pydicom.pixels import get_decoder

    syntax = data_set.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        # its name, unless it is one of no standard: then it may be anything
        name = "" if syntax.name == syntax else f" ({syntax.name})"
        what = f"DICOM in a compression that pydicom does not know{name}"
        raise UnreadableError(what) from None
    if not decoder.is_available:
        needed = "; ".join(decoder.missing_dependencies)
        raise UnreadableError(f"{syntax.name} needs a plugin of pydicom: {needed}")
    color = (3,) if data_set.SamplesPerPixel > 1 else ()
    shape = (data_set.NumberOfFrames, data_set.Rows, data_set.Columns, *color)
    unused = _unused_low_bits(data_set) if decoder.is_native else 0
    try:
        # pydicom takes the bits that are used to be the lowest
        options: dict[str, Any] = {"correct_unused_bits": unused == 0}
        pixels, _ = decoder.as_array(data_set, **options)
        if unused:
            pixels = _without_unused_bits(data_set, pixels, unused)
        return pixels.reshape(shape)
    except RuntimeError as error:  # of a plugin, or of all of them
        what = f"no whole image, or one that no plugin reads ({syntax.name})"
        raise UnreadableError(what) from error
    except ValueError as error:
        raise UnreadableError(NOT_WHOLE) from error


def _unused_low_bits(data_set: "Dataset") -> int:
    """How many bits below those that are used; none in files of today."""
    if "PixelData" not in data_set:
        return 0
    high_bit = _number(data_set, "HighBit")
    if high_bit is None or not high_bit < data_set.BitsAllocated:
        return 0
    return max(int(high_bit) + 1 - data_set.BitsStored, 0)


def _without_unused_bits(
    data_set: "Dataset", pixels: np.ndarray, unused: int
) -> np.ndarray:
    """Stored values that do not begin with the lowest bit."""
    above = data_set.BitsAllocated - data_set.BitsStored - unused
    return (pixels << above) >> (above + unused)


def _with_square_pixels(
    data_set: "Dataset", index: int, frame: np.ndarray
) -> np.ndarray:
    """A frame stretched so that its pixels are as high as they are wide."""
    ratio = _height_of_pixels(data_set, index)
    if abs(ratio - 1) <= SQUARE:
        return frame
    height, width = frame.shape
    if ratio > 1:
        height = round(height * ratio)
    else:
        width = round(width / ratio)
    return np.asarray(cv2.resize(frame, (width, height)))


def _height_of_pixels(data_set: "Dataset", index: int) -> float:
    """How many times as high as wide the pixels of a frame are; 1 if unknown."""
    for place in _places(data_set, index, "PixelMeasuresSequence"):
        for tag in SHAPE_TAGS:
            numbers = _numbers(place, tag)
            if len(numbers) != 2 or min(numbers) <= 0:
                continue
            ratio = numbers[0] / numbers[1]
            if 1 / MOST_STRETCHED <= ratio <= MOST_STRETCHED:
                return ratio
    return 1.0


def _color_frames(data_set: "Dataset") -> list[np.ndarray]:
    """RGB frames in gray, with the weights that OpenCV gives to any other image."""
    return [_gray(frame, data_set.BitsStored) for frame in _decoded(data_set)]


def _palette_frames(data_set: "Dataset") -> list[np.ndarray]:
    """Frames of palette entries in the gray of their colors."""
    from pydicom.pixels import apply_color_lut

    descriptor = _numbers(data_set, "RedPaletteColorLookupTableDescriptor")
    if len(descriptor) != 3:
        raise UnreadableError("DICOM without its palette")
    entries, first, bits = [int(number) for number in descriptor]
    last = first + (entries or 65_536) - 1
    frames = []
    for frame in _decoded(data_set):
        colors = apply_color_lut(np.clip(frame, first, last), data_set)
        frames.append(_gray(colors[..., :3], bits))
    return frames


def _gray(colors: np.ndarray, bits: int) -> np.ndarray:
    """RGB of this many bits as gray uint8."""
    if colors.dtype == np.uint8 and bits == 8:
        return np.asarray(cv2.cvtColor(colors, cv2.COLOR_RGB2GRAY))
    shares = (colors / (2**bits - 1)).astype("float32")
    gray = cv2.cvtColor(shares, cv2.COLOR_RGB2GRAY)
    return _as_bytes(np.asarray(gray))


def _as_bytes(shares: np.ndarray) -> np.ndarray:
    """Shares of white, 0 to 1, as uint8."""
    return np.rint(255 * np.clip(shares, 0, 1)).astype("uint8")


def _gray_frames(data_set: "Dataset") -> list[np.ndarray]:
    """Frames through rescale and window, each through its own if it has one."""
    shown: list[np.ndarray | None] = []
    paddings = []
    without_window = []
    for index, stored in enumerate(_decoded(data_set)):
        padding = _padding(data_set, stored)
        shares, values = _shares_of_white(data_set, index, stored)
        if shares is None:
            without_window.append(np.where(padding, np.nan, values))
            shown.append(None)
        else:
            shown.append(_as_bytes(shares))
        paddings.append(padding)
    # together, so that a frame of air does not look like a head
    spread = iter(to_8_bits(np.array(without_window, dtype="float64")))
    is_negative = _is_negative(data_set)
    frames = []
    for pixels, padding in zip(shown, paddings, strict=True):
        if pixels is None:
            pixels = next(spread)
        if is_negative:
            pixels = 255 - pixels
        pixels[padding] = 0
        frames.append(pixels)
    return frames


def _is_negative(data_set: "Dataset") -> bool:
    """Whether low values are white."""
    photometric = _text(data_set, "PhotometricInterpretation")
    shape = _text(data_set, "PresentationLUTShape")
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def _padding(data_set: "Dataset", stored: np.ndarray) -> np.ndarray:
    """Which pixels lie outside of what was scanned, as the file says."""
    value = _number(data_set, "PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = _number(data_set, "PixelPaddingRangeLimit")
    if limit is None:
        limit = value
    # a negative number may be written as a large one
    ends = np.array([value, limit]).astype("int64").astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def _shares_of_white(
    data_set: "Dataset", index: int, stored: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """A frame's shares of white, 0 to 1, or None without a window; its real values."""
    values, slope, table_bits = _real_values(data_set, index, stored)
    for place in _places(data_set, index, "FrameVOILUTSequence"):
        table = _table(place, "VOILUTSequence")
        if table is not None:
            shown, bits = _look_up(values, table)
            return shown / (2**bits - 1), values
        window = _window(place)
        if window is not None:
            return _windowed(values, window), values
    bits = data_set.get("BitsStored", 64)
    if bits > 8 or table_bits:
        return None, values
    black = -(2 ** (bits - 1)) if data_set.PixelRepresentation else 0
    shares = (stored.astype("float64") - black) / (2**bits - 1)
    return (1 - shares if slope < 0 else shares), values


def _places(data_set: "Dataset", index: int, group: str) -> "list[Dataset]":
    """Where tags of a group may stand: for this frame, for all frames, in the file."""
    per_frame = data_set.get("PerFrameFunctionalGroupsSequence") or []
    shared = data_set.get("SharedFunctionalGroupsSequence") or []
    places: list[Dataset] = []
    for item in [*per_frame[index : index + 1], *shared[:1]]:
        places.extend((item.get(group) or [])[:1])
    return [*places, data_set]


def _real_values(
    data_set: "Dataset", index: int, stored: np.ndarray
) -> tuple[np.ndarray, float, int]:
    """Values after rescale or the modality LUT; the slope; the LUT's bits, or 0."""
    table = _table(data_set, "ModalityLUTSequence")
    if table is not None:
        values, bits = _look_up(stored, table)
        return values, 1.0, bits
    values = stored.astype("float64")
    for place in _places(data_set, index, "PixelValueTransformationSequence"):
        slope = _number(place, "RescaleSlope")
        intercept = _number(place, "RescaleIntercept")
        if slope is None and intercept is None:
            continue
        slope = slope or 1.0  # 0 would make all pixels the same
        return values * slope + (intercept or 0.0), slope, 0
    return values, 1.0, 0


def _table(place: "Dataset", sequence: str) -> "Dataset | None":
    """The first lookup table of a sequence, if it can be used."""
    tables = place.get(sequence) or []
    for table in tables[:1]:
        if len(_numbers(table, "LUTDescriptor")) == 3 and table.get("LUTData"):
            return table
    return None


def _look_up(values: np.ndarray, table: "Dataset") -> tuple[np.ndarray, int]:
    """What a lookup table makes of values, as float64; its bits.

    pydicom's own functions refuse tables of 10 to 15 bits, and of bytes.
    """
    entries, first, bits = table.LUTDescriptor
    entries = entries or 65_536
    if first > 32_767 and values.min() < 0:  # written without its sign
        first -= 65_536
    shown = _table_data(table, entries).astype("float64")
    place = np.clip(np.rint(values) - first, 0, len(shown) - 1)
    bits = bits if 8 <= bits <= 16 else 16
    return shown[place.astype("int64")], bits


def _table_data(table: "Dataset", entries: int) -> np.ndarray:
    """The entries of a lookup table, which may be written as numbers or as bytes."""
    data = table.LUTData
    if not isinstance(data, bytes):
        # never negative, though they may be written so
        return np.atleast_1d(np.array(data, "int64"))[:entries] & 0xFFFF
    kind = "<u2" if len(data) >= 2 * entries else "u1"
    return np.frombuffer(data, kind, count=entries)


def _window(place: "Dataset") -> _Window | None:
    """The first window that can be used."""
    centers = _numbers(place, "WindowCenter")
    widths = _numbers(place, "WindowWidth")
    for center, width in zip(centers, widths, strict=False):  # one may have fewer
        if width > 0:
            return _Window(center, width, _text(place, "VOILUTFunction"))
    return None


def _windowed(values: np.ndarray, window: _Window) -> np.ndarray:
    """Values through a window: shares of white, 0 to 1."""
    from pydicom import Dataset
    from pydicom.pixels import apply_windowing

    function = window.function
    if function not in ("LINEAR_EXACT", "SIGMOID"):
        # a window narrower than 1 makes sense for values that are no whole numbers
        function = "LINEAR" if window.width >= 1 else "LINEAR_EXACT"
    tags = Dataset()
    tags.PhotometricInterpretation = "MONOCHROME2"
    tags.PixelRepresentation = 0
    tags.BitsStored = 8
    tags.WindowCenter = window.center
    tags.WindowWidth = window.width
    tags.VOILUTFunction = function
    return apply_windowing(values, tags) / 255
