"""The commands that make the committed runs, read from their settings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braintumor import config

import pandas as pd

# options of `python -m braintumor train` that may differ from the preset
OPTIONS = (
    "recipe",
    "protocol",
    "weights",
    "image_size",
    "epochs",
    "batch_size",
    "precision",
)
# what `auto` is on the machines that made the committed runs, by the backend of Keras
AUTOMATIC_PRECISION = {"jax": "mixed_float16", "tensorflow": "mixed_bfloat16"}
SOURCE = "Tumors of one source (split `source`), for the study domain_shift"
REFERENCE = (
    "The leaky split of the reference study, and copies in training, for the studies "
    "leakage and transfer_learning"
)
FOLDS = "Five folds of a small ResNet50, for the studies seeds_and_folds and leakage"
MAIN = "Patients kept apart, for the tables of README, findings, and model card"


@dataclass(frozen=True)
class CommandList:
    """The commands of one group of runs.

    Attributes:
        title: What the runs are for.
        commands: One command for each setting, with a loop over its seeds.
    """

    title: str
    commands: list[str]


def run_commands(results: Path) -> list[CommandList]:
    """The commands that make the committed runs anew.

    Args:
        results: The folder of results, with that of the runs at 224 px inside.

    Returns:
        A list of commands for each group of runs, the main tables first.
    """
    seeds_by_command: dict[str, dict[str, list[int]]] = {}
    for title in (MAIN, SOURCE, REFERENCE, FOLDS):
        seeds_by_command[title] = {}
    for folder in (results / "full", results):
        for file in sorted(folder.glob("*/settings.json")):
            settings = json.loads(file.read_text())
            if config.starts_from_imagenet(settings["weights"]):
                settings["weights"] = "imagenet"
            if settings["precision"] == AUTOMATIC_PRECISION[settings["backend"]]:
                settings["precision"] = "auto"
            commands = seeds_by_command[_title(settings)]
            commands.setdefault(_command(settings), []).append(settings["seed"])
    lists = []
    for title, commands in seeds_by_command.items():
        lines = [_with_seeds(command, seeds) for command, seeds in commands.items()]
        lists.append(CommandList(title, lines))
    return lists


def training_minutes(folder: Path) -> list[float]:
    """How long the epochs of each run in a folder took, all together.

    Args:
        folder: A folder of runs.

    Returns:
        Minutes of each run, the shortest first.
    """
    minutes = []
    for file in folder.glob("*/history.csv"):
        minutes.append(pd.read_csv(file)["seconds"].sum() / 60)
    return sorted(minutes)


def _title(settings: dict[str, Any]) -> str:
    """The group of runs that a run belongs to."""
    split = settings["protocol"]
    if split == "source":
        return SOURCE
    if split in ("original", "testing"):
        return REFERENCE
    # the folds are ``patient-1`` to ``patient-4``, and ``patient`` at their 64 px
    if split != "patient" or settings["image_size"] == 64:
        return FOLDS
    return MAIN


def _command(settings: dict[str, Any]) -> str:
    """The command of a run, without its seed."""
    preset = settings["preset"]
    words = ["train", "--model", settings["model"], "--preset", preset]
    for option in OPTIONS:
        if settings[option] != config.PRESETS[preset][option]:
            words += [f"--{option.replace('_', '-')}", str(settings[option])]
    command = " ".join(words)
    return f"KERAS_BACKEND=jax {command}" if settings["backend"] == "jax" else command


def _with_seeds(command: str, seeds: list[int]) -> str:
    """A command for all of its seeds."""
    if len(seeds) == 1:
        return f"{command} --seed {seeds[0]}"
    listed = " ".join(str(seed) for seed in sorted(seeds))
    return f"for seed in {listed}; do {command} --seed $seed; done"
