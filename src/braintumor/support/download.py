"""How do scans get here? Kaggle credentials; downloads that are complete or absent."""

import json
import multiprocessing.pool
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from site import getuserbase
from subprocess import DEVNULL, Popen, TimeoutExpired
from urllib import parse, request

from braintumor.support.files import checksum

import pandas as pd

DATASET = "sartajbhuvaji/brain-tumor-classification-mri"
HOST = "api.kaggle.com"
MOST_BYTES = 1_000_000_000  # several times the archive and what is in it
POLL_SECONDS = 0.5  # how often a running download is looked at
TOKENS_PAGE = "https://www.kaggle.com/settings"
OWN_COPY = "try again, or set BRAINTUMOR_DATA to a copy of your own."
# where people keep their login, the first that is there wins
CREDENTIAL_FILES = [
    "./kaggle.json",
    "~/.kaggle/access_token",
    "$KAGGLE_CONFIG_DIR/kaggle.json",
    "~/.kaggle/kaggle.json",
]
# two kinds of login: a new token, or a user name with a key
LOGINS = [["KAGGLE_API_TOKEN"], ["KAGGLE_USERNAME", "KAGGLE_KEY"]]
# the home folder of the client is the download's own folder, so it leaves nothing else
HOME_VARIABLES = ["HOME", "USERPROFILE", "KAGGLE_CONFIG_DIR", "KAGGLEHUB_CACHE"]

# the client runs in a process of its own and leaves "STATUS KIND: TEXT" of an error
_CLIENT = """
try:
    {call}
except BaseException as error:
    status = getattr(getattr(error, "response", None), "status_code", "")
    report = f"{{status}} {{type(error).__name__}}: {{error}}"
    open("error.txt", "wb").write(report.encode(errors="replace"))
    raise SystemExit(1)
"""
_KAGGLEHUB = f"""
    import kagglehub
    kagglehub.dataset_download("{DATASET}")
"""
# opendatasets asks for a name and a key, though the client behind it prefers a token
_OPENDATASETS = f"""
    import os, click, opendatasets
    def answer(text, **options):
        name = "KAGGLE_KEY" if "Key" in text else "KAGGLE_USERNAME"
        return os.environ.get(name, "unused")
    click.prompt = answer
    opendatasets.download("https://www.kaggle.com/datasets/{DATASET}", ".")
"""
# what the client reports, as a pattern, and what a person reads
_REASONS = {
    r"^40[13] |SystemExit": (
        f"Kaggle refused access; make a new token at {TOKENS_PAGE}."
    ),
    r"No module named '([\w.]+)'": (
        r"the Python module \1 is missing; run pip install -r requirements.txt."
    ),
    r"(?i)zip|zlib|corrupt|file size|archive": (
        "the archive arrived damaged; try again."
    ),
}


def reachable(host: str, port: int = 443, seconds: float = 3.0) -> bool:
    """Try whether a host, or the proxy on the way to it, takes a connection.

    Args:
        host: Its name.
        port: Where it listens.
        seconds: The limit for all, the look-up of the name included.

    Returns:
        Whether it answered in time.
    """
    # in a thread, as the look-up of a name has no limit of its own
    with multiprocessing.pool.ThreadPool(1) as pool:
        try:
            address = _proxy_for(host) or (host, port)
            connection = pool.apply_async(socket.create_connection, [address, seconds])
            connection.get(seconds).close()
        except (OSError, ValueError, multiprocessing.TimeoutError):
            return False
    return True


def _proxy_for(host: str) -> tuple[str, int] | None:
    """The name and port of the proxy on the way to a host; None where there is none."""
    proxy = request.getproxies().get("https", "")
    if "//" not in proxy:  # it may come without a scheme
        proxy = f"//{proxy}"
    address = parse.urlsplit(proxy)
    if not address.hostname or request.proxy_bypass(host):
        return None
    return address.hostname, address.port or 80


def kaggle_credentials() -> dict[str, str]:
    """Find what logs the Kaggle client in.

    The environment is searched first, then ``CREDENTIAL_FILES``, then Colab's secrets.

    Returns:
        Environment variables for the client, those of one entry of ``LOGINS``.

    Raises:
        ValueError: There is no login; names a file that should hold one and does not.
    """
    files = _credential_files()
    lookups: list[Callable[[str], str]] = [os.environ.__getitem__]
    for path in files.values():
        lookups.append(partial(_read_credential, path))
    with suppress(ImportError):
        lookups.append(import_module("google.colab.userdata").get)
    for lookup in lookups:
        for names in LOGINS:
            login = _look_up(lookup, names)
            if login:
                return login
    if files:
        name = next(iter(files))
        raise ValueError(
            f"{name} holds no Kaggle user name and key; get a new one at {TOKENS_PAGE}."
        )
    raise ValueError("no Kaggle credentials found (such as ~/.kaggle/kaggle.json)")


def _credential_files() -> dict[str, Path]:
    """Those of ``CREDENTIAL_FILES`` that are here, and where."""
    files = {}
    for name in CREDENTIAL_FILES:
        path = Path(os.path.expandvars(name)).expanduser()
        if path.is_file():
            files[name] = path
    return files


