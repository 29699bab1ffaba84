"""Measure our speed against other ways to do the same, in one run: what `make bench` calls.

Subjects that are compared have a process each, take turns after a warm-up, and are compared by their medians.
"""

import argparse
import hashlib
import json
import multiprocessing
import re
import resource
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import metadata, util
from itertools import product
from pathlib import Path

from braintumor import config, dataset

import numpy as np
import pandas as pd

# what loads TensorFlow or PyTorch is imported where it is used, in the processes of the subjects
SIZE, BATCH, EPOCHS, REPEATS = 224, 32, 20, 3  # the first three are the original's
MODELS = ("vgg16", "resnet50")
LOWER_IS_BETTER = ("s", "s an image", "ms an image", "MB")
STUDY_SCANS = 2297  # that the original trained on
ROWS = {  # what is compared, and the ratio to reach: above 1, ours is better
    "pipeline": ("feeding scans / ImageDataGenerator, as the original", 20),
    "pipeline_vs_keras_layers": (
        "feeding scans / cached scans and three Keras layers",
        8,
    ),
    "feed": ("training from our generator / from one batch in memory", 0.98),
    "train_vgg16": ("VGG16, fine-tuning / the original recipe", 2.2),
    "train_resnet50": ("ResNet50, fine-tuning / the original recipe", 2.2),
    "train_vgg16_whole": ("VGG16, all layers / the original recipe", None),
    "train_resnet50_whole": ("ResNet50, all layers / the original recipe", None),
    "train_vgg16_vs_torch": ("VGG16, all layers / PyTorch in bfloat16", 1),
    "train_resnet50_vs_torch": ("ResNet50, all layers / PyTorch in bfloat16", 1),
    "fused_batch_norm": ("ResNet50, all layers / with the batch norm of Keras", None),
    "study": ("both models, 20 epochs of the head / original recipe", 25),
    "fraction_of_peak_vgg16": ("VGG16, all layers / matrix products in bfloat16", 0.9),
    "fraction_of_peak_resnet50": (
        "ResNet50, all layers / matrix products in bfloat16",
        0.6,
    ),
    "predict_batch1": ("ResNet50 in OpenVINO, one scan / predict", 3),
    "predict_batch32": ("ResNet50 in OpenVINO, 32 scans / predict", 1.5),
    "predict_batch1_float32": ("the same in float32, one scan / predict", 3),
    "predict_batch32_float32": ("the same in float32, 32 scans / predict", 1.5),
    "memory_scale": ("peak memory at 100,000 scans / at 3,000", 1 / 1.5),
    "time_scale": ("time a scan at 100,000 scans / at 3,000", 1 / 1.2),
    "stage_decoding": ("reading and decoding, once / in each of 20 epochs", None),
    "stage_augmenting": ("augmenting / by ImageDataGenerator", None),
    "stage_vgg16": ("VGG16 learns, all layers / in float32", None),
    "stage_resnet50": ("ResNet50 learns, all layers / in float32", None),
}


# --- taking turns ---


def serve(pipe, subject):
    """Set a subject up, warm it up, then measure whenever asked."""
    measure = subject()
    measure()
    pipe.send(None)
    while pipe.recv():
        pipe.send(measure())


