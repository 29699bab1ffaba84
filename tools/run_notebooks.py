"""Execute the notebooks top to bottom and render them as pages.

`make run` and `make results` call this. A notebook that fails stops the run with its own
error in one line, and leaves what was there before.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from braintumor import config
from braintumor.support.files import replace_file

import forecast
import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "run"
JUPYTER = ROOT / "build" / "jupyter"  # instead of the home folder, see ``own_jupyter``
WORKERS = 2  # networks as small as those of a quick run keep one core busy each

# In a quick run, the notebooks of one row read no results of each other, and run side
# by side. The one that takes longest comes first.
SIDE_BY_SIDE = (
    ("04_train_resnet50", "03_train_vgg16", "02_explore", "02b_audit"),
    ("05b_certainty", "05c_protocols", "05d_generalise", "06_why_resnet50_collapsed"),
)


class StatusLines:
    """A line for each notebook: on a terminal rewritten in place, elsewhere added.

    Args:
        names: The notebooks, in the order in which they are shown.
        live: Whether lines can be rewritten; None: if the standard output is a terminal.
    """

    def __init__(self, names: list[str], live: bool | None = None):
        self.live = sys.stdout.isatty() if live is None else live
        self.lock = threading.Lock()
        self.bars = {}
        if self.live:
            for position, name in enumerate(names):
                bar = tqdm(
                    bar_format="{desc}", position=position, file=sys.stdout, ncols=0
                )
                self.bars[name] = bar
                self.show(name, "waits")

    def show(self, name: str, text: str, passing: bool = False) -> None:
        """Say what a notebook does now.

        Args:
            name: The notebook.
            text: What it does.
            passing: Whether it is worth a line of its own only where lines are rewritten.
        """
        line = f"{name:25s} {text}"
        if self.live:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
            self.bars[name].set_description_str(line[: columns - 1])
        elif not passing:
            with self.lock:
                print(line, flush=True)

    def close(self) -> None:
        """Leave the lines as they are, and the cursor below them."""
        for bar in self.bars.values():
            bar.close()


class WatchedNotebook(NotebookClient):
    """A notebook that tells where it is: the cell, and while it trains, the epoch."""

    def __init__(self, notebook, name: str, lines: StatusLines, **options):
        super().__init__(notebook, **options)
        self.name = name
        self.lines = lines
        self.on_cell_start = self.tell_cell

    def tell_cell(self, cell, cell_index: int) -> None:
        """Called by nbclient before each cell."""
        where = f"cell {cell_index + 1} of {len(self.nb.cells)}"
        self.lines.show(self.name, where, passing=True)

    def tell_training(self, text: str) -> None:
        """Pass on what is said of an epoch, unless it is read from an earlier training."""
        if "epochs are on disk" in text:
            return
        for line in text.splitlines():
            if re.match(r"epoch +\d+/\d+ ", line):
                self.lines.show(self.name, line)
            elif re.match(r"(epoch|features) .*\d+ of \d+", line):
                self.lines.show(self.name, line, passing=True)

    def output(self, outs, msg, display_id, cell_index):
        """Called by nbclient for each message of the kernel."""
        if msg["msg_type"] == "stream":
            self.tell_training(msg["content"]["text"])
        return super().output(outs, msg, display_id, cell_index)


def execute(source: Path, folder: Path, environment: dict, lines: StatusLines) -> None:
    """Run one notebook and write it and its page.

    Args:
        source: The notebook; it is not changed, unless ``folder`` is its own.
        folder: Where the executed notebook is written.
        environment: Variables that its kernel gets besides those of this process.
        lines: Where it says how far it is.

    Raises:
        CellExecutionError: The notebook's own error; nothing is written then.
    """
    notebook = nbformat.read(source, as_version=4)
    client = WatchedNotebook(
        notebook,
        source.stem,
        lines,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        resources={"metadata": {"path": str(source.parent)}},
    )
    PAGES.mkdir(parents=True, exist_ok=True)
    # what libraries write past the notebook
    with open(PAGES / f"{source.stem}.log", "w", encoding="utf-8") as log:
        client.execute(stderr=log, env=os.environ | environment)
    notebook.metadata.pop("widgets", None)
    write(folder / source.name, nbformat.writes(notebook) + "\n")
    page, _ = HTMLExporter().from_notebook_node(notebook)
    write(PAGES / f"{source.stem}.html", page)


def write(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    replace_file(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def attempt(source: Path, folder: Path, environment: dict, lines: StatusLines) -> str:
    """``execute``, with a line at the start and at the end.

    Returns:
        An empty text, or in one line what stopped the notebook.
    """
    name = source.stem
    lines.show(name, "running ...")
    started = time.perf_counter()
    try:
        execute(source, folder, environment, lines)
    except CellExecutionError as error:
        problem = str(error.evalue)
    except DeadKernelError:
        problem = "its kernel died, most likely for want of memory"
    else:
        seconds = time.perf_counter() - started
        lines.show(name, f"done in {seconds:.0f} s")
        return ""
    lines.show(name, "stopped", passing=True)
    return f"{name:25s} stopped: {problem}"


def groups(sources: list[Path], quick: bool) -> list[list[Path]]:
    """The notebooks in the order in which they run, those that can run at once together.

    Args:
        sources: The notebooks.
        quick: Whether notebooks share the processor; else one runs at a time.
    """
    found = []
    for source in sorted(sources):
        if quick and found and beside(found[-1][0], source):
            found[-1].append(source)
        else:
            found.append([source])
    return [sorted(group, key=place_in_group) for group in found]


def beside(one: Path, other: Path) -> bool:
    """Whether two notebooks may run at the same time."""
    return any(one.stem in row and other.stem in row for row in SIDE_BY_SIDE)


def place_in_group(source: Path) -> int:
    """The place of a notebook in its row of ``SIDE_BY_SIDE``; 0 where it stands in none."""
    for row in SIDE_BY_SIDE:
        if source.stem in row:
            return row.index(source.stem)
    return 0


def kernel_environment(preset: str, notebooks: int) -> dict[str, str]:
    """What the kernels of so many notebooks at once are told.

    Args:
        preset: The preset of ``config.PRESETS`` that all of them use.
        notebooks: How many run side by side; several share the cores.
    """
    variables = {"BRAINTUMOR_PRESET": preset, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if notebooks > 1:
        threads = str(max(1, os.cpu_count() // WORKERS))
        variables["TF_NUM_INTRAOP_THREADS"] = threads
        variables["OMP_NUM_THREADS"] = threads
        # several processes on one GPU: none may take all of its memory
        variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return variables


def run_group(
    group: list[Path], folder: Path, preset: str, lines: StatusLines
) -> list[str]:
    """Run notebooks side by side; returns what stopped those that did not end well."""
    environment = kernel_environment(preset, len(group))
    with ThreadPoolExecutor(WORKERS) as pool:
        runs = [
            pool.submit(attempt, source, folder, environment, lines) for source in group
        ]
    problems = [run.result() for run in runs]
    return [problem for problem in problems if problem]


def result_table(results: Path) -> str:
    """The main columns of metrics.csv, as text."""
    metrics = pd.read_csv(results / "metrics.csv")
    columns = [
        *("model", "recipe", "weights", "image_size"),
        *("subset", "n", "accuracy", "macro_f1"),
    ]
    return metrics[columns].to_string(index=False, float_format="{:.3f}".format)


def own_jupyter() -> None:
    """Keep what Jupyter reads and writes for a person out of the run.

    Somebody's start-up files could change results, and a home folder may be read-only.
    """
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        folder = JUPYTER / name.lower()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)


def warm_up() -> None:
    """Let another process compile what Keras imports, while the first notebook runs.

    The first import after an installation takes three times as long as any later one;
    where there was one, nothing is left to do.
    """
    keras = importlib.util.find_spec("keras")
    if keras.cached and Path(keras.cached).exists():
        return
    subprocess.Popen(
        [sys.executable, "-c", "import keras, sklearn.metrics, matplotlib.figure"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def find(patterns: list[str]) -> list[Path]:
    """The notebooks whose names, without ending, match one of the patterns; sorted."""
    folder = ROOT / "notebooks"
    return sorted({file for name in patterns for file in folder.glob(f"{name}.ipynb")})


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", required=True)
    parser.add_argument(
        "--into", required=True, type=Path, help="folder for the executed notebooks"
    )
    parser.add_argument(
        "--notebooks",
        nargs="+",
        default=["[0-9]*"],
        help="which ones, as patterns of their names; studies/* for the side studies",
    )
    arguments = parser.parse_args()
    quick = arguments.preset == "sample"
    sources = find(arguments.notebooks)
    results = config.settings_from(arguments.preset, seed=0).results_dir

    own_jupyter()
    if quick:
        warm_up()
        print(forecast.quick_run_sentence([source.stem for source in sources]))
    lines = StatusLines([source.stem for source in sources])
    for group in groups(sources, quick):
        problems = run_group(group, ROOT / arguments.into, arguments.preset, lines)
        if problems:
            lines.close()
            sys.exit("\n".join(problems))
    lines.close()

    if (results / "metrics.csv").exists():
        print(f"\n{result_table(results)}")
    first_page = PAGES.relative_to(ROOT) / f"{sources[-1].stem}.html"
    print(f"\nRendered pages: {first_page} and its neighbors")
    if quick:
        sentence = forecast.whole_study_sentence(results)
        if sentence:
            print(sentence)


if __name__ == "__main__":
    main()
