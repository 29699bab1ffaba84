"""Write the results in README, model card and speed page from the result files: no number there is typed by hand."""

import json
from pathlib import Path

from braintumor import config
from braintumor.metrics import compare, mean_interval
from braintumor.splits import assign_subsets

import bench
import pandas as pd
import scaling

ROOT = Path(__file__).resolve().parents[1]
START, END = (
    "<!-- results: written by tools/update_readme.py -->",
    "<!-- end of results -->",
)
MAIN = {
    key: config.PRESETS["cpu-scratch"][key]
    for key in ("recipe", "protocol", "weights", "image_size")
}
NAMES = {
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "validation": "validation",
    "test": "test set",
    "imagenet": "ImageNet",
    "random": "random",
}
FIRST_SEED = 0  # that of the notebooks 03 to 05d
FULL_SIZE = config.PRESETS["full"]["image_size"]
SEEDS = 3  # of each row of the README's table; a setting with fewer is not shown
TABLE = [  # its rows: network, weights, pixels, recipe, preset
    ("vgg16", "imagenet", FULL_SIZE, "transfer+head+looks", "full"),
    ("vgg16", "imagenet", FULL_SIZE, "transfer", "full"),
    ("vgg16", "imagenet", MAIN["image_size"], "transfer+head+looks", "cpu"),
    ("vgg16", "imagenet", MAIN["image_size"], "transfer", "cpu"),
    ("vgg16", "random", MAIN["image_size"], "scratch", "cpu-scratch"),
    ("resnet50", "random", MAIN["image_size"], "scratch", "cpu-scratch"),
]
UNSEEN, TEST = "accuracy, unseen patients", "accuracy, test set"
MISSED, ALARMS = "missed tumors of {tumors}", "false alarms of {healthy}"
FEWEST_GROUPS = 10  # with fewer, a bootstrap over groups says nothing


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def with_interval(row, score: str) -> str:
    if pd.isna(row[score]):
        return "–"
    return f"{percent(row[score])} ({100 * row[f'{score}_low']:.1f} to {100 * row[f'{score}_high']:.1f})"


def results_section(results: Path, data: Path) -> str:
    """Markdown: the result table, what it rests on, and the findings.

    Args:
        results: The folder of results, with that of the runs at 224 px inside.
        data: The folder of the reference study's log and the group table.

    Returns:
        The text between the marks of the README.
    """
    metrics = all_metrics(results)
    rows = [*setting_rows(metrics), *log_rows(data, metrics), *rows_not_run(metrics)]
    lines = [*markdown(rows), "", *table_notes(metrics, results), ""]
    lines += ["**Findings**", "", *findings(metrics, results, data)]
    return "\n".join(lines)


def all_metrics(results: Path) -> pd.DataFrame:
    """The scores of all runs, those at 224 px first."""
    tables = [
        pd.read_csv(folder / "metrics.csv") for folder in (results / "full", results)
    ]
    return pd.concat(tables, ignore_index=True)


def select(metrics: pd.DataFrame, **wanted) -> pd.DataFrame:
    """The rows with these values, in the order of their seeds."""
    same = (metrics[list(wanted)] == pd.Series(wanted)).all(axis=1)
    return metrics[same].sort_values("seed")


def mean_and_sd(shares: pd.Series) -> str:
    """Mean ± standard deviation of several seeds, or the share of a single one."""
    if len(shares) == 1:
        return percent(shares.iloc[0])
    return f"{percent(shares.mean())} ± {100 * shares.std():.1f}"


def listed(values) -> str:
    """Values side by side: 22, 24 and 24."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last


def counts_of_test_set(metrics: pd.DataFrame) -> dict:
    """What the accuracies on the test set rest on: scans, groups, known patients, tumors, scans without a tumor.

    Raises:
        ValueError: The runs were evaluated on different scans.
    """
    rows = select(metrics, protocol="patient", subset="test")
    counts = (
        rows[["n", "groups", "known_patients", "tumors", "healthy"]]
        .astype(int)
        .drop_duplicates()
    )
    if len(counts) != 1:
        raise ValueError(
            "The runs in metrics.csv were evaluated on different test scans: train them on the same data."
        )
    return counts.iloc[0].to_dict()


def table_row(
    metrics: pd.DataFrame, model: str, weights: str, size: str, recipe: str
) -> dict[str, str]:
    """A row of the README's table, its scores still empty."""
    counts = counts_of_test_set(metrics)
    row = {
        "network": NAMES[model],
        "weights": NAMES[weights],
        "size, preset": size,
        "recipe": recipe,
    }
    scores = [UNSEEN, TEST, MISSED.format(**counts), ALARMS.format(**counts)]
    return row | dict.fromkeys(scores, "–")


