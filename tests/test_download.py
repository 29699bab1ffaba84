"""Credentials are found where people keep them; a download is complete or absent.

The real opendatasets, kaggle and kagglehub packages talk to a server of our own on loopback.
"""

import base64
import hashlib
import io
import json
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from braintumor import dataset
from braintumor.support import download

import pandas as pd
import pytest

PAIR = {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "0123456789abcdef"}
TOKEN = {"KAGGLE_API_TOKEN": "KGAT_fedcba9876543210"}
SCANS = {
    f"{split}/{label}_tumor/image ({number}).jpg": f"\xff\xd8\xff {split} {label} {number}".encode(
        "latin-1"
    )
    for split in ("Training", "Testing")
    for label in ("glioma", "no")
    for number in (1, 2)
}
EXPECTED = pd.DataFrame(
    {
        "path": list(SCANS),
        "sha256": [hashlib.sha256(scan).hexdigest() for scan in SCANS.values()],
    }
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder without any credentials; the working folder is another empty one."""
    for name in (*PAIR, *TOKEN, "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home/.kaggle", "here"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture
def kaggle(home, tmp_path, monkeypatch):
    """A server that stands in for api.kaggle.com, with the answer to a download in ``server.answer``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Kaggle)
    server.answer, server.knows_token = (lambda: (200, archive(SCANS))), True
    monkeypatch.setattr(download, "reachable", lambda host: host == download.HOST)
    server.seen, server.done, server.handle_error = (
        [],
        threading.Event(),
        lambda *_: None,
    )
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "from kagglesdk import kaggle_env\n"
        f"kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = 'http://127.0.0.1:{server.server_port}'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    yield server
    server.done.set()
    server.shutdown()
    server.server_close()


class _Kaggle(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(
            (self.path.split("/")[-1], self.headers["Authorization"])
        )
        if self.path.endswith("IntrospectToken"):
            return self.send(
                200, {"active": self.server.knows_token, "username": "ada"}
            )
        if self.path.endswith("GetDataset"):
            return self.send(200, {"currentVersionNumber": 3})
        assert self.path == "/v1/datasets.DatasetApiService/DownloadDataset"
        status, content, *how = self.server.answer()
        self.send(status, content, **dict(*how))

    def send(self, status, content, *, share=1.0, stall=0.0, **headers):
        """Answer, but let only a ``share`` of the body arrive, and that not before ``stall`` seconds."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type",
            "application/zip" if isinstance(content, bytes) else "application/json",
        )
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2 if stall else 0])
        self.server.done.wait(stall)
        self.wfile.write(body[len(body) // 2 if stall else 0 : int(len(body) * share)])

    def log_message(self, *_):
        pass


def archive(scans):
    """The bytes of a zip file with these scans."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for path, scan in scans.items():
            file.writestr(path, scan)
    return packed.getvalue()


def files_in(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    )


# --- a network that may be missing ---


def test_a_server_that_listens_is_reachable_and_one_that_does_not_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert download.reachable("127.0.0.1", port)
    assert not download.reachable("127.0.0.1", port)


def test_a_name_server_that_never_answers_costs_no_more_than_the_limit(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(5) or [])
    start = time.monotonic()
    assert not download.reachable("api.kaggle.com", seconds=0.2)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_behind_a_proxy_it_is_the_proxy_that_must_answer(monkeypatch, scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv(
            "https_proxy", f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        )
        assert download.reachable("no-such-host.invalid")


# --- credentials ---


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_without_credentials_there_are_none(home):
    with pytest.raises(
        ValueError,
        match=r"^no Kaggle credentials found \(such as ~/.kaggle/kaggle.json\)$",
    ):
        download.kaggle_credentials()


@pytest.mark.parametrize("found", [PAIR, TOKEN])
def test_credentials_in_the_environment(home, monkeypatch, found):
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert download.kaggle_credentials() == found


@pytest.mark.parametrize(
    "place", ["home/.kaggle/kaggle.json", "here/kaggle.json", "elsewhere/kaggle.json"]
)
def test_user_name_and_key_in_a_kaggle_json(home, monkeypatch, place):
    if place.startswith("elsewhere"):
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home.parent / "elsewhere"))
    put(
        home.parent / place,
        {"username": PAIR["KAGGLE_USERNAME"], "key": PAIR["KAGGLE_KEY"]},
    )
    assert download.kaggle_credentials() == PAIR


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_credentials_as_any_editor_writes_them(home, encoding):
    login = {"username": PAIR["KAGGLE_USERNAME"], "key": PAIR["KAGGLE_KEY"]}
    file = home / ".kaggle/kaggle.json"
    put(file, login)
    file.write_bytes(json.dumps(login).encode(encoding))
    assert download.kaggle_credentials() == PAIR
    file.rename(file.with_name("access_token"))
    token = TOKEN["KAGGLE_API_TOKEN"]
    file.with_name("access_token").write_bytes(f"{token}\r\n".encode(encoding))
    assert download.kaggle_credentials() == TOKEN


