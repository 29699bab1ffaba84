"""What happens when things go wrong: bad files, full disks, kills, rivals, damage, and far more scans than usual.

docs/reliability.md lists what is promised. Faults of the download are in test_download.py.
"""

import functools
import hashlib
import io
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from braintumor import (
    backbones,
    config,
    dataset,
    generators,
    images,
    metrics,
    models,
    runs,
    splits,
    training,
)
from braintumor.support import checkpoints, files

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

RAMP = np.tile(
    np.linspace(0, 255, 64).astype("uint8"), (32, 1)
)  # dark at the left, bright at the right


@pytest.fixture
def root(few_phantoms, tmp_path, monkeypatch):
    """A copy of the phantoms that a test may damage, and the data set that every study uses."""
    copy = shutil.copytree(few_phantoms[0], tmp_path / "phantoms")
    monkeypatch.setattr(dataset, "locate_data", lambda: copy)
    return copy


# --- files ---


def encoded(form, mode="L", image=RAMP, **how):
    """The bytes of an image in some file format and color mode."""
    picture = Image.fromarray(image.astype("uint16") * 257 if mode == "I;16" else image)
    if mode not in ("L", "I;16"):
        picture = picture.convert("RGB").convert(mode)
    file = io.BytesIO()
    picture.save(file, form, **how)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "mode", "tolerance"),
    [
        *((form, "L", 3) for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF")),
        *((form, "RGB", 3) for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")),
        *((form, "RGBA", 3) for form in ("PNG", "TIFF", "WEBP")),
        *(
            ("PNG", "I;16", 1),
            ("TIFF", "I;16", 1),
            ("JPEG", "CMYK", 5),
            ("TIFF", "CMYK", 3),
            ("PNG", "P", 50),
        ),
    ],
)
def test_any_kind_of_image_is_read_as_gray_whatever_its_name(
    tmp_path, form, mode, tolerance
):
    file = tmp_path / "scan.jpg"
    file.write_bytes(encoded(form, mode))
    scan = images.read_scan(file)
    assert scan.dtype == np.uint8
    np.testing.assert_allclose(scan.astype(int), RAMP, atol=tolerance)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    {1: RAMP, 3: RAMP[::-1, ::-1], 6: np.rot90(RAMP, -1)}.items(),
)
def test_a_scan_is_turned_as_its_exif_data_say(tmp_path, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "scan.jpg").write_bytes(encoded("JPEG", exif=exif))
    np.testing.assert_allclose(
        images.read_scan(tmp_path / "scan.jpg").astype(int), expected, atol=3
    )


@pytest.mark.parametrize("frame", ["scan", "head"])
@pytest.mark.parametrize("size", [(1, 1), (1, 64), (64, 1)])
@pytest.mark.parametrize("gray", [0, 255])
def test_the_smallest_and_the_emptiest_scan_become_numbers(tmp_path, frame, size, gray):
    cv2.imwrite(str(tmp_path / "scan.png"), np.full(size, gray, "uint8"))
    images, _ = generators.load_images(
        pd.DataFrame({"path": ["scan.png"]}), tmp_path, 32, frame
    )
    batch, _ = generators.ScanSequence(
        images, [0], classes=2, batch_size=1, augmentation=None, seed=0
    )[0]
    assert batch.shape == (1, 32, 32, 1) and np.isfinite(batch).all()


@hypothesis_settings(deadline=None, max_examples=60)
@given(cut=st.floats(0, 0.99), form=st.sampled_from(["JPEG", "PNG", "TIFF", "BMP"]))
def test_part_of_an_image_is_never_taken_for_a_scan(tmp_path_factory, cut, form):
    whole = encoded(
        form, image=np.random.default_rng(0).integers(0, 256, (64, 64), "uint8")
    )
    file = tmp_path_factory.mktemp("cut") / "scan.jpg"
    file.write_bytes(whole[: int(cut * len(whole))])
    assert images.examine(file)[1] in (
        "no whole image",
        "empty, or larger than 67 million pixels",
    )


@hypothesis_settings(deadline=None, max_examples=100)
@given(
    content=st.binary(max_size=200),
    head=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM"]),
)
def test_no_bytes_whatever_do_more_harm_than_a_sentence(
    tmp_path_factory, content, head
):
    file = tmp_path_factory.mktemp("bytes") / "scan.jpg"
    file.write_bytes(head + content)
    pixels, problem = images.examine(file)
    assert problem or pixels.ndim == 2


