"""Which scans are there, and are they the right ones?"""

import hashlib
import os
import socket
import time
from pathlib import Path

from braintumor import config, dataset
from braintumor.support import download

import cv2
import numpy as np
import pandas as pd
import pytest

REAL = os.environ.get("BRAINTUMOR_DATA")
on_real_scans = pytest.mark.skipif(
    not REAL, reason="BRAINTUMOR_DATA names no copy of the real scans"
)
LABELS = ("glioma_tumor", "no_tumor")
NOTHING_KNOWN = pd.DataFrame(
    columns=["path", "sha256", "group", "label_conflict", *dataset.BOX]
).astype({"label_conflict": bool})


def write_scans(root, labels=LABELS, scans=3, suffix=".jpg"):
    """A data set in the layout of the real one: ``scans`` different images of 8 x 8 pixels a class and split."""
    for split in ("Training", "Testing"):
        for label in labels:
            (root / split / label).mkdir(parents=True)
            for number in range(scans):
                draw = np.random.default_rng(list(f"{split}{label}{number}".encode()))
                image = draw.integers(0, 256, (8, 8), dtype=np.uint8)
                (root / split / label / f"scan {number}{suffix}").write_bytes(
                    cv2.imencode(suffix.lower(), image)[1]
                )
    return root


def known(root):
    """A reference table for all scans in ``root``: patient by patient, with boxes and one label conflict."""
    table = dataset.scan_table(root, NOTHING_KNOWN)
    table["group"] = [f"patient-{number:03d}" for number in range(len(table))]
    table.loc[0, "label_conflict"] = True
    return table.assign(box_x=1.0, box_y=2.0, box_w=3.0, box_h=4.0)


@pytest.fixture
def root(tmp_path):
    return write_scans(tmp_path / "scans")


# --- the scan table ---


def test_one_row_a_scan_sorted_by_path(root):
    table = dataset.scan_table(root, NOTHING_KNOWN)
    assert list(table.columns) == [
        "path",
        "split",
        "label",
        "sha256",
        "group",
        "label_conflict",
        *dataset.BOX,
    ]
    assert (
        table["path"].is_monotonic_increasing
        and table["path"][0] == "Testing/glioma_tumor/scan 0.jpg"
    )
    assert table.groupby(["split", "label"]).size().to_dict() == {
        (split, label): 3
        for split in ("testing", "training")
        for label in ("glioma", "no_tumor")
    }
    assert (
        table["sha256"][0]
        == hashlib.sha256((root / table["path"][0]).read_bytes()).hexdigest()
    )


def test_a_scan_that_is_known_has_a_group_and_a_box(root):
    reference = known(root)
    pd.testing.assert_frame_equal(dataset.scan_table(root, reference), reference)


def test_a_changed_scan_is_not_the_known_one(root):
    reference = known(root)
    changed = root / reference["path"][0]
    changed.write_bytes(changed.read_bytes() + b"\0")
    row = dataset.scan_table(root, reference).loc[0]
    assert row["group"] == f"file-{row['sha256'][:12]}"
    assert np.isnan(row["box_x"]) and not row["label_conflict"]


def test_a_known_scan_in_another_place_stays_in_its_group(root):
    reference = known(root)
    (root / "Testing/glioma_tumor/scan 0.jpg").rename(
        root / "Testing/glioma_tumor/renamed.jpg"
    )
    row = (
        dataset.scan_table(root, reference)
        .set_index("path")
        .loc["Testing/glioma_tumor/renamed.jpg"]
    )
    assert (row["group"], row["box_w"], row["label_conflict"]) == (
        "patient-000",
        3.0,
        True,
    )