def test_the_new_kind_of_token_in_a_file(home):
    put(home / ".kaggle/access_token", TOKEN["KAGGLE_API_TOKEN"] + "\n")
    assert download.kaggle_credentials() == TOKEN


@pytest.mark.parametrize("found", [PAIR, TOKEN])
def test_secrets_in_colab_where_asking_for_another_secret_raises(
    home, monkeypatch, found
):
    userdata = types.ModuleType("google.colab.userdata")
    userdata.get = found.__getitem__
    for name in ("google", "google.colab"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.colab.userdata", userdata)
    assert download.kaggle_credentials() == found


def test_the_environment_goes_before_the_working_folder_and_that_before_the_home_folder(
    home, monkeypatch
):
    put(home / ".kaggle/kaggle.json", {"username": "in-home", "key": "k"})
    assert download.kaggle_credentials()["KAGGLE_USERNAME"] == "in-home"
    put(home.parent / "here/kaggle.json", {"username": "in-here", "key": "k"})
    assert download.kaggle_credentials()["KAGGLE_USERNAME"] == "in-here"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "in-environment")
    assert download.kaggle_credentials() == {"KAGGLE_API_TOKEN": "in-environment"}


@pytest.mark.parametrize(
    "content", ['{"username": "ada", "key": "0123', '["secret"]', '{"username": "ada"}']
)
def test_a_malformed_kaggle_json_is_named_without_its_path_or_content(home, content):
    put(home / ".kaggle/kaggle.json", content)
    with pytest.raises(
        ValueError,
        match=r"^~/\.kaggle/kaggle\.json holds no Kaggle user name and key; .*\.$",
    ) as error:
        download.kaggle_credentials()
    assert not any(
        word in str(error.value) for word in (str(home), "0123", "secret", "ada")
    )


# --- downloads ---


