"""What the main study found: a function for each finding, from its result files."""

import json
from dataclasses import dataclass
from pathlib import Path

from braintumor import metrics as scoring
from braintumor import splits
from braintumor.dataset import NO_TUMOR
from docs_values.formatting import Estimate
from docs_values.result_files import (
    CPU_SIZE,
    FULL_SIZE,
    RANDOM_WEIGHTS,
    SEEDS,
    Scores,
    Setting,
    accuracy_difference,
    estimate,
    full_setting,
    mean_over_scans,
    read_predictions,
    run_folder,
    seed_predictions,
    select,
    setting_scores,
)

import pandas as pd


@dataclass(frozen=True)
class RecipeScores:
    """VGG16 at 224 px with one recipe, all seeds together.

    Attributes:
        recipe: The name of the recipe.
        scores: Accuracies and errors, seed by seed.
        validation_accuracy: Accuracy on validation scans, mean of the seeds.
        test_accuracy: Accuracy on test scans, likewise.
        missed_rate: Share of the test tumors called ``no_tumor``, mean of the seeds.
        alarm_rate: Share of the test scans without a tumor called a tumor, likewise.
    """

    recipe: str
    scores: Scores
    validation_accuracy: Estimate
    test_accuracy: Estimate
    missed_rate: Estimate
    alarm_rate: Estimate


@dataclass(frozen=True)
class ImageNetWeights:
    """VGG16 at 224 px from ImageNet weights, beside random weights.

    Attributes:
        chosen: The recipe that the other source chose.
        transfer: The recipe without head crop and additional augmentation.
        random: The same network from random weights.
        by_seed: Test accuracy, chosen minus transfer, seed by seed.
        all_seeds: The same difference, mean of the seeds.
        chosen_minus_random: Test accuracy, chosen minus random, first seed.
        transfer_minus_random: Test accuracy, transfer minus random, first seed.
    """

    chosen: RecipeScores
    transfer: RecipeScores
    random: RecipeScores
    by_seed: list[Estimate]
    all_seeds: Estimate
    chosen_minus_random: Estimate
    transfer_minus_random: Estimate


@dataclass(frozen=True)
class RankedRecipe:
    """A recipe and its macro-F1 on the other source."""

    recipe: str
    macro_f1: float


@dataclass(frozen=True)
class RecipeChoice:
    """How the recipe was chosen: by tumors of another source, never by the test set.

    Attributes:
        image_size: Side of the input, in pixels.
        seeds: How many seeds were evaluated there.
        scans: How many scans of the other source.
        tumors: How many of them show a tumor.
        gliomas: How many of them show a glioma.
        ranking: The recipes, the best one first.
        lead: By how much macro-F1 the first is ahead of the second, first seed.
        best_with_validation: The recipe with the best mean of two macro-F1 scores, on
            the other source and on validation scans.
    """

    image_size: int
    seeds: int
    scans: int
    tumors: int
    gliomas: int
    ranking: list[RankedRecipe]
    lead: Estimate
    best_with_validation: str


@dataclass(frozen=True)
class ReferenceRecipe:
    """The reference study's recipe, trained again on its split, and a sound one there.

    Attributes:
        best: Validation accuracy of its best epoch.
        last: That of its last epoch.
        log: That of the last epoch in the reference study's own log.
        scores: Its scores, on validation at the best epoch.
        transfer: The recipe ``transfer`` on the same split.
        test_scans: Scans of the test set on this split, all of them.
        same_scans: Those that the leak-free split evaluates, too.
        gain: Accuracy on these, ``transfer`` minus the reference study's recipe.
    """

    best: float
    last: float
    log: float
    scores: Scores
    transfer: Scores
    test_scans: int
    same_scans: int
    gain: Estimate


@dataclass(frozen=True)
class LeakPart:
    """Accuracies on a part of the scans, with the leak and without it.

    Attributes:
        scans: How many scans.
        leaky: Accuracy with the leak.
        leak_free: Accuracy without it.
        gain: The first minus the second.
    """

    scans: int
    leaky: float
    leak_free: float
    gain: Estimate


