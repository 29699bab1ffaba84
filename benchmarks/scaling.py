"""What training takes at other sizes and on more devices: costs measured here, a model of them, its check.

``make scaling`` writes results/scaling.csv (costs), scaling_checks.csv (the model beside what was measured) and
scaling_forecast.csv (hours and prices).
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from braintumor import config, dataset, generators, runs, splits

import bench
import numpy as np
import pandas as pd

SIZES, PROCESSES = (3_000, 30_000, 100_000), (1, 2, 4)
SCANS, GPUS = (3_000, 300_000, 30_000_000), (1, 8, 64)
STEPS = 12  # of the training that is measured on several processes
ASSUMED = {  # what cannot be measured here; docs/scaling.md tells where each comes from
    "gpu_tflops": 989,
    "gpu_share": 0.1,
    "gflop_a_scan": 23.1,
    "parameters_mb": 98.6,
    "network_gb_s": 25,
    "cores_a_gpu": 16,
    "gpus_a_machine": 8,
    "batch_a_gpu": 64,
    "epochs": 20,
    "dollars_a_gpu_hour": 3,
}
COSTS = {  # how the page names them
    "listing_ms": "listing a scan, with its checksum, one core: ms",
    "decoding_core_ms": "decoding a scan: ms of a core",
    "drawing_ms": "drawing at random how a scan is augmented, one core: ms",
    "augmenting_core_ms": "augmenting a scan, 224 px: ms of a core",
    "step_s": "a training step here (ResNet50, 64 px, batch 32, JAX), one process: s",
    "exchange_gb_s": "exchange of gradients between two processes that share these cores: GB/s",
    "gpu_tflops": "peak of a GPU: TFLOP/s",
    "gpu_share": "share of it that training reaches",
    "gflop_a_scan": "training on a scan (ResNet50, 224 px): GFLOP",
    "parameters_mb": "gradients to exchange: MB",
    "network_gb_s": "network between GPUs: GB/s",
    "cores_a_gpu": "cores beside each GPU",
    "gpus_a_machine": "GPUs in a machine",
    "batch_a_gpu": "scans of a batch on each GPU",
    "epochs": "epochs",
    "dollars_a_gpu_hour": "price of a GPU for an hour: $",
}


# --- costs, measured ---


def feeding_once(count: int) -> dict:
    """Seconds of listing (with checksums) so many phantoms, and of all: splitting, decoding, augmenting them too."""
    settings = config.settings_from("sample", image_size=64, max_scans=None, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        known = bench.many_phantoms(root, count, patients=1000)
        started = time.perf_counter()
        scans = dataset.scan_table(root, known)
        dataset.verify(root, scans, known)
        listed = time.perf_counter()
        for sequence in generators.sequences(
            splits.assign_subsets(scans, "patient", 0), root, settings
        ):
            for index in range(len(sequence)):
                sequence[index]
        return {
            "scans": count,
            "listing": listed - started,
            "all": time.perf_counter() - started,
        }


def drawing(count: int = 2000) -> float:
    """Milliseconds that drawing the augmentation of a scan takes."""
    generator, how = np.random.default_rng(0), generators.AUGMENTATIONS["original"]
    started = time.perf_counter()
    for _ in range(count):
        generators.draw_change(generator, 224, **how)
    return 1000 * (time.perf_counter() - started) / count


TRAINING = """
import contextlib, sys, time
processes, process, port, steps = map(int, sys.argv[1:])
from braintumor import config, generators, training
from braintumor.support import cluster
import numpy
meeting = cluster.join(f"127.0.0.1:{port}", processes, process) if processes > 1 else None
settings = config.settings_from("sample", weights="random", recipe="scratch", head_epochs=0, image_size=64, seed=0,
                                precision="float32")
with meeting or contextlib.nullcontext(cluster.ALONE) as share:
    network = models.build_classifier(settings, "resnet50", classes=4)
    training.compile_phase(network, training.training.training_phases(settings, "resnet50")[0], "scratch", 4 * steps)
    images = numpy.random.default_rng(0).integers(0, 256, (32 * steps, 64, 64), "uint8")
    scans = generators.ScanSequence(images, numpy.arange(len(images)) % 4, classes=4, batch_size=32, seed=0,
                                    share=share, augmentation=generators.AUGMENTATIONS["original"])
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        network.fit(scans, verbose=0, shuffle=False)
        seconds.append(time.perf_counter() - started)
if share.first:
    print(sorted(seconds[1:])[1] / steps, network.count_params() * 4e-6)
"""


def free_port() -> int:
    """A port of this machine, at which processes can meet."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def training(processes: int) -> tuple[float, float]:
    """Seconds of a step of ResNet50 (64 px, batch 32, JAX) that ``processes`` share here, and MB of its gradients."""
    port = free_port()
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    started = []
    for process in range(processes):
        command = [
            sys.executable,
            "-c",
            TRAINING,
            *map(str, (processes, process, port, STEPS)),
        ]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env=environment
            )
        )
    said = [one.communicate()[0] for one in started]
    if any(one.returncode for one in started):
        raise SystemExit("A process of the training failed.")
    return tuple(
        map(float, said[0].splitlines()[-1].split())
    )  # Gloo writes lines of its own