def setting_rows(metrics: pd.DataFrame) -> list[dict[str, str]]:
    """A row for each setting of ``TABLE`` that was trained with all seeds."""
    counts = counts_of_test_set(metrics)
    rows = []
    for model, weights, size, recipe, preset in TABLE:
        runs = select(
            metrics,
            model=model,
            weights=weights,
            image_size=size,
            recipe=recipe,
            protocol="patient",
        )
        test = runs[runs["subset"] == "test"]
        validation = runs[runs["subset"] == "validation"]
        if len(test) < SEEDS:
            continue
        row = table_row(
            metrics, model, weights, f"{size} px, `{preset}`", f"`{recipe}`"
        )
        row[UNSEEN] = mean_and_sd(validation["accuracy"])
        row[TEST] = mean_and_sd(test["accuracy"])
        row[MISSED.format(**counts)] = listed(test["missed_tumors"].astype(int))
        row[ALARMS.format(**counts)] = listed(test["false_alarms"].astype(int))
        rows.append(row)
    return rows


def log_rows(data: Path, metrics: pd.DataFrame) -> list[dict[str, str]]:
    """The last epochs of the reference study's log, whose validation scans share patients with training."""
    last = (
        pd.read_csv(data / "original_history.csv")
        .groupby("model", sort=False)["val_accuracy"]
        .last()
    )
    rows = []
    for name, accuracy in last.items():
        size = f"{FULL_SIZE} px, its log"
        row = table_row(metrics, name.lower(), "imagenet", size, "`original`")
        row[UNSEEN] = f"*{percent(accuracy)}, patients leak*"
        rows.append(row)
    return rows


def rows_not_run(metrics: pd.DataFrame) -> list[dict[str, str]]:
    """A row for each network that nobody has trained here from ImageNet weights, with the command that does."""
    rows = []
    for model in ("vgg16", "resnet50"):
        if select(metrics, model=model, weights="imagenet", protocol="patient").empty:
            row = table_row(
                metrics, model, "imagenet", f"{FULL_SIZE} px, `full`", "`transfer`"
            )
            row[UNSEEN] = (
                f"not run here: `python -m braintumor train --model {model} --preset full`"
            )
            rows.append(row)
    return rows


def table_notes(metrics: pd.DataFrame, results: Path) -> list[str]:
    """What the table rests on: scans, groups and patients, and the machines' precision."""
    counts = counts_of_test_set(metrics)
    seeds = select(metrics, subset="validation", **MAIN)
    held_out = {name: span(seeds[name]) for name in ("n", "groups", "known_patients")}
    return [
        f"Mean ± standard deviation of {SEEDS} seeds, errors seed by seed. *Unseen patients* are the validation scans, "
        f"{held_out['n']} by seed, in {held_out['groups']} groups (patients, or clusters of near-duplicates), "
        f"{held_out['known_patients']} of them known patients; they also chose the epoch. The *test set* is the data "
        f"set's folder `Testing`, mostly of other sources: {counts['n']} scans without contradictory labels, in "
        f"{counts['groups']} groups, {counts['known_patients']} of them known patients. All seeds are evaluated on the "
        f"same test scans. {machines(results)} Intervals over groups, and the runs: [results](results/README.md)."
    ]


def span(values: pd.Series) -> str:
    """The smallest and the largest value: 86 to 88, or 37 where they are equal."""
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def machines(results: Path) -> str:
    """Backend and precision of the runs in each folder, as a sentence."""
    used = []
    for folder, name in (
        (results / "full", f"`full`: {FULL_SIZE} px"),
        (results, "the others"),
    ):
        facts = [
            json.loads(file.read_text())
            for file in sorted(folder.glob("*/settings.json"))
        ]
        made = sorted(
            {
                f"{run['backend']}, {run['precision']}"
                for run in facts
                if run["recipe"] != "original"
            }
        )
        used.append(f"{name}, {listed(made)}")
    return f"Presets differ in backend and precision ({'; '.join(used)})."


def main_rows(results: Path) -> pd.DataFrame:
    """The rows of metrics.csv that 05_compare compares: other runs are smaller, or made for one question."""
    metrics = pd.read_csv(results / "metrics.csv")
    return metrics[(metrics[list(MAIN)] == pd.Series(MAIN)).all(axis=1)]


def run_sentences(results: Path) -> list[str]:
    """What each of those runs rests on."""
    runs = [
        json.loads(file.read_text()) for file in sorted(results.glob("*/settings.json"))
    ]
    return [
        run_sentence(facts)
        for facts in runs
        if all(facts[key] == value for key, value in MAIN.items())
    ]


