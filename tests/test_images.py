"""How does an image file become pixels? One rule, whatever the depth, for everybody who reads scans."""

import io
import struct
import subprocess
import sys

from braintumor import images
from braintumor.app import readers

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype="uint8")
PLASMA = cv2.GaussianBlur(NOISE[..., 0], (0, 0), 3)
DEEP = np.linspace(0, 4095, 2000).reshape(40, 50).astype("uint16")


def saved(image, form, **options):
    """The bytes of an image file that Pillow writes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, **options)
    return np.frombuffer(file.getvalue(), "uint8")


FORMATS = ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_of_8_bits_are_what_opencv_calls_gray(form, channels):
    image = NOISE[..., :channels].squeeze().copy()
    if channels in (2, 4):
        image[..., -1] = 255  # opaque
    try:
        content = saved(image, form)
    except OSError:
        pytest.skip(f"{form} knows no images of {channels} channels")
    pixels, problem = images.decode(content)
    expected = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(pixels, expected)
    assert problem == ""


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp"])
@pytest.mark.parametrize("image", [NOISE[..., :3], DEEP], ids=["8 bits", "16 bits"])
def test_training_and_classify_see_the_same_pixels(tmp_path, name, image):
    if image is DEEP and name not in ("a.png", "a.tif"):
        pytest.skip("no format of 16 bits")
    cv2.imwrite(str(tmp_path / name), image)
    (page,), problem = readers.read_pages(tmp_path / name)
    assert problem == "" and page.dtype == "uint8"
    np.testing.assert_array_equal(page, images.read_scan(tmp_path / name))


@pytest.mark.parametrize("image", [DEEP, np.int32(DEEP) - 2000, np.float32(DEEP) / 7e9])
def test_scans_of_more_than_8_bits_use_all_grays_whatever_their_type(tmp_path, image):
    content = saved(image, "TIFF")
    pixels, problem = images.decode(content)
    assert problem == "" and pixels.dtype == "uint8"
    assert len(np.unique(pixels)) == 256
    np.testing.assert_allclose(
        pixels, np.linspace(0, 255, 2000).reshape(40, 50), atol=1.5
    )


def test_one_hot_pixel_leaves_contrast():
    hot = DEEP.copy()
    hot[0, 0] = 65535
    rest = images.to_8_bits(hot)[1:]
    assert rest.min() < 10 and rest.max() > 250


def test_values_that_are_no_numbers_are_black_and_decide_nothing():
    holes = DEEP.astype(float)
    holes[0, :3] = [np.nan, np.inf, -np.inf]
    pixels = images.to_8_bits(holes)
    assert pixels[0, :3].tolist() == [0, 255, 0]
    np.testing.assert_allclose(pixels[1:], images.to_8_bits(DEEP)[1:], atol=1)
    assert not images.to_8_bits(np.full((4, 4), np.nan)).any()


@pytest.mark.parametrize("value", [0, 7, 4095, -3.5, 1e300])
def test_a_scan_of_one_value_is_black(value):
    assert not images.to_8_bits(np.full((4, 5), value, "float64")).any()


def test_few_bright_pixels_on_black_are_seen():
    dots = np.zeros((100, 100), "uint16")
    dots[50, 50:52] = 900
    assert images.to_8_bits(dots)[50, 50] == 255


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(width=64), min_size=1, max_size=40),
    st.sampled_from(["uint16", "int16", "int32", "int64", "float32", "float64"]),
)
def test_any_numbers_become_bytes_in_the_same_order(values, kind):
    with np.errstate(all="ignore"):
        values = np.array(values).astype(kind)
    pixels = images.to_8_bits(values)
    assert pixels.dtype == "uint8" and pixels.shape == values.shape
    finite = np.isfinite(values)
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(pixels[finite][order].astype(int)) >= 0).all()


@pytest.mark.parametrize("name", ["long.png", "long.tif"])
def test_a_line_that_would_be_a_huge_square_is_refused(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), np.zeros((20_000, 3), "uint8"))
    problem = "longer than 16,384 pixels"
    assert images.examine(tmp_path / name) == (None, problem)
    assert readers.read_pages(tmp_path / name) == ([], problem)
    longest = np.tile(np.arange(256, dtype="uint8"), 64)[None]
    square = images.to_square(longest, 32, "head").pixels
    assert square.shape == (32, 32)


# --- what is transparent, or white where others are black ---

SHAPE = np.zeros((40, 50), bool)
SHAPE[10:30, 15:35] = True


def cut_out(form):
    """A gray square on nothing, under which white lies, as a file."""
    colors = np.where(SHAPE[..., None], 100, 255).astype("uint8").repeat(4, axis=2)
    colors[..., 3] = np.where(SHAPE, 255, 0)
    if form == "PNG of 16 bits":
        deep = colors.astype("uint16") * 257
        return cv2.imencode(".png", deep)[1]
    if form == "PNG of two channels":
        return saved(colors[..., [0, 3]], "PNG")
    if form in ("GIF", "PNG with a palette"):
        picture = Image.fromarray(np.uint8(SHAPE), "P")
        picture.putpalette([255, 255, 255, 100, 100, 100])
        file = io.BytesIO()
        picture.save(file, form[:3], transparency=0)
        return np.frombuffer(file.getvalue(), "uint8")
    if form == "PNG with a gray that is transparent":
        return saved(colors[..., 0], "PNG", transparency=255)
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    return saved(colors, form, **options)


TRANSPARENT = [
    "PNG",
    "PNG of 16 bits",
    "PNG of two channels",
    "PNG with a palette",
    "PNG with a gray that is transparent",
    "GIF",
    "WEBP",
    "TIFF",
    "JPEG2000",
]


@pytest.mark.parametrize("form", TRANSPARENT)
def test_what_is_transparent_is_black_whatever_lies_under_it(tmp_path, form):
    content = cut_out(form)
    pixels, problem = images.decode(content)
    assert problem == "" and not pixels[~SHAPE].any()
    # a single value among more than 8 bits cannot be spread
    if form != "PNG of 16 bits":
        assert (pixels[SHAPE] == 100).all()
    content.tofile(tmp_path / "scan")
    np.testing.assert_array_equal(readers.read_pages(tmp_path / "scan")[0], [pixels])


def test_what_is_transparent_turns_with_the_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    opacity = np.tile(np.linspace(0, 255, 50).astype("uint8"), (40, 1))
    content = saved(np.dstack([NOISE[..., :3], opacity]), "PNG", exif=exif)
    (found,) = images.opacities(content, pages=1)
    np.testing.assert_array_equal(found, np.rot90(opacity, -1))
    assert images.decode(content)[0].shape == (50, 40)


def gray_tiff(values, photometric):
    """A TIFF file of one page that says what is white."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    content = bytearray(file.getvalue())
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", content, entry) == (262,):
            struct.pack_into("<H", content, entry + 8, photometric)
    return np.frombuffer(content, "uint8")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "float32"])
