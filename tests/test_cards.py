"""Model card, CLAIM table and reliability page: numbers from result files, named tests."""

import re
from pathlib import Path

from braintumor import metrics

import numpy as np
import pandas as pd
import pytest
from docs_values import formatting, model_card

ROOT = Path(__file__).resolve().parents[1]

CLAIM = ROOT / "docs" / "claim.md"


def committed_predictions():
    for file in sorted((ROOT / "results").glob("*/predictions.csv")):
        for _, rows in pd.read_csv(file).groupby("subset"):
            yield rows


def thirds():
    return pd.DataFrame(
        {0: {"glioma": 9.0, "meningioma": 4.0}, 1: {"glioma": 25.0, "meningioma": 16.0}}
    )


def test_subgroups_share_out_all_tumors_and_no_scan_twice():
    for rows in committed_predictions():
        parts = model_card.subgroups(rows, thirds())
        patients, sizes = (
            sum(parts[name].astype(int) for name in parts if kind in name)
            for kind in ("patient", "third")
        )
        assert (patients == (rows["label"] != "no_tumor")).all()
        assert (
            sizes
            == (rows["box_w"].notna() & rows["label"].isin(["glioma", "meningioma"]))
        ).all()


def test_a_tumor_is_small_or_large_among_those_of_its_class():
    rows = pd.DataFrame(
        {
            "label": ["glioma", "meningioma", "glioma", "pituitary", "no_tumor"],
            "group": "patient-1",
            "box_w": [3, 3, 6, 3, np.nan],
            "box_h": [3, 3, 6, 3, np.nan],
        }
    )
    parts = model_card.subgroups(rows, thirds())
    found = {
        name: list(rows.index[part]) for name, part in parts.items() if "third" in name
    }
    assert found == {"small third": [0], "middle third": [1], "large third": [2]}


def test_a_share_of_all_scans_has_the_accuracy_and_interval_of_the_metrics():
    for rows in committed_predictions():
        accuracy = metrics.score_intervals(rows).loc["accuracy"]
        expected = formatting.Estimate(*accuracy[["value", "low", "high"]])
        share = model_card.share(rows, rows["label"])
        assert share.scans == len(rows)
        assert share.interval == pytest.approx(expected)


def test_a_share_of_few_groups_has_no_interval():
    rows = pd.DataFrame(
        {
            "path": ["1.jpg", "2.jpg", "3.jpg"],
            "group": list("aab"),
            "predicted": ["no_tumor", "glioma", "glioma"],
        }
    )
    few = model_card.share(rows, "no_tumor")
    assert (few.scans, few.share, few.interval) == (3, 1 / 3, None)
    assert model_card.share(rows.head(0), "no_tumor").share is None


def test_the_claim_table_has_every_item_once():
    assert re.findall(r"^\| (\d+) \|", CLAIM.read_text(), re.M) == [
        str(item) for item in range(1, 45)
    ]


def test_every_test_that_the_table_of_faults_names_is_there():
    tests = "".join(file.read_text() for file in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/reliability.md").read_text())
    assert (
        len(named) > 40
        and [name for name in named if f"def {name}(" not in tests] == []
    )
