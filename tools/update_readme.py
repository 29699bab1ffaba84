"""Write the results in README, model card and speed page from the result files: no number there is typed by hand."""

import json
from pathlib import Path

from braintumor import config
from braintumor.metrics import mean_interval

import bench
import pandas
import scaling

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- results: written by tools/update_readme.py -->", "<!-- end of results -->"
MAIN = {key: config.PRESETS["cpu-scratch"][key] for key in ("recipe", "protocol", "weights", "image_size")}
NAMES = {"vgg16": "VGG16", "resnet50": "ResNet50", "validation": "validation", "test": "Testing folder"}
FIRST_SEED = 0  # that of the notebooks 03 to 05d
FEWEST_GROUPS = 10  # with fewer, a bootstrap over groups says nothing


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def with_interval(row, score: str) -> str:
    if pandas.isna(row[score]):
        return "–"
    return f"{percent(row[score])} ({100 * row[f'{score}_low']:.1f} to {100 * row[f'{score}_high']:.1f})"


def results_section(results: Path, original: Path) -> str:
    """Markdown: the result table, what it rests on, and the sentences that need its numbers."""
    metrics = main_rows(results)
    logged = pandas.read_csv(original).groupby("model")["val_accuracy"].last()
    rows = []
    for model, accuracy in logged.items():
        row = {"model": f"{model}, original log", "judged on": "its validation, **leaky**", "n": "573"}
        rows.append(row | {"accuracy": percent(accuracy)} | dict.fromkeys(("all seeds", "macro-F1", "AUROC"), "–"))
    for _, row in metrics[metrics["seed"] == FIRST_SEED].iterrows():
        alike = metrics[(metrics["model"] == row["model"]) & (metrics["subset"] == row["subset"])]["accuracy"]
        cells = {"model": f"{NAMES[row['model']]}, ours", "judged on": NAMES[row["subset"]], "n": str(row["n"])}
        cells |= {"accuracy": with_interval(row, "accuracy"), "all seeds": ", ".join(map(percent, alike))}
        rows.append(cells | {"macro-F1": with_interval(row, "macro_f1"), "AUROC": f"{row['auroc']:.3f}"})
    seeds = ", ".join(map(str, sorted(metrics["seed"].unique())))
    explained = "In brackets 95 % intervals, from a bootstrap over patient groups. *All seeds*: the accuracy with seeds"
    others = f"{seeds}, each with other validation patients; all other numbers are those of seed {FIRST_SEED}."
    lines = [*markdown(rows), "", explained, others, ""]
    lines += run_sentences(results)
    lines += ["", "**Findings**", "", *findings(metrics, results)]
    return "\n".join(lines)


def main_rows(results: Path) -> pandas.DataFrame:
    """The rows of metrics.csv that 05_compare compares: other runs are smaller, or made for one question."""
    metrics = pandas.read_csv(results / "metrics.csv")
    return metrics[(metrics[list(MAIN)] == pandas.Series(MAIN)).all(axis=1)]


def run_sentences(results: Path) -> list[str]:
    """What each of those runs rests on."""
    runs = [json.loads(file.read_text()) for file in sorted(results.glob("*/settings.json"))]
    return [run_sentence(facts) for facts in runs if all(facts[key] == value for key, value in MAIN.items())]


def run_sentence(facts: dict) -> str:
    order = [subset for subset in ("train", "validation", "test", "excluded") if subset in facts["subsets"]]
    counts = ", ".join(f"{facts['subsets'][subset]:,} {subset}" for subset in order)
    return (
        f"- {NAMES[facts['model']]}: {facts['data']} ({facts['checksums']}), protocol `{facts['protocol']}`, "
        f"recipe `{facts['recipe']}`, weights `{facts['weights']}`, {facts['image_size']} px, seed {facts['seed']}, "
        f"{facts['epochs']} epochs, {facts['precision']}; {counts} scans."
    )


