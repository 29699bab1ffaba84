"""How long a person waits: processes that are measured in turns."""

import math
import os

import nbformat
import pytest
import waiting
from waiting import Command, Wait


def test_processes_are_measured_in_turns_and_warmed_up(tmp_path):
    log = tmp_path / "log"
    commands = [
        Command("a word", way, ["-c", f"open(r'{log}', 'a').write('{way}')"])
        for way in ("a", "b")
    ]
    finished = waiting.in_turns(commands, repeats=2)
    assert log.read_text() == "ab" + "abab"
    assert [len(each) for each in finished.values()] == [2, 2]
    assert all(each.seconds > 0 and each.peak_memory > 1 for each in finished["a"])


def test_a_first_time_finds_nothing_that_python_compiled_and_is_not_warmed_up(tmp_path):
    folders = tmp_path / "folders"
    source = f"import sys; open(r'{folders}', 'a').write(f'{{sys.pycache_prefix}}\\n')"
    command = Command("start", "first time", ["-c", source], first_time=True)
    waiting.in_turns([command], repeats=2)
    first, second = folders.read_text().split()
    assert first != second
    assert not os.path.exists(first)


def test_a_process_that_fails_is_named():
    with pytest.raises(RuntimeError, match="one scan, ONNX file: the process failed"):
        waiting.run(Command("one scan", "ONNX file", ["-c", "raise SystemExit(1)"]))


def test_a_row_is_the_median_with_the_least_and_the_most():
    row = waiting.summarize("one scan", "ONNX file", [3.0, 1.0, 2.0], "s")
    assert row == Wait("one scan", "ONNX file", 2.0, 1.0, 3.0, "s", repeats=3)


def test_what_cannot_be_measured_keeps_its_row_with_the_reason():
    for row in waiting.rows_of_gpus():
        assert math.isnan(row.value)
        assert row.repeats == 0
        assert row.note == "needs a GPU"


def test_a_notebook_takes_from_its_first_cell_to_its_last():
    cells = []
    for start, end in (("10:00:01", "10:00:02"), ("10:00:05", "10:00:09")):
        cell = nbformat.v4.new_code_cell("pass")
        cell.metadata["execution"] = {
            "iopub.execute_input": f"2026-01-01T{start}Z",
            "shell.execute_reply": f"2026-01-01T{end}Z",
        }
        cells += [cell, nbformat.v4.new_markdown_cell("between")]
    assert waiting._seconds_of_cells(nbformat.v4.new_notebook(cells=cells)) == 8
