"""Every name that code takes from a module of the project exists there.

Python would notice only when it gets there: in a test that takes minutes, in a tool that needs a browser.
"""

import ast
import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ["src", "tools", "benchmarks", "tests", "launch"]
THIS_FILE = Path(__file__).resolve()  # whose last test names what does not exist
SCRIPTS = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*.py")
    if file != THIS_FILE
)
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
# modules of tools/ and benchmarks/, which are imported by their name alone
OWN_MODULES = {file.stem for file in SCRIPTS if file.parent.name == "tools"}
OWN_MODULES |= {file.stem for file in SCRIPTS if file.parent.name == "benchmarks"}
OWN_PACKAGES = {"braintumor", "docs_values"}


def source_of(file):
    """The code of a script or of a notebook's cells."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return text
    cells = json.loads(text)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return "\n\n".join(code)


def programs_in(tree):
    """The tree, and those of the programs that it holds as text, to be run by another process."""
    yield tree
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if "from braintumor" in node.value:
            try:
                yield ast.parse(node.value)
            except SyntaxError:  # words about a program
                continue


def is_own(name):
    return name in OWN_MODULES or name.split(".")[0] in OWN_PACKAGES


def module_or_none(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def imports_of(tree):
    """Own modules by the name that the code gives them, and the names that it takes from one."""
    modules = {}
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_own(alias.name) and "." not in alias.name:
                    modules[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and is_own(node.module or ""):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if module_or_none(submodule):
                    modules[alias.asname or alias.name] = submodule
                else:
                    names.append((node.module, alias.name))
    return modules, names


def assigned_in(tree):
    """All names that the code gives to something, as these may hide a module."""
    assigned = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            assigned.add(node.id)
    return assigned


def attributes_in(tree, modules):
    """What the code takes from modules by a dot, or names as text to replace it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules:
                yield modules[node.value.id], node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_patch = node.func.attr in ("setattr", "delattr") and len(node.args) > 1
            if not is_patch:
                continue
            target, name = node.args[:2]
            is_module = isinstance(target, ast.Name) and target.id in modules
            if is_module and isinstance(name, ast.Constant):
                yield modules[target.id], name.value


def missing_names(source):
    missing = []
    for tree in programs_in(ast.parse(source)):
        modules, names = imports_of(tree)
        hidden = assigned_in(tree)
        seen = {name: module for name, module in modules.items() if name not in hidden}
        for module, name in [*names, *attributes_in(tree, seen)]:
            if not hasattr(importlib.import_module(module), name):
                missing.append(f"{module}.{name}")
    return sorted(set(missing))


@pytest.mark.parametrize(
    "file", SCRIPTS + NOTEBOOKS, ids=lambda file: str(file.relative_to(ROOT))
)
def test_every_name_exists(file):
    assert missing_names(source_of(file)) == []


@pytest.mark.parametrize(
    "source",
    [
        "from braintumor import dataset\ndataset.gone()",
        "from braintumor.dataset import gone",
        "from braintumor import dataset\npatch.setattr(dataset, 'gone', None)",
        "PROGRAM = 'from braintumor import dataset; dataset.gone()'",
    ],
)
def test_a_name_that_is_gone_is_found(source):
    assert missing_names(source) == ["braintumor.dataset.gone"]
