"""How the notebooks are run: in which order, and what is shown meanwhile. That they run is tested by test_notebooks."""

import json
import re
from pathlib import Path

from braintumor import config
from braintumor.support import processor

import forecast
import pandas as pd
import pytest
import run_notebooks

NAMES = [
    "01_download",
    "02_explore",
    "03_train_vgg16",
    "04_train_resnet50",
    "05_compare",
]


def names(groups):
    return [[source.stem for source in group] for group in groups]


def test_in_a_quick_run_the_longest_of_the_notebooks_that_can_run_together_comes_first():
    sources = [Path(f"{name}.ipynb") for name in NAMES]
    assert names(run_notebooks.groups(sources, quick=True)) == [
        ["01_download"],
        ["04_train_resnet50", "03_train_vgg16", "02_explore"],
        ["05_compare"],
    ]


def test_a_whole_study_runs_one_notebook_at_a_time():
    sources = [Path(f"{name}.ipynb") for name in reversed(NAMES)]
    assert names(run_notebooks.groups(sources, quick=False)) == [
        [name] for name in NAMES
    ]


def test_notebooks_that_share_the_cores_share_the_threads(monkeypatch):
    monkeypatch.setattr(run_notebooks.os, "cpu_count", lambda: 8)
    assert "OMP_NUM_THREADS" not in run_notebooks.kernel_environment(
        "sample", notebooks=1
    )
    assert (
        run_notebooks.kernel_environment("sample", notebooks=3)["OMP_NUM_THREADS"]
        == "4"
    )


# --- what is shown ---


@pytest.fixture
def watched():
    """A notebook of no cells whose lines are kept: (what passes on the text of a kernel, lines)."""
    lines = []

    class Lines:
        def show(self, name, text, passing=False):
            lines.append((text, passing))

    notebook = run_notebooks.nbformat.v4.new_notebook()
    return run_notebooks.WatchedNotebook(
        notebook, "03_train_vgg16", Lines()
    ).tell_training, lines


def test_the_end_of_an_epoch_is_a_line_and_the_way_there_a_passing_one(watched):
    tell, lines = watched
    tell(
        "features of view 1: 40 of 61 batches\nepoch 6: 20 of 61 batches\nepoch  6/20 fine_tune 60.0 s\n"
    )
    assert lines == [
        ("features of view 1: 40 of 61 batches", True),
        ("epoch 6: 20 of 61 batches", True),
        ("epoch  6/20 fine_tune 60.0 s", False),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "2 of 2 epochs are on disk:\nepoch  1/2 all\nepoch  2/2 all\n",
        "epochs       20\n",
    ],
)
def test_what_is_read_from_an_earlier_training_is_no_progress(watched, text):
    tell, lines = watched
    tell(text)
    assert lines == []


def test_where_lines_cannot_be_rewritten_only_those_worth_keeping_are_printed(capsys):
    lines = run_notebooks.StatusLines(["a"], live=False)
    lines.show("a", "cell 1 of 9", passing=True)
    lines.show("a", "done in 3 s")
    lines.close()
    assert capsys.readouterr().out.split() == ["a", "done", "in", "3", "s"]


# --- how long it takes ---


def minutes(sentence):
    return int(re.search(r"about (\d+) minutes?", sentence)[1])


@pytest.fixture
def machine(monkeypatch):
    """``machine(python, tflops, bfloat16)``: its times for Python code, its matrix products, its arithmetic."""

    def arrange(python=forecast.PYTHON_SECONDS, tflops=0.1, bfloat16=False):
        monkeypatch.setattr(forecast, "_python_seconds", lambda: python)
        monkeypatch.setattr(forecast, "_matrix_product_tflops", lambda: tflops)
        monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: bfloat16)
        return minutes(forecast.quick_run_sentence(NAMES))

    return arrange


def test_a_slower_machine_takes_longer(machine):
    usual = machine()
    assert machine(python=10 * forecast.PYTHON_SECONDS) > usual
    assert machine(tflops=0.01) > usual
    assert machine(tflops=0.01, bfloat16=True) < machine(tflops=0.01)


def test_no_machine_takes_no_time(machine):
    assert machine(python=1e-9, tflops=1e9) == 1


def write_run(results, model, seconds, seed=0):
    folder = results / f"{model}-seed{seed}"
    folder.mkdir(parents=True)
    settings = {
        "model": model,
        "seed": seed,
        "image_size": 64,
        "epochs": config.PRESETS["sample"]["epochs"],
    }
    (folder / "settings.json").write_text(
        json.dumps(settings | {"subsets": {"train": 100}})
    )
    pd.DataFrame({"seconds": [seconds] * 6}).to_csv(folder / "history.csv", index=False)


def test_all_scans_take_as_many_times_longer_as_they_have_scans_pixels_and_epochs(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(forecast.os, "cpu_count", lambda: 2)
    write_run(tmp_path, "vgg16", seconds=6.0)
    training_scans, epochs, networks_side_by_side = 1941, 20, 2
    expected = (
        6.0
        * (training_scans / 100)
        * (128 / 64) ** 2
        * epochs
        / 60
        / networks_side_by_side
    )
    assert forecast.whole_study_minutes(tmp_path) == pytest.approx(
        expected * forecast.EFFICIENCY["vgg16"]
    )


def test_runs_of_other_notebooks_do_not_count(tmp_path):
    write_run(tmp_path, "vgg16", seconds=6.0, seed=1)
    assert forecast.whole_study_minutes(tmp_path) == 0
    assert forecast.whole_study_sentence(tmp_path) == ""
