"""What was found: a function for each finding, each from its own result files."""

import json
from dataclasses import dataclass
from pathlib import Path

from braintumor import metrics as scoring
from braintumor import splits
from docs_values.formatting import Estimate
from docs_values.result_files import (
    FULL_SIZE,
    RANDOM_WEIGHTS,
    SEEDS,
    Scores,
    estimate,
    full_run,
    read_predictions,
    select,
    setting_scores,
)

import pandas as pd


@dataclass(frozen=True)
class ImageNetWeights:
    """VGG16 at 224 px from ImageNet weights, beside random weights.

    Attributes:
        chosen: The recipe that the other source chose.
        transfer: The recipe without augmentation or crop of its own.
        random: The same network from random weights.
        chosen_minus_transfer: Differences of test accuracy, seed by seed.
        transfer_minus_random: The same difference to random weights, first seed.
    """

    chosen: Scores
    transfer: Scores
    random: Scores
    chosen_minus_transfer: list[Estimate]
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
        seeds: How many seeds were evaluated there.
        scans: How many scans of the other source.
        ranking: The recipes, the best one first.
        lead: By how much macro-F1 the first is ahead of the second.
    """

    seeds: int
    scans: int
    ranking: list[RankedRecipe]
    lead: Estimate


@dataclass(frozen=True)
class ReferenceRecipe:
    """The reference study's recipe, trained again on its split, and a sound one there.

    Attributes:
        best: Validation accuracy of its best epoch.
        last: That of its last epoch.
        log: That of the last epoch in the reference study's own log.
        transfer: The recipe ``transfer`` on the same split.
    """

    best: float
    last: float
    log: float
    transfer: Scores


@dataclass(frozen=True)
class LeakPart:
    """Accuracies on a part of the test set, with the leak and without it."""

    scans: int
    leaky: float
    leak_free: float


@dataclass(frozen=True)
class Leak:
    """The same recipe on the reference study's split and on one that does not leak.

    Attributes:
        every: All test scans that both splits evaluate.
        known: Those with a scan of their patient, or a near-duplicate, in the leaky
            training.
        new: The others.
        gain: Accuracy with the leak minus accuracy without it, on all of them.
        seeds: How many seeds trained without the leak; one trained with it.
    """

    every: LeakPart
    known: LeakPart
    new: LeakPart
    gain: Estimate
    seeds: int


@dataclass(frozen=True)
class NetworkComparison:
    """VGG16 minus ResNet50 from random weights: differences of accuracy, by seed."""

    validation: list[Estimate]
    test: list[Estimate]


@dataclass(frozen=True)
class SeedsAndFolds:
    """How far seeds and folds lie apart.

    Attributes:
        seed_spread: Largest distance between the validation accuracies of two seeds.
        scans: Scans of all five folds.
        all_folds: Accuracy of a small ResNet50 on them.
        lowest: That of the lowest fold.
        highest: That of the highest fold.
        last_epoch: That of all folds, if the last epoch is kept instead of the best.
    """

    seed_spread: float
    scans: int
    all_folds: Estimate
    lowest: float
    highest: float
    last_epoch: float


@dataclass(frozen=True)
class BaselineScores:
    """Macro-F1 of the shortcut baseline and of both networks, on the same scans."""

    baseline: float
    vgg16: float
    resnet50: float


@dataclass(frozen=True)
class ShortcutBaseline:
    """Six image-level features beside networks from random weights, first seed."""

    validation: BaselineScores
    test: BaselineScores


@dataclass(frozen=True)
class Copies:
    """Copies of test scans in training, and what they are worth to a small network.

    Attributes:
        test_scans: Scans of the test set.
        pixel_copies: Those with a pixel-identical copy in training.
        known_groups: Those with a scan of their patient, or a near-duplicate.
        trained_with: Test accuracy of a network that trains with them.
        trained_without: That of a network that does not.
        new_scans: Test scans without any such scan in training.
        new_trained_with: Accuracy on these of the network that trains with copies.
        new_trained_without: Accuracy on these of the other network.
    """

    test_scans: int
    pixel_copies: int
    known_groups: int
    trained_with: float
    trained_without: float
    new_scans: int
    new_trained_with: float
    new_trained_without: float


@dataclass(frozen=True)
class SourceRecipe:
    """A small ResNet50 whose training tumors are all of one source.

    Attributes:
        recipe: Its recipe.
        validation_accuracy: Accuracy on unseen patients of the same source.
        found: Tumors of other sources that it calls a tumor.
        tumors: Tumors of other sources.
        auroc: How well it ranks tumors above scans without one there.
        test_accuracy: Accuracy on the test set.
        missed: Tumors of the test set that it calls ``no_tumor``.
        test_tumors: Tumors of the test set.
        false_alarms: Test scans without a tumor that it calls a tumor.
    """

    recipe: str
    validation_accuracy: float
    found: int
    tumors: int
    auroc: float
    test_accuracy: float
    missed: int
    test_tumors: int
    false_alarms: int


@dataclass(frozen=True)
class OtherSource:
    """What helps random weights on another source.

    Attributes:
        recipes: How many recipes were tried.
        scratch: The plain recipe.
        best: The recipe that does best on the other source.
        chosen: The recipe that a rule fixed beforehand chose.
    """

    recipes: int
    scratch: SourceRecipe
    best: SourceRecipe
    chosen: SourceRecipe


@dataclass(frozen=True)
class AugmentedScores:
    """Macro-F1 on unseen patients, accuracy on the test set: means over seeds."""

    macro_f1: float
    accuracy: float


@dataclass(frozen=True)
class Longer:
    """Test-time augmentation, and head crops for longer, from random weights.

    Attributes:
        seeds: Seeds of the plain recipe; the other has one.
        views: Augmented copies of a scan whose probabilities are averaged.
        image_size: Side of the input of the head crops, in pixels.
        epochs: How long they trained.
        plain: The plain recipe.
        plain_views: The same with test-time augmentation.
        heads: Head crops, with intensity and zoom augmentation.
        heads_views: The same with test-time augmentation.
    """

    seeds: int
    views: int
    image_size: int
    epochs: int
    plain: AugmentedScores
    plain_views: AugmentedScores
    heads: AugmentedScores
    heads_views: AugmentedScores


@dataclass(frozen=True)
class PointingGame:
    """How often the maximum of a Grad-CAM heatmap is in the tumor's box.

    Attributes:
        images: Images with a known box.
        vgg16: Hits of VGG16.
        resnet50: Hits of ResNet50.
        center: Hits of a heatmap whose maximum is the center of the image.
        vgg16_untrained: Hits of VGG16 before training.
        resnet50_untrained: Hits of ResNet50 before training.
        oracle: Hits of the box itself, drawn as coarsely as a heatmap.
    """

    images: int
    vgg16: Estimate
    resnet50: Estimate
    center: Estimate
    vgg16_untrained: Estimate
    resnet50_untrained: Estimate
    oracle: Estimate


@dataclass(frozen=True)
class Speed:
    """How many times as fast as the reference study's recipe.

    Attributes:
        cores: Cores of the machine.
        study: From files to two trained heads on frozen backbones.
        vgg16: Training of all layers of VGG16.
        resnet50: Training of all layers of ResNet50.
    """

    cores: int
    study: float
    vgg16: float
    resnet50: float


def chosen_recipe(metrics: pd.DataFrame) -> str:
    """The recipe that does best on the other source, whatever the test set says."""
    ranking = _other_source_ranking(metrics)
    return str(ranking.index[0])


def _other_source_rows(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of VGG16 at 224 px on the source that did not train."""
    return select(
        metrics,
        model="vgg16",
        image_size=FULL_SIZE,
        protocol="source",
        subset="other_source",
    )


