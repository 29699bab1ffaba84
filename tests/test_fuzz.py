"""Files that nobody would write on purpose: pages or a sentence, and never more harm.

Strategies build DICOM, TIFF and PNG from their parts, with parts missing, empty, wrong or damaged; others damage whole
files. The suite tries the same few every time; BRAINTUMOR_FUZZ=20000 tries so many others of each kind.
"""

import io
import os
import struct
import zlib

from braintumor import images
from braintumor.app import cards, dicom, engines, readers

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

EXAMPLES = int(os.environ.get("BRAINTUMOR_FUZZ", 0))
often = settings(
    max_examples=EXAMPLES or 100,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the files are written, one over the other."""
    return tmp_path_factory.mktemp("fuzz")


def try_file(folder, content):
    """Read a file as all readers do, and check what comes."""
    file = folder / "scan"
    file.write_bytes(content)
    found = readers.read_image(file)
    assert bool(found.pages) != bool(found.problem)
    assert len(found.problem) < 400 and len(found.problem.splitlines()) <= 1
    for page in found.pages:
        assert page.dtype == np.uint8 and page.ndim == 2 and page.size
    for page in found.pages[:2]:
        for frame in ("scan", "head"):
            assert images.to_square(page, 32, frame).pixels.shape == (32, 32)
    pixels, problem = images.examine(file)
    assert (pixels is None) == bool(problem)
    if pixels is not None and found.pages:
        np.testing.assert_array_equal(pixels, found.pages[0])


def damaged(content, damage):
    """A file with some bytes changed and an end cut off or added."""
    content = bytearray(content)
    changes, cut, end = damage
    for place, value in changes:
        if content:
            content[int(place * len(content))] = value
    return bytes(content[: int(cut * len(content))]) + end


shares = st.floats(0, 1, exclude_max=True)
byte = st.integers(0, 255)
some_damage = st.tuples(
    st.lists(st.tuples(shares, byte), max_size=6),
    st.one_of(st.just(1.0), st.floats(0, 1)),
    st.one_of(st.just(b""), st.binary(max_size=20)),
)
no_damage = st.just(([], 1.0, b""))
maybe_damage = st.one_of(no_damage, some_damage)


# --- DICOM ---

LONG = (b"OB", b"OW", b"OF", b"OD", b"SQ", b"UN", b"UT")


def element(tag, kind, value):
    """An element of a data set, explicit and little endian."""
    group, number = divmod(tag, 0x10000)
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH", group, number) + kind
    if kind in LONG:
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value) % 0x10000) + value


def short(*values):
    """Whole numbers of two bytes."""
    return struct.pack(f"<{len(values)}H", *values)


def items(*data_sets):
    """The items of a sequence."""
    parts = []
    for data_set in data_sets:
        parts.append(struct.pack("<HHI", 0xFFFE, 0xE000, len(data_set)) + data_set)
    return b"".join(parts)


numbers = st.one_of(
    st.sampled_from([b"", b"0", b"1", b"-1", b"0.5", b"500\\40", b"1e400", b"50,0"]),
    st.sampled_from([b"NaN", b"abc", b"\\", b" 12 ", b"\xff\xfe", b"9" * 40]),
    st.integers(-5000, 5000).map(lambda number: str(number).encode()),
    st.floats().map(lambda number: repr(number).encode()[:16]),
)
pairs = st.one_of(numbers, st.tuples(numbers, numbers).map(b"\\".join))
shorts = st.one_of(
    st.just(b""),
    st.integers(0, 65535).map(short),
    st.lists(st.integers(0, 65535), max_size=4).map(lambda values: short(*values)),
    st.binary(max_size=5),
)
tables = st.tuples(
    st.lists(st.integers(0, 65535), min_size=0, max_size=4),
    st.sampled_from([b"US", b"OW", b"SS"]),
    st.binary(max_size=300),
).map(
    lambda parts: (
        element(0x00283002, b"US", short(*parts[0]))
        + element(0x00283006, parts[1], parts[2])
    )
)
windows = st.tuples(numbers, numbers, st.sampled_from([b"", b"SIGMOID", b"?"])).map(
    lambda parts: (
        element(0x00281050, b"DS", parts[0])
        + element(0x00281051, b"DS", parts[1])
        + element(0x00281056, b"CS", parts[2])
    )
)
rescales = st.tuples(numbers, numbers).map(
    lambda parts: (
        element(0x00281052, b"DS", parts[0]) + element(0x00281053, b"DS", parts[1])
    )
)
groups = st.lists(
    st.one_of(
        windows.map(lambda one: element(0x00289132, b"SQ", items(one))),
        rescales.map(lambda one: element(0x00289145, b"SQ", items(one))),
        st.just(b""),
    ),
    max_size=3,
).map(lambda groups: items(*groups))
# by tag: the kind of the value, what is right for 8 x 6 pixels of 16 bits, what else
PARTS = {
    0x00280002: (b"US", short(1), shorts),
    0x00280004: (
        b"CS",
        b"MONOCHROME2",
        st.sampled_from(
            [b"", b"MONOCHROME1", b"PALETTE COLOR", b"RGB", b"HSV", b"YBR_FULL"]
        ),
    ),
    0x00280006: (b"US", short(0), shorts),
    0x00280008: (b"IS", b"1", numbers),
    0x00280010: (b"US", short(8), shorts),
    0x00280011: (b"US", short(6), shorts),
    0x00280030: (b"DS", b"1\\1", pairs),
    0x00280034: (b"IS", b"1\\1", pairs),
    0x00280100: (b"US", short(16), shorts),
    0x00280101: (b"US", short(12), shorts),
    0x00280102: (b"US", short(11), shorts),
    0x00280103: (b"US", short(0), shorts),
    0x00280120: (b"US", short(0), shorts),
    0x00280121: (b"US", short(9), shorts),
    0x00281050: (b"DS", b"500", numbers),
    0x00281051: (b"DS", b"100", numbers),
    0x00281052: (b"DS", b"0", numbers),
    0x00281053: (b"DS", b"1", numbers),
    0x00281056: (
        b"CS",
        b"LINEAR",
        st.sampled_from([b"", b"SIGMOID", b"LINEAR_EXACT", b"?"]),
    ),
    0x00281101: (b"US", short(16, 0, 16), shorts),
    0x00281102: (b"US", short(16, 0, 16), shorts),
    0x00281103: (b"US", short(16, 0, 16), shorts),
    0x00281201: (b"OW", bytes(range(32)), st.binary(max_size=40)),
    0x00281202: (b"OW", bytes(range(32)), st.binary(max_size=40)),
    0x00281203: (b"OW", bytes(range(32)), st.binary(max_size=40)),
    0x00283000: (b"SQ", b"", tables.map(items)),
    0x00283010: (b"SQ", b"", tables.map(items)),
    0x20500020: (b"CS", b"IDENTITY", st.sampled_from([b"", b"INVERSE", b"?"])),
    0x52009229: (b"SQ", b"", groups),
    0x52009230: (b"SQ", b"", groups),
    0x7FE00010: (b"OW", bytes(range(96)), st.binary(max_size=300)),
}
OPTIONAL = {tag for tag in PARTS if tag not in range(0x00280002, 0x00280104)} - {
    0x7FE00010
}
SYNTAXES = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.3",
]


@st.composite
def dicom_files(draw):
    """A file whose data set is right but for a few of its tags."""
    wrong = draw(st.lists(st.sampled_from(list(PARTS)), max_size=4))
    more = draw(st.lists(st.sampled_from(sorted(OPTIONAL)), max_size=5))
    body = b""
    for tag, (kind, right, others) in PARTS.items():
        if tag in wrong:
            body += draw(
                st.one_of(
                    st.just(b""), others.map(lambda v, t=tag, k=kind: element(t, k, v))
                )
            )
        elif tag not in OPTIONAL or tag in more:
            body += element(tag, kind, right)
    if draw(st.booleans()) and draw(st.booleans()):
        return element(0x00080016, b"UI", b"1.2\0") + body
    syntax = draw(st.sampled_from([SYNTAXES[0], *SYNTAXES])).encode()
    meta = element(0x00020010, b"UI", syntax + b"\0" * (len(syntax) % 2))
    meta = element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta
    return b"\0" * 128 + b"DICM" + meta + body


@often
@given(content=dicom_files(), damage=maybe_damage)
def test_dicom_whatever_its_tags_hold(folder, content, damage):
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    try_file(folder, damaged(content, damage))


def test_the_data_set_that_is_varied_is_right(folder):
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    body = b"".join(
        element(tag, kind, right)
        for tag, (kind, right, _) in PARTS.items()
        if tag not in OPTIONAL
    )
    content = element(0x00080016, b"UI", b"1.2\0") + body
    content += b"\0" * (132 - len(content)) if len(content) < 132 else b""
    (page,) = dicom.read_frames(content)
    assert page.shape == (8, 6) and page.any()


# --- TIFF ---

TIFF_TAGS = [
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
    277,
    278,
    279,
    282,
    284,
    317,
    322,
    323,
    324,
    325,
    338,
    339,
    530,
]


@st.composite
def tiff_files(draw):
    """Some pages, each with tags that are right but for a few."""
    order = draw(st.sampled_from("<>"))
    is_big = draw(st.sampled_from([False, False, True]))
    place, count, entry, start = ("Q", "Q", 20, 16) if is_big else ("I", "H", 12, 8)
    versions = [43, 8, 0] if is_big else [42]
    version = struct.pack(f"{order}{len(versions)}H", *versions)
    content = (
        (b"II" if order == "<" else b"MM") + version + struct.pack(order + place, start)
    )
    pages = draw(st.integers(1, 4))
    for page in range(pages):
        bits = draw(st.sampled_from([8, 8, 16, 32]))
        pixels = draw(st.binary(min_size=6 * bits, max_size=6 * bits))
        compression = draw(st.sampled_from([1, 1, 1, 8, 5, 32773]))
        strip = zlib.compress(pixels) if compression == 8 else pixels
        tags = {256: 8, 257: 6, 258: bits, 259: compression, 262: 1, 273: 0, 277: 1}
        tags |= {278: 6, 279: len(strip)}
        wrong = draw(st.lists(st.sampled_from(TIFF_TAGS), max_size=2))
        for tag in wrong:
            tags[tag] = draw(st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)))
        size = (
            struct.calcsize(order + count) + len(tags) * entry + struct.calcsize(place)
        )
        end = len(content) + size
        if 273 not in wrong:
            tags[273] = end
        following = end + len(strip) if page + 1 < pages else 0
        if draw(st.sampled_from([False] * 9 + [True])):
            following = draw(st.integers(0, end + 9))
        content += struct.pack(order + count, len(tags))
        for tag, value in sorted(tags.items()):
            kind = 16 if is_big else 4
            amount = 1
            if tag in wrong:
                kind = draw(st.sampled_from([1, 2, 3, 4, 5, 11, 16]))
                amount = draw(st.sampled_from([0, 1, 1, 2, 2**31]))
            content += struct.pack(order + "HH" + 2 * place, tag, kind, amount, value)
        content += struct.pack(order + place, following) + strip
    return content


@often
@given(content=tiff_files(), damage=maybe_damage)
def test_tiff_whatever_its_directories_say(folder, content, damage):
    try_file(folder, damaged(content, damage))


# --- PNG ---


def chunk(kind, content, is_right=True):
    """A chunk of a PNG file."""
    code = zlib.crc32(kind + content) ^ (not is_right)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", code)


odd_sizes = st.sampled_from([0, 2**31 - 1, 2**32 - 1, 70_000])
sizes = st.one_of(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), odd_sizes)
MORE_CHUNKS = [b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"zTXt"]


@st.composite
def png_files(draw):
    """Chunks, most of them as they should be."""
    width, height = draw(sizes), draw(sizes)
    depth = draw(st.sampled_from([8, 8, 8, 16, 16, 1, 2, 4, 7]))
    color = draw(st.sampled_from([0, 0, 0, 2, 3, 4, 6, 5]))
    interlace = draw(st.sampled_from([0, 0, 0, 1, 2]))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    channels = {2: 3, 4: 2, 6: 4}.get(color, 1)
    row = draw(st.binary(min_size=1, max_size=60)) * 400
    row = b"\0" + row[: min((width * channels * depth + 7) // 8, 5000)]
    rows = row * min(height, 50)
    if draw(st.sampled_from([False, False, False, True])):
        rows = rows[: draw(st.integers(0, 99))]
    parts = [chunk(b"IHDR", header)]
    if color == 3:
        parts.append(chunk(b"PLTE", bytes(range(48))))
    for kind in draw(st.lists(st.sampled_from(MORE_CHUNKS), max_size=2)):
        parts.append(chunk(kind, draw(st.binary(max_size=48))))
    packed = zlib.compress(rows)
    half = len(packed) // 2
    is_right = draw(st.sampled_from([True, True, True, False]))
    parts.append(chunk(b"IDAT", packed[:half]))
    parts.append(chunk(b"IDAT", packed[half:], is_right))
    parts.append(chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@often
@given(content=png_files(), damage=maybe_damage)
def test_png_whatever_its_chunks_hold(folder, content, damage):
    try_file(folder, damaged(content, damage))


# --- whole files, damaged ---

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 20), dtype="uint8")
IMAGE[5:15, 4:16] = 200


def saved(form, image=IMAGE, pages=1, **options):
    """The bytes of a file that Pillow writes."""
    file = io.BytesIO()
    picture = Image.fromarray(image)
    if pages > 1:
        options |= {"save_all": True, "append_images": [picture] * (pages - 1)}
    picture.save(file, form, **options)
    return file.getvalue()


WHOLE = {
    "jpeg": saved("JPEG"),
    "progressive jpeg": saved("JPEG", progressive=True),
    "png": saved("PNG"),
    "16-bit png": saved("PNG", np.uint16(IMAGE) * 200),
    "moving png": saved("PNG", pages=3),
    "gif": saved("GIF", pages=3),
    "bmp": saved("BMP"),
    "webp": saved("WEBP", pages=2),
    "jpeg 2000": saved("JPEG2000"),
    "lzw": saved("TIFF", pages=3, compression="tiff_lzw"),
    "packbits": saved("TIFF", pages=2, compression="packbits"),
    "tiff of floats": saved(
        "TIFF", np.float32(IMAGE) / 3, compression="tiff_adobe_deflate"
    ),
    "tiff of jpeg": saved("TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("kind", WHOLE)
@often
@given(damage=some_damage)
def test_whole_files_with_damage(folder, kind, damage):
    try_file(folder, damaged(WHOLE[kind], damage))


# --- arrays, cards, checksums, names ---

kinds = st.one_of(
    arrays.scalar_dtypes(),
    arrays.complex_number_dtypes(),
    arrays.unicode_string_dtypes(),
)


@often
@given(arrays.arrays(kinds, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)))
def test_any_array_is_a_page_from_0_to_255_or_a_problem(array):
    found = readers.read_image(array)
    assert bool(found.pages) != bool(found.problem)
    for page in found.pages:
        np.testing.assert_allclose(page, array.astype("float64"), atol=0.51)
        assert page.dtype == np.uint8


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["labels", "image_size", "frame", "threshold"]), inner
        ),
    ),
    max_leaves=8,
)


@often
@given(json_values)
def test_any_json_is_a_card_or_a_sentence(value):
    import json

    try:
        card = cards.read_card(json.dumps(value), "c")
    except ValueError as error:
        assert str(error).startswith("The card of 'c' is not usable")
    else:
        assert len(card["labels"]) > 1 and card["image_size"] > 0


@often
@given(st.one_of(st.text(), st.from_regex(r"[0-9a-fA-F]{63,66}")))
def test_any_text_is_a_checksum_or_a_sentence(text):
    try:
        assert len(engines.parse_sha256(text)) == 64
    except ValueError as error:
        assert "is no sha256" in str(error)


@often
@given(st.binary(max_size=40))
def test_any_name_is_one_line_of_utf_8(name):
    shown = readers.shown_name(os.fsdecode(name))
    assert len(shown.encode().splitlines()) <= 1