@pytest.mark.parametrize(
    ("downloader", "login", "authorization"),
    [
        (
            "opendatasets",
            PAIR,
            "Basic " + base64.b64encode(b"ada:0123456789abcdef").decode(),
        ),
        ("opendatasets", TOKEN, "Bearer KGAT_fedcba9876543210"),
        ("kagglehub", {}, None),
    ],
    ids=[
        "opendatasets with a key",
        "opendatasets with a token",
        "kagglehub without login",
    ],
)
def test_a_download_is_complete_and_leaves_nothing_else(
    kaggle, home, tmp_path, capfd, downloader, login, authorization
):
    put(home / ".kaggle/access_token", "not-the-one-asked-for")
    target = tmp_path / "data/scans"
    download.fetch(target, EXPECTED, downloader, login)
    assert {
        path: (target / path).read_bytes() for path in files_in(tmp_path / "data/scans")
    } == SCANS
    assert [path.name for path in target.parent.iterdir()] == ["scans"]
    assert files_in(home) == [".kaggle/access_token"]
    assert kaggle.seen[-1] == ("DownloadDataset", authorization)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            (401, {"code": 401, "message": "Unauthenticated"}),
            "Kaggle refused access; make a new token",
        ),
        ((403, b"no"), "Kaggle refused access; make a new token"),
        (
            (404, {"code": 404, "message": "Not found"}),
            "404 HTTPError: .*; try again, or set BRAINTUMOR_DATA",
        ),
        ((429, b"slow down"), "429 HTTPError: .*; try again, or set BRAINTUMOR_DATA"),
        (
            (400, {"code": 400, "message": f"bad key {PAIR['KAGGLE_KEY']}"}),
            "400 HTTPError: bad key \\*\\*\\*; try",
        ),
        ((200, archive(SCANS)[:-100]), "the archive arrived damaged; try again"),
        (
            (200, archive(SCANS | {"Training/no_tumor/image (1).jpg": b"other"})),
            "1 of 8 scans arrived wrong",
        ),
        ((200, archive({"readme.txt": b"moved"})), "8 of 8 scans arrived wrong"),
    ],
    ids=[
        "401",
        "403",
        "404",
        "429",
        "error that shows the key",
        "truncated",
        "changed scan",
        "other data set",
    ],
)
def test_a_failed_download_is_one_sentence_and_leaves_nothing(
    kaggle, tmp_path, capfd, answer, sentence
):
    kaggle.answer = lambda: answer
    with pytest.raises(ConnectionError, match=rf"^{sentence}[^\n]*\.$") as error:
        download.fetch(tmp_path / "data/scans", EXPECTED, "opendatasets", PAIR)
    assert list((tmp_path / "data").iterdir()) == []
    assert PAIR["KAGGLE_KEY"] not in str(error.value) and str(tmp_path) not in str(
        error.value
    )
    assert capfd.readouterr() == ("", "")


def test_a_revoked_token_is_refused_and_never_asked_for_again(kaggle, tmp_path):
    kaggle.knows_token, kaggle.answer = (
        False,
        lambda: (401, {"code": 401, "message": "Unauthenticated"}),
    )
    with pytest.raises(ConnectionError, match=r"^Kaggle refused access"):
        download.fetch(tmp_path / "data/scans", EXPECTED, "opendatasets", TOKEN)
    assert list((tmp_path / "data").iterdir()) == []


def test_kagglehub_fails_as_cleanly(kaggle, tmp_path):
    kaggle.answer = lambda: (403, b"no")
    with pytest.raises(ConnectionError, match=r"^Kaggle refused access"):
        download.fetch(tmp_path / "data/scans", EXPECTED, "kagglehub", {})
    assert list((tmp_path / "data").iterdir()) == []


def test_a_download_that_stands_still_is_ended(kaggle, tmp_path):
    kaggle.answer = lambda: (kaggle.done.wait(20), (500, b""))[1]
    with pytest.raises(
        ConnectionError,
        match=r"^nothing arrived for 1 seconds, or the disk is full; try again",
    ):
        download.fetch(
            tmp_path / "data/scans", EXPECTED, "opendatasets", PAIR, stall_seconds=1
        )
    assert list((tmp_path / "data").iterdir()) == []


