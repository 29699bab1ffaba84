"""Images that are no scans, and how well a score tells them from scans."""

from braintumor.studies import ood_detection

import numpy as np
import pandas as pd
import pytest

SCAN = np.random.default_rng(0).integers(0, 256, (30, 20), dtype="uint8")


@pytest.mark.parametrize("name", ood_detection.SCAN_CHANGES)
def test_a_changed_scan_is_another_image_of_the_same_size(name):
    changed = ood_detection.SCAN_CHANGES[name](SCAN)
    assert changed.shape == SCAN.shape and changed.dtype == "uint8"
    assert not np.array_equal(changed, SCAN)


def test_made_up_images_are_different_ones():
    digits = ood_detection.handwritten_digits(20)
    noise = ood_detection.noise(20, seed=0)
    for images in (digits, noise):
        assert all(image.shape == (128, 128) for image in images)
        assert all(image.dtype == "uint8" for image in images)
        assert len({image.tobytes() for image in images}) == 20
        assert max(image.max() for image in images) == 255


def answers(similarity, confidence):
    return pd.DataFrame(
        {
            "similarity": similarity,
            "confidence": confidence,
            "unlike": np.array(similarity) < 0.5,
            "group": [f"{similarity}-{place}" for place in range(len(similarity))],
        }
    )


def test_kinds_are_described_by_how_they_differ_from_known_scans():
    kinds = {
        "scans": answers([0.9, 0.8, 0.7, 0.6], [0.9, 0.5, 0.9, 0.5]),
        "others": answers([-0.9, 0.1, 0.4, 0.75], [0.9, 0.5, 0.9, 0.5]),
    }
    rows = ood_detection.describe_kinds(kinds, "scans").set_index("images")
    assert rows["n"].tolist() == [4, 4] and rows["flagged"].tolist() == [0, 0.75]
    assert np.isnan(rows.at["scans", "auroc"])
    others = rows.loc["others"]
    assert others["auroc"] == pytest.approx(14 / 16)
    assert others["confidence_auroc"] == pytest.approx(0.5)
    assert others["auroc_low"] <= others["auroc"] <= others["auroc_high"]
    assert others["median_confidence"] == pytest.approx(0.7)
