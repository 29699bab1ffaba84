"""The notebooks: each runs top to bottom on the sample preset, and the committed ones are as CONTRIBUTING.md asks."""

import getpass
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from braintumor import metrics, runs, splits

import nbformat
import numpy as np
import pandas as pd
import phantoms
import pytest
from conftest import copy_checkout
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
MAIN = [
    "01_download",
    "02_explore",
    "03_train_vgg16",
    "04_train_resnet50",
    "05_compare",
    "06_predict",
]
NOTEBOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in MAIN]


QUICKER = dict(
    image_size=32, head_epochs=1, epochs=2
)  # than the sample preset: what is learned is not tested here


def shorten_sample(checkout):
    """Let the preset ``sample`` of a copied checkout take seconds."""
    with (checkout / "src/braintumor/config.py").open("a") as settings:
        settings.write(f"\nPRESETS['sample'] |= {QUICKER}\n")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository, a sample preset of seconds, and few phantoms, in an empty place."""
    folder = tmp_path_factory.mktemp("repository") / "checkout"
    copy_checkout(folder)
    phantoms.write_phantoms(folder / "phantoms", scans=96, seed=0, size=96)
    shorten_sample(folder)
    return folder


def run_sample(folder, notebooks, **environment):
    command = [
        sys.executable,
        "tools/run_notebooks.py",
        "--preset",
        "sample",
        "--into",
        "build/run",
    ]
    command += ["--notebooks", *notebooks]
    environment = os.environ | {"PYTHONPATH": str(folder / "src")} | environment
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_notebooks_run_on_the_sample_preset_and_leave_results_only_in_build(copy):
    committed = contents(copy / "results")
    done = run_sample(copy, MAIN, BRAINTUMOR_DATA=str(copy / "phantoms"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(copy) not in done.stdout
    assert contents(copy / "results") == committed
    for name in MAIN:
        assert re.search(rf"^{name} +done in \d+ s$", done.stdout, re.M)
        assert (copy / "build" / "run" / f"{name}.html").exists()
        executed = nbformat.read(copy / "build" / "run" / f"{name}.ipynb", 4)
        check_outputs(executed)
        assert "image/png" in json.dumps(executed.cells)
        settings_cell = code_cells(executed)[1]
        assert "BRAINTUMOR_PRESET: the preset 'sample' instead of" in str(settings_cell)
    first, *_, last = done.stdout.splitlines()
    time_said = r"These notebooks take about \d+ minutes? on this machine\."
    assert re.fullmatch(time_said, first)
    forecast = (
        r"On all scans, `make results`, 03 and 04 alone take about \d+ minutes .*"
    )
    assert re.fullmatch(forecast, last)
    rows = pd.read_csv(copy / "build" / "results" / "metrics.csv")
    assert set(zip(rows["model"], rows["subset"], strict=True)) == {
        (model, subset)
        for model in ("vgg16", "resnet50")
        for subset in ("validation", "test")
    }


def test_a_failing_notebook_says_why_in_one_sentence_and_writes_nothing(copy):
    cell = nbformat.v4.new_code_cell(
        "from braintumor import dataset\ndataset.locate_data()"
    )
    failing = copy / "notebooks" / "00_fails.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), failing)
    done = run_sample(
        copy, ["00_fails", "01_download"], BRAINTUMOR_DATA=str(copy / "nowhere")
    )
    failing.unlink()
    assert done.returncode == 1
    assert re.fullmatch(
        r"00_fails +stopped: BRAINTUMOR_DATA is no folder; .*\.\n", done.stderr
    )
    assert not list(copy.glob("build/run/00_fails.*ml*")) + list(
        copy.glob("build/run/00_fails.ipynb")
    )
    assert "01_download" not in done.stdout  # the notebooks behind it are not tried


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def check_outputs(notebook):
    """Executed top to bottom without errors, widgets, machine paths, user names or tokens."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "widgets" not in notebook.metadata
    outputs = json.dumps([cell.outputs for cell in cells])
    assert '"output_type": "error"' not in outputs
    words = re.sub(r'"image/png": "[^"]*"', "", outputs)
    assert not re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\\\", words)
    assert str(Path.home()) == "/" or f"{Path.home()}/" not in words
    assert getpass.getuser() in ("root",) or getpass.getuser() not in words
    everything = re.sub(
        r'"image/png": "[^"]*"', "", json.dumps(notebook)
    )  # sources and metadata, too
    assert not re.search(
        r"KGAT_|gh[pos]_\w{20}|hf_\w{20}|\bkey\W{1,8}\w{20}|\b[0-9a-f]{32}\b",
        everything,
    )


