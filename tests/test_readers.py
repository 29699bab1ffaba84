"""From what a person names to gray pixels: files, folders, arrays, whatever their names and content."""

import gzip
import hashlib
import os
import re
import shutil

from braintumor import images
from braintumor.app import readers

import cv2
import numpy as np
import pytest
from PIL import Image

RAMP = np.tile(np.arange(0, 250, 5, dtype="uint8"), (40, 1))


@pytest.fixture
def scan(tmp_path):
    """A scan in a folder of its own."""
    folder = tmp_path / "scans"
    folder.mkdir()
    cv2.imwrite(str(folder / "scan.png"), RAMP)
    return folder / "scan.png"


# --- what is taken from a folder ---


def test_only_files_that_are_seen_are_taken_from_a_folder(scan, capsys):
    folder = scan.parent
    for name in ("._scan.png", "series.dcm/0001.png", ".ipynb_checkpoints/scan.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(scan, folder / name)
    found = [str(file.relative_to(folder)) for file in readers.images_in(folder)]
    assert found == ["scan.png", "series.dcm/0001.png"]
    assert capsys.readouterr() == ("", "")


def test_dicom_is_known_by_its_content_whatever_its_name(scan, dicom):
    folder = scan.parent
    names = ["1.3.12.2.1107.5.2", "A.IMA", "IM000001", "MR"]
    for name in names:
        dicom(folder / name, RAMP)
    header = (folder / "MR").read_bytes()
    (folder / "MR").write_bytes(header[header.index(b"\x08\x00\x16\x00UI") :])
    assert [file.name for file in readers.images_in(folder)] == [*names, "scan.png"]


@pytest.mark.parametrize("form", ["png", "jpg", "tif", "webp", "jp2"])
@pytest.mark.parametrize("name", ["scan", "scan.1", "scan.jfif"])
def test_an_image_is_known_by_its_content_whatever_its_name(tmp_path, form, name):
    cv2.imencode(f".{form}", RAMP)[1].tofile(tmp_path / name)
    assert readers.images_in(tmp_path) == [tmp_path / name]


def test_links_to_folders_are_followed_once(scan, tmp_path):
    """As on clusters, where data lie elsewhere; one link leads back."""
    folder = tmp_path / "named"
    folder.mkdir()
    (folder / "of another").symlink_to(scan.parent)
    (scan.parent / "back").symlink_to(folder)
    (folder / "same").symlink_to(scan.parent)
    assert readers.images_in(folder) == [folder / "of another" / "scan.png"]


def test_what_is_skipped_is_counted_aloud(scan, dicom, capsys):
    folder = scan.parent

    def directory(data_set):
        data_set.SOPClassUID = "1.2.840.10008.1.3.10"

    dicom(folder / "DICOMDIR", RAMP, change=directory)
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    for number in range(7):
        (folder / f"notes {number}.txt").write_text("no scan")
    assert readers.images_in(folder) == [scan]
    assert capsys.readouterr().err == (
        "Skipped 9 that are no images: link.png, DICOMDIR, notes 0.txt, notes 1.txt, "
        "notes 2.txt, ...\n"
    )


@pytest.mark.parametrize("kind", ["1.3.10", "5.1.4.1.1.88.22", "5.1.4.1.1.481.3"])
@pytest.mark.parametrize("name", ["REPORT", "report.dcm"])
def test_dicom_of_a_kind_that_holds_no_image_is_skipped(scan, dicom, kind, name):
    def no_image(data_set):
        data_set.SOPClassUID = f"1.2.840.10008.{kind}"
        del data_set.PixelData

    report = dicom(scan.parent / name, RAMP, change=no_image)
    found = readers.find_images(scan.parent)
    assert found == ([scan], [report])
    # named alone, it is answered: with a sentence
    assert readers.find_images(report).images == [report]
    assert readers.read_pages(report) == ([], "DICOM without an image")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any folder")
def test_a_folder_that_may_not_be_read_is_counted(scan, capsys):
    closed = scan.parent / "closed"
    closed.mkdir(mode=0)
    assert readers.images_in(scan.parent) == [scan]
    assert capsys.readouterr().err == "Skipped 1 that are no images: closed\n"


def test_a_folder_without_images_is_a_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(FileNotFoundError, match="^There is no image in what was named"):
        readers.images_in(tmp_path)


@pytest.mark.parametrize("thing", [3, Image.new("L", (4, 4)), [RAMP.tolist()]])
def test_what_is_no_scan_at_all_is_a_sentence(thing):
    with pytest.raises(TypeError, match="^A scan is a file, a folder or a NumPy array"):
        readers.images_in([thing])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (gzip.compress(b"...", mtime=0), "a compressed file: unpack it first"),
        (b"PK\x03\x04...", "an archive: unpack it first"),
        (b"%PDF-1.7", "a document: save its image as PNG"),
        (bytes(344) + b"n+1\0...", "a volume .NIfTI.: save its slices as PNG"),
        (b"\0\0\0\x18ftypheic...", "HEIC: save it as PNG or JPEG"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1",
            "a pointer of Git LFS, which 'git lfs pull' replaces",
        ),
        (b"<svg>", "no whole image"),
    ],
)
def test_what_people_take_for_an_image_is_called_what_it_is(tmp_path, content, problem):
    (tmp_path / "scan.png").write_bytes(content)
    pages, found = readers.read_pages(tmp_path / "scan.png")
    assert pages == [] and re.fullmatch(problem, found)
    assert images.examine(tmp_path / "scan.png")[1] in (found, images.NOT_WHOLE)


