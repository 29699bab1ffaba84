"""How good, how sure: scores, intervals, paired tests and calibration, all computed from stored predictions."""

import numpy
import pandas
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.metrics import log_loss, roc_auc_score

REPLICATES = 2000  # of the bootstrap


def metrics_row(facts: dict, predictions: pandas.DataFrame, subset: str) -> dict:
    """One row of metrics.csv. Intervals are 95 %, from a bootstrap over groups; AUROC is NaN where undefined.

    ``brier``: sum over classes of the squared difference of probability and truth, in [0, 2].
    """
    rows, labels = predictions[predictions["subset"] == subset], _labels(predictions)
    if rows.empty:
        raise ValueError(f"No scan of the subset '{subset}' was predicted by {facts['model']}.")
    probabilities = rows[[f"p_{label}" for label in labels]].to_numpy()
    truth = numpy.eye(len(labels))[rows["label"].map(labels.index)]
    scores, recalls = with_intervals(rows), [f"recall_{label}" for label in labels]
    row = {key: facts[key] for key in ("model", "recipe", "protocol", "weights", "image_size", "seed")}
    row |= {"subset": subset, "n": len(rows), "groups": rows["group"].nunique()}
    row |= with_bounds(scores, ["accuracy", "macro_f1"])
    row["balanced_accuracy"] = numpy.nanmean(scores.loc[recalls, "value"])
    defined = len(labels) > 2 and (truth.sum(axis=0) > 0).all()
    row["auroc"] = roc_auc_score(truth, probabilities, average="macro") if defined else numpy.nan
    row["ece"] = expected_calibration_error(truth, probabilities)
    row["brier"] = ((probabilities - truth) ** 2).sum(1).mean()
    return row | with_bounds(scores, recalls)


def with_bounds(scores: pandas.DataFrame, names: list[str]) -> dict:
    """Some rows of ``with_intervals`` as one flat row: ``accuracy``, ``accuracy_low``, ``accuracy_high``, ..."""
    suffixes = {"value": "", "low": "_low", "high": "_high"}
    return {f"{name}{suffix}": scores.at[name, key] for name in names for key, suffix in suffixes.items()}


