"""Which weights does a network start from, and does everything that is said of them hold?"""

import dataclasses
import functools
import hashlib
import http.server
import json
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

from braintumor import __main__ as command
from braintumor import backbones, config, dataset, models, runs, splits, training
from braintumor.support import download

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
from conftest import QUICK
from keras.src.applications import resnet
from keras.src.backend import config as keras_config
from keras.src.legacy.saving import legacy_h5_format

REAL = os.environ.get("BRAINTUMOR_WEIGHTS")
with_real_weights = pytest.mark.skipif(
    not REAL, reason="BRAINTUMOR_WEIGHTS names no folder with VGG16's ImageNet weights"
)
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
TINY_FILE = "tiny.h5"  # what the tiny backbone calls its ImageNet weights here


def build(name, **changes):
    """A classifier by the quick settings, with single values changed."""
    settings = config.Settings(preset="sample", **(QUICK | changes))
    return models.build_classifier(settings, name, classes=4)


def save_notop(network, file):
    """Write a backbone's weights in the layout of those that Keras offers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        legacy_h5_format.save_weights_to_hdf5_group(content, network)
    return file


def tensors_of(content):
    """The tensors in an open file of weights, layer by layer."""
    layers = [content[name] for name in content.attrs["layer_names"]]
    return [layer[name] for layer in layers for name in layer.attrs["weight_names"]]


def change_one_value(file):
    """Give one value of the first tensor in a file its smallest possible change."""
    with h5py.File(file, "r+") as content:
        values = tensors_of(content)[0]
        changed = values[()]
        changed.flat[0] = np.nextafter(changed.flat[0], np.float32(1e9))
        values[...] = changed


@pytest.fixture
def tiny_file(tiny, tmp_path, monkeypatch):
    """ImageNet weights of the tiny backbone in a folder, their fingerprint committed."""
    backbone = backbones.BACKBONES[tiny]
    keras.utils.set_random_seed(7)
    network = backbone.constructor(
        weights=None, include_top=False, input_shape=(32, 32, 3), name="backbone"
    )
    committed = dataclasses.replace(
        backbone,
        imagenet_file=TINY_FILE,
        imagenet_fingerprint=backbones.fingerprint(network),
    )
    monkeypatch.setitem(backbones.BACKBONES, tiny, committed)
    return save_notop(network, tmp_path / "weights" / TINY_FILE)


@pytest.fixture
def not_committed(tiny, tiny_file, monkeypatch):
    """The same for a backbone whose fingerprint nobody could compute."""
    backbone = dataclasses.replace(backbones.BACKBONES[tiny], imagenet_fingerprint=None)
    monkeypatch.setitem(backbones.BACKBONES, tiny, backbone)


@pytest.fixture(scope="module")
def own_scans(few_phantoms, tmp_path_factory):
    """A data set that is taken for scans of one's own: only quick runs take phantoms."""
    folder = tmp_path_factory.mktemp("own") / "scans"
    shutil.copytree(
        few_phantoms[0], folder, ignore=lambda *_: [dataset.SYNTHETIC_TABLE]
    )
    return folder


# --- the fingerprint ---


def small_network(name="one", kernel_size=3):
    inputs = keras.Input((8, 8, 1))
    features = keras.layers.Conv2D(2, kernel_size, name=name)(inputs)
    return keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(features))


def test_the_fingerprint_is_that_of_names_shapes_and_values_in_layer_order():
    network = small_network()
    kernel, bias, *statistics = (
        keras.ops.convert_to_numpy(weight) for weight in network.weights
    )
    named = {"one/kernel": kernel, "one/bias": bias}
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    named |= {
        f"norm/{name}": values for name, values in zip(names, statistics, strict=True)
    }
    digest = hashlib.sha256()
    for name, values in named.items():
        digest.update(
            f"{name} {values.shape}\n".encode() + values.astype("<f4").tobytes()
        )
    assert backbones.fingerprint(network) == digest.hexdigest()


