"""Write the documents from templates and result files: no number is typed by hand.

A template lies in `tools/templates/` where its document lies in the repository, and
holds the words. `docs_values` reads the numbers. `make results`, `make bench` and
`make scaling` call this; after a change to a template, call it by hand.
"""

import os
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from braintumor import config

import pandas as pd
from docs_values import (
    findings,
    formatting,
    measurements,
    model_card,
    released,
    result_files,
    results_table,
    run_commands,
    studies,
)
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".j2"
NOTICE = (
    "<!-- Written by tools/update_docs.py from {template}: change that file. -->\n\n"
)

# where the documents link to: no template names the file of a notebook
MAIN_NOTEBOOKS = {
    "download": "notebooks/01_download.ipynb",
    "explore": "notebooks/02_explore.ipynb",
    "train_vgg16": "notebooks/03_train_vgg16.ipynb",
    "train_resnet50": "notebooks/04_train_resnet50.ipynb",
    "compare": "notebooks/05_compare.ipynb",
    "predict": "notebooks/06_predict.ipynb",
}
STUDIES = {
    "data_audit": "notebooks/studies/data_audit.ipynb",
    "seeds": "notebooks/studies/seeds_and_folds.ipynb",
    "folds": "notebooks/studies/seeds_and_folds.ipynb",
    "leakage": "notebooks/studies/leakage.ipynb",
    "domain_shift": "notebooks/studies/domain_shift.ipynb",
    "longer_training": "notebooks/studies/domain_shift.ipynb",
    "attempts": "notebooks/studies/attempts.ipynb",
    "calibration": "notebooks/studies/calibration.ipynb",
    "gradcam": "notebooks/studies/gradcam.ipynb",
    "gradcam_synthetic": "notebooks/studies/gradcam_synthetic.ipynb",
    "errors_and_robustness": "notebooks/studies/errors_and_robustness.ipynb",
    "batchnorm_collapse": "notebooks/studies/batchnorm_collapse.ipynb",
    "ood_detection": "notebooks/studies/ood_detection.ipynb",
    "transfer_learning": "notebooks/studies/transfer_learning.ipynb",
}
NOTEBOOKS = {**MAIN_NOTEBOOKS, **STUDIES}


def values(root: Path) -> dict[str, Any]:
    """The values that templates may name.

    Args:
        root: The repository, or a folder with its `results/`, `data/`, and `models/`.

    Returns:
        Numbers and plain objects by the name that templates use.
    """
    metrics = result_files.read_metrics(root / "results")
    return {
        "full_size": result_files.FULL_SIZE,
        "cpu_size": result_files.CPU_SIZE,
        "seeds": result_files.SEEDS,
        "presets": config.PRESETS,
        "cached_augmentations": config.CACHED_AUGMENTATIONS,
        "NOTEBOOKS": NOTEBOOKS,
        **table_values(metrics, root),
        **finding_values(metrics, root),
        **study_values(metrics, root),
        **page_values(metrics, root),
    }


def table_values(metrics: pd.DataFrame, root: Path) -> dict[str, Any]:
    """What the tables of results show, and what they rest on."""
    results = root / "results"
    known: dict[str, Any] = {}
    known["test_set"] = result_files.test_set(metrics)
    known["validation_sets"] = results_table.validation_sets(metrics)
    known["table_rows"] = results_table.table_rows(metrics)
    known["all_settings"] = results_table.all_settings(metrics, results)
    known["reference_log"] = results_table.reference_log(root / "data")
    known["models_not_run"] = results_table.models_not_run(metrics)
    known["full_backends"] = results_table.backends(results / "full")
    known["cpu_backends"] = results_table.backends(results)
    known["full_minutes"] = run_commands.training_minutes(results / "full")
    known["released"] = released.released(metrics, root / "models")
    return known


