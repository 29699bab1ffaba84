"""Which scans are there, and are they the right ones? Find, list, verify."""

import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from braintumor.config import BUILD_DIR, DATA_DIR
from braintumor.images import IMAGE_ENDINGS
from braintumor.support import download
from braintumor.support.files import checksum

import numpy as np
import pandas as pd

# scans without a tumor: a tumor that is called so is missed, and such a scan that is
# called a tumor is a false alarm
NO_TUMOR = "no_tumor"
# a tumor's bounding box, in pixels of the file
BOX = ["box_x", "box_y", "box_w", "box_h"]
SPLIT_FOLDERS = ["Training", "Testing"]
REFERENCE_TABLE = "image_groups.csv"  # known scans: of a data folder, or the committed
SYNTHETIC_ARCHIVE = Path(__file__).with_name("phantoms.zip")  # by tools/phantoms.py
SYNTHETIC_TABLE = "phantoms.csv"  # marks, and describes, a folder of synthetic scans
DOWNLOAD_FOLDER = download.DATASET.split("/")[1]
NAMES_SHOWN = 10  # files that a message names before it only counts the others
_SCAN_PATH = (
    r"^(?P<path>(?P<split>Testing|Training)/(?P<label>[^._/][^/]*)"
    rf"/[^./][^/]*\.{IMAGE_ENDINGS})$"
)
SYSTEM_FILES = ("Thumbs.db", "desktop.ini")  # Windows puts them beside images
_TEXT_COLUMNS = {"path": str, "sha256": str, "group": str}


def banner_for(status: str) -> str:
    """Say what every figure has to say about its data.

    Args:
        status: Of a ``DataReport``.

    Returns:
        A warning for synthetic scans, else nothing.
    """
    if status == "phantoms":
        return "PHANTOMS: synthetic drawings, not patients"
    return ""


@dataclasses.dataclass(frozen=True)
class DataReport:
    """How the scans in a folder compare with those that were published.

    Attributes:
        name: The data set.
        status: ``verified``: all scans are as published. ``incomplete``: some are
            missing. ``changed``: some differ, or there are others. ``unverified``: most
            are others. ``phantoms``: the scans are synthetic.
        scans: Scans in the folder.
        verified: Those of them that are as published.
        expected: Scans that were published.
        missing: Paths that were published and are not there.
        changed: Paths whose content differs.
        extra: Paths that were not published.
        left_out: Paths that cannot be read and are therefore not used.
        has_no_tumor: Whether there is a class ``NO_TUMOR``.
    """

    name: str
    status: str
    scans: int
    verified: int
    expected: int
    missing: list[str]
    changed: list[str]
    extra: list[str]
    left_out: list[str] = dataclasses.field(default_factory=list)
    has_no_tumor: bool = True

    @property
    def banner(self) -> str:
        """What every figure has to say about its data: a warning, or nothing."""
        return banner_for(self.status)

    def summary(self) -> str:
        """A line about the scans, and one for each kind of difference."""
        if self.status == "phantoms":
            return f"{self.banner} ({self.scans} scans)"
        if self.status == "unverified":
            lines = [
                f"unverified data set: {self.scans} scans; "
                "copies of a file are kept together, but not the scans of a patient"
            ]
        else:
            lines = [f"verified {self.verified}/{self.expected}", *self._differences()]
        if not self.has_no_tumor:
            lines.append(
                f"no class '{NO_TUMOR}': missed tumors and false alarms are not "
                f"counted; scans without a tumor belong in folders of this name"
            )
        return "\n".join(lines)

    def _differences(self) -> list[str]:
        """A line for each kind of difference."""
        lines = []
        differences = {
            "missing": self.missing,
            "changed": self.changed,
            "extra": self.extra,
        }
        for kind, paths in differences.items():
            if not paths:
                continue
            names = ", ".join(paths[:NAMES_SHOWN])
            if len(paths) > NAMES_SHOWN:
                names += f" and {len(paths) - NAMES_SHOWN} more"
            advice = "only the scans as published repeat the committed results"
            lines.append(f"{len(paths)} {kind} ({advice}): {names}")
        return lines


def locate_data(data_dir: Path = DATA_DIR, build_dir: Path = BUILD_DIR) -> Path:
    """Find the folder with Training and Testing, or download it.

    Five places are tried, and each is printed: ``BRAINTUMOR_DATA``, an earlier
    download, a download by opendatasets, one by kagglehub, and synthetic scans.

    Args:
        data_dir: Where downloads go.
        build_dir: Where synthetic scans go.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: ``BRAINTUMOR_DATA`` names no folder.
    """
    at_hand = data_at_hand(data_dir)
    if at_hand is not None:
        return at_hand
    target = data_dir / DOWNLOAD_FOLDER
    # kagglehub fetches public data sets without a login
    login_finders: dict[str, Callable[[], dict[str, str]]] = {
        "opendatasets": download.kaggle_credentials,
        "kagglehub": lambda: {},
    }
    for downloader, find_login in login_finders.items():
        print(f"{downloader}: about 90 MB ... ", end="", flush=True)
        try:
            expected = reference_table(target, data_dir)
            download.fetch(target, expected, downloader, find_login())
            print("downloaded and verified")
            return target
        except (OSError, ValueError) as error:
            print(getattr(error, "strerror", None) or error)
    print(
        "PHANTOMS: no scans could be had, so everything below shows "
        "synthetic drawings, not patients."
    )
    return unpack_synthetic_scans(build_dir)


