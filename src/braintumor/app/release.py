"""From a trained run to one file to give away, for Keras or for ONNX Runtime."""

import dataclasses
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from braintumor.app.cards import Card
from braintumor.app.engines import (
    CARD,
    CHECKSUMS,
    HEATMAPS,
    Classifier,
    load_classifier,
)
from braintumor.app.keras_engine import CARD_FILE, KerasClassifier
from braintumor.config import BUILD_DIR, MODELS_DIR, Settings
from braintumor.dataset import class_names
from braintumor.generators import ScanSequence, subset_sequence
from braintumor.metrics import fit_temperature
from braintumor.models import build_classifier, with_available_weights
from braintumor.runs import (
    checkpoint_folder,
    collect_provenance,
    load_trained_network,
    predict,
    run_name,
)
from braintumor.splits import load_study
from braintumor.support.checkpoints import BEST_MODEL
from braintumor.support.download import DATASET
from braintumor.support.files import checksum, replace_file

import keras
import numpy as np
import pandas as pd

if TYPE_CHECKING:  # no dependency of the package: only who writes ONNX files has it
    import onnx

UNLIKE = 0.05  # of the validation scans are less similar than the threshold of a card
MOST_BYTES = 32_000_000  # of a file in models/: every clone carries it
TOLERANCE = 2e-3  # of probabilities between the engines: kernels are kept in float16
OPSET = 18  # of ONNX: older than every ONNX Runtime that pyproject.toml allows
USE = "Research only, not for diagnosis."
SCANS_CREDITS = [
    f"Scans: Brain Tumor Classification (MRI), kaggle.com/datasets/{DATASET}, by "
    "Sartaj Bhuvaji, Ankita Kadam, Prajakta Bhumkar, Sameer Dedge and Swati Kanchan; "
    "MIT according to that page.",
    "Most of them, and the patient groups: Jun Cheng, brain tumor dataset, "
    "doi 10.6084/m9.figshare.1512427, CC BY 4.0 (creativecommons.org/licenses/by/4.0); "
    "Cheng et al., PLoS ONE 10(10): e0140381, 2015. Changed: converted, patients "
    "renumbered.",
]
IMAGENET_CREDITS = {
    "vgg16": "Weights before this training: VGG16 on ImageNet, Simonyan and Zisserman, "
    "arXiv:1409.1556, Visual Geometry Group, Oxford, CC BY 4.0 "
    "(creativecommons.org/licenses/by/4.0). Changed: trained further, kept as float16.",
    "resnet50": "Weights before this training: ResNet50 on ImageNet, He et al., "
    "arXiv:1512.03385, as keras.applications offers them. Changed: trained further.",
}


def package(
    settings: Settings, model: str, folder: Path = BUILD_DIR / "classifiers"
) -> Path:
    """Write a trained run as one Keras file, its card inside.

    In float32, which works anywhere; probabilities are scaled by the temperature that
    suits validation best.

    Args:
        settings: Those of the run.
        model: Its backbone.
        folder: Where the file goes.

    Returns:
        The file, ``braintumor-<run>.keras``.

    Raises:
        FileNotFoundError: The weights that the run starts from cannot be had.
        ValueError: See ``splits.load_study``; or the network of the run is damaged.
    """
    settings = with_available_weights(settings, model)
    root, table, report = load_study(settings)
    network = _in_float32(settings, model, table)
    temperature = fit_temperature(predict(network, table, "validation", root, settings))
    train_scans = subset_sequence(table, "train", root, settings)
    validation_scans = subset_sequence(table, "validation", root, settings)
    network = with_detector(network, train_scans, temperature)
    # the similarity alone, as the backbone takes longest
    detector = keras.Model(network.input, network.output["similarity"])
    similarity = detector.predict(validation_scans, verbose=0)
    card = {
        **collect_provenance(settings, report, table, model=model),
        "precision": "float32",
        "temperature": temperature,
        "labels": class_names(table),
        "frame": settings.parsed_recipe.frame,
        "threshold": float(np.quantile(similarity, UNLIKE)),
        "use": USE,
    }

    def write(temporary: Path) -> None:
        network.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CARD_FILE, json.dumps(card, indent=1))

    file = folder / f"braintumor-{run_name(settings, model)}.keras"
    replace_file(file, write)
    return file


def _in_float32(settings: Settings, model: str, table: pd.DataFrame) -> keras.Model:
    """The trained network of a run, whatever precision it was trained in."""
    trained = load_trained_network(settings, model, table)
    bare = dataclasses.replace(settings, precision="float32", weights="random")
    network = build_classifier(bare, model, table["label"].nunique())
    network.set_weights(trained.get_weights())
    return network


