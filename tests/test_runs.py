"""How good, how sure?"""

import dataclasses
import getpass
import json
import math
import re
import shutil

from braintumor import backbones, config, dataset, generators, models, runs, splits
from braintumor import metrics as ours

import keras
import numpy as np
import pandas as pd
import phantoms
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from sklearn import metrics

LABELS = ["a", "b", "c"]
FACTS = dict(
    model="vgg16",
    recipe="transfer",
    protocol="patient",
    weights="imagenet",
    image_size=32,
    seed=0,
)


def predictions_of(
    truth, probabilities, groups=None, labels=LABELS, subset="validation"
):
    """A predictions table from class indices, probabilities and groups (None: every scan is its own)."""
    table = pd.DataFrame(
        np.asarray(probabilities, float), columns=[f"p_{label}" for label in labels]
    )
    groups = range(len(table)) if groups is None else groups
    return table.assign(
        path=[f"{number:04d}" for number in range(len(table))],
        label=[labels[index] for index in truth],
        predicted=[labels[best] for best in np.argmax(probabilities, axis=1)],
        group=[f"g{group}" for group in groups],
        subset=subset,
    )


def at_random(scans, seed=0, classes=3):
    """Random truth and better than random probabilities."""
    draw = np.random.default_rng(seed)
    truth = np.concatenate(
        [np.arange(classes), draw.integers(0, classes, scans)]
    )  # no class without scans
    return truth, draw.dirichlet(np.ones(classes), len(truth)) * 0.6 + 0.4 * np.eye(
        classes
    )[
        np.where(
            draw.random(len(truth)) < 0.5, truth, draw.integers(0, classes, len(truth))
        )
    ]


def row_of(*args, **more):
    return runs.metrics_row(FACTS, predictions_of(*args, **more), "validation")


# --- a row of metrics.csv ---


@hypothesis_settings(deadline=None, max_examples=15)
@given(
    scans=st.integers(2, 60), classes=st.integers(3, 5), seed=st.integers(0, 2**32 - 1)
)
def test_scores_agree_with_scikit_learn(scans, classes, seed):
    truth, probabilities = at_random(scans, seed, classes)
    labels = list("abcde"[:classes])
    row = row_of(truth, probabilities, labels=labels)
    predicted = probabilities.argmax(axis=1)
    assert row["n"] == row["groups"] == len(truth) and row["known_patients"] == 0
    assert row["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert row["macro_f1"] == pytest.approx(
        metrics.f1_score(truth, predicted, average="macro")
    )
    assert row["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(truth, predicted)
    )
    assert row["auroc"] == pytest.approx(
        metrics.roc_auc_score(truth, probabilities, multi_class="ovr")
    )
    recalls = metrics.recall_score(truth, predicted, average=None)
    assert [row[f"recall_{label}"] for label in labels] == pytest.approx(recalls)


def test_scores_by_hand():
    #          right           right           b taken for a    right
    p = [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]]
    row = row_of([0, 0, 1, 2], p)
    assert row["accuracy"] == 0.75
    assert [row["recall_a"], row["recall_b"], row["recall_c"]] == [1, 0, 1]
    assert row["balanced_accuracy"] == pytest.approx(2 / 3)
    assert row["macro_f1"] == pytest.approx(
        (0.8 + 0 + 1) / 3
    )  # a: precision 2/3, recall 1
    assert row["brier"] == pytest.approx((0.06 + 0.24 + 0.62 + 0.06) / 4)
    assert row["ece"] == pytest.approx(
        (2 * 0.2 + 0.4 + 0.5) / 4
    )  # both of 0.8 share a bin