def data_at_hand(data_dir: Path = DATA_DIR, verbose: bool = True) -> Path | None:
    """Find scans that are here already: named by the user, or downloaded before.

    Args:
        data_dir: Where downloads go.
        verbose: Whether each place that is tried is printed.

    Returns:
        The folder; None where there is none.

    Raises:
        FileNotFoundError: The place is no folder.
    """
    variable = os.environ.get("BRAINTUMOR_DATA")
    download_folder = data_dir / DOWNLOAD_FOLDER
    places = {
        "BRAINTUMOR_DATA": Path(variable).expanduser() if variable else None,
        f"data/{DOWNLOAD_FOLDER}": download_folder
        if download_folder.exists()
        else None,
    }
    for name, folder in places.items():
        if verbose:
            print(f"{name}: {'used' if folder else 'none'}")
        if folder is None:
            continue
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{name} is no folder; name one that holds Training and Testing."
            )
        return folder
    return None


def unpack_synthetic_scans(build_dir: Path = BUILD_DIR) -> Path:
    """Unpack the 400 synthetic scans that come with the package.

    Args:
        build_dir: Where their folder goes.

    Returns:
        The folder with Training and Testing.
    """
    root = build_dir / "phantoms"
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".phantoms-", dir=root.parent
        ) as folder:
            shutil.unpack_archive(SYNTHETIC_ARCHIVE, folder)
            with suppress(OSError):  # another process was faster
                Path(folder, root.name).rename(root)
    return root


def reference_table(root: Path, data_dir: Path = DATA_DIR) -> pd.DataFrame:
    """Read the table of the scans that a folder should hold.

    Args:
        root: A data folder.
        data_dir: The folder of the committed table.

    Returns:
        ``phantoms.csv`` or ``image_groups.csv`` of the data folder, else the committed
        ``image_groups.csv``: one row a scan, with ``path``, ``sha256``, ``group``,
        ``label_conflict`` and ``BOX``.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The table is damaged, or lacks one of the first three columns.
    """
    tables = [root / SYNTHETIC_TABLE, root / REFERENCE_TABLE]
    for table in [*tables, data_dir / REFERENCE_TABLE]:
        if table.is_file():
            return _read_reference(table)
    raise FileNotFoundError(
        "data/image_groups.csv is missing, so no scan can be verified; "
        "work in a git checkout."
    )


def _read_reference(file: Path) -> pd.DataFrame:
    """A table of known scans; conflicts and boxes may be missing."""
    needed = ["path", "sha256", "group"]
    name = f"{file.parent.name}/{file.name}"
    try:
        table = pd.read_csv(file, dtype=_TEXT_COLUMNS)
    except ValueError as error:
        raise ValueError(f"'{name}' is no table in CSV: write it again.") from error
    missing = [column for column in needed if column not in table]
    if missing:
        raise ValueError(
            f"'{name}' needs the columns {', '.join(needed)}, but lacks "
            f"{', '.join(missing)}."
        )
    optional = [column for column in ["label_conflict", *BOX] if column not in table]
    return table.assign(**dict.fromkeys(optional, np.nan))


