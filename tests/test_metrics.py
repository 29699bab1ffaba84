"""How good, how sure: intervals, paired tests and calibration from stored predictions."""

from braintumor import metrics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import binomtest

LABELS = ["a", "b", "c"]


def predictions(scans, seed, *, skill=0.7, scans_a_group=1):
    """Made-up predictions; a model of this skill is right in that share of the scans."""
    draw = np.random.default_rng(seed)
    truth, right = draw.integers(0, 3, scans), draw.random(scans) < skill
    answer = np.where(right, truth, (truth + 1 + draw.integers(0, 2, scans)) % 3)
    probabilities = np.full((scans, 3), 0.1)
    probabilities[np.arange(scans), answer] = 0.8
    table = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in LABELS])
    table["path"] = [f"{number:04d}" for number in range(scans)]
    table["group"] = [f"patient-{number // scans_a_group}" for number in range(scans)]
    table["label"], table["predicted"] = np.take(LABELS, truth), np.take(LABELS, answer)
    return table


def test_specificity_by_hand():
    confusion = np.array([[3, 1, 0], [0, 2, 0], [1, 0, 3]])
    scores = metrics.confusion_scores(confusion, LABELS)
    assert [scores[f"specificity_{label}"] for label in LABELS] == [5 / 6, 7 / 8, 1]


def test_slices_of_one_patient_make_intervals_wider_than_a_bootstrap_over_scans():
    """Patients on whom a model is right in all slices or in none: slices add nothing."""
    table = predictions(60, 0, skill=0.6)
    table = pd.concat([table] * 8).assign(
        path=[f"{number:04d}" for number in range(480)]
    )
    honest, naive = (
        metrics.score_intervals(table, unit).loc["accuracy"]
        for unit in ("group", "path")
    )
    assert honest["value"] == naive["value"]
    assert (
        2 < (honest["high"] - honest["low"]) / (naive["high"] - naive["low"]) < 4
    )  # about the root of 8


# --- missed tumors and false alarms ---

CLASSES = ["glioma", "no_tumor", "pituitary"]
BY_HAND = [  # patient, true label, predicted
    ("patient-1", "glioma", "glioma"),
    ("patient-1", "glioma", "no_tumor"),
    ("patient-2", "glioma", "pituitary"),
    ("patient-2", "pituitary", "pituitary"),
    ("cluster-1", "no_tumor", "no_tumor"),
    ("cluster-2", "no_tumor", "glioma"),
    ("cluster-3", "no_tumor", "no_tumor"),
]


def answered(rows, classes=CLASSES):
    """Predictions as (group, true label, predicted)."""
    table = pd.DataFrame(rows, columns=["group", "label", "predicted"])
    return table.assign(
        path=table.index.map(str),
        **{f"p_{label}": 1 / len(classes) for label in classes},
    )


def test_missed_tumors_and_false_alarms_by_hand():
    """One of four tumors is called no tumor; a glioma that is taken for another tumor is found."""
    row = metrics.detection(answered(BY_HAND))
    assert (row["tumors"], row["missed_tumors"], row["missed_tumor_rate"]) == (
        4,
        1,
        1 / 4,
    )
    assert (row["healthy"], row["false_alarms"], row["false_alarm_rate"]) == (
        3,
        1,
        1 / 3,
    )
    assert list(row) == metrics.DETECTION


def many_patients(scans_a_patient):
    """60 patients, each with scans that are all right or all wrong: every third has a missed tumor or a false alarm."""
    rows = []
    for patient in range(60):
        label, wrong = ("glioma", "no_tumor") if patient % 2 else ("no_tumor", "glioma")
        rows += [
            (f"patient-{patient}", label, label if patient % 3 else wrong)
        ] * scans_a_patient
    return answered(rows)


@pytest.mark.parametrize("event", ["missed_tumor_rate", "false_alarm_rate"])
def test_the_interval_of_a_rate_holds_it_and_is_that_of_the_patients_not_of_their_scans(
    event,
):
    once, often = (metrics.detection(many_patients(scans)) for scans in (1, 8))
    alone = metrics.detection(
        many_patients(8).assign(group=lambda table: table["path"])
    )
    assert 0 <= once[f"{event}_low"] < once[event] < once[f"{event}_high"] <= 1
    width = [row[f"{event}_high"] - row[f"{event}_low"] for row in (once, often, alone)]
    assert once[event] == often[event] == alone[event]
    assert width[0] == pytest.approx(width[1]) and width[1] > 2 * width[2]


