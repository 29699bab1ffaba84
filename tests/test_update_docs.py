"""The documents: their numbers come from result files, and nothing else is committed."""

import json
import re
from pathlib import Path

from braintumor import config, metrics

import pandas as pd
import pytest
import update_docs
from docs_values import (
    findings,
    formatting,
    model_card,
    result_files,
    results_table,
    run_commands,
)

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = sorted(update_docs.TEMPLATES.rglob(f"*{update_docs.SUFFIX}"))
DOCUMENTS = [
    str(template.relative_to(update_docs.TEMPLATES)).removesuffix(update_docs.SUFFIX)
    for template in TEMPLATES
]
RESULT_PAGES = ["docs/findings", "docs/model_card", "docs/claim"]
LOG = """model,epoch,val_accuracy
VGG16,1,0.3
VGG16,2,0.7
ResNet50,1,0.2
ResNet50,2,0.75
"""


@pytest.fixture(scope="module")
def documents():
    """What the templates and the result files give, by path."""
    return update_docs.render(ROOT)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_says_exactly_what_the_result_files_say(name, documents):
    path = ROOT / name
    assert documents[path] == path.read_text(), "call tools/update_docs.py"


@pytest.mark.parametrize("name", ["README", *RESULT_PAGES])
def test_no_result_is_typed_by_hand(name):
    words = (update_docs.TEMPLATES / f"{name}.md.j2").read_text()
    for no_result in ("95% interval", "first 20%", "other 80%"):
        words = words.replace(no_result, "")
    assert not re.search(r"\d\s?%|\b0\.\d{2,}", words)


def test_an_unknown_name_in_a_template_is_an_error():
    from jinja2 import UndefinedError

    template = update_docs.environment().from_string("{{ accuarcy | percent }}")
    with pytest.raises(UndefinedError, match="accuarcy"):
        template.render({"accuracy": 0.9})


def metrics_of(accuracies, **changes):
    """Rows of metrics.csv for so many seeds of one setting.

    On the test set, a seed has half of its validation accuracy.
    """
    setting = {
        "model": "vgg16",
        "weights": "imagenet",
        "image_size": 224,
        "recipe": "transfer",
        "protocol": "patient",
        "groups": 256,
        "known_patients": 9,
        "tumors": 266,
        "healthy": 105,
        **changes,
    }
    rows = []
    for seed, accuracy in enumerate(accuracies):
        errors = {"missed_tumors": 20 + seed, "false_alarms": 30 + seed}
        run = {**setting, **errors, "seed": seed}
        rows.append({**run, "subset": "validation", "n": 485, "accuracy": accuracy})
        rows.append({**run, "subset": "test", "n": 371, "accuracy": accuracy / 2})
    return pd.DataFrame(rows)


def test_the_seeds_of_a_setting_are_one_row():
    (row,) = results_table.table_rows(metrics_of([0.8, 0.9, 1.0]))
    assert (row.setting.model, row.setting.preset) == ("vgg16", "full")
    assert row.scores.seeds == 3
    assert row.scores.validation == [0.8, 0.9, 1.0]
    assert row.scores.test == [0.4, 0.45, 0.5]
    assert row.scores.missed_tumors == [20, 21, 22]
    assert row.scores.false_alarms == [30, 31, 32]


def test_a_setting_has_no_row_until_it_has_all_its_seeds():
    large = metrics_of([0.8, 0.9, 1.0])
    two_seeds = metrics_of([0.8, 0.9], image_size=128)
    rows = results_table.table_rows(pd.concat([large, two_seeds]))
    assert [row.setting.preset for row in rows] == ["full"]

    three_seeds = metrics_of([0.8, 0.9, 0.9], image_size=128)
    rows = results_table.table_rows(pd.concat([large, three_seeds]))
    assert [row.setting.preset for row in rows] == ["full", "cpu"]


def test_runs_of_other_splits_and_sizes_stay_out_of_the_table():
    shown = metrics_of([0.8, 0.9, 1.0])
    other_split = metrics_of([0.5] * 3, protocol="original")
    other_size = metrics_of([0.5] * 3, image_size=64, recipe="scratch")
    (row,) = results_table.table_rows(pd.concat([shown, other_split, other_size]))
    assert row.scores.validation == [0.8, 0.9, 1.0]


def test_scores_on_other_test_scans_cannot_share_the_table():
    other = metrics_of([0.8, 0.9, 0.9], image_size=128)
    other.loc[other["subset"] == "test", "n"] = 394
    with pytest.raises(ValueError, match="evaluated on different test scans"):
        result_files.test_set(pd.concat([metrics_of([0.8]), other]))


def test_the_log_of_the_reference_study_gives_its_last_epochs(tmp_path):
    (tmp_path / "original_history.csv").write_text(LOG)
    ends = results_table.reference_log(tmp_path)
    assert [(end.model, end.accuracy) for end in ends] == [
        ("vgg16", 0.7),
        ("resnet50", 0.75),
    ]


def test_a_network_that_was_not_run_is_named_until_it_is():
    vgg16 = metrics_of([0.9])
    assert results_table.models_not_run(vgg16) == ["resnet50"]
    both = pd.concat([vgg16, metrics_of([0.9], model="resnet50")])
    assert results_table.models_not_run(both) == []