def scan_table(root: Path, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """List the scans of a data folder.

    Args:
        root: The folder with Training and Testing.
        reference: Known scans. None: ``reference_table``.

    Returns:
        One row a scan, sorted by path: ``path`` (relative to the folder, POSIX),
        ``split`` (``training`` or ``testing``), ``label``, ``sha256``, ``group`` (scans
        of one patient, or near-duplicates), ``label_conflict`` (bool) and ``BOX``
        (pixels, NaN where unknown). Group, conflict and box are those of the same bytes
        in the reference; other files are a group by themselves. A file that lies under
        two labels is a conflict, too.

    Raises:
        ValueError: Training and Testing do not hold the same classes.
    """
    files = []
    for folder in SPLIT_FOLDERS:
        files += [file.relative_to(root) for file in root.glob(f"{folder}/*/*")]
    paths = sorted(file.as_posix() for file in files)
    matches = pd.Series(paths, dtype=str).str.extract(_SCAN_PATH)
    table = matches.dropna(ignore_index=True)
    _say_what_is_skipped(root, sorted(set(paths) - set(table["path"])))
    table["sha256"] = [_checksum_if_readable(root / path) for path in table["path"]]
    # macOS writes an accent behind its letter, others write both as one
    table["label"] = table["label"].str.normalize("NFC")
    _check_classes(root, table)
    table["split"] = table["split"].str.lower()
    table["label"] = _short_labels(table["label"])

    known = reference_table(root) if reference is None else reference
    known = known.drop_duplicates("sha256").set_index("sha256")
    same_bytes = known.reindex(table["sha256"]).reset_index()
    own_group = "file-" + table["sha256"].str[:12]
    table["group"] = same_bytes["group"].fillna(own_group)
    known_conflict = same_bytes["label_conflict"].eq(1)
    labels_of_file = table.groupby("sha256")["label"].transform("nunique")
    table["label_conflict"] = known_conflict | labels_of_file.gt(1)
    return table.join(same_bytes[BOX].astype(float))


def _say_what_is_skipped(root: Path, files: list[str]) -> None:
    """Count aloud the files in class folders that have no ending of an image."""
    skipped = []
    for file in files:
        folder, name = file.split("/")[1:]
        is_hidden = folder.startswith((".", "_")) or name.startswith(".")
        if not is_hidden and name not in SYSTEM_FILES and (root / file).is_file():
            skipped.append(file)
    if not skipped:
        return
    names = ", ".join(skipped[:NAMES_SHOWN])
    if len(skipped) > NAMES_SHOWN:
        names += ", ..."
    count = f"{len(skipped):,} files are no images by their names"
    print(f"{count}, and not used: {names}", file=sys.stderr)


def _short_labels(labels: pd.Series) -> pd.Series:
    """Labels without their ending ``_tumor``, where each stays another one."""
    short = labels.str.removesuffix("_tumor").where(labels != NO_TUMOR, labels)
    return short if short.nunique() == labels.nunique() else labels


def class_names(table: pd.DataFrame) -> list[str]:
    """List the classes of a data set.

    Args:
        table: A ``scan_table``, of all scans.

    Returns:
        Their labels, sorted: the order of the outputs of a network.
    """
    return sorted(table["label"].unique())


def _checksum_if_readable(file: Path) -> str:
    """The sha256 of a file, or of nothing: ``images.examine`` says what is wrong."""
    if file.is_file() and os.access(file, os.R_OK):
        return checksum(file)
    return checksum(Path(os.devnull))


def _check_classes(root: Path, table: pd.DataFrame) -> None:
    """ValueError where the two folders differ, or hold no image; says what is there."""
    if table.empty:
        found = f"there are none{_names_in(root)}"
    else:
        folders = table.groupby("label")["split"].nunique()
        in_one_only = folders.index[folders < 2]
        if in_one_only.empty:
            return
        found = f"only one has {', '.join(in_one_only)}"
    raise ValueError(
        f"'{root.name}' needs images of the same classes in Training and Testing, "
        f"but {found}."
    )


def _names_in(root: Path) -> str:
    """What a folder holds instead of scans: the first names, or ""."""
    names = sorted(path.name for path in root.glob("[!.]*"))
    if not names:
        return ""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    listed = ", ".join(names[:NAMES_SHOWN])
    return f" (it holds {listed}{more}; expected: Training/CLASS/IMAGE.jpg)"


def verify(
    root: Path, table: pd.DataFrame, reference: pd.DataFrame | None = None
) -> DataReport:
    """Compare the scans in a folder with those that were published.

    Args:
        root: The data folder.
        table: Its ``scan_table``.
        reference: The scans that were published. None: ``reference_table``.

    Returns:
        The report.
    """
    known = reference_table(root) if reference is None else reference
    here = dict(zip(table["path"], table["sha256"], strict=True))
    published = dict(zip(known["path"], known["sha256"], strict=True))
    missing = sorted(published.keys() - here.keys())
    extra = sorted(here.keys() - published.keys())
    in_both = here.keys() & published.keys()
    changed = sorted(path for path in in_both if here[path] != published[path])

    is_committed = root.resolve() == DATA_DIR.resolve()
    has_own_table = (root / REFERENCE_TABLE).exists() and not is_committed
    name = root.name if has_own_table else download.DATASET
    if (root / SYNTHETIC_TABLE).exists():
        status = name = "phantoms"
    elif len(extra) > len(here) / 2:
        status = "unverified"
        name = "unverified data set"
    elif changed or extra:
        status = "changed"
    elif missing:
        status = "incomplete"
    else:
        status = "verified"
    return DataReport(
        name=name,
        status=status,
        scans=len(here),
        verified=len(here.items() & published.items()),
        expected=len(published),
        missing=missing,
        changed=changed,
        extra=extra,
        has_no_tumor=NO_TUMOR in class_names(table),
    )
