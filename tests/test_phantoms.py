"""Phantoms: a synthetic data set that behaves like the real one, only smaller and with nothing hidden."""

import hashlib
import shutil
import time

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


def test_the_table_describes_the_files_on_disk(data_set):
    root, table = data_set
    assert (
        list(table.columns) == COLUMNS
        and len(table) == 64
        and table["path"].is_monotonic_increasing
    )
    assert (
        sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
        == table["path"].tolist()
    )
    for row in table.itertuples():
        assert hashlib.sha256((root / row.path).read_bytes()).hexdigest() == row.sha256
        image = cv2.imread(str(root / row.path), cv2.IMREAD_UNCHANGED)
        assert (
            image.shape == (SIZE, SIZE) and image.dtype == np.uint8 and image.std() > 10
        )
        folder = "no_tumor" if row.label == "no_tumor" else f"{row.label}_tumor"
        assert row.path.startswith(f"{row.split.capitalize()}/{folder}/p")


def test_the_table_on_disk_is_the_table_returned(data_set):
    root, table = data_set
    pd.testing.assert_frame_equal(pd.read_csv(root / dataset.SYNTHETIC_TABLE), table)


def test_classes_are_balanced_and_no_patient_is_on_both_sides(data_set):
    _, table = data_set
    assert set(table["label"].value_counts()) == {16} and set(table["label"]) == set(
        phantoms.LABELS
    )
    patients = table.groupby("group")[["split", "label"]].nunique()
    assert (patients == 1).all(axis=None) and len(patients) == 16
    assert (
        table[table["split"] == "testing"].groupby("label")["group"].nunique().tolist()
        == [1] * 4
    )


def test_the_smallest_data_set_still_has_every_class_in_both_folders(tmp_path):
    table = phantoms.write_phantoms(
        tmp_path / "few", scans=phantoms.MINIMUM_SCANS, seed=0, size=32
    )
    patients = table.groupby(["split", "label"])["group"].nunique().unstack()
    assert (patients.loc["training"] >= 2).all() and (
        patients.loc["testing"] >= 1
    ).all()


def test_any_number_of_scans_can_be_asked_for(tmp_path):
    assert (
        len(
            phantoms.write_phantoms(
                tmp_path / "odd", scans=phantoms.MINIMUM_SCANS + 3, seed=0, size=32
            )
        )
        == 51
    )


def test_every_class_is_seen_in_the_same_views(tmp_path, monkeypatch):
    drawn = []

    def note_down(label, view, *_):
        drawn.append((label, view))
        return [(np.zeros((8, 8), np.uint8), None)] * phantoms.SLICES

    monkeypatch.setattr(phantoms, "draw_patient", note_down)
    phantoms.write_phantoms(tmp_path / "views", scans=48, seed=0)
    counts = pd.DataFrame(drawn, columns=["label", "view"]).value_counts()
    assert len(counts) == 12 and set(counts) == {1}


def test_file_names_do_not_give_the_class_away(data_set):
    _, table = data_set
    numbers = table.groupby("label")["group"].apply(
        lambda group: set(group.str[-4:].astype(int))
    )
    assert all(
        max(of_class) - min(of_class) > 3 for of_class in numbers
    )  # four patients a class, not in a row


def test_the_same_seed_gives_the_same_bytes(tmp_path, data_set):
    root, table = data_set
    again = phantoms.write_phantoms(tmp_path / "again", scans=64, seed=3, size=SIZE)
    pd.testing.assert_frame_equal(again, table)
    assert (tmp_path / "again" / dataset.SYNTHETIC_TABLE).read_bytes() == (
        root / dataset.SYNTHETIC_TABLE
    ).read_bytes()


def test_another_seed_gives_other_patients(data_set):
    assert not np.array_equal(
        draw("glioma", seed=1)[0][0], draw("glioma", seed=2)[0][0]
    )
    assert data_set[1]["sha256"].is_unique


