"""Phantoms: a synthetic data set that behaves like the real one, but is smaller."""

import hashlib
import shutil
import time
import zipfile
from pathlib import Path

from braintumor import dataset

import cv2
import numpy as np
import pandas as pd
import phantoms
import pytest

SIZE = 96  # px: small files keep these tests fast
COLUMNS = [
    "path",
    "sha256",
    "split",
    "label",
    "group",
    "box_x",
    "box_y",
    "box_w",
    "box_h",
    "label_conflict",
]


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """A small data set on disk: (root, table)."""
    root = tmp_path_factory.mktemp("phantoms") / "sample"
    return root, phantoms.write_phantoms(root, scans=64, seed=3, size=SIZE)


def draw(label, view="axial", seed=0, size=128):
    return phantoms.draw_patient(label, view, np.random.default_rng(seed), size)


# --- the data set ---


def test_the_table_lists_the_files_on_disk(data_set):
    root, table = data_set
    files = [file.relative_to(root).as_posix() for file in root.rglob("*.jpg")]
    assert table["path"].tolist() == sorted(files)
    assert len(files) == 64
    assert list(table.columns) == COLUMNS


def test_the_table_describes_each_file(data_set):
    root, table = data_set
    for row in table.itertuples():
        content = (root / row.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.sha256
        folder = "no_tumor" if row.label == "no_tumor" else f"{row.label}_tumor"
        assert row.path.startswith(f"{row.split.capitalize()}/{folder}/p")


def test_scans_are_gray_squares_with_contrast(data_set):
    root, table = data_set
    for path in table["path"]:
        image = cv2.imread(str(root / path), cv2.IMREAD_UNCHANGED)
        assert image.shape == (SIZE, SIZE)
        assert image.dtype == np.uint8
        assert image.std() > 10


def test_the_table_on_disk_is_the_table_returned(data_set):
    root, table = data_set
    pd.testing.assert_frame_equal(pd.read_csv(root / dataset.SYNTHETIC_TABLE), table)


def test_classes_are_balanced(data_set):
    _, table = data_set
    assert table["label"].value_counts().to_dict() == dict.fromkeys(phantoms.LABELS, 16)
    testing = table[table["split"] == "testing"]
    patients = testing.groupby("label")["group"].nunique()
    assert patients.to_dict() == dict.fromkeys(phantoms.LABELS, 1)


def test_a_patient_has_one_class_and_is_in_one_folder(data_set):
    _, table = data_set
    patients = table.groupby("group")[["split", "label"]].nunique()
    assert len(patients) == 16
    assert (patients == 1).all(axis=None)


def test_the_smallest_data_set_still_has_every_class_in_both_folders(tmp_path):
    scans = phantoms.MINIMUM_SCANS
    table = phantoms.write_phantoms(tmp_path / "few", scans=scans, seed=0, size=32)
    patients = table.groupby(["split", "label"])["group"].nunique().unstack()
    assert (patients.loc["training"] >= 2).all()
    assert (patients.loc["testing"] >= 1).all()


def test_any_number_of_scans_can_be_asked_for(tmp_path):
    table = phantoms.write_phantoms(tmp_path / "odd", scans=51, seed=0, size=32)
    assert len(table) == 51


def test_every_class_is_seen_in_the_same_views(tmp_path, monkeypatch):
    drawn = []
    black = phantoms.Slice(np.zeros((8, 8), np.uint8), box=None)

    def note_down(label, view, rng, size):
        drawn.append((label, view))
        return [black] * phantoms.SLICES

    monkeypatch.setattr(phantoms, "draw_patient", note_down)
    phantoms.write_phantoms(tmp_path / "views", scans=48, seed=0)
    patients = pd.DataFrame(drawn, columns=["label", "view"]).value_counts()
    assert len(patients) == len(phantoms.LABELS) * len(phantoms.VIEWS)
    assert (patients == 1).all()


def test_file_names_do_not_give_the_class_away(data_set):
    _, table = data_set
    numbers = table["group"].str.removeprefix("phantom-").astype(int)
    four_patients = numbers.groupby(table["label"])
    in_a_row = 3  # the range of four consecutive numbers
    assert (four_patients.max() - four_patients.min() > in_a_row).all()


def test_the_same_seed_gives_the_same_bytes(tmp_path, data_set):
    root, table = data_set
    again = phantoms.write_phantoms(tmp_path / "again", scans=64, seed=3, size=SIZE)
    pd.testing.assert_frame_equal(again, table)  # with the checksum of each file
    written = (tmp_path / "again" / dataset.SYNTHETIC_TABLE).read_bytes()
    assert written == (root / dataset.SYNTHETIC_TABLE).read_bytes()


def test_another_seed_gives_other_patients():
    one, other = draw("glioma", seed=1), draw("glioma", seed=2)
    assert not np.array_equal(one[0].image, other[0].image)


def test_no_scan_is_there_twice(data_set):
    _, table = data_set
    assert table["sha256"].is_unique


# --- a patient ---


@pytest.mark.parametrize("view", phantoms.VIEWS)
@pytest.mark.parametrize("label", phantoms.TUMORS)
def test_every_slice_shows_a_tumor_inside_its_box(label, view):
    slices = draw(label, view)
    assert len(slices) == phantoms.SLICES
    for image, (x, y, width, height) in slices:
        assert min(x, y) >= 0
        assert max(x + width, y + height) <= len(image)
        assert min(width, height) >= 0.04 * len(image)


def test_a_patient_without_a_tumor_has_no_box(data_set):
    assert all(scan.box is None for scan in draw("no_tumor"))
    _, table = data_set
    healthy = table["label"] == "no_tumor"
    boxes = table[["box_x", "box_y", "box_w", "box_h"]]
    assert boxes[healthy].isna().all(axis=None)
    assert boxes[~healthy].notna().all(axis=None)


def inside_box(scan):
    """The intensities in the box of a scan."""
    x, y, width, height = scan.box
    return scan.image[y : y + height, x : x + width].astype(float)


def brain_intensity(scan):
    """The median of everything brighter than bone and air."""
    return np.median(scan.image[scan.image > 40])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("view", phantoms.VIEWS)
@pytest.mark.parametrize("label", ["meningioma", "pituitary"])
def test_meningioma_and_pituitary_tumor_are_brighter_than_the_brain(label, view, seed):
    for scan in draw(label, view, seed):
        assert np.median(inside_box(scan)) > 1.3 * brain_intensity(scan)


@pytest.mark.parametrize("view", phantoms.VIEWS)
def test_a_glioma_has_a_dark_core_in_a_bright_rim(view):
    for scan in draw("glioma", view):
        core, rim = np.percentile(inside_box(scan), [10, 95])
        assert core < 0.6 * brain_intensity(scan)
        assert rim > 1.3 * brain_intensity(scan)


def test_the_pituitary_tumor_is_on_the_midline():
    for scan in draw("pituitary", "coronal", size=128):
        x, _, width, _ = scan.box
        assert x + width / 2 == pytest.approx(64, abs=10)


def test_neighboring_slices_of_a_patient_differ_but_look_alike():
    first, second, *_ = draw("no_tumor")
    stranger = draw("no_tumor", "coronal", seed=5)[0]

    def correlation(one, other):
        return np.corrcoef(one.image.ravel(), other.image.ravel())[0, 1]

    assert not np.array_equal(first.image, second.image)
    assert correlation(first, second) > 0.6
    assert correlation(first, second) > correlation(first, stranger)


def test_drawing_is_fast():
    start = time.process_time()
    draw("glioma", "sagittal", size=256)
    seconds = time.process_time() - start
    assert seconds < 1  # about 0.08 s on a quiet core


# --- what goes wrong ---


def test_too_few_scans_are_refused(tmp_path):
    problem = "47 phantoms do not fill both folders in every class; make at least 48"
    with pytest.raises(ValueError, match=problem):
        phantoms.write_phantoms(tmp_path / "few", scans=47, seed=0)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        phantoms.write_phantoms(tmp_path, scans=48, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_half_written_is_left_behind(tmp_path, monkeypatch):
    draw_patient = phantoms.draw_patient
    labels = []

    def stop_at_the_third(label, *arguments):
        labels.append(label)
        if len(labels) == 3:
            raise KeyboardInterrupt
        return draw_patient(label, *arguments)

    monkeypatch.setattr(phantoms, "draw_patient", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        phantoms.write_phantoms(tmp_path / "broken", scans=48, seed=0, size=32)
    assert not list(tmp_path.iterdir())


# --- the archive in the package ---


def test_the_archive_holds_what_is_drawn_here(tmp_path):
    """But for the bytes of files: JPEG encoders differ between versions of OpenCV."""
    shutil.unpack_archive(dataset.SYNTHETIC_ARCHIVE, tmp_path)
    archived = tmp_path / "phantoms"
    drawn = tmp_path / "drawn"
    table = phantoms.write_phantoms(drawn, scans=400, seed=0, size=128)
    archived_table = pd.read_csv(archived / dataset.SYNTHETIC_TABLE)
    pd.testing.assert_frame_equal(
        archived_table.drop(columns="sha256"), table.drop(columns="sha256")
    )
    for path in table["path"][::40]:
        one = cv2.imread(str(archived / path)).astype(int)
        other = cv2.imread(str(drawn / path)).astype(int)
        assert np.abs(one - other).mean() < 3


def test_the_archive_is_written_where_the_package_reads_it(tmp_path, monkeypatch):
    """With one folder at its top."""
    archive = tmp_path / "phantoms.zip"
    monkeypatch.setattr(dataset, "SYNTHETIC_ARCHIVE", archive)

    def write_little(root, **options):
        root.mkdir()
        (root / dataset.SYNTHETIC_TABLE).write_text("path\n")

    monkeypatch.setattr(phantoms, "write_phantoms", write_little)
    phantoms.main()
    with zipfile.ZipFile(archive) as content:
        files = [Path(name) for name in content.namelist() if not name.endswith("/")]
    assert files == [Path("phantoms") / dataset.SYNTHETIC_TABLE]