def test_perfect_predictions_are_perfect_in_every_way():
    row = row_of([0, 1, 2, 0], np.eye(3)[[0, 1, 2, 0]])
    for name in (
        "accuracy",
        "macro_f1",
        "balanced_accuracy",
        "auroc",
        "recall_a",
        "recall_b",
        "recall_c",
    ):
        assert row[name] == 1
    assert row["ece"] == row["brier"] == 0
    assert row["accuracy_low"] == row["accuracy_high"] == 1


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_a_class_without_scans_has_no_recall_and_no_auroc():
    row = row_of([0, 1, 0], [[0.7, 0.2, 0.1], [0.2, 0.1, 0.7], [0.6, 0.3, 0.1]])
    assert math.isnan(row["recall_c"]) and math.isnan(row["auroc"])
    assert row["balanced_accuracy"] == 0.5
    assert row["macro_f1"] == pytest.approx((1 + 0) / 2)


def test_a_row_names_the_run_and_holds_every_promised_column():
    row = row_of(*at_random(10))
    assert {key: row[key] for key in FACTS} == FACTS and row["subset"] == "validation"
    recalls = [
        f"recall_{label}{end}" for label in LABELS for end in ("", "_low", "_high")
    ]
    scores = [
        f"{name}{end}"
        for name in ("accuracy", "macro_f1")
        for end in ("", "_low", "_high")
    ]
    assert list(row) == [
        *FACTS,
        "subset",
        "n",
        "groups",
        "known_patients",
        *scores,
        *ours.DETECTION,
        "balanced_accuracy",
        "auroc",
        "ece",
        "brier",
        *recalls,
    ]


def test_only_the_subset_asked_for_counts():
    good, bad = (
        predictions_of([0, 1, 2], np.eye(3)),
        predictions_of([0, 1, 2], np.eye(3)[[1, 2, 0]]),
    )
    both = pd.concat([good, bad.assign(subset="test")])
    assert runs.metrics_row(FACTS, both, "validation")["accuracy"] == 1
    assert runs.metrics_row(FACTS, both, "test")["accuracy"] == 0


def test_a_subset_that_was_not_predicted_is_an_error():
    with pytest.raises(
        ValueError, match="No scan of the subset 'test' was predicted by vgg16"
    ):
        runs.metrics_row(FACTS, predictions_of(*at_random(5)), "test")


# --- calibration ---


def calibration_error(truth, confidence):
    """Of made-up answers that the first of two classes has this probability."""
    table = predictions_of(
        truth, np.column_stack([confidence, 1 - confidence]), labels=["a", "b"]
    )
    return ours.probability_scores(table).at["ece", "value"]


def test_a_network_that_is_right_as_often_as_it_says_is_calibrated():
    assert calibration_error([0] * 7 + [1] * 3, np.full(10, 0.7)) == pytest.approx(0)


def test_a_network_that_is_always_sure_and_half_right_is_half_wrong_about_itself():
    assert calibration_error([0, 1] * 20, np.ones(40)) == pytest.approx(0.5)


