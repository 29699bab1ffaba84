"""Write the documents from templates and result files: no number is typed by hand.

A template lies in `tools/templates/` where its document lies in the repository, and
holds the words. `docs_values` reads the numbers. `make results`, `make bench` and
`make scaling` call this; after a change to a template, call it by hand.
"""

from pathlib import Path

import pandas as pd
from docs_values import (
    findings,
    formatting,
    measurements,
    model_card,
    result_files,
    results_table,
)
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".j2"
NOTICE = (
    "<!-- Written by tools/update_docs.py from {template}: change that file. -->\n\n"
)


def values(root: Path) -> dict:
    """The values that templates may name.

    Args:
        root: The repository, or a folder with its `results/` and `data/`.

    Returns:
        Numbers and plain objects by the name that templates use.
    """
    results = root / "results"
    data = root / "data"
    metrics = result_files.read_metrics(results)
    thirds = model_card.area_thirds(pd.read_csv(data / "image_groups.csv"))
    return {
        "full_size": result_files.FULL_SIZE,
        "cpu_size": result_files.CPU_SIZE,
        "seeds": result_files.SEEDS,
        "test_set": result_files.test_set(metrics),
        "validation_sets": results_table.validation_sets(metrics),
        "table_rows": results_table.table_rows(metrics),
        "reference_log": results_table.reference_log(data),
        "models_not_run": results_table.models_not_run(metrics),
        "full_backends": results_table.backends(results / "full"),
        "cpu_backends": results_table.backends(results),
        "chosen_recipe": findings.chosen_recipe(metrics),
        "imagenet_weights": findings.imagenet_weights(metrics, results),
        "recipe_choice": findings.recipe_choice(metrics, results),
        "reference_recipe": findings.reference_recipe(metrics, results, data),
        "leak": findings.leak(results, data),
        "network_comparison": findings.network_comparison(results),
        "seeds_and_folds": findings.seeds_and_folds(metrics, results),
        "shortcut_baseline": findings.shortcut_baseline(metrics, results),
        "copies": findings.copies(results),
        "same_scans": findings.same_scans(results),
        "other_source": findings.other_source(results),
        "longer": findings.longer(results),
        "pointing_game": findings.pointing_game(results),
        "synthetic_game": findings.pointing_game_on_synthetic_images(results),
        "calibration_errors": findings.calibration_errors(results),
        "data_facts": findings.data_facts(results),
        "speed": findings.speed(results),
        "ratios": measurements.ratios(results),
        "machine": measurements.machine(results),
        "costs": measurements.costs(results),
        "checks": measurements.checks(results),
        "forecasts": measurements.forecasts(results),
        "area_thirds": thirds,
        "card_runs": model_card.runs(results),
        "evaluated_runs": model_card.evaluated_runs(results, thirds),
    }


def environment() -> Environment:
    """The templates, with the filters that write numbers.

    Returns:
        An environment in which an unknown name is an error, never an empty string.
    """
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    templates.filters.update(formatting.FILTERS)
    return templates


def render(root: Path) -> dict[Path, str]:
    """Render every document.

    Args:
        root: The repository, or a folder with its `results/` and `data/`.

    Returns:
        The text of each document, by its path in the repository.
    """
    templates = environment()
    known = values(root)
    documents = {}
    for name in templates.list_templates():
        if name.endswith(SUFFIX):
            path = root / name.removesuffix(SUFFIX)
            notice = NOTICE.format(template=f"tools/templates/{name}")
            documents[path] = notice + templates.get_template(name).render(known)
    return documents


if __name__ == "__main__":
    for path, text in render(ROOT).items():
        path.write_text(text)
