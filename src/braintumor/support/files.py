"""Files that outlive a run: written whole or not at all, read or named as damaged."""

import hashlib
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what answers quickly reads files, but needs no tables
    import pandas as pd


def checksum(file: Path) -> str:
    """Compute the sha256 of a file, read in pieces.

    Args:
        file: Of any size: a checkpoint can be as large as the memory that is left.

    Returns:
        64 hexadecimal digits.
    """
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_file(
    file: Path, read: Callable[[Path], Any], sha256: str | None = None
) -> Any:
    """Read a file that an earlier run wrote.

    Args:
        file: The file.
        read: What reads it.
        sha256: The checksum that it had when it was written. None is not compared.

    Returns:
        What ``read`` returns.

    Raises:
        ValueError: Whatever went wrong; the message names the file.
    """
    try:
        if sha256 and checksum(file) != sha256:
            raise ValueError("not as it was written")
        return read(file)
    except Exception as error:
        name = f"{file.parent.name}/{file.name}"
        raise ValueError(
            f"'{name}' is damaged: restore it or remove that run."
        ) from error


def read_model(file: Path, read: Callable[[Path], Any]) -> Any:
    """Read a ``.keras`` file, after every byte was compared with its checksums.

    Keras itself may read past a flipped bit: whether it notices depends on the version
    of Python.

    Args:
        file: A zip archive, as Keras saves a model.
        read: What loads it, such as ``keras.saving.load_model``.

    Returns:
        What ``read`` returns.

    Raises:
        ValueError: The file is damaged; the message names it.
    """

    def read_if_whole(file: Path) -> Any:
        with zipfile.ZipFile(file) as archive:
            damaged_part = archive.testzip()
        if damaged_part:
            raise ValueError(f"{damaged_part} is not as it was written")
        return read(file)

    return read_file(file, read_if_whole)


def replace_file(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that it is the old one or the whole new one, never a part.

    Args:
        file: Where it goes; its folder is made.
        write: Writes it to the temporary path that it is given, which is then renamed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"writing-{file.name}")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(table: "pd.DataFrame", file: Path) -> None:
    """Write a CSV file whole or not at all.

    Args:
        table: Its numbers get six significant digits, its lines end with LF.
        file: Where it goes; its folder is made.
    """

    def write(temporary: Path) -> None:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")

    replace_file(file, write)


def claim(folder: Path) -> Any:
    """Lock the folder of a run, at most until this process ends.

    Args:
        folder: Of the run's model files.

    Returns:
        The lock, for a ``with``.

    Raises:
        RuntimeError: Another process has it; the message names that process.
    """
    # it brings asyncio, which only a training should wait for
    from filelock import FileLock, Timeout

    owner_file = Path(f"{folder}.owner")
    try:
        lock = FileLock(f"{folder}.lock").acquire(timeout=0)
    except Timeout:
        try:
            owner = owner_file.read_text()
        except FileNotFoundError:  # it has the lock, but has not yet said who it is
            owner = "Another process"
        raise RuntimeError(
            f"{owner} trains '{folder.name}': wait for it, or stop it first."
        ) from None
    owner_file.write_text(f"Process {os.getpid()} (since {time.ctime()})")
    return lock
