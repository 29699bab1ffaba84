"""How good, how sure: scores, intervals, paired tests and calibration, all computed from stored predictions."""

from braintumor.splits import KNOWN_PATIENTS

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.metrics import log_loss

NO_TUMOR = "no_tumor"  # what a missed tumor is called, and what a false alarm is
MISSED = [
    "tumors",
    "missed_tumors",
    "missed_tumor_rate",
    "missed_tumor_rate_low",
    "missed_tumor_rate_high",
]
FALSE_ALARMS = [
    "healthy",
    "false_alarms",
    "false_alarm_rate",
    "false_alarm_rate_low",
    "false_alarm_rate_high",
]
DETECTION = (
    MISSED + FALSE_ALARMS
)  # columns of metrics.csv; ``healthy`` counts scans without a tumor
SETTING = [
    "model",
    "recipe",
    "protocol",
    "weights",
    "image_size",
]  # the same in runs that differ by their seed alone


def metrics_row(facts: dict, predictions: pd.DataFrame, subset: str) -> dict:
    """One row of metrics.csv.

    Args:
        facts: What the run rests on, as in its settings.json.
        predictions: The predictions of the run, for any subsets.
        subset: The subset to evaluate.

    Returns:
        The run, the scans that the row rests on, and the scores, by column. Intervals are 95 %, from a bootstrap over
        groups; AUROC is NaN where undefined.

    Raises:
        ValueError: No scan of the subset was predicted.
    """
    rows, labels = predictions[predictions["subset"] == subset], _labels(predictions)
    if rows.empty:
        raise ValueError(
            f"No scan of the subset '{subset}' was predicted by {facts['model']}."
        )
    scores = with_intervals(rows)
    of_probabilities = weighted_probability_scores(
        rows, counts=np.ones((1, len(rows)))
    ).iloc[0]
    groups = pd.Series(rows["group"].unique())
    row = {key: facts[key] for key in [*SETTING, "seed"]}
    row |= {"subset": subset, "n": len(rows), "groups": len(groups)}
    row |= {"known_patients": int(groups.str.startswith(KNOWN_PATIENTS).sum())}
    row |= with_bounds(scores, ["accuracy", "macro_f1"])
    row |= detection(rows)
    row |= {
        "balanced_accuracy": scores.at["balanced_accuracy", "value"],
        **of_probabilities,
    }
    return row | with_bounds(scores, [f"recall_{label}" for label in labels])


def detection(predictions: pd.DataFrame) -> dict:
    """How many tumors were missed, and how many scans without a tumor gave a false alarm.

    A missed tumor is called ``no_tumor``. A tumor that is taken for another kind of tumor is found.

    Args:
        predictions: Predictions of one subset.

    Returns:
        The columns ``DETECTION``: counts of scans, counts of errors, and rates with 95 % intervals from a bootstrap
        over groups. A rate of no scans is NaN. In a data set without the class ``no_tumor``, every column is NaN.
    """
    labels = _labels(predictions)
    if NO_TUMOR not in labels:
        return dict.fromkeys(DETECTION, np.nan)
    confusions = _confusions(predictions, "group")
    scores = pd.DataFrame(detection_scores(confusions, labels.index(NO_TUMOR)))
    counts = {
        name: int(scores.at[0, name])
        for name in ("tumors", "missed_tumors", "healthy", "false_alarms")
    }
    rates = with_bounds(_summary(scores), ["missed_tumor_rate", "false_alarm_rate"])
    values = counts | rates
    return {name: values[name] for name in DETECTION}


def detection_scores(confusion: np.ndarray, no_tumor: int) -> dict[str, np.ndarray]:
    """Counts and rates of missed tumors and false alarms.

    Args:
        confusion: Counts of scans, of shape (..., true class, predicted class).
        no_tumor: The position of the class without a tumor.

    Returns:
        Arrays of shape (...). A rate is NaN where there is no scan of its kind.
    """
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    healthy = true[..., no_tumor]
    correct = confusion[..., no_tumor, no_tumor]
    tumors = true.sum(axis=-1) - healthy
    missed_tumors = predicted[..., no_tumor] - correct
    false_alarms = healthy - correct
    scores = {
        "tumors": tumors,
        "missed_tumors": missed_tumors,
        "healthy": healthy,
        "false_alarms": false_alarms,
    }
    with np.errstate(invalid="ignore"):
        scores["missed_tumor_rate"] = missed_tumors / tumors
        scores["false_alarm_rate"] = false_alarms / healthy
    return scores