def test_the_fingerprint_is_the_same_inside_another_model():
    network = small_network()
    alone = backbones.fingerprint(network)
    inputs = keras.Input((8, 8, 1))
    outer = keras.Model(inputs, network(inputs), name="outer")
    assert backbones.fingerprint(outer.get_layer(network.name)) == alone


@pytest.mark.parametrize("other", [dict(name="other"), dict(kernel_size=1)])
def test_another_name_or_shape_is_another_fingerprint(other):
    keras.utils.set_random_seed(0)
    network = small_network()
    keras.utils.set_random_seed(0)
    assert backbones.fingerprint(small_network(**other)) != backbones.fingerprint(
        network
    )


# --- what is said of weights ---


def test_weights_with_the_committed_fingerprint_are_imagenet(tiny, tiny_file):
    for weights in (tiny_file, tiny_file.parent):
        committed = backbones.BACKBONES[tiny].imagenet_fingerprint
        described = backbones.describe_weights(tiny, str(weights))
        assert described == {"weights": "imagenet", "weights_fingerprint": committed}


def test_weights_are_known_by_what_is_in_them_and_not_by_their_name(tiny, tiny_file):
    other_name = tiny_file.rename(tiny_file.with_name("mine.h5"))
    assert backbones.describe_weights(tiny, str(other_name))["weights"] == "imagenet"


def test_one_changed_value_is_not_called_imagenet(tiny, tiny_file):
    folder = tiny_file.parent.rename(tiny_file.parents[1] / "imagenet")
    change_one_value(folder / TINY_FILE)
    for weights in (folder, folder / TINY_FILE):
        described = backbones.describe_weights(tiny, str(weights))
        assert described["weights"] == TINY_FILE
        assert (
            described["weights_fingerprint"]
            != backbones.BACKBONES[tiny].imagenet_fingerprint
        )


def test_a_backbone_without_committed_fingerprint_is_not_checked(
    tiny, tiny_file, not_committed
):
    assert (
        backbones.describe_weights(tiny, str(tiny_file))["weights"]
        == "imagenet, not checked"
    )
    mine = tiny_file.rename(tiny_file.with_name("mine.h5"))
    assert backbones.describe_weights(tiny, str(mine))["weights"] == "mine.h5"


@pytest.mark.parametrize("cached", [True, False])
def test_weights_by_keras_are_checked_where_it_can_get_them(
    tiny, tiny_file, monkeypatch, cached
):
    backbone = backbones.BACKBONES[tiny]

    def by_keras(*, weights, **shape):
        network = backbone.constructor(weights=None, **shape)
        network.load_weights(tiny_file)
        return network

    monkeypatch.setitem(
        backbones.BACKBONES, tiny, dataclasses.replace(backbone, constructor=by_keras)
    )
    monkeypatch.setattr(backbones, "imagenet_available", lambda name: cached)
    said = backbones.describe_weights(tiny, "imagenet")
    if cached:
        committed = backbone.imagenet_fingerprint
        assert said == {"weights": "imagenet", "weights_fingerprint": committed}
        change_one_value(tiny_file)
        assert backbones.describe_weights(tiny, "imagenet")["weights"] == TINY_FILE
    else:
        assert said == {"weights": "imagenet, not checked"}


def test_random_weights_have_no_fingerprint(tiny):
    assert backbones.describe_weights(tiny, "random") == {"weights": "random"}


def test_provenance_says_which_weights_they_are(tiny, tiny_file, quick):
    table = pd.DataFrame({"subset": ["train"], "excluded_because": [""]})
    settings = quick(weights=str(tiny_file.parent))
    # what follows the backbone's name says how much of it was used
    facts = runs.collect_provenance(settings, REPORT, table, model=tiny)
    assert facts["weights"] == "imagenet"
    assert (
        facts["weights_fingerprint"] == backbones.BACKBONES[tiny].imagenet_fingerprint
    )
    assert str(tiny_file.parent) not in json.dumps(facts)


