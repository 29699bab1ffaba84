"""What the side studies found: a function for each, from its own result files."""

import json
from dataclasses import dataclass
from pathlib import Path

from braintumor import config, dataset, splits
from docs_values.findings import LeakPart, leak_part
from docs_values.formatting import Estimate
from docs_values.result_files import (
    CPU_SIZE,
    RANDOM_WEIGHTS,
    Setting,
    estimate,
    read_predictions,
    run_folder,
    select,
)

import pandas as pd


@dataclass(frozen=True)
class BaselineScores:
    """The shortcut baseline and both networks, on the same scans.

    Attributes:
        n: How many scans.
        accuracy: The accuracy of each: "baseline", "vgg16", and "resnet50".
        macro_f1: The macro-F1 of each.
    """

    n: int
    accuracy: dict[str, Estimate]
    macro_f1: dict[str, Estimate]


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
        every: Networks that train with them and without, on all test scans.
        new: Both on test scans without any such scan in training with copies.
    """

    test_scans: int
    pixel_copies: int
    known_groups: int
    every: LeakPart
    new: LeakPart


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
        recipes: How many recipes were tried that the code still has.
        removed_recipes: How many others were tried.
        scratch: The plain recipe.
        best: The recipe that does best on the other source.
        chosen: The recipe that a rule fixed beforehand chose.
    """

    recipes: int
    removed_recipes: int
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
class MapHits:
    """How often the maximum of one heatmap is in the tumor's box, beside baselines.

    Attributes:
        name: The network, and the layer of the heatmap.
        trained: Hits of the trained network.
        untrained: Hits of the network before training.
        center: Hits of a bump in the middle of the head.
        oracle: Hits of the box itself, drawn as coarsely as the heatmap.
    """

    name: str
    trained: Estimate
    untrained: Estimate
    center: Estimate
    oracle: Estimate


@dataclass(frozen=True)
class PointingGame:
    """The pointing game of Grad-CAM on one set of images.

    Attributes:
        images: Images with a known box.
        maps: The heatmaps.
    """

    images: int
    maps: list[MapHits]


@dataclass(frozen=True)
class Calibration:
    """Calibration errors (ECE) of one setting, before and after temperature scaling.

    Attributes:
        model: The network.
        recipe: How it was trained.
        image_size: Side of its input, in pixels.
        temperatures: The temperature of each seed.
        validation: The error on validation scans, seed by seed.
        validation_scaled: The same after scaling.
        test: The error on the test set, seed by seed.
        test_scaled: The same after scaling.
    """

    model: str
    recipe: str
    image_size: int
    temperatures: list[float]
    validation: list[float]
    validation_scaled: list[float]
    test: list[float]
    test_scaled: list[float]


@dataclass(frozen=True)
class ChangedScans:
    """Accuracy on validation scans that were changed in one way.

    Attributes:
        change: What was changed, and how strongly.
        vgg16: Accuracy of VGG16.
        resnet50: Accuracy of ResNet50.
    """

    change: str
    vgg16: Estimate
    resnet50: Estimate


@dataclass(frozen=True)
class Robustness:
    """What changes of a scan cost: the unchanged scans, then each kind of change."""

    scans: int
    vgg16: Estimate
    resnet50: Estimate
    changes: list[ChangedScans]


@dataclass(frozen=True)
class Attempt:
    """Something that was tried to do better on other sources.

    Attributes:
        network: The recipe of a network, or "four networks".
        views: How often each scan is predicted, in words.
        macro_f1: On the scans of other sources.
        missed: Missed tumors there.
        false_alarms: False alarms there.
    """

    network: str
    views: str
    macro_f1: Estimate
    missed: int
    false_alarms: int


@dataclass(frozen=True)
class Attempts:
    """Test-time augmentation, and the means of several networks.

    Attributes:
        tried: All attempts.
        scans: Scans of other sources.
        tumors: Those with a tumor.
        chosen: The recipe that was evaluated on the test set.
        test_accuracy: Its accuracies there, seed by seed, by the views.
    """

    tried: list[Attempt]
    scans: int
    tumors: int
    chosen: str
    test_accuracy: dict[str, list[float]]


