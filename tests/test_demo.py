"""The page to try it, in a real browser: a scan gives probabilities and heat, rubbish a sentence; nothing goes out."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from braintumor.app import engines, release

import pytest

pytest.importorskip(
    "gradio", reason="gradio is not installed: pip install -e '.[demo]'"
)
sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="playwright is not installed: pip install -e '.[demo]'",
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", params=["keras", "onnx"])
def address(request, trained, tmp_path_factory):
    """Where the page answers, on a port of its own, with a classifier of either kind."""
    model = trained[3]
    if request.param == "onnx":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
        model = tmp_path_factory.mktemp("demo") / "classifier.onnx"
        release.write_onnx(engines.load_classifier(trained[3]), model)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "tools/demo.py",
        "--model",
        str(model),
        "--port",
        str(port),
        "--quiet",
    ]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ) as process:
        for _ in range(120):
            time.sleep(0.5)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield f"http://127.0.0.1:{port}"
        process.kill()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )


def test_a_scan_gives_probabilities_and_heat_and_nothing_is_sent_elsewhere(
    address, browser, trained
):
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("text=not for diagnosis")
    page.set_input_files(
        "input[type=file]", str(next(trained[2].glob("Testing/glioma_tumor/*.jpg")))
    )
    page.wait_for_selector("text=Most like", timeout=60_000)
    for label in ("glioma", "meningioma", "no tumor", "pituitary"):
        assert label in page.text_content("body")
    page.wait_for_function(
        "[...document.images].some(image => image.naturalWidth == 500)"
    )  # the figure of the heat
    elsewhere = [
        url for url in asked if not url.startswith((address, "data:", "blob:"))
    ]
    assert not elsewhere


def test_rubbish_gives_a_sentence_and_the_page_goes_on(
    address, browser, tmp_path, trained
):
    (tmp_path / "notes.png").write_text("not a picture")
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("input[type=file]", str(tmp_path / "notes.png"))
    page.wait_for_selector("text='notes.png' cannot be read", timeout=60_000)


def test_only_this_machine_can_open_it(address):
    port = int(address.rpartition(":")[2])
    others = {
        info[4][0]
        for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    } - {"127.0.0.1"}
    for other in others:
        with socket.socket() as probe:
            assert probe.connect_ex((other, port)) != 0