def run_sentence(facts: dict) -> str:
    order = [
        subset
        for subset in ("train", "validation", "test", "excluded")
        if subset in facts["subsets"]
    ]
    counts = ", ".join(f"{facts['subsets'][subset]:,} {subset}" for subset in order)
    return (
        f"- {NAMES[facts['model']]}: {facts['data']} ({facts['checksums']}), protocol `{facts['protocol']}`, "
        f"recipe `{facts['recipe']}`, weights `{facts['weights']}`, {facts['image_size']} px, seed {facts['seed']}, "
        f"{facts['epochs']} epochs, {facts['precision']}; {counts} scans."
    )


def findings(metrics: pd.DataFrame, results: Path, data: Path) -> list[str]:
    """The sentences of the README, each from its own result file."""
    chosen = chosen_recipe(metrics)
    return [
        imagenet(metrics, chosen, results),
        missed_tumors(metrics, chosen),
        choice(metrics, chosen, results),
        reference_recipe(metrics, results, data),
        leak(results, data),
        both_networks(results),
        seeds_and_folds(results),
        shortcut_baseline(results),
        copies(results),
        other_source(results),
        longer(results),
        gradcam(results),
        calibration(results),
        patients_and_duplicates(results),
        speed(results),
    ]


def at_full_size(metrics: pd.DataFrame, subset: str, **wanted) -> pd.DataFrame:
    """The rows of VGG16 at 224 px for one subset."""
    return select(metrics, model="vgg16", image_size=FULL_SIZE, subset=subset, **wanted)


def chosen_recipe(metrics: pd.DataFrame) -> str:
    """The recipe that does best on the other source, which never looks at the test set."""
    ranking = at_full_size(metrics, "other_source", protocol="source")
    return ranking.groupby("recipe")["macro_f1"].mean().idxmax()


def accuracies(metrics: pd.DataFrame, recipe: str) -> str:
    """What VGG16 at 224 px reaches with a recipe, on unseen patients and on the test set, and with how many seeds."""
    rows = {
        name: at_full_size(metrics, name, protocol="patient", recipe=recipe)
        for name in ("validation", "test")
    }
    validation, test = (mean_and_sd(part["accuracy"]) for part in rows.values())
    return f"{validation} and {test} ({number_of_seeds(rows['test'])})"


def paired(results: Path, first: str, second: str, seed: int) -> str:
    """How many points of test accuracy one recipe has more than another, on the same scans."""
    tables = [
        predictions_of(results / "full", recipe, "patient", seed, "test")
        for recipe in (first, second)
    ]
    return points(compare(*tables))


def imagenet(metrics: pd.DataFrame, chosen: str, results: Path) -> str:
    """ImageNet weights beside random ones."""
    seeds = at_full_size(metrics, "test", protocol="patient", recipe=chosen)["seed"]
    ahead = listed(paired(results, chosen, "transfer", seed) for seed in seeds)
    start = paired(results, "transfer", "scratch", FIRST_SEED)
    return (
        f"- Accuracy of VGG16 at {FULL_SIZE} px on unseen patients and on the test set: from ImageNet weights "
        f"{accuracies(metrics, chosen)} with the recipe `{chosen}`, {accuracies(metrics, 'transfer')} with `transfer`; "
        f"from random weights {accuracies(metrics, 'scratch')}. In points of test accuracy, `{chosen}` minus "
        f"`transfer` is {ahead}, seed by seed; `transfer` minus random weights {start}, one seed."
    )


def number_of_seeds(runs: pd.DataFrame) -> str:
    """One seed is said where it is one."""
    return "one seed" if len(runs) == 1 else f"{len(runs)} seeds"


def missed_tumors(metrics: pd.DataFrame, chosen: str) -> str:
    """Tumors called no tumor, and the reverse, by recipe."""
    counts = counts_of_test_set(metrics)
    recipes = (chosen, "transfer", "scratch")
    test = {
        recipe: at_full_size(metrics, "test", protocol="patient", recipe=recipe)
        for recipe in recipes
    }
    missed = {
        recipe: listed(runs["missed_tumors"].astype(int))
        for recipe, runs in test.items()
    }
    alarms = {
        recipe: listed(runs["false_alarms"].astype(int))
        for recipe, runs in test.items()
    }
    return (
        f"- Of {counts['tumors']} tumors in the test set, `{chosen}` misses {missed[chosen]} (it calls them no tumor), "
        f"`transfer` {missed['transfer']}, random weights {missed['scratch']} ({number_of_seeds(test['scratch'])}). "
        f"False alarms on {counts['healthy']} scans without a tumor, in the same order: {alarms[chosen]}; "
        f"{alarms['transfer']}; {alarms['scratch']}."
    )