def test_a_network_from_imagenet_weights_without_fingerprint_has_its_row(tmp_path):
    runs = metrics_of([0.8, 0.9, 1.0], model="resnet50", weights=config.NOT_CHECKED)
    (row,) = results_table.table_rows(runs)
    assert (row.setting.model, row.setting.preset) == ("resnet50", "full")
    assert results_table.models_not_run(runs) == ["vgg16"]
    (summary,) = results_table.all_settings(runs, tmp_path)
    assert summary.weights == "imagenet" and summary.scores.seeds == 3


def test_a_data_set_without_scans_without_a_tumor_has_no_missed_tumors():
    runs = metrics_of([0.8, 0.9, 1.0])
    runs[["missed_tumors", "false_alarms"]] = float("nan")
    (row,) = results_table.table_rows(runs)
    assert row.scores.missed_tumors == row.scores.false_alarms == []


@pytest.mark.parametrize(
    ("values", "words"),
    [([22], "22"), ([22, 24], "22 and 24"), ([22, 24, 24], "22, 24 and 24")],
)
def test_values_are_listed_as_a_person_writes_them(values, words):
    assert formatting.listed(values) == words


def test_equal_values_are_no_range():
    assert formatting.value_range([86, 88, 87]) == "86 to 88"
    assert formatting.value_range([37, 37]) == "37"


def test_one_seed_has_no_standard_deviation():
    assert formatting.mean_sd([0.588]) == formatting.percent(0.588)
    assert (
        formatting.mean_sd([0.8, 0.9, 1.0])
        == "90.0%\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}10.0"
    )


def test_an_undefined_share_is_a_dash():
    nothing = formatting.Estimate(float("nan"), float("nan"), float("nan"))
    assert formatting.percent_interval(nothing) == "–"


def test_the_recipe_is_chosen_on_the_other_source_whatever_the_test_set_says():
    scores = [("transfer", 0.6, 0.9), ("transfer+head", 0.7, 0.5)]
    rows = []
    for recipe, elsewhere, test in scores:
        run = {
            "model": "vgg16",
            "weights": "imagenet",
            "image_size": 224,
            "protocol": "source",
            "recipe": recipe,
            "seed": 0,
        }
        rows.append({**run, "subset": "other_source", "macro_f1": elsewhere})
        rows.append({**run, "subset": "test", "macro_f1": test})
    assert findings.chosen_recipe(pd.DataFrame(rows)) == "transfer+head"


def test_what_the_leak_is_worth_is_the_difference_on_the_same_scans():
    """Counted once more, scan by scan."""
    results = ROOT / "results" / "full"
    leaky_run = results / "vgg16-transfer-original-224px-seed0"
    leaky = pd.read_csv(leaky_run / "predictions.csv").set_index("path")
    differences = []
    for seed in range(3):
        free_run = results / f"vgg16-transfer-patient-224px-seed{seed}"
        free = pd.read_csv(free_run / "predictions.csv").set_index("path")
        for path, scan in free[free["subset"] == "test"].iterrows():
            with_leak = leaky.at[path, "predicted"] == leaky.at[path, "label"]
            without = scan["predicted"] == scan["label"]
            differences.append(int(with_leak) - int(without))
    leak = findings.leak(ROOT / "results", ROOT / "data")
    assert leak.gain.value == pytest.approx(sum(differences) / len(differences))
    assert leak.gain.low < leak.gain.value < leak.gain.high
    assert leak.known.scans + leak.new.scans == leak.every.scans


def test_the_difference_of_two_settings_is_that_of_the_paired_comparison():
    """Of a single seed; ``metrics`` computes it in another way."""
    results = ROOT / "results"
    tables = []
    for recipe in ("transfer+head", "transfer"):
        setting = result_files.full_setting(recipe)
        tables.append(result_files.seed_predictions(results, setting, "test", seeds=1))
    difference = result_files.accuracy_difference(*tables)
    expected = metrics.paired_comparison(*tables)
    assert difference.value == pytest.approx(expected["accuracy"])
    assert difference.low == pytest.approx(expected["accuracy_low"])
    assert difference.high == pytest.approx(expected["accuracy_high"])


def test_the_command_of_a_run_names_a_precision_that_auto_would_not_choose():
    lists = run_commands.run_commands(ROOT / "results")
    commands = [command for each in lists for command in each.commands]
    in_float32 = [command for command in commands if "--precision float32" in command]
    assert len(in_float32) == 1 and "--recipe original" in in_float32[0]
    assert not [command for command in commands if "--precision mixed" in command]


def test_runs_that_differ_by_more_than_a_seed_have_no_common_provenance(tmp_path):
    setting = result_files.full_setting("transfer")
    for seed in range(3):
        folder = result_files.run_folder(tmp_path, setting, seed)
        folder.mkdir(parents=True)
        source = result_files.run_folder(ROOT / "results", setting, seed)
        settings = json.loads((source / "settings.json").read_text())
        settings["epochs"] = 20 + seed // 2
        (folder / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="differ by more than a seed"):
        model_card.provenance(tmp_path, setting)