def finding_values(metrics: pd.DataFrame, root: Path) -> dict[str, Any]:
    """What the main study found."""
    results = root / "results"
    data = root / "data"
    known: dict[str, Any] = {}
    known["imagenet_weights"] = findings.imagenet_weights(metrics, results)
    known["recipe_choices"] = findings.recipe_choices(metrics, results)
    known["reference_recipe"] = findings.reference_recipe(metrics, results, data)
    known["leak"] = findings.leak(results, data)
    known["network_comparison"] = findings.network_comparison(results)
    known["seeds_and_folds"] = findings.seeds_and_folds(metrics, results)
    return known


def study_values(metrics: pd.DataFrame, root: Path) -> dict[str, Any]:
    """What the side studies found."""
    results = root / "results"
    known: dict[str, Any] = {}
    known["attempts"] = studies.attempts(results)
    known["shortcut_baseline"] = studies.shortcut_baseline(metrics, results)
    known["copies"] = studies.copies(results)
    known["same_scans"] = studies.same_scans(results)
    known["other_source"] = studies.other_source(results)
    known["longer"] = studies.longer(results)
    known["pointing_game"] = studies.pointing_game(results)
    known["synthetic_game"] = studies.pointing_game_on_synthetic_images(results)
    known["calibration"] = studies.calibration(results)
    known["robustness"] = studies.robustness(results)
    known["collapse"] = studies.collapse(results)
    known["flagged_images"] = studies.flagged_images(results)
    known["data_facts"] = studies.data_facts(results)
    known["contradicted"] = studies.contradicted(root / "data")
    known["example_scan"] = pd.read_csv(root / "data" / "image_groups.csv").iloc[0]
    known["scan_counts"] = studies.scan_counts(root / "data")
    known["speed"] = studies.speed(results)
    return known


def page_values(metrics: pd.DataFrame, root: Path) -> dict[str, Any]:
    """What the model card and the pages on speed and scaling show."""
    results = root / "results"
    thirds = model_card.area_thirds(pd.read_csv(root / "data" / "image_groups.csv"))
    settings = [row.setting for row in results_table.table_rows(metrics)]
    evaluations = []
    for setting in settings:
        for subset in ("validation", "test"):
            evaluations.append(
                model_card.evaluation(metrics, results, setting, subset, thirds)
            )
    known: dict[str, Any] = {}
    known["area_thirds"] = thirds
    known["evaluations"] = evaluations
    known["provenance"] = [model_card.provenance(results, each) for each in settings]
    known["citation"] = released.citation(root / "CITATION.cff")
    known["run_commands"] = run_commands.run_commands(results)
    known["waits"] = measurements.waits(results)
    known["waiting_machine"] = measurements.machine(results / "waiting.json")
    known["ratios"] = measurements.ratios(results)
    known["machine"] = measurements.machine(results / "benchmark.json")
    known["transfer_stages"] = measurements.transfer_stages(results)
    known["costs"] = measurements.costs(results)
    known["checks"] = measurements.checks(results)
    known["forecasts"] = measurements.forecasts(results)
    return known


def notebook_link(name: str, text: str | None = None, *, folder: str) -> str:
    """A Markdown link to a notebook.

    Args:
        name: A key of ``NOTEBOOKS``.
        text: What the link says; the name of the file if None.
        folder: The folder of the document, relative to the repository.

    Returns:
        Such as ``[05_compare](../notebooks/05_compare.ipynb)``.
    """
    file = PurePosixPath(NOTEBOOKS[name])
    return f"[{text or file.stem}]({os.path.relpath(file, folder or '.')})"


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
        if not name.endswith(SUFFIX):
            continue
        path = PurePosixPath(name.removesuffix(SUFFIX))
        notebook = partial(notebook_link, folder=str(path.parent))
        notice = NOTICE.format(template=f"tools/templates/{name}")
        text = templates.get_template(name).render(known, notebook=notebook)
        documents[root / path] = notice + text
    return documents


if __name__ == "__main__":
    for path, text in render(ROOT).items():
        path.write_text(text)