@hypothesis_settings(deadline=None, max_examples=30)
@given(
    confidence=st.lists(st.floats(0.5, 1), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
def test_the_calibration_error_is_the_textbook_sum_over_bins(confidence, seed):
    confidence = np.array(confidence)
    truth = np.random.default_rng(seed).integers(0, 2, len(confidence))
    which = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        (which == bin).mean()
        * abs((truth[which == bin] == 0).mean() - confidence[which == bin].mean())
        for bin in set(which)
    ]
    assert calibration_error(truth, confidence) == pytest.approx(sum(gaps))


def test_intervals_of_probability_scores_count_a_scan_as_often_as_its_group_is_drawn(
    monkeypatch,
):
    draw = ours.bootstrap
    monkeypatch.setattr(
        ours, "bootstrap", lambda counts: draw(counts)[:200]
    )  # scikit-learn's AUROC is slow
    truth, probabilities = at_random(60, seed=1)
    table = predictions_of(truth, probabilities, groups=np.arange(len(truth)) // 3)
    draws = ours.bootstrap(np.eye(table["group"].nunique()))[
        :, table["group"].factorize(sort=True)[0]
    ]
    errors = ((probabilities - np.eye(3)[truth]) ** 2).sum(axis=1)
    slow = {"brier": [np.average(errors, weights=draw) for draw in draws]}
    slow["auroc"] = [
        metrics.roc_auc_score(truth, probabilities, multi_class="ovr", sample_weight=w)
        for w in draws
    ]
    for name, values in slow.items():
        quick = ours.probability_scores(table).loc[name, ["low", "high"]].tolist()
        assert quick == pytest.approx(np.percentile(values, [2.5, 97.5]))
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        ours.probability_scores(shuffled), ours.probability_scores(table)
    )


# --- intervals ---


def width(row, name="accuracy"):
    return row[f"{name}_high"] - row[f"{name}_low"]


def test_the_interval_holds_the_score():
    row = row_of(*at_random(100))
    for name in ("accuracy", "macro_f1", "recall_a", "recall_b", "recall_c"):
        assert 0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1


def test_the_interval_of_independent_scans_is_the_binomial_one():
    truth, probabilities = at_random(400)
    row = row_of(truth, probabilities)
    expected = 2 * 1.96 * math.sqrt(row["accuracy"] * (1 - row["accuracy"]) / row["n"])
    assert width(row) == pytest.approx(expected, rel=0.1)


def test_copies_of_a_scan_make_nobody_surer():
    truth, probabilities = (np.repeat(each, 4, axis=0) for each in at_random(60))
    patients = np.repeat(range(63), 4)
    alone, once = row_of(truth, probabilities), row_of(truth[::4], probabilities[::4])
    grouped = row_of(truth, probabilities, groups=patients)
    assert grouped["accuracy"] == alone["accuracy"]
    assert width(grouped) > 1.5 * width(alone)
    assert width(grouped) == pytest.approx(width(once))


def test_the_same_predictions_have_the_same_interval_in_any_order():
    table = predictions_of(*at_random(50), groups=np.arange(53) // 2)
    shuffled = table.sample(frac=1, random_state=0)
    one, other = (
        runs.metrics_row(FACTS, each, "validation") for each in (table, shuffled)
    )
    assert one == pytest.approx(other, abs=1e-12, nan_ok=True)


# --- predicting ---


class Told(keras.layers.Layer):
    """Stands in for a network: glioma by brightness, the rest in equal parts."""

    def call(self, scans):
        first = keras.ops.mean(scans, axis=(1, 2, 3))
        return keras.ops.stack([first, *[(1 - first) / 3] * 3], axis=1)


@pytest.fixture(scope="module")
def network():
    inputs = keras.Input((32, 32, 1))
    return keras.Model(inputs, Told()(inputs))


@pytest.fixture
def few_scans(few_phantoms):
    root, table = few_phantoms
    return root, splits.assign_subsets(table, "original", 0)


def test_predictions_are_the_scan_table_with_probabilities(network, few_scans, quick):
    root, table = few_scans
    scans = table[table["subset"] == "test"]
    predictions = runs.predict(network, table, "test", root, quick())
    pd.testing.assert_frame_equal(predictions[scans.columns], scans)
    names = ["p_glioma", "p_meningioma", "p_no_tumor", "p_pituitary"]
    assert list(predictions.columns) == [*scans.columns, *names, "predicted"]
    brightness = generators.load_images(scans, root, 32)[0][:].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(predictions["p_glioma"], brightness, rtol=1e-5)
    best = predictions[names].idxmax(axis=1).str.removeprefix("p_")
    assert (predictions["predicted"] == best).all()


def test_several_subsets_are_predicted_at_once_in_row_order(network, few_scans, quick):
    root, table = few_scans
    predictions = runs.predict(network, table, runs.EVALUATION_SUBSETS, root, quick())
    assert (
        predictions["path"].tolist()
        == table.loc[table["subset"] != "train", "path"].tolist()
    )


def test_views_are_averaged_scan_by_scan(network, few_scans, quick):
    root, table = few_scans
    settings = quick(batch_size=3)
    straight, averaged, again = (
        runs.predict(network, table, "test", root, settings, augmented_copies=views)[
            "p_glioma"
        ].to_numpy()
        for views in (0, 5, 5)
    )
    assert (averaged == again).all() and (averaged != straight).all()
    images = generators.load_images(table[table["subset"] == "test"], root, 32)[0][:]
    how, draw = generators.AUGMENTATIONS["views"], np.random.default_rng(9)
    moved = [
        np.mean([generators.augment(scan, draw, **how) for _ in range(200)]) / 255
        for scan in images
    ]
    assert np.corrcoef(averaged, moved)[0, 1] > 0.99
    assert averaged == pytest.approx(straight / 6 + np.array(moved) * 5 / 6, abs=0.02)


def test_a_network_for_other_classes_is_refused(network, few_scans, quick):
    root, table = few_scans
    with pytest.raises(
        ValueError, match="The model knows 4 classes, these scans have 3"
    ):
        runs.predict(network, table[table["label"] != "glioma"], "test", root, quick())


def test_a_subset_without_scans_of_a_class_still_has_its_probability(
    network, few_scans, quick
):
    root, table = few_scans
    table = table[(table["subset"] != "test") | (table["label"] == "glioma")]
    predictions = runs.predict(network, table, "test", root, quick())
    assert len(predictions) == 4 and "p_pituitary" in predictions


# --- provenance ---

REPORT = dataset.DataReport(
    name="phantoms",
    status="phantoms",
    scans=48,
    verified=48,
    expected=48,
    missing=[],
    changed=[],
    extra=[],
)


def test_provenance_says_what_a_result_rests_on(few_scans, quick):
    facts = runs.collect_provenance(quick(), REPORT, few_scans[1], model="vgg16")
    assert (
        facts["data"] == "phantoms"
        and facts["checksums"] == "phantoms 48/48"
        and facts["model"] == "vgg16"
    )
    assert (
        facts["subsets"] == {"test": 16, "train": 28, "validation": 4}
        and facts["excluded"] == {}
    )
    assert {
        "protocol",
        "recipe",
        "weights",
        "image_size",
        "seed",
        "precision",
        "preset",
    } <= set(facts)
    assert facts["backend"] == keras.backend.backend()
    assert facts["versions"]["keras"] == keras.__version__
    assert json.loads(json.dumps(facts)) == facts


def test_provenance_counts_what_was_excluded_by_reason(few_scans, quick):
    table = few_scans[1]
    table.loc[:2, ["subset", "excluded_because"]] = ["excluded", "label conflict"]
    assert runs.collect_provenance(quick(), REPORT, table)["excluded"] == {
        "label conflict": 3
    }


def test_provenance_holds_no_path_and_no_user_name(
    few_scans, tiny, quick, monkeypatch, tmp_path
):
    home = tmp_path / "somebody"
    home.mkdir()
    network = models.build_classifier(quick(), tiny, classes=4)
    network.get_layer("backbone").save_weights(home / "mine.weights.h5")
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "somebody")
    monkeypatch.setenv("HOME", str(home))
    settings = quick(weights=str(home / "mine.weights.h5"), precision="auto")
    text = json.dumps(
        runs.collect_provenance(settings, REPORT, few_scans[1], model=tiny)
    )
    assert "mine.weights.h5" in text
    assert "/" not in text.replace("48/48", "") and getpass.getuser() == "somebody"
    assert "somebody" not in text
    assert '"auto"' not in text  # but what it stood for


# --- the files of a run ---


@pytest.fixture
def saved(build_folder, few_scans, quick):
    """A run on phantoms with its validation predictions, saved: (settings, folder, history, predictions)."""
    settings, table = quick(), few_scans[1]
    validation = table[table["subset"] == "validation"].reset_index(drop=True)
    names = [f"p_{label}" for label in sorted(table["label"].unique())]
    predictions = validation.assign(**dict.fromkeys(names, 0.25), predicted="glioma")
    history = pd.DataFrame(
        {"epoch": [1, 2], "phase": ["head", "fine_tune"], "loss": [1.25, 0.5]}
    )
    facts = runs.collect_provenance(
        settings, REPORT, table, model="vgg16", checkpoints="vgg16-run"
    )
    folder = runs.save_run(settings, "vgg16", facts, history, predictions)
    return settings, folder, history, predictions


def test_what_was_saved_is_read_again(saved):
    settings, folder, history, predictions = saved
    run = runs.read_run(folder)
    assert run.folder == folder and run.provenance["checkpoints"] == "vgg16-run"
    pd.testing.assert_frame_equal(run.history, history)
    read = run.predictions.assign(excluded_because="")  # empty cells come back as NaN
    pd.testing.assert_frame_equal(read, predictions)


def test_a_quick_run_is_saved_apart_from_committed_results(saved, build_folder):
    _, folder, _, _ = saved
    assert folder == build_folder / "results/vgg16-transfer-original-32px-seed0"
    assert sorted(file.name for file in folder.iterdir()) == [
        "history.csv",
        "predictions.csv",
        "settings.json",
    ]


@pytest.mark.parametrize("name", ["settings.json", "history.csv", "predictions.csv"])
def test_a_missing_file_of_a_run_is_named(saved, name):
    _, folder, _, _ = saved
    (folder / name).unlink()
    message = f"{folder.name}/{name}' is missing in results/: run the notebook that trains it first"
    with pytest.raises(FileNotFoundError, match=message):
        runs.read_run(folder)


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "metrics.csv"
    runs.write_table(pd.DataFrame({"a": [1 / 3]}), file)

    def half(self, temporary, **_):
        temporary.write_text("a\n0.")
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(OSError, match="no space"):
        runs.write_table(pd.DataFrame({"a": [2]}), file)
    assert file.read_bytes() == b"a\n0.333333\n"
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_figure_is_written_as_png(tmp_path):
    runs.save_figure(Figure(), tmp_path / "figures/one.png")
    assert (tmp_path / "figures/one.png").read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in (tmp_path / "figures").iterdir()] == ["one.png"]