def spoil(scan, how):
    """Damage one file of a data set."""
    content = scan.read_bytes()
    scan.unlink()
    if how == "vanished":
        return
    if how == "link that leads to itself":
        return scan.symlink_to(scan)
    if how == "folder":
        return scan.mkdir()
    spoilt = {
        "empty": b"",
        "text": b"<html>404</html>",
        "truncated": content[:-50],
        "bomb": bomb(),
        "unreadable": content,
        "another image": encoded("PNG"),
    }
    scan.write_bytes(spoilt[how])
    if how == "unreadable":
        scan.chmod(0)


@functools.cache
def bomb():
    """The bytes of a small file with 400 million pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


BAD = {
    "empty": "empty, or larger than 67 million pixels",
    "text": "no whole image",
    "truncated": "no whole image",
    "bomb": "empty, or larger than 67 million pixels",
    "link that leads to itself": "Too many levels of symbolic links",
    "folder": "Is a directory",
}


@pytest.fixture
def bad_scans(root):
    """One bad file of each kind: {path: what is wrong}."""
    paths = sorted(path for path in root.glob("Training/*/*.jpg"))[:: 32 // len(BAD)]
    for path, how in zip(paths, BAD):
        spoil(path, how)
    return {
        path.relative_to(root).as_posix(): why for path, why in zip(paths, BAD.values())
    }


def test_before_training_every_bad_file_is_listed_with_the_reason(bad_scans, quick):
    with pytest.raises(ValueError) as error:
        splits.load_study(quick())
    first, *lines = str(error.value).splitlines()
    assert first.startswith("Mend these, or set unreadable='leave_out' (--unreadable ")
    assert lines == [f"{path}: {why}" for path, why in sorted(bad_scans.items())]


def test_a_setting_leaves_bad_files_out_and_the_results_say_which(
    bad_scans, quick, tiny, build_folder
):
    run = runs.train_and_evaluate(
        quick(epochs=1, recipe="scratch", unreadable="leave_out"), tiny
    )
    assert run.provenance["left_out"] == sorted(bad_scans)
    assert sum(run.provenance["subsets"].values()) == 48 - len(BAD)


def test_what_is_left_out_is_printed(bad_scans, quick, capsys):
    splits.load_study(quick(unreadable="leave_out"))
    line = f"left out, as damaged ({len(BAD)}): {', '.join(sorted(bad_scans))}\n"
    assert line in capsys.readouterr().out


def test_a_bad_file_costs_no_memory(tmp_path):
    (tmp_path / "bomb.jpg").write_bytes(bomb())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert images.examine(tmp_path / "bomb.jpg") == (
        None,
        "empty, or larger than 67 million pixels",
    )
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    )  # KiB; its pixels are four times that


def test_the_scans_as_published_are_not_examined_twice(root, quick, monkeypatch):
    monkeypatch.setattr(images, "examine", None)
    assert splits.load_study(quick())[2].left_out == []


def test_a_file_that_may_not_be_read_is_named(few_phantoms, quick, monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        copy = shutil.copytree(few_phantoms[0], Path(name) / "phantoms")
        monkeypatch.setattr(dataset, "locate_data", lambda: copy)
        scan = min(copy.glob("Training/*/*.jpg"))
        spoil(scan, "unreadable")
        Path(name).chmod(0o755)
        if root := os.geteuid() == 0:
            os.setresuid(65534, 65534, 0)  # root may read everything
        try:
            with pytest.raises(
                ValueError,
                match=rf"\n{scan.relative_to(copy).as_posix()}: Permission denied$",
            ):
                splits.load_study(quick())
        finally:
            if root:
                os.setresuid(0, 0, 0)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("vanished", "No such file or directory"),
        ("text", "no whole image"),
        ("another image", "changed since it was listed"),
    ],
)
def test_a_file_that_vanishes_or_breaks_after_the_index_is_named(root, quick, how, why):
    _, table, _ = splits.load_study(quick())
    path = table.loc[table["subset"] == "train", "path"].iloc[3]
    spoil(root / path, how)
    with pytest.raises(
        ValueError,
        match=rf"^'{path}' cannot be read \({why}\): replace it or remove it\.$",
    ):
        generators.sequences(table, root, quick())


@pytest.mark.parametrize(
    "name",
    [
        "two words.jpg",
        "Gehirn-Übersicht 脳.JPG",
        "a" * 251 + ".jpg",
        "(1) [x] 'y' $z;.png",
    ],
)
def test_any_name_is_a_name(root, quick, name):
    shutil.copy(
        min(root.glob("Training/no_tumor/*")), root / "Training/no_tumor" / name
    )
    _, table, report = splits.load_study(quick())
    assert f"Training/no_tumor/{name}" in set(table["path"]) and len(report.extra) == 1
    assert len(generators.sequences(table, root, quick())[0].images) == 29


@pytest.mark.parametrize(
    "name",
    [
        "Training/no_tumor/.hidden.jpg",
        "Training/no_tumor/Thumbs.db",
        "Training/.DS_Store",
        "__MACOSX/Training/no_tumor/a.jpg",
        "Training/__MACOSX/a.jpg",
        "Training/no_tumor/deeper/a.jpg",
        "Training/a.jpg",
    ],
)
def test_what_is_no_scan_is_ignored(root, quick, name):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("no scan")
    assert len(splits.load_study(quick())[1]) == 48


def test_folders_that_link_to_themselves_are_not_followed(root, quick):
    (root / "Training/no_tumor/loop").symlink_to(root)
    (root / "Training/loop").symlink_to(root / "Training")
    assert len(splits.load_study(quick())[1]) == 48


# --- training ---


def train(settings, model, scans, folder):
    """Train a fresh network, as a restarted notebook does: (its weights, the history)."""
    network = models.build_classifier(settings, model, classes=4)
    history = training.train(network, *scans, settings, folder)
    return [
        keras.ops.convert_to_numpy(weight) for weight in network.trainable_weights
    ], history


def in_another_process(*arguments):
    """A process that trains, ready to start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_faults"])
    return context.Process(target=train, args=arguments)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vgg16", "resnet50"])
