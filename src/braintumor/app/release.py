"""From a trained run to one file to give away, for Keras or for ONNX Runtime."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

from braintumor.app.engines import (
    CARD,
    CHECKSUMS,
    HEATMAPS,
    Classifier,
    load_classifier,
)
from braintumor.config import BUILD_DIR, MODELS_DIR, Settings, recipe_named
from braintumor.generators import subset_sequence
from braintumor.metrics import fit_temperature
from braintumor.runs import predict, provenance, trained_network
from braintumor.splits import load_study
from braintumor.support.download import DATASET
from braintumor.support.files import checksum, replace_file
from braintumor.training import build_for, run_folder, run_name, with_available_weights

import keras
import numpy as np

UNLIKE = 0.05  # of the validation scans are less similar than the threshold of a card
MOST_BYTES = 32_000_000  # of a file in models/: every clone carries it
TOLERANCE = 2e-3  # of probabilities between the engines: kernels are kept in float16
OPSET = 18  # of ONNX: older than every ONNX Runtime that pyproject.toml allows
USE = "Research only, not for diagnosis."
SCANS_CREDITS = [
    f"Scans: Brain Tumor Classification (MRI), kaggle.com/datasets/{DATASET}, by Sartaj "
    "Bhuvaji, Ankita Kadam, Prajakta Bhumkar, Sameer Dedge and Swati Kanchan; MIT "
    "according to that page.",
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
    """
    settings = with_available_weights(settings, model)
    root, table, report = load_study(settings)
    trained = trained_network(settings, model, table)
    bare = dataclasses.replace(settings, precision="float32", weights="random")
    network = build_for(bare, model, table["label"].nunique())
    network.set_weights(trained.get_weights())
    temperature = fit_temperature(predict(network, table, "validation", root, settings))
    train_scans = subset_sequence(table, "train", root, settings)
    validation_scans = subset_sequence(table, "validation", root, settings)
    network = with_guard(network, train_scans, temperature)
    # alone, as the backbone takes longest
    guard = keras.Model(network.input, network.output["similarity"])
    similarity = guard.predict(validation_scans, verbose=0)
    card = {
        **provenance(settings, report, table, model=model),
        "precision": "float32",
        "temperature": temperature,
        "labels": sorted(table["label"].unique()),
        "frame": recipe_named(settings.recipe)["frame"],
        "threshold": float(np.quantile(similarity, UNLIKE)),
        "use": USE,
    }

    def write(temporary):
        network.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr("card.json", json.dumps(card, indent=1))

    file = folder / f"braintumor-{run_name(settings, model)}.keras"
    replace_file(file, write)
    return file


def with_guard(network: keras.Model, train_scans, temperature: float) -> keras.Model:
    """Add an out-of-distribution detector to a network, and temperature scaling.

    Similarity is the correlation of intensities averaged over 8 x 8 cells with those of
    the nearest neighbor (after arXiv:2204.06507, which takes features).

    Args:
        network: One of ``models.build_classifier``.
        train_scans: A ``ScanSequence`` of all scans that count as known.
        temperature: What logits are divided by.

    Returns:
        A network from scans to ``probabilities`` and ``similarity`` (-1 to 1) to the
        most similar of ``train_scans``.
    """
    last = network.get_layer("probabilities")
    scan = network.input
    cell = scan.shape[1] // 8
    means = keras.layers.AveragePooling2D(cell, dtype="float32")(scan)
    intensities = keras.layers.Flatten()(means)
    centered = intensities - keras.ops.mean(intensities, axis=-1, keepdims=True)
    direction = keras.layers.UnitNormalization(dtype="float32")(centered)
    known = keras.Model(scan, direction).predict(train_scans, verbose=0)
    correlation = keras.layers.Dense(len(known), use_bias=False, dtype="float32")
    options = {"activation": "softmax", "dtype": "float32", "name": last.name}
    scaled = keras.layers.Dense(last.units, **options)
    similarity = keras.ops.max(correlation(direction), axis=-1)
    outputs = {"probabilities": scaled(last.input), "similarity": similarity}
    correlation.set_weights([known.T])
    scaled.set_weights([weights / temperature for weights in last.get_weights()])
    return keras.Model(scan, outputs, name=network.name)