def findings(metrics: pandas.DataFrame, results: Path) -> list[str]:
    """The sentences of the README, each from its own result file."""
    accuracy = metrics.sort_values("seed").groupby(["subset", "model"])["accuracy"]
    seeds = metrics.query("subset == 'validation'").pivot(index="seed", columns="model", values="accuracy")
    spread, between = ((seeds.max(axis=axis) - seeds.min(axis=axis)).max() for axis in (0, 1))
    accuracy = accuracy.agg(lambda seeds: " / ".join(map(percent, seeds))).unstack()
    models = [model for model in NAMES if model in accuracy]
    on = {subset: " and ".join(f"{accuracy.loc[subset, m]} ({NAMES[m]})" for m in models) for subset in accuracy.index}
    facts = pandas.read_csv(results / "data_facts.csv").set_index("fact")["value"].astype(int)
    copies = pandas.read_csv(results / "audit.csv").set_index("known_by")["all"].astype(int)
    probe = pandas.read_csv(results / "probe.csv").query("protocol == 'patient'").set_index("subset")["macro_f1"]
    first = metrics.query("seed == 0").pivot(index="subset", columns="model", values="macro_f1")
    beside = {subset: ", ".join(f"{NAMES[m]} {percent(row[m])}" for m in models) for subset, row in first.iterrows()}
    pairs = pandas.read_csv(results / "pairs.csv").groupby("subset")
    pairs = {subset: ", ".join(difference(pair) for _, pair in rows.iterrows()) for subset, rows in pairs}
    errors = pandas.read_csv(results / "calibration.csv").query("subset == 'test' and scaled == 'yes'")
    errors = " and ".join(f"{percent(row.ece)} ({NAMES[row.model]})" for row in errors.itertuples())
    return [
        f"- On groups (patients, or clusters of near-duplicates) that did not train the network, the models are right "
        f"in {on['validation']} of the scans, seed by seed: the seeds of a network span up to {100 * spread:.0f} "
        f"points, the networks of a seed at most {100 * between:.0f}. Validation also chose the epoch, which flatters "
        f"a little.{all_folds(results)}",
        f"- On the Testing folder, mostly of other sources than the scans that train, this falls to {on['test']}.",
        f"- VGG16 against ResNet50, in pairs, seed by seed: {pairs['validation']} points on validation, "
        f"{pairs['test']} on Testing. McNemar's test takes scans for independent, the interval does not: where they "
        f"disagree, the interval counts.",
        f"- A classifier that never sees a brain, only six numbers of a scan (size, file size, greys, border), has a "
        f"macro-F1 of {percent(probe['validation'])} on validation ({beside['validation']}) and "
        f"{percent(probe['test'])} on Testing ({beside['test']}).",
        f"- Of the {copies['Testing scans']} Testing scans, {copies['pixels']} are copies of a Training scan, pixel by "
        f"pixel. {with_and_without_copies(results)}",
        way_out(results),
        longer(results),
        where_it_looks(results),
        speed(results),
        f"- Temperature scaling fitted on validation leaves a calibration error of {errors} on Testing: the models do "
        f"not know when they are lost.",
        f"- A split by file name, as the original used it, leaks: of {facts['original_validation_known']} validation "
        f"scans whose patient is known, {facts['original_validation_shared']} show a patient who is also in training. "
        f"Under our protocol it is {facts['patient_validation_shared']} of {facts['patient_validation_known']}. "
        f"{with_and_without_patients(results)}",
        f"- {facts['byte_identical_to_another']} of the {facts['scans']:,} files are byte-identical to another one, "
        f"{facts['testing_with_group_in_training']} Testing scans show a patient or a near-duplicate from Training, "
        f"and {facts['label_conflicts']} scans carry contradictory labels.",
    ]


def by_protocol(results: Path, judged_on: str) -> pandas.DataFrame:
    """What a small ResNet50 gets right under each protocol of 05c_protocols."""
    rows = pandas.read_csv(results / "protocols.csv").query("judged_on == @judged_on and network == 'resnet50'")
    return rows.set_index("protocol").assign(right=lambda rows: rows["accuracy"].map(percent))


def with_and_without_copies(results: Path) -> str:
    """What copies of Testing scans are worth in training."""
    every, new = (by_protocol(results, part) for part in ("Testing", "Testing, group not in Training"))
    return (
        f"A small ResNet50 that trains with them gets {every.at['original', 'right']} of {every.at['original', 'n']} "
        f"Testing scans (those without contradictory labels) right, one that trains without them "
        f"{every.at['testing', 'right']}; of scans new to both, {new.at['original', 'right']} and "
        f"{new.at['testing', 'right']}."
    )


