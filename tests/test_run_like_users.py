"""A notebook runs wherever people run it, and ends with the same answer.

Three ways: Run All in JupyterLab in a browser, papermill, and `jupyter nbconvert`. Each
starts in a fresh copy of the repository, with few synthetic scans, and leaves the home
folder as it was. A fourth way, a kernel as Colab's, is in test_notebooks. All of it is
part of `make test-all`.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress

import nbformat
import pytest
from conftest import copy_checkout
from jupyter_folders import make_jupyter_folders
from jupyter_server.serverapp import list_running_servers
from test_notebooks import check_outputs, code_cells

pytestmark = pytest.mark.slow

NOTEBOOK = "notebooks/01_download.ipynb"  # downloads nothing if it is given scans
TRIES = 4
ANSWER = "48 of the 48 published scans are on this machine"
PATIENCE = 300  # seconds, on a machine that does other things as well


@pytest.fixture
def checkout(tmp_path):
    """A fresh copy of the repository."""
    return copy_checkout(tmp_path / "checkout", without=["results"])


@pytest.fixture
def home(tmp_path):
    """An empty home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(checkout, home, few_phantoms, tmp_path):
    """Environment variables of a user who has scans."""
    root, _ = few_phantoms
    variables = {
        "HOME": str(home),
        "PYTHONPATH": str(checkout / "src"),
        "BRAINTUMOR_DATA": str(root),
    }
    jupyter_folders = make_jupyter_folders(tmp_path / "jupyter")
    return {**os.environ, **variables, **jupyter_folders}


def check_executed(file):
    """Every cell ran once, in its order, without error, up to the figure and the answer."""
    notebook = nbformat.read(file, as_version=4)
    check_outputs(notebook)
    *_, figure_cell, answer_cell = code_cells(notebook)
    assert any("image/png" in output.data for output in figure_cell.outputs)
    (answer,) = answer_cell.outputs
    assert ANSWER in answer.data["text/markdown"]


def check_home(home):
    """Neither Jupyter nor IPython has made a folder there."""
    made = {folder.name for folder in home.rglob("*") if folder.is_dir()}
    assert not made & {".jupyter", ".ipython", "jupyter", "Jupyter"}


# --- from the command line ---


def run_module(name, *arguments, cwd, env):
    """Call `python -m name`, and fail with what it says."""
    command = [sys.executable, "-m", name, *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_papermill_runs_a_notebook(checkout, home, environment):
    pytest.importorskip(
        "papermill", reason="papermill is not installed: pip install -e '.[dev]'"
    )
    (checkout / "build").mkdir()
    executed = "build/executed.ipynb"
    run_module("papermill", NOTEBOOK, executed, cwd=checkout, env=environment)
    check_executed(checkout / executed)
    check_home(home)


def test_nbconvert_runs_a_notebook(checkout, home, environment):
    options = ["--execute", "--to", "notebook", "--output-dir", "build"]
    run_module("nbconvert", *options, NOTEBOOK, cwd=checkout, env=environment)
    check_executed(checkout / "build" / "01_download.ipynb")
    check_home(home)


# --- in JupyterLab ---


@pytest.fixture
def jupyterlab(checkout, environment, tmp_path):
    """A running JupyterLab: its address, and the token that opens it."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    log_file = tmp_path / "jupyterlab.log"
    with log_file.open("w") as log:
        server = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=log, stderr=log
        )
    try:
        running = wait_for_server(server, environment["JUPYTER_RUNTIME_DIR"])
        assert running, log_file.read_text()
        yield running["url"], running["token"]
    finally:
        server.terminate()  # with its kernels
        server.wait(PATIENCE)


def wait_for_server(server, runtime_folder):
    """Wait until a JupyterLab says where it answers; None if it does not."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        for running in list_running_servers(runtime_folder):
            return running
        time.sleep(0.2)
    return None


def test_run_all_in_jupyterlab_runs_a_notebook(browser, checkout, home, jupyterlab):
    playwright = pytest.importorskip("playwright.sync_api")
    address, token = jupyterlab
    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE)

    # open the notebook, and wait for its kernel
    page.goto(f"{address}lab/tree/{NOTEBOOK}?token={token}")
    idle = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
    page.wait_for_selector(idle)

    # Run, Run All Cells, until the new answer stands there and no cell waits; on a busy
    # machine JupyterLab drops what is asked before its kernel is connected: ask again
    for _ in range(TRIES):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with suppress(playwright.TimeoutError):
            page.get_by_text(ANSWER).wait_for(timeout=1000 * PATIENCE / TRIES)
            break
    waiting = page.locator(".jp-InputPrompt", has_text="*")
    waiting.first.wait_for(state="detached")

    # the figure is drawn, not only sent
    page.wait_for_function(
        "[...document.querySelectorAll('.jp-RenderedImage img')]"
        ".some(image => image.naturalWidth > 0)"
    )

    # save, as Ctrl+S does
    saved = f"/api/contents/{NOTEBOOK}"
    with page.expect_response(
        lambda response: response.request.method == "PUT" and saved in response.url
    ):
        page.keyboard.press("Control+s")
    check_executed(checkout / NOTEBOOK)
    check_home(home)