def choice(metrics: pd.DataFrame, chosen: str, results: Path) -> str:
    """How the recipe was chosen, and how firmly."""
    rows = at_full_size(metrics, "other_source", protocol="source")
    ranking = rows.groupby("recipe")["macro_f1"].mean().sort_values(ascending=False)
    others = ", ".join(
        f"`{recipe}` {percent(score)}" for recipe, score in ranking[1:].items()
    )
    seed = rows["seed"].min()
    first, second = (
        predictions_of(results / "full", recipe, "source", seed, "other_source")
        for recipe in ranking.index[:2]
    )
    pair = compare(first, second)
    return (
        f"- The test set did not choose that recipe: of networks that train on the tumors of one source, it has the "
        f"highest macro-F1 on those of others ({number_of_seeds(rows.drop_duplicates('seed'))}, {len(first)} scans), "
        f"{percent(ranking.iloc[0])}; {others}. It is ahead of the second by {points(pair, 'macro_f1')} points."
    )


def predictions_of(
    folder: Path, recipe: str, split: str, seed: int, subset: str
) -> pd.DataFrame:
    """The stored predictions of VGG16 at 224 px."""
    table = pd.read_csv(
        folder / f"vgg16-{recipe}-{split}-{FULL_SIZE}px-seed{seed}" / "predictions.csv"
    )
    return table[table["subset"] == subset]


def points(pair: pd.Series | dict, score: str = "accuracy") -> str:
    """A difference in points, with its 95 % interval."""
    return f"{100 * pair[score]:+.1f} ({100 * pair[f'{score}_low']:+.1f} to {100 * pair[f'{score}_high']:+.1f})"


def reference_recipe(metrics: pd.DataFrame, results: Path, data: Path) -> str:
    """The reference study's recipe, trained again, beside a sound one on its split."""
    folder = results / "full" / f"vgg16-original-original-{FULL_SIZE}px-seed0"
    again = pd.read_csv(folder / "history.csv")["val_accuracy"]
    log = pd.read_csv(data / "original_history.csv").query("model == 'VGG16'")[
        "val_accuracy"
    ]
    sound = {
        name: at_full_size(metrics, name, protocol="original", recipe="transfer")
        for name in ("validation", "test")
    }
    validation, test = (mean_and_sd(rows["accuracy"]) for rows in sound.values())
    return (
        f"- The reference study's recipe, trained again on its split (one seed), reaches {percent(again.max())} on "
        f"validation at best and {percent(again.iloc[-1])} at the end (its log: {percent(log.iloc[-1])}). `transfer` "
        f"on the same split (one seed) has {validation}, and {test} on the test set, whose copies train there."
    )


def correct_share(folder: Path, recipe: str, split: str, seeds: list[int]) -> pd.Series:
    """For each test scan, by path, in how many of the seeds it is classified correctly."""
    tables = [
        predictions_of(folder, recipe, split, seed, "test").set_index("path")
        for seed in seeds
    ]
    return sum(table["label"] == table["predicted"] for table in tables) / len(seeds)


def leak(results: Path, data: Path) -> str:
    """The same recipe with and without the leak, on the scans that both splits evaluate."""
    folder = results / "full"
    leak_free = correct_share(folder, "transfer", "patient", list(range(SEEDS)))
    leaky = correct_share(folder, "transfer", "original", [0])[leak_free.index]
    scans = assign_subsets(
        pd.read_csv(data / "image_groups.csv"), "original", seed=0
    ).set_index("path")
    groups = scans.loc[leak_free.index, "group"]
    trained = groups.isin(scans.loc[scans["subset"] == "train", "group"])
    gain, low, high = (
        f"{100 * value:.1f}" for value in mean_interval(leaky - leak_free, groups)
    )
    return (
        f"- On the {len(groups)} test scans that both splits evaluate, `transfer` has {percent(leaky.mean())} with the "
        f"leak and {percent(leak_free.mean())} without it ({SEEDS} seeds): {gain} points ({low} to {high}). "
        f"On {trained.sum()} of them, with a scan of their patient or a near-duplicate in training, it has "
        f"{percent(leaky[trained].mean())} and {percent(leak_free[trained].mean())}, on the other {(~trained).sum()} "
        f"{percent(leaky[~trained].mean())} and {percent(leak_free[~trained].mean())}."
    )


