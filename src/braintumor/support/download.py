"""How do scans get here? Kaggle credentials wherever users keep them; downloads that are complete or absent."""

import json
import multiprocessing.pool
import os
import re
import socket
import sys
import tempfile
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from site import getuserbase
from subprocess import DEVNULL, Popen, TimeoutExpired
from urllib import parse, request

from braintumor.support.files import checksum

import pandas as pd

DATASET = "sartajbhuvaji/brain-tumor-classification-mri"
HOST = "api.kaggle.com"
MOST_BYTES = 1_000_000_000  # several times the archive and what is in it
_FILES = (
    "./kaggle.json",
    "~/.kaggle/access_token",
    "$KAGGLE_CONFIG_DIR/kaggle.json",
    "~/.kaggle/kaggle.json",
)
_CHILD = """try:
    {call}
except BaseException as error:
    status = getattr(getattr(error, "response", None), "status_code", "")
    open("error.txt", "wb").write(f"{{status}} {{type(error).__name__}}: {{error}}".encode(errors="replace"))
    raise SystemExit(1)"""
_HUB = f"import kagglehub; kagglehub.dataset_download('{DATASET}')"
_OPEN = f"""import os, click, opendatasets  # asks for a name and a key; the client behind it prefers a token
    click.prompt = lambda text, **_: os.environ.get("KAGGLE_KEY" if "Key" in text else "KAGGLE_USERNAME", "unused")
    opendatasets.download("https://www.kaggle.com/datasets/{DATASET}", ".")"""
_REASONS = {  # what the client says ("STATUS KIND: TEXT"), and what a person reads
    r"^40[13] |SystemExit": "Kaggle refused access; make a new token at https://www.kaggle.com/settings.",
    r"No module named '([\w.]+)'": r"the Python module \1 is missing; run pip install -r requirements.txt.",
    r"(?i)zip|zlib|corrupt|file size|archive": "the archive arrived damaged; try again.",
}
_OWN = "try again, or set BRAINTUMOR_DATA to a copy of your own."


def reachable(host: str, port: int = 443, seconds: float = 3.0) -> bool:
    """Whether ``host``, or the proxy on the way to it, takes a connection within ``seconds``, look-up included."""
    proxy = request.getproxies().get("https", "")
    proxy = parse.urlsplit(
        proxy if "//" in proxy else f"//{proxy}"
    )  # it may come without a scheme
    if proxy.hostname and not request.proxy_bypass(host):
        host, port = proxy.hostname, proxy.port or 80
    with (
        suppress(OSError, ValueError, multiprocessing.TimeoutError),
        multiprocessing.pool.ThreadPool(1) as pool,
    ):
        pool.apply_async(socket.create_connection, [(host, port), seconds]).get(
            seconds
        ).close()
        return True
    return False


def kaggle_credentials() -> dict[str, str]:
    """What logs the Kaggle client in, as environment variables; ValueError where nothing does."""
    files = {
        name: path
        for name in _FILES
        if (path := Path(os.path.expandvars(name)).expanduser()).is_file()
    }
    places = [os.environ.get, *(partial(_from_file, path) for path in files.values())]
    with suppress(ImportError):
        places.append(import_module("google.colab.userdata").get)
    for get, names in product(
        places, (("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY"))
    ):
        with suppress(
            Exception
        ):  # not there or malformed; Colab raises for a secret that is absent or not shared
            found = {name: get(name).strip() for name in names}
            if all(found.values()):
                return found
    for name in files:
        raise ValueError(
            f"{name} holds no Kaggle user name and key; get a new one at https://www.kaggle.com/settings."
        )
    raise ValueError("no Kaggle credentials found (such as ~/.kaggle/kaggle.json)")


def _from_file(path, name):
    text = path.read_text(encoding="utf-8-sig")
    return (
        json.loads(text)[name.removeprefix("KAGGLE_").lower()]
        if path.suffix == ".json"
        else text
    )


def fetch(
    target: Path,
    expected: pd.DataFrame,
    downloader: str,
    login: dict,
    stall_seconds: float = 60.0,
):
    """Download the scans to ``target``, a new folder: complete or absent.

    ``expected``: columns path and sha256 of what must arrive; ``downloader``: opendatasets or kagglehub; ``login``:
    see ``kaggle_credentials``, or empty. Raises ConnectionError, also after ``stall_seconds`` without new bytes.
    """
    if not reachable(HOST):
        raise ConnectionError(f"no network ({HOST} does not answer)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as name:
        _run(folder := Path(name), downloader, login, stall_seconds)
        root = next((path.parent for path in sorted(folder.rglob("Training"))), folder)
        here = {
            (jpg.relative_to(root).as_posix(), checksum(jpg))
            for jpg in root.rglob("*.jpg")
        }
        wrong = [
            path
            for path, digest in zip(expected["path"], expected["sha256"])
            if (path, digest) not in here
        ]
        if wrong:
            raise ConnectionError(
                f"{len(wrong)} of {len(expected)} scans arrived wrong, such as {wrong[0]}; {_OWN}"
            )
        if not target.exists():  # else another process was faster
            root.rename(target)


def _run(folder, downloader, login, stall_seconds):
    """Let the client work as long as ``folder`` changes: its home, so it cannot prompt or leave anything elsewhere."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KAGGLE")
    } | login
    environment |= dict.fromkeys(
        ("HOME", "USERPROFILE", "KAGGLE_CONFIG_DIR", "KAGGLEHUB_CACHE"), str(folder)
    )
    environment |= {"PYTHONUSERBASE": getuserbase(), "DISABLE_COLAB_CACHE": "1"}
    command = [
        sys.executable,
        "-P",
        "-c",
        _CHILD.format(call=_HUB if downloader == "kagglehub" else _OPEN),
    ]
    before, size, still = None, 0, 0.0
    options = dict(
        cwd=folder, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )
    with Popen(command, **options) as process, ExitStack() as at_the_end:
        at_the_end.callback(process.kill)
        while process.poll() is None:
            with suppress(TimeoutExpired):
                process.wait(0.5)
            with suppress(OSError):  # files come and go
                before, size = (
                    size,
                    sum(path.stat().st_size for path in folder.rglob("*")),
                )
            still = still + 0.5 if size == before else 0.0
            if size > MOST_BYTES:
                raise ConnectionError(
                    f"more than {MOST_BYTES / 1e6:.0f} MB arrived, so it is not the data set; {_OWN}"
                )
            if still >= stall_seconds:
                raise ConnectionError(
                    f"nothing arrived for {still:.0f} seconds, or the disk is full; {_OWN}"
                )
    if process.returncode:
        report = folder / "error.txt"
        said = (
            report.exists()
            and report.read_text(encoding="utf-8")
            or "the client ended without a word: full disk?"
        )
        said = re.sub(
            "|".join(map(re.escape, (str(folder), *login.values()))), "***", said
        )
        reasons = (
            match.expand(reason)
            for pattern, reason in _REASONS.items()
            if (match := re.search(pattern, said))
        )
        raise ConnectionError(next(reasons, f"{' '.join(said.split())[:200]}; {_OWN}"))
