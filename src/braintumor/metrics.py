"""How good, how sure? Scores, intervals and paired tests, all from stored predictions.

Predictions are tables as ``runs.predict`` makes them: ``label``, ``predicted``,
``group``, ``path`` and ``p_<label>`` for every class. Intervals are 95%, from a
bootstrap that draws whole groups, because the scans of one patient resemble each other
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
"""

from typing import Any

from braintumor.dataset import NO_TUMOR
from braintumor.splits import KNOWN_PATIENTS

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.metrics import log_loss

REPLICATES = 2000  # of the bootstrap
CALIBRATION_BINS = 15
DETECTION = [
    "tumors",
    "missed_tumors",
    "missed_tumor_rate",
    "missed_tumor_rate_low",
    "missed_tumor_rate_high",
    "healthy",  # scans without a tumor
    "false_alarms",
    "false_alarm_rate",
    "false_alarm_rate_low",
    "false_alarm_rate_high",
]
# the same in runs that differ by their seed alone
RUN_COLUMNS = ["model", "recipe", "protocol", "weights", "image_size"]


def metrics_row(
    provenance: dict[str, Any], predictions: pd.DataFrame, subset: str
) -> dict[str, Any]:
    """Compute one row of metrics.csv.

    Args:
        provenance: Of the run.
        predictions: Of the run, for any subsets.
        subset: The subset to evaluate.

    Returns:
        The run, the scans that the row rests on, and the scores, by column. AUROC is
        NaN where it is undefined.

    Raises:
        ValueError: No scan of the subset was predicted.
    """
    rows = predictions[predictions["subset"] == subset]
    if rows.empty:
        model = provenance["model"]
        raise ValueError(f"No scan of the subset '{subset}' was predicted by {model}.")
    labels = class_labels(predictions)
    scores = score_intervals(rows)
    # each scan once, as these scores have no interval here
    once_each = np.ones((1, len(rows)))
    of_probabilities = weighted_probability_scores(rows, once_each)
    groups = pd.Series(rows["group"].unique())
    known_patients = groups.str.startswith(KNOWN_PATIENTS)

    row = {column: provenance[column] for column in RUN_COLUMNS}
    row["seed"] = provenance["seed"]
    row["subset"] = subset
    row["n"] = len(rows)
    row["groups"] = len(groups)
    row["known_patients"] = int(known_patients.sum())
    row.update(with_bounds(scores, ["accuracy", "macro_f1"]))
    row.update(detection(rows))
    row["balanced_accuracy"] = scores.at["balanced_accuracy", "value"]
    row.update(of_probabilities.iloc[0])
    recalls = [f"recall_{label}" for label in labels]
    row.update(with_bounds(scores, recalls))
    return row


def detection(predictions: pd.DataFrame) -> dict[str, Any]:
    """Count missed tumors and false alarms.

    A missed tumor is called ``no_tumor``. A tumor that is taken for another kind of
    tumor is found. A false alarm is a scan without a tumor that is called a tumor.

    Args:
        predictions: Of one subset.

    Returns:
        The columns ``DETECTION``: counts of scans, counts of errors, and rates with
        their intervals. A rate of no scans is NaN. In a data set without the class
        ``no_tumor``, every column is NaN.
    """
    labels = class_labels(predictions)
    if NO_TUMOR not in labels:
        return dict.fromkeys(DETECTION, np.nan)
    confusions = _bootstrap_confusions(predictions, "group")
    scores = pd.DataFrame(detection_scores(confusions, labels.index(NO_TUMOR)))
    counts = {
        name: int(scores.at[0, name])
        for name in ("tumors", "missed_tumors", "healthy", "false_alarms")
    }
    rates = with_bounds(_summarize(scores), ["missed_tumor_rate", "false_alarm_rate"])
    values = {**counts, **rates}
    return {name: values[name] for name in DETECTION}


def detection_scores(confusion: np.ndarray, no_tumor: int) -> dict[str, np.ndarray]:
    """Compute counts and rates of missed tumors and false alarms.

    Args:
        confusion: Counts of scans, of shape (..., true class, predicted class).
        no_tumor: The index of the class without a tumor.

    Returns:
        Arrays of shape (...). A rate is NaN where there is no scan of its kind.
    """
    true = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    healthy = true[..., no_tumor]
    correct = confusion[..., no_tumor, no_tumor]
    tumors = true.sum(axis=-1) - healthy
    missed_tumors = predicted[..., no_tumor] - correct
    false_alarms = healthy - correct
    with np.errstate(invalid="ignore"):
        missed_tumor_rate = missed_tumors / tumors
        false_alarm_rate = false_alarms / healthy
    return {
        "tumors": tumors,
        "missed_tumors": missed_tumors,
        "healthy": healthy,
        "false_alarms": false_alarms,
        "missed_tumor_rate": missed_tumor_rate,
        "false_alarm_rate": false_alarm_rate,
    }


