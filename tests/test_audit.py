"""Can the scans be trusted? Copies, near-duplicates and shortcuts are found."""

import os
import shutil
from pathlib import Path

from braintumor import dataset, generators, metrics, splits
from braintumor.images import read_scan
from braintumor.studies import audit

import cv2
import numpy as np
import pandas as pd
import phantoms
import pytest
from sklearn.neighbors import KNeighborsClassifier

REAL = os.environ.get("BRAINTUMOR_DATA")
FOLDER = "Testing/glioma_tumor"
BYTE_COPY = f"{FOLDER}/bytes.jpg"
PIXEL_COPY = f"{FOLDER}/pixels.png"
RECOMPRESSED = f"{FOLDER}/recompressed.jpg"


# --- copies ---


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Phantoms where Testing holds three copies of a scan in Training, described."""
    root = tmp_path_factory.mktemp("audit") / "phantoms"
    phantoms.write_phantoms(root, scans=48, seed=0, size=96)
    source = min(root.glob("Training/glioma_tumor/*.jpg"))
    pixels = read_scan(source)
    shutil.copy(source, root / BYTE_COPY)
    cv2.imwrite(str(root / PIXEL_COPY), pixels)
    cv2.imwrite(str(root / RECOMPRESSED), pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])
    table = dataset.scan_table(root)
    return audit.describe_scans(table, root).set_index("path")


def test_a_copy_with_other_bytes_is_found_by_its_pixels(scans):
    in_both_folders = scans.groupby("pixels")["split"].transform("nunique") == 2
    found = scans.index[in_both_folders & (scans["split"] == "testing")]
    assert set(found) == {BYTE_COPY, PIXEL_COPY}
    assert scans.at[PIXEL_COPY, "sha256"] != scans.at[BYTE_COPY, "sha256"]


def test_a_recompressed_copy_is_found_by_its_hash_and_other_patients_are_not(scans):
    bits = audit.nearest_in_training(scans)
    near_duplicates = bits.index[bits <= audit.NEAR]
    assert set(near_duplicates) == {BYTE_COPY, PIXEL_COPY, RECOMPRESSED}


def test_only_scans_in_testing_are_compared(scans):
    testing = scans.index[scans["split"] == "testing"]
    assert audit.nearest_in_training(scans).index.equals(testing)


@pytest.mark.skipif(not REAL, reason="BRAINTUMOR_DATA names no copy of the real scans")
def test_the_published_scans_hold_the_copies_that_the_data_card_names():
    root = Path(REAL)
    scans = audit.describe_scans(dataset.scan_table(root), root)
    testing = scans["split"] == "testing"
    for column, copies, copies_of_training in (
        ("sha256", 403, 88),
        ("pixels", 694, 251),
    ):
        equal_scans = scans.groupby(column)["split"]
        repeated = equal_scans.transform("size") > 1
        in_both_folders = equal_scans.transform("nunique") == 2
        assert repeated.sum() == copies
        assert (in_both_folders & testing).sum() == copies_of_training
    assert (audit.nearest_in_training(scans) <= audit.NEAR).sum() == 259


# --- shortcuts ---


def test_the_six_features_are_what_they_say(tmp_path):
    image = np.zeros((50, 100), "uint8")
    image[10:30, 20:60] = 100
    file = tmp_path / "scan.png"
    cv2.imwrite(str(file), image)
    found = audit.describe_scan(file)
    assert (found.width, found.height) == (100, 50)
    assert found.bytes == file.stat().st_size
    assert found.mean_intensity == pytest.approx(16)
    assert found.contrast == pytest.approx(image.std())
    assert found.border == pytest.approx(1 - 20 * 40 / 5000)


@pytest.fixture
def made_up_scans():
    """Scans whose features have nothing to do with their labels."""
    rng = np.random.default_rng(0)
    count = 400
    features = rng.normal(size=(count, len(audit.FEATURES)))
    scans = pd.DataFrame(features, columns=audit.FEATURES)
    scans["label"] = rng.choice(["a", "b", "c"], count)
    scans["group"] = [f"patient-{number}" for number in range(count)]
    scans["subset"] = ["train"] * 300 + ["validation"] * 100
    return scans


def validation_scores(scans):
    """What the shortcut baseline reaches on validation scans."""
    run = {
        "model": "probe",
        "recipe": "",
        "protocol": "",
        "weights": "",
        "image_size": 0,
        "seed": 0,
    }
    predictions = audit.shortcut_baseline(scans, seed=0)
    return metrics.metrics_row(run, predictions, "validation")


def test_the_shortcut_baseline_finds_a_shortcut(made_up_scans):
    made_up_scans["width"] += 10 * (made_up_scans["label"] == "a")
    assert validation_scores(made_up_scans)["recall_a"] == 1


def test_the_shortcut_baseline_is_blind_where_there_is_none(made_up_scans):
    assert validation_scores(made_up_scans)["accuracy"] < 0.5


# --- leakage ---


@pytest.fixture(scope="module")
def randomly_labeled(tmp_path_factory):
    """Phantoms whose patients got a random label each, and their pixels, by row.

    Only who has met a patient in training can know the label.
    """
    root = tmp_path_factory.mktemp("shuffled") / "phantoms"
    table = phantoms.write_phantoms(root, scans=256, seed=0, size=48)
    table = table[table["split"] == "training"].reset_index(drop=True)
    patients = sorted(table["group"].unique())
    labels = np.random.default_rng(0).permutation(np.arange(len(patients)) % 4)
    label_of = dict(zip(patients, labels.astype(str), strict=True))
    table["label"] = table["group"].map(label_of)
    images, _ = generators.load_images(table, root, 16)
    return table, images[:].reshape(len(table), -1)


def nearest_neighbor_accuracy(randomly_labeled, subset):
    table, pixels = randomly_labeled
    train = subset == "train"
    validation = subset == "validation"
    classifier = KNeighborsClassifier(1)
    classifier.fit(pixels[train], table["label"][train])
    return classifier.score(pixels[validation], table["label"][validation])


def test_with_random_labels_a_split_by_patient_gives_chance(randomly_labeled):
    table, _ = randomly_labeled
    split = splits.assign_subsets(table, "patient", seed=0)
    accuracy = nearest_neighbor_accuracy(randomly_labeled, split["subset"].to_numpy())
    assert accuracy < 0.35  # of four labels


def test_with_random_labels_a_split_by_scan_leaks(randomly_labeled):
    table, _ = randomly_labeled
    one_in_five = np.arange(len(table)) % 5 == 0
    subset = np.where(one_in_five, "validation", "train")
    subset = np.random.default_rng(0).permutation(subset)
    assert nearest_neighbor_accuracy(randomly_labeled, subset) > 0.7