def test_copies_of_an_unknown_scan_share_a_group_and_are_a_conflict_if_their_labels_differ(
    root,
):
    scan = (root / "Training/glioma_tumor/scan 0.jpg").read_bytes()
    (root / "Testing/glioma_tumor/copy.jpg").write_bytes(scan)
    table = dataset.scan_table(root, NOTHING_KNOWN)
    copies = table[table["group"].duplicated(keep=False)]
    assert copies["path"].tolist() == [
        "Testing/glioma_tumor/copy.jpg",
        "Training/glioma_tumor/scan 0.jpg",
    ]
    assert not table["label_conflict"].any()
    (root / "Training/no_tumor/copy.jpg").write_bytes(scan)
    table = dataset.scan_table(root, NOTHING_KNOWN)
    assert (
        table.loc[table["label_conflict"], "sha256"].tolist()
        == [hashlib.sha256(scan).hexdigest()] * 3
    )


def test_phantoms_bring_their_own_table(root):
    known(root).to_csv(root / dataset.SYNTHETIC_TABLE, index=False)
    assert dataset.scan_table(root)["group"].str.startswith("patient-").all()


@pytest.mark.parametrize(
    "suffix", [".jpg", ".JPEG", ".png", ".bmp", ".tif", ".TIFF", ".webp"]
)
def test_any_other_data_set_in_this_layout_works(tmp_path, suffix):
    root = write_scans(
        tmp_path / "scans", labels=("a", "b", "c d"), scans=1, suffix=suffix
    )
    assert (
        dataset.scan_table(root, NOTHING_KNOWN)["label"].tolist()
        == ["a", "b", "c d"] * 2
    )


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JFIF", ".gif"])
def test_an_image_may_have_another_ending(root, suffix):
    for scan in root.glob("*/*/scan 0.jpg"):
        scan.rename(scan.with_suffix(suffix))
    assert len(dataset.scan_table(root, NOTHING_KNOWN)) == 12


def test_leftovers_of_other_programs_are_no_scans(root, capsys):
    for name in (
        ".DS_Store",
        "glioma_tumor/Thumbs.db",
        "glioma_tumor/._scan 0.jpg",
        ".ipynb_checkpoints/scan 0.jpg",
    ):
        (root / "Training" / name).parent.mkdir(exist_ok=True)
        (root / "Training" / name).write_text("leftover")
    assert len(dataset.scan_table(root, NOTHING_KNOWN)) == 12
    assert capsys.readouterr() == ("", "")


def test_files_that_are_not_used_are_counted_aloud(root, capsys):
    for name in ("0001.dcm", "notes.txt"):
        (root / "Training/glioma_tumor" / name).write_text("no image")
    assert len(dataset.scan_table(root, NOTHING_KNOWN)) == 12
    assert capsys.readouterr().err == (
        "2 files are no images by their names, and not used: "
        "Training/glioma_tumor/0001.dcm, Training/glioma_tumor/notes.txt\n"
    )


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (("glioma_tumor", "no_tumor"), ["glioma", "no_tumor"]),
        (("brain", "brain_tumor"), ["brain", "brain_tumor"]),
        (("no", "no_tumor"), ["no", "no_tumor"]),
        (("1", "02"), ["02", "1"]),
    ],
)
def test_no_two_classes_become_one(tmp_path, folders, labels):
    root = write_scans(tmp_path / "scans", labels=folders, scans=1)
    table = dataset.scan_table(root, NOTHING_KNOWN)
    assert sorted(set(table["label"])) == labels


def test_an_accent_may_be_written_in_two_ways(tmp_path):
    """macOS writes file names otherwise than Linux and Windows do."""
    root = write_scans(tmp_path / "scans", labels=("m\u00e9ningiome", "no"), scans=1)
    folder = root / "Testing/m\u00e9ningiome"
    folder.rename(root / "Testing/me\u0301ningiome")
    table = dataset.scan_table(root, NOTHING_KNOWN)
    assert table["label"].tolist() == ["m\u00e9ningiome", "no"] * 2
    assert all((root / path).is_file() for path in table["path"])


def test_folders_may_be_links(root, tmp_path):
    linked = tmp_path / "linked"
    for folder in root.glob("*/*"):
        link = linked / folder.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
    pd.testing.assert_frame_equal(
        dataset.scan_table(linked, NOTHING_KNOWN),
        dataset.scan_table(root, NOTHING_KNOWN),
    )


