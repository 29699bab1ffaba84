"""What `make bench` compares: our ways to feed, train and predict, and others.

Functions that return a ``turns.Measure`` are subjects, see ``turns``. Their arguments
mean the same in all of them:

    root: The folder of the scans.
    model: One of ``MODELS``.
    recipe: The name of a recipe, see ``config.parse_recipe``.
    count, scans: How many scans are handled.
    batch: Scans in a batch; batches: how many of them.
    precision: ``auto`` or ``float32``, see ``models.choose_precision``.

What loads TensorFlow or PyTorch is imported in the subjects, and with that in their
processes alone.
"""

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from braintumor import config, dataset

import numpy as np
import pandas as pd
import turns

# where phantoms are drawn; the processes of the subjects need it, too
sys.path.append(str(config.ROOT / "tools"))

SIZE = 224  # px; this, the batch size and the epochs are those of the reference study
BATCH = 32
EPOCHS = 20
STUDY_SCANS = 2297  # that the reference study trained on
MODELS = ("vgg16", "resnet50")


# --- feeding ---


def training_scans(root: Path, count: int) -> pd.DataFrame:
    """Choose scans of the folder Training at random, always the same.

    Args:
        root: The folder of the scans.
        count: How many.

    Returns:
        Their rows of the scan table.
    """
    table = dataset.scan_table(root)
    training = table[table["split"] == "training"]
    return training.sample(count, random_state=0)


def our_sequence(root: Path, table: pd.DataFrame) -> Any:
    """Decode scans, to be augmented as in the reference study.

    Args:
        root: The folder of the scans.
        table: Their scan table.

    Returns:
        A ``generators.ScanSequence`` with made-up classes.
    """
    from braintumor import generators

    images, _ = generators.load_images(table, root, SIZE)
    return generators.ScanSequence(
        images,
        np.arange(len(table)) % 4,
        classes=4,
        batch_size=BATCH,
        augmentation=generators.AUGMENTATIONS["original"],
        seed=0,
    )


def our_decoding(root: Path, count: int = 640) -> turns.Measure:
    """Read and decode scans: images/s."""
    table = training_scans(root, count)
    return turns.rate(count, lambda: our_sequence(root, table))


def our_augmenting(root: Path, count: int = 640) -> turns.Measure:
    """Augment decoded scans: images/s."""
    sequence = our_sequence(root, training_scans(root, count))
    epochs = 5

    def feed() -> None:
        for _ in range(epochs):
            make_all_batches(sequence)

    return turns.rate(epochs * count, feed)


def make_all_batches(sequence: Any) -> None:
    """Make each batch once, and drop it.

    Args:
        sequence: A ``keras.utils.PyDataset``.
    """
    for index in range(len(sequence)):
        sequence[index]


def original_generator(root: Path, augmenting: bool = True) -> Any:
    """Feed the folder Training as the reference study does.

    Args:
        root: The folder of the scans.
        augmenting: Whether scans are augmented.

    Returns:
        Keras' iterator over batches.
    """
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    augmentation: dict[str, Any] = {}
    if augmenting:
        augmentation = {
            "rotation_range": 20,
            "width_shift_range": 0.2,
            "height_shift_range": 0.2,
            "horizontal_flip": True,
        }
    generator = ImageDataGenerator(
        rescale=1 / 255, validation_split=0.2, **augmentation
    )
    return generator.flow_from_directory(
        root / "Training",
        target_size=(SIZE, SIZE),
        batch_size=BATCH,
        class_mode="categorical",
        subset="training",
    )


def original_pipeline(root: Path, augmenting: bool = True) -> turns.Measure:
    """Feed by ImageDataGenerator: images/s."""
    batches = original_generator(root, augmenting)
    count = 6

    def feed() -> None:
        for index in range(count):
            batches[index]

    return turns.rate(count * BATCH, feed)