def test_killed_at_twenty_moments_a_training_ends_with_the_same_bits(
    model, quick, two_sequences, tmp_path
):
    settings, scans, draw = quick(epochs=2), two_sequences(), np.random.default_rng(0)
    weights, history = train(settings, model, scans, tmp_path / "whole")
    start = time.monotonic()
    process = in_another_process(settings, model, scans, tmp_path / "elsewhere")
    process.start()
    process.join()
    whole, folder, stops = time.monotonic() - start, tmp_path / "killed", []
    for number in range(20):
        process, before = (
            in_another_process(settings, model, scans, folder),
            len(checkpoints.read_history(folder)),
        )
        process.start()
        if (
            number % 2
        ):  # soon after an epoch, however slow the machine is just now; else at any time
            while (
                process.is_alive() and len(checkpoints.read_history(folder)) == before
            ):
                time.sleep(0.05)
        process.join(draw.uniform(0, whole / (6 if number % 2 else 1)))
        process.kill()
        process.join()
        stops.append(len(checkpoints.read_history(folder)))
        if stops[-1] == settings.epochs:
            folder = check_same(settings, model, scans, folder, weights, history)
    check_same(settings, model, scans, folder, weights, history)
    assert len(set(stops)) > 1  # some came before and some after an epoch


def check_same(settings, model, scans, folder, weights, history):
    """Go on to the end, compare with the training that nobody killed, and give a fresh folder."""
    same_weights, same_history = train(settings, model, scans, folder)
    pd.testing.assert_frame_equal(
        *(
            each.drop(columns=["seconds", "checkpoint"])
            for each in (same_history, history)
        ),
        check_exact=True,
    )
    for weight, same in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(weight, same)
    keras.saving.load_model(folder / "best.keras")
    return folder.with_name(f"{folder.name}-")


@pytest.fixture(scope="module")
def stopped(tiny, quick, two_sequences, tmp_path_factory):
    """The folder of a training of three epochs that stopped after one."""

    def stop(*_):
        raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "progress_lines", stop)
        train(quick(), tiny, two_sequences(), folder)
    return folder


@pytest.fixture
def begun(stopped, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(stopped, tmp_path / "run")


def with_a_flipped_bit(content):
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(
            ("epoch-001.weights.h5", content)
            for content in (b"", b"\x89HDF\r\n\x1a\n", b"something else", None)
        ),
        *(("history.csv", content) for content in (b"", b"\xff\xfe\x00")),
    ],
)
def test_a_damaged_checkpoint_or_history_is_refused_by_name(
    begun, tiny, quick, two_sequences, name, content
):
    file = begun / name
    file.write_bytes(
        with_a_flipped_bit(file.read_bytes()) if content is None else content
    )
    with pytest.raises(
        ValueError, match=f"^'run/{name}' is damaged: restore it or remove that run.$"
    ):
        train(quick(), tiny, two_sequences(), begun)


@pytest.mark.parametrize("what", ["of another network", "cut short", "missing"])
def test_a_checkpoint_that_does_not_fit_is_refused(
    begun, tiny, quick, two_sequences, networks, what
):
    checkpoint = begun / "epoch-001.weights.h5"
    content = checkpoint.read_bytes()
    checkpoint.unlink()
    if what == "of another network":
        networks["vgg16"].save_weights(checkpoint)
    if what == "cut short":
        checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"^'run/epoch-001.weights.h5' is damaged"):
        train(quick(), tiny, two_sequences(), begun)