@dataclass(frozen=True)
class ConstantAccuracy:
    """An accuracy of a network that predicts one class, and how often it was found."""

    accuracy: float
    evaluations: int


@dataclass(frozen=True)
class Collapse:
    """Why ResNet50's validation accuracy collapses: an experiment on a small network.

    Attributes:
        variance_ratio: The first layer's stored variance over that of its inputs.
        constant_steps: Steps until which it predicts one class for nearly all scans.
        constant_accuracies: The validation accuracies until then, the most frequent
            one first.
        training: Training accuracy at that step.
        validation_renewed: The same weights with re-estimated statistics.
        steps: Steps of the whole training.
        final_validation: Validation accuracy at its end.
    """

    variance_ratio: float
    constant_steps: int
    constant_accuracies: list[ConstantAccuracy]
    training: float
    validation_renewed: float
    steps: int
    final_validation: float


@dataclass(frozen=True)
class FlaggedImages:
    """How many images of one kind the out-of-distribution detector flags."""

    images: str
    n: int
    flagged: float
    auroc: float


@dataclass(frozen=True)
class ScanCounts:
    """Scans whose patient is known, and the others.

    Attributes:
        scans: All scans.
        known_scans: Scans whose patient is known.
        patients: Their patients.
        other_scans: The other scans.
        clusters: Clusters of near-duplicates among the other scans.
        known_by_split: Scans whose patient is known, in training and testing.
        by_class: Scans by folder (rows) and class (columns), with totals.
        training_tumors: Tumors that train or validate on the split ``patient``.
        training_tumors_elsewhere: Those of them whose patient is unknown.
    """

    scans: int
    known_scans: int
    patients: int
    other_scans: int
    clusters: int
    known_by_split: dict[str, int]
    by_class: pd.DataFrame
    training_tumors: int
    training_tumors_elsewhere: int


@dataclass(frozen=True)
class Contradicted:
    """Scans with contradictory labels.

    Attributes:
        by_cheng: Those that have another label in Cheng's data set.
        by_look_alikes: Those with a near-duplicate that has another label.
        clusters: The clusters of the latter.
    """

    by_cheng: int
    by_look_alikes: int
    clusters: int


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


def shortcut_baseline(metrics: pd.DataFrame, results: Path) -> ShortcutBaseline:
    """What six image-level features reach, beside the networks."""
    baseline = pd.read_csv(results / "probe.csv")
    baseline = baseline[baseline["protocol"] == "patient"].set_index("subset")
    networks = select(metrics, seed=0, **RANDOM_WEIGHTS)
    scores = {}
    for subset in ("validation", "test"):
        rows = networks[networks["subset"] == subset].set_index("model")
        compared = {"baseline": baseline.loc[subset]}
        for model in ("vgg16", "resnet50"):
            compared[model] = rows.loc[model]
        scores[subset] = BaselineScores(
            n=int(baseline.at[subset, "n"]),
            accuracy={who: estimate(row, "accuracy") for who, row in compared.items()},
            macro_f1={who: estimate(row, "macro_f1") for who, row in compared.items()},
        )
    return ShortcutBaseline(**scores)


def copies(results: Path) -> Copies:
    """What copies of test scans are worth in training, to a small network."""
    audit = pd.read_csv(results / "audit.csv").set_index("known_by")["all"]
    train_groups = _training_groups(results)
    with_copies = _small_network_answers(results, "original", "test")
    without_copies = _small_network_answers(results, "testing", "test")
    new_scans = without_copies[~without_copies["group"].isin(train_groups)]
    on_every_scan = leak_part(
        with_copies.loc[without_copies.index, "correct"],
        without_copies["correct"],
        without_copies["group"],
    )
    return Copies(
        test_scans=audit["Testing scans"],
        pixel_copies=audit["pixels"],
        known_groups=audit["group"],
        every=on_every_scan,
        new=leak_part(
            with_copies.loc[new_scans.index, "correct"],
            new_scans["correct"],
            new_scans["group"],
        ),
    )


def _training_groups(results: Path) -> pd.Series:
    """The groups of the scans that train on the reference study's split."""
    scans = pd.read_csv(results.parent / "data" / "image_groups.csv")
    scans = splits.assign_subsets(scans, "original", seed=0)
    return scans[scans["subset"] == "train"]["group"]


