"""DICOM as scanners, archives and research tools write it: each frame as it wants to be seen, and no word about a patient."""

import re
import sys
import warnings
from pathlib import Path

from braintumor import images
from braintumor.app import dicom as dicom_reader
from braintumor.app import readers

import cv2
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")

RAMP = np.arange(0, 1000, 5).reshape(10, 20)
BYTES = np.tile(np.arange(0, 250, 5, dtype="uint8"), (40, 1))
SECRETS = ("LOVELACE", "MRN-1815", "18151210")


def tags(**values):
    """What sets tags of a data set."""

    def change(data_set):
        for name, value in values.items():
            setattr(data_set, name, value)

    return change


def window(center, width, **more):
    """What sets a window."""
    return tags(WindowCenter=str(center), WindowWidth=str(width), **more)


def item(**values):
    """A data set for a sequence."""
    data_set = pydicom.Dataset()
    tags(**values)(data_set)
    return data_set


def sequence(*items):
    """A sequence of data sets."""
    return pydicom.Sequence(items)


def pages_of(file):
    """The pages of a file without a problem."""
    pages, problem = readers.read_pages(file)
    assert problem == ""
    return pages


@pytest.fixture
def page(tmp_path, dicom):
    """What writes frames and reads the first of them."""

    def written_and_read(frames, **options):
        return pages_of(dicom(tmp_path / "scan.dcm", frames, **options))[0]

    return written_and_read


# --- windows ---


def test_dicom_is_read_through_its_window(page):
    shown = page(RAMP, change=window(500, 200))
    assert (shown[RAMP <= 400] == 0).all() and (shown[RAMP >= 600] == 255).all()
    assert shown[RAMP == 500].item() == pytest.approx(128, abs=2)


def test_a_frame_of_air_stays_black_whatever_is_in_the_others(tmp_path, dicom):
    rng = np.random.default_rng(0)
    air = rng.integers(0, 6, (64, 64))
    head = air.copy()
    head[20:44, 20:44] = rng.integers(300, 700, (24, 24))
    file = tmp_path / "two.dcm"
    for change in (window(400, 800), None):
        dicom(file, np.stack([air, head]), change=change)
        dark, bright = pages_of(file)
        assert dark.max() <= 3 and bright.max() >= 220


def test_8_bits_without_a_window_or_with_that_of_all_values_are_those_of_a_png(
    page, tmp_path
):
    cv2.imwrite(str(tmp_path / "scan.png"), BYTES)
    (expected,) = pages_of(tmp_path / "scan.png")
    for change in (None, window(128, 256), tags(RescaleSlope=1, RescaleIntercept=0)):
        np.testing.assert_array_equal(page(BYTES, bits=8, change=change), expected)


def test_more_bits_without_a_window_are_spread_as_in_any_other_file(page):
    np.testing.assert_array_equal(page(RAMP), images.to_8_bits(RAMP))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", [0, 0, 128, 255, 255]),
        ("LINEAR_EXACT", [0, 0, 128, 255, 255]),
        ("SIGMOID", [5, 30, 128, 225, 250]),
        ("SOMETHING", [0, 0, 128, 255, 255]),
        ("", [0, 0, 128, 255, 255]),
    ],
)
def test_the_function_of_a_window(page, function, expected):
    values = np.array([[300, 400, 500, 600, 700]])
    shown = page(values, change=window(500, 200, VOILUTFunction=function))
    np.testing.assert_allclose(shown[0].astype(int), expected, atol=2)


def test_of_several_windows_the_first_that_can_be_used_counts(page):
    several = tags(WindowCenter=[0, 500, 100], WindowWidth=[0, 200, 50])
    np.testing.assert_array_equal(
        page(RAMP, change=several), page(RAMP, change=window(500, 200))
    )