@pytest.mark.slow
def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_one_before(
    quick, two_sequences, disk, tmp_path
):
    settings, scans, small = (
        quick(epochs=2),
        two_sequences(),
        disk("size=190m"),
    )  # fine-tuning needs a second moment
    process = in_another_process(
        settings, "vgg16", scans, small / "run"
    )  # HDF5 may crash later on
    process.start()
    process.join()
    assert (
        process.exitcode != 0 and shutil.disk_usage(small).free > 10_000_000
    )  # what was half written is gone
    assert sorted(file.name for file in (small / "run").iterdir()) == [
        "best.keras",
        "epoch-001.weights.h5",
        "history.csv",
    ]
    shutil.copytree(small / "run", tmp_path / "run")
    assert len(checkpoints.read_history(tmp_path / "run")) == 1
    check_same(
        settings,
        "vgg16",
        scans,
        tmp_path / "run",
        *train(settings, "vgg16", scans, tmp_path / "whole"),
    )


HOLD = """
import sys, time
from pathlib import Path
from braintumor.support import files
with files.claim(Path(sys.argv[1])):
    print("training", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def rival(tmp_path):
    """Another process that trains in the same folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "training\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_training_of_the_same_run_names_the_first_until_that_is_dead(
    rival, tiny, quick, two_sequences, tmp_path
):
    sentence = rf"^Process {rival.pid} \(since .*\) trains 'run': wait for it, or stop it first\.$"
    with pytest.raises(RuntimeError, match=sentence):
        train(quick(), tiny, two_sequences(), tmp_path / "run")
    rival.kill()
    rival.wait()
    assert len(train(quick(), tiny, two_sequences(), tmp_path / "run")[1]) == 3


class Greedy(keras.layers.Layer):
    """Wants more memory than any machine has."""

    def call(self, inputs):
        return inputs + keras.ops.mean(
            keras.ops.ones((keras.ops.shape(inputs)[0], 10**8, 10**6))
        )


def test_out_of_memory_suggests_half_the_batch(
    quick, two_sequences, monkeypatch, tmp_path
):
    def constructor(*, input_shape, name, **_):
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, Greedy(name="greedy")(inputs), name=name)

    monkeypatch.setitem(
        backbones.BACKBONES,
        "greedy",
        backbones.Backbone(constructor, "", backbones.CAFFE, "greedy", 1e-3),
    )
    with pytest.raises(
        MemoryError, match=r"^Out of memory: use batch_size=4, or --batch-size 4\.$"
    ):
        train(
            quick(recipe="scratch", batch_size=8),
            "greedy",
            two_sequences(),
            tmp_path / "run",
        )


# --- results ---


@pytest.fixture(scope="module")
def finished(few_phantoms, tiny, quick, tmp_path_factory):
    """A run that was trained, and evaluated on validation only, as notebooks 03 and 04 do: (settings, build folder)."""
    settings, build = (
        quick(epochs=1, recipe="scratch"),
        tmp_path_factory.mktemp("finished"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "locate_data", lambda: few_phantoms[0])
        patch.setattr(config, "BUILD_DIR", build)
        run = runs.train_and_evaluate(settings, tiny)
    runs.write_table(
        run.predictions.query("subset == 'validation'"),
        run.folder / "predictions.csv",
    )
    return settings, build


@pytest.fixture
def evaluated(finished, root, build_folder):
    """A copy of it that a test may damage: (settings, results folder)."""
    settings, build = finished
    shutil.copytree(build, build_folder)
    return settings, next((build_folder / "results").iterdir())


def test_results_of_other_scans_are_never_replaced(evaluated, root, tiny):
    settings, folder = evaluated
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    cv2.imwrite(str(root / "Training/no_tumor/new.jpg"), RAMP)
    with pytest.raises(
        ValueError,
        match=rf"^'{folder.name}' holds results of other scans or versions: remove it to",
    ):
        runs.train_and_evaluate(settings, tiny)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("settings.json", b"{"),
        ("predictions.csv", b""),
        ("history.csv", b"\xff\xfe\x00"),
    ],
)
def test_damaged_results_are_refused_by_name(evaluated, tiny, name, content):
    settings, folder = evaluated
    (folder / name).write_bytes(content)
    with pytest.raises(
        ValueError,
        match=rf"^'{folder.name}/{name}' is damaged: restore it or remove that run\.$",
    ):
        runs.train_and_evaluate(settings, tiny)


