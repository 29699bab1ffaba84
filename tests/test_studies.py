"""The side studies: small, executed, without paths, and what they show follows from the committed results."""

import getpass
import io
import json
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import phantoms
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks" / "studies"
STUDIES = sorted(FOLDER.glob("*.ipynb"))
# read committed results only, so that anybody can run them in seconds
FROM_RESULTS = [
    "calibration",
    "domain_shift",
    "leakage",
    "seeds_and_folds",
    "transfer_learning",
]
# need scans, and most of them trained networks
ON_SCANS = [
    "batchnorm_collapse",
    "data_audit",
    "errors_and_robustness",
    "gradcam",
    "gradcam_synthetic",
    "ood_detection",
]
QUICKER = {"image_size": 32, "head_epochs": 1, "epochs": 2}  # than the sample preset


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """What each code cell shows, apart from figures."""
    shown = []
    for cell in code_cells(notebook):
        words = [
            output.text for output in cell.outputs if output.output_type == "stream"
        ]
        for output in cell.outputs:
            data = output.get("data", {})
            words += [
                data[kind]
                for kind in ("text/plain", "text/html", "text/markdown")
                if kind in data
            ]
        shown.append(words)
    return shown


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_was_executed_top_to_bottom_without_errors(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_small_and_holds_no_widget_path_or_user_name(path):
    assert path.stat().st_size < 2_000_000
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    words = re.sub(r'"image/png": "[^"]*"', "", json.dumps(notebook))
    assert not re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\\\", words)
    assert getpass.getuser() == "root" or getpass.getuser() not in words


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_opens_with_its_question_and_closes_with_its_answer(path):
    notebook = nbformat.read(path, as_version=4)
    opening = notebook.cells[0].source
    assert opening.startswith("# ")
    assert all(
        word in opening
        for word in (
            "colab-badge",
            "**Question.**",
            "**Reads**",
            "**Writes**",
            "**Takes**",
        )
    )
    (answer,) = texts(notebook)[-1][-1:]
    assert answer.startswith("**Answer.**") and "nan" not in answer
    assert re.search(r"\d", answer)
    assert any(cell.source.startswith("**Limits.**") for cell in notebook.cells)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_code_cells_of_a_study_are_short_and_type_no_result(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        assert len(cell.source.splitlines()) <= 15
        assert not re.search(
            r"\d\s?%[^.]", re.sub(r"\{[^}]*\}|95 ?%", "", cell.source)
        ), cell.source


@pytest.fixture
def result_tables():
    """The tables of ``results/``, which are put back as they were."""
    files = sorted((ROOT / "results").glob("*.csv"))
    before = {file: file.read_bytes() for file in files}
    yield before
    for file, content in before.items():
        if file.read_bytes() != content:
            file.write_bytes(content)


@pytest.mark.parametrize("name", FROM_RESULTS)
def test_a_study_shows_and_writes_what_the_committed_results_say(
    name, monkeypatch, result_tables
):
    """Executed again, all of its tables and sentences are the committed ones."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    committed = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    again = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(
        again, timeout=300, kernel_name="python3", resources=resources
    ).execute()
    assert texts(again) == texts(committed)
    for file, content in result_tables.items():
        expected = pd.read_csv(io.BytesIO(content))
        pd.testing.assert_frame_equal(pd.read_csv(file), expected, rtol=1e-5)


@pytest.mark.parametrize("name", FROM_RESULTS)
def test_the_numbers_of_the_index_are_those_of_the_answer(name):
    page = (FOLDER / "README.md").read_text()
    (line,) = (line for line in page.splitlines() if f"({name}.ipynb)" in line)
    _, _, _, summary, _, _ = line.split("|")
    (answer,) = texts(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4))[-1][-1:]
    number = r"\b\d+(?:\.\d+)?"
    assert set(re.findall(number, summary)) <= set(re.findall(number, answer))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The repository without results, a sample preset of seconds, and few synthetic scans."""
    folder = tmp_path_factory.mktemp("studies")
    for name in ("src", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "data").mkdir()
    tables = ["data/image_groups.csv", "data/original_history.csv"]
    for name in ["pyproject.toml", *tables]:
        shutil.copy(ROOT / name, folder / name)
    phantoms.write_phantoms(folder / "phantoms", scans=96, seed=0, size=96)
    with (folder / "src/braintumor/config.py").open("a") as settings:
        settings.write(f"\nPRESETS['sample'].update({QUICKER})\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_SCANS)
def test_a_study_runs_on_the_sample_preset(name, checkout, monkeypatch):
    """On few synthetic scans, from nothing, with results in build/ alone."""
    monkeypatch.setenv("PYTHONPATH", str(checkout / "src"))
    monkeypatch.setenv("BRAINTUMOR_PRESET", "sample")
    monkeypatch.setenv("BRAINTUMOR_DATA", str(checkout / "phantoms"))
    path = checkout / "notebooks" / "studies" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources=resources
    ).execute()
    assert texts(notebook)[-1][-1].startswith("**Answer.**")
    assert not (checkout / "results").exists()


def test_every_study_is_listed_with_its_question_and_answer():
    page = (FOLDER / "README.md").read_text()
    listed = re.findall(r"\]\((\w+\.ipynb)\)", page)
    assert sorted(listed) == [path.name for path in STUDIES]