def test_without_a_network_nothing_is_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "reachable", lambda host: False)
    with pytest.raises(
        ConnectionError, match=r"^no network \(api.kaggle.com does not answer\)$"
    ):
        download.fetch(tmp_path / "data/scans", EXPECTED, "kagglehub", {})
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(home, tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/opendatasets.py").write_text("import cgi_that_left_python_3_13")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(download, "reachable", lambda host: True)
    with pytest.raises(
        ConnectionError,
        match=r"^the Python module cgi_that_left_python_3_13 is missing; run pip",
    ):
        download.fetch(tmp_path / "data/scans", EXPECTED, "opendatasets", PAIR)


def test_scans_of_a_faster_process_are_kept(kaggle, tmp_path):
    def answer():
        put(tmp_path / "data/scans/theirs.txt", "theirs")
        return 200, archive(SCANS)

    kaggle.answer = answer
    download.fetch(tmp_path / "data/scans", EXPECTED, "opendatasets", PAIR)
    assert files_in(tmp_path / "data") == ["scans/theirs.txt"]


# --- what can go wrong on the way ---

LOGINS = {"opendatasets": PAIR, "kagglehub": {}}
both = pytest.mark.parametrize(
    "downloader", ["opendatasets", pytest.param("kagglehub", marks=pytest.mark.slow)]
)
FLIPPED = bytearray(archive(SCANS))
FLIPPED[FLIPPED.index(SCANS["Training/no_tumor/image (2).jpg"])] ^= 1


def complete(folder):
    """Whether the folder holds exactly the scans."""
    return {path: (folder / path).read_bytes() for path in files_in(folder)} == SCANS


@both
@pytest.mark.parametrize(
    "answer",
    [
        *((200, archive(SCANS), {"share": share}) for share in (0.1, 0.5, 0.99)),
        (200, archive(SCANS), {"stall": 30.0}),
        (200, bytes(FLIPPED)),
        (
            200,
            archive(
                {path: scan for path, scan in SCANS.items() if "no_tumor" not in path}
            ),
        ),
        (200, archive(SCANS | {"Training/no_tumor/image (1).jpg": b""})),
        (429, b"slow down", {"Retry_After": "1"}),
        (500, b"broken"),
    ],
    ids=[
        "cut at 10 %",
        "cut at 50 %",
        "cut at 99 %",
        "stalled half-way",
        "flipped bit",
        "class missing",
        "empty scan",
        "429 with Retry-After",
        "500",
    ],
)
def test_after_a_fault_there_is_nothing(kaggle, tmp_path, downloader, answer):
    kaggle.answer = lambda: answer
    with pytest.raises(ConnectionError, match=r"^[^\n]+\.$") as error:
        download.fetch(
            tmp_path / "data/scans",
            EXPECTED,
            downloader,
            LOGINS[downloader],
            stall_seconds=3,
        )
    assert list((tmp_path / "data").iterdir()) == []
    assert PAIR["KAGGLE_KEY"] not in str(error.value) and str(tmp_path) not in str(
        error.value
    )


@both
def test_after_a_fault_the_next_run_succeeds(kaggle, tmp_path, downloader):
    target, login = tmp_path / "data/scans", LOGINS[downloader]
    kaggle.answer = lambda: (200, archive(SCANS), {"share": 0.5})
    with pytest.raises(ConnectionError):
        download.fetch(target, EXPECTED, downloader, login, stall_seconds=3)
    kaggle.answer = lambda: (200, archive(SCANS))
    download.fetch(target, EXPECTED, downloader, login)
    assert complete(target)


@pytest.mark.parametrize(
    "name", ["../../evil.jpg", "/evil.jpg", "Training/../../../evil.jpg"]
)
@both
def test_no_path_in_an_archive_leaves_the_folder(kaggle, tmp_path, downloader, name):
    before = files_in(tmp_path)
    kaggle.answer = lambda: (200, archive(SCANS | {name: b"evil"}))
    with suppress(ConnectionError):
        download.fetch(
            tmp_path / "data/scans", EXPECTED, downloader, LOGINS[downloader]
        )
    written = set(files_in(tmp_path)) - set(before)
    assert [
        path
        for path in written
        if not path.startswith("data/scans/") and "__pycache__" not in path
    ] == []
    assert not Path("/evil.jpg").exists()


@both
def test_a_link_in_an_archive_leads_nowhere(kaggle, tmp_path, downloader):
    (tmp_path / "private.txt").write_text("private")
    link = zipfile.ZipInfo("Training/no_tumor/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    kaggle.answer = lambda: (
        200,
        archive(SCANS | {link: str(tmp_path / "private.txt")}),
    )
    with suppress(ConnectionError):
        download.fetch(
            tmp_path / "data/scans", EXPECTED, downloader, LOGINS[downloader]
        )
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@both
def test_a_zip_bomb_is_stopped(kaggle, tmp_path, monkeypatch, downloader):
    monkeypatch.setattr(download, "MOST_BYTES", 20_000_000)
    bomb = zipfile.ZipInfo("bomb.jpg")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    packed = archive(SCANS | {bomb: bytes(300_000_000)})
    kaggle.answer = lambda: (200, packed)
    with pytest.raises(
        ConnectionError,
        match=r"^more than 20 MB arrived, so it is not the data set; .*\.$",
    ):
        download.fetch(
            tmp_path / "data/scans", EXPECTED, downloader, LOGINS[downloader]
        )
    assert list((tmp_path / "data").iterdir()) == []


@both
def test_a_full_disk_is_named_and_left_empty(kaggle, disk, downloader):
    folder = disk("size=64k")
    packed = archive(SCANS | {"large.jpg": bytes(1 << 20)})
    kaggle.answer = lambda: (200, packed)
    with pytest.raises(ConnectionError, match=r"^[^\n]*(disk|space)[^\n]*\.$"):
        download.fetch(
            folder / "scans", EXPECTED, downloader, LOGINS[downloader], stall_seconds=3
        )
    assert list(folder.iterdir()) == []


def test_a_disk_that_may_not_be_written_is_named(kaggle, disk):
    with pytest.raises(OSError, match="Read-only file system"):
        download.fetch(disk("ro") / "scans", EXPECTED, "kagglehub", {})


def test_two_downloads_at_once_end_with_one_data_set(kaggle, tmp_path):
    together = threading.Barrier(2, timeout=60)
    kaggle.answer = lambda: (together.wait(), (200, archive(SCANS)))[1]
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                partial(download.fetch, tmp_path / "data/scans", EXPECTED),
                LOGINS,
                LOGINS.values(),
            )
        )
    assert complete(tmp_path / "data/scans")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["scans"]