def with_and_without_patients(results: Path) -> str:
    """What shared patients are worth on the very validation scans that share them."""
    rows = by_protocol(results, "validation scans of original")
    leaky, clean = rows.loc["original"], rows.loc["patient, five folds"]
    return (
        f"On the same {leaky['n']} usable validation scans, a small ResNet50 that knows the patients gets "
        f"{leaky['right']} right, networks that do not know them {clean['right']}."
    )


def all_folds(results: Path) -> str:
    """What five folds say together, and how far apart they are."""
    folds = pandas.read_csv(results / "folds.csv").set_index("fold")
    together, single = folds.loc["all folds"], folds["accuracy"].drop("all folds")
    return (
        f" A small ResNet50 in five folds, each of the {together['n']:,.0f} usable Training scans judged by a network "
        f"that saw nothing of its group: {with_interval(together, 'accuracy')}, by fold {percent(single.min())} to "
        f"{percent(single.max())}; without the choice of the epoch {percent(together['last_epoch'])}."
    )


def way_out(results: Path) -> str:
    """The plain recipe on a source that it has not seen, beside the recipe of 05d_generalise that does best there."""
    rows = pandas.read_csv(results / "generalise.csv")
    rows["found"] = (rows["tumours_found"] * rows["tumours"]).round().astype(int)
    rows["alarms"] = (rows["false_alarms"] * rows["healthy"]).round().astype(int)
    on = {subset: part.set_index("recipe") for subset, part in rows.groupby("subset")}
    there, best = on["other_source"]["tumour_auroc"].map("{:.2f}".format), on["other_source"]["macro_f1"].idxmax()
    validation, right = (on[subset]["accuracy"].map(percent) for subset in ("validation", "test"))
    chosen = rows[rows["subset"] != "test"].groupby("recipe", sort=False)["macro_f1"].mean().idxmax()
    found, testing, alarms = on["other_source"]["found"], on["test"]["found"], on["test"]["alarms"]
    tumours, others, healthy = on["other_source"]["tumours"][best], *on["test"].loc[best, ["tumours", "healthy"]]
    return (
        f"- A small ResNet50 whose tumours are all of one source finds {found['scratch']} of {tumours} of others, and "
        f"ranks them against scans without with an AUROC of {there['scratch']}, where 0.5 is a guess. `{best}`, best "
        f"there of {len(there)} recipes, finds {found[best]} (AUROC {there[best]}), but is right in {validation[best]} "
        f"of the validation scans instead of {validation['scratch']}. On Testing it finds {testing[best]} of {others} "
        f"tumours instead of {testing['scratch']}, and calls {alarms[best]} of {healthy} scans without one a tumour, "
        f"instead of {alarms['scratch']}. The rule that was fixed beforehand, macro-F1 on validation and there, chose "
        f"`{chosen}`, right in {right[chosen]} of Testing (`scratch` {right['scratch']}, `{best}` {right[best]})."
    )


def longer(results: Path) -> str:
    """Views of a scan, and heads in other looks for longer, beside the plain recipe: means over the seeds of each."""
    rows = pandas.read_csv(results / "longer.csv")
    seeds, views = rows["seed"].nunique(), rows["views"].max()
    run = json.loads((results / "vgg16-scratch+head+looks-patient-96px-seed0" / "settings.json").read_text())
    means = rows.groupby(["recipe", "views", "subset"])[["macro_f1", "accuracy"]].mean().map(percent)
    on = {
        version: f"{means.loc[(*version, 'validation'), 'macro_f1']} and {means.loc[(*version, 'test'), 'accuracy']}"
        for version in means.index.droplevel("subset")
    }
    return (
        f"- Macro-F1 on validation and accuracy on Testing: VGG16, mean of {seeds} seeds, {on['plain', 0]}; with "
        f"{views} more views of each scan that it judges {on['plain', views]}. One seed on heads in varied looks "
        f"({run['image_size']} px, {run['epochs']} epochs) {on['heads, looks', 0]}; with views "
        f"{on['heads, looks', views]}."
    )


