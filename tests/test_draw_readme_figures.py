"""The pictures of the README: what they show is what their words say."""

from pathlib import Path

import draw_readme_figures as figures
import numpy as np
import pandas as pd
import pytest
from docs_values import result_files, results_table

ROOT = Path(__file__).resolve().parents[1]


def test_the_scans_have_the_label_and_the_source_that_the_caption_names():
    scans = pd.read_csv(ROOT / "data" / "image_groups.csv").set_index("path")
    for label, paths in figures.SCANS.items():
        shown = scans.loc[paths]
        assert not shown["label_conflict"].any()
        assert shown["split"].tolist() == ["training"] * 2 + ["testing"] * 2
        folder = label.removesuffix(" tumor") if label != "no tumor" else "no_tumor"
        assert set(shown["label"]) == {folder}
        if label != "no tumor":
            assert shown["cheng_index"].notna().tolist() == [True, True, False, False]


def test_a_scan_keeps_its_shape_in_the_middle_of_a_black_square():
    scan = np.ones((2, 6), "uint8")
    square = figures.padded_to_square(scan)
    assert square.shape == (6, 6)
    assert square.sum(axis=1).tolist() == [0, 0, 6, 6, 0, 0]


def test_the_accuracy_drawn_is_the_mean_of_the_seeds_in_the_table():
    setting = results_table.SETTINGS[0]
    metrics = result_files.read_metrics(ROOT / "results")
    row = results_table.table_rows(metrics)[0]
    assert row.setting == setting
    drawn = figures.accuracy_of(setting, "test")
    assert drawn.value == pytest.approx(np.mean(row.scores.test), abs=1e-5)
    assert drawn.low < drawn.value < drawn.high


def test_every_setting_of_the_table_has_a_row_in_the_figure():
    metrics = result_files.read_metrics(ROOT / "results")
    rows = results_table.table_rows(metrics)
    (axes,) = figures.draw_accuracy().axes
    assert len(axes.get_yticks()) == len(rows)
