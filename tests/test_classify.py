"""Try it on your own scan: one file in, one file out, whatever the format, and nothing of a patient but pixels."""

import json

from braintumor import __main__ as command
from braintumor import config, images, metrics, runs
from braintumor.app import classify, engines

import cv2
import numpy as np
import pandas as pd
import pytest

LABELS = ["glioma", "meningioma", "no_tumor", "pituitary"]
RAMP = np.arange(0, 1000, 5).reshape(10, 20)


@pytest.fixture(scope="module")
def classifier(trained):
    return classify.load_classifier(trained.file)


def test_a_packaged_classifier_is_one_file_that_says_what_it_is(trained, classifier):
    file, card = trained.file, classifier.card
    assert file.name == "braintumor-tiny-scratch-original-32px-seed0.keras"
    assert [other.name for other in file.parent.iterdir()] == [file.name]
    assert card["labels"] == LABELS and "not for diagnosis" in card["use"]
    assert {
        "data",
        "checksums",
        "protocol",
        "weights",
        "image_size",
        "seed",
        "versions",
    } <= set(card)
    assert str(trained.folder) not in json.dumps(card)


def test_it_answers_as_the_network_did_but_for_the_temperature(trained, classifier):
    settings, table, root, _, folder = trained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "BUILD_DIR", folder / "build")
        before = runs.predict(
            runs.load_trained_network(settings, "tiny", table),
            table,
            "test",
            root,
            settings,
        )
    expected = metrics.with_temperature(before, classifier.card["temperature"])
    said = classify.classify([root / path for path in before["path"]], classifier)
    columns = [f"p_{label}" for label in LABELS]
    np.testing.assert_allclose(said[columns], expected[columns], atol=1e-5)
    assert said["predicted"].tolist() == before["predicted"].tolist()
    assert all(
        said["says"].str.match(r"Most like [a-z ]+ \(\d+%\), then [a-z ]+ \(\d+%\)\.")
    )


def test_a_training_scan_is_as_similar_as_can_be_and_one_in_twenty_of_validation_is_unlike(
    trained, classifier
):
    table, root = trained.table, trained.root
    said = {
        subset: classify.classify([root / path for path in rows["path"]], classifier)
        for subset, rows in table.groupby("subset")
    }
    assert said["train"]["similarity"].min() == pytest.approx(1, abs=1e-5)
    assert not said["train"]["unlike"].any()
    assert said["validation"]["unlike"].mean() <= max(0.05, 1 / len(said["validation"]))
    assert said["validation"]["similarity"].max() <= 1 + 1e-5


def test_what_is_no_scan_is_flagged_in_words_as_well(trained, classifier):
    scans = [
        images.read_scan(file) for file in sorted(trained.root.glob("Testing/*/*.jpg"))
    ]
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64), dtype="uint8")
    blank = np.full((30, 30), 128, "uint8")
    said = classify.classify(
        [*(255 - scan for scan in scans), *noise, blank], classifier
    )
    assert (
        said["unlike"].all() and said["says"].str.endswith("do not rely on this.").all()
    )


def test_a_folder_a_list_and_an_array_give_the_same_answers(trained, classifier):
    root = trained.root
    folder = classify.classify(root / "Testing", classifier)
    files = sorted(root.glob("Testing/*/*.jpg"))
    assert folder["file"].tolist() == list(map(str, files))
    pd.testing.assert_frame_equal(folder, classify.classify(files, classifier))
    arrays = classify.classify([images.read_scan(file) for file in files], classifier)
    pd.testing.assert_frame_equal(
        arrays.drop(columns="file"), folder.drop(columns="file")
    )
    one = classify.classify(images.read_scan(files[0]), classifier).drop(columns="file")
    assert one.iloc[0]["says"] == folder.iloc[0]["says"]
    pd.testing.assert_frame_equal(one, folder.drop(columns="file").head(1), rtol=1e-4)


def test_memory_does_not_grow_with_the_number_of_files(trained, classifier):
    files = sorted(trained.root.glob("Testing/*/*.jpg")) * 9
    sizes = [len(table) for table in classify.classify_batches(files, classifier)]
    assert sum(sizes) == len(files) and max(sizes) == 32


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    trained, classifier, tmp_path
):
    (tmp_path / "no image.png").write_text("not a picture")
    (tmp_path / "nothing.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not asked for")
    cv2.imwrite(str(tmp_path / "scan.png"), np.full((20, 30), 90, "uint8"))
    said = classify.classify([tmp_path, tmp_path / "missing.jpg"], classifier)
    names = [name.rpartition("/")[2] for name in said["file"]]
    assert names == ["no image.png", "nothing.jpg", "scan.png", "missing.jpg"]
    assert (said["problem"] == "").tolist() == [False, False, True, False]
    assert said["says"].str.startswith("Most like").tolist() == [
        False,
        False,
        True,
        False,
    ]
    assert not said["unlike"][said["problem"] != ""].any()