def both_networks(results: Path) -> str:
    """VGG16 against ResNet50, in pairs."""
    pairs = pd.read_csv(results / "pairs.csv").groupby("subset")
    pairs = {
        subset: ", ".join(points(pair) for _, pair in rows.iterrows())
        for subset, rows in pairs
    }
    return (
        f"- VGG16 minus ResNet50, both from random weights at {MAIN['image_size']} px, in points of accuracy, seed by "
        f"seed: {pairs['validation']} on unseen patients, {pairs['test']} on the test set."
    )


def seeds_and_folds(results: Path) -> str:
    """How far seeds and folds part."""
    validation = main_rows(results).query("subset == 'validation'")
    seeds = validation.pivot(index="seed", columns="model", values="accuracy")
    spread = 100 * (seeds.max() - seeds.min()).max()
    folds = pd.read_csv(results / "folds.csv").set_index("fold")
    together, single = folds.loc["all folds"], folds["accuracy"].drop("all folds")
    return (
        f"- Seeds of one network span up to {spread:.0f} points on unseen patients. In five folds, a small ResNet50 "
        f"has {with_interval(together, 'accuracy')} on {together['n']:,.0f} scans, {percent(single.min())} to "
        f"{percent(single.max())} by fold, and {percent(together['last_epoch'])} without the choice of the epoch."
    )


def shortcut_baseline(results: Path) -> str:
    """What six image-level features reach, beside the networks."""
    baseline = (
        pd.read_csv(results / "probe.csv")
        .query("protocol == 'patient'")
        .set_index("subset")["macro_f1"]
    )
    scores = (
        main_rows(results)
        .query("seed == @FIRST_SEED")
        .pivot(index="subset", columns="model", values="macro_f1")
    )
    beside = {
        subset: ", ".join(
            f"{NAMES[model]} {percent(row[model])}" for model in ("vgg16", "resnet50")
        )
        for subset, row in scores.iterrows()
    }
    return (
        f"- A shortcut baseline (six image-level features: size, file size, intensities, border) has a macro-F1 of "
        f"{percent(baseline['validation'])} on unseen patients (from random weights: {beside['validation']}) and "
        f"{percent(baseline['test'])} on the test set ({beside['test']})."
    )


def by_protocol(results: Path, evaluated_on: str) -> pd.DataFrame:
    """The accuracy of a small ResNet50 under each split of 05c_protocols."""
    rows = pd.read_csv(results / "protocols.csv").query(
        "judged_on == @evaluated_on and network == 'resnet50'"
    )
    return rows.set_index("protocol").assign(
        percent=lambda rows: rows["accuracy"].map(percent)
    )


def copies(results: Path) -> str:
    """What copies of test scans are worth in training, to a small network."""
    counts = pd.read_csv(results / "audit.csv").set_index("known_by")["all"].astype(int)
    every, new = (
        by_protocol(results, part)
        for part in ("Testing", "Testing, group not in Training")
    )
    return (
        f"- Of the {counts['Testing scans']} test scans, {counts['pixels']} are pixel-identical copies of a training "
        f"scan, and {counts['group']} show a patient or a near-duplicate from there. A small ResNet50 that trains with "
        f"them has an accuracy of {every.at['original', 'percent']} on the test set, without them "
        f"{every.at['testing', 'percent']}; on scans new to both, {new.at['original', 'percent']} and "
        f"{new.at['testing', 'percent']}."
    )


def other_source(results: Path) -> str:
    """The plain recipe on a source that it has not seen, beside the recipe of 05d_generalise that does best there."""
    rows = pd.read_csv(results / "generalise.csv")
    rows["found"] = (rows["tumours_found"] * rows["tumours"]).round().astype(int)
    rows["missed"] = rows["tumours"] - rows["found"]
    rows["alarms"] = (rows["false_alarms"] * rows["healthy"]).round().astype(int)
    validation, elsewhere, test = (
        rows[rows["subset"] == subset].set_index("recipe")
        for subset in ("validation", "other_source", "test")
    )
    best = elsewhere["macro_f1"].idxmax()
    chosen = (
        rows[rows["subset"] != "test"]
        .groupby("recipe", sort=False)["macro_f1"]
        .mean()
        .idxmax()
    )
    return (
        f"- Random weights need help on other sources: a small ResNet50 whose tumors are all of one source finds "
        f"{elsewhere.at['scratch', 'found']} of {elsewhere.at['scratch', 'tumours']} tumors of others (AUROC "
        f"{elsewhere.at['scratch', 'tumour_auroc']:.2f}). `{best}`, best there of {len(elsewhere)} recipes, finds "
        f"{elsewhere.at[best, 'found']} (AUROC {elsewhere.at[best, 'tumour_auroc']:.2f}), but has an accuracy of "
        f"{percent(validation.at[best, 'accuracy'])} on unseen patients instead of "
        f"{percent(validation.at['scratch', 'accuracy'])}; on the test set it misses {test.at[best, 'missed']} of "
        f"{test.at[best, 'tumours']} tumors instead of {test.at['scratch', 'missed']}, with {test.at[best, 'alarms']} "
        f"false alarms instead of {test.at['scratch', 'alarms']}. A rule fixed beforehand chose `{chosen}` there, "
        f"{percent(test.at[chosen, 'accuracy'])} on the test set (`scratch` {percent(test.at['scratch', 'accuracy'])})."
    )


