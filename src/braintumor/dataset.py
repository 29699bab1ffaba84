"""Which scans are there, and are they the right ones? Locate, list, verify."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from braintumor.config import BUILD_DIR, DATA_DIR
from braintumor.images import examine as examine  # notebooks and tests find them here
from braintumor.images import read_scan as read_scan
from braintumor.support import download
from braintumor.support.files import checksum

import pandas as pd

BOX = ["box_x", "box_y", "box_w", "box_h"]
SAMPLE = Path(__file__).with_name("phantoms.zip")  # written by tools/phantoms.py
PHANTOM_TABLE = "phantoms.csv"  # marks, and describes, a folder of synthetic scans
_SCAN = r"^(?P<path>(?P<split>Testing|Training)/(?P<label>[^._/][^/]*)/[^./][^/]*\.(?i:jpe?g|png|bmp|tiff?|webp))$"


def locate_data(data_dir: Path = DATA_DIR, build_dir: Path = BUILD_DIR) -> Path:
    """The folder with Training and Testing: the first of five places, last phantoms; each that is tried is printed."""
    target = data_dir / download.DATASET.split("/")[1]
    named, earlier = (
        os.environ.get("BRAINTUMOR_DATA"),
        target if target.exists() else None,
    )
    for name, root in {
        "BRAINTUMOR_DATA": named and Path(named).expanduser(),
        f"data/{target.name}": earlier,
    }.items():
        print(f"{name}: {'used' if root else 'none'}")
        if root and not root.is_dir():
            raise FileNotFoundError(
                f"{name} is no folder; name one that holds Training and Testing."
            )
        if root:
            return root
    for downloader, login in {
        "opendatasets": download.kaggle_credentials,
        "kagglehub": dict,
    }.items():
        print(f"{downloader}: about 90 MB ... ", end="", flush=True)
        try:
            download.fetch(target, known_scans(target, data_dir), downloader, login())
            print("downloaded and verified")
            return target
        except (OSError, ValueError) as error:
            print(getattr(error, "strerror", None) or error)
    print(
        "PHANTOMS: no scans could be had, so everything below shows synthetic drawings, not patients."
    )
    return unpack_phantoms(build_dir)


def unpack_phantoms(build_dir: Path = BUILD_DIR) -> Path:
    """The folder of the 400 phantoms that come with the package."""
    root = build_dir / "phantoms"
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".phantoms-", dir=root.parent
        ) as folder:
            shutil.unpack_archive(SAMPLE, folder)
            with suppress(OSError):  # another process was faster
                Path(folder, root.name).rename(root)
    return root


def known_scans(root: Path, data_dir: Path = DATA_DIR) -> pd.DataFrame:
    """root/phantoms.csv, else the committed data/image_groups.csv; FileNotFoundError where there is neither."""
    for table in filter(
        Path.is_file, (root / PHANTOM_TABLE, data_dir / "image_groups.csv")
    ):
        return pd.read_csv(table)
    raise FileNotFoundError(
        "data/image_groups.csv is missing, so no scan can be verified; work in a git checkout."
    )


def scan_table(root: Path, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a scan, sorted by path: path, split, label, sha256, group, label_conflict, box_x, box_y, box_w, box_h.

    Group, box (pixels), conflict: those of the same bytes in ``reference`` (None: ``known_scans``), else "file-" and 12
    digits of sha256, NaN, False. One file under two labels is a conflict. ValueError where the folders' classes differ.
    """
    files = pd.Series(
        sorted(file.relative_to(root).as_posix() for file in root.glob("T*ing/*/*")),
        dtype=str,
    )
    table = files.str.extract(_SCAN).dropna(ignore_index=True)
    readable = {
        file: os.access(file, os.R_OK) and file.is_file()
        for file in root / table["path"]
    }  # else: `examine`
    table["sha256"] = [
        checksum(file if can else Path(os.devnull)) for file, can in readable.items()
    ]
    splits = table.groupby("label")["split"].nunique()
    if table.empty or splits.min() < 2:
        alone = (
            "there are none"
            if table.empty
            else f"only one has {', '.join(splits.index[splits < 2])}"
        )
        raise ValueError(
            f"'{root.name}' needs images of the same classes in Training and Testing, but {alone}."
        )
    table["split"] = table["split"].str.lower()
    table["label"] = table["label"].where(
        table["label"] == "no_tumor", table["label"].str.removesuffix("_tumor")
    )
    known = known_scans(root) if reference is None else reference
    same = (
        known.drop_duplicates("sha256")
        .set_index("sha256")
        .reindex(table["sha256"])
        .reset_index()
    )
    table["group"] = same["group"].fillna("file-" + table["sha256"].str[:12])
    table["label_conflict"] = same["label_conflict"].eq(1) | table.groupby("sha256")[
        "label"
    ].transform("nunique").gt(1)
    return table.join(same[BOX].astype(float))


def verify(
    root: Path, table: pd.DataFrame, reference: pd.DataFrame | None = None
) -> dict:
    """Compare a ``scan_table`` with ``reference`` (None: ``known_scans``): name, status, counts and lists of paths."""
    known = known_scans(root) if reference is None else reference
    here, there = (
        dict(zip(scans["path"], scans["sha256"])) for scans in (table, known)
    )
    missing, extra = sorted(there.keys() - here), sorted(here.keys() - there)
    changed = sorted(path for path in here.keys() & there if here[path] != there[path])
    status = "changed" if changed or extra else "incomplete" if missing else "verified"
    status = "unverified" if len(extra) > len(here) / 2 else status
    status = "phantoms" if (root / PHANTOM_TABLE).exists() else status
    name = {"phantoms": "phantoms", "unverified": "unverified data set"}.get(
        status, download.DATASET
    )
    counts = dict(
        scans=len(here), verified=len(here.items() & there.items()), expected=len(there)
    )
    return dict(
        name=name,
        status=status,
        **counts,
        missing=missing,
        changed=changed,
        extra=extra,
    )


def describe(report: dict) -> str:
    """What a person reads about a report of ``verify``: one line, and one for each kind of difference."""
    if report["status"] == "phantoms":
        return f"{note(report)} ({report['scans']} scans)"
    if report["status"] == "unverified":
        return f"unverified data set: {report['scans']} scans; only copies of a file are kept together, not patients"
    lines = [f"verified {report['verified']}/{report['expected']}"]
    for kind in ("missing", "changed", "extra"):
        if paths := report[kind]:
            names = ", ".join(paths[:10]) + (
                f" and {len(paths) - 10} more" if len(paths) > 10 else ""
            )
            lines.append(
                f"{len(paths)} {kind} (only the scans as published repeat the committed results): {names}"
            )
    return "\n".join(lines)


def note(report: dict) -> str:
    """What every figure has to say about its data: nothing for scans, a warning for phantoms."""
    return (
        "PHANTOMS: synthetic drawings, not patients"
        if report["status"] == "phantoms"
        else ""
    )
