"""A file is the old one or the whole new one."""

from braintumor.support import files

import pytest


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "a.txt"
    for text in ("old", "new"):
        files.replace_file(
            file, lambda temporary, text=text: temporary.write_text(text)
        )
        assert file.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_a_run_is_claimed_once_even_before_its_owner_is_known(tmp_path):
    with files.claim(tmp_path / "run"):
        with pytest.raises(RuntimeError, match=r"^Process \d+ .* trains 'run': wait"):
            files.claim(tmp_path / "run")
        (tmp_path / "run.owner").unlink()
        with pytest.raises(RuntimeError, match="^Another process trains 'run': wait"):
            files.claim(tmp_path / "run")


def test_writing_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def half(temporary):
        temporary.write_text("ne")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        files.replace_file(file, half)
    assert file.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
