"""Execute the notebooks top to bottom, in order, and render them as pages: what `make run` and `make results` call."""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path

from braintumor import config, splits

import nbformat
import pandas
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2  # networks as small as those of a quick run keep one core busy each
SIDE_BY_SIDE = (  # in a quick run: these read no result of each other
    ("02_explore", "02b_audit", "03_train_vgg16", "04_train_resnet50"),
    ("05b_certainty", "05c_protocols", "05d_generalise", "06_why_resnet50_collapsed"),
)


class LiveClient(NotebookClient):
    """Shows the training's progress lines while they come, each after its notebook's name."""

    def output(self, outs, msg, display_id, cell_index):
        if msg["msg_type"] == "stream" and msg["content"]["text"].startswith("epoch"):
            for line in msg["content"]["text"].splitlines():
                print(f"{self.resources['name']:20s} {line}", flush=True)
        return super().output(outs, msg, display_id, cell_index)


def execute(source: Path, folder: Path, pages: Path, environment: dict) -> None:
    """Run one notebook and write it and its page; a notebook that fails leaves what was there before.

    Raises CellExecutionError with the notebook's own error.
    """
    notebook = nbformat.read(source, as_version=4)
    client = LiveClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        resources={"name": source.stem, "metadata": {"path": str(source.parent)}},
    )
    pages.mkdir(parents=True, exist_ok=True)
    with open(pages / f"{source.stem}.log", "w") as log:  # what libraries write past the notebook
        client.execute(stderr=log, env=os.environ | environment)
    notebook.metadata.pop("widgets", None)
    write(folder / source.name, nbformat.writes(notebook) + "\n")
    page, _ = HTMLExporter().from_notebook_node(notebook)
    write(pages / f"{source.stem}.html", page)


def write(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"writing-{file.name}")
    temporary.write_text(text)
    os.replace(temporary, file)


def result_table(results: Path) -> str:
    """The main columns of metrics.csv, as text."""
    metrics = pandas.read_csv(results / "metrics.csv")
    columns = ["model", "recipe", "weights", "image_size", "subset", "n", "accuracy", "macro_f1"]
    return metrics[columns].to_string(index=False, float_format="{:.3f}".format)


def whole_study_minutes(results: Path) -> float:
    """How long the trainings of 03 and 04 take here, by the quick run's seconds an epoch, scan, pixel and core."""
    whole = config.Settings(preset="cpu-scratch", seed=0, **config.PRESETS["cpu-scratch"])
    table = splits.assign_subsets(pandas.read_csv(config.DATA_DIR / "image_groups.csv"), whole.protocol, whole.seed)
    scans, seconds = (table["subset"] == "train").sum(), 0.0
    for folder in results.glob("*/history.csv"):
        facts = json.loads(folder.with_name("settings.json").read_text())
        if facts["seed"] or facts["epochs"] != config.PRESETS["sample"]["epochs"]:  # of another notebook
            continue
        share = scans / facts["subsets"]["train"] * (whole.image_size / facts["image_size"]) ** 2
        seconds += pandas.read_csv(folder)["seconds"].median() * share * whole.epochs
    return seconds / 60 / min(WORKERS, os.cpu_count())  # two networks shared the cores


def attempt(source: Path, into: Path, pages: Path, kernels: dict) -> str:
    """Execute a notebook with a line before and after; returns an empty text, or what stopped it."""
    print(f"{source.stem:20s} running ...", flush=True)
    started = time.perf_counter()
    try:
        execute(source, into, pages, kernels)
    except CellExecutionError as error:
        return f"{source.stem:20s} stopped: {error.evalue}"
    except DeadKernelError:
        return f"{source.stem:20s} stopped: its kernel died, most likely for want of memory"
    print(f"{source.stem:20s} done in {time.perf_counter() - started:.0f} s", flush=True)
    return ""


def groups(sources: list[Path], quick: bool) -> list[list[Path]]:
    """The notebooks in order, those that can run side by side together."""
    together = {name: group for group in SIDE_BY_SIDE for name in group} if quick else {}
    return [list(group) for _, group in groupby(sources, lambda source: together.get(source.stem, source.stem))]


def environment(preset: str, notebooks: int) -> dict:
    """What the kernels of so many notebooks at once are told."""
    kernels = {"BRAINTUMOR_PRESET": preset, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if notebooks == 1:
        return kernels
    kernels |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), str(max(1, os.cpu_count() // WORKERS)))
    return kernels | {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--into", required=True, type=Path, help="folder for the executed notebooks")
    parser.add_argument("--notebooks", nargs="+", default=["[0-9]*"], help="which ones, as patterns of their names")
    arguments = parser.parse_args()
    quick, into, pages = arguments.preset == "sample", ROOT / arguments.into, ROOT / "build" / "run"
    sources = sorted(file for name in arguments.notebooks for file in (ROOT / "notebooks").glob(f"{name}.ipynb"))
    for group in groups(sources, quick):
        with ThreadPoolExecutor(WORKERS) as pool:
            kernels = environment(arguments.preset, len(group))
            problems = list(pool.map(partial(attempt, into=into, pages=pages, kernels=kernels), group))
        if any(problems):
            sys.exit("\n".join(filter(None, problems)))
    results = config.settings_from(arguments.preset, seed=0).results_dir
    if (results / "metrics.csv").exists():
        print(f"\n{result_table(results)}")
    print(f"\nRendered pages: {pages.relative_to(ROOT)}/{sources[-1].stem}.html and its neighbours")
    if quick and (minutes := whole_study_minutes(results)):
        print(f"On all scans, `make results`, 03 and 04 alone take about {minutes:.0f} minutes on this machine")


if __name__ == "__main__":
    main()
