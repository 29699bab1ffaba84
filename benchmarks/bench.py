"""Measure our speed against other ways to do the same, in one run.

`make bench` calls it. What is compared takes turns after a warm-up, and the medians are
compared, see ``turns``.
"""

import argparse
import json
import math
import multiprocessing
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path

from braintumor import config, dataset

import pandas as pd
from subjects import (
    EPOCHS,
    MODELS,
    STUDY_SCANS,
    growth,
    keras_layers_pipeline,
    keras_predicting,
    matrix_product,
    openvino_predicting,
    original_pipeline,
    original_training,
    our_augmenting,
    our_decoding,
    our_training,
    torch_training,
    training_from_memory,
    training_gflop,
    whole_study_seconds,
)
from turns import Subject, measure_medians, measure_once, measure_rounds

FEED_REPEATS = 15  # as the ratio is close to 1
LOWER_IS_BETTER = ("s", "s an image", "ms an image", "MB")


# in the order of benchmark.csv; ours / the other
ROWS = {
    "pipeline": "feeding scans / ImageDataGenerator, as the original",
    "pipeline_vs_keras_layers": "feeding scans / cached scans and three Keras layers",
    "feed": "training from our generator / from one batch in memory",
    "train_vgg16": "VGG16, fine-tuning / the original recipe",
    "train_resnet50": "ResNet50, fine-tuning / the original recipe",
    "train_vgg16_whole": "VGG16, all layers / the original recipe",
    "train_resnet50_whole": "ResNet50, all layers / the original recipe",
    "train_vgg16_vs_torch": "VGG16, all layers / PyTorch in bfloat16",
    "train_resnet50_vs_torch": "ResNet50, all layers / PyTorch in bfloat16",
    "fused_batch_norm": "ResNet50, all layers / with the batch norm of Keras",
    "study": "both models, 20 epochs of the head / original recipe",
    "fraction_of_peak_vgg16": "VGG16, all layers / matrix products in bfloat16",
    "fraction_of_peak_resnet50": "ResNet50, all layers / matrix products in bfloat16",
    "predict_batch1": "ResNet50 in OpenVINO, one scan / predict",
    "predict_batch32": "ResNet50 in OpenVINO, 32 scans / predict",
    "predict_batch1_float32": "the same in float32, one scan / predict",
    "predict_batch32_float32": "the same in float32, 32 scans / predict",
    "memory_scale": "peak memory at 100,000 scans / at 3,000",
    "time_scale": "time a scan at 100,000 scans / at 3,000",
    "stage_decoding": "reading and decoding, once / in each of 20 epochs",
    "stage_augmenting": "augmenting / by ImageDataGenerator",
    "stage_vgg16": "VGG16 learns, all layers / in float32",
    "stage_resnet50": "ResNet50 learns, all layers / in float32",
}


@dataclass(frozen=True)
class Result:
    """A row of benchmark.csv, but for its ratio.

    Attributes:
        name: A key of ``ROWS``.
        unit: Of what was measured.
        ours: What was measured of ours.
        reference: What was measured of the other.
        reference_name: The other.
        ratio_least: The least ratio of a round in which both took a turn; NaN where
            rounds were not compared.
        ratio_most: The greatest.
    """

    name: str
    unit: str
    ours: float
    reference: float
    reference_name: str
    ratio_least: float = math.nan
    ratio_most: float = math.nan

    @property
    def ratio(self) -> float:
        """How many times better ours is; above 1, it is."""
        if self.unit in LOWER_IS_BETTER:
            return self.reference / self.ours
        return self.ours / self.reference


# --- what is measured ---


@dataclass(frozen=True)
class FeedingSpeed:
    """How fast scans are fed (images/s).

    Attributes:
        decoding: Ours, reading and decoding; once in a training.
        augmenting: Ours, augmenting; in each epoch.
        original: By ImageDataGenerator; in each epoch.
        original_decoding: By ImageDataGenerator without augmentation.
        layers: By Keras' layers, from cached scans.
    """

    decoding: float
    augmenting: float
    original: float
    original_decoding: float
    layers: float

    @property
    def decoding_ms(self) -> float:
        """Milliseconds that ours takes to decode an image, an epoch."""
        return 1000 / self.decoding / EPOCHS

    @property
    def augmenting_ms(self) -> float:
        """Milliseconds that ours takes to augment an image."""
        return 1000 / self.augmenting

    @property
    def ours(self) -> float:
        """Images/s of ours, over all epochs."""
        return 1000 / (self.decoding_ms + self.augmenting_ms)

    @property
    def original_ms(self) -> float:
        """Milliseconds that ImageDataGenerator takes for an image."""
        return 1000 / self.original

    @property
    def original_decoding_ms(self) -> float:
        """Milliseconds that ImageDataGenerator takes for an image, not augmenting."""
        return 1000 / self.original_decoding


