"""What exactly is being run: the settings of a study, its recipes and its folders."""

import dataclasses
import os
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = _CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path.cwd()
DATA_DIR = ROOT / "data"  # downloads, and the committed table of patient groups
RESULTS_DIR = ROOT / "results"  # small result files, committed
MODELS_DIR = ROOT / "models"  # a committed classifier and its checksum
# ignored by git: model files, and all that a quick run makes
BUILD_DIR = ROOT / "build"

FOLDS = 5  # folds of the patient split; one of them, 20%, is held out for validation
PROTOCOLS = [
    "patient",
    "original",
    "testing",
    "source",
    *(f"patient-{fold}" for fold in range(1, FOLDS)),
]
SMALLEST_IMAGE = 32  # pixels: the smallest input that VGG16 and ResNet50 accept
# augmented versions of each scan that a new head is trained on, in turn; their features
# are computed once, as the backbone is frozen
CACHED_AUGMENTATIONS = 4
PRECISIONS = ["auto", "float32", "mixed_float16", "mixed_bfloat16"]
UNREADABLE = ["stop", "leave_out"]  # what to do with damaged files
# what provenance says of ImageNet weights without a fingerprint to compare them with
NOT_CHECKED = "imagenet, not checked"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained: where it starts, what it sees, how it learns.

    Attributes:
        base: ``original``, as the reference study did: all layers at Adam's default
            rate. ``transfer``: first the head, on features of the frozen backbone, then
            the late layers too. ``scratch``: all layers, from random weights.
        convention: How the scaling layer turns inputs in [0, 1] into what the backbone
            receives. ``unit``: as they are. ``imagenet``: as the ImageNet weights
            expect them. ``centred``: about zero mean and unit variance.
        batch_norm_momentum: Of the moving statistics. None: Keras' default, 0.99.
        zero_init: Whether residual blocks start as the identity; for backbones that
            have such blocks, from random weights.
        frame: ``scan``: the whole image is stretched to a square. ``head``: it is
            cropped to the head, and its intensities are spread.
        augmentation: The augmentation of training scans, a key of
            ``generators.AUGMENTATIONS``.
        label_smoothing: Weight of the uniform distribution in training targets.
        class_weights: Whether scans of rare classes count more in the training loss.
        ema: Whether a moving average of the weights is evaluated and kept.
        learning_rate_factor: Multiplies the learning rate of ``scratch``.
    """

    base: str
    convention: str
    batch_norm_momentum: float | None = None
    zero_init: bool = False
    frame: str = "scan"
    augmentation: str = "original"
    label_smoothing: float = 0.0
    class_weights: bool = False
    ema: bool = False
    learning_rate_factor: float = 1.0


RECIPES = {
    "original": Recipe(base="original", convention="unit"),
    "transfer": Recipe(base="transfer", convention="imagenet"),
    "scratch": Recipe(base="scratch", convention="centred", batch_norm_momentum=0.9),
}
Changes = dict[str, Any]  # fields of a ``Recipe`` and their new values
# what may follow the name of a recipe, as in "scratch+head+looks"
RECIPE_OPTIONS: dict[str, Changes] = {
    "zero_init": {"zero_init": True},
    "head": {"frame": "head"},
    "looks": {"augmentation": "looks"},
    "smooth": {"label_smoothing": 0.1},
    "balanced": {"class_weights": True},
    "ema": {"ema": True},
    "quick": {"learning_rate_factor": 5 / 3},
}


def parse_recipe(name: str) -> Recipe:
    """Turn the name of a recipe, such as ``scratch+head+looks``, into a ``Recipe``.

    Args:
        name: A key of ``RECIPES``, then any keys of ``RECIPE_OPTIONS`` in the order
            that they have there, joined by ``+``; so a recipe has one name.

    Returns:
        The recipe with these options.

    Raises:
        ValueError: There is no such recipe or option; or options are repeated, in
            another order, change the same field, or change nothing.
    """
    base, *options = name.split("+")
    unknown_options = set(options) - set(RECIPE_OPTIONS)
    if base not in RECIPES or unknown_options:
        recipes = ", ".join(RECIPES)
        known_options = ", ".join(f"+{option}" for option in RECIPE_OPTIONS)
        raise ValueError(
            f"There is no recipe '{name}'; choose one of: {recipes}, {known_options}."
        )
    in_order = [option for option in RECIPE_OPTIONS if option in options]
    if options != in_order:
        right_name = "+".join([base, *in_order])
        raise ValueError(f"The recipe '{name}' is spelled '{right_name}'.")
    recipe = RECIPES[base]
    option_of_field: dict[str, str] = {}
    for option in options:
        for field in RECIPE_OPTIONS[option]:
            if field in option_of_field:
                other = option_of_field[field]
                raise ValueError(
                    f"The recipe '{name}' sets {field} twice: write "
                    f"'{_without(name, other)}' or '{_without(name, option)}'."
                )
            option_of_field[field] = option
        recipe = dataclasses.replace(recipe, **RECIPE_OPTIONS[option])
    if "learning_rate_factor" in option_of_field and base != "scratch":
        option = option_of_field["learning_rate_factor"]
        raise ValueError(
            f"The recipe '{name}' is no other than '{_without(name, option)}': "
            f"+{option} changes the learning rate of 'scratch' alone."
        )
    return recipe


def _without(name: str, option: str) -> str:
    """The name of a recipe without one of its options."""
    return "+".join(part for part in name.split("+") if part != option)


def starts_from_imagenet(weights: str) -> bool:
    """Say whether a run started from ImageNet weights.

    Args:
        weights: As provenance and ``metrics.csv`` describe them, see
            ``backbones.describe_weights``.

    Returns:
        Whether they are those of ImageNet, compared with a fingerprint or not.
    """
    return weights in ("imagenet", NOT_CHECKED)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a result, apart from the model and the scans.

    Attributes:
        preset: The preset that the settings began as; it decides ``results_dir``.
        protocol: How scans are split, one of ``PROTOCOLS``; see
            ``splits.assign_subsets``.
        recipe: How the network is trained, see ``parse_recipe``.
        weights: Where the backbone starts: ``imagenet``, ``random``, a weights file, or
            a folder of weights files.
        image_size: Side of the square input, in pixels; at least ``SMALLEST_IMAGE``.
        batch_size: Scans in a training step, at least 1.
        head_epochs: With the recipe ``transfer``, how many of the epochs train the head
            alone.
        epochs: Epochs in all, at least 1.
        max_scans: About how many scans are used, a stratified part. None: all.
        precision: A Keras dtype policy, one of ``PRECISIONS``; ``auto`` takes the
            fastest that the hardware computes natively.
        seed: Decides the folds, the first weights, the order of scans and their
            augmentation; at least 0.
        unreadable: What to do with damaged files: ``stop`` before training, with a list
            of them, or ``leave_out``.

    Raises:
        ValueError: A setting is out of range, or the recipe cannot start from these
            weights; the message says which.
    """

    preset: str
    protocol: str
    recipe: str
    weights: str
    image_size: int
    batch_size: int
    head_epochs: int
    epochs: int
    max_scans: int | None
    precision: str
    seed: int
    unreadable: str = "stop"

    def __post_init__(self) -> None:
        parse_recipe(self.recipe)
        _check_choice("protocol", self.protocol, PROTOCOLS)
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("unreadable", self.unreadable, UNREADABLE)
        _check_number("image_size", self.image_size, at_least=SMALLEST_IMAGE)
        _check_number("batch_size", self.batch_size, at_least=1)
        _check_number("head_epochs", self.head_epochs, at_least=0)
        _check_number("epochs", self.epochs, at_least=1)
        _check_number("seed", self.seed, at_least=0)
        if self.max_scans is not None:
            _check_number("max_scans", self.max_scans, at_least=1)
        if not self.weights:
            raise ValueError(
                "weights is empty: set it to 'imagenet', 'random' or a file."
            )
        if self.weights != "random":
            self._refuse_what_needs_random_weights()

    def _refuse_what_needs_random_weights(self) -> None:
        recipe = self.parsed_recipe
        weights = Path(self.weights).name
        if recipe.base == "scratch":
            raise ValueError(
                f"The recipe '{self.recipe}' starts from random weights, not from "
                f"'{weights}': set weights to 'random', or the recipe to 'transfer'."
            )
        if recipe.zero_init:
            raise ValueError(
                f"The recipe '{self.recipe}' cannot start from '{weights}': "
                "+zero_init needs weights='random'."
            )

    @property
    def parsed_recipe(self) -> Recipe:
        """The recipe as an object, instead of its name."""
        return parse_recipe(self.recipe)

    @property
    def results_dir(self) -> Path:
        """The folder of result files.

        ``cpu`` and ``cpu-scratch`` share one, as their runs differ by recipe.
        """
        if self.preset == "sample":
            return BUILD_DIR / "results"
        if self.preset == "full":
            return RESULTS_DIR / "full"
        return RESULTS_DIR