def test_all_metrics_are_computed_anew_from_the_files_of_the_runs(saved):
    settings, folder, _, predictions = saved
    test = predictions.assign(subset="test", path="Testing/" + predictions["path"])
    runs.write_table(pd.concat([predictions, test]), folder / "predictions.csv")
    runs.write_all_metrics(folder.parent)
    metrics_file = pd.read_csv(folder.parent / "metrics.csv")
    assert metrics_file[["model", "subset", "n", "accuracy"]].to_numpy().tolist() == [
        ["vgg16", "validation", 4, 0.25],
        ["vgg16", "test", 4, 0.25],
    ]


# --- training and judging in one go ---


@pytest.fixture
def study(build_folder, few_phantoms, quick, monkeypatch):
    """Phantoms in place of the scans, and quick settings for them."""
    monkeypatch.setattr(dataset, "locate_data", lambda: few_phantoms[0])
    return quick(epochs=1, recipe="scratch")


@pytest.fixture(scope="module")
def trained_once(few_phantoms, quick, tiny, tmp_path_factory):
    """The folder that a run with the settings of ``study`` has written everything into."""
    folder = tmp_path_factory.mktemp("trained_once") / "build"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "locate_data", lambda: few_phantoms[0])
        patch.setattr(config, "BUILD_DIR", folder)
        runs.train_and_evaluate(quick(epochs=1, recipe="scratch"), tiny)
    return folder


