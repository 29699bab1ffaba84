"""The README's table of results: rows that are there, seeds together, one command for what nobody has run."""

from pathlib import Path

import pandas as pd
import pytest
import update_readme as tool

ROOT = Path(__file__).resolve().parents[1]
LOG = "model,epoch,val_accuracy\nVGG16,1,0.3\nVGG16,2,0.7\nResNet50,1,0.2\nResNet50,2,0.75\n"
COUNTS = dict(groups=256, known_patients=9, tumors=266, healthy=105)


def scores(
    accuracies,
    model="vgg16",
    weights="imagenet",
    image_size=224,
    recipe="transfer",
    protocol="patient",
):
    """Rows of metrics.csv for so many seeds; on the test set half of a seed's accuracy, and ten more missed tumors."""
    rows = []
    for seed, accuracy in enumerate(accuracies):
        run = dict(
            model=model,
            weights=weights,
            image_size=image_size,
            recipe=recipe,
            protocol=protocol,
            seed=seed,
        )
        errors = dict(missed_tumors=20 + seed, false_alarms=30 + seed)
        rows.append(
            run | COUNTS | errors | dict(subset="validation", n=485, accuracy=accuracy)
        )
        rows.append(
            run | COUNTS | errors | dict(subset="test", n=371, accuracy=accuracy / 2)
        )
    return pd.DataFrame(rows)


def test_the_seeds_of_a_setting_are_one_row_of_mean_and_standard_deviation():
    (row,) = tool.setting_rows(scores([0.8, 0.9, 1.0]))
    assert row == {
        "network": "VGG16",
        "weights": "ImageNet",
        "size, preset": "224 px, `full`",
        "recipe": "`transfer`",
        "accuracy, unseen patients": "90.0 % ± 10.0",
        "accuracy, test set": "45.0 % ± 5.0",
        "missed tumors of 266": "20, 21 and 22",
        "false alarms of 105": "30, 31 and 32",
    }


def test_a_setting_without_all_its_seeds_has_no_row_yet():
    small = scores([0.8, 0.9], image_size=128)
    rows = tool.setting_rows(pd.concat([scores([0.8, 0.9, 1.0]), small]))
    assert [row["size, preset"] for row in rows] == ["224 px, `full`"]
    complete = scores([0.8, 0.9, 0.9], image_size=128)
    rows = tool.setting_rows(pd.concat([scores([0.8, 0.9, 1.0]), complete]))
    assert [row["size, preset"] for row in rows] == ["224 px, `full`", "128 px, `cpu`"]


def test_runs_of_other_splits_and_sizes_stay_out_of_the_table():
    others = [
        scores([0.5] * 3, protocol="original"),
        scores([0.5] * 3, image_size=64, recipe="scratch"),
    ]
    rows = tool.setting_rows(pd.concat([scores([0.8, 0.9, 1.0]), *others]))
    assert len(rows) == 1 and rows[0]["accuracy, unseen patients"] == "90.0 % ± 10.0"


def test_scores_on_other_test_scans_cannot_share_the_table():
    other = scores([0.8, 0.9, 0.9], image_size=128)
    other.loc[other["subset"] == "test", "n"] = 394
    with pytest.raises(ValueError, match="evaluated on different test scans"):
        tool.setting_rows(pd.concat([scores([0.8, 0.9, 1.0]), other]))


def test_the_log_of_the_reference_study_is_said_to_leak(tmp_path):
    (tmp_path / "original_history.csv").write_text(LOG)
    rows = tool.log_rows(tmp_path, scores([0.9] * 3))
    cells = [
        (row["network"], row["accuracy, unseen patients"], row["accuracy, test set"])
        for row in rows
    ]
    assert cells == [
        ("VGG16", "*70.0 %, patients leak*", "–"),
        ("ResNet50", "*75.0 %, patients leak*", "–"),
    ]


def test_a_network_that_was_not_run_is_named_with_its_command_until_it_is():
    (row,) = tool.rows_not_run(scores([0.9] * 3))
    assert row["network"] == "ResNet50" and row["weights"] == "ImageNet"
    command = (
        "not run here: `python -m braintumor train --model resnet50 --preset full`"
    )
    assert row["accuracy, unseen patients"] == command
    assert (
        tool.rows_not_run(pd.concat([scores([0.9]), scores([0.9], model="resnet50")]))
        == []
    )


def test_every_row_of_the_table_has_the_same_columns():
    metrics = tool.all_metrics(ROOT / "results")
    rows = (
        tool.setting_rows(metrics)
        + tool.log_rows(ROOT / "data", metrics)
        + tool.rows_not_run(metrics)
    )
    assert {tuple(row) for row in rows} == {tuple(rows[0])}


@pytest.mark.parametrize(
    ("values", "words"),
    [([22], "22"), ([22, 24], "22 and 24"), ([22, 24, 24], "22, 24 and 24")],
)
def test_values_are_listed_as_a_person_writes_them(values, words):
    assert tool.listed(values) == words


def test_one_seed_has_no_standard_deviation():
    assert tool.mean_and_sd(pd.Series([0.588])) == "58.8 %"


def test_the_recipe_is_chosen_on_the_other_source_whatever_the_test_set_says():
    rows = []
    for recipe, elsewhere, test in (
        ("transfer", 0.6, 0.9),
        ("transfer+head", 0.7, 0.5),
    ):
        run = dict(
            model="vgg16", image_size=224, protocol="source", recipe=recipe, seed=0
        )
        rows += [
            run | dict(subset="other_source", macro_f1=elsewhere),
            run | dict(subset="test", macro_f1=test),
        ]
    assert tool.chosen_recipe(pd.DataFrame(rows)) == "transfer+head"


def test_what_the_leak_is_worth_is_the_difference_on_the_same_scans():
    """Counted once more, scan by scan."""
    results = ROOT / "results" / "full"
    leaky = pd.read_csv(
        results / "vgg16-transfer-original-224px-seed0" / "predictions.csv"
    ).set_index("path")
    differences = []
    for seed in range(3):
        free = pd.read_csv(
            results / f"vgg16-transfer-patient-224px-seed{seed}" / "predictions.csv"
        ).set_index("path")
        for path, scan in free[free["subset"] == "test"].iterrows():
            correct = leaky.at[path, "predicted"] == leaky.at[path, "label"]
            differences.append(int(correct) - int(scan["predicted"] == scan["label"]))
    points = 100 * sum(differences) / len(differences)
    assert f"(3 seeds): {points:.1f} points (" in tool.leak(
        ROOT / "results", ROOT / "data"
    )
