"""How good, how sure: predictions are made once and stored, everything else is computed from the stored table."""

import dataclasses
import json
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import keras
import numpy
import pandas
from sklearn.metrics import roc_auc_score

from .config import BUILD_DIR, Settings
from .generators import sequences, subset_sequence
from .models import choose_precision
from .splits import load_study
from .training import build_for, replace_file, run_folder, run_name, train

REPLICATES = 2000  # of the bootstrap
NOTEBOOKS = {"vgg16": "03_train_vgg16", "resnet50": "04_train_resnet50"}


def predict(model: keras.Model, table: pandas.DataFrame, subset: str, root: Path, settings: Settings):
    """The rows of a subset with ``p_<label>`` for every label of the whole table (softmax) and ``predicted`` added."""
    labels, rows = sorted(table["label"].unique()), table[table["subset"] == subset]
    if model.output_shape[-1] != len(labels):
        raise ValueError(f"The model knows {model.output_shape[-1]} classes, these scans have {len(labels)}.")
    probabilities = model.predict(subset_sequence(table, subset, root, settings), verbose=0)
    columns = pandas.DataFrame(probabilities, rows.index, [f"p_{label}" for label in labels])
    return rows.join(columns).assign(predicted=[labels[best] for best in probabilities.argmax(axis=1)])


def provenance(settings: Settings, data: dict, table: pandas.DataFrame, **more) -> dict:
    """What a result rests on: data set and checksums, protocol and counts, recipe, weights, seed, versions; no paths.

    ``data`` is the report of ``dataset.verify``, ``table`` has subsets, ``more`` (say, the model) is added.
    """
    precision, weights = choose_precision(settings.precision), Path(settings.weights).name
    facts = dataclasses.asdict(settings) | {"weights": weights, "precision": precision}
    backend = keras.backend.backend()
    excluded = table.loc[table["subset"] == "excluded", "excluded_because"]
    return {
        "data": data["name"],
        "checksums": f"{data['status']} {data['verified']}/{data['expected']}",
        **more, **facts,
        "subsets": table["subset"].value_counts().sort_index().to_dict(),
        "excluded": excluded.value_counts().to_dict(),
        "backend": backend,
        "versions": {name: metadata.version(name) for name in ("keras", backend, "numpy")},
    }  # fmt: skip


def save_run(settings: Settings, model: str, facts: dict, history: pandas.DataFrame, predictions: pandas.DataFrame):
    """Write settings.json, history.csv and predictions.csv of a run into its results folder, and return the folder."""
    folder = settings.results_dir / run_name(settings, model)
    write_table(history, folder / "history.csv")
    write_table(predictions, folder / "predictions.csv")
    replace_file(folder / "settings.json", lambda file: file.write_text(json.dumps(facts, indent=1) + "\n"))
    return folder


def write_table(table: pandas.DataFrame, file: Path) -> None:
    """Write a CSV file whole or not at all, with six significant digits and LF line ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, lambda temporary: table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n"))


def save_figure(figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, lambda temporary: figure.savefig(temporary, format="png"))


def run(settings: Settings, model: str) -> dict:
    """The run as ``read_run`` gives it; where it has no results yet, it is trained and judged on validation first.

    Under the protocol ``source`` the other source is judged as well: it lies inside Training.
    """
    with suppress(FileNotFoundError):
        return read_run(settings, model)
    root, table, report = load_study(settings)
    checkpoints = run_folder(settings, model, table)
    network = build_for(settings, model, table["label"].nunique())
    history = train(network, *sequences(table, root, settings), settings, checkpoints)
    best, present = keras.saving.load_model(checkpoints / "best.keras"), set(table["subset"])
    subsets = [subset for subset in ("validation", "test") if subset in present]
    judged = [predict(best, table, subset, root, settings) for subset in subsets
              if subset == "validation" or settings.protocol == "source"]  # fmt: skip
    facts = provenance(settings, report, table, model=model, checkpoints=checkpoints.name)
    save_run(settings, model, facts, history, pandas.concat([table.head(0), *judged], ignore_index=True))
    return read_run(settings, model)


def read_run(settings: Settings, model: str) -> dict:
    """The files of a run as ``{"facts": dict, "history": table, "predictions": table, "folder": path}``.

    A quick run's recipe may differ from the settings' (without ImageNet weights it trains from scratch).
    Raises FileNotFoundError that names the notebook to run where a file is missing.
    """
    pattern = run_name(settings, model).replace(f"-{settings.recipe}-", "-*-")
    exact = settings.results_dir / run_name(settings, model)
    folders = [exact] if exact.exists() or settings.preset != "sample" else sorted(settings.results_dir.glob(pattern))
    for name in ("settings.json", "history.csv", "predictions.csv"):
        if not folders or not (folders[0] / name).exists():
            raise FileNotFoundError(
                f"'{exact.name}/{name}' is missing in {settings.results_dir.name}/: run notebook "
                f"{NOTEBOOKS.get(model, f'that trains {model}')} with the preset '{settings.preset}' first."
            )
    return _read_folder(folders[0])


def _read_folder(folder):
    return {"facts": json.loads((folder / "settings.json").read_text()), "folder": folder,
            "history": pandas.read_csv(folder / "history.csv"),
            "predictions": pandas.read_csv(folder / "predictions.csv")}  # fmt: skip


def metrics_row(facts: dict, predictions: pandas.DataFrame, subset: str) -> dict:
    """One row of metrics.csv. Intervals are 95 %, from a bootstrap over groups; AUROC is NaN where undefined.

    ``ece``: expected calibration error with 15 bins (arXiv:1706.04599); ``brier``: sum over classes of the squared
    difference of probability and truth, in [0, 2].
    """
    rows = predictions[predictions["subset"] == subset]
    labels = [column.removeprefix("p_") for column in predictions if column.startswith("p_")]
    if rows.empty:
        raise ValueError(f"No scan of the subset '{subset}' was predicted by {facts['model']}.")
    probabilities = rows[[f"p_{label}" for label in labels]].to_numpy()
    truth = numpy.eye(len(labels))[rows["label"].map(labels.index)]
    scores, lows, highs = _with_intervals(rows, labels)
    row = {key: facts[key] for key in ("model", "recipe", "protocol", "weights", "image_size", "seed")}
    row |= {"subset": subset, "n": len(rows), "groups": rows["group"].nunique()}
    for name in ("accuracy", "macro_f1"):
        row |= {name: scores[name], f"{name}_low": lows[name], f"{name}_high": highs[name]}
    row["balanced_accuracy"] = numpy.nanmean([scores[f"recall_{label}"] for label in labels])
    defined = len(labels) > 2 and (truth.sum(axis=0) > 0).all()
    row["auroc"] = roc_auc_score(truth, probabilities, average="macro") if defined else numpy.nan
    row["ece"] = expected_calibration_error(truth, probabilities)
    row["brier"] = ((probabilities - truth) ** 2).sum(1).mean()
    for name in [f"recall_{label}" for label in labels]:
        row |= {name: scores[name], f"{name}_low": lows[name], f"{name}_high": highs[name]}
    return row


def expected_calibration_error(truth: numpy.ndarray, probabilities: numpy.ndarray, bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over equally wide bins of confidence, weighted by scans; in [0, 1]."""
    confidence, best = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right = truth[numpy.arange(len(truth)), best]
    which = numpy.minimum((confidence * bins).astype(int), bins - 1)
    gaps = numpy.bincount(which, weights=right - confidence, minlength=bins)
    return float(numpy.abs(gaps).sum() / len(truth))


