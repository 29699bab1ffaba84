"""How good, how sure: intervals, paired tests and calibration from stored predictions."""

from braintumor import metrics

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import binomtest

LABELS = ["a", "b", "c"]


def predictions(scans, seed, *, skill=0.7, scans_a_group=1):
    """Made-up predictions; a model of this skill is right in that share of the scans."""
    draw = numpy.random.default_rng(seed)
    truth, right = draw.integers(0, 3, scans), draw.random(scans) < skill
    answer = numpy.where(right, truth, (truth + 1 + draw.integers(0, 2, scans)) % 3)
    probabilities = numpy.full((scans, 3), 0.1)
    probabilities[numpy.arange(scans), answer] = 0.8
    table = pandas.DataFrame(probabilities, columns=[f"p_{label}" for label in LABELS])
    table["path"] = [f"{number:04d}" for number in range(scans)]
    table["group"] = [f"patient-{number // scans_a_group}" for number in range(scans)]
    table["label"], table["predicted"] = numpy.take(LABELS, truth), numpy.take(LABELS, answer)
    return table


def test_specificity_by_hand():
    confusion = numpy.array([[3, 1, 0], [0, 2, 0], [1, 0, 3]])
    scores = metrics.scores_of(confusion, LABELS)
    assert [scores[f"specificity_{label}"] for label in LABELS] == [5 / 6, 7 / 8, 1]


def test_slices_of_one_patient_make_intervals_wider_than_a_bootstrap_over_scans():
    """Patients on whom a model is right in all slices or in none: slices add nothing."""
    table = predictions(60, 0, skill=0.6)
    table = pandas.concat([table] * 8).assign(path=[f"{number:04d}" for number in range(480)])
    honest, naive = (metrics.with_intervals(table, unit).loc["accuracy"] for unit in ("group", "path"))
    assert honest["value"] == naive["value"]
    assert 2 < (honest["high"] - honest["low"]) / (naive["high"] - naive["low"]) < 4  # about the root of 8


# --- two models on the same scans ---


def test_a_model_compared_with_itself_differs_in_nothing():
    table = predictions(50, 1)
    same = metrics.compare(table, table)
    assert (same["accuracy"], same["accuracy_low"], same["accuracy_high"]) == (0, 0, 0)
    assert (same["only_first"], same["only_second"], same["p_value"]) == (0, 0, 1)


@hypothesis_settings(deadline=None, max_examples=20)
@given(scans=st.integers(5, 60), seed=st.integers(0, 99))
def test_a_comparison_turned_round_is_its_negative_and_counts_who_is_right_alone(scans, seed):
    first, second = predictions(scans, seed), predictions(scans, seed).assign(predicted="a")
    there, back = metrics.compare(first, second), metrics.compare(second, first.sample(frac=1, random_state=seed))
    assert there["accuracy"] == pytest.approx(-back["accuracy"])
    assert there["macro_f1_low"] == pytest.approx(-back["macro_f1_high"])
    right, also = first["label"] == first["predicted"], second["label"] == "a"
    assert there["only_first"] - there["only_second"] == right.sum() - also.sum()
    alone = there["only_first"] + there["only_second"]
    assert there["p_value"] == (binomtest(there["only_first"], alone).pvalue if alone else 1)


def test_a_clearly_better_model_is_found_better():
    truth = predictions(200, 3, skill=1.0)
    worse = truth.assign(predicted=numpy.where(numpy.arange(200) % 3 == 0, "a", truth["predicted"]))
    pair = metrics.compare(truth, worse)
    assert pair["accuracy_low"] > 0 and pair["p_value"] < 1e-6 and pair["only_second"] == 0


def test_only_the_same_scans_can_be_compared():
    table = predictions(20, 0)
    with pytest.raises(ValueError, match="same scans"):
        metrics.compare(table, table.iloc[1:])


# --- calibration ---


def test_a_model_that_is_too_sure_gets_a_temperature_above_1_and_a_smaller_error():
    too_sure = metrics.with_temperature(predictions(2000, 4, skill=0.7), 0.3)
    temperature = metrics.fit_temperature(too_sure)
    columns = [f"p_{label}" for label in LABELS]
    confidence = metrics.with_temperature(too_sure, temperature)[columns].max(axis=1).mean()
    assert temperature > 1
    assert confidence == pytest.approx((too_sure["label"] == too_sure["predicted"]).mean(), abs=0.01)


@given(temperature=st.floats(0.05, 20))
@hypothesis_settings(deadline=None, max_examples=20)
def test_a_temperature_changes_no_answer_and_keeps_probabilities(temperature):
    table = predictions(30, 5)
    columns = [f"p_{label}" for label in LABELS]
    scaled = metrics.with_temperature(table, temperature)
    numpy.testing.assert_allclose(scaled[columns].sum(axis=1), 1)
    assert scaled[columns].idxmax(axis=1).tolist() == table[columns].idxmax(axis=1).tolist()


def test_a_temperature_of_1_changes_nothing():
    table = predictions(30, 6)
    pandas.testing.assert_frame_equal(metrics.with_temperature(table, 1.0), table)