def where_it_looks(results: Path) -> str:
    """How often the warmest pixel of the heat is in the tumour's box, beside the baselines."""
    rows = pandas.read_csv(results / "localisation.csv").query("answers == 'all'").set_index("network")
    drawn = pandas.read_csv(results / "localisation_phantoms.csv").query("tumours == 'all'").set_index("network")
    hits = {name: with_interval(row, "hit") for name, row in rows.iterrows()}
    known = {name: with_interval(row, "hit") for name, row in drawn.iterrows()}
    return (
        f"- Where they look (Grad-CAM, {rows['n'].iloc[0]} validation scans with a tumour box, seed 1): the warmest "
        f"pixel is in the box in {hits['vgg16']} of the scans for VGG16, {hits['resnet50']} for ResNet50, "
        f"{hits['image centre']} for the image centre and {hits['vgg16, untrained']} and "
        f"{hits['resnet50, untrained']} for the untrained networks; for the box itself, as coarse as their heat, "
        f"{hits['the box itself']}. On {drawn['n'].iloc[0]} drawings of tumours (phantoms): VGG16 {known['vgg16']}, "
        f"ResNet50 {known['resnet50']}, the centre {known['image centre']}, the box {known['the box itself']}."
    )


def speed(results: Path) -> str:
    """What the benchmark says in a sentence."""
    ratio = pandas.read_csv(results / "benchmark.csv").set_index("name")["ratio"]
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
    for row in pandas.read_csv(results / "benchmark.csv").itertuples():
        text, target = bench.ROWS[row.name]
        goal = "–" if target is None else f"{target:.2f}, {'reached' if row.ratio >= target else '**missed**'}"
        ours, reference = (f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in (row.ours, row.reference))
        numbers, digits = f"{ours} / {reference} {row.unit}", 2 if row.ratio >= 1 else 3
        rows.append({"ours / the other": text, "measured": numbers, "ratio": f"{row.ratio:.{digits}f}", "target": goal})
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    machine = (
        f"{facts['processor']}, {facts['cores']} cores ({', '.join(facts['flags'])}); {versions}; {facts['data']}."
    )
    return "\n".join([*markdown(rows), "", machine])


def scaling_section(results: Path) -> str:
    """Markdown for the scaling page: costs, the model beside what was measured, and what it foretells."""
    costs, checks, forecast = (pandas.read_csv(results / f"scaling{part}.csv") for part in ("", "_checks", "_forecast"))
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
        {"what": row.what, "model": number(row.model) + ", fitted" * row.fitted, "measured": number(row.measured)}
        for row in checks.itertuples()
    ]
    hours = [
        {"scans": f"{row.scans:,}", "GPUs": f"{row.gpus}", "time": duration(row.hours), "$": f"{row.dollars:,.2f}",
         "what takes longest": row.longest, "GB of decoded scans a machine": f"{row.disk_gb:,.1f}"}
        for row in forecast.itertuples()
    ]  # fmt: skip
    return "\n".join([*markdown(cells), "", *markdown(beside), "", *markdown(hours)])


def duration(hours: float) -> str:
    """Two digits, in the largest unit that there is one of."""
    sizes = {"h": 1, "min": 1 / 60, "s": 1 / 3600}
    unit = next((unit for unit, size in sizes.items() if hours >= size), "s")
    return f"{hours / sizes[unit]:.2g} {unit}"


def difference(pair: pandas.Series) -> str:
    """A difference of accuracy in points, its interval and the exact p-value."""
    low, high = 100 * pair["accuracy_low"], 100 * pair["accuracy_high"]
    return f"{100 * pair['accuracy']:+.1f} ({low:+.1f} to {high:+.1f}; McNemar p = {pair['p_value']:.2g})"


def card_section(results: Path, scans: pandas.DataFrame) -> str:
    """Markdown for the model card: what each run rests on, its scores, recalls, and accuracy in subgroups.

    ``scans`` is the committed group table: a tumour is small, middle or large among all boxes of its class there.
    """
    metrics = main_rows(results)
    thirds = (scans["box_w"] * scans["box_h"]).groupby(scans["label"]).quantile([1 / 3, 2 / 3]).unstack().dropna()
    rows = [card_rows(row, results, thirds) for _, row in metrics.iterrows()]
    scores, recalls, subgroups, missed = (markdown(table) for table in zip(*rows))
    cuts = "; ".join(f"{spoken(label)} {low:,.0f} and {high:,.0f}" for label, (low, high) in thirds.iterrows())
    return "\n".join(
        ["**What each run rests on**", ""]
        + run_sentences(results)
        + ["", "**Scores**", "", *scores, "", "**Recall of each class**", "", *recalls]
        + ["", "**Accuracy in subgroups of the tumours**", "", *subgroups]
        + ["", f"Thirds of the box's area within a class, cut at (px²): {cuts}."]
        + ["", "**Tumours that were answered with 'no tumour'**", "", *missed]
    )