def with_detector(
    network: keras.Model, train_scans: ScanSequence | np.ndarray, temperature: float
) -> keras.Model:
    """Add an out-of-distribution detector to a network, and temperature scaling.

    Similarity is the correlation of intensities averaged over 8 x 8 cells with those of
    the nearest neighbor (after arXiv:2204.06507, which takes features).

    Args:
        network: One of ``models.build_classifier``.
        train_scans: All scans that count as known.
        temperature: What logits are divided by.

    Returns:
        A network from scans to two outputs: ``probabilities``, and ``similarity``, from
        -1 to 1: that of each scan to the most similar of ``train_scans``.
    """
    scan = network.input
    cell = scan.shape[1] // 8
    means = keras.layers.AveragePooling2D(cell, dtype="float32")(scan)
    intensities = keras.layers.Flatten()(means)
    centered = intensities - keras.ops.mean(intensities, axis=-1, keepdims=True)
    # scans as unit vectors, so that a product of two is their correlation
    direction = keras.layers.UnitNormalization(dtype="float32")(centered)
    known = keras.Model(scan, direction).predict(train_scans, verbose=0)
    correlation = keras.layers.Dense(len(known), use_bias=False, dtype="float32")
    similarity = keras.ops.max(correlation(direction), axis=-1)
    # the last layer once more, its logits divided by the temperature
    last = network.get_layer("probabilities")
    scaled = keras.layers.Dense(
        last.units, activation="softmax", dtype="float32", name=last.name
    )
    outputs = {"probabilities": scaled(last.input), "similarity": similarity}
    correlation.set_weights([known.T])
    scaled.set_weights([weights / temperature for weights in last.get_weights()])
    return keras.Model(scan, outputs, name=network.name)


def with_heatmaps(network: keras.Model) -> keras.Model:
    """Add Grad-CAM (arXiv:1610.02391) of every class as an output of the network.

    The gradient of a class logit with respect to the pooled features has a closed form,
    as in ``gradcam.grad_cam``. So the evidence of a feature-map cell is its features
    through both kernels of the head, hidden units that are off left out.

    Args:
        network: One of ``with_detector``.

    Returns:
        The same network with a third output, ``heatmaps``: (n, height, width, classes).
    """
    pooled = network.get_layer("pooled")
    hidden = network.get_layer("hidden")
    last = network.get_layer("probabilities")
    first_kernel = keras.ops.convert_to_numpy(hidden.kernel)
    last_kernel = keras.ops.convert_to_numpy(last.kernel)
    active = keras.ops.cast(hidden.output > 0, "float32")
    contributions = keras.ops.matmul(pooled.input, first_kernel)
    contributions = contributions * keras.ops.expand_dims(active, (1, 2))
    evidence = keras.ops.matmul(contributions, last_kernel)
    _, height, width, _ = pooled.input.shape
    # the same shape, which the file would not name otherwise
    evidence = keras.ops.reshape(evidence, (-1, height, width, last.units))
    outputs = {**network.output, HEATMAPS: keras.ops.relu(evidence)}
    return keras.Model(network.input, outputs, name=network.name)


def is_exportable(classifier: Classifier) -> bool:
    """Say whether a classifier can be written in another format.

    Args:
        classifier: Of any engine.

    Returns:
        Whether its network is one of Keras.
    """
    return isinstance(classifier.network, keras.Model)


def export(network: keras.Model, to: str, file: Path) -> None:
    """Write a classifier in another format, without its card.

    Args:
        network: One of ``with_detector``.
        to: ``onnx`` or ``openvino``.
        file: It takes square gray scans, float32, 0-255, shape (n, size, size, 1).
    """
    pixels = keras.Input(network.input_shape[1:], name="pixels")
    whole = keras.Model(pixels, network(keras.layers.Rescaling(1 / 255)(pixels)))
    file.parent.mkdir(parents=True, exist_ok=True)
    # beside it first: whole or not at all, whichever files the format has
    with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as folder:
        _export(whole, to, Path(folder, file.name))
        for written in sorted(Path(folder).iterdir()):
            os.replace(written, file.with_name(written.name))


def _export(network: keras.Model, to: str, file: Path, **options: int) -> None:
    """Let Keras export a network; options are those of the format."""
    # ONNX wants a model that has been called
    network(keras.ops.zeros((1, *network.input_shape[1:])))
    network.export(str(file), format=to, verbose=False, **options)


def write_onnx(classifier: Classifier, file: Path) -> None:
    """Write a classifier of Keras as ONNX: its card inside, kernels as float16.

    Args:
        classifier: One of ``package``, loaded.
        file: Takes ``scan``: gray squares of ``images.to_square``, float32 in [0, 1],
            shape (n, size, size, 1). Gives ``probabilities``, ``similarity``,
            ``heatmaps``.

    Raises:
        ValueError: The backend is not TensorFlow, whose export alone names outputs.
    """
    import onnx

    if keras.backend.backend() != "tensorflow":
        advice = "set KERAS_BACKEND=tensorflow."
        raise ValueError(f"Only TensorFlow exports a named graph: {advice}")

    def write(temporary: Path) -> None:
        whole = with_heatmaps(classifier.network)
        _export(whole, "onnx", temporary, opset_version=OPSET)
        model = onnx.load(temporary)
        keep_kernels_in_half(model)
        model.doc_string = USE
        onnx.helper.set_model_props(model, {CARD: json.dumps(classifier.card)})
        onnx.checker.check_model(model)
        onnx.save(model, temporary)

    replace_file(file, write)