# --- the model ---


def exchange(processes: int, megabytes: float, megabytes_a_second: float) -> float:
    """Seconds that ``processes`` take to add up their gradients in a ring: each sends 2 (n - 1) / n of them."""
    return 2 * (processes - 1) / processes * megabytes / megabytes_a_second


def forecast(scans: int, gpus: int, cost: dict) -> dict:
    """Hours from files to a trained network, what takes longest, and the price; ``cost``: see COSTS."""
    machines = math.ceil(gpus / cost["gpus_a_machine"])
    cores = (
        cost["cores_a_gpu"] * gpus / machines
    )  # of a machine, which decodes all scans, as every machine does
    batch, steps = (
        gpus * cost["batch_a_gpu"],
        math.ceil(scans / (gpus * cost["batch_a_gpu"])),
    )
    augmenting = (
        max(cost["drawing_ms"], cost["augmenting_core_ms"] / (cores / 2))
        / machines
        / 1000
    )  # s a scan
    computing = (
        cost["gflop_a_scan"] / (1000 * cost["gpu_tflops"] * cost["gpu_share"]) / gpus
    )
    seconds = {
        "listing": scans * cost["listing_ms"] / 1000,
        "decoding": scans * cost["decoding_core_ms"] / 1000 / cores,
        "augmenting": cost["epochs"] * steps * batch * augmenting,
        "computing": cost["epochs"] * steps * batch * computing,
        "exchanging": cost["epochs"]
        * steps
        * exchange(gpus, cost["parameters_mb"], 1000 * cost["network_gb_s"]),
    }
    overlapped = min(seconds["augmenting"], seconds["computing"])
    hours = (sum(seconds.values()) - overlapped) / 3600
    return {
        "scans": scans,
        "gpus": gpus,
        "hours": hours,
        "dollars": hours * gpus * cost["dollars_a_gpu_hour"],
        "longest": max(seconds, key=seconds.get),
        "disk_gb": scans * 224**2 / 1e9,
    }


def checks(fed: pd.DataFrame, steps: dict) -> pd.DataFrame:
    """What the model says beside what was measured; ``fitted``: it has that number from there."""
    a_scan, (alone, shared) = (
        fed["all"].iloc[0] / fed["scans"].iloc[0],
        (steps[1], steps[2]),
    )
    rows = [
        (
            f"seconds of listing, decoding and feeding {row.scans:,} phantoms",
            row.scans * a_scan,
            row.all,
        )
        for row in fed[["scans", "all"]].itertuples(name="Row", index=False)
    ]
    for processes, seconds in steps.items():
        model = alone + exchange(processes, 1, 1) / exchange(2, 1, 1) * (shared - alone)
        rows.append(
            (
                f"seconds of a step on {processes} process{'es' * (processes > 1)}",
                model,
                seconds,
            )
        )
    table = pd.DataFrame(rows, columns=["what", "model", "measured"])
    return table.assign(fitted=np.isclose(table["model"], table["measured"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=config.RESULTS_DIR)
    into = parser.parse_args().into
    fed = pd.DataFrame([feeding_once(count) for count in SIZES])
    print(fed.round(3).to_string(index=False), flush=True)
    measured = {processes: training(processes) for processes in PROCESSES}
    steps, megabytes = (
        {processes: seconds for processes, (seconds, _) in measured.items()},
        measured[1][1],
    )
    print(steps, flush=True)
    at_224 = pd.read_csv(config.RESULTS_DIR / "benchmark.csv").set_index("name")[
        "ours"
    ]  # ms of all cores
    cores = json.loads((config.RESULTS_DIR / "benchmark.json").read_text())["cores"]
    costs = {
        "listing_ms": 1000 * fed["listing"].iloc[-1] / fed["scans"].iloc[-1],
        "decoding_core_ms": cores * bench.EPOCHS * at_224["stage_decoding"],
        "drawing_ms": drawing(),
        "augmenting_core_ms": cores * at_224["stage_augmenting"],
        "step_s": steps[1],
        "exchange_gb_s": exchange(2, megabytes, 1) / (steps[2] - steps[1]) / 1000,
    }
    every = costs | ASSUMED
    rows = [
        {"cost": name, "value": every[name], "measured": name in costs}
        for name in COSTS
    ]
    table = pd.DataFrame(
        [forecast(scans, gpus, every) for scans in SCANS for gpus in GPUS]
    )
    for name, part in {
        "": pd.DataFrame(rows),
        "_checks": checks(fed, steps),
        "_forecast": table,
    }.items():
        runs.write_table(part, into / f"scaling{name}.csv")


if __name__ == "__main__":
    main()