@pytest.fixture
def evaluated(study, tiny, trained_once, build_folder):
    """That run, in a folder of its own that a test may change."""
    shutil.copytree(trained_once, build_folder)
    return runs.read_run(study.results_dir / runs.run_name(study, tiny))


def test_a_run_is_trained_and_evaluated_on_every_subset_that_never_trains(
    evaluated, tiny, build_folder
):
    assert evaluated.predictions["subset"].value_counts().to_dict() == {
        "test": 16,
        "validation": 4,
    }
    assert len(evaluated.history) == 1 and evaluated.provenance["model"] == tiny
    assert (
        build_folder / "models" / evaluated.provenance["checkpoints"] / "best.keras"
    ).exists()


def test_a_run_that_is_there_is_only_read_even_without_scans_and_model(
    evaluated, study, tiny, build_folder, monkeypatch
):
    shutil.rmtree(build_folder / "models")
    monkeypatch.setattr(runs, "load_study", None)
    again = runs.train_and_evaluate(study, tiny)
    pd.testing.assert_frame_equal(evaluated.predictions, again.predictions)


@pytest.mark.parametrize(
    "change",
    [
        dict(epochs=2),
        dict(batch_size=4),
        dict(max_scans=40),
        dict(precision="mixed_bfloat16"),
    ],
)
def test_results_with_other_settings_are_not_taken_for_those_asked_for(
    evaluated, study, tiny, change
):
    (setting,) = change
    with pytest.raises(
        ValueError,
        match=rf"holds results with {{'{setting}': .*}}: remove it to train with",
    ):
        runs.train_and_evaluate(dataclasses.replace(study, **change), tiny)