def with_bounds(scores: pd.DataFrame, names: list[str]) -> dict[str, float]:
    """Write some scores and their intervals as one flat row.

    Args:
        scores: One row a score, with ``value``, ``low`` and ``high``.
        names: The scores that are wanted.

    Returns:
        ``accuracy``, ``accuracy_low``, ``accuracy_high``, and so on.
    """
    row = {}
    for name in names:
        row[name] = scores.at[name, "value"]
        row[f"{name}_low"] = scores.at[name, "low"]
        row[f"{name}_high"] = scores.at[name, "high"]
    return row


def score_intervals(predictions: pd.DataFrame, unit: str = "group") -> pd.DataFrame:
    """Compute every score of ``confusion_scores``, with its interval.

    Args:
        predictions: Of one subset.
        unit: The column whose values are drawn as a whole. ``path`` takes the scans of
            a patient for independent, which makes intervals too narrow.

    Returns:
        One row a score: ``value``, and the interval from ``low`` to ``high``.
    """
    return _summarize(_bootstrap_scores(predictions, unit))


def confusion_scores(confusion: np.ndarray, labels: list[str]) -> dict[str, np.ndarray]:
    """Compute the scores that a confusion matrix gives.

    Args:
        confusion: Counts of scans, of shape (..., true class, predicted class).
        labels: The classes.

    Returns:
        ``accuracy``, ``macro_f1``, ``balanced_accuracy``, then ``recall_<label>`` and
        ``specificity_<label>``, of shape (...), all in [0, 1]. A recall of no scans is
        NaN, and means over classes leave it out.
    """
    hits = confusion.diagonal(axis1=-2, axis2=-1)
    true = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    scans = confusion.sum(axis=(-2, -1))
    others = scans[..., None] - true
    with np.errstate(invalid="ignore"):
        recall = hits / true
        specificity = (others - predicted + hits) / others
        f1 = np.where(true > 0, 2 * hits / (true + predicted), np.nan)
    scores = {
        "accuracy": hits.sum(axis=-1) / scans,
        "macro_f1": np.nanmean(f1, axis=-1),
        "balanced_accuracy": np.nanmean(recall, axis=-1),
    }
    for index, label in enumerate(labels):
        scores[f"recall_{label}"] = recall[..., index]
    for index, label in enumerate(labels):
        scores[f"specificity_{label}"] = specificity[..., index]
    return scores


def probability_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """Compute what the probabilities are worth, with intervals.

    Args:
        predictions: Of one subset.

    Returns:
        One row a score of ``weighted_probability_scores``: ``value``, and the interval
        from ``low`` to ``high``.
    """
    group_of_scan, groups = predictions["group"].factorize(sort=True)
    # the scans as they are: each counts once
    once_each = np.ones(len(predictions))
    # a replicate: each scan counts as often as its group was drawn
    draws_of_group = bootstrap(np.eye(len(groups)))
    draws_of_scan = draws_of_group[:, group_of_scan]
    counts = np.vstack([once_each, draws_of_scan])
    return _summarize(weighted_probability_scores(predictions, counts))


def weighted_probability_scores(
    predictions: pd.DataFrame, counts: np.ndarray
) -> pd.DataFrame:
    """Compute scores of the probabilities, where each scan counts as often as asked.

    Args:
        predictions: Of one subset.
        counts: How often each scan counts, shape (replicates, scans).

    Returns:
        One row a replicate. ``auroc``: the mean over classes, each against all others,
        in [0, 1], NaN if a class is missing. ``ece``: the mean distance of confidence
        and accuracy over 15 equal bins of confidence (arXiv:1706.04599), in [0, 1].
        ``brier``: the squared error, in [0, 2].
    """
    labels = class_labels(predictions)
    probabilities = predictions.filter(regex="^p_").to_numpy()
    true_index = predictions["label"].map(labels.index)
    one_hot = np.eye(len(labels))[true_index]
    areas = []
    for stated, is_class in zip(probabilities.T, one_hot.T == 1, strict=True):
        areas.append(_weighted_auroc(stated, is_class, counts))

    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == one_hot.argmax(axis=1)
    last_bin = CALIBRATION_BINS - 1
    bins = np.minimum(confidence * CALIBRATION_BINS, last_bin).astype(int)
    gaps = np.eye(CALIBRATION_BINS)[bins] * (correct - confidence)[:, None]
    squared_errors = ((probabilities - one_hot) ** 2).sum(axis=1)
    scans = counts.sum(axis=1)
    return pd.DataFrame(
        {
            "auroc": np.mean(areas, axis=0),
            "ece": abs(counts @ gaps).sum(axis=1) / scans,
            "brier": (counts @ squared_errors) / scans,
        }
    )


