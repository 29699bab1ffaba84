"""Try it on your own scan: one file in, one file out, whatever the format, and nothing of a patient but pixels."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

from braintumor import __main__ as command
from braintumor import config, images, metrics, runs
from braintumor.app import answers, classify
from braintumor.support import files

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

LABELS = ["glioma", "meningioma", "no_tumor", "pituitary"]


@pytest.fixture(scope="module")
def classifier(trained):
    return classify.load_classifier(trained[3])


def test_a_packaged_classifier_is_one_file_that_says_what_it_is(trained, classifier):
    file, card = trained[3], classifier[1]
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
    assert str(trained[4]) not in json.dumps(card)


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
    expected = metrics.with_temperature(before, classifier[1]["temperature"])
    said = classify.classify([root / path for path in before["path"]], classifier)
    columns = [f"p_{label}" for label in LABELS]
    np.testing.assert_allclose(said[columns], expected[columns], atol=1e-5)
    assert said["predicted"].tolist() == before["predicted"].tolist()
    assert all(
        said["says"].str.match(r"Most like [a-z ]+ \(\d+ %\), then [a-z ]+ \(\d+ %\)\.")
    )


def test_a_training_scan_is_as_similar_as_can_be_and_one_in_twenty_of_validation_is_unlike(
    trained, classifier
):
    table, root = trained[1:3]
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
        images.read_scan(file) for file in sorted(trained[2].glob("Testing/*/*.jpg"))
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
    root = trained[2]
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
    files = sorted(trained[2].glob("Testing/*/*.jpg")) * 9
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


@pytest.mark.parametrize(
    "name", ["scan.png", "scan.jpg", "scan.tif", "scan.bmp", "scan.webp"]
)
def test_a_page_is_what_the_study_reads(name, tmp_path):
    generator = np.random.default_rng(0)
    cv2.imwrite(
        str(tmp_path / name),
        cv2.blur(generator.integers(0, 256, (40, 50, 3), dtype="uint8"), (9, 9)),
    )
    (page,), problem = classify.read_pages(tmp_path / name)
    np.testing.assert_array_equal(page, images.read_scan(tmp_path / name))
    assert page.dtype == "uint8" and problem == ""


def test_more_than_eight_bits_are_spread_and_every_page_of_a_tiff_is_read(tmp_path):
    pages = [
        np.linspace(0, most, 600).reshape(20, 30).astype("uint16")
        for most in (4095, 300)
    ]
    cv2.imwritemulti(str(tmp_path / "deep.tiff"), pages)
    found, problem = classify.read_pages(tmp_path / "deep.tiff")
    assert (
        problem == ""
        and [(page.min(), page.max(), page.dtype) for page in found]
        == [(0, 255, "uint8")] * 2
    )


def dicom(file, frames, *, photometric="MONOCHROME2", window=None, compressed=False):
    """Write frames, uint16 (frames, height, width), as a DICOM file of a patient with a name."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.3",
    )
    scan = pydicom.dataset.FileDataset(
        str(file), {}, file_meta=meta, preamble=b"\0" * 128
    )
    scan.PatientName, scan.PatientID, scan.PatientBirthDate = (
        "LOVELACE^ADA",
        "MRN-1815",
        "18151210",
    )
    scan.SamplesPerPixel, scan.PhotometricInterpretation, scan.PixelRepresentation = (
        1,
        photometric,
        0,
    )
    scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 16, 15
    scan.Rows, scan.Columns = frames.shape[1:]
    if len(frames) > 1:
        scan.NumberOfFrames = len(frames)
    if window:
        scan.WindowCenter, scan.WindowWidth = window
    scan.PixelData = frames.astype("<u2").tobytes()
    if compressed:
        scan.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    scan.save_as(file, enforce_file_format=True)


RAMP = np.arange(0, 1000, 5).reshape(1, 10, 20)


def test_dicom_is_read_through_its_window(tmp_path):
    dicom(tmp_path / "scan.dcm", RAMP, window=(500, 200))
    (page,), problem = classify.read_pages(tmp_path / "scan.dcm")
    assert problem == ""
    assert (page[RAMP[0] <= 400] == 0).all() and (page[RAMP[0] >= 600] == 255).all()
    assert page[RAMP[0] == 500].item() == pytest.approx(128, abs=2)