def _other_source_ranking(metrics: pd.DataFrame) -> pd.Series:
    """Mean macro-F1 there by recipe, the best one first."""
    rows = _other_source_rows(metrics)
    means = rows.groupby("recipe")["macro_f1"].mean()
    return means.sort_values(ascending=False)


def full_size_scores(metrics: pd.DataFrame, split: str, recipe: str) -> Scores:
    """The scores of VGG16 at 224 px with one split and recipe."""
    return setting_scores(
        metrics, model="vgg16", image_size=FULL_SIZE, protocol=split, recipe=recipe
    )


def test_difference(results: Path, first: str, second: str, seed: int) -> Estimate:
    """How much test accuracy one recipe has more than another, on the same scans.

    Args:
        results: The folder of results.
        first: A recipe of VGG16 at 224 px.
        second: The recipe to compare it with.
        seed: The seed of both runs.

    Returns:
        The difference, with its interval from a paired bootstrap over groups.
    """
    tables = []
    for recipe in (first, second):
        run = full_run(results, recipe, "patient", seed)
        tables.append(read_predictions(run, "test"))
    return estimate(scoring.compare(*tables), "accuracy")


def imagenet_weights(metrics: pd.DataFrame, results: Path) -> ImageNetWeights:
    """ImageNet weights beside random ones."""
    chosen = chosen_recipe(metrics)
    runs = select(
        metrics,
        model="vgg16",
        image_size=FULL_SIZE,
        protocol="patient",
        recipe=chosen,
        subset="test",
    )
    differences = []
    for seed in runs["seed"]:
        differences.append(test_difference(results, chosen, "transfer", seed))
    return ImageNetWeights(
        chosen=full_size_scores(metrics, "patient", chosen),
        transfer=full_size_scores(metrics, "patient", "transfer"),
        random=full_size_scores(metrics, "patient", "scratch"),
        chosen_minus_transfer=differences,
        transfer_minus_random=test_difference(results, "transfer", "scratch", seed=0),
    )