@pytest.mark.parametrize("view", phantoms.VIEWS)
@pytest.mark.parametrize("label", ["glioma", "meningioma", "pituitary"])
def test_every_slice_shows_a_tumour_inside_its_box(label, view):
    scans = draw(label, view)
    assert len(scans) == phantoms.SLICES
    for image, (x, y, width, height) in scans:
        assert min(x, y) >= 0 and max(x + width, y + height) <= len(image)
        assert min(width, height) >= 0.04 * len(image)


def test_a_patient_without_a_tumour_has_no_box(data_set):
    assert all(box is None for _, box in draw("no_tumor"))
    _, table = data_set
    boxes = table[["box_x", "box_y", "box_w", "box_h"]].isna()
    assert (boxes.all(axis=1) == (table["label"] == "no_tumor")).all() and (
        boxes.nunique(axis=1) == 1
    ).all()


def box_and_brain(image, box):
    """The grey values in a box, and the median of everything brighter than bone and air."""
    x, y, width, height = box
    return image[y : y + height, x : x + width].astype(float), np.median(
        image[image > 40]
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("view", phantoms.VIEWS)
@pytest.mark.parametrize("label", ["meningioma", "pituitary"])
def test_meningioma_and_pituitary_tumour_are_brighter_than_the_brain(label, view, seed):
    for image, box in draw(label, view, seed):
        inside, brain = box_and_brain(image, box)
        assert np.median(inside) > 1.3 * brain


@pytest.mark.parametrize("view", phantoms.VIEWS)
def test_a_glioma_has_a_dark_core_in_a_bright_rim(view):
    for image, box in draw("glioma", view):
        inside, brain = box_and_brain(image, box)
        assert (
            np.percentile(inside, 10) < 0.6 * brain
            and np.percentile(inside, 95) > 1.3 * brain
        )


def test_the_pituitary_tumour_is_on_the_midline():
    middles = [
        x + width / 2 for _, (x, _, width, _) in draw("pituitary", "coronal", size=128)
    ]
    assert np.abs(np.array(middles) - 64).max() < 10


def test_neighbouring_slices_of_a_patient_differ_but_look_alike():
    first, second = (image.astype(float).ravel() for image, _ in draw("no_tumor")[:2])
    other = draw("no_tumor", "coronal", seed=5)[0][0].astype(float).ravel()
    assert not np.array_equal(first, second)
    assert np.corrcoef(first, second)[0, 1] > max(0.6, np.corrcoef(first, other)[0, 1])


def test_drawing_is_fast():
    start = time.process_time()
    draw("glioma", "sagittal", size=256)
    assert time.process_time() - start < 1  # four slices; about 0.08 s on a quiet core


def test_too_few_scans_are_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match="47 phantoms do not fill both folders in every class; make at least 48",
    ):
        phantoms.write_phantoms(tmp_path / "few", scans=47, seed=0)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        phantoms.write_phantoms(tmp_path, scans=48, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_half_written_is_left_behind(tmp_path, monkeypatch):
    draw_patient, calls = phantoms.draw_patient, []

    def fail_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw_patient(*arguments)

    monkeypatch.setattr(phantoms, "draw_patient", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        phantoms.write_phantoms(tmp_path / "broken", scans=48, seed=0, size=32)
    assert not list(tmp_path.iterdir())


def test_the_sample_in_the_package_is_what_is_drawn_here(tmp_path):
    """Not to the byte: JPEG encoders differ between versions of OpenCV."""
    shutil.unpack_archive(dataset.SYNTHETIC_ARCHIVE, tmp_path)
    table = phantoms.write_phantoms(
        tmp_path / "drawn", scans=400, seed=0, size=128
    ).drop(columns="sha256")
    embedded = pd.read_csv(tmp_path / "phantoms" / dataset.SYNTHETIC_TABLE).drop(
        columns="sha256"
    )
    pd.testing.assert_frame_equal(embedded, table)
    for path in table["path"][::40]:
        one, other = (
            cv2.imread(str(tmp_path / name / path)).astype(int)
            for name in ("phantoms", "drawn")
        )
        assert np.abs(one - other).mean() < 3