def test_windows_and_rescale_of_each_frame(tmp_path, dicom):
    """As enhanced multi-frame files have them: for a frame, or shared by all."""

    def enhanced(data_set):
        windows = [(500, 200), (1000, 400)]
        data_set.PerFrameFunctionalGroupsSequence = sequence(
            *[
                item(
                    FrameVOILUTSequence=sequence(
                        item(WindowCenter=center, WindowWidth=width)
                    )
                )
                for center, width in windows
            ]
        )
        rescale = item(RescaleSlope=2, RescaleIntercept=0)
        data_set.SharedFunctionalGroupsSequence = sequence(
            item(PixelValueTransformationSequence=sequence(rescale))
        )

    dicom(tmp_path / "scan.dcm", np.stack([RAMP, RAMP]), change=enhanced)
    first, second = pages_of(tmp_path / "scan.dcm")
    assert (first[RAMP <= 200] == 0).all() and (first[RAMP >= 300] == 255).all()
    assert (second[RAMP <= 400] == 0).all() and (second[RAMP >= 600] == 255).all()


def test_values_are_rescaled_before_the_window(page):
    change = window(0, 200, RescaleSlope="2", RescaleIntercept="-1000")
    shown = page(RAMP, change=change)
    assert (shown[RAMP <= 450] == 0).all() and (shown[RAMP >= 550] == 255).all()


def test_a_window_narrower_than_one_is_one_of_real_numbers(page):
    change = window(0.5, 0.2, RescaleSlope="0.001", RescaleIntercept="0")
    shown = page(RAMP, change=change)
    assert (shown[RAMP <= 400] == 0).all() and (shown[RAMP >= 600] == 255).all()
    assert shown[RAMP == 500].item() == pytest.approx(128, abs=2)


# --- lookup tables ---


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("kind", ["US", "OW"])
def test_a_table_of_values_of_any_depth(page, bits, kind):
    """White where values are below 500, black above."""
    most = 2**bits - 1
    entries = np.where(np.arange(1000) < 500, most, 0).astype("<u2")

    def change(data_set):
        table = item(LUTDescriptor=[1000, 0, bits])
        data = entries.tobytes() if kind == "OW" else entries.tolist()
        table.add_new("LUTData", kind, data)
        data_set.VOILUTSequence = sequence(table)

    shown = page(RAMP, change=change)
    assert (shown[RAMP < 500] == 255).all() and (shown[RAMP >= 500] == 0).all()


def test_a_modality_table_comes_before_the_window(page):
    def change(data_set):
        table = item(LUTDescriptor=[1000, 0, 12], ModalityLUTType="US")
        table.add_new("LUTData", "US", (np.arange(1000) * 4).tolist())
        data_set.ModalityLUTSequence = sequence(table)
        window(2000, 800)(data_set)

    shown = page(RAMP, change=change)
    assert (shown[RAMP <= 400] == 0).all() and (shown[RAMP >= 600] == 255).all()


def test_a_table_that_begins_above_0_keeps_its_ends(page):
    def change(data_set):
        table = item(LUTDescriptor=[100, 500, 8])
        table.add_new("LUTData", "US", np.linspace(10, 245, 100).astype(int).tolist())
        data_set.VOILUTSequence = sequence(table)

    shown = page(RAMP, change=change)
    assert (shown[RAMP <= 500] == 10).all() and (shown[RAMP >= 600] == 245).all()


@pytest.mark.parametrize("kind", ["US", "SS"])
def test_a_table_for_negative_values_may_be_written_without_signs(page, kind):
    """From -1000: black there, white from 0; entries above 32767 are no negative ones."""
    entries = np.linspace(0, 65535, 1000).astype("<u2")

    def change(data_set):
        table = pydicom.Dataset()
        first = -1000 if kind == "SS" else 65536 - 1000
        table.add_new("LUTDescriptor", kind, [1000, first, 16])
        kinds = {"US": "<u2", "SS": "<i2"}
        table.add_new("LUTData", kind, entries.view(kinds[kind]).tolist())
        data_set.VOILUTSequence = sequence(table)
        data_set.RescaleSlope, data_set.RescaleIntercept = 1, -1000

    shown = page(RAMP, change=change)
    np.testing.assert_allclose(shown, 255 * RAMP / 999, atol=1)