def keras_layers_pipeline(root: Path) -> turns.Measure:
    """Feed cached scans through Keras' augmentation layers: images/s."""
    import keras

    augment = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(20 / 360),
            keras.layers.RandomTranslation(0.2, 0.2),
        ]
    )
    scans = keras.utils.image_dataset_from_directory(
        root / "Training",
        image_size=(SIZE, SIZE),
        batch_size=BATCH,
        label_mode="categorical",
        verbose=0,
    )
    count = 10
    cached = scans.take(count).cache()
    augmented = cached.map(
        lambda images, labels: (augment(images, training=True), labels)
    )
    batches = augmented.prefetch(2)

    def feed() -> None:
        for _ in batches:
            pass

    return turns.rate(count * BATCH, feed)


# --- training ---


def our_classifier(model: str, recipe: str, fused: bool = True) -> Any:
    """Build our network, compiled for the last phase of a recipe.

    Args:
        model: One of ``MODELS``.
        recipe: The name of a recipe.
        fused: Whether batch norms use TensorFlow's fused kernel.

    Returns:
        The network of the preset ``full``, with random weights.
    """
    from braintumor import models, training

    settings = config.settings_from("full", weights="random", recipe=recipe, seed=0)
    if fused:
        network = models.build_classifier(settings, model, classes=4)
    else:
        with patch.object(models, "use_fused_kernels"):
            network = models.build_classifier(settings, model, classes=4)
    last_phase = training.training_phases(settings, model)[-1]
    training.compile_phase(
        network, last_phase, settings.parsed_recipe, steps_per_epoch=1000
    )
    return network


