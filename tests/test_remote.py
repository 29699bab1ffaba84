"""A classifier by URL: fetched once, kept by content, and only if it is one."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from braintumor.app import engines, remote
from braintumor.support.files import checksum

import pytest


class Server(ThreadingHTTPServer):
    """Answers each path with what ``files`` says: bytes, or a function of the request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.asked = []
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()

    def url(self, path):
        """The address of a path."""
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    """A web server in few words."""

    def do_GET(self):
        """Send a file, all of it, or what a function sends."""
        path = self.path.partition("?")[0]
        self.server.asked.append(self.path)
        content = self.server.files.get(path)
        if callable(content):
            return content(self)
        if content is None:
            return self.send_error(404)
        self.send(content)

    def send(self, content, size=None):
        """Send content, whose size may be announced wrongly."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if size is None else size))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    """A web server on this machine."""
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where classifiers are kept."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "braintumor"


def is_classifier(file):
    """What a file must pass."""
    if not file.read_bytes().startswith(b"classifier"):
        raise ValueError(f"'{file.name}' is no classifier")


def kept_in(cache):
    """The names of the files that are kept."""
    return sorted(
        file.name
        for file in cache.rglob("*")
        if file.is_file() and file.parent.name != "urls"
    )


def test_it_is_fetched_once_and_said_on_stderr_alone(server, cache, capsys):
    server.files["/a.onnx"] = b"classifier a"
    first = remote.fetch(server.url("/a.onnx"), None, is_classifier)
    second = remote.fetch(server.url("/a.onnx"), None, is_classifier)
    assert first == second and first.name == "a.onnx"
    assert first.read_bytes() == b"classifier a"
    assert server.asked == ["/a.onnx"]
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"Fetching {server.url('/a.onnx')} ...\n")


def test_many_commands_at_once_get_the_same_file(server):
    """They wait for each other before the answer comes, and end together."""
    together = threading.Barrier(8)

    def answer(request):
        together.wait(60)
        request.send(b"classifier a")

    server.files["/a.onnx"] = answer
    url = server.url("/a.onnx")
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(remote.fetch, url, None, is_classifier) for _ in range(8)]
        (file,) = {run.result() for run in runs}
    assert file.read_bytes() == b"classifier a"
    assert remote.fetch(url, None, is_classifier) == file
    assert len(server.asked) == 8


def test_another_address_gives_another_classifier_whatever_its_name(server):
    server.files.update({"/1/a.onnx": b"classifier 1", "/2/a.onnx": b"classifier 2"})
    for number in (1, 2, 1):
        file = remote.fetch(server.url(f"/{number}/a.onnx"), None, is_classifier)
        assert file.read_bytes() == f"classifier {number}".encode()


def test_the_checksum_finds_it_wherever_it_came_from(server):
    server.files["/a.onnx"] = b"classifier a"
    file = remote.fetch(server.url("/a.onnx?download=true"), None, is_classifier)
    digest = checksum(file)
    server.asked.clear()
    again = remote.fetch("http://127.0.0.1:9/elsewhere.onnx", digest, is_classifier)
    assert again == file and server.asked == []


def test_what_has_another_checksum_is_refused_and_not_kept(server, cache):
    server.files["/a.onnx"] = b"classifier a"
    with pytest.raises(
        ConnectionError, match="a.onnx: it has the checksum .*, not 0000"
    ):
        remote.fetch(server.url("/a.onnx"), "0" * 64, is_classifier)
    assert kept_in(cache) == []


def test_what_is_no_classifier_is_refused_and_the_right_one_works_later(server, cache):
    url = server.url("/a.onnx")
    server.files["/a.onnx"] = b"<html>log in"
    with pytest.raises(
        ConnectionError, match=f"^The classifier cannot be fetched: {url}"
    ):
        remote.fetch(url, None, is_classifier)
    assert kept_in(cache) == []
    server.files["/a.onnx"] = b"classifier a"
    assert remote.fetch(url, None, is_classifier).read_bytes() == b"classifier a"


def test_a_kept_file_that_was_damaged_is_fetched_again(server):
    server.files["/a.onnx"] = b"classifier a"
    file = remote.fetch(server.url("/a.onnx"), None, is_classifier)
    file.write_bytes(b"classifier")
    again = remote.fetch(server.url("/a.onnx"), None, is_classifier)
    assert again.read_bytes() == b"classifier a"


def cut_short(request):
    """Announce more bytes than come."""
    request.send(b"classifier", size=1000)


def in_circles(request):
    """Send the client to the same place again."""
    request.send_response(302)
    request.send_header("Location", request.path)
    request.end_headers()


def forbidden(request):
    """Refuse."""
    request.send_error(403)


def no_http(request):
    """Answer in no known way."""
    request.wfile.write(b"hello\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "the server says 404 Not Found"),
        (forbidden, "the server says 403 Forbidden"),
        (cut_short, "10 of 1,000 bytes arrived"),
        (in_circles, "infinite loop"),
        (no_http, "hello"),
    ],
)
def test_what_cannot_be_fetched_whole_is_a_sentence(server, cache, answer, words):
    server.files["/a.onnx"] = answer
    url = server.url("/a.onnx")
    with pytest.raises(
        ConnectionError, match=f"^The classifier cannot be fetched: {url}"
    ):
        remote.fetch(url, None, is_classifier)
    with pytest.raises(ConnectionError, match=words):
        remote.fetch(url, None, is_classifier)
    assert kept_in(cache) == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.onnx", "https://", "http://[", "http://no host/a"]
)
def test_an_address_that_leads_nowhere_is_a_sentence(url):
    with pytest.raises(ConnectionError, match="^The classifier cannot be fetched: "):
        remote.fetch(url, None, is_classifier)


def test_too_much_is_refused(server, cache, monkeypatch):
    monkeypatch.setattr(remote, "MOST_BYTES", 5)
    server.files["/a.onnx"] = b"classifier a"
    with pytest.raises(ConnectionError, match="more than 0 GB arrived"):
        remote.fetch(server.url("/a.onnx"), None, is_classifier)
    assert kept_in(cache) == []


def test_a_name_and_a_key_in_an_address_are_not_shown():
    shown = remote.shown_url("https://ada:secret@host:8443/a/b.onnx?token=secret#x")
    assert shown == "https://host:8443/a/b.onnx"


@pytest.mark.parametrize(
    "path", ["/%2e%2e%2fevil", "/a%2f..%2f..%2fevil", "/", "/..%2f"]
)
def test_no_address_names_a_file_elsewhere(server, cache, path):
    server.files[path] = b"classifier a"
    file = remote.fetch(server.url(path), None, is_classifier)
    assert file.resolve().is_relative_to(cache.resolve())


def test_a_home_that_is_read_only_is_no_obstacle(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(remote.config, "BUILD_DIR", tmp_path / "build")
    server.files["/a.onnx"] = b"classifier a"
    file = remote.fetch(server.url("/a.onnx"), None, is_classifier)
    assert file.is_relative_to(tmp_path / "build")


def test_a_classifier_of_either_kind_comes_by_its_address(
    server, thermometer, monkeypatch
):
    """Without Keras for ONNX; the checksum in any form."""
    monkeypatch.setattr(engines, "open_classifier", is_classifier)
    server.files["/a.onnx"] = b"classifier a"
    upper = server.url("/a.onnx").replace("http", "HTTP")
    file = engines.find_classifier(upper)
    digest = checksum(file)
    assert engines.find_classifier(upper, f"SHA256:{digest.upper()}") == file
    assert os.fspath(file).endswith(f"{digest}/a.onnx")