# --- what is white, what is outside ---


def test_dicom_in_which_white_is_low_is_turned_round(page):
    plain = page(RAMP).astype(int)
    for change in (None, tags(PresentationLUTShape="INVERSE")):
        turned = page(RAMP, photometric="MONOCHROME1", change=change)
        np.testing.assert_allclose(turned, 255 - plain, atol=1)
    turned = page(BYTES, bits=8, photometric="MONOCHROME1")
    np.testing.assert_array_equal(turned, 255 - BYTES)


def test_a_negative_slope_turns_8_bits_round(page):
    change = tags(RescaleSlope=-1, RescaleIntercept=255)
    np.testing.assert_array_equal(page(BYTES, bits=8, change=change), 255 - BYTES)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("padding", [{}, {"PixelPaddingRangeLimit": -30000}])
def test_padding_is_black_and_decides_nothing(page, photometric, padding):
    padded = RAMP - 100
    padded[:, :3] = -32768
    padded[0, 0] = -30000 if padding else -32768
    shown = page(
        padded,
        signed=1,
        photometric=photometric,
        change=tags(PixelPaddingValue=-32768, **padding),
    )
    assert not shown[:, :3].any()
    assert int(shown[:, 3:].max()) - int(shown[:, 3:].min()) > 250


def test_one_bit_is_black_or_white(page):
    def one_bit(data_set):
        data_set.BitsAllocated = data_set.BitsStored = 1
        data_set.HighBit = 0
        data_set.PixelData = np.packbits(BYTES > 100, bitorder="little").tobytes()

    shown = page(BYTES, bits=8, change=one_bit)
    np.testing.assert_array_equal(shown, np.where(BYTES > 100, 255, 0))


def test_12_bits_in_16_are_signed_as_the_file_says(page):
    def twelve(data_set):
        data_set.BitsStored, data_set.HighBit = 12, 11

    values = np.arange(-1000, 1000, 10).reshape(10, 20)
    np.testing.assert_array_equal(
        page(values, signed=1, change=twelve), images.to_8_bits(values)
    )


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_12_bits_lie_where_the_file_says(page, signed, high):
    """Old files put them above others, which hold anything."""

    def twelve(data_set):
        data_set.BitsStored, data_set.HighBit = 12, high
        noise = np.random.default_rng(0).integers(0, 65536, RAMP.shape)
        used = (2**12 - 1) << (high - 11)
        pixels = (values << (high - 11)) & used | noise & ~used
        data_set.PixelData = pixels.astype("<u2").tobytes()

    values = RAMP - 500 if signed else RAMP
    shown = page(RAMP, signed=signed, change=twelve)
    np.testing.assert_array_equal(shown, images.to_8_bits(values))


@pytest.mark.parametrize("tag", ["FloatPixelData", "DoubleFloatPixelData"])
def test_pixels_that_are_real_numbers(page, tag):
    kind = "<f4" if tag == "FloatPixelData" else "<f8"
    values = RAMP / 1e6
    values[0, 0] = np.nan

    def real(data_set):
        for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(data_set, name)
        data_set.BitsAllocated = 32 if tag == "FloatPixelData" else 64
        setattr(data_set, tag, values.astype(kind).tobytes())

    np.testing.assert_allclose(
        page(RAMP, change=real).astype(int), images.to_8_bits(values), atol=1
    )


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (tags(PixelSpacing=[2, 1]), (20, 20)),
        (tags(PixelSpacing=[0.5, 1]), (10, 40)),
        (tags(ImagerPixelSpacing=[2, 1]), (20, 20)),
        (tags(PixelAspectRatio=["2", "1"]), (20, 20)),
        (tags(PixelSpacing=[0.46875, 0.4687]), (10, 20)),
        (tags(PixelSpacing=[1, 1], PixelAspectRatio=["2", "1"]), (10, 20)),
        (tags(PixelSpacing=[0, 1]), (10, 20)),
        (tags(PixelSpacing=[1000, 1]), (10, 20)),
        (tags(PixelSpacing=[2]), (10, 20)),
        (tags(PixelSpacing=None), (10, 20)),
    ],
)
def test_pixels_that_are_no_squares_become_squares(page, change, shape):
    assert page(RAMP, change=change).shape == shape