def test_no_file_ever_holds_a_key_not_even_while_it_is_used(kaggle, tmp_path):
    found = []

    def answer():
        texts = {
            path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
        }
        found.append(
            [
                path
                for path, text in texts.items()
                if PAIR["KAGGLE_KEY"].encode() in text
            ]
        )
        return 200, archive(SCANS)

    kaggle.answer = answer
    download.fetch(tmp_path / "data/scans", EXPECTED, "opendatasets", PAIR)
    assert found == [[]]


def test_a_planted_key_is_nowhere_after_a_failed_and_a_good_download(
    kaggle, tmp_path, monkeypatch, capfd
):
    key = PAIR["KAGGLE_KEY"]
    for name, value in PAIR.items():
        monkeypatch.setenv(name, value)
    reference = EXPECTED.assign(group="a")
    put(tmp_path / "data/image_groups.csv", reference.to_csv(index=False))
    answers = [(400, {"code": 400, "message": f"bad key {key}"}), (200, archive(SCANS))]
    kaggle.answer = lambda: answers.pop(0)
    target = dataset.locate_data(tmp_path / "data", tmp_path / "build")
    assert complete(target)
    printed = "".join(capfd.readouterr())
    assert "bad key ***" in printed and key not in printed
    assert not any(
        key.encode() in path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    )


FETCH = """
import sys, pandas
from pathlib import Path
from braintumor.support import download
download.reachable = lambda host: True
download.fetch(Path(sys.argv[1]), pandas.read_csv(sys.argv[2]), "kagglehub", {})
"""


@pytest.mark.slow
def test_killed_at_ten_moments_there_is_all_or_nothing_and_the_next_run_succeeds(
    kaggle, tmp_path
):
    EXPECTED.to_csv(tmp_path / "expected.csv", index=False)
    command = [
        sys.executable,
        "-c",
        FETCH,
        tmp_path / "data/scans",
        tmp_path / "expected.csv",
    ]
    start = time.monotonic()
    subprocess.run(command, check=True)
    whole = time.monotonic() - start
    for moment in range(10):
        shutil.rmtree(tmp_path / "data/scans", ignore_errors=True)
        process = subprocess.Popen(command)
        with suppress(subprocess.TimeoutExpired):
            process.wait(whole * (moment + 0.5) / 10)
        process.kill()
        process.wait()
        assert not (tmp_path / "data/scans").exists() or complete(
            tmp_path / "data/scans"
        )
    shutil.rmtree(tmp_path / "data/scans", ignore_errors=True)
    subprocess.run(command, check=True)
    assert complete(tmp_path / "data/scans")