@pytest.mark.parametrize("damage", ["cut short", "flipped bit"])
def test_a_damaged_model_file_is_refused_by_name(evaluated, tiny, build_folder, damage):
    settings, folder = evaluated
    best = next(build_folder.glob("models/*/best.keras"))
    content = bytearray(best.read_bytes())
    if damage == "cut short":
        del content[len(content) // 2 :]
    else:
        with zipfile.ZipFile(best) as archive:
            weights = archive.getinfo("model.weights.h5")
        content[weights.header_offset + weights.compress_size // 2] ^= 1
    best.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"^'{best.parent.name}/best.keras' is damaged"
    ):
        runs.train_and_evaluate(settings, tiny)


@pytest.mark.parametrize(
    "labels", [["glioma"], ["glioma", "no_tumor"], ["glioma", "no_tumor", "pituitary"]]
)
def test_where_a_class_has_no_scans_scores_are_undefined_and_never_zero(labels):
    names = ["glioma", "meningioma", "no_tumor", "pituitary"]
    table = pd.DataFrame(
        {"label": labels * 2, "predicted": labels * 2, "subset": "test"}
    )
    table = table.assign(
        group=[f"g{row}" for row in table.index],
        **{f"p_{name}": 0.25 for name in names},
    )
    facts = dict.fromkeys(
        ("model", "recipe", "protocol", "weights", "image_size", "seed"), "x"
    )
    row = metrics.metrics_row(facts, table, "test")
    assert (
        np.isnan(row["auroc"])
        and row["accuracy"] == row["macro_f1"] == row["balanced_accuracy"] == 1
    )
    assert all(np.isnan(row[f"recall_{name}"]) for name in set(names) - set(labels))


# --- code and secrets ---


def test_a_model_file_that_carries_code_is_refused_and_the_code_never_runs(tmp_path):
    mark, file = tmp_path / "it ran", tmp_path / "best.keras"
    inputs = keras.Input((2,))
    network = keras.Model(
        inputs,
        keras.layers.Lambda(
            lambda value, mark=str(mark): (Path(mark).touch(), value)[1]
        )(inputs),
    )
    network.save(file)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(
        ValueError, match=r"best.keras' is damaged: restore it"
    ) as error:
        files.read_file(file, keras.saving.load_model)
    assert "arbitrary code execution" in str(error.value.__cause__)
    assert not mark.exists()


# --- load ---


PIXELS = encoded("PNG")
LOAD = """
import resource, sys
from pathlib import Path
from braintumor import config, dataset, generators, models, splits, training
import pandas
root = Path(sys.argv[1])
reference = pandas.read_csv(root / "groups.csv")
table = splits.assign_subsets(dataset.scan_table(root, reference), "patient", 0)
assert len(table) == len(reference) and table["group"].nunique() == 1000
train, validation = (set(table.loc[table["subset"] == subset, "group"]) for subset in ("train", "validation"))
assert train and validation and not train & validation
settings = config.settings_from("sample", seed=0, recipe="scratch", weights="random", precision="float32", epochs=1)
scans, _ = generators.sequences(table, root, settings)
network = models.build_classifier(settings, "vgg16", 4)
training.compile_phase(network, training.training_phases(settings, "vgg16")[0], settings.parsed_recipe, len(scans))
network.train_on_batch(*scans[0])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_many(root, scans):
    """So many scans, all different, of 1,000 patients in four classes, 200 of them for testing, and their table."""
    rows = []
    for number in range(scans):
        patient = number % 1000
        path = f"{'Training' if patient % 5 else 'Testing'}/{'abcd'[patient // 5 % 4]}/{number}.png"
        content = (
            PIXELS + path.encode()
        )  # what stands behind the end of an image is no part of it
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        rows.append(
            (path, hashlib.sha256(content).hexdigest(), f"patient-{patient}", False)
        )
    table = pd.DataFrame(rows, columns=["path", "sha256", "group", "label_conflict"])
    table.reindex(columns=[*table, *dataset.BOX]).to_csv(
        root / "groups.csv", index=False
    )


@pytest.mark.slow
def test_a_hundred_thousand_scans_take_at_most_half_as_much_memory_again_as_three_thousand(
    tmp_path,
):
    peaks = []
    for scans in (3_000, 100_000):
        write_many(tmp_path / str(scans), scans)
        done = subprocess.run(
            [sys.executable, "-c", LOAD, tmp_path / str(scans)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        peaks.append(int(done.stdout.splitlines()[-1]))
    print("peak memory, KiB:", peaks)
    assert peaks[1] <= 1.5 * peaks[0]