def test_dicom_in_which_white_is_low_is_turned_round(tmp_path):
    dicom(tmp_path / "plain.dcm", RAMP)
    dicom(tmp_path / "turned.dcm", RAMP, photometric="MONOCHROME1")
    (plain,), (turned,) = (
        classify.read_pages(tmp_path / name)[0] for name in ("plain.dcm", "turned.dcm")
    )
    np.testing.assert_allclose(turned.astype(int), 255 - plain.astype(int), atol=1)


def test_compressed_dicom_is_read_as_the_plain_one(tmp_path):
    both = np.concatenate([RAMP, RAMP[:, ::-1]])
    dicom(tmp_path / "plain.dcm", both)
    dicom(tmp_path / "small.dcm", both, compressed=True)
    plain, small = (
        classify.read_pages(tmp_path / name) for name in ("plain.dcm", "small.dcm")
    )
    assert plain[1] == small[1] == ""
    np.testing.assert_array_equal(plain[0], small[0])


def test_dicom_whose_compression_needs_a_plugin_says_so_and_nothing_of_the_patient(
    tmp_path,
):
    dicom(file := tmp_path / "scan.dcm", RAMP, compressed=True)
    pydicom = pytest.importorskip("pydicom")
    scan = pydicom.dcmread(file)
    scan.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    scan.save_as(file)
    pages, problem = classify.read_pages(file)
    assert pages == [] and "pylibjpeg" in problem
    assert not any(secret in problem for secret in ("LOVELACE", "MRN-1815", "18151210"))