@dataclass(frozen=True)
class Leak:
    """The same recipe on the reference study's split and on one that does not leak.

    Attributes:
        every: All test scans that both splits evaluate.
        known: Those with a scan of their patient, or a near-duplicate, in the leaky
            training.
        new: The others.
        gain: That of all of them.
        seeds: How many seeds trained without the leak; one trained with it.
        leaky_training_scans: How many scans train with the leak.
        training_scans: How many train without it, seed by seed.
    """

    every: LeakPart
    known: LeakPart
    new: LeakPart
    gain: Estimate
    seeds: int
    leaky_training_scans: int
    training_scans: list[int]


@dataclass(frozen=True)
class NetworkComparison:
    """VGG16 minus ResNet50, both from random weights: differences of accuracy.

    Attributes:
        validation: On validation scans, seed by seed.
        test: On the test set, seed by seed.
        validation_mean: On validation scans, mean of the seeds.
        test_mean: On the test set, mean of the seeds.
    """

    validation: list[Estimate]
    test: list[Estimate]
    validation_mean: Estimate
    test_mean: Estimate


@dataclass(frozen=True)
class SeedsAndFolds:
    """How far seeds and folds lie apart.

    Attributes:
        seed_spread: Largest distance between the validation accuracies of two seeds.
        scans: Scans of all five folds.
        groups: Their groups.
        all_folds: Accuracy of a small ResNet50 on them.
        lowest: That of the lowest fold.
        highest: That of the highest fold.
        last_epoch: That of all folds, if the last epoch is kept instead of the best.
    """

    seed_spread: float
    scans: int
    groups: int
    all_folds: Estimate
    lowest: float
    highest: float
    last_epoch: float


def chosen_recipe(metrics: pd.DataFrame) -> str:
    """The recipe that does best on the other source, whatever the test set says."""
    ranking = _other_source_ranking(metrics, FULL_SIZE)
    return str(ranking.index[0])


def _one_source_rows(
    metrics: pd.DataFrame, image_size: int, subset: str = "other_source"
) -> pd.DataFrame:
    """The rows of VGG16 from ImageNet weights whose training tumors are of one source.

    Args:
        metrics: Rows of ``metrics.csv``.
        image_size: Side of the input, in pixels.
        subset: What they were evaluated on: the other sources, or ``validation``.

    Returns:
        Those rows.
    """
    return select(
        metrics,
        model="vgg16",
        weights="imagenet",
        image_size=image_size,
        protocol="source",
        subset=subset,
    )


def _other_source_ranking(metrics: pd.DataFrame, image_size: int) -> pd.Series:
    """Mean macro-F1 there by recipe, the best one first."""
    rows = _one_source_rows(metrics, image_size)
    means = rows.groupby("recipe")["macro_f1"].mean()
    return means.sort_values(ascending=False)


def full_size_scores(metrics: pd.DataFrame, split: str, recipe: str) -> Scores:
    """The scores of VGG16 at 224 px with one split and recipe."""
    return setting_scores(
        metrics, model="vgg16", image_size=FULL_SIZE, protocol=split, recipe=recipe
    )


def recipe_scores(metrics: pd.DataFrame, results: Path, recipe: str) -> RecipeScores:
    """The scores of VGG16 at 224 px with one recipe, with rates of errors.

    Args:
        metrics: Rows of ``metrics.csv``.
        results: The folder of results.
        recipe: The name of the recipe.

    Returns:
        Scores by seed, and rates of the two errors that matter most, over all seeds.
    """
    scores = full_size_scores(metrics, "patient", recipe)
    setting = full_setting(recipe)
    validation = seed_predictions(results, setting, "validation", scores.seeds)
    test = seed_predictions(results, setting, "test", scores.seeds)
    called_no_tumor = test["predicted"] == NO_TUMOR
    tumor = test["label"] != NO_TUMOR
    groups = test["group"]
    return RecipeScores(
        recipe=recipe,
        scores=scores,
        validation_accuracy=mean_over_scans(validation["correct"], validation["group"]),
        test_accuracy=mean_over_scans(test["correct"], groups),
        missed_rate=mean_over_scans(called_no_tumor[tumor], groups[tumor]),
        alarm_rate=mean_over_scans(~called_no_tumor[~tumor], groups[~tumor]),
    )


