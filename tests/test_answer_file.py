"""Answers as a CSV file: gone on with after any cut, of one classifier, and never in place of what was there."""

import csv
import os
import shutil
from pathlib import Path

from braintumor import __main__ as command
from braintumor.app import answers, engines

import cv2
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def model(tmp_path, thermometer, monkeypatch):
    """The file of a classifier that needs no training, whatever is in it."""
    monkeypatch.setattr(engines, "open_classifier", lambda file: thermometer)
    file = tmp_path / "one.onnx"
    file.write_bytes(b"one")
    return file


@pytest.fixture
def scans(tmp_path):
    """A folder of seven scans, one of three pages and one that is no image."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(5):
        image = np.full((20, 30), 40 * number + 20, "uint8")
        image[0] = number
        cv2.imwrite(str(folder / f"{number}.png"), image)
    pages = [np.full((20, 20), 60 * number + 9, "uint8") for number in range(3)]
    cv2.imwritemulti(str(folder / "pages.tif"), pages)
    (folder / "text.png").write_text("no image")
    return folder


@pytest.fixture
def into(tmp_path, model):
    """What answers scans into a file with that classifier: the exit status."""

    def run(*paths, file=tmp_path / "answers.csv", model=model):
        paths = [str(path) for path in paths]
        return command.main(
            ["classify", *paths, "--model", str(model), "--into", str(file)]
        )

    return run


@pytest.fixture
def asked(monkeypatch):
    """The names of the files that were read, in their order."""
    names = []

    def read(path, read_image=answers.read_image):
        names.append(Path(path).name)
        return read_image(path)

    monkeypatch.setattr(answers, "read_image", read)
    return names


def test_a_row_knows_its_scan_and_its_classifier(scans, into, model, tmp_path):
    assert into(scans) == 1  # one is no image
    table = pd.read_csv(tmp_path / "answers.csv", keep_default_na=False)
    assert table.columns.tolist() == [
        *["file", "page", "p_cold", "p_warm", "similarity", "problem", "unlike"],
        *["predicted", "says", "pages", "sha256", "classifier", "classifier_sha256"],
    ]
    assert table["page"].tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 0]
    assert set(table["classifier"]) == {"one.onnx"}
    assert table["sha256"].str.len().tolist() == [64] * 9
    assert table.iloc[-1]["problem"] == "no whole image"
    assert table.iloc[-1]["p_warm"] == ""


def test_after_any_cut_the_same_answers_stand_there(scans, into, tmp_path):
    into(scans)
    whole = (tmp_path / "answers.csv").read_bytes()
    for size in [*range(0, 200, 7), *range(200, len(whole), 41), len(whole)]:
        (tmp_path / "answers.csv").write_bytes(whole[:size])
        assert into(scans) == 1
        assert (tmp_path / "answers.csv").read_bytes() == whole


def test_only_what_is_missing_is_asked(scans, into, asked, tmp_path):
    into(scans)
    asked.clear()
    into(scans)
    assert asked == []
    content = (tmp_path / "answers.csv").read_bytes().splitlines(keepends=True)
    # two of three pages
    (tmp_path / "answers.csv").write_bytes(b"".join(content[:8]))
    into(scans)
    assert asked == ["pages.tif", "text.png"]


def test_an_interrupted_command_is_stopped_and_goes_on(
    scans, into, monkeypatch, capsys
):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(answers, "answer", interrupt)
        assert into(scans) == command.STOPPED
    assert capsys.readouterr().err.endswith("Stopped.\n")
    assert into(scans) == 1


def test_a_scan_that_was_replaced_is_answered_anew(scans, into, asked, tmp_path):
    into(scans)
    before = pd.read_csv(tmp_path / "answers.csv").set_index(["file", "page"])
    cv2.imwrite(str(scans / "2.png"), np.full((20, 30), 250, "uint8"))
    (scans / "3.png").unlink()
    (scans / "new.png").write_bytes((scans / "0.png").read_bytes())
    asked.clear()
    into(scans, scans / "3.png")
    assert sorted(asked) == ["2.png", "3.png", "new.png"]
    after = pd.read_csv(tmp_path / "answers.csv").set_index(["file", "page"])
    assert after.loc[(str(scans / "2.png"), 0), "p_warm"] > 0.97
    assert "No such file" in after.loc[(str(scans / "3.png"), 0), "problem"]
    unchanged = before.index[[0, 1, 4, 5, 6, 7]]
    pd.testing.assert_frame_equal(before.loc[unchanged], after.loc[unchanged])
    assert after.index.is_unique


def test_rows_of_scans_that_are_not_asked_for_stay(scans, into, tmp_path):
    into(scans / "0.png", scans / "1.png")
    assert into(scans / "2.png") == 0
    table = pd.read_csv(tmp_path / "answers.csv")
    names = [Path(file).name for file in table["file"]]
    assert names == ["0.png", "1.png", "2.png"]


def test_a_scan_that_is_named_twice_is_answered_once(scans, into, tmp_path):
    into(scans / "0.png", scans, scans / "0.png")
    table = pd.read_csv(tmp_path / "answers.csv")
    assert not table.duplicated(["file", "page"]).any()


def test_answers_of_another_classifier_are_refused_by_name(
    scans, into, tmp_path, thermometer
):
    into(scans)
    before = (tmp_path / "answers.csv").read_bytes()
    other = tmp_path / "two.onnx"
    other.write_bytes(b"two")
    wrong = (
        r"^'answers.csv' holds answers of 'one.onnx' \(sha256 [0-9a-f]{12}\.\.\.\), not of "
        r"'two.onnx' \(sha256 [0-9a-f]{12}\.\.\.\), so it stays as it is: name another file"
    )
    with pytest.raises(SystemExit, match=wrong):
        into(scans, model=other)
    assert (tmp_path / "answers.csv").read_bytes() == before
    thermometer.card["labels"].append("hot")
    with pytest.raises(SystemExit, match="holds something else than answers of this"):
        into(scans)
    assert (tmp_path / "answers.csv").read_bytes() == before


def test_a_classifier_under_another_name_is_the_same(scans, into, model, tmp_path):
    into(scans)
    model.rename(tmp_path / "renamed.onnx")
    assert into(scans, model=tmp_path / "renamed.onnx") == 1


FOREIGN = {
    "notes without a line end": "my only notes",
    "other columns": "id,name\n1,a\n2,b\n",
    "lines": "one\ntwo\n",
    "one letter": "x",
    "semicolons": "file;page;p_cold;p_warm\n0.png;0;0,5;0,5\n",
    "earlier columns": "file,page,p_cold,p_warm,similarity,problem,unlike,predicted,says\n",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_something_else_stays_as_it_is(scans, into, tmp_path, text):
    file = tmp_path / "mine.txt"
    file.write_text(text)
    with pytest.raises(
        SystemExit, match="^'mine.txt' holds something else than answers"
    ):
        into(scans, file=file)
    assert file.read_text() == text
    with pytest.raises(SystemExit, match="holds something else than answers"):
        into(scans, file=scans / "0.png")
    assert cv2.imread(str(scans / "0.png")) is not None


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:20],
        lambda line: line + ",more",
        lambda line: line.replace(",1,", ",one,", 1),
        lambda line: "\0" * len(line),
        lambda line: "",
        lambda line: '"' + line,
        lambda line: os.fsdecode(b"\xff") + line,
    ],
    ids=["cut", "longer", "no number", "zeros", "empty", "quote", "no UTF-8"],
)
def test_a_damaged_line_is_named_and_nothing_is_changed(scans, into, tmp_path, damage):
    into(scans)
    file = tmp_path / "answers.csv"
    lines = file.read_text().split("\n")
    lines[2] = damage(lines[2])
    content = os.fsencode("\n".join(lines))
    file.write_bytes(content)
    with pytest.raises(
        SystemExit, match="^Line 3 of 'answers.csv' is damaged: mend it"
    ):
        into(scans)
    assert file.read_bytes() == content


def test_what_a_spreadsheet_adds_is_no_damage(scans, into, tmp_path):
    into(scans)
    file = tmp_path / "answers.csv"
    whole = file.read_bytes()
    file.write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"))
    into(scans)
    assert file.read_bytes() == whole


def test_a_link_leads_to_the_file_that_is_written(scans, into, tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    into(scans, file=tmp_path / "link.csv")
    into(scans, file=tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert len(pd.read_csv(tmp_path / "real.csv")) == 9


@pytest.mark.parametrize("place", ["/dev/null", "."])
def test_what_is_no_file_is_a_sentence(scans, into, place):
    with pytest.raises(SystemExit, match="is no file for answers: name another"):
        into(scans, file=place)


def test_of_two_commands_that_write_one_file_one_stops(scans, into, asked, tmp_path):
    """The second runs while the first reads its last scan; then the first goes on."""
    into(scans / "0.png", file=tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()

    def read(path, read_image=answers.read_image):
        if not (tmp_path / "answers.csv.was").exists():
            (tmp_path / "answers.csv.was").touch()
            assert into(scans / "0.png") == 0
        return read_image(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "read_image", read)
        with pytest.raises(
            SystemExit, match="^Something else has changed 'answers.csv"
        ):
            into(scans / "0.png")
    assert (tmp_path / "answers.csv").read_bytes() == whole
    assert into(scans / "0.png") == 0
    assert (tmp_path / "answers.csv").read_bytes() == whole


def test_a_full_disk_is_a_sentence_and_the_next_run_goes_on(scans, into, disk):
    file = disk("size=4k") / "answers.csv"
    many = [scans / "0.png", scans / "pages.tif"]
    for number in range(30):
        many.append(scans / f"copy {number}.png")
        shutil.copy(scans / "1.png", many[-1])
    with pytest.raises(SystemExit, match="No space left on device"):
        into(*many, file=file)
    first = list(csv.reader(file.read_text().splitlines()))[:3]
    assert [row[1] for row in first] in (["page", "0", "0"], ["page"], [])


def test_a_name_that_looks_like_a_number_is_a_name(scans, into, tmp_path, monkeypatch):
    for name in ("0001", "0002", "\u00fcber"):
        shutil.copy(scans / "0.png", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    into("0001", "0002", "\u00fcber")
    whole = Path("answers.csv").read_bytes()
    Path("answers.csv").write_bytes(whole[: whole.index("\u00fc".encode()) + 1])
    into("0001", "0002", "\u00fcber")
    assert Path("answers.csv").read_bytes() == whole


def test_any_name_is_gone_on_with(scans, into, asked, tmp_path):
    names = [b"b\xfcber.png", b"line\nend.png", b'quo"te,.png', b" blank .png"]
    for name in names:
        shutil.copy(scans / "0.png", os.path.join(os.fsencode(scans), name))
    into(scans)
    asked.clear()
    into(scans)
    assert asked == []
    table = pd.read_csv(tmp_path / "answers.csv")
    shown = [file.rpartition("/")[2] for file in table["file"]]
    expected = {"b\\udcfcber.png", "line\\nend.png", 'quo"te,.png', " blank .png"}
    assert expected < set(shown)


def test_json_and_a_file_exclude_each_other(scans, model, tmp_path, capsys):
    arguments = ["classify", str(scans), "--json", "--into", str(tmp_path / "a.csv")]
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "not allowed with argument" in capsys.readouterr().err