def test_a_head_stays_round_whatever_the_shape_of_its_pixels(page):
    rows, columns = np.mgrid[:100, :100]
    head = np.uint8(200 * ((rows - 50) ** 2 + (columns - 50) ** 2 < 40**2))
    flat = cv2.resize(head, (100, 50), interpolation=cv2.INTER_AREA)
    shown = page(flat, bits=8, change=tags(PixelSpacing=[2, 1]))
    _, _, width, height = images.head_frame(shown)
    assert width == pytest.approx(height, abs=4)


def test_the_shape_of_pixels_may_stand_in_a_group(tmp_path, dicom):
    def enhanced(data_set):
        measures = item(PixelMeasuresSequence=sequence(item(PixelSpacing=[2, 1])))
        data_set.SharedFunctionalGroupsSequence = sequence(measures)

    dicom(tmp_path / "scan.dcm", np.stack([RAMP, RAMP]), change=enhanced)
    assert [page.shape for page in pages_of(tmp_path / "scan.dcm")] == [(20, 20)] * 2


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_wrong_number_of_frames_is_no_part_of_the_file(
    tmp_path, dicom, frames, compressed
):
    def wrong(data_set):
        if compressed:
            data_set.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        data_set.NumberOfFrames = frames

    dicom(tmp_path / "scan.dcm", np.stack([RAMP, RAMP]), change=wrong)
    pages, problem = readers.read_pages(tmp_path / "scan.dcm")
    assert pages == [] and problem


def test_the_lowest_of_all_values_is_no_overflow(page):
    values = np.linspace(-32768, 32767, 200).reshape(10, 20).round()
    np.testing.assert_array_equal(page(values, signed=1), images.to_8_bits(values))


# --- color ---

COLORS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype="uint8")
GRAY = cv2.cvtColor(COLORS, cv2.COLOR_RGB2GRAY)


def test_color_is_as_gray_as_in_any_other_file(page, tmp_path):
    np.testing.assert_array_equal(page(COLORS, bits=8, photometric="RGB"), GRAY)
    cv2.imwrite(str(tmp_path / "scan.png"), COLORS[..., ::-1])
    (other,) = pages_of(tmp_path / "scan.png")
    np.testing.assert_allclose(other.astype(int), GRAY, atol=1)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_one_value_a_pixel_is_gray_whatever_is_said_of_colors(page, photometric):
    """As in files that were converted to gray."""
    np.testing.assert_array_equal(page(RAMP, photometric=photometric), page(RAMP))


def test_three_values_a_pixel_are_colors_whatever_is_said_of_gray(page):
    shown = page(COLORS, bits=8, photometric="MONOCHROME2")
    np.testing.assert_array_equal(shown, GRAY)


def test_color_of_16_bits_in_planes(page):
    def planes(data_set):
        data_set.PlanarConfiguration = 1
        deep = COLORS.transpose(2, 0, 1).astype("<u2") * 257
        data_set.PixelData = deep.tobytes()

    shown = page(COLORS, photometric="RGB", change=planes)
    np.testing.assert_allclose(shown.astype(int), GRAY, atol=1)


def test_color_as_luminance_and_chrominance(page):
    from pydicom.pixels import convert_color_space

    parts = convert_color_space(COLORS, "RGB", "YBR_FULL")
    shown = page(parts, bits=8, photometric="YBR_FULL")
    np.testing.assert_allclose(shown.astype(int), GRAY, atol=2)


