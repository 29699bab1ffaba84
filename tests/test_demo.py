"""The page to try it: open to this machine only, sends and keeps nothing, and says what is wrong in a sentence.

What needs a browser or gradio is part of `make test-all`.
"""

import ast
import inspect
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from braintumor.app import engines, release
from braintumor.support.files import checksum

import cv2
import demo
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
needs_gradio = "gradio is not installed: pip install -e '.[demo]'"


# --- without gradio ---


def test_a_file_of_several_pages_says_which_one_is_shown(thermometer, tmp_path):
    pages = [np.full((40, 40), 200 * number, "uint8") for number in (1, 0, 0)]
    pages[0][:, :20] = 0
    cv2.imwritemulti(str(tmp_path / "three.tif"), pages)
    shown = demo.answer(tmp_path / "three.tif", thermometer)
    assert "This is page 1 of 3; `python -m braintumor classify` answers" in shown.words
    assert list(shown.probabilities) == ["cold", "warm"]
    assert shown.picture.ndim == 3 and shown.picture.dtype == "uint8"
    cv2.imwrite(str(tmp_path / "one.png"), pages[0])
    assert "page" not in demo.answer(tmp_path / "one.png", thermometer).words


def test_what_cannot_be_read_is_a_sentence(thermometer, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(ValueError, match="^'notes.png' cannot be read .no whole image"):
        demo.answer(tmp_path / "notes.png", thermometer)


def test_an_upload_is_removed_once_and_an_offered_scan_never(thermometer, tmp_path):
    """Gradio keeps one file where two people upload the same."""
    scan = tmp_path / "scan.png"
    cv2.imwrite(str(scan), np.full((20, 30), 90, "uint8"))
    demo.remove_upload(scan, {checksum(scan)})
    assert scan.exists()
    demo.remove_upload(scan, set())
    assert not scan.exists()
    demo.remove_upload(scan, set())
    with pytest.raises(ValueError, match="^'scan.png' cannot be read .No such file"):
        demo.answer(scan, thermometer)


def test_the_page_offers_scans_of_every_class():
    classes = {scan.parent.name for scan in demo.example_scans()}
    assert len(classes) == 4


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_an_impossible_port_is_a_sentence(port):
    with pytest.raises(ValueError, match=f"^Port {port} cannot be used .* --port.$"):
        demo.check_port(port)


def test_a_port_in_use_is_a_sentence():
    with socket.create_server((demo.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"^Port {port} cannot be used"):
            demo.check_port(port)
    demo.check_port(port)


def test_it_asks_its_modules_for_nothing_that_they_lack():
    """Without gradio no test runs what opens the page."""
    tree = ast.parse(Path(demo.__file__).read_text(encoding="utf-8"))
    asked = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = getattr(demo, node.value.id, None)
            if inspect.ismodule(module):
                assert hasattr(module, node.attr), f"{node.value.id}.{node.attr}"
                asked += 1
    assert asked > 20


@pytest.mark.parametrize("others", [None, "example.org"])
def test_the_page_itself_needs_no_proxy(monkeypatch, tmp_path, others):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        if others:
            monkeypatch.setenv(name, others)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "elsewhere")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    demo.keep_to_this_machine(str(tmp_path))
    for name in ("no_proxy", "NO_PROXY"):
        addresses = os.environ[name].split(",")
        assert {demo.HOST, "localhost"} <= set(addresses)
        assert others is None or others in addresses
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


# --- with gradio ---


class Page:
    """A running page, in a process of its own."""

    def __init__(self, model, folder, **environment):
        with socket.create_server((demo.HOST, 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://{demo.HOST}:{self.port}"
        self.log = (folder / "log").open("w+")
        options = ["--model", str(model), "--port", str(self.port), "--quiet"]
        paths = {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "tools/demo.py", *options],
            cwd=ROOT,
            env=os.environ | paths | environment,
            stdout=self.log,
            stderr=self.log,
        )
        for _ in range(240):
            time.sleep(0.5)
            with socket.socket() as probe:
                answers = probe.connect_ex((demo.HOST, self.port)) == 0
            if answers or self.process.poll() is not None:
                break

    def stop(self, number):
        """End the page by a signal."""
        self.process.send_signal(number)
        self.process.wait(60)
        self.log.close()


@pytest.fixture(scope="module", params=["keras", "onnx"])
def model(request, trained, tmp_path_factory):
    """A classifier of either kind."""
    pytest.importorskip("gradio", reason=needs_gradio)
    if request.param == "keras":
        return trained.file
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    file = tmp_path_factory.mktemp("demo") / "classifier.onnx"
    release.write_onnx(engines.load_classifier(trained.file), file)
    return file


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    """Where the page answers, on a port of its own."""
    page = Page(model, tmp_path_factory.mktemp("page"))
    yield page.address
    page.stop(signal.SIGKILL)


@pytest.mark.slow
def test_a_scan_gives_probabilities_and_heat_and_nothing_is_sent_elsewhere(
    address, browser, trained
):
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("text=not for diagnosis")
    scan = next(trained.root.glob("Testing/glioma_tumor/*.jpg"))
    page.set_input_files("input[type=file]", str(scan))
    page.wait_for_selector("text=Most like", timeout=60_000)
    for label in ("glioma", "meningioma", "no tumor", "pituitary"):
        assert label in page.text_content("body")
    # the figure of the heat
    page.wait_for_function(
        "[...document.images].some(image => image.naturalWidth == 500)"
    )
    own = (address, "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []


@pytest.mark.slow
def test_rubbish_gives_a_sentence_and_the_page_goes_on(address, browser, tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("input[type=file]", str(tmp_path / "notes.png"))
    page.wait_for_selector("text='notes.png' cannot be read", timeout=60_000)


@pytest.mark.slow
def test_an_example_can_be_taken_more_than_once(address, browser):
    page = browser.new_page()
    page.goto(address)
    for number in (0, 1, 0):
        page.locator(".gallery button, .gallery-item, table tr.tr-body").nth(
            number
        ).click()
        page.wait_for_selector("text=Most like", timeout=60_000)
        page.locator("button[aria-label='Clear'], button[title='Clear']").first.click()
        page.wait_for_selector("text=Most like", state="detached", timeout=60_000)


@pytest.mark.slow
def test_only_this_machine_can_open_it(address):
    port = int(address.rpartition(":")[2])
    hosts = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    for other in {host[4][0] for host in hosts} - {demo.HOST}:
        with socket.socket() as probe:
            assert probe.connect_ex((other, port)) != 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_behind_a_proxy_it_opens_and_no_upload_is_left(trained, dicom, number):
    """A proxy that does not exist; the planted name of a patient is sought in all files."""
    client = pytest.importorskip("gradio_client", reason=needs_gradio)
    nowhere = "http://127.0.0.1:9"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = dicom(folder / "scan.dcm", np.arange(600).reshape(20, 30))
        proxies = {"http_proxy": nowhere, "https_proxy": nowhere}
        page = Page(trained.file, folder, **proxies)
        asking = client.Client(page.address, verbose=False, download_files=False)
        upload = client.handle_file(str(scan))
        assert "Most like" in str(asking.predict(upload, api_name="/answer"))

        def planted():
            files = [file for file in folder.rglob("*") if file.is_file()]
            return [file for file in files if b"LOVELACE" in file.read_bytes()]

        assert planted() == [scan]  # already
        page.stop(number)
        assert planted() == [scan]
        assert not list(folder.glob("braintumor-demo-*"))