@with_real_weights
def test_the_committed_fingerprint_of_vgg16_is_that_of_its_imagenet_weights(tmp_path):
    assert backbones.describe_weights("vgg16", REAL)["weights"] == "imagenet"
    name = backbones.BACKBONES["vgg16"].imagenet_file
    changed = Path(shutil.copy(Path(REAL) / name, tmp_path / name))
    change_one_value(changed)
    assert backbones.describe_weights("vgg16", str(tmp_path))["weights"] == name


# --- which run it is ---


@pytest.fixture
def scans():
    columns = {"path": ["a"], "sha256": ["1"], "label": ["x"], "subset": ["train"]}
    return pd.DataFrame(columns)


def test_the_same_weights_in_another_folder_are_the_same_run(
    tiny, tiny_file, quick, scans, tmp_path
):
    elsewhere = tmp_path / "elsewhere" / "renamed.h5"
    elsewhere.parent.mkdir()
    shutil.copy(tiny_file, elsewhere)
    one, folder, other = (
        runs.checkpoint_folder(quick(weights=str(weights)), tiny, scans)
        for weights in (tiny_file, tiny_file.parent, elsewhere)
    )
    assert one == folder == other
    change_one_value(elsewhere)
    assert runs.checkpoint_folder(quick(weights=str(elsewhere)), tiny, scans) != one


def test_a_run_from_missing_weights_is_refused_by_the_name_of_their_file(
    tiny, quick, scans
):
    with pytest.raises(
        FileNotFoundError, match="^There is no weights file 'none.h5' for tiny"
    ):
        runs.checkpoint_folder(quick(weights="/nowhere/none.h5"), tiny, scans)


def committed_runs():
    """The provenance of committed runs from random weights, on TensorFlow."""
    files = sorted((config.ROOT / "results").glob("*/settings.json"))
    facts = [json.loads(file.read_text()) for file in files]
    return [
        run
        for run in facts
        if run["weights"] == "random" and run["backend"] == keras.backend.backend()
    ]


def test_committed_runs_still_have_the_names_of_their_checkpoints():
    groups = pd.read_csv(config.DATA_DIR / "image_groups.csv")
    names = [field.name for field in dataclasses.fields(config.Settings)]
    stored_runs = committed_runs()
    assert stored_runs
    for run in stored_runs:
        asked = {name: run[name] for name in names} | {"precision": "auto"}
        table = splits.assign_subsets(groups, run["protocol"], run["seed"])
        folder = runs.checkpoint_folder(config.Settings(**asked), run["model"], table)
        assert folder.name == run["checkpoints"]


# --- stored results and the weights that are asked for ---


@pytest.fixture
def stored(tiny, tiny_file, build_folder, own_scans, quick, monkeypatch):
    """A run from weights in a folder; reading it again needs no scans: its settings, its folder."""
    monkeypatch.setattr(dataset, "locate_data", lambda: own_scans)
    settings = dataclasses.replace(
        quick(epochs=2, weights=str(tiny_file.parent)), preset="cpu"
    )
    run = runs.train_and_evaluate(settings, tiny)
    assert run.history["phase"].iloc[-1] == "fine_tune"
    assert run.provenance["weights"] == "imagenet"  # from which training has moved on
    monkeypatch.setattr(runs, "load_study", None)
    return settings, run.folder


def read_again(settings, tiny, weights):
    return runs.train_and_evaluate(
        dataclasses.replace(settings, weights=str(weights)), tiny
    )


def test_results_are_found_by_weights_that_have_moved(
    stored, tiny, tiny_file, tmp_path
):
    moved = tiny_file.parent.rename(tmp_path / "moved")
    assert read_again(stored[0], tiny, moved).folder == stored[1]
    mine = (moved / TINY_FILE).rename(moved / "mine.h5")
    assert read_again(stored[0], tiny, mine).folder == stored[1]


def test_results_from_imagenet_weights_are_read_without_any_weights(
    stored, tiny, tiny_file, monkeypatch
):
    shutil.rmtree(tiny_file.parent)
    monkeypatch.setattr(
        backbones, "imagenet_available", lambda name: pytest.fail("it looks")
    )
    assert read_again(stored[0], tiny, "imagenet").folder == stored[1]


