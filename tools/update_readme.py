"""Write the README's results from the committed result files: no figure in it is typed by hand."""

import json
from pathlib import Path

import pandas

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- results: written by tools/update_readme.py -->", "<!-- end of results -->"
NAMES = {"vgg16": "VGG16", "resnet50": "ResNet50", "validation": "validation", "test": "Testing folder"}


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def with_interval(row, score: str) -> str:
    return f"{percent(row[score])} ({100 * row[f'{score}_low']:.1f} to {100 * row[f'{score}_high']:.1f})"


def results_section(results: Path, original: Path) -> str:
    """Markdown: the result table, what it rests on, and the sentences that need its numbers."""
    metrics = pandas.read_csv(results / "metrics.csv")
    logged = pandas.read_csv(original).groupby("model")["val_accuracy"].last()
    facts = pandas.read_csv(results / "data_facts.csv").set_index("fact")["value"].astype(int)
    lines = ["| model | judged on | n | accuracy | macro-F1 | AUROC |", "|---|---|---|---|---|---|"]
    for model, accuracy in logged.items():
        lines.append(f"| {model}, original log | its validation, **leaky** | 573 | {percent(accuracy)} | – | – |")
    for _, row in metrics.iterrows():
        lines.append(
            f"| {NAMES[row['model']]}, ours | {NAMES[row['subset']]} | {row['n']} | {with_interval(row, 'accuracy')} "
            f"| {with_interval(row, 'macro_f1')} | {row['auroc']:.3f} |"
        )
    lines += ["", "In brackets 95 % intervals, from a bootstrap over patient groups.", ""]
    lines += [run_sentence(file) for file in sorted(results.glob("*/settings.json"))]
    lines += ["", "**Findings**", "", *findings(metrics, facts)]
    return "\n".join(lines)


def run_sentence(file: Path) -> str:
    facts = json.loads(file.read_text())
    subsets = facts["subsets"]
    return (
        f"- {NAMES[facts['model']]}: {facts['data']} ({facts['checksums']}), protocol `{facts['protocol']}`, "
        f"recipe `{facts['recipe']}`, weights `{facts['weights']}`, {facts['image_size']} px, seed {facts['seed']}, "
        f"{facts['epochs']} epochs, {facts['precision']}; {subsets['train']:,} train, "
        f"{subsets['validation']} validation, {subsets['test']} test, {subsets['excluded']} excluded scans."
    )


def findings(metrics: pandas.DataFrame, facts: pandas.Series) -> list[str]:
    accuracy = metrics.pivot(index="subset", columns="model", values="accuracy")
    models = [model for model in NAMES if model in accuracy]
    on = {
        subset: " and ".join(f"{percent(accuracy.loc[subset, m])} ({NAMES[m]})" for m in models)
        for subset in accuracy.index
    }
    return [
        f"- On patients that no network has seen in training, the models are right in {on['validation']} of the scans.",
        f"- On the Testing folder, which mostly comes from other sources, this falls to {on['test']}.",
        f"- A split by file name, as the original used it, leaks: of {facts['original_validation_known']} validation "
        f"scans whose patient is known, {facts['original_validation_shared']} show a patient who is also in training. "
        f"Under our protocol it is {facts['patient_validation_shared']} of {facts['patient_validation_known']}.",
        f"- {facts['byte_identical_to_another']} of the {facts['scans']:,} files are byte-identical to another one, "
        f"{facts['testing_with_group_in_training']} Testing scans show a patient or a near-duplicate from Training, "
        f"and {facts['label_conflicts']} scans carry contradictory labels.",
    ]


def updated(readme: str, section: str) -> str:
    """The README with everything between the two marks replaced."""
    before, rest = readme.split(START)
    return f"{before}{START}\n{section}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    section = results_section(ROOT / "results", ROOT / "data" / "original_history.csv")
    readme.write_text(updated(readme.read_text(), section))