@pytest.mark.parametrize("bits", [8, 16])
def test_numbers_of_palette_entries_are_no_grays(page, bits):
    """From white to black, so that the smallest number is the brightest."""
    index = np.tile(np.arange(0, 256, 8, dtype="uint8"), (16, 1))

    def palette(data_set):
        entries = np.linspace(2**bits - 1, 0, 256).astype(f"<u{bits // 8}")
        for color in ("Red", "Green", "Blue"):
            name = f"{color}PaletteColorLookupTable"
            setattr(data_set, f"{name}Descriptor", [256, 0, bits])
            setattr(data_set, f"{name}Data", entries.tobytes())

    shown = page(index, bits=8, photometric="PALETTE COLOR", change=palette)
    np.testing.assert_allclose(shown.astype(int), 255 - index.astype(int), atol=1)


def test_a_palette_of_fewer_entries_than_values_keeps_its_ends(page):
    index = np.tile(np.arange(0, 600, 20), (16, 1))

    def palette(data_set):
        for color in ("Red", "Green", "Blue"):
            name = f"{color}PaletteColorLookupTable"
            setattr(data_set, f"{name}Descriptor", [100, 200, 8])
            setattr(data_set, f"{name}Data", bytes(range(100, 200)))

    shown = page(index, photometric="PALETTE COLOR", change=palette)
    np.testing.assert_array_equal(shown, np.clip(index - 200, 0, 99) + 100)


# --- what files leave empty, or have wrong ---


@pytest.mark.parametrize(
    "change",
    [
        tags(RescaleSlope=None, RescaleIntercept=None),
        tags(RescaleSlope="1", RescaleIntercept=None),
        tags(RescaleSlope=None, RescaleIntercept="0"),
        tags(RescaleSlope="0", RescaleIntercept="0"),
        tags(WindowCenter="500", WindowWidth="0"),
        tags(WindowCenter="500", WindowWidth="-3"),
        tags(WindowCenter=None, WindowWidth="100"),
        tags(WindowCenter="500"),
        tags(NumberOfFrames="0"),
        tags(NumberOfFrames=None),
        tags(VOILUTSequence=[], ModalityLUTSequence=[]),
        tags(PixelPaddingValue=None),
        tags(PlanarConfiguration=0),
        tags(PhotometricInterpretation=None),
        tags(PresentationLUTShape=None),
        tags(SamplesPerPixel=None),
        tags(PixelRepresentation=None),
        tags(BitsStored=None),
        tags(PerFrameFunctionalGroupsSequence=[], SharedFunctionalGroupsSequence=[]),
    ],
)
def test_what_is_empty_or_unusable_is_as_if_it_were_absent(page, change):
    np.testing.assert_array_equal(page(RAMP, change=change), images.to_8_bits(RAMP))


@pytest.mark.parametrize("value", ["50,0", "n.a.", "1\\x", "NaN", "1e999"])
@pytest.mark.parametrize(
    "tag", ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"]
)
def test_a_value_that_is_no_number_is_as_if_it_were_absent(tmp_path, dicom, tag, value):
    file = tmp_path / "scan.dcm"
    placeholder = "5" * (len(value) + len(value) % 2)
    other = {"WindowCenter": "WindowWidth", "WindowWidth": "WindowCenter"}.get(tag)
    more = {other: "100"} if other else {}
    dicom(file, RAMP, change=tags(**{tag: placeholder}, **more))
    content = file.read_bytes()
    assert content.count(placeholder.encode()) == 1
    bad = value.ljust(len(placeholder)).encode()
    file.write_bytes(content.replace(placeholder.encode(), bad))
    np.testing.assert_array_equal(pages_of(file)[0], images.to_8_bits(RAMP))