@pytest.mark.parametrize("said", ["imagenet, not checked", "imagenet"])
def test_so_are_those_that_were_not_checked_and_those_of_before_there_were_fingerprints(
    stored, tiny, tiny_file, said
):
    file = stored[1] / "settings.json"
    facts = json.loads(file.read_text()) | {"weights": said}
    del facts["weights_fingerprint"]
    file.write_text(json.dumps(facts))
    assert read_again(stored[0], tiny, "imagenet").provenance == facts
    if said == "imagenet":
        assert read_again(stored[0], tiny, tiny_file).provenance == facts


def test_results_from_other_weights_are_refused(stored, tiny, tiny_file):
    refusal = f"^'{stored[1].name}' holds results with {{'weights': 'imagenet'.*}}: remove it to"
    with pytest.raises(ValueError, match=refusal):
        read_again(stored[0], tiny, "random")
    change_one_value(tiny_file)
    with pytest.raises(ValueError, match=refusal):
        read_again(stored[0], tiny, tiny_file.parent)
    with pytest.raises(
        FileNotFoundError, match="^There is no weights file 'none.h5' for tiny"
    ):
        read_again(stored[0], tiny, "none.h5")


def test_two_files_of_one_name_are_told_apart(stored, tiny, tiny_file):
    file = stored[1] / "settings.json"
    mine = {"weights": TINY_FILE, "weights_fingerprint": "0" * 64}
    file.write_text(json.dumps(json.loads(file.read_text()) | mine))
    change_one_value(tiny_file)
    with pytest.raises(
        ValueError, match="'weights_fingerprint': '0{64}'}: remove it to train"
    ):
        read_again(stored[0], tiny, tiny_file)


# --- files that hold something else ---

OTHER = {"vgg16": "resnet50", "resnet50": "vgg16"}


@pytest.fixture(scope="module")
def notop(networks, tmp_path_factory):
    """Weights of both backbones, random, in files of the names and the layout of Keras."""
    folder = tmp_path_factory.mktemp("notop")
    for name, network in networks.items():
        save_notop(
            network.get_layer("backbone"),
            folder / backbones.BACKBONES[name].imagenet_file,
        )
    return folder