def test_each_frame_of_dicom_is_answered_and_no_word_about_the_patient_leaves_it(
    tmp_path, dicom, trained, capsys
):
    dicom(tmp_path / "frames.dcm", np.stack([RAMP, RAMP[:, ::-1], RAMP // 2]))
    arguments = ["classify", str(tmp_path / "frames.dcm"), "--model", str(trained.file)]
    assert command.main([*arguments, "--json"]) == 0
    assert command.main([*arguments, "--into", str(tmp_path / "said.csv")]) == 0
    text, errors = capsys.readouterr()
    assert [json.loads(line)["page"] for line in text.splitlines()] == [0, 1, 2]
    said = text + errors + (tmp_path / "said.csv").read_text()
    assert not any(secret in said for secret in ("LOVELACE", "MRN-1815", "18151210"))


def test_the_command_says_a_line_a_file_and_ends_with_1_where_one_was_bad(
    trained, tmp_path, capsys
):
    files = [str(file) for file in sorted(trained.root.glob("Testing/*/*.jpg"))[:2]]
    arguments = ["--model", str(trained.file)]
    assert command.main(["classify", *files, *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(
        line.startswith(f"{file}: Most like") for line, file in zip(lines, files)
    )
    assert (
        command.main(["classify", files[0], str(tmp_path / "none.jpg"), *arguments])
        == 1
    )
    assert f"{tmp_path / 'none.jpg'}: No such file" in capsys.readouterr().out


def test_a_classifier_that_is_not_there_is_a_sentence_and_no_traceback(tmp_path):
    for rest in (
        ["classify", "scan.png"],
        ["export", "--to", "onnx", "--into", str(tmp_path / "model.onnx")],
    ):
        with pytest.raises(
            SystemExit,
            match="^There is no classifier 'none.keras': make one with tools/release_classifier.py.$",
        ):
            command.main([*rest, "--model", str(tmp_path / "none.keras")])
    assert not list(tmp_path.iterdir())


def test_a_folder_without_images_is_a_sentence(trained, tmp_path):
    with pytest.raises(SystemExit, match="^There is no image in what was named.$"):
        command.main(["classify", str(tmp_path), "--model", str(trained.file)])


def test_values_that_are_no_numbers_are_no_answer(thermometer, tmp_path):
    class Overflowing(type(thermometer)):
        def predict(self, scans):
            probabilities, similarity = super().predict(scans)
            probabilities[scans.mean(axis=(1, 2, 3)) > 0.5] = np.nan
            return engines.Prediction(probabilities, similarity)

    for name, gray in (("bright", 200), ("dark", 50)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 30), gray, "uint8"))
    said = classify.classify(tmp_path, Overflowing(None, thermometer.card))
    problem = "the classifier answers with values that are no numbers"
    assert said["problem"].tolist() == [problem, ""]
    assert said["predicted"].tolist() == ["", "cold"]
    assert said["says"][0] == "No answer."


def test_all_pages_of_a_long_file_are_answered(classifier, tmp_path):
    pages = [np.roll(np.uint8(RAMP // 4), shift, axis=1) for shift in range(70)]
    cv2.imwritemulti(str(tmp_path / "long.tif"), pages)
    together, alone = (
        classify.classify(tmp_path / "long.tif", classifier),
        classify.classify(pages[66], classifier),
    )
    assert together["page"].tolist() == list(range(70))
    columns = list(together.filter(regex="^p_")) + ["similarity"]
    assert together.loc[66, columns].tolist() == pytest.approx(
        alone.loc[0, columns].tolist(), abs=1e-5
    )


def test_what_stops_a_training_is_a_sentence_and_no_traceback(monkeypatch):
    def fail(*_):
        raise MemoryError("Out of memory: use batch_size=8, or --batch-size 8.")

    monkeypatch.setattr(runs, "train_and_evaluate", fail)
    with pytest.raises(SystemExit, match="^Out of memory: use batch_size=8"):
        command.main(["train", "--model", "vgg16"])


def test_the_command_trains_as_the_notebooks_do(
    tiny, few_phantoms, build_folder, monkeypatch, capsys
):
    monkeypatch.setenv("BRAINTUMOR_DATA", str(few_phantoms[0]))
    monkeypatch.setitem(
        config.PRESETS,
        "sample",
        config.PRESETS["sample"] | dict(batch_size=8, head_epochs=0),
    )
    monkeypatch.setattr(config, "BUILD_DIR", build_folder)
    given = "train --model tiny --recipe scratch --weights random --protocol original --image-size 32 --epochs 1"
    assert command.main(given.split()) == 0
    table = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[:2] for line in table] == [
        ["model", "subset"],
        ["tiny", "validation"],
        ["tiny", "test"],
    ]
    written = sorted(path.name for path in (build_folder / "results").iterdir())
    assert written == ["metrics.csv", "tiny-scratch-original-32px-seed0"]
    with pytest.raises(SystemExit, match="There is no protocol 'mine'"):
        command.main(
            [
                "train",
                "--model",
                "tiny",
                "--protocol",
                "mine",
                "--weights",
                "random",
                "--recipe",
                "scratch",
            ]
        )


@pytest.mark.parametrize(
    "to", ["openvino", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_an_exported_classifier_gives_the_same_probabilities(
    trained, classifier, tmp_path, to
):
    runtime = pytest.importorskip(
        dict(openvino="openvino", onnx="onnxruntime")[to],
        reason=f"{to} is not installed",
    )
    if to == "onnx":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    file = tmp_path / ("model.xml" if to == "openvino" else "model.onnx")
    assert (
        command.main(
            ["export", "--model", str(trained.file), "--to", to, "--into", str(file)]
        )
        == 0
    )
    scans = [
        cv2.resize(
            images.read_scan(trained.root / path),
            (32, 32),
            interpolation=cv2.INTER_AREA,
        )
        for path in trained.table["path"]
    ]
    pixels = np.float32(scans)[..., None]
    expected = classifier.network.predict(pixels / 255, verbose=0)["probabilities"]
    if to == "openvino":
        how = {"INFERENCE_PRECISION_HINT": "f32"}
        found = runtime.Core().compile_model(str(file), "CPU", how)(pixels)
        outputs = list(found.values())
    else:
        session = runtime.InferenceSession(str(file))
        outputs = session.run(None, {session.get_inputs()[0].name: pixels})
    found = next(output for output in outputs if output.ndim == 2)
    assert abs(found - expected).max() <= 1e-3
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