def measure_feeding(root: Path) -> FeedingSpeed:
    """Measure how fast scans are fed.

    Args:
        root: The folder of the scans.

    Returns:
        The speeds.
    """
    subjects: dict[str, Subject] = {
        "decoding": partial(our_decoding, root),
        "augmenting": partial(our_augmenting, root),
        "original": partial(original_pipeline, root),
        "original_decoding": partial(original_pipeline, root, augmenting=False),
        "layers": partial(keras_layers_pipeline, root),
    }
    return FeedingSpeed(**measure_medians(subjects))


def feeding_results(speed: FeedingSpeed) -> list[Result]:
    """Compare how scans are fed.

    Args:
        speed: What was measured.

    Returns:
        Rows of benchmark.csv.
    """
    generator = "ImageDataGenerator"
    layers = "cached, three Keras layers"
    ours = speed.ours
    original_augmenting_ms = speed.original_ms - speed.original_decoding_ms
    decoding_ms = (speed.decoding_ms, speed.original_decoding_ms)
    augmenting_ms = (speed.augmenting_ms, original_augmenting_ms)
    return [
        Result("pipeline", "images/s", ours, speed.original, generator),
        Result("pipeline_vs_keras_layers", "images/s", ours, speed.layers, layers),
        Result("stage_decoding", "ms an image", *decoding_ms, generator),
        Result("stage_augmenting", "ms an image", *augmenting_ms, generator),
    ]