def recipe_choice(metrics: pd.DataFrame, results: Path) -> RecipeChoice:
    """How the recipe was chosen, and how firmly."""
    ranking = _other_source_ranking(metrics)
    seeds = _other_source_rows(metrics)["seed"]
    first, second = (
        read_predictions(
            full_run(results, recipe, "source", seeds.min()), "other_source"
        )
        for recipe in ranking.index[:2]
    )
    return RecipeChoice(
        seeds=seeds.nunique(),
        scans=len(first),
        ranking=[RankedRecipe(recipe, score) for recipe, score in ranking.items()],
        lead=estimate(scoring.compare(first, second), "macro_f1"),
    )


def reference_recipe(
    metrics: pd.DataFrame, results: Path, data: Path
) -> ReferenceRecipe:
    """The reference study's recipe, trained again, beside a sound one on its split."""
    run = full_run(results, "original", "original", seed=0)
    again = pd.read_csv(run / "history.csv")["val_accuracy"]
    log = pd.read_csv(data / "original_history.csv")
    log_of_vgg16 = log[log["model"] == "VGG16"]["val_accuracy"]
    return ReferenceRecipe(
        best=again.max(),
        last=again.iloc[-1],
        log=log_of_vgg16.iloc[-1],
        transfer=full_size_scores(metrics, "original", "transfer"),
    )


def correct_share(
    results: Path, recipe: str, split: str, seeds: list[int]
) -> pd.Series:
    """In how many of the seeds each test scan is classified correctly.

    Args:
        results: The folder of results.
        recipe: A recipe of VGG16 at 224 px.
        split: The split that it was trained with.
        seeds: The seeds to average over.

    Returns:
        A share in [0, 1] for each test scan, by path.
    """
    correct = []
    for seed in seeds:
        run = full_run(results, recipe, split, seed)
        table = read_predictions(run, "test").set_index("path")
        correct.append(table["label"] == table["predicted"])
    return sum(correct) / len(seeds)


def leak(results: Path, data: Path) -> Leak:
    """The same recipe with the leak and without it, on scans that both evaluate."""
    leak_free = correct_share(results, "transfer", "patient", list(range(SEEDS)))
    leaky = correct_share(results, "transfer", "original", [0])
    leaky = leaky[leak_free.index]

    scans = pd.read_csv(data / "image_groups.csv")
    scans = splits.assign_subsets(scans, "original", seed=0).set_index("path")
    trained_groups = scans[scans["subset"] == "train"]["group"]
    groups = scans.loc[leak_free.index, "group"]
    known = groups.isin(trained_groups)

    gain = Estimate(*scoring.mean_interval(leaky - leak_free, groups))
    every = pd.Series(True, groups.index)
    return Leak(
        every=_leak_part(leaky, leak_free, every),
        known=_leak_part(leaky, leak_free, known),
        new=_leak_part(leaky, leak_free, ~known),
        gain=gain,
        seeds=SEEDS,
    )