# --- names ---


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("scan.png", "scan.png"),
        ("\u00fcber \u0142 \u4e2d.png", "\u00fcber \u0142 \u4e2d.png"),
        (os.fsdecode(b"b\xfcber.png"), "b\\udcfcber.png"),
        ("two\nlines\t\x1b[2J.png", "two\\nlines\\t\\x1b[2J.png"),
        ("next\u2028line.png", "next\\u2028line.png"),
    ],
)
def test_any_name_can_be_shown_in_a_line(tmp_path, name, shown):
    assert readers.shown_name(name) == shown
    assert readers.shown_name(tmp_path / name) == f"{tmp_path}/{shown}"
    assert len(readers.shown_name(name).encode().splitlines()) == 1


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "", "\udcfc", "no/such/scan.png"])
def test_a_name_that_is_no_file_is_a_problem_and_no_end(name):
    (named,) = readers.images_in([name]) if name else [name]
    pages, problem = readers.read_pages(named)
    assert pages == [] and problem


def test_what_is_no_regular_file_is_a_problem(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert readers.images_in([tmp_path / "pipe"]) == [tmp_path / "pipe"]
    assert readers.read_pages("/dev/null")[1]
    assert readers.read_pages(tmp_path)[1] == "Is a directory"


# --- arrays ---


@pytest.mark.parametrize("kind", ["uint8", "int64", "uint16", "float32", "float64"])
def test_an_array_from_0_to_255_is_taken_whatever_its_type(kind):
    (page,), problem = readers.read_pages(RAMP.astype(kind))
    assert problem == "" and page.dtype == "uint8"
    np.testing.assert_array_equal(page, RAMP)


HOLES = np.where(RAMP > 100, np.nan, RAMP)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (RAMP.astype("uint16") * 257, "values from 0 to 62965: a scan has 0 to 255"),
        (RAMP / 255, "values from 0 to 0.960784: a scan has 0 to 255"),
        (RAMP // 255, "values from 0 to 0: a scan has 0 to 255"),
        (RAMP - 100.0, "values from -100 to 145: a scan has 0 to 255"),
        (RAMP > 100, "holds bool: a scan holds numbers"),
        (RAMP.astype("complex64"), "holds complex64: a scan holds numbers"),
        (RAMP.astype(str), "holds <U3: a scan holds numbers"),
        (RAMP.astype(object), "holds object: a scan holds numbers"),
        (HOLES, "holds values that are no numbers"),
        (np.where(RAMP > 100, np.inf, RAMP), "holds values that are no numbers"),
        (
            np.stack([RAMP] * 3, -1),
            r"has shape \(40, 50, 3\): a scan has \(height, width\)",
        ),
        (RAMP[None], r"has shape \(1, 40, 50\): a scan has \(height, width\)"),
        (RAMP[0], r"has shape \(50,\): a scan has \(height, width\)"),
        (np.array(7), "has no axes: a scan has"),
        (RAMP[:0], "is empty"),
        (np.zeros((1, 20_000)), "is longer than 16,384 pixels"),
    ],
)
def test_an_array_of_another_scale_type_or_shape_is_a_problem(array, problem):
    pages, found = readers.read_pages(array)
    assert pages == [] and re.search(problem, found)


def test_the_remedy_for_values_of_another_scale_gives_what_their_file_gives(tmp_path):
    deep = RAMP.astype("uint16") * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    (page,), _ = readers.read_pages(tmp_path / "deep.png")
    (same,), problem = readers.read_pages(images.to_8_bits(deep))
    assert problem == ""
    np.testing.assert_array_equal(page, same)


# --- files of several pages ---


def test_more_than_eight_bits_are_spread_and_every_page_of_a_tiff_is_read(tmp_path):
    pages = [
        np.linspace(0, most, 600).reshape(20, 30).astype("uint16")
        for most in (4095, 300)
    ]
    cv2.imwritemulti(str(tmp_path / "deep.tiff"), pages)
    found, problem = readers.read_pages(tmp_path / "deep.tiff")
    assert problem == ""
    for page in found:
        assert (page.min(), page.max(), page.dtype) == (0, 255, "uint8")
    assert len(found) == 2


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_every_frame_of_a_moving_picture_is_read(tmp_path, form):
    frames = [Image.fromarray(np.roll(RAMP, shift, axis=1)) for shift in (0, 10, 20)]
    options = {"lossless": True} if form == "WEBP" else {}
    file = tmp_path / "moving"
    frames[0].save(file, form, save_all=True, append_images=frames[1:], **options)
    found, problem = readers.read_pages(file)
    assert (len(found), problem) == (3, "")
    np.testing.assert_array_equal(found[0], images.read_scan(file))
    file.write_bytes(file.read_bytes()[:-30])
    assert readers.read_pages(file) == ([], "no whole image")


def test_the_checksum_is_that_of_the_file(scan):
    found = readers.read_image(scan)
    assert found.sha256 == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert readers.read_image(RAMP).sha256 == ""
    assert readers.read_image(scan.parent / "none.png").sha256 == ""