def test_patients_may_be_called_by_numbers(root):
    reference = known(root)
    reference["group"] = [f"{number:03d}" for number in range(len(reference))]
    reference.to_csv(root / dataset.SYNTHETIC_TABLE, index=False)
    assert dataset.scan_table(root)["group"].tolist() == reference["group"].tolist()


def damage(root, what):
    """Break a data set in one way."""
    if what == "missing":
        root.rename(root.with_name("elsewhere"))
    elif what in ("empty", "no Testing"):
        (root / "Testing").rename(root.with_name("Testing"))
    if what == "empty":
        (root / "Training").rename(root.with_name("Training"))
    if what == "class without image":
        for scan in (root / "Testing/no_tumor").iterdir():
            scan.rename(scan.with_suffix(".txt"))
    if what == "other classes":
        (root / "Testing/no_tumor").rename(root / "Testing/notumor")
    if what in ("other names", "one deeper"):
        for name in ("Training", "Testing"):
            other = f"archive/{name}" if what == "one deeper" else name.lower()
            (root / other).parent.mkdir(exist_ok=True)
            (root / name).rename(root / other)


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("missing", "there are none"),
        ("empty", "there are none"),
        ("other names", r"there are none \(it holds testing, training; expected: .*\)"),
        (
            "one deeper",
            r"there are none \(it holds archive; expected: Training/CLASS/.*\)",
        ),
        ("no Testing", "only one has glioma_tumor, no_tumor"),
        ("class without image", "only one has no_tumor"),
        ("other classes", "only one has no_tumor, notumor"),
    ],
)
def test_a_folder_that_is_no_data_set_is_one_sentence(root, what, problem):
    damage(root, what)
    with pytest.raises(
        ValueError,
        match=f"^'scans' needs images of the same classes in .*, but {problem}.$",
    ):
        dataset.scan_table(root, NOTHING_KNOWN)


# --- verification ---


def check(root, reference):
    return dataset.verify(root, dataset.scan_table(root, reference), reference)


def test_the_right_scans_are_verified(root):
    report = check(root, known(root))
    assert (report.name, report.status) == (download.DATASET, "verified")
    assert (report.scans, report.verified, report.expected) == (12, 12, 12)
    assert report.missing == report.changed == report.extra == []
    assert report.summary() == "verified 12/12"
    assert report.banner == ""


def test_every_difference_is_counted_named_and_explained(root):
    reference = known(root)
    folder = root / "Training/no_tumor"
    (folder / "scan 0.jpg").unlink()
    report = check(root, reference)
    assert (report.status, report.verified) == ("incomplete", 11)
    assert report.missing == ["Training/no_tumor/scan 0.jpg"]
    (folder / "scan 1.jpg").write_bytes((folder / "scan 2.jpg").read_bytes())
    (folder / "new.jpg").write_bytes((folder / "scan 2.jpg").read_bytes())
    report = check(root, reference)
    assert (report.status, report.verified, report.scans) == (
        "changed",
        10,
        12,
    )
    lines = report.summary().splitlines()
    assert lines[0] == "verified 10/12"
    assert lines[1].startswith("1 missing (") and lines[1].endswith(
        "): Training/no_tumor/scan 0.jpg"
    )
    assert lines[2].startswith("1 changed (") and lines[2].endswith(
        "): Training/no_tumor/scan 1.jpg"
    )
    assert lines[3].startswith("1 extra (") and lines[3].endswith(
        "): Training/no_tumor/new.jpg"
    )


def test_at_most_ten_names_are_listed(tmp_path):
    reference = known(write_scans(tmp_path / "all", scans=8))
    report = check(write_scans(tmp_path / "part", scans=3), reference)
    assert report.summary().endswith("and 10 more")


def test_another_data_set_is_unverified(root, tmp_path):
    report = check(write_scans(tmp_path / "other", labels=("a", "b")), known(root))
    assert (report.name, report.status) == ("unverified data set", "unverified")
    assert report.summary().startswith("unverified data set: 12 scans")