def _check_choice(name: str, value: object, choices: list[str]) -> None:
    if value not in choices:
        known = ", ".join(choices)
        raise ValueError(f"There is no {name} '{value}'; choose one of: {known}.")


def _check_number(name: str, value: Any, at_least: int) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise ValueError(
            f"{name}={value!r} must be a whole number, {at_least} or more."
        )


# all scans on a laptop without a GPU
_CPU: dict[str, Any] = {
    "protocol": "patient",
    "recipe": "transfer",
    "weights": "imagenet",
    "image_size": 128,
    "batch_size": 32,
    "head_epochs": 5,
    "epochs": 20,
    "max_scans": None,
    "precision": "auto",
}
# a part of the scans, in minutes
_SAMPLE = {
    "image_size": 48,
    "batch_size": 16,
    "head_epochs": 2,
    "epochs": 6,
    "max_scans": 400,
}
# no weights to download
_FROM_RANDOM_WEIGHTS = {"recipe": "scratch", "weights": "random", "head_epochs": 0}
PRESETS: dict[str, dict[str, Any]] = {
    "sample": {**_CPU, **_SAMPLE},
    "cpu": _CPU,
    "cpu-scratch": {**_CPU, **_FROM_RANDOM_WEIGHTS},
    # at the image size of the reference study, on a GPU
    "full": {**_CPU, "image_size": 224},
}