def _read_credential(path: Path, name: str) -> str:
    """The value of a variable, such as KAGGLE_KEY, in a credentials file."""
    content = path.read_bytes()
    # editors of Windows put a mark first, and its command line writes UTF-16
    text = content.decode(json.detect_encoding(content))
    if path.suffix != ".json":
        return text  # a token is all that is in it
    return json.loads(text)[name.removeprefix("KAGGLE_").lower()]


def _look_up(lookup: Callable[[str], str], names: list[str]) -> dict[str, str]:
    """The values of all names; empty where one is missing."""
    try:
        login = {name: lookup(name).strip() for name in names}
    except Exception:  # absent or malformed; Colab has errors of its own for that
        return {}
    return login if all(login.values()) else {}


def fetch(
    target: Path,
    expected: pd.DataFrame,
    downloader: str,
    login: dict[str, str],
    stall_seconds: float = 60.0,
) -> None:
    """Download the scans to a new folder: complete or absent.

    Args:
        target: The folder; where it appears meanwhile, that one is kept.
        expected: Columns ``path`` and ``sha256`` of what must arrive.
        downloader: ``opendatasets`` or ``kagglehub``.
        login: See ``kaggle_credentials``; empty for none.
        stall_seconds: How long to wait for new bytes.

    Raises:
        ConnectionError: There is no network, or not all scans arrived whole.
    """
    if not reachable(HOST):
        raise ConnectionError(f"no network ({HOST} does not answer)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as name:
        folder = Path(name)
        _run_client(folder, downloader, login, stall_seconds)
        training_folders = sorted(folder.rglob("Training"))
        root = training_folders[0].parent if training_folders else folder
        _check_arrived(root, expected)
        if not target.exists():  # else another process was faster
            root.rename(target)


def _check_arrived(root: Path, expected: pd.DataFrame) -> None:
    """ConnectionError where an expected scan is missing or has other content."""
    arrived = set()
    for scan in root.rglob("*.jpg"):
        arrived.add((scan.relative_to(root).as_posix(), checksum(scan)))
    wrong = []
    for path, digest in zip(expected["path"], expected["sha256"], strict=True):
        if (path, digest) not in arrived:
            wrong.append(path)
    if wrong:
        count = f"{len(wrong)} of {len(expected)} scans"
        raise ConnectionError(f"{count} arrived wrong, such as {wrong[0]}; {OWN_COPY}")


def _run_client(
    folder: Path, downloader: str, login: dict[str, str], stall_seconds: float
) -> None:
    """Let the client download into a folder, which is its home, so it cannot prompt."""
    call = _KAGGLEHUB if downloader == "kagglehub" else _OPENDATASETS
    program = _CLIENT.format(call=call.strip())
    with Popen(
        [sys.executable, "-P", "-c", program],
        cwd=folder,
        env=_client_environment(folder, login),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
    ) as process:
        try:
            _watch(process, folder, stall_seconds)
        finally:
            process.kill()
    if process.returncode:
        raise ConnectionError(_failure(folder, login))


def _client_environment(folder: Path, login: dict[str, str]) -> dict[str, str]:
    """The environment without any other login, and with the folder as home."""
    environment = {}
    for name, value in os.environ.items():
        if not name.startswith("KAGGLE"):
            environment[name] = value
    environment.update(login)
    for name in HOME_VARIABLES:
        environment[name] = str(folder)
    # packages of the user are still found, though the home folder is another one
    environment["PYTHONUSERBASE"] = getuserbase()
    environment["DISABLE_COLAB_CACHE"] = "1"
    return environment


def _watch(process: Popen, folder: Path, stall_seconds: float) -> None:
    """Wait until the client ends; ConnectionError where it stalls or floods."""
    size_before = None
    size = 0
    seconds_still = 0.0
    while process.poll() is None:
        with suppress(TimeoutExpired):
            process.wait(POLL_SECONDS)
        with suppress(OSError):  # files come and go
            new_size = sum(path.stat().st_size for path in folder.rglob("*"))
            size_before = size
            size = new_size
        seconds_still = seconds_still + POLL_SECONDS if size == size_before else 0.0
        if size > MOST_BYTES:
            much = f"more than {MOST_BYTES / 1e6:.0f} MB arrived"
            raise ConnectionError(f"{much}, so it is not the data set; {OWN_COPY}")
        if seconds_still >= stall_seconds:
            stalled = f"nothing arrived for {seconds_still:.0f} seconds"
            raise ConnectionError(f"{stalled}, or the disk is full; {OWN_COPY}")


def _failure(folder: Path, login: dict[str, str]) -> str:
    """What a person reads about a client that failed, without paths and secrets."""
    file = folder / "error.txt"
    report = file.read_text(encoding="utf-8") if file.exists() else ""
    if not report:
        report = "the client ended without a word: full disk?"
    for secret in (str(folder), *login.values()):
        report = report.replace(secret, "***")
    for pattern, reason in _REASONS.items():
        match = re.search(pattern, report)
        if match:
            return match.expand(reason)
    report = " ".join(report.split())[:200]
    return f"{report}; {OWN_COPY}"