def test_a_tiff_in_which_white_is_zero_is_turned_round(kind):
    values = (DEEP // 16).astype(kind)
    plain, _ = images.decode(gray_tiff(values, photometric=1))
    turned, problem = images.decode(gray_tiff(values, photometric=0))
    assert problem == ""
    np.testing.assert_allclose(turned.astype(int), 255 - plain.astype(int), atol=1)


def test_a_file_that_is_damaged_is_not_talked_about(tmp_path):
    """OpenCV would print its own words, with places in its source code."""
    content = gray_tiff(np.uint8(PLASMA), photometric=1).tobytes()
    bits = struct.pack("<HHII", 258, 3, 1, 8)
    (tmp_path / "odd.tif").write_bytes(content.replace(bits, bits[:8] + b"\4\0\0\0"))
    code = "import sys; from braintumor.app import readers; from pathlib import Path; "
    code += "print(readers.read_pages(Path(sys.argv[1]))[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "odd.tif"],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("no whole image\n", "")


# --- files that are damaged ---


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_an_end_of_zeros_is_no_part_of_a_jpeg_2000(share):
    """As a file has that a download reserved, and did not fill."""
    content = saved(PLASMA, "JPEG2000").copy()
    content[int(share * len(content)) :] = 0
    assert images.decode(content) == (None, images.NOT_WHOLE)


@pytest.mark.parametrize("seed", range(20))
def test_a_byte_that_changed_in_a_moving_png_leaves_no_pixels_to_chance(seed):
    """OpenCV checks no checksum there, and leaves rows as the memory was before."""
    frame = Image.fromarray(PLASMA)
    content = saved(PLASMA, "PNG", save_all=True, append_images=[frame]).copy()
    assert images.decode(content)[1] == ""
    data = content.tobytes().index(b"IDAT") + 8
    place = np.random.default_rng(seed).integers(data, data + PLASMA.size // 2)
    content[place] ^= 0b1010101
    assert images.decode(content) == (None, images.NOT_WHOLE)


def tiff(pages=1, compression="tiff_lzw", depth=8, tiles=False):
    """A TIFF file of equal pages in several strips, and where these lie."""
    image = np.tile(PLASMA, (4, 4))
    picture = Image.fromarray(image if depth == 8 else np.uint16(image) * 16)
    file = io.BytesIO()
    more = {"save_all": True, "append_images": [picture] * (pages - 1)}
    strip_size = TiffImagePlugin.STRIP_SIZE
    TiffImagePlugin.STRIP_SIZE = 4000
    try:
        picture.save(file, "TIFF", compression=compression, **more)
    finally:
        TiffImagePlugin.STRIP_SIZE = strip_size
    strips = []
    with Image.open(file) as written:
        for page in range(pages):
            written.seek(page)
            tags = written.tag_v2
            strips.append(list(zip(tags[273], tags[279], strict=True)))
    return bytearray(file.getvalue()), strips


def damaged(content, strip):
    """The file with one strip that no decoder understands."""
    start, length = strip
    content[start : start + length] = b"\xff" * length
    return np.frombuffer(content, "uint8")


COMPRESSIONS = ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_strip_that_cannot_be_decoded_is_no_black_stripe(compression):
    content, (strips,) = tiff(compression=compression)
    assert len(strips) > 2
    pixels, problem = images.decode(np.frombuffer(content, "uint8"))
    assert problem == "" and pixels.any()
    assert images.decode(damaged(content, strips[1])) == (None, images.NOT_WHOLE)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("page", [0, 1, 2])
def test_a_page_that_is_damaged_is_named(tmp_path, compression, page):
    content, strips = tiff(pages=3, compression=compression)
    file = tmp_path / "three.tif"
    file.write_bytes(content)
    pages, problem = readers.read_pages(file)
    assert (len(pages), problem) == (3, "")
    file.write_bytes(damaged(content, strips[page][1]))
    assert readers.read_pages(file) == ([], f"page {page + 1}: no whole image")


@pytest.mark.parametrize("depth", [8, 16])
def test_a_tiff_that_was_cut_is_never_read_as_fewer_pages(tmp_path, depth):
    content, _ = tiff(pages=3, depth=depth)
    file = tmp_path / "cut.tif"
    for share in np.linspace(0.02, 0.98, 25):
        file.write_bytes(content[: int(share * len(content))])
        pages, problem = readers.read_pages(file)
        assert pages == [] and "no whole image" in problem


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_big_tiff_is_read(tmp_path, order):
    """BigTIFF, whose offsets have 64 bits; two pages, uncompressed."""
    image = DEEP[:, :32]
    kind = {"<": b"II", ">": b"MM"}[order]
    content = kind + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    for page in range(2):
        pixels = (image + page).astype(order + "u2").tobytes()
        tags = {256: 32, 257: 40, 258: 16, 259: 1, 262: 1, 277: 1, 278: 40}
        tags[279] = len(pixels)
        start = len(content)
        tags[273] = start + 8 + 20 * (len(tags) + 1) + 8
        following = tags[273] + len(pixels) if page == 0 else 0
        content += struct.pack(order + "Q", len(tags))
        for tag, value in sorted(tags.items()):
            content += struct.pack(order + "HHQQ", tag, 16, 1, value)
        content += struct.pack(order + "Q", following) + pixels
    file = tmp_path / "big.tif"
    file.write_bytes(content)
    (first, second), problem = readers.read_pages(file)
    assert problem == "" and first.shape == (40, 32)
    np.testing.assert_array_equal(first, images.read_scan(file))
    np.testing.assert_array_equal(first, images.to_8_bits(image))
    np.testing.assert_array_equal(first, second)


def test_a_tiff_whose_pages_go_round_in_circles_ends(tmp_path):
    content, _ = tiff(pages=2, compression="raw")
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    (second,) = struct.unpack_from("<I", content, first + 2 + 12 * entries)
    (entries,) = struct.unpack_from("<H", content, second)
    struct.pack_into("<I", content, second + 2 + 12 * entries, first)
    (tmp_path / "circle.tif").write_bytes(content)
    pages, problem = readers.read_pages(tmp_path / "circle.tif")
    assert (len(pages), problem) == (2, "")
