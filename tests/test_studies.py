"""The side studies: small, executed, without paths, and what they show follows from the committed results."""

import getpass
import io
import json
import re
import shutil
from pathlib import Path

from braintumor import plots, splits
from braintumor.studies import robustness

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
    "attempts",
    "batchnorm_collapse",
    "data_audit",
    "errors_and_robustness",
    "gradcam",
    "gradcam_synthetic",
    "ood_detection",
]


def test_every_study_reads_results_alone_or_needs_scans():
    assert sorted(FROM_RESULTS + ON_SCANS) == [path.stem for path in STUDIES]


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


def numbers_of(text):
    """All numbers of a text, without signs and thousands separators."""
    return set(re.findall(r"\b\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text)))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_numbers_of_the_index_are_those_of_the_answer(path):
    page = (FOLDER / "README.md").read_text()
    (line,) = (line for line in page.splitlines() if f"({path.name})" in line)
    _, _, _, summary, _, _ = line.split("|")
    (answer,) = texts(nbformat.read(path, as_version=4))[-1][-1:]
    chance = {"0.5"}  # of an AUROC
    assert numbers_of(summary) <= numbers_of(answer) | chance


# Answers of notebooks that need scans rest on tables in results/ as well.


def answer_of(name):
    return texts(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4))[-1][-1]


def test_the_answer_on_attempts_is_that_of_its_table():
    rows = pd.read_csv(ROOT / "results" / "attempts.csv")
    test = rows[rows["subset"] == "test"]
    chosen = test["network"].iloc[0]
    elsewhere = rows[(rows["subset"] == "other_source") & (rows["network"] == chosen)]
    answer = answer_of("attempts")
    for row in elsewhere.itertuples():
        assert f"{row.macro_f1:.1%} ({row.macro_f1_low:.1%}" in answer
    for views, accuracies in test.groupby("views")["accuracy"]:
        assert len(accuracies) == 3
        assert f"{views} {accuracies.mean():.1%}" in answer


def shares(row, name, low, high):
    """A share and its interval, as answers write them."""
    return "{} ({} to {})".format(
        *(plots.percent(row[key]) for key in (name, low, high))
    )


def hit_shares(file):
    """The pointing-game hits of a table of heatmaps, over all of its images."""
    table = pd.read_csv(ROOT / "results" / file)
    part = "predictions" if "predictions" in table else "tumours"
    table = table[table[part] == "all"].set_index(["map", "heat"])
    hits = table.apply(shares, axis=1, args=("hit", "hit_low", "hit_high"))
    return table["n"].iloc[0], hits


def test_hits_of_heatmaps_are_those_of_the_tables():
    coarse, fine = "VGG16 last pooling", "VGG16 last convolution"
    images, hits = hit_shares("localisation.csv")
    answer = answer_of("gradcam")
    assert f"of {images} scans" in answer
    for heat in ("trained", "head center", "oracle"):
        assert hits[fine, heat] in answer
    for heat in ("trained", "untrained", "head center"):
        assert hits["ResNet50 last layer", heat] in answer

    images, hits = hit_shares("localisation_phantoms.csv")
    answer = answer_of("gradcam_synthetic")
    assert f"of {images} after" in answer
    for layer in (coarse, fine):
        for heat in ("trained", "oracle"):
            assert hits[layer, heat] in answer


def test_robustness_is_that_of_the_table():
    changed = pd.read_csv(ROOT / "results" / "robustness.csv")
    answer = answer_of("errors_and_robustness")
    for _, rows in changed.groupby("model"):
        worst = rows.loc[rows["difference"].idxmin()]
        points = (
            100 * worst[["difference", "difference_low", "difference_high"]]
        ).tolist()
        text = "{:+.1f} ({:+.1f} to {:+.1f}) points".format(*points)
        assert f"{worst['described']}, {text}" in answer
    constant = (changed["most_frequent_share"] > robustness.CONSTANT).sum()
    assert f"Constant predictions: {constant} of {len(changed)} conditions" in answer
    run = ROOT / "results" / "vgg16-transfer+head+looks-patient-128px-seed0"
    scans = pd.read_csv(run / "predictions.csv").query("subset == 'validation'")
    assert f"on {len(scans)} validation scans" in answer


def test_what_the_detector_finds_is_that_of_the_table():
    kinds = pd.read_csv(ROOT / "results" / "unlike.csv").set_index("images")
    answer = answer_of("ood_detection")
    for kind in ("scans, upside down", "test scans"):
        assert (
            shares(kinds.loc[kind], "flagged", "flagged_low", "flagged_high") in answer
        )
    for kind in ("handwritten digits", "noise"):
        assert kinds.at[kind, "flagged"] == 1
    others = kinds.drop("validation scans")
    is_better = others["auroc_low"] > others["confidence_auroc_high"]
    assert f"lie apart: {'; '.join(others.index[is_better])}." in answer
    assert f"overlap for: {'; '.join(others.index[~is_better])}." in answer


def test_the_audit_is_that_of_the_tables():
    answer = answer_of("data_audit")
    known = pd.read_csv(ROOT / "results" / "audit.csv").set_index("known_by")["all"]
    scans = pd.read_csv(ROOT / "data" / "image_groups.csv")
    assigned = splits.assign_subsets(scans, "patient", seed=0)
    assert known["Testing scans"] == (scans["split"] == "testing").sum()
    test_scans = (assigned["subset"] == "test").sum()
    assert f"Of {known['Testing scans']} scans" in answer
    assert f"({test_scans} of them are the test set)" in answer
    assert f"{known['pixels']} are pixel copies" in answer
    assert f"{scans['label_conflict'].sum()} scans of the data set" in answer
    # what is in Testing and not in the test set has a contradicted label
    others = assigned[(assigned["split"] == "testing") & (assigned["subset"] != "test")]
    assert others["label_conflict"].all()
    baseline = pd.read_csv(ROOT / "results" / "probe.csv").query(
        "protocol == 'patient'"
    )
    for _, row in baseline.iterrows():
        share = shares(row, "accuracy", "accuracy_low", "accuracy_high")
        assert re.search(re.escape(share) + rf" of (the )?{row['n']} ", answer)


# What Markdown cells say about results.


def test_the_collapse_is_as_the_text_says():
    tracked = pd.read_csv(ROOT / "results" / "collapse.csv")
    steps = tracked.groupby("arm")["step"].diff().dropna()
    assert set(steps) == {100}  # "Every 100 steps"
    late = (
        tracked[tracked["step"].between(200, 300)]
        .groupby("arm")
        .mean(numeric_only=True)
    )
    wrong, fitting = late.loc["as the original"], late.loc["fitting statistics"]
    for column in ("first_renewed", "all_renewed"):
        assert wrong[column] == pytest.approx(fitting[column], abs=0.001)
    assert wrong["validation"] < wrong["first_renewed"] < wrong["all_renewed"]
    lag = late["all_renewed"] - late["validation"]
    assert lag["lower momentum"] < 0.01 < lag["fitting statistics"]
    constant = 0.2880  # the share of the most frequent class
    frozen = late.loc["frozen", ["training", "validation"]]
    assert frozen.to_numpy() == pytest.approx(constant, abs=0.02)
    rising = late.loc["frozen, fitting statistics", ["training", "validation"]]
    assert (rising > constant + 0.1).all()


def test_the_other_source_is_as_the_text_says():
    """Split ``source``: all gliomas are of known patients; the usual split has more tumors."""
    scans = pd.read_csv(ROOT / "data" / "image_groups.csv")
    gliomas = scans.query("split == 'training' and label == 'glioma'")
    assert gliomas["group"].str.startswith(splits.KNOWN_PATIENTS).all()
    source = splits.assign_subsets(scans, "source", seed=0).query("label != 'no_tumor'")
    other = source[source["subset"] == "other_source"]
    assert "glioma" not in set(other["label"])
    usual = splits.assign_subsets(scans, "patient", seed=0)
    also_train = usual[usual["path"].isin(other["path"]) & (usual["subset"] == "train")]
    text = (
        f"{len(also_train)} of the {len(other)} tumors of other sources train as well"
    )
    assert text in answer_of("domain_shift")
    missed = pd.read_csv(ROOT / "results" / "full" / "metrics.csv")
    missed = missed.query("subset == 'test' and model == 'vgg16' and seed == 0")
    missed = missed.pivot(index="recipe", columns="protocol", values="missed_tumors")
    for recipe in ("transfer", "transfer+head+looks"):
        assert missed.at[recipe, "patient"] < missed.at[recipe, "source"]


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