def imagenet_weights(metrics: pd.DataFrame, results: Path) -> ImageNetWeights:
    """ImageNet weights beside random ones."""
    chosen = recipe_scores(metrics, results, chosen_recipe(metrics))
    transfer = recipe_scores(metrics, results, "transfer")
    random = recipe_scores(metrics, results, "scratch")

    chosen_test = seed_predictions(results, full_setting(chosen.recipe), "test")
    transfer_test = seed_predictions(results, full_setting("transfer"), "test")
    random_test = seed_predictions(results, full_setting("scratch"), "test", seeds=1)
    by_seed = []
    for seed in range(SEEDS):
        first = chosen_test[chosen_test["seed"] == seed]
        second = transfer_test[transfer_test["seed"] == seed]
        by_seed.append(accuracy_difference(first, second))
    chosen_once = chosen_test[chosen_test["seed"] == 0]
    transfer_once = transfer_test[transfer_test["seed"] == 0]
    return ImageNetWeights(
        chosen=chosen,
        transfer=transfer,
        random=random,
        by_seed=by_seed,
        all_seeds=accuracy_difference(chosen_test, transfer_test),
        chosen_minus_random=accuracy_difference(chosen_once, random_test),
        transfer_minus_random=accuracy_difference(transfer_once, random_test),
    )


def recipe_choices(metrics: pd.DataFrame, results: Path) -> list[RecipeChoice]:
    """How the recipe was chosen, for each image size at which there was a choice."""
    choices = []
    for image_size, preset in ((FULL_SIZE, "full"), (CPU_SIZE, "cpu")):
        ranking = _other_source_ranking(metrics, image_size)
        if len(ranking) > 1:
            choices.append(_recipe_choice(metrics, results, image_size, preset))
    return choices


def _recipe_choice(
    metrics: pd.DataFrame, results: Path, image_size: int, preset: str
) -> RecipeChoice:
    """How the recipe was chosen at one image size, and how firmly."""
    ranking = _other_source_ranking(metrics, image_size)
    seeds = _one_source_rows(metrics, image_size)["seed"]
    tables = []
    for recipe in ranking.index[:2]:
        setting = Setting("vgg16", "imagenet", image_size, recipe, preset, "source")
        run = run_folder(results, setting, seeds.min())
        tables.append(read_predictions(run, "other_source"))
    first, second = tables
    lead = scoring.paired_comparison(first, second)
    is_tumor = first["label"] != NO_TUMOR
    is_glioma = first["label"] == "glioma"
    ranked = [RankedRecipe(recipe, score) for recipe, score in ranking.items()]
    return RecipeChoice(
        image_size=image_size,
        seeds=seeds.nunique(),
        scans=len(first),
        tumors=int(is_tumor.sum()),
        gliomas=int(is_glioma.sum()),
        ranking=ranked,
        lead=estimate(lead, "macro_f1"),
        best_with_validation=_best_with_validation(metrics, image_size),
    )


def _best_with_validation(metrics: pd.DataFrame, image_size: int) -> str:
    """The recipe with the best mean of macro-F1 on both kinds of scans."""
    elsewhere = _other_source_ranking(metrics, image_size)
    validation = _one_source_rows(metrics, image_size, "validation")
    both = elsewhere + validation.groupby("recipe")["macro_f1"].mean()
    return str(both.idxmax())


def reference_recipe(
    metrics: pd.DataFrame, results: Path, data: Path
) -> ReferenceRecipe:
    """The reference study's recipe, trained again, beside a sound one on its split."""
    run = run_folder(results, full_setting("original", "original"), seed=0)
    again = pd.read_csv(run / "history.csv")["val_accuracy"]
    log = pd.read_csv(data / "original_history.csv")
    log_of_vgg16 = log[log["model"] == "VGG16"]["val_accuracy"]
    reference = correct_share(results, full_setting("original", "original"), 1)
    transfer = correct_share(results, full_setting("transfer", "original"), 1)
    # scans with contradictory labels are evaluated on this split alone
    leak_free = seed_predictions(results, full_setting("transfer"), "test", seeds=1)
    groups = leak_free.set_index("path")["group"]
    gain = (transfer - reference)[groups.index]
    scores = full_size_scores(metrics, "original", "original")
    scores_of_transfer = full_size_scores(metrics, "original", "transfer")
    return ReferenceRecipe(
        best=again.max(),
        last=again.iloc[-1],
        log=log_of_vgg16.iloc[-1],
        scores=scores,
        transfer=scores_of_transfer,
        test_scans=len(reference),
        same_scans=len(groups),
        gain=mean_over_scans(gain, groups),
    )


