"""Links and pictures of the documents and notebooks: each leads somewhere."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import update_docs

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)[^)]*\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def committed(pattern: str) -> list[str]:
    """The files of the repository that match, or all that lie there without git."""
    command = ["git", "ls-files", pattern]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.splitlines()
    if listed.returncode:
        names = [str(file.relative_to(ROOT)) for file in ROOT.rglob(pattern)]
        names = [name for name in names if not name.startswith((".", "build/"))]
    return sorted(names)


DOCUMENTS = committed("*.md")
NOTEBOOKS = committed("*.ipynb")


def text_of(name: str) -> str:
    """The Markdown of a document, or of all Markdown cells of a notebook."""
    file = ROOT / name
    if file.suffix != ".ipynb":
        return file.read_text()
    cells = nbformat.read(file, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def links_of(text: str) -> list[tuple[str, str, str]]:
    """Each link: "!" for a picture or nothing, its text, and where it leads."""
    found = []
    for mark, words, target in LINK.findall(CODE.sub("code", text)):
        found.append((mark, words, target))
        if "](" in words:  # a picture inside of a link
            found += LINK.findall(words)
    return found


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    anchors: set[str] = set()
    without_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for heading in re.findall(r"^#+ +(.*)$", without_code, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        repeated = 1
        unique = anchor
        while unique in anchors:
            unique = f"{anchor}-{repeated}"
            repeated += 1
        anchors.add(unique)
    return anchors


@pytest.mark.parametrize("name", DOCUMENTS + NOTEBOOKS)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(name):
    lost = []
    for _, _, target in links_of(text_of(name)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if (
            not file.exists()
            or anchor
            and anchor not in anchors_of(text_of(str(file.resolve())))
        ):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("name", DOCUMENTS + NOTEBOOKS)
def test_every_picture_is_described_in_words(name):
    pictures = [link for link in links_of(text_of(name)) if link[0]]
    assert [target for _, words, target in pictures if not words.strip()] == []


def test_links_to_notebooks_are_written_in_one_place():
    for template in update_docs.TEMPLATES.rglob(f"*{update_docs.SUFFIX}"):
        assert ".ipynb" not in template.read_text(), template.name
    for name in update_docs.NOTEBOOKS.values():
        assert (ROOT / name).is_file(), name


def test_a_lost_link_and_a_missing_heading_are_found():
    text = "# One two\n\n[a](lost.md) ![picture](figure.png) [![badge](x.svg)](y)"
    assert links_of(text) == [
        ("", "a", "lost.md"),
        ("!", "picture", "figure.png"),
        ("", "![badge](x.svg)", "y"),
        ("!", "badge", "x.svg"),
    ]
    assert anchors_of("# One, two!\n\n## A `b.c`\n\n## A `b.c`") == {
        "one-two",
        "a-bc",
        "a-bc-1",
    }