def test_results_of_any_precision_are_taken_where_none_is_asked_for(
    evaluated, study, tiny
):
    run = runs.train_and_evaluate(dataclasses.replace(study, precision="auto"), tiny)
    assert run.provenance["precision"] == "float32"


def test_results_of_a_data_set_with_a_table_of_its_own_are_read(
    study, tiny, tmp_path, build_folder, monkeypatch
):
    """Training and reading see the same groups, and so the same subsets."""
    root = tmp_path / "own"
    table = phantoms.write_phantoms(root, scans=48, seed=3, size=32)
    (root / dataset.SYNTHETIC_TABLE).rename(root / dataset.REFERENCE_TABLE)
    monkeypatch.setenv("BRAINTUMOR_DATA", str(root))
    monkeypatch.setattr(dataset, "locate_data", lambda: root)
    settings = dataclasses.replace(study, protocol="testing")
    trained = runs.train_and_evaluate(settings, tiny)
    assert trained.provenance["data"] == "own"
    assert set(trained.predictions["group"]) <= set(table["group"])
    monkeypatch.setattr(runs, "load_study", None)
    again = runs.train_and_evaluate(settings, tiny)
    pd.testing.assert_frame_equal(trained.predictions, again.predictions)


def test_results_of_the_scans_that_are_named_are_read(
    evaluated, study, tiny, few_phantoms, monkeypatch
):
    monkeypatch.setenv("BRAINTUMOR_DATA", str(few_phantoms[0]))
    assert len(runs.train_and_evaluate(study, tiny).predictions) == 20


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_results_of_other_scans_than_those_named_are_refused(
    evaluated, study, tiny, few_phantoms, change, tmp_path, monkeypatch
):
    others = shutil.copytree(few_phantoms[0], tmp_path / "others")
    first, second, *_ = sorted(others.glob("Testing/*/*.jpg"))
    if change == "replaced":
        shutil.copy(second, first)
    else:
        first.unlink()
    monkeypatch.setenv("BRAINTUMOR_DATA", str(others))
    message = r"holds results of other scans than those in 'others': remove it"
    with pytest.raises(ValueError, match=message):
        runs.train_and_evaluate(study, tiny)


def test_a_folder_without_scans_is_refused_although_results_are_there(
    evaluated, study, tiny, tmp_path, monkeypatch
):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("BRAINTUMOR_DATA", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="'empty' needs images of the same classes"):
        runs.train_and_evaluate(study, tiny)


def test_a_class_may_have_the_name_of_nothing(tmp_path):
    table = pd.DataFrame({"label": ["None", "NA"], "p_None": [0.5, np.nan]})
    runs.write_table(table, tmp_path / "results" / "run" / "predictions.csv")
    again = runs.read_result(tmp_path / "results" / "run" / "predictions.csv", "03")
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("names", [["1", "2", "10"], ["01", "1", "1e3"]])
def test_a_class_may_have_the_name_of_a_number(tmp_path, names):
    columns = {f"p_{name}": 0.05 for name in names}
    table = pd.DataFrame({"label": names, "predicted": names, "group": names})
    table = table.assign(subset="test", **columns)
    runs.write_table(table, tmp_path / "results" / "run" / "predictions.csv")
    again = runs.read_result(tmp_path / "results" / "run" / "predictions.csv", "03")
    pd.testing.assert_frame_equal(again, table)
    settings = ("model", "recipe", "protocol", "weights", "image_size", "seed")
    provenance = dict.fromkeys(settings, "x")
    assert ours.metrics_row(provenance, again, "test")["accuracy"] == 1


