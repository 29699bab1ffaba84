"""A classifier file: recognized by its content, compared with its checksum, and called what it is."""

import json
import zipfile
from pathlib import Path

from braintumor.app import cards, engines
from braintumor.support import files

import keras
import numpy as np
import pytest

CARD = {"labels": ["a", "b"], "image_size": 32, "frame": "scan", "threshold": 0.5}
DIGEST = "0123456789abcdef" * 4


def small_network(outputs=("probabilities", "similarity")):
    """A network of Keras that gives the outputs of a classifier."""
    scan = keras.Input((32, 32, 1))
    mean = keras.layers.GlobalAveragePooling2D()(scan)
    named = {name: keras.layers.Dense(2, name=name)(mean) for name in outputs}
    return keras.Model(scan, named)


def package(file, network, card=CARD):
    """Write a file as ``release.package`` does."""
    network.save(file)
    if card is not None:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("card.json", json.dumps(card))
    return file


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path):
    package(tmp_path / "c.keras", small_network())
    for name in ("classifier", "c.onnx", "c.keras (1)"):
        (tmp_path / name).write_bytes((tmp_path / "c.keras").read_bytes())
        assert engines.load_classifier(tmp_path / name).card == CARD


FOREIGN = {
    "empty": (b"", "no classifier: it is empty"),
    "blank": (b" \n", "no classifier: it is empty"),
    "page": (b"\n<!DOCTYPE html><html>log in", "it is a web page: take the address of"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
    "weights": (b"\x89HDF\r\n\x1a\n....", "it is an HDF5 file"),
    "text": (b"no network", "is no classifier: take one that tools/release"),
    "zip cut": (b"PK\x03\x04....", "is damaged: get it again"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_called_what_it_is(tmp_path, kind):
    content, words = FOREIGN[kind]
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(ValueError, match=f"^'model.keras' .*{words}"):
        engines.load_classifier(tmp_path / "model.keras")


def test_networks_of_others_are_foreign_and_not_damaged(tmp_path):
    foreign = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    package(tmp_path / "foreign.keras", foreign, card=None)
    with pytest.raises(ValueError, match="^'foreign.keras' has no card, so nothing is"):
        engines.load_classifier(tmp_path / "foreign.keras")
    for network in (foreign, small_network(["probabilities"])):
        package(tmp_path / "other.keras", network)
        with pytest.raises(ValueError, match="holds a network that is no classifier"):
            engines.load_classifier(tmp_path / "other.keras")


def test_an_archive_of_something_else_is_foreign(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"...")
    with pytest.raises(ValueError, match="^'weights.pt' has no card"):
        engines.load_classifier(tmp_path / "weights.pt")
    with zipfile.ZipFile(tmp_path / "card.keras", "w") as archive:
        archive.writestr("card.json", json.dumps(CARD))
    with pytest.raises(ValueError, match="^'card.keras' holds no network that Keras"):
        engines.load_classifier(tmp_path / "card.keras")


def test_a_flipped_bit_or_a_missing_end_is_damage(tmp_path):
    content = package(tmp_path / "c.keras", small_network()).read_bytes()
    weights = content.index(b"\x89HDF")
    flipped = bytearray(content)
    flipped[weights + 3000] ^= 1
    for damaged in (flipped, content[:-100], content[: len(content) // 2]):
        (tmp_path / "c.keras").write_bytes(damaged)
        with pytest.raises(ValueError, match="^'c.keras' is damaged: get it again.$"):
            engines.load_classifier(tmp_path / "c.keras")


def test_code_in_a_classifier_never_runs(tmp_path):
    mark = tmp_path / "it ran"
    scan = keras.Input((32, 32, 1))
    layer = keras.layers.Lambda(lambda x, mark=str(mark): (Path(mark).touch(), x)[1])
    network = small_network()
    package(tmp_path / "c.keras", keras.Model(scan, network(layer(scan))))
    mark.unlink()
    with pytest.raises(ValueError, match="holds no network that Keras .* loads"):
        engines.load_classifier(tmp_path / "c.keras")
    assert not mark.exists()


def test_a_file_of_text_named_onnx_is_no_onnx_file(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(
        ValueError, match="^'text.onnx' is no ONNX file, or it is damaged"
    ):
        engines.load_classifier(tmp_path / "text.onnx")


# --- cards ---


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        ({"labels": ["one"]}, "labels"),
        ({"labels": "glioma"}, "labels"),
        ({"labels": [1, 2]}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": ["a", ""]}, "labels"),
        ({"image_size": "32"}, "image_size"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"frame": "round"}, "frame"),
        ({"threshold": None}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": True}, "threshold"),
    ],
)
def test_a_card_that_lacks_what_an_answer_needs_is_refused(change, entry):
    card = {**CARD, **change}
    with pytest.raises(
        ValueError, match=rf"^The card of 'c' is not usable \({entry}\)"
    ):
        cards.read_card(json.dumps(card), "c")
    del card[entry]
    with pytest.raises(ValueError, match=rf"\({entry}\)"):
        cards.read_card(json.dumps(card), "c")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["a", "b", "c"]}, "says 3 classes, while its network has 2"),
        ({"image_size": 64}, "says 64 pixels a side, while its network has 32"),
    ],
)
def test_a_card_of_another_network_is_refused(tmp_path, change, words):
    package(tmp_path / "c.keras", small_network(), {**CARD, **change})
    with pytest.raises(
        ValueError, match=f"^'c.keras' does not fit its card, .*{words}"
    ):
        engines.load_classifier(tmp_path / "c.keras")


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"null", b"\xff", b'"card"'])
def test_what_is_no_card_is_refused(text):
    with pytest.raises(ValueError, match=r"^The card of 'c' is not usable \(all\)"):
        cards.read_card(text, "c")


