"""The command line: any file name on any terminal, answers alone on stdout, sentences instead of tracebacks."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from braintumor import __main__ as command
from braintumor import config
from braintumor.app import engines

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def classify(tmp_path, thermometer, monkeypatch):
    """The command ``classify`` with a classifier that needs no training: its status."""
    monkeypatch.setattr(engines, "open_classifier", lambda file: thermometer)
    (tmp_path / "c.onnx").write_bytes(b"c")

    def run(*arguments):
        arguments = [os.fspath(argument) for argument in arguments]
        return command.main(
            ["classify", *arguments, "--model", str(tmp_path / "c.onnx")]
        )

    return run


@pytest.fixture
def scans(tmp_path):
    """A folder of scans with all kinds of names."""
    folder = tmp_path / "scans"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((20, 30), 90, "uint8"))
    content = (folder / "a.png").read_bytes()
    for name in (b"b\xfcber.png", "\u0142.png".encode(), b"two\nlines.png", b"z.png"):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(content)
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_any_name_is_shown_on_any_terminal(classify, scans, monkeypatch, encoding):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert classify(scans) == 0
    terminal.flush()
    lines = terminal.buffer.getvalue().decode(encoding).splitlines()
    names = [line.rpartition("/")[2].partition(":")[0] for line in lines]
    letter = "\u0142" if encoding == "utf-8" else "\\u0142"
    expected = ["a.png", "b\\udcfcber.png", "two\\nlines.png", "z.png", f"{letter}.png"]
    assert sorted(names) == sorted(expected)


def test_json_lines_hold_any_name(classify, scans, capsys):
    assert classify(scans, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = {row["file"].rpartition("/")[2] for row in rows}
    assert {"b\\udcfcber.png", "two\\nlines.png", "\u0142.png"} < names


def test_one_name_that_cannot_be_stops_no_other(classify, scans, capsys):
    names = ["x" * 300 + ".png", scans / "none.png", scans / "a.png"]
    assert classify(*names) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": File name too long")
    assert lines[1].endswith(": No such file or directory")
    assert lines[2].startswith(f"{scans / 'a.png'}: Most like")


def test_what_is_skipped_is_said_on_stderr_and_answers_alone_on_stdout(
    classify, scans, capsys
):
    (scans / "notes.txt").write_text("no scan")
    assert classify(scans, "--json") == 0
    out, err = capsys.readouterr()
    assert len([json.loads(line) for line in out.splitlines()]) == 5
    assert err == "Skipped 1 that are no images: notes.txt\n"


def test_who_reads_only_the_first_answers_sees_no_traceback(scans):
    """As ``| head -1`` does, in a process of its own."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from braintumor import __main__ as command
from braintumor.app import answers, engines, readers
engines.load_classifier = lambda *_: None
answers.answer = lambda pages, _: [
    answers.Answer(page.file, 0, {{}}, 0.0, False, "problem") for page in pages
]
sys.exit(command.main(["classify", *[{str(scans)!r}] * 400]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1


def test_a_training_can_be_told_what_error_messages_advise():
    advised = ["--precision", "float32", "--unreadable", "leave_out"]
    options = command.build_parser().parse_args(["train", "--model", "m", *advised])
    settings = command.settings_from_options(options)
    assert (settings.precision, settings.unreadable) == ("float32", "leave_out")


def test_the_help_names_every_choice(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        command.main(["train", "--help"])
    shown = capsys.readouterr().out.split()
    words = {word.rstrip(",;") for word in shown}
    assert {*config.PRESETS, *config.PRECISIONS, *config.PROTOCOLS} <= words


def test_ctrl_c_is_no_traceback(classify, scans, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "load_classifier", interrupt)
    assert classify(scans) == command.STOPPED
    assert capsys.readouterr().err == "Stopped.\n"


@pytest.mark.parametrize(("to", "ending"), command.EXPORT_ENDINGS.items())
def test_an_export_under_the_name_of_something_else_is_refused(tmp_path, to, ending):
    file = tmp_path / "braintumor.keras"
    file.write_bytes(b"mine")
    arguments = ["export", "--model", str(file), "--to", to, "--into", str(file)]
    with pytest.raises(
        SystemExit, match=f"^--into braintumor.keras must end with {ending}"
    ):
        command.main(arguments)
    assert file.read_bytes() == b"mine"