def correct_share(results: Path, setting: Setting, seeds: int) -> pd.Series:
    """In how many of the seeds each test scan is classified correctly.

    Args:
        results: The folder of results.
        setting: How the networks were trained.
        seeds: How many seeds, from 0 on.

    Returns:
        A share in [0, 1] for each test scan, by path.
    """
    predictions = seed_predictions(results, setting, "test", seeds)
    return predictions.groupby("path")["correct"].mean()


def leak(results: Path, data: Path) -> Leak:
    """The same recipe with the leak and without it, on scans that both evaluate."""
    leak_free = correct_share(results, full_setting("transfer"), SEEDS)
    leaky = correct_share(results, full_setting("transfer", "original"), 1)
    leaky = leaky[leak_free.index]

    scans = pd.read_csv(data / "image_groups.csv")
    scans = splits.assign_subsets(scans, "original", seed=0).set_index("path")
    trained_groups = scans[scans["subset"] == "train"]["group"]
    groups = scans.loc[leak_free.index, "group"]
    known = groups.isin(trained_groups)
    every = leak_part(leaky, leak_free, groups)
    training_scans = []
    for seed in range(SEEDS):
        training_scans.append(_training_scans(results, full_setting("transfer"), seed))
    return Leak(
        every=every,
        known=leak_part(leaky[known], leak_free[known], groups[known]),
        new=leak_part(leaky[~known], leak_free[~known], groups[~known]),
        gain=every.gain,
        seeds=SEEDS,
        leaky_training_scans=_training_scans(
            results, full_setting("transfer", "original"), seed=0
        ),
        training_scans=training_scans,
    )


def _training_scans(results: Path, setting: Setting, seed: int) -> int:
    """How many scans a run trained on."""
    file = run_folder(results, setting, seed) / "settings.json"
    return json.loads(file.read_text())["subsets"]["train"]


def leak_part(leaky: pd.Series, leak_free: pd.Series, groups: pd.Series) -> LeakPart:
    """Compare both accuracies on the same scans.

    Args:
        leaky: With the leak, a share of correct answers for each scan, by path.
        leak_free: Without it, for the same scans in the same order.
        groups: Their groups, in the same order.

    Returns:
        Both accuracies and their difference.
    """
    return LeakPart(
        scans=len(leaky),
        leaky=leaky.mean(),
        leak_free=leak_free.mean(),
        gain=mean_over_scans(leaky - leak_free, groups),
    )


def network_comparison(results: Path) -> NetworkComparison:
    """VGG16 against ResNet50 from random weights, on the same scans."""
    pairs = pd.read_csv(results / "pairs.csv")
    by_seed: dict[str, list[Estimate]] = {"validation": [], "test": []}
    for _, pair in pairs.iterrows():
        by_seed[pair["subset"]].append(estimate(pair, "accuracy"))
    return NetworkComparison(
        validation=by_seed["validation"],
        test=by_seed["test"],
        validation_mean=_mean_difference(results, "validation"),
        test_mean=_mean_difference(results, "test"),
    )


def _mean_difference(results: Path, subset: str) -> Estimate:
    """Accuracy of VGG16 minus that of ResNet50, all seeds together."""
    vgg16 = Setting("vgg16", "random", CPU_SIZE, "scratch", "cpu-scratch")
    resnet50 = Setting("resnet50", "random", CPU_SIZE, "scratch", "cpu-scratch")
    first = seed_predictions(results, vgg16, subset)
    second = seed_predictions(results, resnet50, subset)
    return accuracy_difference(first, second)


def seeds_and_folds(metrics: pd.DataFrame, results: Path) -> SeedsAndFolds:
    """How far seeds and folds part."""
    validation = select(metrics, subset="validation", **RANDOM_WEIGHTS)
    by_model = validation.groupby("model")["accuracy"]
    spread = by_model.max() - by_model.min()
    folds = pd.read_csv(results / "folds.csv").set_index("fold")
    all_folds = folds.loc["all folds"]
    single = folds["accuracy"].drop("all folds")
    return SeedsAndFolds(
        seed_spread=spread.max(),
        scans=int(all_folds["n"]),
        groups=int(all_folds["groups"]),
        all_folds=estimate(all_folds, "accuracy"),
        lowest=single.min(),
        highest=single.max(),
        last_epoch=all_folds["last_epoch"],
    )