def settings_from(preset: str, **changes: Any) -> Settings:
    """Make settings from a preset.

    Args:
        preset: A key of ``PRESETS``. The environment variable ``BRAINTUMOR_PRESET``
            overrides it, which is printed. A recipe among the changes then stays only
            if it suits that preset, see ``_suits``.
        **changes: Settings that differ from the preset; ``seed`` is always needed.
            ``weights`` and ``head_epochs`` follow the recipe where they are not named.

    Returns:
        The settings.

    Raises:
        ValueError: There is no such preset, or a setting is out of range.
        TypeError: There is no setting of that name, or ``seed`` is missing.
    """
    from_environment = os.environ.get("BRAINTUMOR_PRESET")
    name = from_environment or preset
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        advice = "set BRAINTUMOR_PRESET to" if from_environment else "choose"
        raise ValueError(f"There is no preset '{name}'; {advice} one of: {known}.")
    recipe = changes.get("recipe", PRESETS[name]["recipe"])
    if name != preset:
        note = f"the preset '{name}' instead of '{preset}'"
        if not _suits(recipe, name):
            own_recipe = PRESETS[name]["recipe"]
            note += f", and its recipe '{own_recipe}' instead of '{recipe}'"
            recipe = own_recipe
        print(f"BRAINTUMOR_PRESET: {note}.")
    values = {**_preset_with_recipe(name, recipe), **changes, "recipe": recipe}
    return Settings(preset=name, **values)


def _suits(recipe: str, preset: str) -> bool:
    """Whether a recipe for another preset may stay: it starts where that one's does.

    ``original`` may always stay, as it starts from any weights.
    """
    base = parse_recipe(recipe).base
    return base in ("original", parse_recipe(PRESETS[preset]["recipe"]).base)


def _preset_with_recipe(preset: str, recipe: str) -> dict[str, Any]:
    """The settings of a preset, with those that another recipe needs."""
    values = {**PRESETS[preset], "recipe": recipe}
    base = parse_recipe(recipe).base
    if base == parse_recipe(PRESETS[preset]["recipe"]).base:
        return values
    if base == "scratch":
        values["weights"] = "random"
    elif base == "transfer":
        values["weights"] = "imagenet"
    # only `transfer` begins with the head alone
    values["head_epochs"] = _CPU["head_epochs"] if base == "transfer" else 0
    return values
