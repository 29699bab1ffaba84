"""In which order notebooks run, and what is shown meanwhile.

That they run is tested by test_notebooks.
"""

import json
import re
import sys
from pathlib import Path

from braintumor import config
from braintumor.support import processor

import forecast
import pandas as pd
import pytest
import run_notebooks
from jupyter_folders import make_jupyter_folders

NAMES = [
    "01_download",
    "02_explore",
    "03_train_vgg16",
    "04_train_resnet50",
    "05_compare",
    "06_predict",
]


# --- the order ---


def grouped_names(names, quick):
    """The names of the notebooks, grouped as they run."""
    sources = [Path(f"{name}.ipynb") for name in names]
    groups = run_notebooks.group_notebooks(sources, quick)
    return [[source.stem for source in group] for group in groups]


def test_in_a_quick_run_the_longest_of_notebooks_side_by_side_comes_first():
    assert grouped_names(NAMES, quick=True) == [
        ["01_download"],
        ["04_train_resnet50", "03_train_vgg16", "02_explore"],
        ["05_compare"],
        ["06_predict"],
    ]


def test_every_notebook_of_a_quick_run_is_known_to_the_forecast():
    main_notebooks = [file.stem for file in run_notebooks.find_notebooks(["0[1-6]_*"])]
    assert main_notebooks == NAMES == list(forecast.NOTEBOOK_SECONDS)
    (side_by_side,) = run_notebooks.SIDE_BY_SIDE
    assert sorted([*side_by_side, *forecast.RUN_ALONE]) == NAMES


def test_a_whole_study_runs_one_notebook_at_a_time():
    shuffled = list(reversed(NAMES))
    assert grouped_names(shuffled, quick=False) == [[name] for name in NAMES]


def test_notebooks_that_share_the_cores_share_the_threads(monkeypatch):
    monkeypatch.setattr(run_notebooks.os, "cpu_count", lambda: 8)
    alone = run_notebooks.kernel_environment("sample", notebooks=1)
    side_by_side = run_notebooks.kernel_environment("sample", notebooks=3)
    assert "OMP_NUM_THREADS" not in alone
    assert side_by_side["OMP_NUM_THREADS"] == "4"


def test_notebooks_are_found_by_patterns_each_once():
    found = run_notebooks.find_notebooks(["0[34]_*", "03_*"])
    assert [file.stem for file in found] == ["03_train_vgg16", "04_train_resnet50"]


def test_a_name_that_no_notebook_has_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(
        sys, "argv", ["run", "--into", str(tmp_path), "--notebooks", "3_train", "x"]
    )
    with pytest.raises(SystemExit, match="^No notebook .* is called 3_train, x: "):
        run_notebooks.main()


# --- what is shown ---


class KeptLines:
    """Instead of ``StatusLines``: keeps (text, passing) of every line."""

    def __init__(self):
        self.kept = []

    def show(self, name, text, passing=False):
        self.kept.append((text, passing))


@pytest.fixture
def lines():
    return KeptLines()


@pytest.fixture
def notebook(lines):
    """A notebook without cells."""
    empty = run_notebooks.nbformat.v4.new_notebook()
    return run_notebooks.WatchedNotebook(empty, "03_train_vgg16", lines)


def test_the_end_of_an_epoch_is_a_line_and_the_way_there_a_passing_one(notebook, lines):
    notebook.show_progress(
        "features of view 1: 40 of 61 batches\n"
        "epoch 6: 20 of 61 batches\n"
        "epoch  6/20 fine_tune 60.0 s\n"
    )
    assert lines.kept == [
        ("features of view 1: 40 of 61 batches", True),
        ("epoch 6: 20 of 61 batches", True),
        ("epoch  6/20 fine_tune 60.0 s", False),
    ]


def test_what_is_read_from_an_earlier_training_is_no_progress(notebook, lines):
    notebook.show_progress(
        "2 of 2 epochs are on disk:\nepoch  1/2 all\nepoch  2/2 all\n"
    )
    assert lines.kept == []