def longer(results: Path) -> str:
    """Test-time augmentation, and head crops for longer, beside the plain recipe: means over the seeds of each."""
    rows = pd.read_csv(results / "longer.csv")
    seeds, views = rows["seed"].nunique(), rows["views"].max()
    run = json.loads(
        (
            results / "vgg16-scratch+head+looks-patient-96px-seed0" / "settings.json"
        ).read_text()
    )
    means = (
        rows.groupby(["recipe", "views", "subset"])[["macro_f1", "accuracy"]]
        .mean()
        .map(percent)
    )
    on = {
        version: f"{means.loc[(*version, 'validation'), 'macro_f1']} and {means.loc[(*version, 'test'), 'accuracy']}"
        for version in means.index.droplevel("subset")
    }
    return (
        f"- Macro-F1 on unseen patients and accuracy on the test set, VGG16 from random weights: {on['plain', 0]} "
        f"({seeds} seeds), with test-time augmentation ({views} more copies of a scan) {on['plain', views]}; one seed "
        f"of `scratch+head+looks` ({run['image_size']} px, {run['epochs']} epochs) {on['heads, looks', 0]}, with it "
        f"{on['heads, looks', views]}."
    )


def gradcam(results: Path) -> str:
    """How often the maximum of a Grad-CAM heatmap is in the tumor's box, beside the baselines."""
    rows = (
        pd.read_csv(results / "localisation.csv")
        .query("answers == 'all'")
        .set_index("network")
    )
    drawn = (
        pd.read_csv(results / "localisation_phantoms.csv")
        .query("tumours == 'all'")
        .set_index("network")
    )
    hits, known = (
        {name: with_interval(row, "hit") for name, row in table.iterrows()}
        for table in (rows, drawn)
    )
    return (
        f"- Pointing-game hits of Grad-CAM heatmaps on {rows['n'].iloc[0]} validation scans with a tumor box (random "
        f"weights, seed 1): VGG16 {hits['vgg16']}, ResNet50 {hits['resnet50']}, image center {hits['image centre']}, "
        f"untrained networks {hits['vgg16, untrained']} and {hits['resnet50, untrained']}, oracle "
        f"{hits['the box itself']}. On {drawn['n'].iloc[0]} synthetic images: VGG16 {known['vgg16']}, ResNet50 "
        f"{known['resnet50']}, center {known['image centre']}, oracle {known['the box itself']}."
    )


def calibration(results: Path) -> str:
    """What temperature scaling leaves on the test set."""
    errors = pd.read_csv(results / "calibration.csv").query(
        "subset == 'test' and scaled == 'yes'"
    )
    errors = listed(
        f"{percent(row.ece)} ({NAMES[row.model]})" for row in errors.itertuples()
    )
    return (
        f"- After temperature scaling on validation scans, networks from random weights still have a calibration error "
        f"of {errors} on the test set."
    )


def patients_and_duplicates(results: Path) -> str:
    """How much the reference study's split leaks, and what else is wrong with the scans."""
    facts = (
        pd.read_csv(results / "data_facts.csv").set_index("fact")["value"].astype(int)
    )
    rows = by_protocol(results, "validation scans of original")
    leaky, clean = rows.loc["original"], rows.loc["patient, five folds"]
    return (
        f"- The reference study's split, by file name, leaks: of {facts['original_validation_known']} validation scans "
        f"whose patient is known, {facts['original_validation_shared']} show a patient who also trains; here it is "
        f"{facts['patient_validation_shared']} of {facts['patient_validation_known']}. On the same {leaky['n']} "
        f"validation scans, a small ResNet50 that knows the patients has {leaky['percent']}, networks that do not "
        f"{clean['percent']}. {facts['byte_identical_to_another']} of the {facts['scans']:,} files are byte-identical "
        f"to another one, and {facts['label_conflicts']} have contradictory labels."
    )


