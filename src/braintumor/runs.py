"""One experiment: train, evaluate, save, read, and say what it rests on.

A run is one training of one network. Its predictions are stored, and every score is
computed from them. Notebooks 03 and 04 evaluate a run on validation scans alone, so
that nothing is chosen by the test set; ``train_and_evaluate`` completes such a run
later.
"""

import dataclasses
import hashlib
import json
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from braintumor import config, dataset
from braintumor.backbones import describe_weights, weights_identity
from braintumor.config import NOT_CHECKED, Settings
from braintumor.dataset import DataReport, class_names
from braintumor.generators import AUGMENTATIONS, sequences, subset_sequence
from braintumor.metrics import metrics_row
from braintumor.models import build_classifier, choose_precision, with_available_weights
from braintumor.splits import load_study, split_scans
from braintumor.support.checkpoints import BEST_MODEL
from braintumor.support.files import read_file, read_model, replace_file, write_table
from braintumor.training import train

import keras
import numpy as np
import pandas as pd
from filelock import FileLock
from matplotlib.figure import Figure

EVALUATION_SUBSETS = ["validation", "other_source", "test"]  # subsets that never train
# of a run, written last: where it is, the other files are, too
PROVENANCE_FILE = "settings.json"
# columns of result files that hold words, even where these look like numbers
_TEXT_COLUMNS = {
    "path": str,
    "label": str,
    "sha256": str,
    "group": str,
    "predicted": str,
}
# Settings that the name of a run leaves out, and that are compared as they are.
# ``weights`` and ``precision``, which it leaves out too, are compared in ways of their
# own: see ``stored_run``.
SETTINGS_NOT_IN_NAME = ["batch_size", "head_epochs", "epochs", "max_scans"]
# what provenance may say of a setting ``weights``
DESCRIPTIONS_OF_WEIGHTS = {
    "random": ["random"],
    "imagenet": ["imagenet", NOT_CHECKED],
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as it is stored in its results folder.

    Attributes:
        folder: Where it is stored.
        provenance: What it rests on, see ``collect_provenance``.
        history: One row an epoch.
        predictions: One row a scan, see ``predict``.
    """

    folder: Path
    provenance: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame

    @property
    def evaluated_on_test_set(self) -> bool:
        """Whether it is complete; else it was evaluated on validation scans alone."""
        return bool((self.predictions["subset"] == "test").any())

    @property
    def banner(self) -> str:
        """What every figure of this run has to say about its data, or nothing."""
        status = self.provenance["checksums"].split()[0]
        return dataset.banner_for(status)


def run_name(settings: Settings, model: str) -> str:
    """Name the folder of a run, in results and among the model files.

    Args:
        settings: Of the run.
        model: The backbone.

    Returns:
        Such as ``vgg16-transfer-patient-128px-seed0``.
    """
    parts = [
        model,
        settings.recipe,
        settings.protocol,
        f"{settings.image_size}px",
        f"seed{settings.seed}",
    ]
    return "-".join(parts)


def checkpoint_folder(settings: Settings, model: str, table: pd.DataFrame) -> Path:
    """Name the folder of a run's model files.

    Its name ends with a digest of the settings, the scans (path, content, label and
    subset) and the backend: where one of these differs, so does the folder. A weights
    file counts by its content, wherever it lies. The digest knows nothing of the code,
    of versions of libraries and of the hardware: after a change of a constant, such as
    a learning rate in ``training``, remove ``build/models`` by hand.

    Args:
        settings: Of the run.
        model: The backbone.
        table: Scans with their subsets.

    Returns:
        A folder in ``build/models``, which may not exist yet.

    Raises:
        FileNotFoundError: The weights file is missing.
    """
    decisive = dataclasses.asdict(settings)
    del decisive["unreadable"]
    decisive["weights"] = weights_identity(model, settings.weights)
    scans = table[["path", "sha256", "label", "subset"]].sort_values("path")
    identity = json.dumps(decisive, sort_keys=True)
    identity += scans.to_csv(index=False)
    identity += keras.backend.backend()
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return config.BUILD_DIR / "models" / f"{run_name(settings, model)}-{digest}"


@dataclasses.dataclass(frozen=True)
class Preparation:
    """All that a run needs before it is trained.

    Attributes:
        settings: Of the run.
        model: The backbone.
        root: The data folder.
        table: Scans with their subsets.
        network: The classifier, not yet trained.
        provenance: What the run rests on.
        checkpoints: The folder of its model files.
    """

    settings: Settings
    model: str
    root: Path
    table: pd.DataFrame
    network: keras.Model
    provenance: dict[str, Any]
    checkpoints: Path


def train_and_evaluate(settings: Settings, model: str) -> Run:
    """Train a run and evaluate it on all subsets, or read it where that was done.

    Args:
        settings: Of the run.
        model: The backbone.

    Returns:
        The run.

    Raises:
        ValueError: The results folder holds a run of other settings or scans; or see
            ``splits.load_study`` and ``models.build_classifier``.
        FloatingPointError, MemoryError, RuntimeError: See ``training.train``.
    """
    settings = with_available_weights(settings, model)
    stored = stored_run(settings, model)
    if stored is not None and stored.evaluated_on_test_set:
        check_scans(stored, settings)
        return stored
    preparation = prepare(settings, model)
    train_scans, validation_scans = sequences(
        preparation.table, preparation.root, settings
    )
    history = train(
        preparation.network,
        train_scans,
        validation_scans,
        settings,
        preparation.checkpoints,
    )
    return evaluate(preparation, history)


def stored_run(settings: Settings, model: str) -> Run | None:
    """Read a run that has been stored, if it is the one that is asked for.

    Args:
        settings: Of the run.
        model: The backbone.

    Returns:
        The run; None where there is none.

    Raises:
        ValueError: Other settings led to the stored run; the message names them.
    """
    folder = settings.results_dir / run_name(settings, model)
    if not (folder / PROVENANCE_FILE).exists():
        return None
    run = read_run(folder)
    asked = dataclasses.asdict(settings)
    different = {}
    for name in SETTINGS_NOT_IN_NAME:
        if run.provenance[name] != asked[name]:
            different[name] = run.provenance[name]
    precision = run.provenance["precision"]
    if settings.precision not in ("auto", precision):
        different["precision"] = precision
    different.update(different_weights(run.provenance, settings.weights, model))
    if different:
        raise ValueError(
            f"'{folder.name}' holds results with {different}: "
            "remove it to train with other settings."
        )
    return run


def check_scans(run: Run, settings: Settings) -> None:
    """Compare the scans of a stored run with those that are here now, if there are any.

    Args:
        run: A complete run.
        settings: That are asked for.

    Raises:
        ValueError: The run was evaluated on other scans, or the folder that is named
            now holds no scans.
    """
    root = dataset.data_at_hand(verbose=False)
    if root is None:  # such as where only the committed results are read
        return
    listed = dataset.scan_table(root)
    readable = listed[~listed["path"].isin(run.provenance["left_out"])]
    table = split_scans(readable, settings)
    evaluated = table[table["subset"].isin(EVALUATION_SUBSETS)]
    identity = ["path", "sha256", "label", "subset"]
    expected = evaluated[identity].sort_values("path", ignore_index=True)
    stored = run.predictions[identity].sort_values("path", ignore_index=True)
    subsets = table["subset"].value_counts().to_dict()
    if not stored.equals(expected) or subsets != run.provenance["subsets"]:
        raise ValueError(
            f"'{run.folder.name}' holds results of other scans than those in "
            f"'{root.name}': remove it to train that run anew, or name its scans."
        )


def different_weights(
    provenance: dict[str, Any], weights: str, model: str
) -> dict[str, str]:
    """Compare the weights that a stored run started from with those asked for.

    ``imagenet`` and ``random`` are known by name, so no weights need to be at hand; a
    file is known by its fingerprint.

    Args:
        provenance: Of the stored run.
        weights: What is asked for, see ``config.Settings``.
        model: The backbone.

    Returns:
        What the provenance says of its weights, if others are asked for; else nothing.

    Raises:
        FileNotFoundError: The weights file that is asked for is missing.
        ValueError: It holds no weights of that backbone.
    """
    stored: dict[str, str] = {}
    for key in ("weights", "weights_fingerprint"):
        if key in provenance:
            stored[key] = provenance[key]
    # the same name: both are random, or both are Keras' ImageNet weights
    if stored["weights"] in DESCRIPTIONS_OF_WEIGHTS.get(weights, []):
        return {}
    # another name, and nothing but the name to go by
    if weights in DESCRIPTIONS_OF_WEIGHTS and "weights_fingerprint" not in stored:
        return stored
    # a file, which may hold the same weights under any name: its content decides
    asked = describe_weights(model, weights)
    # runs that are older than fingerprints have a name alone
    key = "weights_fingerprint" if "weights_fingerprint" in stored else "weights"
    if asked.get(key) == stored[key]:
        return {}
    return stored


def prepare(settings: Settings, model: str) -> Preparation:
    """Find and split the scans of a run, build its network, collect its provenance.

    Args:
        settings: Of the run.
        model: The backbone.

    Returns:
        All that the training needs.

    Raises:
        ValueError: The results folder holds a run of other scans; or see
            ``splits.load_study`` and ``models.build_classifier``.
    """
    root, table, report = load_study(settings)
    network = build_classifier(settings, model, table["label"].nunique())
    checkpoints = checkpoint_folder(settings, model, table)
    stored = stored_run(settings, model)
    if stored and stored.provenance.get("checkpoints") != checkpoints.name:
        raise ValueError(
            f"'{stored.folder.name}' holds results of other scans or versions: "
            "remove it to train that run anew."
        )
    # now, while the network has the weights that it starts from
    provenance = collect_provenance(
        settings, report, table, network, model=model, checkpoints=checkpoints.name
    )
    return Preparation(settings, model, root, table, network, provenance, checkpoints)


def evaluate(preparation: Preparation, history: pd.DataFrame) -> Run:
    """Evaluate a run that was just trained, on all subsets, and store it.

    Args:
        preparation: Of the run.
        history: Of its training.

    Returns:
        The run.
    """
    settings = preparation.settings
    table = preparation.table
    network = load_trained_network(settings, preparation.model, table)
    predictions = predict(
        network, table, EVALUATION_SUBSETS, preparation.root, settings
    )
    folder = save_run(
        settings, preparation.model, preparation.provenance, history, predictions
    )
    return read_run(folder)


def predict(
    network: keras.Model,
    table: pd.DataFrame,
    subset: str | list[str],
    root: Path,
    settings: Settings,
    augmented_copies: int = 0,
) -> pd.DataFrame:
    """Predict the classes of all scans of a subset.

    Args:
        network: A classifier.
        table: Scans with their subsets; the labels of all of them are the classes.
        subset: A subset, or a list of them.
        root: The data folder.
        settings: Of the run.
        augmented_copies: Test-time augmentation: probabilities are means over each scan
            and so many augmented copies.

    Returns:
        The rows of the subset, with ``p_<label>`` for every class (softmax, float32)
        and ``predicted``.

    Raises:
        ValueError: The network has another number of classes, or a file cannot be read.
    """
    labels = class_names(table)
    outputs = network.output_shape[-1]
    if outputs != len(labels):
        raise ValueError(
            f"The model knows {outputs} classes, these scans have {len(labels)}."
        )
    scans = subset_sequence(table, subset, root, settings)
    probabilities = network.predict(scans, verbose=0)
    if augmented_copies:
        copies = subset_sequence(table, subset, root, settings, AUGMENTATIONS["views"])
        for copy in range(augmented_copies):
            copies.epoch = copy
            # these come in the order of their epoch
            probabilities[copies.order()] += network.predict(copies, verbose=0)
        probabilities /= 1 + augmented_copies
    rows = table[np.isin(table["subset"], subset)]
    names = [f"p_{label}" for label in labels]
    columns = pd.DataFrame(probabilities, rows.index, names)
    predicted = [labels[best] for best in probabilities.argmax(axis=1)]
    return rows.join(columns).assign(predicted=predicted)


def load_trained_network(
    settings: Settings, model: str, table: pd.DataFrame
) -> keras.Model:
    """Load the network of a run.

    Args:
        settings: Of the run.
        model: The backbone.
        table: Scans with their subsets.

    Returns:
        The network with the best validation accuracy. Where only the results of the run
        are here, it is trained again.

    Raises:
        ValueError: The file is damaged.
    """
    settings = with_available_weights(settings, model)
    folder = checkpoint_folder(settings, model, table)
    if not (folder / BEST_MODEL).exists():
        print(
            f"'{folder.name}' was trained elsewhere; its network is trained again "
            "here, its results stay:"
        )
        train_scans, validation_scans = sequences(
            table, dataset.locate_data(), settings
        )
        network = build_classifier(settings, model, table["label"].nunique())
        train(network, train_scans, validation_scans, settings, folder)
    return read_model(folder / BEST_MODEL, keras.saving.load_model)


def collect_provenance(
    settings: Settings,
    report: DataReport,
    table: pd.DataFrame,
    network: keras.Model | None = None,
    *,
    model: str = "",
    **more: Any,
) -> dict[str, Any]:
    """Say what a result rests on: data, settings, counts, versions; no paths.

    Args:
        settings: Of the run.
        report: On the data.
        table: Scans with their subsets.
        network: The classifier before it is trained. None: weights that are not random
            are loaded to look at them.
        model: The backbone. May be left out where the weights are random.
        **more: Whatever else the result rests on, by the name of its entry.

    Returns:
        The provenance, as ``settings.json`` holds it.

    Raises:
        FileNotFoundError: The weights file is missing.
        ValueError: It holds no weights of that backbone, or there is no such backbone.
    """
    base = None if network is None else network.get_layer("backbone")
    excluded = table[table["subset"] == "excluded"]
    backend = keras.backend.backend()
    versions = {
        name: import_module(name).__version__ for name in ("keras", backend, "numpy")
    }
    provenance: dict[str, Any] = {
        "data": report.name,
        "checksums": f"{report.status} {report.verified}/{report.expected}",
        "left_out": report.left_out,
    }
    if model:
        provenance["model"] = model
    provenance.update(more)
    provenance.update(dataclasses.asdict(settings))
    # what the weights are, in place of a setting that may be a path
    provenance.update(describe_weights(model, settings.weights, base))
    provenance["precision"] = choose_precision(settings.precision)
    subsets = table["subset"].value_counts().sort_index()
    provenance["subsets"] = subsets.to_dict()
    provenance["excluded"] = excluded["excluded_because"].value_counts().to_dict()
    provenance["backend"] = backend
    provenance["versions"] = versions
    return provenance


def summarize_provenance(provenance: dict[str, Any]) -> str:
    """Say in a few lines what a result rests on.

    Args:
        provenance: See ``collect_provenance``.

    Returns:
        Four lines of text.
    """
    subsets = provenance["subsets"].items()
    counts = ", ".join(f"{count:,} {subset}" for subset, count in subsets)
    versions = provenance["versions"].items()
    software = ", ".join(f"{name} {version}" for name, version in versions)
    training = (
        f"{provenance['recipe']}, weights {provenance['weights']}, "
        f"{provenance['image_size']} px, {provenance['precision']}"
    )
    lines = [
        f"data      {provenance['data']}, {provenance['checksums']}",
        f"split     {provenance['protocol']}, seed {provenance['seed']}: {counts}",
        f"training  {training}",
        f"software  {software}",
    ]
    return "\n".join(lines)


def save_run(
    settings: Settings,
    model: str,
    provenance: dict[str, Any],
    history: pd.DataFrame,
    predictions: pd.DataFrame,
) -> Path:
    """Store a run: settings.json, history.csv and predictions.csv.

    Args:
        settings: Of the run.
        model: The backbone.
        provenance: What it rests on.
        history: One row an epoch.
        predictions: One row a scan, see ``predict``.

    Returns:
        Its folder in the results.
    """
    folder = settings.results_dir / run_name(settings, model)
    public_history = history.drop(columns="checkpoint", errors="ignore")
    write_table(public_history, folder / "history.csv")
    write_table(predictions, folder / "predictions.csv")
    text = json.dumps(provenance, indent=1) + "\n"
    replace_file(folder / PROVENANCE_FILE, lambda file: file.write_text(text))
    return folder


def read_run(folder: Path) -> Run:
    """Read a run that ``save_run`` stored.

    Args:
        folder: Its folder in the results.

    Returns:
        The run.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged.
    """
    notebook = "the notebook that trains it"
    return Run(
        folder=folder,
        provenance=read_result(folder / PROVENANCE_FILE, notebook),
        history=read_result(folder / "history.csv", notebook),
        predictions=read_result(folder / "predictions.csv", notebook),
    )


def find_runs(results_dir: Path, **wanted: Any) -> list[Run]:
    """Read all runs of a folder whose provenance has certain values.

    Args:
        results_dir: A folder of results.
        **wanted: Such as ``protocol="patient"``.

    Returns:
        The runs, sorted by the name of their folder.

    Raises:
        ValueError: A file is damaged.
    """
    found = []
    for file in sorted(results_dir.glob(f"*/{PROVENANCE_FILE}")):
        run = read_run(file.parent)
        if all(run.provenance[key] == value for key, value in wanted.items()):
            found.append(run)
    return found


def read_result(file: Path, notebook: str) -> Any:
    """Read a file of results.

    Args:
        file: A CSV or JSON file.
        notebook: The one that writes it.

    Returns:
        A DataFrame, or what the JSON file holds.

    Raises:
        FileNotFoundError: It is missing; the message names the notebook.
        ValueError: It is damaged.
    """
    if not file.exists():
        name = f"{file.parent.name}/{file.name}"
        place = file.parents[1].name
        raise FileNotFoundError(
            f"'{name}' is missing in {place}/: run {notebook} first."
        )
    if file.suffix == ".json":
        return read_file(file, lambda file: json.loads(file.read_text()))
    # a class may be called "None" or "NA", "1" or "02"
    read_csv = partial(
        pd.read_csv, keep_default_na=False, na_values=[""], dtype=_TEXT_COLUMNS
    )
    return read_file(file, read_csv)


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        figure: The figure.
        file: Where it goes; the folder is made.
    """

    def write(temporary: Path) -> None:
        figure.savefig(temporary, format="png")

    replace_file(file, write)


def metrics_table(runs: list[Run]) -> pd.DataFrame:
    """Compute the scores of runs.

    Args:
        runs: Any runs.

    Returns:
        One row a run and subset, validation before test, see ``metrics.metrics_row``.
    """
    rows = []
    for run in runs:
        for subset in sorted(set(run.predictions["subset"]), reverse=True):
            rows.append(metrics_row(run.provenance, run.predictions, subset))
    return pd.DataFrame(rows)


def write_all_metrics(results_dir: Path) -> None:
    """Compute metrics.csv anew from the files of every run in a folder.

    Args:
        results_dir: A folder of results.

    Raises:
        ValueError: A file is damaged.
    """
    config.BUILD_DIR.mkdir(parents=True, exist_ok=True)
    # trainings side by side may end at the same time
    with FileLock(config.BUILD_DIR / "metrics.lock"):
        table = metrics_table(find_runs(results_dir))
        write_table(table, results_dir / "metrics.csv")