def _small_network_answers(results: Path, split: str, subset: str) -> pd.DataFrame:
    """Groups and correct answers, as 0 and 1, of a small ResNet50, by path."""
    setting = Setting("resnet50", "random", 64, "scratch", "cpu-scratch", split)
    table = read_predictions(run_folder(results, setting, seed=0), subset)
    correct = table["label"] == table["predicted"]
    return table.assign(correct=correct.astype(float)).set_index("path")


def same_scans(results: Path) -> LeakPart:
    """A small ResNet50 on the same validation scans, knowing their patients or not."""
    leaky = _small_network_answers(results, "original", "validation")
    folds = []
    for split in config.PROTOCOLS:
        if split.startswith("patient"):
            folds.append(_small_network_answers(results, split, "validation"))
    leak_free = pd.concat(folds)
    # the folds leave some scans out, such as those with contradictory labels
    both = leaky.index.intersection(leak_free.index)
    return leak_part(
        leaky.loc[both, "correct"],
        leak_free.loc[both, "correct"],
        leak_free.loc[both, "group"],
    )


def other_source(results: Path) -> OtherSource:
    """The plain recipe on a source that it has not seen, beside better ones."""
    rows = pd.read_csv(results / "generalise.csv")
    elsewhere = rows[rows["subset"] == "other_source"].set_index("recipe")
    best = elsewhere["macro_f1"].idxmax()
    without_test = rows[rows["subset"] != "test"]
    means = without_test.groupby("recipe", sort=False)["macro_f1"].mean()
    removed = pd.read_csv(results / "generalise_dropped.csv")
    return OtherSource(
        recipes=len(elsewhere),
        removed_recipes=removed["recipe"].nunique(),
        scratch=_source_recipe(rows, "scratch"),
        best=_source_recipe(rows, best),
        chosen=_source_recipe(rows, means.idxmax()),
    )


def _source_recipe(rows: pd.DataFrame, recipe: str) -> SourceRecipe:
    """The rows of one recipe of generalise.csv as one object."""
    by_subset = rows[rows["recipe"] == recipe].set_index("subset")
    elsewhere = by_subset.loc["other_source"]
    test = by_subset.loc["test"]
    tumors = int(elsewhere["tumours"])
    test_tumors = int(test["tumours"])
    found_in_test = round(test["tumours_found"] * test_tumors)
    false_alarms = round(test["false_alarms"] * test["healthy"])
    return SourceRecipe(
        recipe=recipe,
        validation_accuracy=by_subset.at["validation", "accuracy"],
        found=round(elsewhere["tumours_found"] * tumors),
        tumors=tumors,
        auroc=elsewhere["tumour_auroc"],
        test_accuracy=test["accuracy"],
        missed=test_tumors - found_in_test,
        test_tumors=test_tumors,
        false_alarms=false_alarms,
    )


def longer(results: Path) -> Longer:
    """Test-time augmentation, and head crops for longer, beside the plain recipe."""
    rows = pd.read_csv(results / "longer.csv")
    views = rows["views"].max()
    run = results / "vgg16-scratch+head+looks-patient-96px-seed0" / "settings.json"
    settings = json.loads(run.read_text())
    plain = rows[rows["recipe"] == "plain"]
    heads = rows[rows["recipe"] == "heads, looks"]
    return Longer(
        seeds=rows["seed"].nunique(),
        views=views,
        image_size=settings["image_size"],
        epochs=settings["epochs"],
        plain=_augmented_scores(plain, 0),
        plain_views=_augmented_scores(plain, views),
        heads=_augmented_scores(heads, 0),
        heads_views=_augmented_scores(heads, views),
    )


def _augmented_scores(rows: pd.DataFrame, views: int) -> AugmentedScores:
    """Means over the seeds of one recipe of longer.csv."""
    rows = rows[rows["views"] == views]
    validation = rows[rows["subset"] == "validation"]
    test = rows[rows["subset"] == "test"]
    return AugmentedScores(
        macro_f1=validation["macro_f1"].mean(), accuracy=test["accuracy"].mean()
    )


