"""Classifiers by URL: fetched once, kept by content, and only if they are whole."""

import http.client
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import BinaryIO
from urllib import error, parse, request

from braintumor import config
from braintumor.support.files import checksum

MOST_BYTES = 2_000_000_000  # no classifier is larger
TIMEOUT = 60  # seconds without an answer
PIECE = 1 << 20  # bytes that are read at once


def fetch(url: str, sha256: str | None, check: Callable[[Path], object]) -> Path:
    """Get a classifier over the network, or the copy that was kept of it.

    Args:
        url: Its http or https address.
        sha256: Its checksum, 64 hexadecimal digits, which is compared; None: a copy
            that came from the same address is taken as it is.
        check: What a new file must pass before it is kept; raises ValueError.

    Returns:
        The file.

    Raises:
        ConnectionError: It cannot be fetched, or is no classifier; names the address.
    """
    cache = _cache_folder()
    source = cache / "urls" / f"{new_sha256(url.encode()).hexdigest()}.txt"
    digest = sha256 or _read_text(source)
    kept = _kept_file(cache, digest)
    if kept:
        return kept
    shown = shown_url(url)
    print(f"Fetching {shown} ...", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as folder:
            file = Path(folder) / _file_name(url)
            _download(url, file)
            digest = checksum(file)
            if sha256 and digest != sha256:
                raise ValueError(f"it has the checksum {digest}, not {sha256}")
            check(file)
            kept = cache / digest / file.name
            kept.parent.mkdir(exist_ok=True)
            os.replace(file, kept)
    except (OSError, ValueError, http.client.HTTPException) as reason:
        words = getattr(reason, "reason", None) or reason
        raise ConnectionError(
            f"The classifier cannot be fetched: {shown}: {words}"
        ) from reason
    # several commands may write it at once; a part of it only lets the next fetch again
    source.parent.mkdir(exist_ok=True)
    source.write_text(digest, encoding="utf-8")
    return kept


def shown_url(url: str) -> str:
    """Write an address without what may be secret in it.

    Args:
        url: Any address.

    Returns:
        The same without a user's name and password, and without a query.
    """
    try:
        parts = parse.urlsplit(url)
    except ValueError:  # no address at all
        return "that address"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _cache_folder() -> Path:
    """Where files are kept: in the folder of Keras, or with the files of runs."""
    keras_home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    folder = keras_home / "braintumor"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):  # as a home folder may be
        folder = config.BUILD_DIR / "fetched"
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _read_text(file: Path) -> str:
    """What a small file says, or ""."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _kept_file(cache: Path, digest: str) -> Path | None:
    """The kept file with this checksum, if it is still whole."""
    if not digest:
        return None
    for file in sorted((cache / digest).glob("*")):
        if file.is_file() and checksum(file) == digest:
            return file
    return None


def _file_name(url: str) -> str:
    """The last part of the path in an address."""
    path = parse.unquote(parse.urlsplit(url).path)
    name = Path(path).name
    return "classifier" if name in ("", "..") else name


def _download(url: str, file: Path) -> None:
    """Write what an address gives, all of it."""
    # some servers refuse Python's own name
    asked = request.Request(url, headers={"User-Agent": "braintumor"})
    try:
        with request.urlopen(asked, timeout=TIMEOUT) as answer:
            expected = answer.headers.get("Content-Length")
            size = _write_pieces(answer, file)
    except error.HTTPError as reason:
        raise ConnectionError(
            f"the server says {reason.code} {reason.reason}"
        ) from None
    if expected and size != int(expected):
        raise ConnectionError(f"{size:,} of {int(expected):,} bytes arrived")


def _write_pieces(answer: BinaryIO, file: Path) -> int:
    """Write all that a server sends, and count its bytes."""
    size = 0
    with file.open("wb") as target:
        while True:
            piece = answer.read(PIECE)
            if not piece:
                return size
            size += len(piece)
            if size > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES / 1e9:.0f} GB arrived")
            target.write(piece)
