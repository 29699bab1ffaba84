"""What several test files share: a tiny data set, a tiny backbone, settings for runs of seconds.

Functions import what they need: with several workers, this file is also read by the process that only hands out tests,
and nobody should wait until that has imported TensorFlow.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from jupyter_folders import make_jupyter_folders

# the same examples every time: what fails, fails for whoever made the change
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.load_profile("same")

os.environ.setdefault(
    "TF_CPP_MIN_LOG_LEVEL", "3"
)  # TensorFlow reads it when it is imported
# a home folder may be read-only
TEMPORARY = Path(tempfile.gettempdir(), f"braintumor-tests-{os.getuid()}")
os.environ.update(make_jupyter_folders(TEMPORARY))

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = ("src", "notebooks", "tools", "models", "results", "pyproject.toml")
CHECKOUT_DATA = ("image_groups.csv", "original_history.csv")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

CLASSES = 4
QUICK = dict(
    protocol="original",
    recipe="transfer",
    weights="random",
    image_size=32,
    batch_size=8,
    head_epochs=1,
    epochs=3,
    max_scans=None,
    precision="float32",
    seed=0,
)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    """Whoever runs the tests may have chosen scans or a preset for their own work."""
    monkeypatch.delenv("BRAINTUMOR_PRESET", raising=False)
    monkeypatch.delenv("BRAINTUMOR_WEIGHTS", raising=False)
    monkeypatch.delenv("BRAINTUMOR_DATA", raising=False)


def copy_checkout(folder, without=()):
    """Copy what the notebooks need of this repository into a new folder."""
    folder.mkdir()
    for name in set(CHECKOUT) - set(without):
        source = ROOT / name
        if source.is_file():
            shutil.copy(source, folder)
        else:
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, folder / name, ignore=ignore)
    (folder / "data").mkdir()
    for name in CHECKOUT_DATA:
        shutil.copy(ROOT / "data" / name, folder / "data")
    return folder


@pytest.fixture(scope="session")
def few_phantoms(tmp_path_factory):
    """The smallest data set: 48 scans of 64 px, two patients a class to train on, one for testing: (root, table)."""
    import phantoms

    root = tmp_path_factory.mktemp("few") / "phantoms"
    return root, phantoms.write_phantoms(root, scans=48, seed=0, size=64)


@pytest.fixture(scope="session")
def quick():
    """Settings of a run of seconds, with single values changed: ``quick(epochs=2)``."""
    from braintumor import config

    def settings(**changes):
        return config.Settings(preset="sample", **(QUICK | changes))

    return settings


@pytest.fixture(scope="session")
def networks():
    """Both classifiers, starting at random, at 32 px. Tests that change them restore their weights."""
    from braintumor import config, models

    settings = config.Settings(preset="sample", **QUICK)
    return {
        name: models.build_classifier(settings, name, CLASSES)
        for name in ("vgg16", "resnet50")
    }


def tiny_backbone():
    """Two convolutions with batch norm, which train in no time."""
    from braintumor import backbones

    import keras

    def constructor(*, weights, include_top, input_shape, name):
        inputs = keras.Input(input_shape)
        early = keras.layers.Conv2D(4, 3, strides=4, name="early")(inputs)
        early = keras.layers.BatchNormalization(name="early_norm")(early)
        late = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="late")(
            early
        )
        return keras.Model(
            inputs, keras.layers.BatchNormalization(name="late_norm")(late), name=name
        )

    return backbones.Backbone(
        constructor, "tiny.weights.h5", backbones.CAFFE, "late", 1e-3
    )


@pytest.fixture(scope="module")
def tiny():
    """The name of a third backbone, see ``tiny_backbone``."""
    from braintumor import backbones

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", tiny_backbone())
        yield "tiny"


@pytest.fixture
def build_folder(tmp_path, monkeypatch):
    """All that runs write goes into a temporary folder."""
    from braintumor import config

    monkeypatch.setattr(config, "BUILD_DIR", tmp_path / "build")
    monkeypatch.setattr(config, "RESULTS_DIR", tmp_path / "results")
    return tmp_path / "build"


def made_up(seed=0, share=None, scans=20):
    """Fresh train and validation sequences of made-up scans, bright or dark by class."""
    from functools import partial

    from braintumor import generators
    from braintumor.support import cluster

    import numpy as np

    draw = np.random.default_rng(1)
    labels = np.arange(scans) % CLASSES
    noise = draw.integers(0, 60, (scans, 32, 32))
    images = (noise + 60 * labels[:, None, None]).astype("uint8")
    sequence = generators.ScanSequence
    if share is not None:
        sequence = partial(cluster.SharedScanSequence, share=share)
    options = {"classes": CLASSES, "batch_size": 8, "seed": seed}
    original = generators.AUGMENTATIONS["original"]
    train_scans = sequence(images, labels, augmentation=original, **options)
    validation_scans = sequence(images, labels, augmentation=None, **options)
    return train_scans, validation_scans


def assert_same_weights(one, other):
    import keras
    import numpy as np

    for weight, same in zip(one.weights, other.weights):
        if not weight.path.endswith("seed_generator_state"):
            np.testing.assert_array_equal(
                *(keras.ops.convert_to_numpy(each) for each in (weight, same)),
                err_msg=weight.path,
            )


def assert_same_history(one, other):
    import pandas as pd

    one, other = (
        history.drop(columns=["seconds", "checkpoint"]) for history in (one, other)
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="session")
def two_sequences():
    """What makes them."""
    return made_up


class Trained(NamedTuple):
    """A run, packaged as a classifier."""

    settings: object  # config.Settings
    table: object  # its scans with their subsets, a DataFrame
    root: Path  # the data folder
    file: Path  # the classifier
    folder: Path  # of all files that the run wrote


@pytest.fixture(scope="session")
def trained(few_phantoms, tmp_path_factory):
    """A short training of the backbone ``tiny`` on phantoms, see ``Trained``."""
    from braintumor import backbones, config, runs, splits
    from braintumor.app import release

    root, folder = few_phantoms[0], tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "BUILD_DIR", folder / "build")
        patch.setenv("BRAINTUMOR_DATA", str(root))
        patch.setitem(backbones.BACKBONES, "tiny", tiny_backbone())
        settings = config.Settings(
            preset="sample",
            protocol="original",
            recipe="scratch",
            weights="random",
            image_size=32,
            batch_size=8,
            head_epochs=0,
            epochs=1,
            max_scans=None,
            precision="float32",
            seed=0,
        )
        runs.train_and_evaluate(settings, "tiny")
        _, table, _ = splits.load_study(settings)
        file = release.package(settings, "tiny", folder / "classifiers")
        return Trained(settings, table, root, file, folder)


def write_dicom(
    file, frames, *, photometric="MONOCHROME2", bits=16, signed=0, change=None
):
    """Write a DICOM file of a patient with a name.

    ``frames``: stored values, (height, width), (frames, height, width), or with colors
    behind; ``change``: called with the data set before it is written.
    """
    import numpy as np

    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    frames = np.asarray(frames)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    scan = pydicom.dataset.FileDataset(
        str(file), {}, file_meta=meta, preamble=b"\0" * 128
    )
    scan.SOPClassUID = meta.MediaStorageSOPClassUID
    scan.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    scan.PatientName = "LOVELACE^ADA"
    scan.PatientID = "MRN-1815"
    scan.PatientBirthDate = "18151210"
    is_color = frames.shape[-1] == 3
    shape = frames.shape[:-1] if is_color else frames.shape
    scan.SamplesPerPixel = 3 if is_color else 1
    if is_color:
        scan.PlanarConfiguration = 0
    scan.PhotometricInterpretation = photometric
    scan.PixelRepresentation = signed
    scan.BitsAllocated = bits
    scan.BitsStored = bits
    scan.HighBit = bits - 1
    scan.Rows, scan.Columns = shape[-2:]
    if len(shape) == 3:
        scan.NumberOfFrames = shape[0]
    kind = f"<i{bits // 8}" if signed else f"<u{bits // 8}"
    scan.PixelData = frames.astype(kind).tobytes()
    if change:
        change(scan)
    scan.save_as(file, enforce_file_format=True)
    return file


@pytest.fixture(scope="session")
def dicom():
    """What writes a DICOM file."""
    return write_dicom


@pytest.fixture(scope="module")
def browser():
    """A real browser, without a window."""
    sync_api = pytest.importorskip(
        "playwright.sync_api",
        reason="playwright is not installed: pip install -e '.[demo]'",
    )
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )


class Thermometer(NamedTuple):
    """A classifier that needs no training: the brighter a scan, the more it is ``warm``."""

    network: object
    card: dict

    def predict(self, scans):
        """See ``engines.Classifier``."""
        from braintumor.app.engines import Prediction

        import numpy as np

        warm = scans.mean(axis=(1, 2, 3))
        probabilities = np.stack([1 - warm, warm], axis=1)
        return Prediction(np.float32(probabilities), np.ones(len(scans), "float32"))

    def heatmaps(self, scans, classes):
        """See ``engines.Classifier``: the scans themselves."""
        return scans[..., 0]


@pytest.fixture
def thermometer():
    """A classifier of two classes, at once."""
    card = {
        "labels": ["cold", "warm"],
        "image_size": 32,
        "frame": "scan",
        "threshold": 0.5,
    }
    return Thermometer(None, card)


@pytest.fixture
def disk(tmp_path):
    """Mounts a disk of its own at ``data``: ``disk("size=64k")`` or ``disk("ro")``; skips where that is not allowed."""
    folder = tmp_path / "data"

    def mount(options):
        folder.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
            capture_output=True,
        ).returncode:
            pytest.skip("only root may mount a small disk")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True)


# whole files are handed to the workers in this order, the longest first, so that none ends long after the others
LONGEST_FIRST = [
    "test_notebooks",
    "test_training",
    "test_classify",
    "test_faults",
    "test_models",
    "test_download",
]


def pytest_collection_modifyitems(items):
    """Put the tests of files that take long before all others, which stay in their order."""

    def place(item):
        file = item.path.stem
        return (
            LONGEST_FIRST.index(file) if file in LONGEST_FIRST else len(LONGEST_FIRST)
        )

    items.sort(key=place)