def with_bounds(scores: pd.DataFrame, names: list[str]) -> dict:
    """Some rows of ``with_intervals`` as one flat row: ``accuracy``, ``accuracy_low``, ``accuracy_high``, ..."""
    suffixes = {"value": "", "low": "_low", "high": "_high"}
    return {
        f"{name}{suffix}": scores.at[name, key]
        for name in names
        for key, suffix in suffixes.items()
    }


def probability_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """What the probabilities are worth, with intervals as ``with_intervals`` gives them.

    Args:
        predictions: Predictions of one subset.

    Returns:
        A row for each score of ``weighted_probability_scores``, its ``value``, and the 95 % interval from ``low`` to
        ``high``, from a bootstrap over groups.
    """
    scan_groups, groups = predictions["group"].factorize(sort=True)
    # how often each scan counts: once, and in a replicate as often as its group was drawn
    draws = bootstrap(np.eye(len(groups)))[:, scan_groups]
    counts = np.vstack([np.ones(len(predictions)), draws])
    return _summary(weighted_probability_scores(predictions, counts))


def weighted_probability_scores(
    predictions: pd.DataFrame, counts: np.ndarray
) -> pd.DataFrame:
    """Scores of the probabilities, where scans count as often as is asked.

    Args:
        predictions: Predictions of one subset.
        counts: How often each scan counts, shape (replicates, scans).

    Returns:
        A row for each replicate. ``auroc``: mean over classes, each against all others, NaN if one is missing.
        ``ece``: mean distance of confidence and accuracy over 15 equal bins of confidence (arXiv:1706.04599), in
        [0, 1]. ``brier``: squared error, in [0, 2].
    """
    labels = _labels(predictions)
    probabilities = predictions.filter(regex="^p_").to_numpy()
    truth = np.eye(len(labels))[predictions["label"].map(labels.index)]
    areas = []
    for stated, true in zip(probabilities.T, truth.T == 1):
        others = stated[~true]
        above = (stated[true, None] > others) + (stated[true, None] == others) / 2
        pairs = counts[:, true].sum(axis=1) * counts[:, ~true].sum(axis=1)
        with np.errstate(invalid="ignore"):
            areas.append(
                (counts[:, true] @ above * counts[:, ~true]).sum(axis=1) / pairs
            )
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth.argmax(axis=1)
    bins = np.minimum(confidence * 15, 14).astype(int)
    gaps = np.eye(15)[bins] * (correct - confidence)[:, None]
    squared_errors = ((probabilities - truth) ** 2).sum(axis=1)
    scans = counts.sum(axis=1)
    scores = {"auroc": np.mean(areas, axis=0)}
    scores["ece"] = abs(counts @ gaps).sum(axis=1) / scans
    scores["brier"] = (counts @ squared_errors) / scans
    return pd.DataFrame(scores)


def scores_of(confusion: np.ndarray, labels: list[str]) -> dict:
    """Accuracy, macro-F1, balanced accuracy; recall, specificity by class (NaN: undefined); (..., true, predicted)."""
    hits = confusion.diagonal(axis1=-2, axis2=-1)
    true, predicted, scans = (
        confusion.sum(axis=-1),
        confusion.sum(axis=-2),
        confusion.sum(axis=(-2, -1)),
    )
    others = scans[..., None] - true
    with np.errstate(invalid="ignore"):
        rates = {
            "recall": hits / true,
            "specificity": (others - predicted + hits) / others,
        }
        f1 = np.where(true > 0, 2 * hits / (true + predicted), np.nan)
    scores = {
        "accuracy": hits.sum(axis=-1) / scans,
        "macro_f1": np.nanmean(f1, axis=-1),
    }
    scores["balanced_accuracy"] = np.nanmean(rates["recall"], axis=-1)
    return scores | {
        f"{name}_{label}": rates[name][..., i]
        for name in rates
        for i, label in enumerate(labels)
    }