@pytest.mark.parametrize("tag", ["Rows", "Columns", "BitsAllocated"])
@pytest.mark.parametrize("value", [0, None])
def test_without_the_size_there_is_no_image(tmp_path, dicom, tag, value):
    file = dicom(tmp_path / "scan.dcm", RAMP, change=tags(**{tag: value}))
    assert re.search(f"^DICOM without .*{tag}", readers.read_pages(file)[1])


def test_without_pixels_there_is_no_image(tmp_path, dicom):
    def report(data_set):
        del data_set.PixelData

    file = dicom(tmp_path / "report.dcm", RAMP, change=report)
    assert readers.read_pages(file) == ([], "DICOM without an image")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (tags(PhotometricInterpretation="HSV"), "in colors that pydicom does not know"),
        (tags(PhotometricInterpretation="PALETTE COLOR"), "without its palette"),
        (tags(SamplesPerPixel=4), "of 4 values a pixel: 1 or 3 are known"),
    ],
)
def test_colors_that_are_not_known_are_a_sentence(tmp_path, dicom, change, problem):
    file = dicom(tmp_path / "scan.dcm", RAMP, change=change)
    assert readers.read_pages(file) == ([], f"DICOM {problem}")


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path, dicom):
    huge = tags(Rows=65535, Columns=65535)
    file = dicom(tmp_path / "scan.dcm", RAMP, change=huge)
    assert readers.read_pages(file) == ([], "larger than 67 million pixels")


def test_part_of_an_image_is_never_taken_for_a_scan(tmp_path, dicom):
    file = dicom(tmp_path / "scan.dcm", np.stack([RAMP, RAMP]))
    content = file.read_bytes()
    for share in np.linspace(0.01, 0.99, 40):
        file.write_bytes(content[: int(share * len(content))])
        pages, problem = readers.read_pages(file)
        assert pages == [] and problem


# --- headers and compressions ---


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian", "deflated"])
@pytest.mark.parametrize("header", [True, False])
def test_any_way_to_write_numbers_with_and_without_a_header(
    tmp_path, dicom, syntax, header
):
    file = dicom(tmp_path / "scan.dcm", RAMP, change=window(500, 200))
    expected = pages_of(file)[0]
    data_set = pydicom.dcmread(file)
    kinds = {
        "implicit": pydicom.uid.ImplicitVRLittleEndian,
        "explicit": pydicom.uid.ExplicitVRLittleEndian,
        "big endian": pydicom.uid.ExplicitVRBigEndian,
        "deflated": pydicom.uid.DeflatedExplicitVRLittleEndian,
    }
    data_set.file_meta.TransferSyntaxUID = kinds[syntax]
    if syntax == "big endian":
        data_set.PixelData = RAMP.astype(">u2").tobytes()
    if header:
        pydicom.dcmwrite(file, data_set, enforce_file_format=True)
    elif syntax == "deflated":
        pytest.skip("nothing says that it is")
    else:
        del data_set.file_meta
        is_implicit = syntax == "implicit"
        is_little = syntax != "big endian"
        pydicom.dcmwrite(
            file, data_set, implicit_vr=is_implicit, little_endian=is_little
        )
    np.testing.assert_array_equal(pages_of(file)[0], expected)


def test_compressed_dicom_is_read_as_the_plain_one(tmp_path, dicom):
    both = np.stack([RAMP, RAMP[:, ::-1]])
    plain = pages_of(dicom(tmp_path / "plain.dcm", both))

    def compress(data_set):
        data_set.compress(pydicom.uid.RLELossless, generate_instance_uid=False)

    small = pages_of(dicom(tmp_path / "small.dcm", both, change=compress))
    np.testing.assert_array_equal(plain, small)


def test_dicom_whose_compression_needs_a_plugin_says_so_and_nothing_of_the_patient(
    tmp_path, dicom
):
    def other_compression(data_set):
        data_set.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        data_set.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless

    file = dicom(tmp_path / "scan.dcm", RAMP, change=other_compression)
    pages, problem = readers.read_pages(file)
    assert pages == [] and "pylibjpeg" in problem
    assert not any(secret in problem for secret in SECRETS)


