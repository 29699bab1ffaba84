"""Does the model of what training costs follow from its costs?"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import scaling

RESULTS = Path(__file__).resolve().parents[1] / "results"


@pytest.fixture
def committed_costs():
    """The costs that were measured, and the assumptions of the code."""
    table = pd.read_csv(RESULTS / "scaling.csv").set_index("cost")
    measured = table.loc[table["measured"], "value"]
    return scaling.Costs(**measured.to_dict())


def test_every_cost_has_a_name_for_the_page(committed_costs):
    table = scaling.cost_table(committed_costs)
    assert table["cost"].to_list() == list(scaling.COSTS)


def test_the_committed_costs_are_those_of_the_code(committed_costs):
    committed = pd.read_csv(RESULTS / "scaling.csv")
    pd.testing.assert_frame_equal(scaling.cost_table(committed_costs), committed)


def test_the_committed_forecasts_follow_from_the_committed_costs(committed_costs):
    committed = pd.read_csv(RESULTS / "scaling_forecast.csv")
    found = scaling.forecast_table(committed_costs)
    pd.testing.assert_frame_equal(found, committed, rtol=1e-4)


def test_in_a_ring_each_process_sends_almost_twice_the_gradients():
    assert scaling.exchange_seconds(1, 100, 10) == 0
    assert scaling.exchange_seconds(2, 100, 10) == 10
    assert scaling.exchange_seconds(1000, 100, 10) == pytest.approx(20, rel=0.01)


def test_what_takes_longest_is_named(committed_costs):
    slow_network = replace(committed_costs, network_gb_s=1e-6)
    assert scaling.forecast(3000, 8, slow_network).longest == "exchanging"
    slow_gpu = replace(committed_costs, gpu_tflops=1e-3)
    assert scaling.forecast(3000, 1, slow_gpu).longest == "computing"


def test_the_price_counts_all_gpus(committed_costs):
    found = scaling.forecast(300_000, 8, committed_costs)
    price = committed_costs.dollars_a_gpu_hour
    assert found.dollars == pytest.approx(found.hours * 8 * price)


def test_the_model_has_its_numbers_from_the_first_measurements():
    few = scaling.FeedingCost(
        scans=1000, listing_seconds=1, seconds=10, peak_memory=100
    )
    many = scaling.FeedingCost(
        scans=3000, listing_seconds=3, seconds=33, peak_memory=100
    )
    table = scaling.check_model([few, many], steps={1: 1.0, 2: 1.5, 4: 2.0})
    assert table["model"].to_list() == pytest.approx([10, 30, 1, 1.5, 1.75])
    assert table["measured"].to_list() == [10, 33, 1, 1.5, 2]
    assert table["fitted"].to_list() == [True, False, True, True, False]
    assert table["what"].iloc[2].endswith("1 process")
    assert table["what"].iloc[3].endswith("2 processes")


def test_drawing_an_augmentation_takes_no_longer_than_a_few_milliseconds():
    assert 0 < scaling.drawing_milliseconds(count=20) < 50
