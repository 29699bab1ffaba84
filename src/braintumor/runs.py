"""How good, how sure: predictions are made once and stored, everything else is computed from the stored table."""

import dataclasses
import json
from functools import partial
from importlib import import_module
from pathlib import Path

from braintumor import config, dataset
from braintumor.config import Settings
from braintumor.generators import AUGMENTATIONS, sequences, subset_sequence
from braintumor.metrics import metrics_row
from braintumor.models import NOT_CHECKED, choose_precision, describe_weights
from braintumor.splits import load_study
from braintumor.support.cluster import ALONE, apart
from braintumor.support.files import read_file, read_model, replace_file, write_table
from braintumor.training import (
    build_for,
    run_folder,
    run_name,
    train,
    with_available_weights,
)

import keras
import numpy as np
import pandas as pd
from filelock import FileLock

JUDGES = ["validation", "other_source", "test"]  # subsets that never train
LAST_FILE = "settings.json"  # of a run, written last: where it is, the others are
UNNAMED = [
    "batch_size",
    "head_epochs",
    "epochs",
    "max_scans",
]  # settings that no folder is named after; nor weights
WEIGHTS_NAMES = {
    "random": ["random"],
    "imagenet": ["imagenet", NOT_CHECKED],
}  # what provenance says of a setting


def predict(
    model: keras.Model,
    table: pd.DataFrame,
    subset: str | list,
    root: Path,
    settings: Settings,
    views=0,
):
    """The rows of one or more subsets; ``p_<label>`` for every label of the table (softmax) and ``predicted`` added.

    With ``views``, probabilities are means over each scan and so many gently moved copies: test-time augmentation.
    """
    labels, rows = (
        sorted(table["label"].unique()),
        table[np.isin(table["subset"], subset)],
    )
    if model.output_shape[-1] != len(labels):
        raise ValueError(
            f"The model knows {model.output_shape[-1]} classes, these scans have {len(labels)}."
        )
    probabilities = model.predict(
        subset_sequence(table, subset, root, settings), verbose=0
    )
    if views:
        moved = subset_sequence(table, subset, root, settings, AUGMENTATIONS["views"])
        for moved.epoch in range(views):
            probabilities[moved.order()] += model.predict(moved, verbose=0)
        probabilities /= 1 + views
    columns = pd.DataFrame(
        probabilities, rows.index, [f"p_{label}" for label in labels]
    )
    return rows.join(columns).assign(
        predicted=[labels[best] for best in probabilities.argmax(axis=1)]
    )


def train_and_judge(settings: Settings, model: str, share=ALONE) -> dict | None:
    """The run (see ``read_run``), trained and judged now unless that was done before: then its files are only read.

    Where batches are shared (cluster.py), the first process alone judges; the others get None after training.
    """
    settings = with_available_weights(settings, model)
    folder = settings.results_dir / run_name(settings, model)
    if (folder / LAST_FILE).exists():
        run, asked = read_run(folder), dataclasses.asdict(settings)
        other = {
            name: run["facts"][name]
            for name in UNNAMED
            if run["facts"][name] != asked[name]
        }
        other |= other_weights(run["facts"], settings.weights, model)
        if other:
            raise ValueError(
                f"'{folder.name}' holds results with {other}: remove it to train with other settings."
            )
        if "test" in set(run["predictions"]["subset"]):
            return run
    root, table, report = load_study(settings)
    network, checkpoints = (
        build_for(settings, model, table["label"].nunique()),
        run_folder(settings, model, table),
    )
    if (folder / LAST_FILE).exists() and checkpoints.name != run["facts"].get(
        "checkpoints"
    ):
        raise ValueError(
            f"'{folder.name}' holds results of other scans or versions: remove it to train that run anew."
        )
    # before training, while the network has the weights that it starts from
    facts = provenance(
        settings, report, table, network, model=model, checkpoints=checkpoints.name
    )
    history = train(
        network, *sequences(table, root, settings, share), settings, checkpoints
    )
    if not share.first:
        return None
    with apart():
        predictions = predict(
            trained_network(settings, model, table), table, JUDGES, root, settings
        )
    return read_run(save_run(settings, model, facts, history, predictions))


def other_weights(stored: dict, weights: str, model: str) -> dict:
    """What a stored run's provenance says of its weights, if others are asked for; else nothing.

    ``imagenet`` and ``random`` are known by name, so no weights need to be at hand; a file by its fingerprint.

    Args:
        stored: The run's ``facts``.
        weights: What is asked for, see ``Settings``.
        model: The backbone.

    Raises:
        FileNotFoundError: The weights file that is asked for is missing.
        ValueError: It holds no weights of that backbone.
    """
    says = {
        key: stored[key] for key in ("weights", "weights_fingerprint") if key in stored
    }
    if says["weights"] in WEIGHTS_NAMES.get(weights, []):
        return {}
    if weights in WEIGHTS_NAMES and "weights_fingerprint" not in says:
        return says
    asked = describe_weights(model, weights)
    # runs of before there were fingerprints have a name alone
    key = "weights_fingerprint" if "weights_fingerprint" in says else "weights"
    return {} if asked.get(key) == says[key] else says


