"""Files that outlive a run: written whole or not at all, read or named as damaged, one process at a time."""

import hashlib
import os
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what answers quickly reads files, but needs no tables
    import pandas as pd


def checksum(file: Path) -> str:
    """The sha256 of a file, read in pieces: a checkpoint can be as large as what is left of the memory."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_file(file: Path, read, sha256: str | None = None):
    """``read(file)``; whatever goes wrong with a file that an earlier run wrote is a ValueError that names it."""
    try:
        if sha256 and checksum(file) != sha256:
            raise ValueError("not as it was written")
        return read(file)
    except Exception as error:
        raise ValueError(
            f"'{file.parent.name}/{file.name}' is damaged: restore it or remove that run."
        ) from error


def read_model(file: Path, read):
    """``read(file)`` of a ``.keras`` file, after every byte of its parts was compared with their checksums.

    Keras itself may read past a flipped bit: whether it notices depends on the version of Python.

    Args:
        file: A zip archive, as Keras saves a model.
        read: What loads it, such as ``keras.saving.load_model``.

    Returns:
        What ``read`` returns.

    Raises:
        ValueError: The file is damaged; the message names it.
    """

    def read_if_whole(file):
        with zipfile.ZipFile(file) as archive:
            damaged_part = archive.testzip()
        if damaged_part:
            raise ValueError(f"{damaged_part} is not as it was written")
        return read(file)

    return read_file(file, read_if_whole)


def replace_file(file: Path, write) -> None:
    """Call ``write(temporary path)``, then rename: the file is the old one or the whole new one; makes its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"writing-{file.name}")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(table: "pd.DataFrame", file: Path) -> None:
    """Write a CSV file whole or not at all, with six significant digits and LF line ends."""
    replace_file(
        file,
        lambda temporary: table.to_csv(
            temporary, index=False, float_format="%.6g", lineterminator="\n"
        ),
    )


def claim(folder: Path):
    """Lock a run's folder for a ``with``, at most until this process ends; RuntimeError names who has it already."""
    from filelock import (
        FileLock,
        Timeout,
    )  # brings asyncio, which only a training should wait for

    owner = Path(f"{folder}.owner")
    try:
        held = FileLock(f"{folder}.lock").acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"{owner.read_text()} trains '{folder.name}': wait for it, or stop it first."
        ) from None
    owner.write_text(f"Process {os.getpid()} (since {time.ctime()})")
    return held