def test_a_data_set_may_bring_a_table_of_its_own(tmp_path):
    """Patients without boxes, and numbers for names; nothing of the published scans is asked for."""
    root = write_scans(tmp_path / "other", labels=("a", "no_tumor"))
    table = dataset.scan_table(root, NOTHING_KNOWN)
    known = table[["path", "sha256"]].assign(group=range(100, 112))
    known.to_csv(root / "image_groups.csv", index=False)
    table = dataset.scan_table(root)
    assert table["group"].tolist() == [str(number) for number in range(100, 112)]
    assert not table["label_conflict"].any() and table["box_x"].isna().all()
    report = dataset.verify(root, table)
    assert (report.name, report.status) == ("other", "verified")
    assert report.summary() == "verified 12/12"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (
            "path,sha256\na,b\n",
            "needs the columns path, sha256, group, but lacks group",
        ),
        ("", "is no table in CSV"),
    ],
)
def test_a_table_of_its_own_that_cannot_be_used_is_a_sentence(root, content, wrong):
    (root / "image_groups.csv").write_text(content)
    with pytest.raises(ValueError, match=f"^'scans/image_groups.csv' {wrong}"):
        dataset.scan_table(root)


def test_where_no_class_is_without_a_tumor_it_is_said_what_the_folder_is_called(
    tmp_path, root
):
    other = write_scans(tmp_path / "other", labels=("glioma", "notumor"))
    (line,) = check(other, known(root)).summary().splitlines()[1:]
    assert line.startswith("no class 'no_tumor': ") and "folders of this name" in line
    assert "no class" not in check(root, known(root)).summary()


def test_phantoms_are_called_phantoms_everywhere(root):
    known(root).to_csv(root / dataset.SYNTHETIC_TABLE, index=False)
    report = dataset.verify(root, dataset.scan_table(root))
    assert (report.name, report.status) == ("phantoms", "phantoms")
    assert report.banner == "PHANTOMS: synthetic drawings, not patients"
    assert report.summary() == "PHANTOMS: synthetic drawings, not patients (12 scans)"


@on_real_scans
def test_the_real_scans_are_verified_in_seconds():
    start = time.monotonic()
    table = dataset.scan_table(Path(REAL))
    assert time.monotonic() - start < 10
    assert dataset.verify(Path(REAL), table).summary() == "verified 3264/3264"
    committed = pd.read_csv(config.DATA_DIR / "image_groups.csv").sort_values(
        "path", ignore_index=True
    )
    pd.testing.assert_frame_equal(table, committed[table.columns])


