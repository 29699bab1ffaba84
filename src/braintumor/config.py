"""What exactly is being run: the settings of a study, its recipes and the folders it uses."""

import dataclasses
import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = _CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path.cwd()
DATA_DIR = ROOT / "data"  # downloads and the committed group table
RESULTS_DIR = ROOT / "results"  # small committed facts
MODELS_DIR = ROOT / "models"  # a committed classifier and its checksum
BUILD_DIR = ROOT / "build"  # ignored: phantoms, model files, whatever a quick run makes

PLAIN = dict(
    batch_norm_momentum=None,
    zero_init=False,
    frame="scan",
    augmentation="original",
    label_smoothing=0.0,
    class_weights=False,
    ema=False,
    rate=1.0,
)
RECIPES = {
    "original": dict(
        convention="unit"
    ),  # as the study began: all at Adam's default rate, [0, 1] into the backbone
    "transfer": dict(
        convention="imagenet"
    ),  # the head on features of the frozen backbone, then late layers too
    "scratch": dict(
        convention="centred", batch_norm_momentum=0.9
    ),  # random weights, statistics that follow quickly
}
OPTIONS = {  # written behind a recipe: scratch+head+looks
    "zero_init": ("zero_init", True),  # residual blocks start as the identity
    "head": (
        "frame",
        "head",
    ),  # crop to the head, spread its grey levels, keep its aspect
    "looks": (
        "augmentation",
        "looks",
    ),  # zoom, stretch, other grey scales, blur and noise as well
    "smooth": (
        "label_smoothing",
        0.1,
    ),  # train towards 92.5 % of a scan's class and 2.5 % of each other
    "balanced": ("class_weights", True),  # scans of rare classes count more in training
    "ema": ("ema", True),  # judge and keep a moving average of the weights
    "quick": (
        "rate",
        5 / 3,
    ),  # from random weights, larger steps: for runs of few epochs
}


def recipe_named(name: str) -> dict:
    """What a recipe and its options make of ``PLAIN``; ValueError for a part that is not there."""
    base, *options = name.split("+")
    if base not in RECIPES or not set(options) <= set(OPTIONS):
        raise ValueError(
            f"There is no recipe '{name}'; choose one of: {', '.join(RECIPES)}, +{', +'.join(OPTIONS)}."
        )
    return PLAIN | RECIPES[base] | dict(OPTIONS[option] for option in options)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a result, apart from the model and the data themselves."""

    preset: str
    protocol: str  # patient | patient-1 ... patient-4 | original | testing | source, see splits.py
    recipe: str  # original | transfer | scratch, with options: scratch+head+looks
    weights: str  # imagenet | random | a weights file | a folder of weights files
    image_size: int  # pixels; scans become squares
    batch_size: int
    head_epochs: int  # so many of the epochs train the head on the frozen backbone (recipe transfer only)
    epochs: int
    max_scans: int | None  # about so many scans, a stratified part
    precision: str  # a Keras dtype policy | auto: the fastest one that the processor has hardware for
    seed: int
    unreadable: str = "stop"  # before training, with a list of bad files | leave_out: go on without them

    @property
    def results_dir(self) -> Path:
        """Where result files go; ``cpu`` and ``cpu-scratch`` share a folder, as their runs have other recipes."""
        if self.preset == "sample":
            return BUILD_DIR / "results"
        if self.preset == "full":
            return RESULTS_DIR / "full"
        return RESULTS_DIR


_CPU = dict(
    protocol="patient",
    recipe="transfer",
    weights="imagenet",
    image_size=128,
    batch_size=32,
    head_epochs=5,
    epochs=20,
    max_scans=None,
    precision="auto",
)
PRESETS = {
    "sample": _CPU
    | dict(
        image_size=48, batch_size=16, head_epochs=2, epochs=6, max_scans=400
    ),  # runs in minutes
    "cpu": _CPU,  # all scans on a laptop without a GPU
    "cpu-scratch": _CPU
    | dict(
        recipe="scratch", weights="random", head_epochs=0
    ),  # nothing to download but the scans
    "full": _CPU | dict(image_size=224),  # all scans at the original's size, on a GPU
}


def settings_from(preset: str, **changes) -> Settings:
    """A preset, which ``BRAINTUMOR_PRESET`` overrides, with changes; ValueError, TypeError for unknown names."""
    name = os.environ.get("BRAINTUMOR_PRESET") or preset
    if name not in PRESETS:
        raise ValueError(
            f"There is no preset '{name}'; set BRAINTUMOR_PRESET to one of: {', '.join(PRESETS)}."
        )
    return Settings(preset=name, **(PRESETS[name] | changes))
