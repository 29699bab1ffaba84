"""Execute the notebooks top to bottom and render them as pages.

`make run` and `make results` call this. A notebook that fails stops the run with its
own error in one line, and leaves what was there before.
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
from typing import Any

from braintumor import config
from braintumor.support.files import replace_file

import forecast
import nbformat
import pandas as pd
from jupyter_folders import make_jupyter_folders
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "run"
WORKERS = 2  # networks as small as those of a quick run keep one core busy each

# In a quick run, the notebooks of one row read no results of each other, and run side
# by side. The one that takes longest comes first.
SIDE_BY_SIDE = (("04_train_resnet50", "03_train_vgg16", "02_explore"),)

RESULT_COLUMNS = [  # of metrics.csv; shown at the end
    "model",
    "recipe",
    "weights",
    "image_size",
    "subset",
    "n",
    "accuracy",
    "macro_f1",
]


class StatusLines:
    """A line for each notebook: on a terminal rewritten in place, elsewhere added.

    Args:
        names: The notebooks, in the order in which they are shown.
        live: Whether lines can be rewritten; None: as the standard output can.
    """

    def __init__(self, names: list[str], live: bool | None = None) -> None:
        self.live = sys.stdout.isatty() if live is None else live
        self.lock = threading.Lock()
        self.bars: dict[str, tqdm] = {}
        if not self.live:
            return
        for position, name in enumerate(names):
            bar = tqdm(bar_format="{desc}", position=position, file=sys.stdout, ncols=0)
            self.bars[name] = bar
            self.show(name, "waits")

    def show(self, name: str, text: str, passing: bool = False) -> None:
        """Say what a notebook does now.

        Args:
            name: The notebook.
            text: What it does.
            passing: Whether to leave it out where lines cannot be rewritten.
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
    """A notebook that shows where it is: the cell, and while it trains, the epoch.

    Args:
        notebook: The notebook to run.
        name: Its name in ``lines``.
        lines: Where it shows how far it is.
        **options: Those of ``NotebookClient``.
    """

    def __init__(
        self, notebook: NotebookNode, name: str, lines: StatusLines, **options: Any
    ) -> None:
        super().__init__(notebook, **options)
        self.name = name
        self.lines = lines
        self.on_cell_start = self.show_cell

    def show_cell(self, cell: NotebookNode, cell_index: int) -> None:
        """Show which cell runs; nbclient calls this before each.

        Args:
            cell: The cell.
            cell_index: Its place in the notebook, from 0.
        """
        where = f"cell {cell_index + 1} of {len(self.nb.cells)}"
        self.lines.show(self.name, where, passing=True)

    def show_progress(self, text: str) -> None:
        """Show lines of a training's progress, unless they repeat an earlier training.

        Args:
            text: What the kernel printed.
        """
        if "epochs are on disk" in text:
            return
        for line in text.splitlines():
            if re.match(r"epoch +\d+/\d+ ", line):
                self.lines.show(self.name, line)
            elif re.match(r"(epoch|features) .*\d+ of \d+", line):
                self.lines.show(self.name, line, passing=True)

    def output(
        self,
        outs: list[NotebookNode],
        msg: dict,
        display_id: str | None,
        cell_index: int,
    ) -> NotebookNode | None:
        """Handle one message of the kernel; nbclient calls this.

        Args:
            outs: The outputs of the cell.
            msg: The message.
            display_id: The display that it updates.
            cell_index: The place of the cell in the notebook, from 0.

        Returns:
            The output that nbclient makes of it.
        """
        if msg["msg_type"] == "stream":
            self.show_progress(msg["content"]["text"])
        return super().output(outs, msg, display_id, cell_index)


def execute(
    source: Path, folder: Path, environment: dict[str, str], lines: StatusLines
) -> None:
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
    write_text(folder / source.name, nbformat.writes(notebook) + "\n")
    page, _ = HTMLExporter().from_notebook_node(notebook)
    write_text(PAGES / f"{source.stem}.html", page)