# --- where the scans come from ---


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A fresh checkout without data, network or credentials. Gives its folder."""
    monkeypatch.delenv("BRAINTUMOR_DATA", raising=False)
    monkeypatch.setattr(download, "reachable", lambda host: False)
    monkeypatch.setattr(download, "kaggle_credentials", no_credentials)
    (tmp_path / "data").mkdir()
    known(write_scans(tmp_path / "source")).to_csv(
        tmp_path / "data/image_groups.csv", index=False
    )
    return tmp_path


def no_credentials():
    raise ValueError("no Kaggle credentials found (such as ~/.kaggle/kaggle.json)")


def locate(folder):
    found = dataset.locate_data(folder / "data", folder / "build")
    return found.relative_to(folder).as_posix()


def test_the_folder_in_the_environment_is_taken_first(offline, monkeypatch, capsys):
    monkeypatch.setenv("BRAINTUMOR_DATA", str(offline / "source"))
    write_scans(offline / "data/brain-tumor-classification-mri")
    assert locate(offline) == "source"
    assert capsys.readouterr().out == "BRAINTUMOR_DATA: used\n"


def test_a_wrong_folder_in_the_environment_is_an_error_at_once(offline, monkeypatch):
    monkeypatch.setenv("BRAINTUMOR_DATA", str(offline / "no-such-folder"))
    with pytest.raises(
        FileNotFoundError,
        match=r"^BRAINTUMOR_DATA is no folder; name one that holds Training and",
    ):
        locate(offline)


def test_an_earlier_download_is_taken_next(offline, capsys):
    write_scans(offline / "data/brain-tumor-classification-mri")
    assert locate(offline) == "data/brain-tumor-classification-mri"
    assert (
        capsys.readouterr().out
        == "BRAINTUMOR_DATA: none\ndata/brain-tumor-classification-mri: used\n"
    )


def test_a_folder_that_an_interrupted_program_left_is_never_taken_for_a_download(
    offline,
):
    (offline / "data/brain-tumor-classification-mri").mkdir()
    with pytest.raises(
        ValueError,
        match=r"^'brain-tumor-classification-mri' needs images .* there are none",
    ):
        dataset.scan_table(offline / locate(offline), NOTHING_KNOWN)


def test_without_data_and_network_there_are_phantoms_and_everyone_is_told(
    offline, capsys
):
    assert locate(offline) == "build/phantoms"
    assert capsys.readouterr().out.splitlines() == [
        "BRAINTUMOR_DATA: none",
        "data/brain-tumor-classification-mri: none",
        "opendatasets: about 90 MB ... no Kaggle credentials found (such as ~/.kaggle/kaggle.json)",
        "kagglehub: about 90 MB ... no network (api.kaggle.com does not answer)",
        "PHANTOMS: no scans could be had, so everything below shows synthetic drawings, not patients.",
    ]
    table = dataset.scan_table(offline / "build/phantoms")
    assert dataset.verify(offline / "build/phantoms", table).verified == 400
    assert locate(offline) == "build/phantoms"  # unpacked once


def test_a_network_whose_name_server_hangs_costs_seconds(offline, monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("BRAINTUMOR_DATA", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(20) or [])
    start = time.monotonic()
    assert locate(offline) == "build/phantoms"
    assert time.monotonic() - start < 15


def pretend_downloads(monkeypatch, **outcomes):
    """Let each downloader either copy the scans or raise; gives the list of what was asked of them."""
    asked = []

    def fetch(target, expected, downloader, login):
        asked.append((downloader, login))
        if outcomes[downloader]:
            raise outcomes[downloader]
        write_scans(target)

    monkeypatch.setattr(download, "fetch", fetch)
    return asked


def test_with_credentials_opendatasets_is_asked(offline, monkeypatch, capsys):
    asked = pretend_downloads(monkeypatch, opendatasets=None)
    monkeypatch.setattr(
        download, "kaggle_credentials", lambda: {"KAGGLE_API_TOKEN": "secret"}
    )
    assert locate(offline) == "data/brain-tumor-classification-mri"
    assert asked == [("opendatasets", {"KAGGLE_API_TOKEN": "secret"})]
    assert capsys.readouterr().out.endswith(
        "\nopendatasets: about 90 MB ... downloaded and verified\n"
    )


def test_without_credentials_kagglehub_is_asked_which_needs_none(
    offline, monkeypatch, capsys
):
    asked = pretend_downloads(monkeypatch, kagglehub=None)
    assert locate(offline) == "data/brain-tumor-classification-mri"
    assert asked == [("kagglehub", {})]
    assert (
        "opendatasets: about 90 MB ... no Kaggle credentials found"
        in capsys.readouterr().out
    )


def test_when_both_fail_each_says_why_in_a_line(offline, monkeypatch, capsys):
    pretend_downloads(
        monkeypatch,
        opendatasets=ConnectionError("refused."),
        kagglehub=PermissionError(13, "No", "/x"),
    )
    monkeypatch.setattr(
        download, "kaggle_credentials", lambda: {"KAGGLE_API_TOKEN": "secret"}
    )
    assert locate(offline) == "build/phantoms"
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == [
        "opendatasets: about 90 MB ... refused.",
        "kagglehub: about 90 MB ... No",
    ]
    assert not any(str(offline) in line or "secret" in line for line in lines)