def _leak_part(leaky: pd.Series, leak_free: pd.Series, part: pd.Series) -> LeakPart:
    """Both accuracies on some of the scans."""
    return LeakPart(
        scans=int(part.sum()),
        leaky=leaky[part].mean(),
        leak_free=leak_free[part].mean(),
    )


def network_comparison(results: Path) -> NetworkComparison:
    """VGG16 against ResNet50, in pairs."""
    pairs = pd.read_csv(results / "pairs.csv")
    differences: dict[str, list[Estimate]] = {"validation": [], "test": []}
    for _, pair in pairs.iterrows():
        differences[pair["subset"]].append(estimate(pair, "accuracy"))
    return NetworkComparison(**differences)


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
        all_folds=estimate(all_folds, "accuracy"),
        lowest=single.min(),
        highest=single.max(),
        last_epoch=all_folds["last_epoch"],
    )


def shortcut_baseline(metrics: pd.DataFrame, results: Path) -> ShortcutBaseline:
    """What six image-level features reach, beside the networks."""
    baseline = pd.read_csv(results / "probe.csv")
    baseline = baseline[baseline["protocol"] == "patient"].set_index("subset")
    networks = select(metrics, seed=0, **RANDOM_WEIGHTS)
    scores = {}
    for subset in ("validation", "test"):
        rows = networks[networks["subset"] == subset].set_index("model")
        scores[subset] = BaselineScores(
            baseline=baseline.at[subset, "macro_f1"],
            vgg16=rows.at["vgg16", "macro_f1"],
            resnet50=rows.at["resnet50", "macro_f1"],
        )
    return ShortcutBaseline(**scores)


def copies(results: Path) -> Copies:
    """What copies of test scans are worth in training, to a small network."""
    audit = pd.read_csv(results / "audit.csv").set_index("known_by")["all"]
    rows = pd.read_csv(results / "protocols.csv")
    rows = rows[rows["network"] == "resnet50"]
    rows = rows.set_index(["judged_on", "protocol"])
    every = rows.loc["Testing"]
    new = rows.loc["Testing, group not in Training"]
    return Copies(
        test_scans=int(audit["Testing scans"]),
        pixel_copies=int(audit["pixels"]),
        known_groups=int(audit["group"]),
        trained_with=every.at["original", "accuracy"],
        trained_without=every.at["testing", "accuracy"],
        new_scans=int(new.at["original", "n"]),
        new_trained_with=new.at["original", "accuracy"],
        new_trained_without=new.at["testing", "accuracy"],
    )


def same_scans(results: Path) -> LeakPart:
    """A small ResNet50 on the same validation scans, knowing their patients or not."""
    rows = pd.read_csv(results / "protocols.csv")
    rows = rows[rows["judged_on"] == "validation scans of original"]
    rows = rows[rows["network"] == "resnet50"].set_index("protocol")
    return LeakPart(
        scans=int(rows.at["original", "n"]),
        leaky=rows.at["original", "accuracy"],
        leak_free=rows.at["patient, five folds", "accuracy"],
    )


def other_source(results: Path) -> OtherSource:
    """The plain recipe on a source that it has not seen, beside those that do better."""
    rows = pd.read_csv(results / "generalise.csv")
    elsewhere = rows[rows["subset"] == "other_source"].set_index("recipe")
    best = elsewhere["macro_f1"].idxmax()
    without_test = rows[rows["subset"] != "test"]
    means = without_test.groupby("recipe", sort=False)["macro_f1"].mean()
    return OtherSource(
        recipes=len(elsewhere),
        scratch=_source_recipe(rows, "scratch"),
        best=_source_recipe(rows, best),
        chosen=_source_recipe(rows, means.idxmax()),
    )