def with_heatmaps(network: keras.Model) -> keras.Model:
    """Add Grad-CAM (arXiv:1610.02391) of every class as an output of the network.

    The gradient of a class logit with respect to the pooled features has a closed form,
    as in ``explain.grad_cam``. So the evidence of a feature-map cell is its features
    through both kernels of the head, hidden units that are off left out.

    Args:
        network: One of ``with_guard``.

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


def export(network: keras.Model, to: str, file: Path) -> None:
    """Write a classifier in another format, without its card.

    Args:
        network: One of ``with_guard``.
        to: ``onnx`` or ``openvino``.
        file: It takes square gray scans, float32, 0-255, shape (n, size, size, 1).
    """
    pixels = keras.Input(network.input_shape[1:], name="pixels")
    whole = keras.Model(pixels, network(keras.layers.Rescaling(1 / 255)(pixels)))
    _export(whole, to, file)


def _export(network, to, file, **options):
    # ONNX wants a model that has been called
    network(keras.ops.zeros((1, *network.input_shape[1:])))
    network.export(str(file), format=to, verbose=False, **options)


def write_onnx(classifier: Classifier, file: Path) -> None:
    """Write a classifier of Keras as ONNX: its card inside, kernels as float16.

    Args:
        classifier: One of ``package``, loaded.
        file: Takes ``scan``: gray squares of ``images.to_square``, float32 in [0, 1],
            shape (n, size, size, 1). Gives ``probabilities``, ``similarity``, ``heatmaps``.

    Raises:
        ValueError: The backend is not TensorFlow, whose export alone names outputs.
    """
    import onnx  # no dependency of the package: only whoever releases a file writes one

    if keras.backend.backend() != "tensorflow":
        advice = "set KERAS_BACKEND=tensorflow."
        raise ValueError(f"Only TensorFlow exports a named graph: {advice}")

    def write(temporary):
        whole = with_heatmaps(classifier.network)
        _export(whole, "onnx", temporary, opset_version=OPSET)
        model = onnx.load(temporary)
        keep_kernels_in_half(model)
        model.doc_string = USE
        onnx.helper.set_model_props(model, {CARD: json.dumps(classifier.card)})
        onnx.checker.check_model(model)
        onnx.save(model, temporary)

    replace_file(file, write)


def keep_kernels_in_half(model) -> None:
    """Store the kernels of convolutions as float16, cast when a session is made, in place."""
    import onnx

    graph = model.graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    for tensor in graph.initializer:
        if tensor.name not in kernels:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        name = tensor.name
        half = onnx.numpy_helper.from_array(values.astype("float16"), f"{name}/float16")
        to_float = {"to": onnx.TensorProto.FLOAT}
        cast = onnx.helper.make_node("Cast", [half.name], [name], **to_float)
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
    root, table, _ = load_study(settings)
    name = run_name(settings, model)
    if not (run_folder(settings, model, table) / "best.keras").exists():
        raise FileNotFoundError(
            f"'{name}' has no network in build/models: train it here first, with "
            "'python -m braintumor train' and the same options."
        )
    reference = load_classifier(package(settings, model))
    card = {**reference.card, "run": name, "credits": credits_of(reference.card)}
    reference = reference._replace(card=card)
    draft = BUILD_DIR / "classifiers" / f"braintumor-{name}.onnx"
    write_onnx(reference, draft)
    check_size(draft)
    validation_scans = subset_sequence(table, "validation", root, settings)
    check_agreement(reference, load_classifier(draft), validation_scans)
    released = folder / draft.name
    replace_file(released, lambda temporary: shutil.copyfile(draft, temporary))
    line = f"{checksum(released)}  {released.name}\n"
    replace_file(folder / CHECKSUMS, lambda temporary: temporary.write_text(line))
    return released


def credits_of(card: dict) -> list[str]:
    """Whose work a classifier with this card rests on, and under which licenses."""
    credits = list(SCANS_CREDITS) if card["data"] == DATASET else []
    if card["weights"] != "random" and card["model"] in IMAGENET_CREDITS:
        credits.append(IMAGENET_CREDITS[card["model"]])
    return credits


def check_size(file: Path) -> None:
    """ValueError where a file is too large for the repository."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        much = f"'{file.name}' has {size / 1e6:.0f} MB"
        most = f"models/ takes at most {MOST_BYTES / 1e6:.0f}"
        raise ValueError(f"{much}, and {most}: release a smaller network.")


def check_agreement(reference: Classifier, other: Classifier, scans) -> float:
    """Compare the answers of two engines.

    Args:
        reference: A classifier.
        other: The same network in another engine.
        scans: A ``ScanSequence``.

    Returns:
        The largest difference of two probabilities.

    Raises:
        ValueError: It is larger than ``TOLERANCE``, or a scan gets another class.
    """
    largest, others = 0.0, 0
    for index in range(len(scans)):
        images, _ = scans[index]
        expected = reference.predict(images).probabilities
        found = other.predict(images).probabilities
        largest = max(largest, float(np.abs(found - expected).max()))
        others += int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if others or largest > TOLERANCE:
        wrong = f"The ONNX file gives {others} scans another class"
        difference = f"probabilities differ by up to {largest:.1e}"
        advice = "release a network whose kernels float16 can hold."
        raise ValueError(f"{wrong}, and {difference}: {advice}")
    return largest