def wrong_file(kind, name, notop, folder):
    """A file that is no weights file of this backbone, though it has its name."""
    right = notop / backbones.BACKBONES[name].imagenet_file
    file = folder / right.name
    if kind == "another network":
        file.symlink_to(notop / backbones.BACKBONES[OTHER[name]].imagenet_file)
    elif kind == "half a file":
        content = right.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    elif kind == "other shapes":
        shutil.copy(right, file)
        with h5py.File(file, "r+") as content:
            last = tensors_of(content)[-1]
            name, values = last.name, last[()]
            del content[name]
            content[name] = values[: len(values) // 2]
    return file


@pytest.mark.parametrize("kind", ["another network", "half a file", "other shapes"])
@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_a_file_that_holds_something_else_is_refused_by_name(
    kind, name, notop, tmp_path
):
    file = wrong_file(kind, name, notop, tmp_path)
    with pytest.raises(
        ValueError, match=f"^'{file.name}' holds no {name} weights[^.]*\\.$"
    ):
        build(name, weights=str(tmp_path))


def test_the_right_file_is_taken(notop, networks):
    for name, network in networks.items():
        built = build(name, weights=str(notop), seed=9)
        expected = backbones.fingerprint(network.get_layer("backbone"))
        assert backbones.fingerprint(built.get_layer("backbone")) == expected


@pytest.mark.parametrize("suffix", ["h5", "weights.h5", "keras"])
def test_half_a_file_of_any_format_is_refused(tiny, tiny_file, suffix, tmp_path):
    network = build(tiny, weights=str(tiny_file)).get_layer("backbone")
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "weights.h5":
        network.save_weights(whole)
    elif suffix == "keras":
        network.save(whole)
    else:
        save_notop(network, whole)
    content = whole.read_bytes()
    half = tmp_path / f"half.{suffix}"
    half.write_bytes(content[: len(content) // 2])
    build(tiny, weights=str(whole))
    with pytest.raises(ValueError, match=f"^'half.{suffix}' holds no tiny weights"):
        build(tiny, weights=str(half))


def test_the_command_refuses_wrong_weights_in_one_sentence_before_it_trains(
    tiny, notop, own_scans, build_folder, monkeypatch
):
    monkeypatch.setenv("BRAINTUMOR_DATA", str(own_scans))
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it trains"))
    file = notop / backbones.BACKBONES["vgg16"].imagenet_file
    given = ["train", "--model", tiny, "--preset", "cpu", "--protocol", "original"]
    with pytest.raises(
        SystemExit, match=f"^'{file.name}' holds no tiny weights[^.]*\\.$"
    ):
        command.main([*given, "--image-size", "32", "--weights", str(file)])


# --- weights by Keras, from a server ---


@pytest.fixture
def weights_server(notop, tmp_path, monkeypatch):
    """Keras' server on loopback, with a stand-in for ResNet50's ImageNet weights, and an empty cache.

    Gives what was asked for, and ``content``, which may be changed.
    """
    name = backbones.BACKBONES["resnet50"].imagenet_file
    stand_in = SimpleNamespace(content=(notop / name).read_bytes(), asked=[])
    checksum = hashlib.md5(stand_in.content).hexdigest()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            stand_in.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(stand_in.content)))
            self.end_headers()
            self.wfile.write(stand_in.content)

        def log_message(self, *_):
            pass

    cache = tmp_path / "keras"
    cache.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(cache))  # Keras reads it when it is imported
    monkeypatch.setattr(keras_config, "_KERAS_DIR", str(cache))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        port = web.server_address[1]
        reachable = functools.partial(download.reachable, port=port)
        monkeypatch.setattr(backbones, "reachable", reachable)
        monkeypatch.setattr(backbones, "WEIGHTS_HOST", "127.0.0.1")
        monkeypatch.setattr(resnet, "BASE_WEIGHTS_PATH", f"http://127.0.0.1:{port}/")
        monkeypatch.setitem(resnet.WEIGHTS_HASHES, "resnet50", ("", checksum))
        yield stand_in
        web.shutdown()


def test_resnet50_is_trained_from_weights_that_keras_downloads(
    weights_server, networks, own_scans, build_folder, monkeypatch
):
    """The command that fills the row "ResNet50, ImageNet", with fewer scans, pixels and epochs."""
    monkeypatch.setenv("BRAINTUMOR_DATA", str(own_scans))
    given = "train --model resnet50 --preset cpu"
    quick = "--protocol original --image-size 32 --epochs 1"
    assert command.main(f"{given} {quick}".split()) == 0
    assert weights_server.asked == [
        f"/{backbones.BACKBONES['resnet50'].imagenet_file}"
    ]  # once
    results = config.RESULTS_DIR
    run = runs.read_run(results / "resnet50-transfer-original-32px-seed0")
    expected = backbones.fingerprint(networks["resnet50"].get_layer("backbone"))
    assert run.provenance["weights"] == "imagenet, not checked"
    assert run.provenance["weights_fingerprint"] == expected
    assert run.history["phase"].tolist() == ["head"]
    kept = build_folder / "models" / run.provenance["checkpoints"] / "best.keras"
    trained = keras.saving.load_model(kept)
    assert backbones.fingerprint(trained.get_layer("backbone")) == expected
    rows = pd.read_csv(results / "metrics.csv")
    columns = ["model", "recipe", "weights", "subset", "n"]
    described = ["resnet50", "transfer", "imagenet, not checked"]
    assert rows[columns].to_numpy().tolist() == [
        [*described, "validation", 4],
        [*described, "test", 16],
    ]
    assert rows["accuracy"].between(0, 1).all()


def test_weights_that_arrive_damaged_are_refused_in_one_sentence(weights_server):
    weights_server.content = weights_server.content[:1000]
    with pytest.raises(
        ConnectionError, match="^Keras cannot load its ImageNet weights for resnet"
    ):
        build("resnet50", weights="imagenet")