@pytest.mark.parametrize(
    ("syntax", "name"),
    [("1.2.840.10008.1.2.4.100", r" \(MPEG2 .*\)"), ("LOVELACE^ADA\n", "")],
)
def test_a_compression_that_is_not_known_is_named_if_it_has_a_name(
    tmp_path, dicom, syntax, name
):
    file = dicom(tmp_path / "scan.dcm", RAMP)
    known = b"1.2.840.10008.1.2.1\0"
    content = file.read_bytes()
    other = syntax.encode().ljust(len(known), b"\0")
    length = content.index(known) - 2
    content = content.replace(known, other)
    content = (
        content[:length] + len(other).to_bytes(2, "little") + content[length + 2 :]
    )
    file.write_bytes(content)
    problem = readers.read_pages(file)[1]
    pattern = f"DICOM in a compression that pydicom does not know{name}"
    assert re.fullmatch(pattern, problem)


def test_no_word_of_a_tag_is_shown_or_warned_of(tmp_path, dicom, capfd):
    """Whatever tag holds what it should not: pydicom's own words would quote it."""
    file = dicom(tmp_path / "scan.dcm", RAMP, change=tags(WindowCenter="555555555555"))
    content = file.read_bytes()
    for wrong in (b"LOVELACE^ADA", b"MRN-1815    "):
        file.write_bytes(content.replace(b"555555555555", wrong))
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            problem = readers.read_pages(file)[1]
        shown = problem + "".join(capfd.readouterr())
        assert not any(secret in shown for secret in SECRETS)
    assert not any("Patient" in tag for tag in dicom_reader.TAGS)


def test_without_pydicom_the_remedy_is_named(tmp_path, monkeypatch):
    (tmp_path / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    problem = "DICOM needs pydicom: pip install pydicom"
    assert readers.read_pages(tmp_path / "scan.dcm") == ([], problem)


# --- the test files that pydicom ships ---

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
# what needs a plugin that is not installed here, is damaged, or holds no image
UNREADABLE = (
    "plugin|no whole image|without an image|without the size|compressed|cannot read"
)


def shipped():
    """All of them, by their paths."""
    files = [file for file in SHIPPED.rglob("*") if file.is_file()]
    return sorted(file.relative_to(SHIPPED).as_posix() for file in files)


def test_the_files_that_pydicom_ships_give_pages_or_a_sentence():
    read = 0
    for name in shipped():
        pages, problem = readers.read_pages(SHIPPED / name)
        assert bool(pages) != bool(problem), name
        assert not problem or re.search(UNREADABLE, problem), (name, problem)
        for page in pages:
            assert page.dtype == "uint8" and page.ndim == 2, name
        read += len(pages)
    assert read > 100


@pytest.mark.parametrize(
    "name",
    ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "padded"],
)
def test_one_scan_that_pydicom_ships_is_the_same_in_all_its_forms(name):
    expected = pages_of(SHIPPED / "MR_small.dcm")
    if name == "jp2klossless":
        pytest.importorskip("PIL", reason="Pillow reads JPEG 2000")
    np.testing.assert_array_equal(pages_of(SHIPPED / f"MR_small_{name}.dcm"), expected)


@pytest.mark.parametrize(
    "name", ["examples_rgb_color", "SC_rgb_rle", "SC_rgb_rle_16bit", "SC_rgb_rle_32bit"]
)
def test_colors_that_pydicom_ships_are_as_gray_as_their_own_values(name):
    data_set = pydicom.dcmread(SHIPPED / f"{name}.dcm")
    colors = data_set.pixel_array / (2.0**data_set.BitsStored - 1)
    expected = 255 * colors @ [0.299, 0.587, 0.114]
    (page,) = pages_of(SHIPPED / f"{name}.dcm")
    np.testing.assert_allclose(page, expected, atol=1)
