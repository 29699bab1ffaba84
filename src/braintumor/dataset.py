"""Which scans are there, and are they the right ones? Locate, list, verify."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas

from . import download, phantoms
from .config import BUILD_DIR, DATA_DIR, data_folder_from_environment

BOX = ["box_x", "box_y", "box_w", "box_h"]
_SPLITS = ("Testing", "Training")
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_ADVICE = {
    "missing": "published but not here; copy or download the data set again",
    "changed": "not the bytes that were published; replace them to repeat the committed results",
    "extra": "not part of the published data set; remove them to repeat the committed results",
}


def locate_data(data_dir: Path = DATA_DIR, build_dir: Path = BUILD_DIR) -> Path:
    """The folder that holds Training and Testing; one printed line says what became of each place tried.

    In this order: ``BRAINTUMOR_DATA``, an earlier download, opendatasets, kagglehub, phantoms.
    """
    target = data_dir / download.DATASET.split("/")[1]
    named, earlier = data_folder_from_environment(), target if target.exists() else None
    for name, root in {"BRAINTUMOR_DATA": named, f"data/{target.name}": earlier}.items():
        print(f"{name}: {'used' if root else 'none'}")
        if root and not root.is_dir():
            raise FileNotFoundError(f"{name} is no folder; name one that holds Training and Testing.")
        if root:
            return root
    for downloader in ("opendatasets", "kagglehub"):
        print(f"{downloader}: about 90 MB ... ", end="", flush=True)
        try:
            login = {} if downloader == "kagglehub" else download.kaggle_credentials()
            if login is None:
                raise ValueError("no Kaggle credentials found (such as ~/.kaggle/kaggle.json)")
            download.fetch(target, known_scans(target, data_dir), downloader, login)
            print("downloaded and verified")
            return target
        except (OSError, ValueError) as error:
            print(getattr(error, "strerror", None) or error)
    print("PHANTOMS: no scans could be had, so everything below shows synthetic drawings, not patients.")
    root = build_dir / "phantoms"
    if not (root / phantoms.PHANTOM_TABLE).exists():
        phantoms.write_phantoms(root, scans=400, seed=0)
    return root


def known_scans(root: Path, data_dir: Path = DATA_DIR) -> pandas.DataFrame:
    """root/phantoms.csv, else the committed data/image_groups.csv; FileNotFoundError where there is neither."""
    for table in (root / phantoms.PHANTOM_TABLE, data_dir / "image_groups.csv"):
        if table.is_file():
            return pandas.read_csv(table)
    raise FileNotFoundError("data/image_groups.csv is missing, so no scan can be verified; work in a git checkout.")


def scan_table(root: Path, reference: pandas.DataFrame | None = None) -> pandas.DataFrame:
    """One row a scan, sorted by path: path, split, label, sha256, group, label_conflict, box_x, box_y, box_w, box_h.

    A file has the group, box (pixels) and conflict of the row of ``reference`` (None: ``known_scans``) with the same
    bytes. Otherwise the group is "file-" and 12 digits of sha256, the box NaN. One file under two labels is a
    conflict in any case. Raises ValueError where Training and Testing do not have the same classes.
    """
    files = _image_files(root)
    rows = [(file.relative_to(root).as_posix(), file.parts[-3].lower(), file.parts[-2]) for file in files]
    table = pandas.DataFrame(rows, columns=["path", "split", "label"])
    with ThreadPoolExecutor(8) as pool:
        table["sha256"] = list(pool.map(lambda file: hashlib.sha256(file.read_bytes()).hexdigest(), files))
    table["label"] = table["label"].where(table["label"] == "no_tumor", table["label"].str.removesuffix("_tumor"))
    table = table.sort_values("path", ignore_index=True)
    known = known_scans(root) if reference is None else reference
    known = known.drop_duplicates("sha256").set_index("sha256").reindex(table["sha256"]).reset_index()
    table["group"] = known["group"].fillna("file-" + table["sha256"].str[:12])
    two_labels = table.groupby("sha256")["label"].transform("nunique") > 1
    table["label_conflict"] = known["label_conflict"].eq(True) | two_labels
    return table.join(known[BOX].astype(float))


def _image_files(root):
    files = [file for split in _SPLITS for file in root.glob(f"{split}/[!._]*/[!.]*")]
    files = [file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES]
    testing, training = ({file.parent.name for file in files if file.parts[-3] == split} for split in _SPLITS)
    if not files or testing != training:
        alone = f"only one has {_some(sorted(testing ^ training))}" if files else "there are none"
        raise ValueError(f"'{root.name}' needs images of the same classes in Training and Testing, but {alone}.")
    return files


def verify(root: Path, table: pandas.DataFrame, reference: pandas.DataFrame | None = None) -> dict:
    """Compare a whole ``scan_table`` with ``reference`` (None: ``known_scans``) by path and sha256; reads no scan.

    Gives name, status (verified, incomplete, changed, unverified, phantoms), the numbers scans, verified and
    expected, and the paths missing, changed and extra.
    """
    known = known_scans(root) if reference is None else reference
    here, there = table.set_index("path")["sha256"], known.set_index("path")["sha256"]
    shared = here.index.intersection(there.index)
    changed = sorted(shared[here[shared] != there[shared]])
    missing, extra = sorted(there.index.difference(here.index)), sorted(here.index.difference(there.index))
    status = "changed" if changed or extra else "incomplete" if missing else "verified"
    report = {"name": download.DATASET, "status": status, "missing": missing, "changed": changed, "extra": extra}
    report |= {"scans": len(table), "verified": len(shared) - len(changed), "expected": len(known)}
    if (root / phantoms.PHANTOM_TABLE).exists():
        return report | {"name": "phantoms", "status": "phantoms"}
    if len(shared) < len(table) / 2:
        return report | {"name": "unverified data set", "status": "unverified"}
    return report


def describe(report: dict) -> str:
    """What a person reads about a report of ``verify``: one line, and one for each kind of difference."""
    if report["status"] == "phantoms":
        return f"{note(report)} ({report['scans']} scans)"
    if report["status"] == "unverified":
        return f"unverified data set: {report['scans']} scans; only copies of a file are kept together, not patients"
    lines = [f"{len(found)} {kind} ({_ADVICE[kind]}): {_some(found)}" for kind in _ADVICE if (found := report[kind])]
    return "\n".join([f"verified {report['verified']}/{report['expected']}", *lines])


def note(report: dict) -> str:
    """What every figure has to say about its data: nothing for scans, a warning for phantoms."""
    return "PHANTOMS: synthetic drawings, not patients" if report["status"] == "phantoms" else ""


def _some(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
