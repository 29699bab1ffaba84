"""One place names the repository, and every badge and clone line follows it."""

import re

import pytest
import set_repository

FILES = set_repository.tracked_files()
# addresses of other repositories that the text links to
OTHERS = ("fchollet/", "AkshayRamakrishnann/", "keras-team/", "masoudnick")
GITHUB_LINK = r"github(?:\.com)?/([\w.-]+/[\w.-]+)/(?:blob|tree|issues|actions)\b"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_all_links_name_the_repository_of_pyproject(file):
    expected = set_repository.current_repository()
    text = file.read_text(encoding="utf-8")
    found = set(re.findall(GITHUB_LINK, text))
    found |= set(
        re.findall(r"git clone (?:-q )?https://github\.com/([\w.-]+/[\w.-]+)", text)
    )
    assert {name for name in found if not name.startswith(OTHERS)} <= {expected}


def test_another_address_replaces_links_clone_lines_and_the_folder():
    text = (
        "[![CI](https://github.com/a/b/actions/workflows/ci.yml)]\n"
        "https://colab.research.google.com/github/a/b/blob/main/x.ipynb\n"
        "git clone https://github.com/a/b\ncd b\nhttps://github.com/a/bc\n"
    )
    replaced = set_repository.replace_repository(text, "a/b", "new/home")
    assert replaced == (
        "[![CI](https://github.com/new/home/actions/workflows/ci.yml)]\n"
        "https://colab.research.google.com/github/new/home/blob/main/x.ipynb\n"
        "git clone https://github.com/new/home\ncd home\nhttps://github.com/a/bc\n"
    )