def test_each_frame_of_dicom_is_answered_and_no_word_about_the_patient_leaves_it(
    tmp_path, classifier, trained, capsys
):
    dicom(tmp_path / "frames.dcm", np.concatenate([RAMP, RAMP[:, ::-1], RAMP // 2]))
    arguments = ["classify", str(tmp_path / "frames.dcm"), "--model", str(trained[3])]
    assert command.main([*arguments, "--json"]) == 0
    assert command.main([*arguments, "--into", str(tmp_path / "said.csv")]) == 0
    text, errors = capsys.readouterr()
    assert [json.loads(line)["page"] for line in text.splitlines()] == [0, 1, 2]
    said = text + errors + (tmp_path / "said.csv").read_text()
    assert not any(secret in said for secret in ("LOVELACE", "MRN-1815", "18151210"))


def test_without_pydicom_the_remedy_is_named(tmp_path, monkeypatch):
    (tmp_path / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    assert classify.read_pages(tmp_path / "scan.dcm") == (
        [],
        "DICOM needs pydicom: pip install pydicom",
    )


def test_the_command_says_a_line_a_file_and_ends_with_1_where_one_was_bad(
    trained, tmp_path, capsys
):
    files = [str(file) for file in sorted(trained[2].glob("Testing/*/*.jpg"))[:2]]
    arguments = ["--model", str(trained[3])]
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
            match="^There is no classifier 'none.keras': make one with 07_classify_a_scan.$",
        ):
            command.main([*rest, "--model", str(tmp_path / "none.keras")])
    assert not list(tmp_path.iterdir())


def test_a_folder_without_images_is_a_sentence(trained, tmp_path):
    with pytest.raises(SystemExit, match="^There is no image in what was named.$"):
        command.main(["classify", str(tmp_path), "--model", str(trained[3])])


@pytest.mark.parametrize("cut", [0.001, 0.1, 0.5, 0.77, 1])
def test_a_stopped_command_goes_on_where_it_stopped(trained, tmp_path, cut):
    arguments = ["classify", str(trained[2]), "--model", str(trained[3]), "--into"]
    whole, stopped = tmp_path / "whole.csv", tmp_path / "stopped.csv"
    command.main([*arguments, str(whole)])
    text = whole.read_text()
    stopped.write_text(text[: int(len(text) * cut)])
    command.main([*arguments, str(stopped)])
    pd.testing.assert_frame_equal(pd.read_csv(stopped), pd.read_csv(whole), rtol=1e-4)


def test_a_name_that_looks_like_a_number_is_a_name_and_a_cut_letter_is_no_obstacle(
    trained, tmp_path, monkeypatch
):
    scan = next(trained[2].glob("Testing/*/*.jpg"))
    for name in ("0001", "0002", "\u00fcber"):
        shutil.copy(scan, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    arguments = [
        "classify",
        "0001",
        "0002",
        "\u00fcber",
        "--model",
        str(trained[3]),
        "--into",
        "said.csv",
    ]
    command.main(arguments)
    whole = Path("said.csv").read_bytes()
    Path("said.csv").write_bytes(whole[: whole.index("\u00fc".encode()) + 1])
    asked = []
    monkeypatch.setattr(
        answers,
        "read_pages",
        lambda path, read=answers.read_pages: asked.append(path) or read(path),
    )
    command.main(arguments)
    assert Path("said.csv").read_bytes() == whole
    assert asked == [
        Path("0002"),
        Path("\u00fcber"),
    ]  # the last that was whole, in case it had more pages


def test_a_command_that_goes_on_still_ends_with_1_where_an_earlier_file_was_bad(
    trained, tmp_path
):
    (tmp_path / "a.jpg").write_text("no image")
    for name in ("b.jpg", "c.jpg"):
        shutil.copy(next(trained[2].glob("Testing/*/*.jpg")), tmp_path / name)
    arguments = [
        "classify",
        str(tmp_path),
        "--model",
        str(trained[3]),
        "--into",
        str(tmp_path / "said.csv"),
    ]
    assert [command.main(arguments), command.main(arguments)] == [1, 1]


def test_all_pages_of_a_long_file_are_answered(classifier, tmp_path):
    pages = [np.roll(np.uint8(RAMP[0] // 4), shift, axis=1) for shift in range(70)]
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


def test_only_files_that_are_seen_are_taken_from_a_folder(tmp_path):
    for name in ("scan.png", "._scan.png", "series.dcm/0001.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(file.relative_to(tmp_path)) for file in classify.images_in(tmp_path)]
    assert found == ["scan.png", "series.dcm/0001.png"]


def test_what_stops_a_training_is_a_sentence_and_no_traceback(monkeypatch):
    def fail(*_):
        raise MemoryError("Out of memory: set batch_size=8 in settings_from.")

    monkeypatch.setattr(runs, "train_and_evaluate", fail)
    with pytest.raises(SystemExit, match="^Out of memory: set batch_size=8"):
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


@pytest.fixture
def server(trained):
    """The folder of the packaged classifier on loopback."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=trained[3].parent
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_address[1]}/{trained[3].name}"
        web.shutdown()


def test_a_classifier_comes_over_the_network_once_and_with_its_checksum(
    trained, server, tmp_path, monkeypatch
):
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    digest = files.checksum(trained[3])
    network, card = classify.load_classifier(server, digest)
    assert card == classify.load_classifier(trained[3])[1]
    assert network.count_params() > 0
    assert (tmp_path / "braintumor" / trained[3].name).exists()
    for place, asked in (
        (f"{server}?again", "0" * 64),
        (server.replace("braintumor", "none"), digest),
    ):
        with pytest.raises(
            ConnectionError, match="^The classifier cannot be fetched: "
        ):
            classify.load_classifier(place, asked)


def test_a_wrong_checksum_a_missing_file_and_a_foreign_file_are_refused(
    trained, tmp_path
):
    with pytest.raises(ValueError, match="does not have the checksum 000000000000"):
        classify.load_classifier(trained[3], "0" * 64)
    with pytest.raises(FileNotFoundError, match="no classifier 'none.keras'"):
        classify.load_classifier(tmp_path / "none.keras")
    foreign = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    foreign.save(tmp_path / "foreign.keras")
    with pytest.raises(ValueError, match="foreign.keras' is damaged"):
        classify.load_classifier(tmp_path / "foreign.keras")


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
            ["export", "--model", str(trained[3]), "--to", to, "--into", str(file)]
        )
        == 0
    )
    scans = [
        cv2.resize(
            images.read_scan(trained[2] / path), (32, 32), interpolation=cv2.INTER_AREA
        )
        for path in trained[1]["path"]
    ]
    pixels = np.float32(scans)[..., None]
    expected = classifier[0].predict(pixels / 255, verbose=0)["probabilities"]
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