def one_batch(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Make up a batch.

    Args:
        channels: Of each image.

    Returns:
        Images (batch, size, size, channels), float32 in [0, 1]; one-hot classes
        (batch, 4), float32.
    """
    images = np.random.default_rng(0).random((BATCH, SIZE, SIZE, channels), "float32")
    classes = np.arange(BATCH) % 4
    return images, np.eye(4, dtype="float32")[classes]


def our_training(
    root: Path, model: str, recipe: str, batches: int, fused: bool = True
) -> turns.Measure:
    """Train our network by our generator: images/s."""
    network = our_classifier(model, recipe, fused)
    sequence = our_sequence(root, training_scans(root, batches * BATCH))
    fit = partial(network.fit, sequence, verbose=0, shuffle=False)
    return turns.rate(batches * BATCH, fit)


def training_from_memory(model: str, recipe: str, batches: int) -> turns.Measure:
    """Train our network by one batch that is repeated: images/s."""
    import keras

    network = our_classifier(model, recipe)
    batch = one_batch(channels=1)

    class RepeatedBatch(keras.utils.PyDataset):
        def __len__(self) -> int:
            return batches

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            return batch

    fit = partial(network.fit, RepeatedBatch(workers=2), verbose=0, shuffle=False)
    return turns.rate(batches * BATCH, fit)


def original_training(root: Path, model: str, batches: int) -> turns.Measure:
    """Train as the reference study wrote it: images/s.

    Keras' network in float32, all of it trained by Adam, fed by ImageDataGenerator.
    """
    import keras

    constructors = {
        "vgg16": keras.applications.VGG16,
        "resnet50": keras.applications.ResNet50,
    }
    backbone = constructors[model](
        weights=None, include_top=False, input_shape=(SIZE, SIZE, 3)
    )
    network = keras.Sequential(
        [
            backbone,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    scans = original_generator(root)
    scans.workers = 2  # as ours: spares it a wait of TensorFlow, see docs/speed.md
    fit = partial(network.fit, scans, steps_per_epoch=batches, verbose=0)
    return turns.rate(batches * BATCH, fit)


def torch_training(model: str) -> turns.Measure:
    """Train the same network in plain PyTorch: images/s.

    All of it by Adam, with bfloat16 autocast and channels last, from a batch in memory.
    """
    import torch

    network = _torch_network(model)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    images, one_hot = one_batch(channels=3)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2))
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    classes = torch.from_numpy(one_hot.argmax(axis=1))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), classes)
        loss.backward()
        optimizer.step()

    return turns.rate(BATCH, step)


def _torch_network(model: str) -> Any:
    """VGG16 or ResNet50 of torchvision under our head, with channels last."""
    import torch
    import torchvision

    whole = torchvision.models.get_model(model, weights=None)
    if model == "vgg16":
        backbone = list(whole.features)
        features = 512
    else:
        backbone = list(whole.children())[:-2]  # without pooling and classifier
        features = 2048
    network = torch.nn.Sequential(
        *backbone,
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(features, 512),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(512, 4),
    )
    return network.to(memory_format=torch.channels_last)


def matrix_product(side: int = 4096) -> turns.Measure:
    """Multiply matrices in bfloat16: GFLOP/s, the best of five."""
    import keras

    values = np.random.default_rng(0).random((side, side), "float32")
    matrix = keras.ops.cast(values, "bfloat16")

    def multiply() -> float:
        product = keras.ops.matmul(matrix, matrix)
        return float(product[0, 0])  # waits until it is computed

    gflop = 2e-9 * side**3
    measure = turns.rate(gflop, multiply)
    return lambda: max(measure() for _ in range(5))


def training_gflop(model: str) -> turns.Measure:
    """Count what an image costs in training: GFLOP.

    Three times what the convolutions cost in the forward pass.
    """
    backbone = our_classifier(model, "scratch").get_layer("backbone")
    forward = 0.0
    for layer in backbone.layers:
        if hasattr(layer, "kernel"):
            positions = np.prod(layer.output.shape[1:3])
            multiplications = np.prod(layer.kernel.shape) * positions
            forward += 2 * float(multiplications)
    return lambda: 3e-9 * forward


# --- a whole study ---


def our_study(root: Path, scans: int) -> turns.Measure:
    """Go from files to two evaluated models: seconds.

    Each trains a new head on a frozen backbone for 20 epochs.
    """
    from braintumor import generators, models, runs, training

    settings = config.settings_from(
        "full", weights="random", head_epochs=EPOCHS, seed=0
    )
    validation_scans = scans // 4
    table = training_scans(root, scans + validation_scans).reset_index(drop=True)
    is_train = table.index < scans
    table["subset"] = np.where(is_train, "train", "validation")
    classes = table["label"].nunique()
    started = time.perf_counter()
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            network = models.build_classifier(settings, model, classes)
            train, validation = generators.sequences(table, root, settings)
            training.train(network, train, validation, settings, Path(folder))
            runs.predict(network, table, "validation", root, settings)
    seconds = time.perf_counter() - started
    return lambda: seconds


def whole_study_seconds(root: Path, few: int = 64, more: int = 192) -> float:
    """Estimate what ``our_study`` takes for all scans.

    It is measured for two numbers of scans, and a straight line is drawn through both,
    as some of the time (saving, compiling) does not grow with the scans.

    Args:
        root: The folder of the scans.
        few: One number of training scans.
        more: The other.

    Returns:
        Seconds.
    """
    short = turns.measure_once(partial(our_study, root, few))
    long = turns.measure_once(partial(our_study, root, more))
    seconds_a_scan = (long - short) / (more - few)
    return short + seconds_a_scan * (STUDY_SCANS - few)


# --- predicting ---


def keras_predicting(model: str, batch: int, precision: str) -> turns.Measure:
    """Classify scans of 128 px by ``predict``: images/s."""
    from braintumor import models

    precision = models.choose_precision(precision)
    settings = config.settings_from("cpu-scratch", seed=0, precision=precision)
    network = models.build_classifier(settings, model, classes=4)
    images = _small_images(batch, settings.image_size)
    return turns.rate(batch, lambda: network.predict(images, verbose=0))


def openvino_predicting(model: str, batch: int, precision: str) -> turns.Measure:
    """Classify scans of 128 px by the same network in OpenVINO: images/s."""
    from braintumor import models

    settings = config.settings_from("cpu-scratch", seed=0, precision="float32")
    network = models.build_classifier(settings, model, classes=4)
    images = _small_images(batch, settings.image_size)
    in_bfloat16 = models.choose_precision(precision) == "mixed_bfloat16"
    compiled = in_openvino(network, "bf16" if in_bfloat16 else "f32")
    return turns.rate(batch, lambda: compiled(images))


def _small_images(count: int, size: int) -> np.ndarray:
    """The corners of the images of ``one_batch``."""
    images, _ = one_batch(channels=1)
    return images[:count, :size, :size]


def in_openvino(network: Any, precision: str) -> Callable[[np.ndarray], Any]:
    """Export a network to OpenVINO.

    Args:
        network: In float32.
        precision: In which OpenVINO computes: ``f32`` or ``bf16``.

    Returns:
        A function from images to a list of outputs.
    """
    import openvino

    options = {"INFERENCE_PRECISION_HINT": precision}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.xml"
        network.export(file, format="openvino", verbose=False)
        return openvino.Core().compile_model(file, "CPU", options)


# --- growing ---


@dataclass(frozen=True)
class FeedingCost:
    """What it costs to feed many scans once.

    Attributes:
        scans: How many.
        listing_seconds: Of listing (with checksums) and verifying them.
        seconds: Of that, and of splitting, decoding and augmenting.
        peak_memory: Of the process (MB).
    """

    scans: int
    listing_seconds: float
    seconds: float
    peak_memory: float


def feed_phantoms(count: int, patients: int = 1000) -> FeedingCost:
    """List, verify, split and feed copies of phantoms once, at 64 px.

    Args:
        count: How many.
        patients: They are those of so many patients.

    Returns:
        What that cost.
    """
    from braintumor import generators, splits

    settings = config.settings_from("sample", image_size=64, max_scans=None, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        known = many_phantoms(root, count, patients)
        started = time.perf_counter()
        scans = dataset.scan_table(root, known)
        dataset.verify(root, scans, known)
        listing_seconds = time.perf_counter() - started
        table = splits.assign_subsets(scans, "patient", seed=0)
        for sequence in generators.sequences(table, root, settings):
            make_all_batches(sequence)
        seconds = time.perf_counter() - started
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return FeedingCost(count, listing_seconds, seconds, peak_memory)


def growth(count: int) -> turns.Measure:
    """Feed so many phantoms: a ``FeedingCost``."""
    cost = feed_phantoms(count)
    return lambda: cost


def many_phantoms(
    root: Path, count: int, patients: int, drawn: int = 400
) -> pd.DataFrame:
    """Write copies of phantoms that differ in their last bytes, which readers ignore.

    Args:
        root: The folder of the scans; the phantoms themselves go into ``few`` there.
        count: How many copies.
        patients: The copies of each phantom belong to several, so many in all.
        drawn: How many phantoms.

    Returns:
        Their table, with the columns of ``phantoms.write_phantoms``.
    """
    import phantoms

    originals = phantoms.write_phantoms(root / "few", scans=drawn, seed=0)
    copies = originals.iloc[np.arange(count) % drawn].reset_index(drop=True)
    number = copies.index
    copies["source"] = copies["path"]
    stem = copies["path"].str.removesuffix(".jpg")
    copies["path"] = stem + "-" + number.astype(str) + ".jpg"
    times_drawn = number // drawn
    patients_of_each = patients // originals["group"].nunique()
    patient = times_drawn % patients_of_each
    copies["group"] += "-" + patient.astype(str)

    for folder in copies["path"].str.rpartition("/")[0].unique():
        (root / folder).mkdir(parents=True)
    checksums = []
    for copy in copies.itertuples():
        original = (root / "few" / copy.source).read_bytes()
        content = original + str(copy.Index).encode()
        (root / copy.path).write_bytes(content)
        checksums.append(hashlib.sha256(content).hexdigest())
    copies["sha256"] = checksums
    return copies.drop(columns="source")
