"""The committed results: every stored prediction is of the scans and subsets that its settings name."""

import json
import re
from pathlib import Path

from braintumor import splits

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
FOLDERS = [RESULTS, RESULTS / "full"]
RUNS = sorted(
    file.parent for folder in FOLDERS for file in folder.glob("*/settings.json")
)
RUN_IDS = [f"{run.parent.name}/{run.name}" for run in RUNS]
SCANS = pd.read_csv(ROOT / "data" / "image_groups.csv")
LABELS = sorted(SCANS["label"].unique())


@pytest.fixture(scope="module", params=RUNS, ids=RUN_IDS)
def run(request):
    """One run after the other: (settings, predictions)."""
    settings = json.loads((request.param / "settings.json").read_text())
    return settings, pd.read_csv(request.param / "predictions.csv")


def test_a_run_predicts_every_scan_that_its_split_holds_out_and_no_other(run):
    settings, predictions = run
    table = splits.assign_subsets(SCANS, settings["protocol"], settings["seed"])
    held_out = table[~table["subset"].isin(["train", "excluded"])]
    columns = ["path", "split", "label", "sha256", "group", "label_conflict", "subset"]
    expected = held_out[columns].reset_index(drop=True)
    stored = predictions[columns].sort_values("path", ignore_index=True)
    pd.testing.assert_frame_equal(stored, expected)
    assert settings["subsets"] == table["subset"].value_counts().to_dict()


def test_the_probabilities_of_a_scan_sum_to_1_and_the_largest_is_the_prediction(run):
    _, predictions = run
    probabilities = predictions[[f"p_{label}" for label in LABELS]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    stated = probabilities[
        np.arange(len(predictions)), predictions["predicted"].map(LABELS.index)
    ]
    np.testing.assert_array_equal(stated, probabilities.max(axis=1))


def test_the_folder_of_a_run_is_named_after_its_settings_and_holds_every_epoch():
    for folder in RUNS:
        facts = json.loads((folder / "settings.json").read_text())
        size = f"{facts['image_size']}px"
        parts = [
            facts["model"],
            facts["recipe"],
            facts["protocol"],
            size,
            f"seed{facts['seed']}",
        ]
        assert folder.name == "-".join(parts)
        assert (folder.parent == RESULTS / "full") == (facts["preset"] == "full")
        epochs = pd.read_csv(folder / "history.csv")["epoch"].tolist()
        assert epochs == list(range(1, facts["epochs"] + 1))


def test_no_result_file_holds_the_path_of_a_machine():
    for file in RESULTS.rglob("*"):
        if file.suffix in (".csv", ".json", ".md"):
            assert not re.search(
                r"/(home|root|tmp|work|Users)/|[A-Z]:\\", file.read_text()
            ), file


# --- missed tumors and false alarms, against what other code computed ---


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def scores(request):
    return pd.read_csv(request.param / "metrics.csv")


def test_a_missed_tumor_and_a_false_alarm_are_counted_in_the_stored_predictions(scores):
    for row in scores.itertuples():
        name = (
            f"{row.model}-{row.recipe}-{row.protocol}-{row.image_size}px-seed{row.seed}"
        )
        (folder,) = [folder for folder in RUNS if folder.name == name]
        predictions = pd.read_csv(folder / "predictions.csv")
        predictions = predictions[predictions["subset"] == row.subset]
        called = pd.crosstab(
            predictions["label"] != "no_tumor", predictions["predicted"] == "no_tumor"
        )
        assert (
            row.tumors == called.loc[True].sum()
            and row.healthy == called.loc[False].sum()
        )
        assert row.missed_tumors == called.loc[True, True]
        assert row.false_alarms == called.loc[False, False]
        patients = {
            group for group in predictions["group"] if group.startswith("patient-")
        }
        assert row.known_patients == len(patients)


def test_the_false_alarm_rate_and_its_interval_are_those_of_the_recall_the_other_way_round(
    scores,
):
    columns = ["false_alarm_rate", "false_alarm_rate_low", "false_alarm_rate_high"]
    recall = scores[["recall_no_tumor", "recall_no_tumor_high", "recall_no_tumor_low"]]
    np.testing.assert_allclose(scores[columns], 1 - recall, atol=2e-6)


def test_the_interval_of_a_missed_tumor_rate_is_that_of_the_specificity_the_other_way_round():
    """For the runs of certainty.csv, which was written before missed tumors were counted."""
    certainty = pd.read_csv(RESULTS / "certainty.csv").query(
        "score == 'specificity_no_tumor'"
    )
    metrics = pd.read_csv(RESULTS / "metrics.csv")
    main = metrics.query(
        "recipe == 'scratch' and protocol == 'patient' and image_size == 128 and seed == 0"
    )
    both = main.merge(certainty, on=["model", "subset"], validate="1:1")
    assert len(both) == len(certainty)
    columns = ["missed_tumor_rate", "missed_tumor_rate_low", "missed_tumor_rate_high"]
    np.testing.assert_allclose(
        both[columns], 1 - both[["value", "high", "low"]], atol=2e-6
    )