# --- checksums ---


@pytest.mark.parametrize(
    "text",
    [
        DIGEST,
        DIGEST.upper(),
        f"  {DIGEST}\n",
        f"sha256:{DIGEST}",
        f"{DIGEST}  braintumor.onnx",
        f"{DIGEST} *braintumor.onnx",
        f"SHA256 (braintumor.onnx) = {DIGEST}",
    ],
)
def test_a_checksum_is_taken_in_any_form_that_people_copy(text):
    assert engines.parse_sha256(text) == DIGEST


@pytest.mark.parametrize(
    "text", ["0" * 63, "0" * 65, "abc", "x" * 64, f"{DIGEST} {DIGEST}"]
)
def test_what_is_no_checksum_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="is no sha256: it has 64 hexadecimal digits"):
        engines.find_classifier(tmp_path / "c.keras", text)


def test_a_wrong_checksum_and_a_missing_file_are_refused(tmp_path):
    file = package(tmp_path / "c.keras", small_network())
    digest = files.checksum(file)
    assert engines.find_classifier(file, f"sha256:{digest.upper()}") == file
    with pytest.raises(
        ValueError, match="^'c.keras' does not have the checksum 000000"
    ):
        engines.find_classifier(file, "0" * 64)
    with pytest.raises(FileNotFoundError, match="no classifier 'none.keras'"):
        engines.find_classifier(tmp_path / "none.keras")
    with pytest.raises(FileNotFoundError, match="There is no classifier"):
        engines.find_classifier(tmp_path)


@pytest.mark.parametrize("form", ["{} *{}\n", "{}  {}\n\n", "{} {}\r\n"])
def test_checksums_of_a_folder_are_read_as_tools_write_them(tmp_path, form):
    names = ["a.onnx", "b c.onnx"]
    text = "".join(form.format(DIGEST.upper(), name) for name in names)
    (tmp_path / "checksums.txt").write_bytes(text.encode())
    assert engines.recorded_checksums(tmp_path) == dict.fromkeys(names, DIGEST)


def test_a_network_of_keras_answers_with_its_two_outputs(tmp_path):
    file = package(tmp_path / "c.keras", small_network())
    scans = np.random.default_rng(0).random((3, 32, 32, 1), "float32")
    prediction = engines.load_classifier(Path(file)).predict(scans)
    assert prediction.probabilities.shape == (3, 2)