LEAKS = [
    "KGAT_0f1e2d3c4b5a",
    '{"username":"ada","key":"0123456789abcdef0123456789abcdef"}',
    "/home/ada/scans",
    "C:\\\\Users",
]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_token_or_path_is_found(leak):
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    check_outputs(nbformat.v4.new_notebook(cells=[cell]))
    cell.outputs = [nbformat.v4.new_output("stream", text=f"so: {leak}\n")]
    with pytest.raises(AssertionError):
        check_outputs(nbformat.v4.new_notebook(cells=[cell]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_are_executed_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    check_outputs(notebook)
    assert path.stat().st_size < 2_000_000
    outputs = json.dumps([cell.outputs for cell in code_cells(notebook)])
    assert "PHANTOMS" not in outputs
    # what its cell says is what was used
    assert "BRAINTUMOR_PRESET: " not in outputs


def test_there_are_no_other_notebooks_than_these_and_the_studies():
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_its_question_and_closes_with_its_answer(path):
    notebook = nbformat.read(path, as_version=4)
    cells = notebook.cells
    assert 10 <= len(cells) <= 22
    opening = cells[0].source
    title = opening.splitlines()[0]
    assert title.startswith(f"# {path.stem[:2]} · ") and title.endswith("?")
    assert f"/notebooks/{path.name})" in opening and "colab-badge" in opening
    for word in ("**Question.**", "**Reads**", "**Writes**", "**Takes**"):
        assert word in opening
    answer = cells[-2]
    assert "**Answer.**" in answer.source
    (shown,) = answer.outputs
    assert re.search(r"\d", shown["data"]["text/markdown"])
    closing = cells[-1].source
    assert closing.startswith("**Limits.** ") and "**Next:** " in closing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_cells_are_short_and_introduced_by_a_sentence(path):
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in code_cells(notebook)]
    assert "google.colab" in sources[0]
    assert "from braintumor import" in sources[1] and "seed=" in sources[1]
    for source in sources:
        assert len(source.splitlines()) <= 15
        assert not re.search(r"^\s*[!%]", source, re.M)
    kinds = [cell.cell_type for cell in notebook.cells]
    for place in range(2, len(kinds) - 2):
        assert "markdown" in kinds[place - 2 : place + 1]


def markdown_of(name):
    """All Markdown cells of a notebook, with each line break as a space."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return " ".join(" ".join(cells).split())


def test_the_resnet50_of_notebook_04_is_the_best_of_three_with_the_mean_that_it_says():
    scores = pd.read_csv(ROOT / "results" / "metrics.csv").query(
        "model == 'resnet50' and recipe == 'scratch' and protocol == 'patient' "
        "and image_size == 128 and subset == 'validation'"
    )
    accuracies = scores.set_index("seed")["accuracy"]
    assert accuracies.idxmax() == 0 and len(accuracies) == 3
    said = f"best of the three on validation: their mean is {accuracies.mean():.1%}."
    assert said in markdown_of("04_train_resnet50")


def test_notebook_05_says_the_accuracies_of_the_network_that_leads_the_readme():
    scores = pd.read_csv(ROOT / "results" / "full" / "metrics.csv").query(
        "model == 'vgg16' and recipe == 'transfer+head+looks' and protocol == 'patient'"
    )
    seeds = scores.groupby("subset")["accuracy"]
    reached = {subset: metrics.mean_and_deviation(shares) for subset, shares in seeds}
    assert (
        f"its accuracy is {reached['validation']} on new patients and "
        f"{reached['test']} on the test set" in markdown_of("05_compare")
    )


def test_notebook_05_says_how_many_patients_the_reference_study_shares():
    scans = pd.read_csv(ROOT / "data" / "image_groups.csv")
    split = splits.assign_subsets(scans, "original", seed=0)
    leak = splits.leakage(split)
    assert (
        f"validates on {(split['subset'] == 'validation').sum()} scans. The patient is "
        f"known for {leak['known']} of them, and {leak['shared']} of these show a "
        "patient who is also in training" in markdown_of("05_compare")
    )


def stand_in(folder, command, script):
    """A command that runs this script instead, for whoever has ``folder`` on the path."""
    (folder / command).write_text(f"#!/bin/sh\n{script}\n")
    (folder / command).chmod(0o755)


@pytest.fixture
def colab(tmp_path):
    """An empty folder as Colab's, without credentials, and the variables of a kernel there.

    There git copies this checkout, pip does nothing, and Kaggle cannot be reached.
    """
    cloned = copy_checkout(tmp_path / "cloned", without=["notebooks", "tools"])
    shorten_sample(cloned)
    machine = tmp_path / "machine"
    package = machine / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "userdata.py").write_text(
        "def get(name):\n    raise PermissionError(name)\n"
    )
    # in every Python there, google.colab is imported from the beginning
    (machine / "sitecustomize.py").write_text("import google.colab\n")
    (machine / "pip.py").touch()
    stand_in(machine, "git", f"cp -r '{cloned}' brain-tumor-mri")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{machine}:{os.environ['PATH']}",
        "PYTHONPATH": str(machine),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # nobody is there
    }
    environment.pop("BRAINTUMOR_DATA", None)
    content = tmp_path / "content"
    content.mkdir()
    return content, environment


def run_on_colab(name, content, environment):
    """Run a notebook of this checkout in a fresh kernel; the notebook with outputs."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(content)}}
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources=resources
    )
    client.execute(env=environment)
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("name", ["03_train_vgg16", "06_predict"])
def test_on_colab_a_notebook_runs_to_its_end_without_real_scans(name, colab):
    content, environment = colab
    environment["BRAINTUMOR_PRESET"] = "sample"
    notebook = run_on_colab(name, content, environment)
    check_outputs(notebook)
    assert "PHANTOMS" in str(notebook.cells)
    results = content / "brain-tumor-mri" / "build" / "results"
    assert results.is_dir() == (name == "03_train_vgg16")