def trained_network(settings: Settings, model: str, table: pd.DataFrame) -> keras.Model:
    """The network that a run has kept among the model files; trained anew where only the run's results are here."""
    settings = with_available_weights(settings, model)
    folder = run_folder(settings, model, table)
    if not (folder / "best.keras").exists():
        print(
            f"'{folder.name}' was trained elsewhere; its network is trained again here, its results stay:"
        )
        scans = sequences(table, dataset.locate_data(), settings)
        train(
            build_for(settings, model, table["label"].nunique()),
            *scans,
            settings,
            folder,
        )
    return read_model(folder / "best.keras", keras.saving.load_model)


def provenance(
    settings: Settings,
    data: dict,
    table: pd.DataFrame,
    network: keras.Model | None = None,
    **more,
) -> dict:
    """What a result rests on: data, ``more``, settings, counts, versions; no paths.

    Args:
        settings: Of the run.
        data: The report of ``dataset.verify``.
        table: The scans with their subsets.
        network: The classifier before it is trained; None: where its weights are not random, they are loaded to look.
        more: Whatever else the result rests on, such as ``model``: the backbone, and what may follow that word.

    Raises:
        FileNotFoundError: The weights file is missing.
        ValueError: It holds no weights of that backbone, or ``model`` names none.
    """
    facts = {
        "data": data["name"],
        "checksums": f"{data['status']} {data['verified']}/{data['expected']}",
    }
    facts |= (
        {"left_out": data.get("left_out", [])} | more | dataclasses.asdict(settings)
    )
    backbone = more.get("model", "").partition(" ")[0]
    base = None if network is None else network.get_layer("backbone")
    facts |= describe_weights(backbone, settings.weights, base)
    facts["precision"] = choose_precision(settings.precision)
    facts["subsets"] = table["subset"].value_counts().sort_index().to_dict()
    facts["excluded"] = (
        table.loc[table["subset"] == "excluded", "excluded_because"]
        .value_counts()
        .to_dict()
    )
    modules = ("keras", backend := keras.backend.backend(), "numpy")
    return facts | {
        "backend": backend,
        "versions": {name: import_module(name).__version__ for name in modules},
    }


def save_run(
    settings: Settings,
    model: str,
    facts: dict,
    history: pd.DataFrame,
    predictions: pd.DataFrame,
):
    """Write settings.json, history.csv and predictions.csv of a run into its results folder, and return the folder."""
    folder = settings.results_dir / run_name(settings, model)
    write_table(
        history.drop(columns="checkpoint", errors="ignore"), folder / "history.csv"
    )
    write_table(predictions, folder / "predictions.csv")
    replace_file(
        folder / LAST_FILE,
        lambda file: file.write_text(json.dumps(facts, indent=1) + "\n"),
    )
    return folder


def read_result(file: Path, notebook: str) -> pd.DataFrame | dict:
    """A CSV or JSON file of results; raises FileNotFoundError that names the notebook which writes it."""
    if not file.exists():
        name, place = f"{file.parent.name}/{file.name}", file.parents[1].name
        raise FileNotFoundError(
            f"'{name}' is missing in {place}/: run {notebook} first."
        )
    if file.suffix == ".json":
        return read_file(file, lambda file: json.loads(file.read_text()))
    return read_file(
        file, partial(pd.read_csv, keep_default_na=False, na_values=[""])
    )  # a class may be "None"


def save_figure(figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    replace_file(file, lambda temporary: figure.savefig(temporary, format="png"))


def read_run(folder: Path) -> dict:
    """A run's ``facts`` (dict), ``history``, ``predictions`` and ``folder``, from what ``save_run`` wrote there."""
    names = {
        "facts": LAST_FILE,
        "history": "history.csv",
        "predictions": "predictions.csv",
    }
    files = {
        key: read_result(folder / name, "the notebook that trains it")
        for key, name in names.items()
    }
    return {"folder": folder, **files}


def metrics_table(runs) -> pd.DataFrame:
    """One row a run (see ``read_run``) and predicted subset, validation before test."""
    pairs = [
        (run, subset)
        for run in runs
        for subset in sorted(set(run["predictions"]["subset"]), reverse=True)
    ]
    return pd.DataFrame(
        [metrics_row(run["facts"], run["predictions"], subset) for run, subset in pairs]
    )


def write_all_metrics(results_dir: Path) -> None:
    """Compute metrics.csv anew from the files of every run in the folder."""
    config.BUILD_DIR.mkdir(parents=True, exist_ok=True)
    with FileLock(
        config.BUILD_DIR / "metrics.lock"
    ):  # trainings side by side may end at the same time
        runs = [
            read_run(file.parent) for file in sorted(results_dir.glob(f"*/{LAST_FILE}"))
        ]
        write_table(metrics_table(runs), results_dir / "metrics.csv")
