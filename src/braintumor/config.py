"""What exactly is being run: the settings of a study and the folders it uses.

Three environment variables are read, here and nowhere else (Keras itself reads ``KERAS_BACKEND``):
``BRAINTUMOR_DATA`` names a data folder, ``BRAINTUMOR_PRESET`` a preset.
"""

import dataclasses
import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = _CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path.cwd()
DATA_DIR = ROOT / "data"  # downloads and the committed group table
RESULTS_DIR = ROOT / "results"  # small committed facts
BUILD_DIR = ROOT / "build"  # ignored: phantoms, model files, whatever a quick run makes


# original:  what the study started from: everything trains at Adam's default rate, [0, 1] straight into the backbone
# transfer:  the head on the frozen backbone first, then fine-tuning from a late layer on at a low rate
# scratch:   random initialisation; batch-norm statistics that follow within tens of steps, not hundreds
_RECIPE = dict(convention="imagenet", batch_norm_momentum=None, label_smoothing=0.0,
               preparation="resize", augmentation="original")  # fmt: skip
RECIPES = {
    "original": _RECIPE | dict(convention="unit"),
    "transfer": _RECIPE,
    "scratch": _RECIPE | dict(convention="centred", batch_norm_momentum=0.9),
}
RECIPE_OPTIONS = {  # written behind a recipe with a plus; preparations and augmentations are those of generators.py
    "head": dict(preparation="head"),
    "geometric": dict(augmentation="geometric"),
    "strong": dict(augmentation="strong"),
    "transplant": dict(augmentation="transplant"),
    "smooth": dict(label_smoothing=0.1),
}


def recipe_named(name: str) -> dict:
    """What a recipe such as ``scratch`` or ``scratch+head+strong`` decides; raises ValueError for unknown parts."""
    base, *options = name.split("+")
    if base not in RECIPES or not set(options) <= set(RECIPE_OPTIONS):
        known = f"{', '.join(RECIPES)}, then options: {', '.join('+' + option for option in RECIPE_OPTIONS)}"
        raise ValueError(f"There is no recipe '{name}'; choose one of: {known}.")
    recipe = dict(RECIPES[base], base=base)
    for option in options:
        recipe |= RECIPE_OPTIONS[option]
    return recipe


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a result, apart from the model and the data themselves.

    ``max_scans`` (int or None) keeps a stratified part of the scans; ``head_epochs`` of the ``epochs``
    train the head on the frozen backbone (recipe ``transfer`` only); ``image_size`` is in pixels, the
    scans become squares; ``precision`` is a Keras dtype policy or ``auto``: the fastest one that the
    processor has hardware for.
    """

    preset: str
    protocol: str  # patient | patient-1 ... patient-4 | original | testing | source, see splits.py
    recipe: str  # original | transfer | scratch, with options: scratch+head+strong
    weights: str  # imagenet | random | a weights file | a folder of weights files
    image_size: int
    batch_size: int
    head_epochs: int
    epochs: int
    max_scans: int | None
    precision: str
    seed: int

    @property
    def results_dir(self) -> Path:
        """Where result files go: the sample preset can never overwrite a committed result."""
        return BUILD_DIR / "results" if self.preset == "sample" else RESULTS_DIR


_CPU = dict(protocol="patient", recipe="transfer", weights="imagenet", image_size=128, batch_size=32,
            head_epochs=5, epochs=20, max_scans=None, precision="auto")  # fmt: skip
PRESETS = {
    # minutes on any laptop: a few scans or phantoms, to see everything run
    "sample": _CPU | dict(image_size=48, batch_size=16, head_epochs=2, epochs=8, max_scans=400),
    # all scans on a laptop without a GPU
    "cpu": _CPU,
    # the same without any pre-trained weights: nothing to download but the scans
    "cpu-scratch": _CPU | dict(recipe="scratch", weights="random", head_epochs=0),
    # all scans at the original's size, on a GPU
    "full": _CPU | dict(image_size=224),
}


def settings_from(preset: str, **changes) -> Settings:
    """Settings of a preset, with single values changed; ``BRAINTUMOR_PRESET`` overrides ``preset``.

    Raises ValueError for a preset that does not exist, TypeError for a value that is no setting.
    """
    name = os.environ.get("BRAINTUMOR_PRESET") or preset
    if name not in PRESETS:
        raise ValueError(f"There is no preset '{name}'; set BRAINTUMOR_PRESET to one of: {', '.join(PRESETS)}.")
    return Settings(preset=name, **(PRESETS[name] | changes))


def data_folder_from_environment() -> Path | None:
    """The folder in ``BRAINTUMOR_DATA``, or None where it is not set."""
    named = os.environ.get("BRAINTUMOR_DATA")
    return Path(named).expanduser() if named else None