def speed(results: Path) -> str:
    """What the benchmark says in a sentence."""
    ratio = pd.read_csv(results / "benchmark.csv").set_index("name")["ratio"]
    facts = json.loads((results / "benchmark.json").read_text())
    return (
        f"- On {facts['cores']} cores, scans become two trained models {ratio['study']:.0f} times as fast as with the "
        f"original recipe (heads on frozen backbones; there everything trains); all layers of VGG16 train "
        f"{ratio['train_vgg16_whole']:.1f} times, of ResNet50 {ratio['train_resnet50_whole']:.1f} times as fast. All "
        f"ratios: [speed](docs/speed.md)."
    )


def speed_section(results: Path) -> str:
    """Markdown for the speed page: every ratio, its target, and the machine."""
    facts = json.loads((results / "benchmark.json").read_text())
    rows = []
    for row in pd.read_csv(results / "benchmark.csv").itertuples():
        text, target = bench.ROWS[row.name]
        goal = (
            "–"
            if target is None
            else f"{target:.2f}, {'reached' if row.ratio >= target else '**missed**'}"
        )
        ours, reference = (
            f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in (row.ours, row.reference)
        )
        numbers, digits = f"{ours} / {reference} {row.unit}", 2 if row.ratio >= 1 else 3
        rows.append(
            {
                "ours / the other": text,
                "measured": numbers,
                "ratio": f"{row.ratio:.{digits}f}",
                "target": goal,
            }
        )
    versions = ", ".join(
        f"{name} {version}" for name, version in facts["versions"].items()
    )
    machine = f"{facts['processor']}, {facts['cores']} cores ({', '.join(facts['flags'])}); {versions}; {facts['data']}."
    return "\n".join([*markdown(rows), "", machine])


def scaling_section(results: Path) -> str:
    """Markdown for the scaling page: costs, the model beside what was measured, and what it foretells."""
    costs, checks, forecast = (
        pd.read_csv(results / f"scaling{part}.csv")
        for part in ("", "_checks", "_forecast")
    )
    number = "{:,.3g}".format
    cells = [
        {
            "cost": scaling.COSTS[row.cost],
            "value": number(row.value),
            "": "measured here" if row.measured else "assumed",
        }
        for row in costs.itertuples()
    ]
    beside = [
        {
            "what": row.what,
            "model": number(row.model) + ", fitted" * row.fitted,
            "measured": number(row.measured),
        }
        for row in checks.itertuples()
    ]
    hours = [
        {
            "scans": f"{row.scans:,}",
            "GPUs": f"{row.gpus}",
            "time": duration(row.hours),
            "$": f"{row.dollars:,.2f}",
            "what takes longest": row.longest,
            "GB of decoded scans a machine": f"{row.disk_gb:,.1f}",
        }
        for row in forecast.itertuples()
    ]
    return "\n".join([*markdown(cells), "", *markdown(beside), "", *markdown(hours)])


def duration(hours: float) -> str:
    """Two digits, in the largest unit that there is one of."""
    sizes = {"h": 1, "min": 1 / 60, "s": 1 / 3600}
    unit = next((unit for unit, size in sizes.items() if hours >= size), "s")
    return f"{hours / sizes[unit]:.2g} {unit}"


def card_section(results: Path, scans: pd.DataFrame) -> str:
    """Markdown for the model card: what each run rests on, its scores, recalls, and accuracy in subgroups.

    ``scans`` is the committed group table: a tumour is small, middle or large among all boxes of its class there.
    """
    metrics = main_rows(results)
    thirds = (
        (scans["box_w"] * scans["box_h"])
        .groupby(scans["label"])
        .quantile([1 / 3, 2 / 3])
        .unstack()
        .dropna()
    )
    rows = [card_rows(row, results, thirds) for _, row in metrics.iterrows()]
    scores, recalls, subgroups, missed = (markdown(table) for table in zip(*rows))
    cuts = "; ".join(
        f"{spoken(label)} {low:,.0f} and {high:,.0f}"
        for label, (low, high) in thirds.iterrows()
    )
    return "\n".join(
        ["**What each run rests on**", ""]
        + run_sentences(results)
        + ["", "**Scores**", "", *scores, "", "**Recall of each class**", "", *recalls]
        + ["", "**Accuracy in subgroups of the tumours**", "", *subgroups]
        + ["", f"Thirds of the box's area within a class, cut at (px²): {cuts}."]
        + ["", "**Tumours that were answered with 'no tumour'**", "", *missed]
    )


