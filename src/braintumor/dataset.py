"""Which scans are there, and are they the right ones? Locate, list, verify."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas

from . import download, phantoms
from .config import BUILD_DIR, DATA_DIR, data_folder_from_environment

BOX = ["box_x", "box_y", "box_w", "box_h"]
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")  # and RIFF....WEBP
_ADVICE = {
    "missing": "published but not here; copy or download the data set again",
    "changed": "not the bytes that were published; replace them to repeat the committed results",
    "extra": "not part of the published data set; remove them to repeat the committed results",
}


def locate_data(data_dir: Path = DATA_DIR, build_dir: Path = BUILD_DIR) -> Path:
    """The folder that holds Training and Testing; one printed line says what became of each place tried.

    In this order: ``BRAINTUMOR_DATA``, an earlier download, opendatasets, kagglehub, phantoms. Raises
    FileNotFoundError for a folder that is named or downloaded but unusable.
    """
    target = data_dir / download.DATASET.split("/")[1]
    named, earlier = data_folder_from_environment(), target if target.exists() else None
    for name, root in {"BRAINTUMOR_DATA": named, f"data/{target.name}": earlier}.items():
        if root:
            _check_layout(root, name)
            print(f"{name}: used")
            return root
        print(f"{name}: none")
    if _download(target):
        return target
    print("PHANTOMS: no scans could be had, so everything below shows synthetic drawings, not patients.")
    root = build_dir / "phantoms"
    if not (root / phantoms.PHANTOM_TABLE).exists():
        phantoms.write_phantoms(root, scans=400, seed=0)
    return root


def _download(target):
    if not download.reachable(download.HOST):
        print(f"opendatasets, kagglehub: no network ({download.HOST} does not answer)")
        return False
    for downloader in ("opendatasets", "kagglehub"):
        print(f"{downloader}: about 90 MB ... ", end="", flush=True)
        try:
            login = {} if downloader == "kagglehub" else download.kaggle_credentials()
            if login is None:
                raise ValueError("no Kaggle credentials found (such as ~/.kaggle/kaggle.json)")
            download.fetch(target, known_scans(target, target.parent), downloader, login)
            print("downloaded and verified")
            return True
        except (OSError, ValueError) as error:
            print(getattr(error, "strerror", None) or error)
    return False


def known_scans(root: Path, data_dir: Path = DATA_DIR) -> pandas.DataFrame:
    """root/phantoms.csv, else the committed data/image_groups.csv; FileNotFoundError where there is neither."""
    for table in (root / phantoms.PHANTOM_TABLE, data_dir / "image_groups.csv"):
        if table.is_file():
            return pandas.read_csv(table)
    raise FileNotFoundError("data/image_groups.csv is missing, so no scan can be verified; work in a git checkout.")


def _check_layout(root, name):
    lacking = [f"has no folder {split}" for split in ("Training", "Testing") if not (root / split).is_dir()]
    if lacking:
        problem = "is no folder" if not root.is_dir() else lacking[0] if any(root.iterdir()) else "is empty"
        raise FileNotFoundError(f"{name} {problem}; name a folder that holds Training and Testing.")


def scan_table(root: Path, reference: pandas.DataFrame | None = None) -> pandas.DataFrame:
    """One row a scan, sorted by path: path, split, label, sha256, group, label_conflict, box_x, box_y, box_w, box_h.

    A file has the group and box (pixels) of the row of ``reference`` (None: ``known_scans``) with the same bytes,
    and the ``label_conflict`` of that with the same path, too. Otherwise the group is "file-" and 12 digits of
    sha256, the box NaN; one file under two labels is a conflict. Raises FileNotFoundError or ValueError.
    """
    _check_layout(root, f"The data folder '{root.name}'")
    files = _image_files(root)
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(_digest, files))
    if broken := [file.relative_to(root).as_posix() for file, digest in zip(files, digests) if not digest]:
        raise ValueError(f"No image, whatever the name says: {_some(broken)}; delete or replace.")
    rows = [(file.relative_to(root).as_posix(), file.parts[-3].lower(), file.parts[-2]) for file in files]
    table = pandas.DataFrame(rows, columns=["path", "split", "label"]).assign(sha256=digests)
    table["label"] = table["label"].where(table["label"] == "no_tumor", table["label"].str.removesuffix("_tumor"))
    table = table.sort_values("path", ignore_index=True)
    known = known_scans(root) if reference is None else reference
    known_groups = dict(zip(known["sha256"], known["group"]))
    table["group"] = [known_groups.get(digest, f"file-{digest[:12]}") for digest in table["sha256"]]
    conflicts = pandas.MultiIndex.from_frame(known.loc[known["label_conflict"], ["path", "sha256"]])
    table["label_conflict"] = pandas.MultiIndex.from_frame(table[["path", "sha256"]]).isin(conflicts)
    table["label_conflict"] |= table.groupby("sha256")["label"].transform("nunique") > 1
    boxes = known.drop_duplicates("sha256").set_index("sha256")[BOX].astype(float)
    table[BOX] = boxes.reindex(table["sha256"]).to_numpy()
    return table


def _image_files(root):
    folders = [folder for split in ("Testing", "Training") for folder in (root / split).iterdir()]
    folders = [folder for folder in folders if folder.is_dir() and not folder.name.startswith((".", "__"))]
    names = [folder.name for folder in folders]
    if alone := sorted(name for name in names if names.count(name) == 1):
        raise ValueError(f"Only one of Training and Testing has the class {_some(alone)}; give it a folder in both.")
    files = []
    for folder in folders:
        found = [file for file in folder.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES and file.name[0] != "."]
        if not found:
            raise ValueError(f"{folder.parent.name}/{folder.name} holds no image; add some or delete the folder.")
        files += found
    if not files:
        raise ValueError("Training and Testing hold no class folders; add one with images for each class.")
    return files


def _digest(file):
    data = file.read_bytes()
    is_image = data.startswith(_IMAGE_STARTS) or (data[:4], data[8:12]) == (b"RIFF", b"WEBP")
    return hashlib.sha256(data).hexdigest() if is_image else None


def verify(root: Path, table: pandas.DataFrame, reference: pandas.DataFrame | None = None) -> dict:
    """Compare a whole ``scan_table`` with ``reference`` (None: ``known_scans``) by path and sha256; reads no scan.

    Gives name, status (verified, incomplete, changed, unverified, phantoms), the numbers scans, verified and
    expected, and the paths missing, changed and extra (none for phantoms and for another data set).
    """
    known = known_scans(root) if reference is None else reference
    here, there = table.set_index("path")["sha256"], known.set_index("path")["sha256"]
    shared = here.index.intersection(there.index)
    same = here[shared] == there[shared]
    report = {"name": download.DATASET, "scans": len(table), "verified": int(same.sum()), "expected": len(known)}
    report |= {"missing": sorted(there.index.difference(here.index)), "changed": sorted(shared[~same])}
    report |= {"extra": sorted(here.index.difference(there.index))}
    name = "phantoms" if (root / phantoms.PHANTOM_TABLE).exists() else "unverified data set"
    if name == "phantoms" or len(shared) < len(table) / 2:
        return report | {"name": name, "status": name.split()[0], "missing": [], "changed": [], "extra": []}
    status = "changed" if report["changed"] or report["extra"] else "incomplete" if report["missing"] else "verified"
    return report | {"status": status}


def describe(report: dict) -> str:
    """What a person reads about a report of ``verify``: one line, and one for each kind of difference."""
    if report["status"] == "phantoms":
        return f"{note(report)} ({report['scans']} scans)"
    if report["status"] == "unverified":
        return f"unverified data set: {report['scans']} scans; only copies of a file are kept together, not patients"
    kinds = [kind for kind in _ADVICE if report[kind]]
    lines = [f"{len(report[kind])} {kind} ({_ADVICE[kind]}): {_some(report[kind])}" for kind in kinds]
    return "\n".join([f"verified {report['verified']}/{report['expected']}", *lines])


def note(report: dict) -> str:
    """What every figure has to say about its data: nothing for scans, a warning for phantoms."""
    return "PHANTOMS: synthetic drawings, not patients" if report["status"] == "phantoms" else ""


def _some(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