def pointing_game(results: Path) -> PointingGame:
    """Grad-CAM on validation scans whose tumor box is known."""
    rows = pd.read_csv(results / "localisation.csv")
    return _pointing_game(rows[rows["predictions"] == "all"])


def pointing_game_on_synthetic_images(results: Path) -> PointingGame:
    """Grad-CAM on synthetic images, whose tumor is known to the pixel."""
    rows = pd.read_csv(results / "localisation_phantoms.csv")
    return _pointing_game(rows[rows["tumours"] == "all"])


def _pointing_game(rows: pd.DataFrame) -> PointingGame:
    """One row for each heatmap and baseline as one object."""
    maps = []
    for name, rows_of_map in rows.groupby("map", sort=False):
        by_heat = rows_of_map.set_index("heat")
        hits = {heat: estimate(row, "hit") for heat, row in by_heat.iterrows()}
        map_hits = MapHits(
            name=name,
            trained=hits["trained"],
            untrained=hits["untrained"],
            center=hits["head center"],
            oracle=hits["oracle"],
        )
        maps.append(map_hits)
    return PointingGame(images=int(rows["n"].iloc[0]), maps=maps)


def calibration(results: Path) -> list[Calibration]:
    """What temperature scaling does to each setting, seed by seed."""
    rows = pd.read_csv(results / "calibration.csv").sort_values("seed", kind="stable")
    keys = ["model", "recipe", "image_size"]
    networks = []
    for names, rows_of_setting in rows.groupby(keys, sort=False):
        model, recipe, image_size = names
        errors = rows_of_setting.set_index(["subset", "scaled"])["ece"].sort_index()
        scaled = select(rows_of_setting, subset="test", scaled="yes")
        temperatures = scaled["temperature"].tolist()
        validation = errors["validation", "no"].tolist()
        validation_scaled = errors["validation", "yes"].tolist()
        test = errors["test", "no"].tolist()
        test_scaled = errors["test", "yes"].tolist()
        network = Calibration(
            model=model,
            recipe=recipe,
            image_size=image_size,
            temperatures=temperatures,
            validation=validation,
            validation_scaled=validation_scaled,
            test=test,
            test_scaled=test_scaled,
        )
        networks.append(network)
    return networks


def attempts(results: Path) -> Attempts:
    """What was tried with trained networks to do better on other sources."""
    rows = pd.read_csv(results / "attempts.csv")
    elsewhere = rows[rows["subset"] == "other_source"]
    tried = []
    for _, row in elsewhere.iterrows():
        attempt = Attempt(
            network=row["network"],
            views=row["views"],
            macro_f1=estimate(row, "macro_f1"),
            missed=row["missed_tumors"],
            false_alarms=row["false_alarms"],
        )
        tried.append(attempt)
    test = rows[rows["subset"] == "test"].sort_values("seed")
    by_views = test.groupby("views", sort=False)["accuracy"]
    return Attempts(
        tried=tried,
        scans=elsewhere["n"].iloc[0],
        tumors=elsewhere["tumors"].iloc[0],
        chosen=test["network"].iloc[0],
        test_accuracy={views: list(values) for views, values in by_views},
    )


def robustness(results: Path) -> Robustness:
    """What the strongest change of each kind costs."""
    rows = pd.read_csv(results / "robustness.csv")
    unchanged = rows[rows["strength"] == 0].drop_duplicates("model")
    unchanged = unchanged.set_index("model")
    changes = []
    for change, rows_of_change in rows.groupby("change", sort=False):
        for strength in _strengths(change, rows_of_change["strength"]):
            changed = rows_of_change[rows_of_change["strength"] == strength]
            changed = changed.set_index("model")
            effect = ChangedScans(
                change=CHANGES[change].format(strength=strength),
                vgg16=_accuracy(changed.loc["vgg16"]),
                resnet50=_accuracy(changed.loc["resnet50"]),
            )
            changes.append(effect)
    setting = Setting("vgg16", "imagenet", CPU_SIZE, "transfer+head+looks", "cpu")
    scans = read_predictions(run_folder(results, setting, seed=0), "validation")
    return Robustness(
        scans=len(scans),
        vgg16=_accuracy(unchanged.loc["vgg16"]),
        resnet50=_accuracy(unchanged.loc["resnet50"]),
        changes=changes,
    )