def test_rates_and_intervals_are_those_of_a_count_patient_by_patient():
    drawn = predictions(200, 5, skill=0.6, scans_a_group=4)
    names = dict(zip(LABELS, CLASSES))
    rows = zip(drawn["group"], drawn["label"].map(names), drawn["predicted"].map(names))
    table = answered(list(rows))
    draws = metrics.bootstrap(np.eye(table["group"].nunique()))
    patients = sorted(table["group"].unique())
    missed, tumors = [], []
    for patient in patients:
        of_patient = table[(table["group"] == patient) & (table["label"] != "no_tumor")]
        tumors.append(len(of_patient))
        missed.append((of_patient["predicted"] == "no_tumor").sum())
    rates = (draws @ missed) / (draws @ tumors)
    row = metrics.detection(table)
    assert row["missed_tumor_rate"] == pytest.approx(sum(missed) / sum(tumors))
    bounds = [row["missed_tumor_rate_low"], row["missed_tumor_rate_high"]]
    assert bounds == pytest.approx(np.percentile(rates, [2.5, 97.5]))


def test_without_scans_of_a_kind_its_rate_is_undefined():
    row = metrics.detection(
        answered([rows for rows in BY_HAND if rows[1] != "no_tumor"])
    )
    assert row["healthy"] == row["false_alarms"] == 0 and np.isnan(
        row["false_alarm_rate"]
    )
    assert row["missed_tumor_rate"] == 1 / 4


def test_a_data_set_without_the_class_no_tumor_has_neither_missed_tumors_nor_false_alarms():
    assert pd.Series(metrics.detection(predictions(20, 0))).isna().all()


# --- two models on the same scans ---


def test_a_model_compared_with_itself_differs_in_nothing():
    table = predictions(50, 1)
    same = metrics.paired_comparison(table, table)
    assert (same["accuracy"], same["accuracy_low"], same["accuracy_high"]) == (0, 0, 0)
    assert (same["only_first"], same["only_second"], same["p_value"]) == (0, 0, 1)


@hypothesis_settings(deadline=None, max_examples=20)
@given(scans=st.integers(5, 60), seed=st.integers(0, 99))
def test_a_comparison_turned_round_is_its_negative_and_counts_who_is_right_alone(
    scans, seed
):
    first, second = (
        predictions(scans, seed),
        predictions(scans, seed).assign(predicted="a"),
    )
    there, back = (
        metrics.paired_comparison(first, second),
        metrics.paired_comparison(second, first.sample(frac=1, random_state=seed)),
    )
    assert there["accuracy"] == pytest.approx(-back["accuracy"])
    assert there["macro_f1_low"] == pytest.approx(-back["macro_f1_high"])
    right, also = first["label"] == first["predicted"], second["label"] == "a"
    assert there["only_first"] - there["only_second"] == right.sum() - also.sum()
    alone = there["only_first"] + there["only_second"]
    assert there["p_value"] == (
        binomtest(there["only_first"], alone).pvalue if alone else 1
    )


def test_a_clearly_better_model_is_found_better():
    truth = predictions(200, 3, skill=1.0)
    worse = truth.assign(
        predicted=np.where(np.arange(200) % 3 == 0, "a", truth["predicted"])
    )
    pair = metrics.paired_comparison(truth, worse)
    assert (
        pair["accuracy_low"] > 0 and pair["p_value"] < 1e-6 and pair["only_second"] == 0
    )


def test_only_the_same_scans_can_be_compared():
    table = predictions(20, 0)
    with pytest.raises(ValueError, match="same scans"):
        metrics.paired_comparison(table, table.iloc[1:])


# --- calibration ---


def test_a_model_that_is_too_sure_gets_a_temperature_above_1_and_a_smaller_error():
    too_sure = metrics.with_temperature(predictions(2000, 4, skill=0.7), 0.3)
    temperature = metrics.fit_temperature(too_sure)
    columns = [f"p_{label}" for label in LABELS]
    confidence = (
        metrics.with_temperature(too_sure, temperature)[columns].max(axis=1).mean()
    )
    assert temperature > 1
    assert confidence == pytest.approx(
        (too_sure["label"] == too_sure["predicted"]).mean(), abs=0.01
    )


@given(temperature=st.floats(0.05, 20))
@hypothesis_settings(deadline=None, max_examples=20)
def test_a_temperature_changes_no_answer_and_keeps_probabilities(temperature):
    table = predictions(30, 5)
    columns = [f"p_{label}" for label in LABELS]
    scaled = metrics.with_temperature(table, temperature)
    np.testing.assert_allclose(scaled[columns].sum(axis=1), 1)
    assert (
        scaled[columns].idxmax(axis=1).tolist()
        == table[columns].idxmax(axis=1).tolist()
    )


def test_a_temperature_of_1_changes_nothing():
    table = predictions(30, 6)
    pd.testing.assert_frame_equal(metrics.with_temperature(table, 1.0), table)