def execute_and_report(
    source: Path, folder: Path, environment: dict[str, str], lines: StatusLines
) -> str:
    """Run one notebook, with a line at the start and at the end.

    Args:
        source: The notebook.
        folder: Where the executed notebook is written.
        environment: Variables that its kernel gets besides those of this process.
        lines: Where it says how far it is.

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


def group_notebooks(sources: list[Path], quick: bool) -> list[list[Path]]:
    """Order notebooks, and group those that run side by side.

    Args:
        sources: The notebooks.
        quick: Whether notebooks share the processor; else one runs at a time.

    Returns:
        The groups, to be run one after the other.
    """
    groups: list[list[Path]] = []
    for source in sorted(sources):
        if quick and groups and _may_share(groups[-1][0], source):
            groups[-1].append(source)
        else:
            groups.append([source])
    return [sorted(group, key=_place_in_group) for group in groups]


def _may_share(one: Path, other: Path) -> bool:
    """Whether two notebooks may run side by side."""
    return any(one.stem in row and other.stem in row for row in SIDE_BY_SIDE)


def _place_in_group(source: Path) -> int:
    """The place of a notebook in its row of ``SIDE_BY_SIDE``; 0 in none."""
    for row in SIDE_BY_SIDE:
        if source.stem in row:
            return row.index(source.stem)
    return 0


def kernel_environment(preset: str | None, notebooks: int) -> dict[str, str]:
    """Choose the environment variables of kernels.

    Args:
        preset: The preset of ``config.PRESETS`` that all of them use. None: each uses
            the one that it names.
        notebooks: How many run side by side; several share the cores.

    Returns:
        The variables to set.
    """
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if preset:
        variables["BRAINTUMOR_PRESET"] = preset
    if notebooks > 1:
        cores = os.cpu_count() or 1
        threads = str(max(1, cores // WORKERS))
        variables["TF_NUM_INTRAOP_THREADS"] = threads
        variables["OMP_NUM_THREADS"] = threads
        # several processes on one GPU: none may take all of its memory
        variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return variables


def run_group(
    group: list[Path], folder: Path, preset: str | None, lines: StatusLines
) -> list[str]:
    """Run notebooks side by side.

    Args:
        group: The notebooks.
        folder: Where the executed notebooks are written.
        preset: The preset of ``config.PRESETS`` that all of them use. None: each uses
            the one that it names.
        lines: Where they say how far they are.

    Returns:
        For each notebook that did not end well, a line that says why.
    """
    environment = kernel_environment(preset, len(group))
    problems = []
    with ThreadPoolExecutor(WORKERS) as pool:
        started = []
        for source in group:
            run = pool.submit(execute_and_report, source, folder, environment, lines)
            started.append(run)
        for run in started:
            problem = run.result()
            if problem:
                problems.append(problem)
    return problems


def result_table(results: Path) -> str:
    """Read the main columns of a results folder's metrics.csv.

    Args:
        results: The folder.

    Returns:
        A table in plain text.
    """
    metrics = pd.read_csv(results / "metrics.csv")
    return metrics[RESULT_COLUMNS].to_string(index=False, float_format="{:.3f}".format)


def write_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Args:
        file: Where.
        text: Its content.
    """
    replace_file(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def warm_up() -> None:
    """Let another process compile what Keras imports, while the first notebook runs.

    The first import after an installation takes three times as long as any later one;
    where there was one, nothing is left to do.
    """
    keras = importlib.util.find_spec("keras")
    if keras and keras.cached and Path(keras.cached).exists():
        return
    subprocess.Popen(
        [sys.executable, "-c", "import keras, sklearn.metrics, matplotlib.figure"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def find_notebooks(patterns: list[str]) -> list[Path]:
    """Find notebooks by their names.

    Args:
        patterns: Names without ending, with wildcards.

    Returns:
        The files that match one of them, sorted.
    """
    found: set[Path] = set()
    for pattern in patterns:
        found.update((ROOT / "notebooks").glob(f"{pattern}.ipynb"))
    return sorted(found)


def main() -> None:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--preset", help="what all notebooks use (default: what each of them names)"
    )
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
    if arguments.preset:
        # the option decides in this process, too, whatever the variable said before
        os.environ["BRAINTUMOR_PRESET"] = arguments.preset
    sources = find_notebooks(arguments.notebooks)
    if not sources:
        asked = ", ".join(arguments.notebooks)
        sys.exit(f"No notebook in notebooks/ is called {asked}: see its names there.")
    results = config.settings_from(arguments.preset or "cpu", seed=0).results_dir

    os.environ.update(make_jupyter_folders(ROOT / "build" / "jupyter"))
    if quick:
        warm_up()
        print(forecast.quick_run_sentence([source.stem for source in sources]))
    lines = StatusLines([source.stem for source in sources])
    for group in group_notebooks(sources, quick):
        problems = run_group(group, ROOT / arguments.into, arguments.preset, lines)
        if problems:
            lines.close()
            sys.exit("\n".join(problems))
    lines.close()

    if (results / "metrics.csv").exists():
        print(f"\n{result_table(results)}")
    last_page = PAGES.relative_to(ROOT) / f"{sources[-1].stem}.html"
    print(f"\nRendered pages: {last_page} and its neighbors")
    if quick:
        sentence = forecast.whole_study_sentence(results)
        if sentence:
            print(sentence)


if __name__ == "__main__":
    main()
