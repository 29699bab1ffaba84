"""Is the benchmark fair, and is it told as it was measured?"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from braintumor import dataset

import bench
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import subjects
import transfer_stages
import turns

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ["name", "unit", "ours", "reference", "reference_name"]
SPREAD = ["ratio_least", "ratio_most"]
COLUMNS = [*MEASURED, *SPREAD, "ratio"]


# --- taking turns ---


def counting(step):
    """A subject that measures 0 as it warms up, then ``step``, twice ``step``, ..."""
    values = iter(range(0, 100 * step, step))
    return lambda: next(values)


def failing():
    raise RuntimeError("no such network")


def test_subjects_warm_up_and_take_turns_and_the_median_counts(capsys):
    two = {"ours": partial(counting, 1), "theirs": partial(counting, 10)}
    assert turns.measure_medians(two, repeats=3) == {"ours": 2, "theirs": 20}
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed == [["ours", "theirs"], ["1", "10"], ["2", "20"], ["3", "30"]]


def test_every_round_of_turns_is_kept():
    two = {"ours": partial(counting, 1), "theirs": partial(counting, 10)}
    rounds = turns.measure_rounds(two, repeats=2)
    assert rounds.to_dict("list") == {"ours": [1, 2], "theirs": [10, 20]}


def test_a_subject_that_is_measured_once_is_warm():
    assert turns.measure_once(partial(counting, 5)) == 5


def test_a_subject_that_fails_ends_the_benchmark():
    with pytest.raises(EOFError):
        turns.measure_medians({"ours": failing})


def test_a_rate_is_a_count_divided_by_seconds(monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(clock))
    measure = turns.rate(8, work=lambda: None)
    assert measure() == 2


# --- subjects ---


@pytest.mark.parametrize("name", subjects.MODELS)
def test_an_exported_network_predicts_as_the_one_of_keras(networks, name):
    pytest.importorskip("openvino", reason="OpenVINO is installed by make bench")
    scans = np.random.default_rng(0).random((16, 32, 32, 1), "float32")
    expected = networks[name].predict(scans, verbose=0)
    found = subjects.in_openvino(networks[name], "f32")(scans)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_copies_of_phantoms_are_scans_of_their_own(tmp_path):
    known = subjects.many_phantoms(tmp_path, count=144, patients=36, drawn=48)
    assert known["sha256"].is_unique
    table = dataset.scan_table(tmp_path, known)
    assert dataset.verify(tmp_path, table, known).verified == 144


def test_copies_of_phantoms_belong_to_as_many_patients_as_asked_for(tmp_path):
    known = subjects.many_phantoms(tmp_path, count=144, patients=36, drawn=48)
    assert known["group"].nunique() == 36  # of 12 that are drawn


# --- results ---


def test_a_ratio_above_1_means_that_ours_is_better():
    faster = bench.Result("pipeline", "images/s", 20, 10, "the other")
    shorter = bench.Result("study", "s", 10, 20, "the other")
    assert faster.ratio == shorter.ratio == 2


def test_decoding_once_is_shared_by_the_epochs():
    speed = bench.FeedingSpeed(
        decoding=50, augmenting=500, original=10, original_decoding=20, layers=30
    )
    assert speed.decoding_ms == 20 / bench.EPOCHS
    assert speed.ours == pytest.approx(1000 / (1 + 2))


def test_rows_come_in_the_order_of_the_contract():
    results = [bench.Result(name, "s", 1, 2, "") for name in reversed(bench.ROWS)]
    table = bench.result_table(results)
    assert list(table["name"]) == list(bench.ROWS)
    assert list(table.columns) == COLUMNS


@pytest.fixture
def committed():
    return pd.read_csv(ROOT / "results" / "benchmark.csv")


def test_the_committed_rows_are_those_of_the_contract(committed):
    assert list(committed.columns) == COLUMNS
    assert sorted(committed["name"]) == sorted(bench.ROWS)


def test_the_committed_ratios_are_those_of_the_committed_measurements(committed):
    for row in committed.drop(columns="ratio").itertuples(index=False):
        stored = committed.set_index("name").at[row.name, "ratio"]
        assert bench.Result(*row).ratio == pytest.approx(stored, rel=1e-4)


def test_what_is_written_can_be_read_and_seen(committed, tmp_path):
    rows = committed.drop(columns="ratio").itertuples(index=False)
    results = [bench.Result(*row) for row in rows]
    bench.write_results(results, "verified 3264/3264", tmp_path)
    written = pd.read_csv(tmp_path / "benchmark.csv")
    pd.testing.assert_frame_equal(written, committed, rtol=1e-4)
    assert (tmp_path / "benchmark.json").exists()
    assert (tmp_path / "figures" / "benchmark.png").exists()
    assert (tmp_path / "figures" / "benchmark_stages.png").exists()


def test_the_ratio_near_1_shows_its_spread(committed):
    feed = committed.set_index("name").loc["feed"]
    assert feed["ratio_least"] <= feed["ratio"] <= feed["ratio_most"]


# --- the stages of a transfer training ---


def test_the_committed_shares_of_the_stages_are_those_of_their_seconds():
    rows = pd.read_csv(ROOT / "results" / "transfer_stages.csv")
    expected = rows["seconds"] / rows["seconds"].sum()
    np.testing.assert_allclose(rows["share"], expected, rtol=1e-4)
    assert (rows["seconds"] > 0).all()


def test_the_title_of_the_shares_names_the_longest_stage():
    rows = pd.DataFrame(
        {"stage": ["listing", "fine-tuning, 15 epochs"], "seconds": [60.0, 540.0]}
    )
    rows["share"] = rows["seconds"] / rows["seconds"].sum()
    figure = transfer_stages.draw_shares(rows, "a processor")
    words = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert "Fine-tuning takes 90% of a transfer training" in " ".join(words)


# --- scripts, which make starts without the paths of pytest ---


@pytest.mark.parametrize(
    ("folder", "module", "needed"),
    [
        ("benchmarks", "subjects", "phantoms"),
        ("tools", "docs_values", "bench"),
        ("tools", "docs_values", "scaling"),
    ],
)
def test_a_script_finds_modules_of_the_other_folder(folder, module, needed):
    code = (
        f"import {module}, importlib.util; assert importlib.util.find_spec('{needed}')"
    )
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / folder)])
    environment = os.environ | {"PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