def card_rows(
    row: pd.Series, results: Path, thirds: pd.DataFrame
) -> list[dict[str, str]]:
    """One row of metrics.csv as one row of each of the card's tables: scores, recalls, subgroups, missed tumours."""
    folder = f"{row['model']}-{row['recipe']}-{row['protocol']}-{row['image_size']}px-seed{row['seed']}"
    table = pd.read_csv(results / folder / "predictions.csv").query(
        f"subset == '{row['subset']}'"
    )
    settings = f"`{row['recipe']}`, `{row['protocol']}`, {row['image_size']} px, seed {row['seed']}"
    run = {
        "run": f"{NAMES[row['model']]}, [{settings}](../results/{folder})",
        "evaluated on": NAMES[row["subset"]],
    }
    recalls = [
        name
        for name in row.index
        if name.startswith("recall_") and f"{name}_low" in row.index
    ]
    parts = {name: table[part] for name, part in subgroups_of(table, thirds).items()}
    return [
        run | score_cells(row),
        run
        | {spoken(name): with_interval(row, name) for name in recalls}
        | {"most frequent mistake": mistake(table)},
        run | {name: share(part, part["label"]) for name, part in parts.items()},
        run
        | {
            name: share(part, "no_tumor")
            for name, part in parts.items()
            if "patient" in name
        },
    ]


def score_cells(row) -> dict[str, str]:
    plain = {
        "balanced_accuracy": percent,
        "auroc": "{:.3f}".format,
        "ece": "{:.3f}".format,
        "brier": "{:.3f}".format,
    }
    names = {
        "balanced_accuracy": "balanced accuracy",
        "auroc": "AUROC",
        "ece": "ECE",
        "brier": "Brier",
    }
    cells = {"scans (groups)": f"{row['n']} ({row['groups']})"}
    cells |= {
        "accuracy": with_interval(row, "accuracy"),
        "macro-F1": with_interval(row, "macro_f1"),
    }
    return cells | {
        names[name]: "–" if pd.isna(row[name]) else how(row[name])
        for name, how in plain.items()
    }


def spoken(label: str) -> str:
    return label.removeprefix("recall_").replace("_tumor", " tumour")


def mistake(table: pd.DataFrame) -> str:
    """The class that is most often taken for one other class, the latter, and how often."""
    wrong = table[table["label"] != table["predicted"]]
    if wrong.empty:
        return "none"
    (label, predicted), times = next(
        wrong.groupby(["label", "predicted"]).size().nlargest(1).items()
    )
    return f"{spoken(label)} taken for {spoken(predicted)}: {times} of {(table['label'] == label).sum()}"


def subgroups_of(table: pd.DataFrame, thirds: pd.DataFrame) -> dict[str, pd.Series]:
    """Which rows of a prediction table are in each subgroup of the tumours; ``thirds``: areas in px², by class."""
    tumour, known = (
        table["label"] != "no_tumor",
        table["group"].str.startswith("patient-"),
    )
    area, cuts = (
        table["box_w"] * table["box_h"],
        thirds.reindex(table["label"]).set_index(table.index),
    )
    low, high = (cuts[column] for column in cuts)
    return {
        "patient known": tumour & known,
        "patient unknown": tumour & ~known,
        "small third": area <= low,
        "middle third": (area > low) & (area <= high),
        "large third": area > high,
    }


def share(rows: pd.DataFrame, answer: pd.Series | str) -> str:
    """How many of the scans got this answer, with an interval from the bootstrap of metrics.py, and of how many."""
    if rows.empty:
        return "–, n = 0"
    hits = rows["predicted"] == answer
    if rows["group"].nunique() < FEWEST_GROUPS:
        return f"{percent(hits.mean())}, n = {len(rows)}"
    _, low, high = mean_interval(hits, rows["group"])
    return (
        f"{percent(hits.mean())} ({100 * low:.1f} to {100 * high:.1f}), n = {len(rows)}"
    )


def markdown(rows: list[dict[str, str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    header, *body = [f"| {' | '.join(line)} |" for line in lines]
    return [header, "|" + "---|" * len(rows[0]), *body]


def updated(page: str, section: str) -> str:
    """A page with everything between the two marks replaced."""
    before, rest = page.split(START)
    return f"{before}{START}\n{section}\n{END}{rest.split(END)[1]}"


def sections(root: Path) -> dict[Path, str]:
    """What belongs between the marks of each page."""
    results, data = root / "results", root / "data"
    return {
        root / "README.md": results_section(results, data),
        root / "docs" / "speed.md": speed_section(results),
        root / "docs" / "scaling.md": scaling_section(results),
        root / "docs" / "model_card.md": card_section(
            results, pd.read_csv(data / "image_groups.csv")
        ),
    }


if __name__ == "__main__":
    for page, section in sections(ROOT).items():
        page.write_text(updated(page.read_text(), section))