def keep_kernels_in_half(model: "onnx.ModelProto") -> None:
    """Store the kernels of convolutions as float16, to be cast when a session is made.

    Args:
        model: Is changed in place.
    """
    import onnx

    graph = model.graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    for tensor in graph.initializer:
        if tensor.name not in kernels:
            continue
        kernel_name = tensor.name
        half_name = f"{kernel_name}/float16"
        values = onnx.numpy_helper.to_array(tensor).astype("float16")
        half = onnx.numpy_helper.from_array(values, half_name)
        cast = onnx.helper.make_node(
            "Cast", [half_name], [kernel_name], to=onnx.TensorProto.FLOAT
        )
        tensor.CopyFrom(half)
        graph.node.insert(0, cast)


def release(settings: Settings, model: str, folder: Path = MODELS_DIR) -> Path:
    """Write a trained run as the classifier that comes with the repository.

    Args:
        settings: Those of the run.
        model: Its backbone.
        folder: Where the file goes, and its checksum.

    Returns:
        The file, ``braintumor-<run>.onnx``.

    Raises:
        FileNotFoundError: The run has no network here.
        ValueError: The file is too large, or answers otherwise than Keras does.
    """
    settings = with_available_weights(settings, model)
    root, table, _ = load_study(settings)
    name = run_name(settings, model)
    if not (checkpoint_folder(settings, model, table) / BEST_MODEL).exists():
        raise FileNotFoundError(
            f"'{name}' has no network in build/models: train it here first, with "
            "'python -m braintumor train' and the same options."
        )
    packaged = KerasClassifier.load(package(settings, model))
    card = packaged.card.copy()
    card["run"] = name
    card["credits"] = credits_of(card)
    reference = KerasClassifier(packaged.network, card)
    draft = BUILD_DIR / "classifiers" / f"braintumor-{name}.onnx"
    write_onnx(reference, draft)
    check_size(draft)
    validation_scans = subset_sequence(table, "validation", root, settings)
    check_agreement(reference, load_classifier(draft), validation_scans)
    return _publish(draft, folder)


def _publish(draft: Path, folder: Path) -> Path:
    """Copy a file into a folder and write its checksum there."""
    released = folder / draft.name
    checksum_line = f"{checksum(draft)}  {draft.name}\n"

    def copy(temporary: Path) -> None:
        shutil.copyfile(draft, temporary)

    def write_checksum(temporary: Path) -> None:
        temporary.write_text(checksum_line)

    replace_file(released, copy)
    replace_file(folder / CHECKSUMS, write_checksum)
    return released


def credits_of(card: Card) -> list[str]:
    """Say whose work a classifier rests on, and under which licenses.

    Args:
        card: Its card.

    Returns:
        A sentence for each work.
    """
    credits = list(SCANS_CREDITS) if card["data"] == DATASET else []
    if card["weights"] != "random" and card["model"] in IMAGENET_CREDITS:
        credits.append(IMAGENET_CREDITS[card["model"]])
    return credits


def check_size(file: Path) -> None:
    """Refuse a file that is too large for the repository.

    Args:
        file: What is to be released.

    Raises:
        ValueError: It is larger than ``MOST_BYTES``.
    """
    size = file.stat().st_size
    if size > MOST_BYTES:
        found = f"'{file.name}' has {size / 1e6:.0f} MB"
        limit = f"models/ takes at most {MOST_BYTES / 1e6:.0f}"
        raise ValueError(f"{found}, and {limit}: release a smaller network.")


def check_agreement(
    reference: Classifier, other: Classifier, scans: ScanSequence
) -> float:
    """Compare the answers of two engines.

    Args:
        reference: A classifier.
        other: The same network in another engine.
        scans: What both are asked about.

    Returns:
        The largest difference of two probabilities.

    Raises:
        ValueError: It is larger than ``TOLERANCE``, or a scan gets another class, or
            values that are no numbers.
    """
    advice = "release a network whose kernels float16 can hold."
    largest_difference = 0.0
    disagreements = 0
    for index in range(len(scans)):
        images, _ = scans[index]
        expected = reference.predict(images).probabilities
        found = other.predict(images).probabilities
        if not np.isfinite(found).all():
            raise ValueError(
                f"The ONNX file gives values that are no numbers: {advice}"
            )
        difference = float(np.abs(found - expected).max())
        largest_difference = max(largest_difference, difference)
        is_other_class = found.argmax(axis=1) != expected.argmax(axis=1)
        disagreements += int(is_other_class.sum())
    if disagreements or largest_difference > TOLERANCE:
        classes = f"The ONNX file gives {disagreements} scans another class"
        shares = f"probabilities differ by up to {largest_difference:.1e}"
        raise ValueError(f"{classes}, and {shares}: {advice}")
    return largest_difference