@contextmanager
def running(subject):
    """The pipe to a process in which a subject sets itself up; see ``serve`` and ``ask``."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=serve, args=(other, subject), daemon=True)
    process.start()
    other.close()  # so that a subject that fails ends the wait for it
    try:
        yield pipe
    finally:
        process.kill()
        process.join()


def ask(pipe):
    """Let a subject that is ready measure once."""
    pipe.send(True)
    return pipe.recv()


def once(subject):
    """What a subject measures that works as it sets itself up."""
    with running(subject) as pipe:
        pipe.recv()
        return ask(pipe)


def medians(repeats=REPEATS, **subjects) -> pd.Series:
    """The median of what each subject measures; they take turns, so what slows the machine slows them all."""
    with ExitStack() as stack:
        pipes = {
            name: stack.enter_context(running(subject))
            for name, subject in subjects.items()
        }
        for pipe in pipes.values():
            pipe.recv()  # it is ready
        measures = pd.DataFrame(
            [{name: ask(pipe) for name, pipe in pipes.items()} for _ in range(repeats)]
        )
    print(measures.round(3).to_string(index=False), flush=True)
    return measures.median()


def rate(count, work):
    """A measure: so many images (or other things) a second, where ``work`` handles ``count`` of them."""

    def measure():
        started = time.perf_counter()
        work()
        return count / (time.perf_counter() - started)

    return measure


# --- feeding ---


def training_scans(root, count):
    table = dataset.scan_table(root)
    return table[table["split"] == "training"].sample(count, random_state=0)


def our_sequence(root, table):
    from braintumor import generators

    images, _ = generators.load_images(table, root, SIZE)
    return generators.ScanSequence(
        images,
        np.arange(len(table)) % 4,
        classes=4,
        batch_size=BATCH,
        seed=0,
        augmentation=generators.AUGMENTATIONS["original"],
    )


def our_decoding(root, count=640):
    table = training_scans(root, count)
    return rate(count, lambda: our_sequence(root, table))


def our_augmenting(root, count=640):
    sequence = our_sequence(root, training_scans(root, count))
    return rate(
        5 * count,
        lambda: [
            len(sequence[index]) for _ in range(5) for index in range(len(sequence))
        ],
    )


def original_generator(root, augmenting=True):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    moving = dict(
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        horizontal_flip=True,
    )
    how = moving if augmenting else {}
    where = dict(
        target_size=(SIZE, SIZE),
        batch_size=BATCH,
        class_mode="categorical",
        subset="training",
    )
    generator = ImageDataGenerator(rescale=1 / 255, validation_split=0.2, **how)
    return generator.flow_from_directory(root / "Training", **where)


def original_pipeline(root, augmenting=True):
    batches = original_generator(root, augmenting)
    return rate(6 * BATCH, lambda: [batches[index] for index in range(6)])


def keras_layers_pipeline(root):
    import keras

    layers = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(20 / 360),
            keras.layers.RandomTranslation(0.2, 0.2),
        ]
    )
    where = dict(
        image_size=(SIZE, SIZE), batch_size=BATCH, label_mode="categorical", verbose=0
    )
    scans = (
        keras.utils.image_dataset_from_directory(root / "Training", **where)
        .take(10)
        .cache()
    )
    batches = scans.map(
        lambda images, labels: (layers(images, training=True), labels)
    ).prefetch(2)
    return rate(10 * BATCH, lambda: list(map(len, batches)))


# --- training ---


def our_classifier(model, recipe, fused=True):
    """Our network as the preset `full` compiles it for the last phase of a recipe, from random weights."""
    from braintumor import models, training

    if not fused:
        models.fuse_batch_norms = lambda network: None
    settings = config.settings_from("full", weights="random", recipe=recipe, seed=0)
    network = models.build_classifier(settings, model, classes=4)
    training.compile_phase(
        network,
        training.training.training_phases(settings, model)[-1],
        recipe,
        steps=1000,
    )
    return network


def one_batch(channels):
    images = np.random.default_rng(0).random((BATCH, SIZE, SIZE, channels), "float32")
    return images, np.eye(4, dtype="float32")[np.arange(BATCH) % 4]


def our_training(root, model, recipe, batches, fused=True):
    network, sequence = (
        our_classifier(model, recipe, fused),
        our_sequence(root, training_scans(root, batches * BATCH)),
    )
    return rate(
        batches * BATCH, lambda: network.fit(sequence, verbose=0, shuffle=False)
    )


def training_from_memory(model, recipe, batches):
    import keras

    network, batch = our_classifier(model, recipe), one_batch(1)
    again = type(
        "Again",
        (keras.utils.PyDataset,),
        {
            "__len__": lambda self: batches,
            "__getitem__": lambda self, index: batch,
        },
    )(workers=2)
    return rate(batches * BATCH, lambda: network.fit(again, verbose=0, shuffle=False))


def original_training(root, model, batches):
    """The original as it was written: Keras' network in float32, all of it trained by Adam, fed by its generator."""
    import keras

    constructor = {
        "vgg16": keras.applications.VGG16,
        "resnet50": keras.applications.ResNet50,
    }[model]
    network = keras.Sequential(
        [
            constructor(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    scans = original_generator(root)
    scans.workers = 2  # as ours: spares it a wait of TensorFlow, see docs/speed.md
    return rate(
        batches * BATCH, lambda: network.fit(scans, steps_per_epoch=batches, verbose=0)
    )


def torch_training(model):
    """The same network in plain PyTorch: all trained by Adam, bfloat16 autocast, channels last, a batch in memory."""
    import torch
    import torchvision

    body = torchvision.models.get_model(model, weights=None)
    width = {"vgg16": 512, "resnet50": 2048}[model]
    layers = [
        *(body.features if model == "vgg16" else list(body.children())[:-2]),
        torch.nn.AdaptiveAvgPool2d(1),
    ]
    head = [
        torch.nn.Flatten(),
        torch.nn.Linear(width, 512),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
    ]
    network = torch.nn.Sequential(*layers, *head, torch.nn.Linear(512, 4)).to(
        memory_format=torch.channels_last
    )
    optimizer, (images, one_hot) = (
        torch.optim.Adam(network.parameters(), 1e-4),
        one_batch(3),
    )
    images = torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous(
        memory_format=torch.channels_last
    )
    classes = torch.from_numpy(one_hot.argmax(axis=1))

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        torch.nn.functional.cross_entropy(logits.float(), classes).backward()
        optimizer.step()

    return rate(BATCH, step)


def matrix_product(side=4096):
    """GFLOP/s of a bfloat16 matrix product, the best of five."""
    import keras

    matrix = keras.ops.cast(
        np.random.default_rng(0).random((side, side), "float32"), "bfloat16"
    )
    once = rate(2e-9 * side**3, lambda: float(keras.ops.matmul(matrix, matrix)[0, 0]))
    return lambda: max(once() for _ in range(5))


def training_gflop(model):
    """GFLOP that an image costs in training: three times those of the convolutions' forward pass."""
    layers = our_classifier(model, "scratch").get_layer("backbone").layers
    forward = sum(
        2 * float(np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3]))
        for layer in layers
        if hasattr(layer, "kernel")
    )
    return lambda: 3e-9 * forward


def our_study(root, scans):
    """Seconds from files to two judged models: 20 epochs of a new head on a frozen backbone each."""
    from braintumor import generators, models, runs, training

    settings, held_out = (
        config.settings_from("full", weights="random", head_epochs=EPOCHS, seed=0),
        scans // 4,
    )
    table = training_scans(root, scans + held_out).reset_index(drop=True)
    table = table.assign(subset=np.where(table.index < scans, "train", "validation"))
    started = time.perf_counter()
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            network = models.build_classifier(settings, model, table["label"].nunique())
            training.train(
                network,
                *generators.sequences(table, root, settings),
                settings,
                Path(folder),
            )
            runs.predict(network, table, "validation", root, settings)
    seconds = time.perf_counter() - started
    return lambda: seconds


def whole_study(root, few=64, more=192):
    """What ``our_study`` takes for all scans: a straight line through two sizes, as saving does not grow with scans."""
    short, long = (once(partial(our_study, root, scans)) for scans in (few, more))
    return short + (long - short) * (STUDY_SCANS - few) / (more - few)


# --- predicting ---


def predicting(model, batch, precision, exported):
    """Images a second of our classifier at 128 px: by ``predict``, or the same network exported to OpenVINO."""
    from braintumor import models

    precision = models.choose_precision(precision)
    settings = config.settings_from(
        "cpu-scratch", seed=0, precision="float32" if exported else precision
    )
    network = models.build_classifier(settings, model, classes=4)
    images = one_batch(1)[0][:batch, : settings.image_size, : settings.image_size]
    if not exported:
        return rate(batch, lambda: network.predict(images, verbose=0))
    compiled = in_openvino(network, "bf16" if precision == "mixed_bfloat16" else "f32")
    return rate(batch, lambda: compiled(images))


def in_openvino(network, precision):
    """A float32 network as OpenVINO computes it in this precision (``f32`` or ``bf16``): from images to [[...]]."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        network.export(f"{folder}/model.xml", format="openvino", verbose=False)
        return openvino.Core().compile_model(
            f"{folder}/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": precision}
        )


# --- growing ---


def growth(count, patients=1000):
    """Peak memory (MB) and seconds an image of listing, verifying, splitting and feeding ``count`` phantoms once."""
    from braintumor import generators, splits

    settings = config.settings_from("sample", image_size=64, max_scans=None, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        known = many_phantoms(root, count, patients)
        started = time.perf_counter()
        scans = dataset.scan_table(root, known)
        dataset.verify(root, scans, known)
        for sequence in generators.sequences(
            splits.assign_subsets(scans, "patient", 0), root, settings
        ):
            for index in range(len(sequence)):
                sequence[index]
        seconds = (time.perf_counter() - started) / count
    return lambda: {
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": seconds,
    }


def many_phantoms(root, count, patients, drawn=400):
    """Copies of ``drawn`` phantoms that differ in their last bytes, which JPEG readers ignore; gives their table."""
    import phantoms

    table = phantoms.write_phantoms(root / "few", scans=drawn, seed=0)
    rows = table.iloc[np.arange(count) % len(table)].reset_index(drop=True)
    turns = rows.index // len(table) % (patients // table["group"].nunique())
    rows["group"] += "-" + turns.astype(str)
    sources, rows["path"] = (
        rows["path"],
        rows["path"].str.removesuffix(".jpg") + "-" + rows.index.astype(str) + ".jpg",
    )
    for place in rows["path"].str.rpartition("/")[0].unique():
        (root / place).mkdir(parents=True)
    digests = []
    for index, source in sources.items():
        content = (root / "few" / source).read_bytes() + str(index).encode()
        (root / rows.at[index, "path"]).write_bytes(content)
        digests.append(hashlib.sha256(content).hexdigest())
    return rows.assign(sha256=digests)


# --- all of it ---


def benchmark(root, torch: bool, openvino: bool):
    """The rows of benchmark.csv, one by one; ``ratio`` above 1 means that ours is better."""

    def row(name, unit, ours, reference, reference_name):
        ratio = reference / ours if unit in LOWER_IS_BETTER else ours / reference
        return dict(
            name=name,
            unit=unit,
            ours=ours,
            reference=reference,
            reference_name=reference_name,
            ratio=ratio,
        )

    feeding = medians(
        decoding=partial(our_decoding, root),
        augmenting=partial(our_augmenting, root),
        original=partial(original_pipeline, root),
        original_decoding=partial(original_pipeline, root, augmenting=False),
        layers=partial(keras_layers_pipeline, root),
    )
    cost = 1000 / feeding  # ms an image
    decoding = cost["decoding"] / EPOCHS
    ours = 1000 / (decoding + cost["augmenting"])
    yield row("pipeline", "images/s", ours, feeding["original"], "ImageDataGenerator")
    yield row(
        "pipeline_vs_keras_layers",
        "images/s",
        ours,
        feeding["layers"],
        "cached, three Keras layers",
    )
    yield row(
        "stage_decoding",
        "ms an image",
        decoding,
        cost["original_decoding"],
        "ImageDataGenerator",
    )
    original = cost["original"] - cost["original_decoding"]
    yield row(
        "stage_augmenting",
        "ms an image",
        cost["augmenting"],
        original,
        "ImageDataGenerator",
    )
    original_seconds = 0.0
    for model in MODELS:
        batches = 2 if model == "vgg16" else 4
        subjects = {
            "ours": partial(our_training, root, model, "transfer", batches),
            "whole": partial(our_training, root, model, "scratch", batches),
            "original": partial(original_training, root, model, batches=1),
            "product": matrix_product,
        }
        if torch:
            subjects["torch"] = partial(torch_training, model)
        if model == "resnet50":
            subjects["unfused"] = partial(
                our_training, root, model, "scratch", 2, fused=False
            )
        train = medians(**subjects)
        original_seconds += STUDY_SCANS * EPOCHS / train["original"]
        yield row(
            f"train_{model}",
            "images/s",
            train["ours"],
            train["original"],
            "original recipe, float32",
        )
        yield row(
            f"train_{model}_whole",
            "images/s",
            train["whole"],
            train["original"],
            "original recipe, float32",
        )
        if torch:
            reference = "PyTorch, bfloat16 autocast, channels last"
            yield row(
                f"train_{model}_vs_torch",
                "images/s",
                train["whole"],
                train["torch"],
                reference,
            )
        if model == "resnet50":
            yield row(
                "fused_batch_norm",
                "images/s",
                train["whole"],
                train["unfused"],
                "batch norm of Keras",
            )
        gflop = once(partial(training_gflop, model))
        reference = "bfloat16 matrix product"
        yield row(
            f"fraction_of_peak_{model}",
            "GFLOP/s",
            train["whole"] * gflop,
            train["product"],
            reference,
        )
        learning = (
            1000 / train["whole"] - 1000 / ours,
            1000 / train["original"] - cost["original"],
        )
        yield row(
            f"stage_{model}", "ms an image", *learning, "original recipe, float32"
        )
    feed = medians(
        repeats=5,
        ours=partial(our_training, root, "resnet50", "scratch", 3),
        memory=partial(training_from_memory, "resnet50", "scratch", 3),
    )
    yield row("feed", "images/s", feed["ours"], feed["memory"], "one batch in memory")
    yield row(
        "study",
        "s",
        whole_study(root),
        original_seconds,
        "original recipe, 20 epochs each",
    )
    for precision, batch in product(("auto", "float32"), (1, 32)) if openvino else ():
        how = partial(predicting, "resnet50", batch, precision)
        predict = medians(
            repeats=9,
            openvino=partial(how, exported=True),
            keras=partial(how, exported=False),
        )
        name = f"predict_batch{batch}" + (
            "" if precision == "auto" else f"_{precision}"
        )
        yield row(
            name, "images/s", predict["openvino"], predict["keras"], "model.predict"
        )
    many, few = (once(partial(growth, count)) for count in (100_000, 3_000))
    yield row("memory_scale", "MB", many["memory"], few["memory"], "3,000 scans")
    yield row(
        "time_scale", "s an image", many["seconds"], few["seconds"], "3,000 scans"
    )


def machine() -> dict:
    """What the ratios were measured on, without names or paths."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = ("keras", "tensorflow", "numpy", "torch", "openvino")
    return {
        "processor": (re.findall("model name\\s*: (.*)", text) or ["unknown"])[0],
        "cores": multiprocessing.cpu_count(),
        "flags": sorted(set(re.findall("avx512_bf16|amx_bf16|avx512f|avx2", text))),
        "versions": {
            name: metadata.version(name) for name in names if util.find_spec(name)
        },
    }


def draw_ratios(rows, facts):
    """One chart of all ratios but those of stages, and where they should be."""
    from braintumor import plots

    rows = rows[~rows["name"].str.startswith("stage_")]
    study = rows.set_index("name")["ratio"].get("study", np.nan)
    title = f"From scans to two trained models {study:.0f} times as fast as the original recipe"
    footnote = (
        f"Dot: ratio of ours to the other, above 1 ours is better (medians of {REPEATS}, taking turns). Tick: target. "
        f"{facts['processor']}, {facts['cores']} cores."
    )
    figure, (axes,) = plots.base_figure(
        title, "", 0.7 + 0.3 * len(rows), footnote=footnote
    )
    for y, (name, ratio) in enumerate(zip(rows["name"], rows["ratio"])):
        text, target = ROWS[name]
        reached = target is None or ratio >= target
        axes.plot([1, ratio], [y, y], color=plots.PALE, linewidth=2, zorder=1)
        axes.plot(
            ratio,
            y,
            "o",
            color=plots.INK if reached else plots.MODEL_COLORS["resnet50"],
            markersize=8,
        )
        axes.text(
            1.02,
            y,
            f"{ratio:.2f}",
            size=plots.SMALL,
            va="center",
            transform=axes.get_yaxis_transform(),
        )
        if target:
            axes.plot(
                target, y, "|", color=plots.GRAY, markersize=14, markeredgewidth=2
            )
    axes.set_yticks(
        range(len(rows)), [ROWS[name][0] for name in rows["name"]], size=plots.SMALL
    )
    axes.axvline(1, color=plots.GRAY, linewidth=1, linestyle="--")
    axes.set(xscale="log", xlabel="ratio (logarithmic)", ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(
        [0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"]
    )
    axes.minorticks_off()
    return figure


def draw_stages(rows, facts):
    """Where the time goes, before and after: milliseconds that each stage takes for one scan in one epoch."""
    from braintumor import plots

    stages = rows[rows["name"].str.startswith("stage_")].set_index("name")
    feeding = stages.loc[["stage_decoding", "stage_augmenting"], "reference"].sum()
    shares = [
        plots.percent(feeding / (feeding + stages.at[f"stage_{model}", "reference"]))
        for model in MODELS
    ]
    title = f"On a processor, feeding takes {shares[0]} of the original's time with VGG16, {shares[1]} with ResNet50"
    footnote = (
        "Milliseconds for one scan in one epoch. Grey: the original recipe. Black: ours, all layers. Where a GPU makes "
        f"networks fast, feeding decides. {facts['processor']}, {facts['cores']} cores."
    )
    figure, (axes,) = plots.base_figure(
        title, "", 0.7 + 0.45 * len(stages), footnote=footnote
    )
    for y, stage in enumerate(stages.itertuples()):
        axes.plot(
            [stage.ours, stage.reference],
            [y, y],
            color=plots.PALE,
            linewidth=2,
            zorder=1,
        )
        for value, colour in ((stage.ours, plots.INK), (stage.reference, plots.GRAY)):
            axes.plot(value, y, "o", color=colour, markersize=8)
            axes.annotate(
                f"{value:.3g}",
                (value, y),
                (0, 7),
                textcoords="offset points",
                ha="center",
                size=plots.SMALL,
            )
    names = ["reading, decoding", "augmenting", "VGG16 learns", "ResNet50 learns"]
    axes.set_yticks(range(len(stages)), names)
    axes.set(xscale="log", xlabel="ms (logarithmic)", ylim=(len(stages) - 0.5, -0.7))
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=config.RESULTS_DIR)
    arguments = parser.parse_args()
    from braintumor import runs
    from braintumor.support import files

    rows, root = [], dataset.locate_data()
    report = dataset.verify(root, dataset.scan_table(root))
    if report.status == "phantoms":
        raise SystemExit(
            "The benchmark needs real scans: set BRAINTUMOR_DATA to a folder of them."
        )
    for row in benchmark(
        root, *(util.find_spec(name) is not None for name in ("torch", "openvino"))
    ):
        print(f"{row['ratio']:8.2f}  {ROWS[row['name']][0]}", flush=True)
        rows.append(row)
    table = pd.DataFrame(rows).sort_values(
        "name", key=lambda names: names.map(list(ROWS).index)
    )
    facts = machine() | {"data": report.summary()}
    runs.write_table(table, arguments.into / "benchmark.csv")
    files.replace_file(
        arguments.into / "benchmark.json",
        lambda file: file.write_text(json.dumps(facts, indent=1)),
    )
    runs.save_figure(
        draw_ratios(table, facts), arguments.into / "figures" / "benchmark.png"
    )
    runs.save_figure(
        draw_stages(table, facts), arguments.into / "figures" / "benchmark_stages.png"
    )


if __name__ == "__main__":
    main()