def test_seeds_are_averaged_scan_by_scan_and_compared_once():
    """Two seeds of each setting: the first is right in 3 of 4 answers, the other in 1."""
    right = answered([("a", "glioma", "glioma"), ("b", "no_tumor", "no_tumor")])
    half = answered([("a", "glioma", "no_tumor"), ("b", "no_tumor", "no_tumor")])
    wrong = answered([("a", "glioma", "no_tumor"), ("b", "no_tumor", "glioma")])
    difference, low, high = metrics.accuracy_difference([right, half], [half, wrong])
    assert difference == pytest.approx(3 / 4 - 1 / 4)
    assert low <= difference <= high
    nothing = metrics.accuracy_difference([right, half], [half, right])
    assert nothing == pytest.approx((0, 0, 0))
    with pytest.raises(ValueError, match="same scans"):
        metrics.accuracy_difference([right], [right.head(1)])


def test_seeds_that_have_other_scans_are_compared_on_all_of_them():
    """As validation scans: every seed has folds of its own."""
    first_seed = answered([("a", "glioma", "glioma")])
    second_seed = answered([("b", "no_tumor", "glioma")]).assign(path="1")
    both = answered([("a", "glioma", "no_tumor"), ("b", "no_tumor", "glioma")])
    difference, low, high = metrics.accuracy_difference(
        [first_seed, second_seed], [both]
    )
    assert difference == pytest.approx(1 / 2)
    assert low <= difference <= high


def test_missed_tumors_and_false_alarms_are_counted_for_each_seed():
    none = answered([("a", "glioma", "pituitary"), ("b", "no_tumor", "no_tumor")])
    both = answered([("a", "glioma", "no_tumor"), ("b", "no_tumor", "glioma")])
    errors = metrics.detection_over_seeds([none, both, both])
    assert list(errors["counts"]) == ["0, 1, 1 of 1", "0, 1, 1 of 1"]
    assert list(errors["share"]) == pytest.approx([2 / 3, 2 / 3])
    assert list(errors.index) == ["missed tumors", "false alarms"]


# --- what notebooks say of them ---


@pytest.mark.parametrize(
    "difference, words, better",
    [
        ((0.149, 0.098, 0.2), "A is ahead of B by 14.9 points (9.8 to 20.0)", "A"),
        ((-0.03, -0.05, -0.01), "A is behind B by 3.0 points (1.0 to 5.0)", "B"),
        ((-0.03, -0.05, 0.01), "A is behind B by 3.0 points (-1.0 to 5.0)", "neither"),
    ],
)
def test_a_difference_in_words(difference, words, better):
    assert metrics.difference_in_words("A", "B", difference) == words
    assert metrics.shown_better("A", "B", difference) == better


def test_scans_are_described_with_the_range_of_the_seeds():
    scores = pd.DataFrame({"n": [485, 486], "groups": [86, 88], "known_patients": 37})
    assert metrics.describe_scans(scores) == (
        "485 to 486 scans of 86 to 88 groups, 37 of them known patients"
    )


def test_validation_scans_of_several_seeds_count_once_for_each_seed():
    """Two seeds with other scans: the mean is over all of their scans."""
    scans = [predictions(40, 3), predictions(60, 4)[20:]]
    better = [table.assign(predicted=table["label"]) for table in scans]
    correct = pd.concat([table["label"] == table["predicted"] for table in scans])
    gain, low, high = metrics.accuracy_difference(better, scans)
    assert gain == pytest.approx(1 - correct.mean())
    assert low < gain < high


def test_without_scans_of_a_kind_nothing_is_missed_and_nothing_is_alarmed():
    tumors = answered([("a", "glioma", "pituitary"), ("b", "pituitary", "no_tumor")])
    without_class = tumors.drop(columns="p_no_tumor")
    without_class["predicted"] = "glioma"
    errors = metrics.detection_over_seeds([without_class, without_class])
    assert list(errors["counts"]) == ["–", "–"]
    assert errors[["share", "low", "high"]].isna().all(axis=None)

    errors = metrics.detection_over_seeds([tumors])
    assert list(errors["counts"]) == ["1 of 2", "–"]
    assert errors.at["missed tumors", "share"] == 1 / 2
    assert np.isnan(errors.at["false alarms", "share"])


def test_the_mean_of_undefined_rates_is_a_dash():
    undefined = pd.Series([np.nan, np.nan])
    assert metrics.mean_and_deviation(undefined) == "–"
    assert metrics.mean_and_deviation(undefined.head(1)) == "–"
    assert metrics.mean_and_deviation(pd.Series([0.5, 0.7])) == "60.0% ± 14.1"
