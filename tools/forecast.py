"""How long will it take on this machine?

`make run` says so before it starts, and in the end what a training on all scans would
take. The constants below were measured on two cores in three states: with AVX2 and
float32, with AVX-512 and float32, and with AVX-512 and bfloat16.
"""

import json
import os
import time
from pathlib import Path

from braintumor import config, splits
from braintumor.support import processor

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

# Seconds of one core that a notebook takes besides its training: imports, graphs,
# figures. On the machine that was measured, ``_python_seconds`` is PYTHON_SECONDS.
NOTEBOOK_SECONDS = {
    "01_download": 4.0,
    "02_explore": 8.0,
    "03_train_vgg16": 16.0,
    "04_train_resnet50": 38.0,
    "05_compare": 17.0,
    "06_predict": 7.0,
}
RUN_ALONE = ["01_download", "05_compare", "06_predict"]  # the others run in pairs
PYTHON_SECONDS = 0.012
# Floating-point operations of the sample's trainings, as matrix products of the same
# duration (TFLOP): small feature maps and updates of the weights included.
TRAINING_TFLOP = {"03_train_vgg16": 9.5, "04_train_resnet50": 6.0}
BFLOAT16_GAIN = 1.8  # how much faster the trainings are with it than with float32

# How much less a scan costs at 128 px than its number of pixels foretells from the
# sample's size: small feature maps are computed less efficiently, and the update of the
# weights, which takes the same time for any size, weighs more.
EFFICIENCY = {"vgg16": 0.83, "resnet50": 0.43}


def quick_run_sentence(notebooks: list[str]) -> str:
    """Measure this machine for a second, and estimate how long a quick run takes.

    Args:
        notebooks: Names of the notebooks that will run.

    Returns:
        A sentence with whole minutes, at least one.
    """
    slower = _python_seconds() / PYTHON_SECONDS
    tflop_per_second = _matrix_product_tflops()
    if processor.multiplies_bfloat16():
        tflop_per_second *= BFLOAT16_GAIN
    seconds = {}
    for name in notebooks:
        training_seconds = TRAINING_TFLOP.get(name, 0.0) / tflop_per_second
        seconds[name] = NOTEBOOK_SECONDS.get(name, 15.0) * slower + training_seconds
    alone = 0.0
    in_pairs = [0.0]
    for name, duration in seconds.items():
        if name in RUN_ALONE:
            alone += duration
        else:
            in_pairs.append(duration)
    whole = alone + max(sum(in_pairs) / 2, max(in_pairs))
    minutes = max(1, round(whole / 60))
    unit = "minute" if minutes == 1 else "minutes"
    return f"These notebooks take about {minutes} {unit} on this machine."


def _python_seconds() -> float:
    """Time for a fixed piece of interpreted work, the shortest of three."""
    functions = [f"def f{i}(a, b=1):\n    return [a + b, {i}]" for i in range(800)]
    source = "\n".join(functions)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        compile(source, "measured", "exec")
        times.append(time.perf_counter() - started)
    return min(times)


def _matrix_product_tflops() -> float:
    """TFLOP/s of one core for a matrix product in float32, the best of four."""
    size = 1024
    matrix = np.random.default_rng(0).random((size, size), dtype=np.float32)
    times = []
    with threadpool_limits(1):
        for _ in range(4):
            started = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times) / 1e12


def whole_study_minutes(results: Path) -> float:
    """Estimate how long notebooks 03 and 04 train on all scans (`cpu-scratch`).

    Each network's time is that of the quick run, scaled by scans, pixels and epochs.

    Args:
        results: The results folder of a quick run on this machine.

    Returns:
        Minutes; 0 where the folder holds no quick run of a known network.
    """
    whole = config.PRESETS["cpu-scratch"]
    groups = pd.read_csv(config.DATA_DIR / "image_groups.csv")
    table = splits.assign_subsets(groups, whole["protocol"], seed=0)
    training_scans = (table["subset"] == "train").sum()
    # the two networks of the quick run were trained side by side
    cores = min(2, os.cpu_count() or 1)

    minutes = 0.0
    for file in results.glob("*/settings.json"):
        run = json.loads(file.read_text(encoding="utf-8"))
        of_another_notebook = run["seed"] != 0 or run["model"] not in EFFICIENCY
        of_another_preset = run["epochs"] != config.PRESETS["sample"]["epochs"]
        if of_another_notebook or of_another_preset:
            continue
        history = pd.read_csv(file.with_name("history.csv"))
        times_scans = training_scans / run["subsets"]["train"]
        times_pixels = (whole["image_size"] / run["image_size"]) ** 2
        epoch_seconds = history["seconds"].median() * times_scans * times_pixels
        epoch_seconds *= EFFICIENCY[run["model"]] / cores
        minutes += epoch_seconds * whole["epochs"] / 60
    return minutes


def whole_study_sentence(results: Path) -> str:
    """Say how long notebooks 03 and 04 train on all scans.

    Args:
        results: The results folder of a quick run on this machine.

    Returns:
        A sentence; empty where nothing was trained in the quick run.
    """
    minutes = whole_study_minutes(results)
    if not minutes:
        return ""
    return (
        "On all scans, `make results`, 03 and 04 alone take about "
        f"{minutes:.0f} minutes on this machine."
    )