def with_intervals(predictions: pd.DataFrame, unit: str = "group") -> pd.DataFrame:
    """Every score of ``scores_of`` (rows), its ``value``, and the 95 % interval from ``low`` to ``high``.

    The bootstrap draws whole units (Efron and Tibshirani 1993); ``path`` takes the slices of a patient for independent.
    """
    return _summary(_replicates(predictions, unit))


def compare(first: pd.DataFrame, second: pd.DataFrame) -> dict:
    """Two models' predictions of the same scans: differences of accuracy and macro-F1 (first minus second), who errs.

    Intervals (95 %) come from a bootstrap over groups, in which both models meet the same patients. ``only_first`` and
    ``only_second`` count the scans that only this model gets right; ``p_value`` is the exact, two-sided McNemar test
    on them (McNemar 1947), which takes scans for independent. Raises ValueError if the scans differ.
    """
    first, second = (
        table.sort_values("path", ignore_index=True) for table in (first, second)
    )
    if not first["path"].equals(second["path"]):
        raise ValueError("Only predictions of the same scans can be compared in pairs.")
    differences = _summary(_replicates(first, "group") - _replicates(second, "group"))
    right, also = (table["label"] == table["predicted"] for table in (first, second))
    alone = {
        "only_first": int((right & ~also).sum()),
        "only_second": int((also & ~right).sum()),
    }
    p_value = (
        binomtest(alone["only_first"], sum(alone.values())).pvalue
        if any(alone.values())
        else 1.0
    )
    return (
        with_bounds(differences, ["accuracy", "macro_f1"])
        | alone
        | {"p_value": p_value}
    )


def fit_temperature(predictions: pd.DataFrame) -> float:
    """The temperature that makes these probabilities most likely (Guo et al., arXiv:1706.04599); above 1: too sure."""

    def loss(logarithm):
        scaled = with_temperature(predictions, np.exp(logarithm))
        return log_loss(
            scaled["label"], scaled.filter(regex="^p_"), labels=_labels(scaled)
        )

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def with_temperature(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """The table with softer (temperature above 1) or sharper probabilities; the predicted class stays."""
    powers = predictions.filter(regex="^p_").clip(lower=1e-7) ** (1 / temperature)
    return predictions.assign(**powers.div(powers.sum(axis=1), axis=0))


def _labels(predictions):
    return [column.removeprefix("p_") for column in predictions.filter(regex="^p_")]


def _replicates(predictions, unit):
    """The scores of the predictions, and in the rows below of its replicates: the same draws for the same units."""
    return pd.DataFrame(scores_of(_confusions(predictions, unit), _labels(predictions)))


def _confusions(predictions, unit):
    """The confusion matrix of the predictions, and below it those of the replicates: (1 + replicates, true, predicted).

    The same units are drawn for the same predictions, whatever the order of their rows.
    """
    labels = _labels(predictions)
    cells = predictions["label"].map(labels.index) * len(labels) + predictions[
        "predicted"
    ].map(labels.index)
    counts = pd.crosstab(predictions[unit], cells).reindex(
        columns=range(len(labels) ** 2), fill_value=0
    )
    counts = counts.to_numpy().reshape(-1, len(labels), len(labels))
    return np.concatenate([counts.sum(axis=0)[None], bootstrap(counts)])


def _summary(scores):
    """The scores in the first row, and the 2.5 and 97.5 percentiles of those below that are defined; NaN if none is."""
    rows = np.vstack([scores[:1], scores[1:].quantile([0.025, 0.975])])
    return pd.DataFrame(rows.T, scores.columns, ["value", "low", "high"])


def bootstrap(counts):
    """Sums of the counts of as many units, drawn with replacement: shape (replicates, ...)."""
    units = len(counts)
    draws = np.random.default_rng(0).multinomial(
        units, np.full(units, 1 / units), size=2000
    )
    return np.tensordot(draws, counts, axes=1)


def mean_interval(values: pd.Series, groups: pd.Series) -> tuple[float, float, float]:
    """The mean of one value a scan, and the bounds of its 95 % interval from a bootstrap over groups."""
    sums, counts = bootstrap(
        pd.DataFrame({"sum": values, "n": 1}).groupby(groups).sum().to_numpy()
    ).T
    return float(values.mean()), *map(
        float, pd.Series(sums / counts).quantile([0.025, 0.975])
    )