@pytest.mark.slow
def test_on_colab_a_study_reads_the_committed_results(colab):
    notebook = run_on_colab("studies/seeds_and_folds", *colab)
    check_outputs(notebook)


def test_on_colab_the_first_cell_installs_the_package_and_elsewhere_it_does_nothing(
    tmp_path,
):
    """A fresh Python in an empty folder, without credentials; git copies this checkout, pip notes what it was asked."""
    cells = {
        code_cells(nbformat.read(path, as_version=4))[0].source for path in NOTEBOOKS
    }
    assert len(cells) == 1
    (tmp_path / "cell.py").write_text(cells.pop())
    stand_in(
        tmp_path, "git", f"mkdir brain-tumor-mri && cp -r '{ROOT}/src' brain-tumor-mri"
    )
    stand_in(tmp_path, "pip", 'echo "$@" > pip.txt')
    colab = "import sys, types; sys.modules['google.colab'] = types.ModuleType('colab'); sys.executable = './pip'; "
    run, package = (
        "exec(open('cell.py').read()); ",
        "import braintumor; print(braintumor.__file__)",
    )
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    how = dict(cwd=tmp_path, env=environment, capture_output=True, text=True)
    done = subprocess.run([sys.executable, "-c", run], **how)
    assert done.returncode == 0 and not (tmp_path / "brain-tumor-mri").exists()
    done = subprocess.run(
        [sys.executable, "-S", "-c", colab + 2 * run + package], **how
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("brain-tumor-mri/src/braintumor/__init__.py")
    assert (
        tmp_path / "pip.txt"
    ).read_text() == "-m pip install -q -e brain-tumor-mri\n"


def test_the_training_notebooks_differ_in_their_settings_alone():
    ours, theirs = (
        [cell.source for cell in code_cells(nbformat.read(path, as_version=4))]
        for path in NOTEBOOKS[2:4]
    )
    assert ours[:1] + ours[2:] == theirs[:1] + theirs[2:]
    differing = set(ours[1].splitlines()) ^ set(theirs[1].splitlines())
    assert {line.split(" = ")[0] for line in differing} == {"MODEL", "SETTINGS"}


@pytest.mark.parametrize(
    "results",
    [ROOT / "results", ROOT / "results" / "full"],
    ids=lambda folder: folder.name,
)
def test_the_metrics_are_those_of_every_run(results, tmp_path):
    for folder in results.glob("*-seed*"):
        shutil.copytree(folder, tmp_path / folder.name)
    runs.write_all_metrics(tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == (
        results / "metrics.csv"
    ).read_text()


def answers(model, seed, subset):
    run = runs.read_run(ROOT / "results" / f"{model}-scratch-patient-128px-seed{seed}")
    return run.predictions.query("subset == @subset")


def test_the_pairs_are_those_of_the_stored_predictions():
    for pair in pd.read_csv(ROOT / "results" / "pairs.csv").to_dict("records"):
        seed, subset = pair.pop("seed"), pair.pop("subset")
        again = metrics.paired_comparison(
            *(answers(model, seed, subset) for model in ("vgg16", "resnet50"))
        )
        assert again == pytest.approx(pair, rel=1e-5)


def test_every_score_and_interval_is_that_of_the_stored_predictions():
    certainty = pd.read_csv(ROOT / "results" / "certainty.csv")
    for (model, subset), rows in certainty.groupby(["model", "subset"]):
        predictions = answers(model, 0, subset)
        again = pd.concat(
            [
                metrics.score_intervals(predictions),
                metrics.probability_scores(predictions),
            ]
        )
        columns = ["value", "low", "high"]
        np.testing.assert_allclose(
            again[columns], rows.set_index("score").loc[again.index, columns], rtol=1e-5
        )