def _weighted_auroc(
    stated: np.ndarray, is_class: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """The share of pairs of scans, one of the class and one not, in the right order.

    All pairs are in memory at once: 8 bytes each, 24 MB for 1,000 and 3,000 scans.
    """
    of_class = stated[is_class, None]
    of_others = stated[~is_class]
    # 1 where the scan of the class gets the higher probability, 1/2 where both the same
    higher = of_class > of_others
    equal = of_class == of_others
    above = higher + equal / 2
    counts_of_class = counts[:, is_class]
    counts_of_others = counts[:, ~is_class]
    pairs_by_other = counts_of_class @ above * counts_of_others
    right_pairs = pairs_by_other.sum(axis=1)
    scans_of_class = counts_of_class.sum(axis=1)
    scans_of_others = counts_of_others.sum(axis=1)
    pairs = scans_of_class * scans_of_others
    with np.errstate(invalid="ignore"):
        return right_pairs / pairs


def paired_comparison(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    """Compare two models on the same scans.

    Intervals come from a bootstrap in which both models meet the same groups. The
    exact, two-sided McNemar test (McNemar 1947) takes scans for independent.

    Args:
        first: Predictions of one model.
        second: Predictions of the other model.

    Returns:
        ``accuracy`` and ``macro_f1``: first minus second, with ``_low`` and ``_high``.
        ``only_first``, ``only_second``: scans that only this model classifies
        correctly. ``p_value``: of the McNemar test.

    Raises:
        ValueError: The scans differ.
    """
    first = first.sort_values("path", ignore_index=True)
    second = second.sort_values("path", ignore_index=True)
    if not first["path"].equals(second["path"]):
        raise ValueError("Only predictions of the same scans can be compared in pairs.")
    first_scores = _bootstrap_scores(first, "group")
    second_scores = _bootstrap_scores(second, "group")
    differences = _summarize(first_scores - second_scores)

    first_correct = first["label"] == first["predicted"]
    second_correct = second["label"] == second["predicted"]
    first_alone = first_correct & ~second_correct
    second_alone = second_correct & ~first_correct
    only_first = int(first_alone.sum())
    only_second = int(second_alone.sum())
    p_value = 1.0
    if only_first + only_second > 0:
        p_value = binomtest(only_first, only_first + only_second).pvalue
    return {
        **with_bounds(differences, ["accuracy", "macro_f1"]),
        "only_first": only_first,
        "only_second": only_second,
        "p_value": p_value,
    }


def fit_temperature(predictions: pd.DataFrame) -> float:
    """Find the temperature that makes the probabilities most likely.

    Args:
        predictions: Of one subset.

    Returns:
        The temperature (arXiv:1706.04599); above 1 where the model is overconfident.
    """
    labels = class_labels(predictions)

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(predictions, np.exp(log_temperature))
        return log_loss(scaled["label"], scaled.filter(regex="^p_"), labels=labels)

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return float(np.exp(best.x))


def with_temperature(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """Make probabilities softer or sharper; the predicted class stays.

    Args:
        predictions: Any predictions.
        temperature: Above 1 softens, below 1 sharpens.

    Returns:
        The table with other probabilities.
    """
    probabilities = predictions.filter(regex="^p_")
    powers = probabilities.clip(lower=1e-7) ** (1 / temperature)
    scaled = powers.div(powers.sum(axis=1), axis=0)
    return predictions.assign(**scaled)


def mean_interval(values: pd.Series, groups: pd.Series) -> tuple[float, float, float]:
    """Compute a mean over scans, with its interval.

    Args:
        values: One value a scan.
        groups: The group of each scan.

    Returns:
        The mean, and the bounds of its interval.
    """
    by_scan = pd.DataFrame({"sum": values, "n": 1})
    by_group = by_scan.groupby(groups).sum()
    sums, counts = bootstrap(by_group.to_numpy()).T
    bounds = pd.Series(sums / counts).quantile([0.025, 0.975])
    return float(values.mean()), float(bounds[0.025]), float(bounds[0.975])


def accuracy_interval(predictions: list[pd.DataFrame]) -> tuple[float, float, float]:
    """Compute the accuracy over several seeds, with its interval.

    Args:
        predictions: Of one subset, a table for each seed. The scans may differ, as
            validation scans do.

    Returns:
        The accuracy, and the bounds of its interval, for which each group is drawn with
        all its scans in all seeds.
    """
    table = pd.concat(predictions, ignore_index=True)
    correct = (table["label"] == table["predicted"]).astype(float)
    return mean_interval(correct, table["group"])


def accuracy_difference(
    first: list[pd.DataFrame], second: list[pd.DataFrame]
) -> tuple[float, float, float]:
    """Compare the accuracy of two settings over their seeds, on the same scans.

    Each scan counts with the share of seeds that classify it correctly. So the seeds of
    a setting, which share their scans, are one comparison, and not several. Where the
    seeds have other scans, as in validation, a scan counts once for each seed that has
    it.

    Args:
        first: Predictions of one setting, a table for each seed.
        second: Those of the other setting, with the same seeds where these have other
            scans.

    Returns:
        The accuracy of ``first`` minus that of ``second``, and the bounds of its
        interval, for which both settings meet the same groups.

    Raises:
        ValueError: The scans differ.
    """
    evaluated = pd.concat(first, ignore_index=True)
    shares_correct = []
    for scans in (evaluated, pd.concat(second, ignore_index=True)):
        correct = scans["label"] == scans["predicted"]
        shares_correct.append(correct.groupby(scans["path"]).mean())
    if not shares_correct[0].index.equals(shares_correct[1].index):
        raise ValueError("Only predictions of the same scans can be compared in pairs.")
    gain = shares_correct[0] - shares_correct[1]
    group_of_scan = evaluated.drop_duplicates("path").set_index("path")["group"]
    seeds_of_scan = evaluated["path"].value_counts()
    gain = gain.repeat(seeds_of_scan.loc[gain.index])
    return mean_interval(gain, group_of_scan.loc[gain.index])


def difference_in_words(
    first: str, second: str, difference: tuple[float, float, float]
) -> str:
    """Say which of two settings is ahead, and by how much.

    Args:
        first: The name of one setting.
        second: That of the other setting.
        difference: What ``accuracy_difference`` gives for them.

    Returns:
        Such as ``VGG16 is ahead of ResNet50 by 14.9 points (9.8 to 20.0)``.
    """
    points, low, high = (100 * share for share in difference)
    words = "ahead of"
    if points < 0:
        words = "behind"
        points, low, high = -points, -high, -low
    return (
        f"{first} is {words} {second} by {points:.1f} points ({low:.1f} to {high:.1f})"
    )


def shown_better(
    first: str, second: str, difference: tuple[float, float, float]
) -> str:
    """Say which of two settings is better, if the interval says so.

    Args:
        first: The name of one setting.
        second: That of the other setting.
        difference: What ``accuracy_difference`` gives for them.

    Returns:
        One of the names; or ``neither``, where the interval holds 0.
    """
    _, low, high = difference
    if low > 0:
        return first
    if high < 0:
        return second
    return "neither"


def detection_over_seeds(predictions: list[pd.DataFrame]) -> pd.DataFrame:
    """Count missed tumors and false alarms of several seeds, see ``detection``.

    Args:
        predictions: Of one subset, a table for each seed.

    Returns:
        The rows ``missed tumors`` and ``false alarms``. ``share``, ``low``, ``high``:
        the rate over all seeds, and its interval. ``counts``: text such as
        ``20, 41, 57 of 266``, one count for each seed. A rate of no scans, and both
        rates in a data set without the class ``no_tumor``, are NaN with counts ``–``.
    """
    has_no_tumor = NO_TUMOR in class_labels(predictions[0])
    undefined = {"share": np.nan, "low": np.nan, "high": np.nan, "counts": "–"}
    rows: dict[str, dict[str, Any]] = {}
    for error, of_tumors in (("missed tumors", True), ("false alarms", False)):
        errors, groups, counts = [], [], []
        for table in predictions:
            is_tumor = table["label"] != NO_TUMOR
            scans = table[is_tumor == of_tumors]
            called_no_tumor = scans["predicted"] == NO_TUMOR
            is_error = called_no_tumor == of_tumors
            errors.append(is_error.astype(float))
            groups.append(scans["group"])
            counts.append(str(is_error.sum()))
        all_errors = pd.concat(errors, ignore_index=True)
        if not has_no_tumor or all_errors.empty:
            rows[error] = undefined
            continue
        all_groups = pd.concat(groups, ignore_index=True)
        share, low, high = mean_interval(all_errors, all_groups)
        text = f"{', '.join(counts)} of {len(errors[0])}"
        rows[error] = {"share": share, "low": low, "high": high, "counts": text}
    return pd.DataFrame.from_dict(rows, orient="index")


def summarize_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Summarize runs that differ by their seed alone.

    Args:
        scores: Rows of metrics.csv.

    Returns:
        One row for each setting and subset: how many seeds, scans, groups and known
        patients, and mean ± standard deviation of the scores over seeds, as text.
        Where the seeds have other scans, their numbers are those of the first.
    """
    rows = []
    settings = scores.groupby([*RUN_COLUMNS, "subset"], sort=False)
    for values, seeds in settings:
        row = dict(zip([*RUN_COLUMNS, "subset"], values, strict=True))
        row["seeds"] = len(seeds)
        for column in ("n", "groups", "known_patients"):
            row[column] = seeds[column].iloc[0]
        for score in ("accuracy", "macro_f1", "missed_tumor_rate", "false_alarm_rate"):
            row[score] = mean_and_deviation(seeds[score])
        rows.append(row)
    return pd.DataFrame(rows)


def describe_scans(scores: pd.DataFrame) -> str:
    """Say on how many scans, groups and known patients scores rest.

    Args:
        scores: Rows of metrics.csv, of one subset.

    Returns:
        Such as ``371 scans of 256 groups, 9 of them known patients``; with ranges, such
        as ``485 to 486 scans``, where the seeds have other scans.
    """
    scans = _range_in_words(scores["n"])
    groups = _range_in_words(scores["groups"])
    known_patients = _range_in_words(scores["known_patients"])
    return f"{scans} scans of {groups} groups, {known_patients} of them known patients"


def _range_in_words(counts: pd.Series) -> str:
    """The smallest and the largest number, or the one that there is."""
    smallest, largest = counts.min(), counts.max()
    return str(smallest) if smallest == largest else f"{smallest} to {largest}"


def mean_and_deviation(shares: pd.Series) -> str:
    """Write the mean of several seeds, and their standard deviation.

    Args:
        shares: In [0, 1], one a seed.

    Returns:
        Such as ``71.8% ± 1.7``; a single seed has no deviation. ``–`` where all are
        NaN.
    """
    if shares.isna().all():
        return "–"
    mean = 100 * shares.mean()
    if len(shares) == 1:
        return f"{mean:.1f}%"
    return f"{mean:.1f}% ± {100 * shares.std():.1f}"


def bootstrap(counts: np.ndarray) -> np.ndarray:
    """Draw as many units as there are, with replacement, and sum what they count.

    Args:
        counts: What each unit counts, shape (units, ...).

    Returns:
        The sums of each replicate, shape (``REPLICATES``, ...). The same number of
        units is drawn alike every time, so that two models meet the same patients.
    """
    units = len(counts)
    # 1. How often is each unit drawn in each replicate? All are equally likely.
    generator = np.random.default_rng(0)
    equal_chances = np.full(units, 1 / units)
    draws = generator.multinomial(units, equal_chances, size=REPLICATES)
    # 2. A replicate's count is the sum over units, each as often as it was drawn.
    return np.tensordot(draws, counts, axes=1)


def class_labels(predictions: pd.DataFrame) -> list[str]:
    """List the classes that predictions tell apart.

    Args:
        predictions: Any predictions.

    Returns:
        The labels, by the columns of their probabilities and in their order.
    """
    columns = predictions.filter(regex="^p_")
    return [column.removeprefix("p_") for column in columns]


def _bootstrap_scores(predictions: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Scores of the predictions in the first row, of the replicates in the others."""
    confusions = _bootstrap_confusions(predictions, unit)
    return pd.DataFrame(confusion_scores(confusions, class_labels(predictions)))


def _bootstrap_confusions(predictions: pd.DataFrame, unit: str) -> np.ndarray:
    """The confusion matrix of the predictions, then those of the replicates.

    Returns:
        Counts of shape (1 + replicates, true class, predicted class).
    """
    labels = class_labels(predictions)
    # units in sorted order, so that the order of rows changes no draw
    unit_index, units = predictions[unit].factorize(sort=True)
    true_index = predictions["label"].map(labels.index)
    predicted_index = predictions["predicted"].map(labels.index)
    confusion_of_unit = np.zeros((len(units), len(labels), len(labels)), dtype=int)
    np.add.at(confusion_of_unit, (unit_index, true_index, predicted_index), 1)
    whole = confusion_of_unit.sum(axis=0)
    return np.concatenate([whole[None], bootstrap(confusion_of_unit)])


def _summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """The first row of scores, with percentiles of those below that are defined."""
    values = scores[:1]
    bounds = scores[1:].quantile([0.025, 0.975])
    rows = np.vstack([values, bounds])
    return pd.DataFrame(rows.T, scores.columns, ["value", "low", "high"])