def scores_of(confusion: numpy.ndarray, labels: list[str]) -> dict:
    """Accuracy, macro-F1 and recall of each class from counts, shape (..., true class, predicted class).

    A class without scans has recall NaN and does not count for macro-F1.
    """
    hits = numpy.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        recall = hits / numpy.where(true > 0, true, numpy.nan)
        f1 = numpy.where(true > 0, 2 * hits / (true + predicted), numpy.nan)
    scores = {"accuracy": hits.sum(axis=-1) / confusion.sum(axis=(-2, -1)), "macro_f1": numpy.nanmean(f1, axis=-1)}
    return scores | {f"recall_{label}": recall[..., index] for index, label in enumerate(labels)}


def _with_intervals(rows, labels):
    """Scores and the 2.5 and 97.5 percentiles of a bootstrap that draws whole groups (Efron and Tibshirani 1993)."""
    cells = rows["label"].map(labels.index) * len(labels) + rows["predicted"].map(labels.index)
    counts = pandas.crosstab(rows["group"], cells).reindex(columns=range(len(labels) ** 2), fill_value=0).to_numpy()
    generator = numpy.random.default_rng(0)
    draws = generator.multinomial(len(counts), numpy.full(len(counts), 1 / len(counts)), size=REPLICATES)
    square = (-1, len(labels), len(labels))
    replicates = scores_of((draws @ counts).reshape(square), labels)
    scores = {name: float(value[0]) for name, value in scores_of(counts.sum(axis=0).reshape(square), labels).items()}
    low, high = ({name: float(numpy.nanquantile(values, share)) for name, values in replicates.items()}
                 for share in (0.025, 0.975))  # fmt: skip
    return scores, low, high


def judge_on_testing(settings: Settings, model: str) -> dict:
    """The run with the Testing folder predicted, which happens once per run: afterwards only its files are read.

    The model is the one that was selected on validation scans. Raises FileNotFoundError where it is gone,
    ValueError where the scans at hand are not those of the run.
    """
    run = read_run(settings, model)
    if (run["predictions"]["subset"] == "test").any():
        return run
    root, table, report = load_study(settings)
    facts = run["facts"]
    now = provenance(settings, report, table)
    if any(now[key] != facts[key] for key in ("data", "checksums", "subsets")):
        raise ValueError(f"'{run['folder'].name}' was trained on other scans ({facts['checksums']}): train it again.")
    best = BUILD_DIR / "models" / facts["checkpoints"] / "best.keras"
    if not best.exists():
        raise FileNotFoundError(f"The trained model of '{run['folder'].name}' is gone: run its notebook again.")
    test = predict(keras.saving.load_model(best), table, "test", root, settings)
    write_table(pandas.concat([run["predictions"], test], ignore_index=True), run["folder"] / "predictions.csv")
    return read_run(settings, model)


def metrics_table(runs) -> pandas.DataFrame:
    """One row a run (see ``read_run``) and predicted subset, validation before test."""
    present = [(run, subset) for run in runs for subset in ("validation", "test")
               if (run["predictions"]["subset"] == subset).any()]  # fmt: skip
    return pandas.DataFrame([metrics_row(run["facts"], run["predictions"], subset) for run, subset in present])


def write_all_metrics(results_dir: Path) -> None:
    """Compute metrics.csv anew from the files of every run in the folder."""
    runs = [_read_folder(file.parent) for file in sorted(results_dir.glob("*/settings.json"))]
    write_table(metrics_table(runs), results_dir / "metrics.csv")
