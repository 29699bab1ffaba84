"""Can the scans be trusted? Copies, look-alikes and shortcuts are found."""

import os
import shutil
from pathlib import Path

from braintumor import dataset, generators, images, metrics, splits
from braintumor.studies import audit

import cv2
import numpy as np
import pandas as pd
import phantoms
import pytest
from sklearn.neighbors import KNeighborsClassifier

REAL = os.environ.get("BRAINTUMOR_DATA")


def saved_again(root, source, target, quality):
    """The same picture with other bytes."""
    pixels = images.read_scan(root / source)
    (root / target).write_bytes(
        cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Phantoms where Testing holds a byte copy, a pixel copy and a recompressed look-alike of a Training scan."""
    root = tmp_path_factory.mktemp("audit") / "phantoms"
    phantoms.write_phantoms(root, scans=48, seed=0, size=96)
    source = sorted(
        path.relative_to(root) for path in root.glob("Training/glioma_tumor/*.jpg")
    )[0]
    folder = "Testing/glioma_tumor"
    shutil.copy(root / source, root / folder / "bytes.jpg")
    pixels = images.read_scan(root / source)
    cv2.imwrite(str(root / folder / "pixels.png"), pixels)
    saved_again(root, source, f"{folder}/look.jpg", quality=60)
    return audit.describe_scans(dataset.scan_table(root), root).set_index("path")


def test_a_copy_with_other_bytes_is_found_by_its_pixels(copied):
    twins = copied.groupby("pixels")["split"].transform("nunique") == 2
    assert set(copied.index[twins & (copied["split"] == "testing")]) == {
        f"Testing/glioma_tumor/{name}" for name in ("bytes.jpg", "pixels.png")
    }
    assert (
        copied.loc["Testing/glioma_tumor/pixels.png", "sha256"]
        != copied.loc[twins, "sha256"].iloc[0]
    )


def test_a_recompressed_copy_is_found_by_its_look_and_other_patients_are_not(copied):
    near = audit.nearest_in_training(copied) <= audit.NEAR
    assert set(near.index[near]) == {
        f"Testing/glioma_tumor/{name}"
        for name in ("bytes.jpg", "pixels.png", "look.jpg")
    }


def test_the_six_features_are_what_they_say(tmp_path):
    image = np.zeros((50, 100), "uint8")
    image[10:30, 20:60] = 100
    cv2.imwrite(str(tmp_path / "scan.png"), image)
    table = pd.DataFrame({"path": ["scan.png"]})
    row = audit.describe_scans(table, tmp_path).iloc[0]
    assert (row["width"], row["height"]) == (100, 50)
    assert row["bytes"] == (tmp_path / "scan.png").stat().st_size
    assert row["mean_grey"] == pytest.approx(16) and row["contrast"] == pytest.approx(
        image.std()
    )
    assert row["border"] == pytest.approx(1 - 20 * 40 / 5000)


def test_the_probe_finds_a_shortcut_and_only_a_shortcut():
    draw = np.random.default_rng(0)
    count = 400
    scans = pd.DataFrame(
        draw.normal(size=(count, len(audit.FEATURES))), columns=audit.FEATURES
    )
    scans["label"] = draw.choice(["a", "b", "c"], count)
    scans["group"] = [f"patient-{number}" for number in range(count)]
    scans["subset"] = ["train"] * 300 + ["validation"] * 100
    facts = dict(
        model="probe", recipe="", protocol="", weights="", image_size=0, seed=0
    )
    blind = metrics.metrics_row(
        facts, audit.shortcut_probe(scans, seed=0), "validation"
    )
    scans["width"] += 10 * (scans["label"] == "a")
    seeing = metrics.metrics_row(
        facts, audit.shortcut_probe(scans, seed=0), "validation"
    )
    assert blind["accuracy"] < 0.5 and seeing["recall_a"] == 1


def test_the_protocol_itself_shuffled_labels_are_chance_unless_patients_leak(
    tmp_path_factory,
):
    """Each patient gets a random label: only who has met the patient in training can know it."""
    root = tmp_path_factory.mktemp("shuffled") / "phantoms"
    table = phantoms.write_phantoms(root, scans=256, seed=0, size=48).query(
        "split == 'training'"
    )
    groups = sorted(table["group"].unique())
    labels = np.random.default_rng(0).permutation(np.arange(len(groups)) % 4)
    table = table.assign(
        label=table["group"].map(dict(zip(groups, labels.astype(str))))
    )
    images = generators.load_images(table, root, 16)[0][:].reshape(len(table), -1)

    def accuracy(train, judged):
        learnt = KNeighborsClassifier(1).fit(images[train], table["label"][train])
        return learnt.score(images[judged], table["label"][judged])

    apart = splits.assign_subsets(table.reset_index(drop=True), "patient", seed=0)[
        "subset"
    ].to_numpy()
    leaky = np.random.default_rng(0).permutation(
        np.where(np.arange(len(table)) % 5, "train", "validation")
    )
    table = table.reset_index(drop=True)
    assert accuracy(apart == "train", apart == "validation") < 0.35  # of four labels
    assert accuracy(leaky == "train", leaky == "validation") > 0.7


@pytest.mark.skipif(not REAL, reason="BRAINTUMOR_DATA names no copy of the real scans")
def test_the_published_scans_hold_the_copies_that_the_data_card_names():
    scans = audit.describe_scans(dataset.scan_table(Path(REAL)), Path(REAL))
    testing = scans["split"] == "testing"
    for column, copies, known in (("sha256", 403, 88), ("pixels", 694, 251)):
        alike = scans.groupby(column)["split"]
        assert (alike.transform("size") > 1).sum() == copies
        assert ((alike.transform("nunique") == 2) & testing).sum() == known
    assert (audit.nearest_in_training(scans) <= audit.NEAR).sum() == 259