def measure_training(root: Path, model: str, torch: bool) -> dict[str, float]:
    """Measure how fast a model is trained.

    Args:
        root: The folder of the scans.
        model: One of ``MODELS``.
        torch: Whether PyTorch is here.

    Returns:
        Images/s: ``ours`` (fine-tuning), ``whole`` (ours, all layers), ``original``,
        perhaps ``torch``, ``unfused`` (as ``whole``, with the batch norm of Keras); and
        ``product``, GFLOP/s of a matrix product.
    """
    batches = 2 if model == "vgg16" else 4
    subjects: dict[str, Subject] = {
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
    return measure_medians(subjects)


def training_results(
    model: str, speed: dict[str, float], gflop: float, feeding: FeedingSpeed
) -> list[Result]:
    """Compare how a model is trained.

    Args:
        model: One of ``MODELS``.
        speed: What ``measure_training`` measured.
        gflop: GFLOP that an image costs in training.
        feeding: How fast scans are fed.

    Returns:
        Rows of benchmark.csv.
    """
    whole = speed["whole"]
    original = speed["original"]
    recipe = "original recipe, float32"
    results = [
        Result(f"train_{model}", "images/s", speed["ours"], original, recipe),
        Result(f"train_{model}_whole", "images/s", whole, original, recipe),
    ]
    if "torch" in speed:
        results.append(
            Result(
                f"train_{model}_vs_torch",
                "images/s",
                whole,
                speed["torch"],
                "PyTorch, bfloat16 autocast, channels last",
            )
        )
    if "unfused" in speed:
        unfused = speed["unfused"]
        results.append(
            Result(
                "fused_batch_norm", "images/s", whole, unfused, "batch norm of Keras"
            )
        )
    results.append(
        Result(
            f"fraction_of_peak_{model}",
            "GFLOP/s",
            whole * gflop,
            speed["product"],
            "bfloat16 matrix product",
        )
    )
    # what is left of the time for an image when it has been fed
    ours_ms = 1000 / whole - 1000 / feeding.ours
    original_ms = 1000 / original - feeding.original_ms
    results.append(
        Result(f"stage_{model}", "ms an image", ours_ms, original_ms, recipe)
    )
    return results


def compare_generator_with_memory(root: Path) -> Result:
    """Measure whether training waits for our generator.

    Args:
        root: The folder of the scans.

    Returns:
        A row of benchmark.csv.
    """
    subjects: dict[str, Subject] = {
        "ours": partial(our_training, root, "resnet50", "scratch", 3),
        "memory": partial(training_from_memory, "resnet50", "scratch", 3),
    }
    rounds = measure_rounds(subjects, repeats=FEED_REPEATS)
    speed = rounds.median()
    ratios = rounds["ours"] / rounds["memory"]
    return Result(
        name="feed",
        unit="images/s",
        ours=speed["ours"],
        reference=speed["memory"],
        reference_name="one batch in memory",
        ratio_least=ratios.min(),
        ratio_most=ratios.max(),
    )


def compare_predicting(precision: str, batch: int) -> Result:
    """Measure how fast ResNet50 predicts in OpenVINO and by ``predict``.

    Args:
        precision: ``auto`` or ``float32``.
        batch: How many scans at once.

    Returns:
        A row of benchmark.csv.
    """
    subjects: dict[str, Subject] = {
        "openvino": partial(openvino_predicting, "resnet50", batch, precision),
        "keras": partial(keras_predicting, "resnet50", batch, precision),
    }
    speed = measure_medians(subjects, repeats=9)
    name = f"predict_batch{batch}"
    if precision != "auto":
        name += f"_{precision}"
    return Result(name, "images/s", speed["openvino"], speed["keras"], "model.predict")


def compare_growth() -> list[Result]:
    """Measure what many scans cost in memory and time, beside few.

    Returns:
        Rows of benchmark.csv.
    """
    many = measure_once(partial(growth, 100_000))
    few = measure_once(partial(growth, 3_000))
    memory = (many.peak_memory, few.peak_memory)
    seconds = (many.seconds / many.scans, few.seconds / few.scans)
    return [
        Result("memory_scale", "MB", *memory, "3,000 scans"),
        Result("time_scale", "s an image", *seconds, "3,000 scans"),
    ]


def benchmark(root: Path, torch: bool, openvino: bool) -> Iterator[Result]:
    """Measure everything.

    Args:
        root: The folder of the scans.
        torch: Whether PyTorch is here.
        openvino: Whether OpenVINO is here.

    Yields:
        The rows of benchmark.csv, as soon as they are measured.
    """
    feeding = measure_feeding(root)
    yield from feeding_results(feeding)

    original_seconds = 0.0
    for model in MODELS:
        speed = measure_training(root, model, torch)
        gflop = measure_once(partial(training_gflop, model))
        yield from training_results(model, speed, gflop, feeding)
        original_seconds += STUDY_SCANS * EPOCHS / speed["original"]

    yield compare_generator_with_memory(root)
    ours_seconds = whole_study_seconds(root)
    recipe = "original recipe, 20 epochs each"
    yield Result("study", "s", ours_seconds, original_seconds, recipe)
    if openvino:
        for precision in ("auto", "float32"):
            for batch in (1, 32):
                yield compare_predicting(precision, batch)
    yield from compare_growth()


# --- what is written ---


@dataclass(frozen=True)
class Machine:
    """What the ratios were measured on, without names or paths.

    Attributes:
        processor: Its model, or ``unknown``.
        cores: How many.
        flags: Those of its instruction sets that matter here.
        versions: Of packages, by name.
    """

    processor: str
    cores: int
    flags: list[str]
    versions: dict[str, str]

    def __str__(self) -> str:
        return f"{self.processor}, {self.cores} cores"


def describe_machine() -> Machine:
    """Describe the machine that this runs on.

    Returns:
        Its processor and the packages that are compared.
    """
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.exists() else ""
    processors = re.findall("model name\\s*: (.*)", text)
    flags = re.findall("avx512_bf16|amx_bf16|avx512f|avx2", text)
    versions = {}
    for name in ("keras", "tensorflow", "numpy", "torch", "openvino"):
        if util.find_spec(name):
            versions[name] = metadata.version(name)
    return Machine(
        processor=processors[0] if processors else "unknown",
        cores=multiprocessing.cpu_count(),
        flags=sorted(set(flags)),
        versions=versions,
    )


def write_machine(file: Path, **more: str) -> Machine:
    """Write what a measurement was made on, as JSON.

    Args:
        file: Where to.
        **more: More facts, by name.

    Returns:
        The machine.
    """
    # it loads what is not to slow a measurement
    from braintumor.support import files

    machine = describe_machine()
    facts = json.dumps({**asdict(machine), **more}, indent=1) + "\n"
    files.replace_file(file, lambda temporary: temporary.write_text(facts))
    return machine


def result_table(results: list[Result]) -> pd.DataFrame:
    """Make the table of benchmark.csv.

    Args:
        results: In any order.

    Returns:
        One row a result, in the order of ``ROWS``.
    """
    rows = [{**asdict(result), "ratio": result.ratio} for result in results]
    places = {name: place for place, name in enumerate(ROWS)}
    table = pd.DataFrame(rows)
    return table.sort_values("name", key=lambda names: names.map(places))


def write_results(results: list[Result], data: str, into: Path) -> None:
    """Write benchmark.csv, benchmark.json and two figures.

    Args:
        results: What was measured.
        data: A sentence about the scans.
        into: The folder of results.
    """
    # these load TensorFlow, which took memory and time from what was measured
    from braintumor import runs
    from braintumor.support import files

    import bench_figures

    table = result_table(results)
    files.write_table(table, into / "benchmark.csv")
    machine = write_machine(into / "benchmark.json", data=data)
    ratios = bench_figures.draw_ratios(table, ROWS, str(machine))
    runs.save_figure(ratios, into / "figures" / "benchmark.png")
    stages = bench_figures.draw_stages(table, str(machine))
    runs.save_figure(stages, into / "figures" / "benchmark_stages.png")


def main() -> None:
    """Measure everything, and write it.

    Raises:
        SystemExit: There are no real scans.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=config.RESULTS_DIR)
    into = parser.parse_args().into
    root = dataset.locate_data()
    report = dataset.verify(root, dataset.scan_table(root))
    if report.status == "phantoms":
        raise SystemExit(
            "The benchmark needs real scans: set BRAINTUMOR_DATA to a folder of them."
        )
    torch = util.find_spec("torch") is not None
    openvino = util.find_spec("openvino") is not None
    results = []
    for result in benchmark(root, torch, openvino):
        print(f"{result.ratio:8.2f}  {ROWS[result.name]}", flush=True)
        results.append(result)
    write_results(results, report.summary(), into)


if __name__ == "__main__":
    main()