# how a person names a change; the documents show only the flip upside down
CHANGES = {
    "shift (% of the side)": "shifted to the right by {strength:g}% of the side",
    "rotation (degrees)": "rotated by {strength:g} degrees",
    "flip (1: sides, 2: upside down)": "turned upside down",
    "blur (sigma, % of the side)": "blurred, sigma {strength:g}% of the side",
    "noise (deviation, % of white)": (
        "noise with a standard deviation of {strength:g}% of white"
    ),
    "contrast (%)": "contrast at {strength:g}% of what it was",
}


def _strengths(change: str, strengths: pd.Series) -> list[float]:
    """The strongest change of a kind; of contrast, which has two ends, both."""
    if "contrast" in change:
        return [strengths.min(), strengths.max()]
    return [strengths.max()]


def _accuracy(row: pd.Series) -> Estimate:
    """The accuracy of a row of robustness.csv."""
    return Estimate(row["accuracy"], row["low"], row["high"])


def collapse(results: Path) -> Collapse:
    """The condition that repeats the reference study's mistake."""
    rows = pd.read_csv(results / "collapse.csv")
    rows = rows[rows["arm"] == "as the original"].set_index("step")
    # one answer for all but a few of the scans, in every measurement until then
    constant = (rows["one_answer"] > 0.99).cummin()
    last_constant = rows[constant].iloc[-1]
    accuracies = []
    for accuracy, count in rows[constant]["validation"].value_counts().items():
        accuracies.append(ConstantAccuracy(accuracy, int(count)))
    end = rows.iloc[-1]
    return Collapse(
        variance_ratio=rows.at[0, "variance_ratio"],
        constant_steps=last_constant.name,
        constant_accuracies=accuracies,
        training=last_constant["training"],
        validation_renewed=last_constant["all_renewed"],
        steps=end.name,
        final_validation=end["validation"],
    )


def flagged_images(results: Path) -> list[FlaggedImages]:
    """What the out-of-distribution detector flags, kind by kind."""
    kinds = []
    for row in pd.read_csv(results / "unlike.csv").itertuples():
        kinds.append(FlaggedImages(row.images, row.n, row.flagged, row.auroc))
    return kinds


def data_facts(results: Path) -> dict[str, int]:
    """Counts of scans, copies, conflicts and shared patients, by name."""
    facts = pd.read_csv(results / "data_facts.csv").set_index("fact")["value"]
    return facts.astype(int).to_dict()


def scan_counts(data: Path) -> ScanCounts:
    """How many scans there are, and of how many of them the patient is known."""
    scans = pd.read_csv(data / "image_groups.csv")
    known = scans["group"].str.startswith(splits.KNOWN_PATIENTS)
    known_scans = scans[known]
    other_scans = scans[~known]
    by_class = pd.crosstab(scans["split"], scans["label"])
    by_class["all"] = by_class.sum(axis=1)
    table = splits.assign_subsets(scans, "patient", seed=0)
    used = table[table["subset"].isin(["train", "validation"])]
    tumors = used[used["label"] != dataset.NO_TUMOR]
    elsewhere = ~tumors["group"].str.startswith(splits.KNOWN_PATIENTS)
    patients = known_scans["group"].nunique()
    clusters = other_scans["group"].nunique()
    known_by_split = known_scans["split"].value_counts().to_dict()
    return ScanCounts(
        scans=len(scans),
        known_scans=len(known_scans),
        patients=patients,
        other_scans=len(other_scans),
        clusters=clusters,
        known_by_split=known_by_split,
        by_class=by_class,
        training_tumors=len(tumors),
        training_tumors_elsewhere=int(elsewhere.sum()),
    )


def contradicted(data: Path) -> Contradicted:
    """Scans with contradictory labels, by what contradicts them."""
    scans = pd.read_csv(data / "image_groups.csv")
    scans = scans[scans["label_conflict"]]
    by_cheng = scans["cheng_label"].notna()
    return Contradicted(
        by_cheng=int(by_cheng.sum()),
        by_look_alikes=int((~by_cheng).sum()),
        clusters=scans[~by_cheng]["group"].nunique(),
    )


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
