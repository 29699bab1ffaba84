"""Write the address of this repository into every badge and clone line.

`make links REPO=owner/name` calls this, for whoever publishes the repository elsewhere.
The address is kept in one place, ``[project.urls]`` of pyproject.toml.
"""

import argparse
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT_FILES = {".md", ".j2", ".toml", ".cff", ".ipynb", ".yml"}


def current_repository(root: Path = ROOT) -> str:
    """Read the address from pyproject.toml.

    Args:
        root: Of the checkout.

    Returns:
        ``owner/name``.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return "/".join(project["project"]["urls"]["Repository"].split("/")[-2:])


def replace_repository(text: str, old: str, new: str) -> str:
    """Replace one address in a text.

    Args:
        text: Of any file.
        old: ``owner/name``.
        new: ``owner/name``.

    Returns:
        The text with the new address in all links to GitHub and Colab, and its name in
        the line that enters the clone.
    """
    # github.com/owner/name, and colab.research.google.com/github/owner/name
    text = re.sub(rf"(github(?:\.com)?/){re.escape(old)}\b", rf"\g<1>{new}", text)
    old_name = re.escape(old.split("/")[1])
    new_name = new.split("/")[1]
    return re.sub(rf"^cd {old_name}$", f"cd {new_name}", text, flags=re.MULTILINE)


def tracked_files(root: Path = ROOT) -> list[Path]:
    """List the text files that git tracks.

    Args:
        root: Of the checkout.

    Returns:
        Their paths.
    """
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True
    )
    files = [root / name for name in listed.stdout.splitlines()]
    return [file for file in files if file.suffix in TEXT_FILES and file.exists()]


def main() -> None:
    """Replace the address in all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", help="owner/name on GitHub")
    repository = parser.parse_args().repository
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        parser.error(f"'{repository}' is not of the form owner/name")
    old = current_repository()
    for file in tracked_files():
        text = file.read_text(encoding="utf-8")
        replaced = replace_repository(text, old, repository)
        if replaced != text:
            file.write_text(replaced, encoding="utf-8")
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