def card_rows(row: pandas.Series, results: Path, thirds: pandas.DataFrame) -> list[dict[str, str]]:
    """One row of metrics.csv as one row of each of the card's tables: scores, recalls, subgroups, missed tumours."""
    folder = f"{row['model']}-{row['recipe']}-{row['protocol']}-{row['image_size']}px-seed{row['seed']}"
    table = pandas.read_csv(results / folder / "predictions.csv").query(f"subset == '{row['subset']}'")
    settings = f"`{row['recipe']}`, `{row['protocol']}`, {row['image_size']} px, seed {row['seed']}"
    run = {"run": f"{NAMES[row['model']]}, [{settings}](../results/{folder})", "judged on": NAMES[row["subset"]]}
    recalls = [name for name in row.index if name.startswith("recall_") and f"{name}_low" in row.index]
    parts = {name: table[part] for name, part in subgroups_of(table, thirds).items()}
    return [
        run | score_cells(row),
        run | {spoken(name): with_interval(row, name) for name in recalls} | {"most frequent mistake": mistake(table)},
        run | {name: share(part, part["label"]) for name, part in parts.items()},
        run | {name: share(part, "no_tumor") for name, part in parts.items() if "patient" in name},
    ]


def score_cells(row) -> dict[str, str]:
    plain = {"balanced_accuracy": percent, "auroc": "{:.3f}".format, "ece": "{:.3f}".format, "brier": "{:.3f}".format}
    names = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "ece": "ECE", "brier": "Brier"}
    cells = {"scans (groups)": f"{row['n']} ({row['groups']})"}
    cells |= {"accuracy": with_interval(row, "accuracy"), "macro-F1": with_interval(row, "macro_f1")}
    return cells | {names[name]: "–" if pandas.isna(row[name]) else how(row[name]) for name, how in plain.items()}


def spoken(label: str) -> str:
    return label.removeprefix("recall_").replace("_tumor", " tumour")


def mistake(table: pandas.DataFrame) -> str:
    """The class that is most often taken for one other class, the latter, and how often."""
    wrong = table[table["label"] != table["predicted"]]
    if wrong.empty:
        return "none"
    (label, predicted), times = next(wrong.groupby(["label", "predicted"]).size().nlargest(1).items())
    return f"{spoken(label)} taken for {spoken(predicted)}: {times} of {(table['label'] == label).sum()}"


def subgroups_of(table: pandas.DataFrame, thirds: pandas.DataFrame) -> dict[str, pandas.Series]:
    """Which rows of a prediction table are in each subgroup of the tumours; ``thirds``: areas in px², by class."""
    tumour, known = table["label"] != "no_tumor", table["group"].str.startswith("patient-")
    area, cuts = table["box_w"] * table["box_h"], thirds.reindex(table["label"]).set_index(table.index)
    low, high = (cuts[column] for column in cuts)
    return {
        "patient known": tumour & known,
        "patient unknown": tumour & ~known,
        "small third": area <= low,
        "middle third": (area > low) & (area <= high),
        "large third": area > high,
    }


def share(rows: pandas.DataFrame, answer: pandas.Series | str) -> str:
    """How many of the scans got this answer, with an interval from the bootstrap of metrics.py, and of how many."""
    if rows.empty:
        return "–, n = 0"
    hits = rows["predicted"] == answer
    if rows["group"].nunique() < FEWEST_GROUPS:
        return f"{percent(hits.mean())}, n = {len(rows)}"
    _, low, high = mean_interval(hits, rows["group"])
    return f"{percent(hits.mean())} ({100 * low:.1f} to {100 * high:.1f}), n = {len(rows)}"


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
        root / "README.md": results_section(results, data / "original_history.csv"),
        root / "docs" / "speed.md": speed_section(results),
        root / "docs" / "scaling.md": scaling_section(results),
        root / "docs" / "model_card.md": card_section(results, pandas.read_csv(data / "image_groups.csv")),
    }


if __name__ == "__main__":
    for page, section in sections(ROOT).items():
        page.write_text(updated(page.read_text(), section))
