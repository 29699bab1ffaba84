"""What does training take at other sizes and on more devices?

`make scaling` measures what a scan costs here, puts that into a simple model, and
checks the model. It writes results/scaling.csv (costs), scaling_checks.csv (the model
beside what was measured) and scaling_forecast.csv (hours and prices).
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import time
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from braintumor import config, generators
from braintumor.support.files import write_table

import numpy as np
import pandas as pd
from subjects import EPOCHS, FeedingCost, feed_phantoms

SIZES = (3_000, 30_000, 100_000)  # scans that are fed here
PROCESSES = (1, 2, 4)  # that share a training here
STEPS = 12  # of an epoch of that training
SCANS = (3_000, 300_000, 30_000_000)  # of the forecasts
GPUS = (1, 8, 64)  # of the forecasts


@dataclass(frozen=True)
class Costs:
    """What a training costs; see ``COSTS`` for each.

    Those without a value here are measured. The others cannot be measured here;
    docs/scaling.md tells where each comes from.
    """

    listing_ms: float
    decoding_core_ms: float
    drawing_ms: float
    augmenting_core_ms: float
    step_s: float
    exchange_gb_s: float
    gpu_tflops: float = 989
    gpu_share: float = 0.1
    gflop_a_scan: float = 23.1
    parameters_mb: float = 98.6
    network_gb_s: float = 25
    cores_a_gpu: float = 16
    gpus_a_machine: float = 8
    batch_a_gpu: int = 64
    epochs: int = 20
    dollars_a_gpu_hour: float = 3


MEASURED = [cost.name for cost in fields(Costs) if cost.default is MISSING]
COSTS = {  # how the page names them
    "listing_ms": "listing a scan, with its checksum, one core: ms",
    "decoding_core_ms": "decoding a scan: ms of a core",
    "drawing_ms": "drawing at random how a scan is augmented, one core: ms",
    "augmenting_core_ms": "augmenting a scan, 224 px: ms of a core",
    "step_s": "a training step here (ResNet50, 64 px, batch 32, JAX), one process: s",
    "exchange_gb_s": (
        "exchange of gradients between two processes that share these cores: GB/s"
    ),
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


def drawing_milliseconds(count: int = 2000) -> float:
    """Time how long it takes to draw at random how a scan is augmented.

    Args:
        count: How many are drawn.

    Returns:
        Milliseconds of one.
    """
    rng = np.random.default_rng(0)
    augmentation = generators.AUGMENTATIONS["original"]
    started = time.perf_counter()
    for _ in range(count):
        generators.RandomChange(rng, 224, **augmentation)
    return 1000 * (time.perf_counter() - started) / count


@dataclass(frozen=True)
class StepCost:
    """What a training step costs that several processes share.

    Attributes:
        seconds: Of ResNet50 at 64 px with batches of 32, on JAX.
        gradients_mb: That the processes exchange.
    """

    seconds: float
    gradients_mb: float


def free_port() -> int:
    """Find a port of this machine at which processes can meet.

    Returns:
        Its number.
    """
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def measure_step(processes: int) -> StepCost:
    """Measure a training step that several processes on this machine share.

    Args:
        processes: How many.

    Returns:
        What it costs.

    Raises:
        SystemExit: A process failed.
    """
    script = Path(__file__).with_name("train_steps.py")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    port = free_port()
    started = []
    for process in range(processes):
        arguments = [str(number) for number in (processes, process, port, STEPS)]
        command = [sys.executable, str(script), *arguments]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env=environment
            )
        )
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("A process of the training failed.")
    last_line = outputs[0].splitlines()[-1]  # Gloo writes lines of its own
    seconds, megabytes = last_line.split()
    return StepCost(float(seconds), float(megabytes))


# --- the model ---


def exchange_seconds(
    processes: int, megabytes: float, megabytes_a_second: float
) -> float:
    """Estimate how long processes take to add up their gradients in a ring.

    Args:
        processes: How many; each sends 2 (n - 1) / n of the gradients.
        megabytes: Of the gradients.
        megabytes_a_second: Between two processes.

    Returns:
        Seconds.
    """
    times_sent = 2 * (processes - 1) / processes
    return times_sent * megabytes / megabytes_a_second


@dataclass(frozen=True)
class Forecast:
    """What a training takes; a row of scaling_forecast.csv.

    Attributes:
        scans: Of the training.
        gpus: Of all machines.
        hours: From files to a trained network.
        dollars: Of the GPUs.
        longest: What takes longest.
        disk_gb: Of the decoded scans, on each machine.
    """

    scans: int
    gpus: int
    hours: float
    dollars: float
    longest: str
    disk_gb: float


def forecast(scans: int, gpus: int, costs: Costs) -> Forecast:
    """Estimate what a training takes.

    Args:
        scans: How many.
        gpus: Of all machines.
        costs: What the parts cost.

    Returns:
        Time and price.
    """
    machines = math.ceil(gpus / costs.gpus_a_machine)
    cores = costs.cores_a_gpu * gpus / machines  # of a machine
    batch = gpus * costs.batch_a_gpu
    steps = math.ceil(scans / batch)

    # every machine decodes all scans, and augments its part of each batch
    augmenting_ms = max(costs.drawing_ms, costs.augmenting_core_ms / (cores / 2))
    augmenting = augmenting_ms / machines / 1000
    gflop_per_second = 1000 * costs.gpu_tflops * costs.gpu_share
    computing = costs.gflop_a_scan / gflop_per_second / gpus
    exchanging = exchange_seconds(gpus, costs.parameters_mb, 1000 * costs.network_gb_s)

    all_steps = costs.epochs * steps
    seconds = {
        "listing": scans * costs.listing_ms / 1000,
        "decoding": scans * costs.decoding_core_ms / 1000 / cores,
        "augmenting": all_steps * batch * augmenting,
        "computing": all_steps * batch * computing,
        "exchanging": all_steps * exchanging,
    }
    # scans are augmented while the batch before them is computed
    overlapped = min(seconds["augmenting"], seconds["computing"])
    hours = (sum(seconds.values()) - overlapped) / 3600
    return Forecast(
        scans=scans,
        gpus=gpus,
        hours=hours,
        dollars=hours * gpus * costs.dollars_a_gpu_hour,
        longest=max(seconds, key=lambda part: seconds[part]),
        disk_gb=scans * 224**2 / 1e9,
    )


def check_model(feeding: list[FeedingCost], steps: dict[int, float]) -> pd.DataFrame:
    """Put the model beside what was measured.

    Args:
        feeding: For each number of scans; the model takes its cost from the first.
        steps: Seconds of a step, by number of processes; the model takes the cost of an
            exchange from one and two.

    Returns:
        One row a number of scans or of processes: what, model, measured, and fitted,
        whether the model has its number from there.
    """
    rows = []
    seconds_a_scan = feeding[0].seconds / feeding[0].scans
    for fed in feeding:
        what = f"seconds of listing, decoding and feeding {fed.scans:,} phantoms"
        rows.append((what, fed.scans * seconds_a_scan, fed.seconds))
    exchange_of_two = steps[2] - steps[1]
    for processes, seconds in steps.items():
        unit = "process" if processes == 1 else "processes"
        what = f"seconds of a step on {processes} {unit}"
        times_two = exchange_seconds(processes, 1, 1) / exchange_seconds(2, 1, 1)
        rows.append((what, steps[1] + times_two * exchange_of_two, seconds))
    table = pd.DataFrame(rows, columns=["what", "model", "measured"])
    return table.assign(fitted=np.isclose(table["model"], table["measured"]))


# --- all of it ---


def benchmark_costs(results: Path) -> tuple[float, float]:
    """Read what `make bench` has measured.

    Args:
        results: The folder of benchmark.csv and benchmark.json.

    Returns:
        Milliseconds of a core for decoding a scan, and for augmenting it, at 224 px.
    """
    machine = json.loads((results / "benchmark.json").read_text())
    rows = pd.read_csv(results / "benchmark.csv").set_index("name")
    milliseconds = rows["ours"]  # of all cores
    # there, decoding counts once in so many epochs
    decoding = machine["cores"] * EPOCHS * milliseconds["stage_decoding"]
    augmenting = machine["cores"] * milliseconds["stage_augmenting"]
    return decoding, augmenting


def cost_table(costs: Costs) -> pd.DataFrame:
    """Make the table of scaling.csv.

    Args:
        costs: What the parts cost.

    Returns:
        One row a cost: cost, value, measured.
    """
    rows = []
    for name, value in asdict(costs).items():
        row = {"cost": name, "value": value, "measured": name in MEASURED}
        rows.append(row)
    return pd.DataFrame(rows)


def forecast_table(costs: Costs) -> pd.DataFrame:
    """Make the table of scaling_forecast.csv.

    Args:
        costs: What the parts cost.

    Returns:
        One row a ``Forecast``, for all ``SCANS`` and ``GPUS``.
    """
    rows = [forecast(scans, gpus, costs) for scans in SCANS for gpus in GPUS]
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, and write the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=config.RESULTS_DIR)
    into = parser.parse_args().into

    feeding = [feed_phantoms(count) for count in SIZES]
    print(pd.DataFrame(feeding).round(3).to_string(index=False), flush=True)
    step_costs = {processes: measure_step(processes) for processes in PROCESSES}
    steps = {processes: cost.seconds for processes, cost in step_costs.items()}
    print(steps, flush=True)

    most = feeding[-1]
    decoding, augmenting = benchmark_costs(config.RESULTS_DIR)
    gradients_mb = step_costs[1].gradients_mb
    megabytes_a_second = exchange_seconds(2, gradients_mb, 1) / (steps[2] - steps[1])
    costs = Costs(
        listing_ms=1000 * most.listing_seconds / most.scans,
        decoding_core_ms=decoding,
        drawing_ms=drawing_milliseconds(),
        augmenting_core_ms=augmenting,
        step_s=steps[1],
        exchange_gb_s=megabytes_a_second / 1000,
    )
    write_table(cost_table(costs), into / "scaling.csv")
    write_table(check_model(feeding, steps), into / "scaling_checks.csv")
    write_table(forecast_table(costs), into / "scaling_forecast.csv")


if __name__ == "__main__":
    main()