def _source_recipe(rows: pd.DataFrame, recipe: str) -> SourceRecipe:
    """The rows of one recipe of generalise.csv as one object."""
    by_subset = rows[rows["recipe"] == recipe].set_index("subset")
    elsewhere = by_subset.loc["other_source"]
    test = by_subset.loc["test"]
    found_in_test = round(test["tumours_found"] * test["tumours"])
    return SourceRecipe(
        recipe=recipe,
        validation_accuracy=by_subset.at["validation", "accuracy"],
        found=round(elsewhere["tumours_found"] * elsewhere["tumours"]),
        tumors=int(elsewhere["tumours"]),
        auroc=elsewhere["tumour_auroc"],
        test_accuracy=test["accuracy"],
        missed=int(test["tumours"]) - found_in_test,
        test_tumors=int(test["tumours"]),
        false_alarms=round(test["false_alarms"] * test["healthy"]),
    )


def longer(results: Path) -> Longer:
    """Test-time augmentation, and head crops for longer, beside the plain recipe."""
    rows = pd.read_csv(results / "longer.csv")
    views = rows["views"].max()
    run = results / "vgg16-scratch+head+looks-patient-96px-seed0" / "settings.json"
    settings = json.loads(run.read_text())
    return Longer(
        seeds=rows["seed"].nunique(),
        views=views,
        image_size=settings["image_size"],
        epochs=settings["epochs"],
        plain=_augmented_scores(rows, "plain", 0),
        plain_views=_augmented_scores(rows, "plain", views),
        heads=_augmented_scores(rows, "heads, looks", 0),
        heads_views=_augmented_scores(rows, "heads, looks", views),
    )


def _augmented_scores(rows: pd.DataFrame, recipe: str, views: int) -> AugmentedScores:
    """Means over the seeds of one recipe of longer.csv."""
    rows = rows[(rows["recipe"] == recipe) & (rows["views"] == views)]
    validation = rows[rows["subset"] == "validation"]
    test = rows[rows["subset"] == "test"]
    return AugmentedScores(
        macro_f1=validation["macro_f1"].mean(), accuracy=test["accuracy"].mean()
    )


def pointing_game(results: Path) -> PointingGame:
    """Grad-CAM on validation scans whose tumor box is known."""
    rows = pd.read_csv(results / "localisation.csv")
    return _pointing_game(rows[rows["answers"] == "all"])


def pointing_game_on_synthetic_images(results: Path) -> PointingGame:
    """Grad-CAM on synthetic images, whose tumor is known to the pixel."""
    rows = pd.read_csv(results / "localisation_phantoms.csv")
    return _pointing_game(rows[rows["tumours"] == "all"])


def _pointing_game(rows: pd.DataFrame) -> PointingGame:
    """One row for each network or baseline as one object."""
    hits = {}
    for _, row in rows.iterrows():
        hits[row["network"]] = estimate(row, "hit")
    return PointingGame(
        images=int(rows["n"].iloc[0]),
        vgg16=hits["vgg16"],
        resnet50=hits["resnet50"],
        center=hits["image centre"],
        vgg16_untrained=hits["vgg16, untrained"],
        resnet50_untrained=hits["resnet50, untrained"],
        oracle=hits["the box itself"],
    )


def calibration_errors(results: Path) -> dict[str, float]:
    """Calibration error on the test set after temperature scaling, by network."""
    rows = pd.read_csv(results / "calibration.csv")
    rows = rows[(rows["subset"] == "test") & (rows["scaled"] == "yes")]
    return rows.set_index("model")["ece"].to_dict()


def data_facts(results: Path) -> dict[str, int]:
    """Counts of scans, copies, conflicts and shared patients, by the name of the fact."""
    facts = pd.read_csv(results / "data_facts.csv").set_index("fact")["value"]
    return facts.astype(int).to_dict()


def speed(results: Path) -> Speed:
    """What the benchmark says about the time that a training takes."""
    ratios = pd.read_csv(results / "benchmark.csv").set_index("name")["ratio"]
    machine = json.loads((results / "benchmark.json").read_text())
    return Speed(
        cores=machine["cores"],
        study=ratios["study"],
        vgg16=ratios["train_vgg16_whole"],
        resnet50=ratios["train_resnet50_whole"],
    )