def test_a_network_that_was_trained_elsewhere_is_trained_again_and_the_results_stay(
    evaluated, study, tiny, build_folder
):
    written = {file: file.read_bytes() for file in evaluated.folder.iterdir()}
    shutil.rmtree(build_folder / "models")
    root, table, _ = splits.load_study(study)
    network = runs.load_trained_network(study, tiny, table)
    again = runs.predict(network, table, runs.EVALUATION_SUBSETS, root, study)
    np.testing.assert_allclose(
        again.filter(regex="^p_"), evaluated.predictions.filter(regex="^p_"), atol=1e-5
    )
    assert {file: file.read_bytes() for file in evaluated.folder.iterdir()} == written


def test_a_run_that_was_not_evaluated_on_the_test_set_is_evaluated_without_more_training(
    evaluated, study, tiny, monkeypatch
):
    validation = evaluated.predictions.query("subset == 'validation'")
    runs.write_table(validation, evaluated.folder / "predictions.csv")
    monkeypatch.setattr(keras.Model, "fit", None)
    again = runs.train_and_evaluate(study, tiny)
    pd.testing.assert_frame_equal(evaluated.predictions, again.predictions)


def test_a_run_whose_files_are_not_all_there_is_made_again(evaluated, study, tiny):
    folder = evaluated.folder
    (folder / "settings.json").unlink()
    (folder / "predictions.csv").unlink()
    assert len(runs.train_and_evaluate(study, tiny).predictions) == 20


def test_a_quick_run_without_imagenet_weights_is_found_under_the_recipe_that_it_fell_back_to(
    study, tiny, monkeypatch
):
    monkeypatch.setattr(backbones, "imagenet_available", lambda model: False)
    wanted = dataclasses.replace(study, weights="imagenet", recipe="transfer")
    assert runs.train_and_evaluate(wanted, tiny).provenance["recipe"] == "scratch+quick"


# --- where the model files of a run live ---


@pytest.fixture
def listed_scans():
    table = pd.DataFrame(
        {"path": ["a", "b"], "sha256": ["1", "2"], "label": ["x", "y"]}
    )
    return table.assign(subset=["train", "validation"], group=["g", "h"])


OTHER = dict(
    preset="cpu",
    protocol="patient",
    recipe="scratch",
    weights="imagenet",
    image_size=64,
    batch_size=4,
    head_epochs=2,
    epochs=9,
    max_scans=1,
    precision="auto",
    seed=1,
)


@pytest.mark.parametrize("setting", OTHER)
def test_any_other_setting_is_another_folder(quick, listed_scans, setting):
    settings = dataclasses.replace(quick(), **{setting: OTHER[setting]})
    assert runs.checkpoint_folder(
        settings, "vgg16", listed_scans
    ) != runs.checkpoint_folder(quick(), "vgg16", listed_scans)


@pytest.mark.parametrize("column", ["path", "sha256", "label", "subset"])
def test_other_scans_are_another_folder(quick, listed_scans, column):
    changed = listed_scans.assign(**{column: [listed_scans[column][0], "other"]})
    assert runs.checkpoint_folder(quick(), "vgg16", changed) != runs.checkpoint_folder(
        quick(), "vgg16", listed_scans
    )
    assert runs.checkpoint_folder(
        quick(), "vgg16", listed_scans[:1]
    ) != runs.checkpoint_folder(quick(), "vgg16", listed_scans)


def test_the_same_run_is_the_same_folder_whatever_the_order_of_scans(
    quick, listed_scans, build_folder
):
    folder = runs.checkpoint_folder(quick(), "vgg16", listed_scans)
    assert runs.checkpoint_folder(quick(), "vgg16", listed_scans[::-1]) == folder
    assert folder.parent == build_folder / "models"
    assert re.fullmatch("vgg16-transfer-original-32px-seed0-[0-9a-f]{8}", folder.name)