def expected_calibration_error(truth: numpy.ndarray, probabilities: numpy.ndarray, bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over equal bins of confidence (arXiv:1706.04599), in [0, 1]."""
    confidence, best = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right = truth[numpy.arange(len(truth)), best]
    which = numpy.minimum((confidence * bins).astype(int), bins - 1)
    gaps = numpy.bincount(which, weights=right - confidence, minlength=bins)
    return float(numpy.abs(gaps).sum() / len(truth))


def scores_of(confusion: numpy.ndarray, labels: list[str]) -> dict:
    """Accuracy, macro-F1, and recall and specificity of each class (NaN if undefined) from (..., true, predicted)."""
    hits = numpy.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted, all_scans = confusion.sum(axis=-1), confusion.sum(axis=-2), confusion.sum(axis=(-2, -1))
    others = all_scans[..., None] - true
    with numpy.errstate(invalid="ignore", divide="ignore"):
        recall = hits / numpy.where(true > 0, true, numpy.nan)
        specificity = (others - predicted + hits) / numpy.where(others > 0, others, numpy.nan)
        f1 = numpy.where(true > 0, 2 * hits / (true + predicted), numpy.nan)
    scores = {"accuracy": hits.sum(axis=-1) / all_scans, "macro_f1": numpy.nanmean(f1, axis=-1)}
    scores |= {f"recall_{label}": recall[..., index] for index, label in enumerate(labels)}
    return scores | {f"specificity_{label}": specificity[..., index] for index, label in enumerate(labels)}


def with_intervals(predictions: pandas.DataFrame, unit: str = "group") -> pandas.DataFrame:
    """Every score of ``scores_of`` (rows), its ``value``, and the 95 % interval from ``low`` to ``high``.

    The bootstrap draws whole units (Efron and Tibshirani 1993); ``path`` takes the slices of a patient for independent.
    """
    labels = _labels(predictions)
    counts = _confusion_by(predictions, labels, unit)
    scores, replicates = scores_of(counts.sum(0), labels), scores_of(bootstrap(counts), labels)
    rows = {name: (float(scores[name]), *interval(replicates[name])) for name in scores}
    return pandas.DataFrame(rows, ["value", "low", "high"]).T


def compare(first: pandas.DataFrame, second: pandas.DataFrame) -> dict:
    """Two models' predictions of the same scans: differences of accuracy and macro-F1 (first minus second), who errs.

    Intervals (95 %) come from a bootstrap over groups, in which both models meet the same patients. ``only_first`` and
    ``only_second`` count the scans that only this model gets right; ``p_value`` is the exact, two-sided McNemar test
    on them (McNemar 1947), which takes scans for independent. Raises ValueError if the scans differ.
    """
    first, second = (table.sort_values("path", ignore_index=True) for table in (first, second))
    if not first["path"].equals(second["path"]):
        raise ValueError("Only predictions of the same scans can be compared in pairs.")
    labels = _labels(first)
    both = numpy.stack([_confusion_by(table, labels, "group") for table in (first, second)], axis=1)
    one, other = numpy.moveaxis(bootstrap(both), 1, 0)
    one, other, counts = scores_of(one, labels), scores_of(other, labels), scores_of(both.sum(0), labels)
    result = {}
    for name in ("accuracy", "macro_f1"):
        low, high = interval(one[name] - other[name])
        result |= {name: counts[name][0] - counts[name][1], f"{name}_low": low, f"{name}_high": high}
    right, also = (table["label"] == table["predicted"] for table in (first, second))
    alone = int((right & ~also).sum()), int((also & ~right).sum())
    p_value = binomtest(alone[0], sum(alone)).pvalue if sum(alone) else 1.0
    return result | {"only_first": alone[0], "only_second": alone[1], "p_value": p_value}


def fit_temperature(predictions: pandas.DataFrame) -> float:
    """The temperature that makes these probabilities most likely (Guo et al., arXiv:1706.04599); above 1: too sure."""
    labels = _labels(predictions)

    def loss(logarithm):
        scaled = with_temperature(predictions, numpy.exp(logarithm))
        return log_loss(scaled["label"], scaled[[f"p_{label}" for label in labels]], labels=labels)

    return float(numpy.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def with_temperature(predictions: pandas.DataFrame, temperature: float) -> pandas.DataFrame:
    """The table with softer (temperature above 1) or sharper probabilities; the predicted class stays."""
    columns = [f"p_{label}" for label in _labels(predictions)]
    powers = predictions[columns].clip(lower=1e-7) ** (1 / temperature)
    return predictions.assign(**powers.div(powers.sum(axis=1), axis=0))


def _labels(predictions):
    return [column.removeprefix("p_") for column in predictions if column.startswith("p_")]


def _confusion_by(rows, labels, unit):
    """Counts of (true, predicted) class for each unit, in sorted order: shape (units, classes, classes)."""
    cells = rows["label"].map(labels.index) * len(labels) + rows["predicted"].map(labels.index)
    counts = pandas.crosstab(rows[unit], cells).reindex(columns=range(len(labels) ** 2), fill_value=0).to_numpy()
    return counts.reshape(-1, len(labels), len(labels))


def bootstrap(counts):
    """Sums of the counts of as many units, drawn with replacement: shape (replicates, ...)."""
    units = len(counts)
    draws = numpy.random.default_rng(0).multinomial(units, numpy.full(units, 1 / units), size=REPLICATES)
    return numpy.tensordot(draws, counts, axes=1)


def interval(values):
    """The 2.5 and 97.5 percentiles of the values that are defined; NaN where none is."""
    defined = values[~numpy.isnan(values)]
    return tuple(map(float, numpy.quantile(defined, (0.025, 0.975)))) if defined.size else (numpy.nan, numpy.nan)
