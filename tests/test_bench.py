"""Is the benchmark fair, and is it told as it was measured?"""

from functools import partial
from pathlib import Path

import bench
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "results" / "benchmark.csv"


def counting(step):
    """A subject that measures 0 as it warms up, then ``step``, twice ``step``, ..."""
    values = iter(range(0, 100 * step, step))
    return lambda: next(values)


def test_subjects_warm_up_and_take_turns_and_the_median_counts(capsys):
    found = bench.medians(
        repeats=3, ours=partial(counting, 1), theirs=partial(counting, 10)
    )
    assert found.to_dict() == {"ours": 2, "theirs": 20}
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["ours", "theirs"],
        ["1", "10"],
        ["2", "20"],
        ["3", "30"],
    ]


def failing():
    raise RuntimeError("no such network")


def test_a_subject_that_fails_ends_the_benchmark():
    with pytest.raises(EOFError):
        bench.medians(ours=failing)


@pytest.mark.parametrize("name", bench.MODELS)
def test_an_exported_model_answers_as_the_original(networks, name):
    pytest.importorskip("openvino", reason="OpenVINO is installed by make bench")
    scans = np.random.default_rng(0).random((16, 32, 32, 1), "float32")
    expected, found = (
        networks[name].predict(scans, verbose=0),
        bench.in_openvino(networks[name], "f32")(scans)[0],
    )
    assert np.abs(found - expected).max() <= 1e-3
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_copies_of_phantoms_are_scans_of_their_own_in_so_many_patients(tmp_path):
    known = bench.many_phantoms(
        tmp_path, 144, patients=36, drawn=48
    )  # 12 patients, drawn once, each copied thrice
    assert known["sha256"].nunique() == 144 and known["group"].nunique() == 36
    table = bench.dataset.scan_table(tmp_path, known)
    assert bench.dataset.verify(tmp_path, table, known).verified == 144
    assert table["group"].nunique() == 36


def test_the_committed_rows_are_those_of_the_contract():
    rows = pd.read_csv(COMMITTED)
    assert list(rows.columns) == [
        "name",
        "unit",
        "ours",
        "reference",
        "reference_name",
        "ratio",
    ]
    assert sorted(rows["name"]) == sorted(bench.ROWS)
    ratio = (rows["ours"] / rows["reference"]).where(
        ~rows["unit"].isin(bench.LOWER_IS_BETTER), rows["reference"] / rows["ours"]
    )
    pd.testing.assert_series_equal(rows["ratio"], ratio, rtol=1e-4, check_names=False)