def test_a_setting_called_epochs_is_no_progress(notebook, lines):
    notebook.show_progress("epochs       20\n")
    assert lines.kept == []


def test_where_lines_cannot_be_rewritten_only_those_worth_keeping_are_printed(capsys):
    lines = run_notebooks.StatusLines(["a"], live=False)
    lines.show("a", "cell 1 of 9", passing=True)
    lines.show("a", "done in 3 s")
    lines.close()
    assert capsys.readouterr().out.split() == ["a", "done", "in", "3", "s"]


# --- how long it takes ---


@pytest.fixture
def forecast_minutes(monkeypatch):
    """Minutes of a quick run on a machine that one can describe.

    By its time for Python code, its matrix products, and whether it has bfloat16.
    """

    def minutes(python=forecast.PYTHON_SECONDS, tflops=0.1, bfloat16=False):
        monkeypatch.setattr(forecast, "_python_seconds", lambda: python)
        monkeypatch.setattr(forecast, "_matrix_product_tflops", lambda: tflops)
        monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: bfloat16)
        sentence = forecast.quick_run_sentence(NAMES)
        return int(re.search(r"about (\d+) minutes?", sentence)[1])

    return minutes


def test_a_slower_machine_takes_longer(forecast_minutes):
    usual = forecast_minutes()
    assert forecast_minutes(python=10 * forecast.PYTHON_SECONDS) > usual
    assert forecast_minutes(tflops=0.01) > usual


def test_bfloat16_saves_time(forecast_minutes):
    without = forecast_minutes(tflops=0.01)
    assert forecast_minutes(tflops=0.01, bfloat16=True) < without


def test_no_machine_takes_no_time(forecast_minutes):
    assert forecast_minutes(python=1e-9, tflops=1e9) == 1


def write_run(results, model, seconds, seed=0):
    """Leave what a quick run leaves: six epochs of so many seconds, 100 scans."""
    folder = results / f"{model}-seed{seed}"
    folder.mkdir(parents=True)
    settings = {
        "model": model,
        "seed": seed,
        "image_size": 64,
        "epochs": config.PRESETS["sample"]["epochs"],
        "subsets": {"train": 100},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    pd.DataFrame({"seconds": [seconds] * 6}).to_csv(folder / "history.csv", index=False)


def test_all_scans_take_as_many_times_longer_as_they_have_scans_pixels_and_epochs(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(forecast.os, "cpu_count", lambda: 2)
    write_run(tmp_path, "vgg16", seconds=6.0)
    training_scans = 1941
    epochs = 20
    networks_side_by_side = 2
    epoch_seconds = 6.0 * (training_scans / 100) * (128 / 64) ** 2
    epoch_seconds *= forecast.EFFICIENCY["vgg16"]
    expected = epochs * epoch_seconds / 60 / networks_side_by_side
    assert forecast.whole_study_minutes(tmp_path) == pytest.approx(expected)


def test_runs_of_other_notebooks_do_not_count(tmp_path):
    write_run(tmp_path, "vgg16", seconds=6.0, seed=1)
    assert forecast.whole_study_minutes(tmp_path) == 0
    assert forecast.whole_study_sentence(tmp_path) == ""


# --- Jupyter ---


@pytest.mark.parametrize("variable", ["JUPYTER_PATH", "JUPYTER_DATA_DIR"])
@pytest.mark.parametrize("preferred", ["0", "1"])
def test_notebooks_run_in_this_python_whatever_kernels_people_have(
    tmp_path, monkeypatch, variable, preferred
):
    """A kernel stays behind when its environment is deleted."""
    kernelspec = pytest.importorskip("jupyter_client.kernelspec")
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = ["/nowhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    description = {"argv": command, "display_name": "other", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(description))
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", preferred)
    for name, value in make_jupyter_folders(tmp_path / "own").items():
        monkeypatch.setenv(name, value)
    found = kernelspec.KernelSpecManager().get_kernel_spec("python3")
    assert found.argv[0] in ("python", sys.executable)
