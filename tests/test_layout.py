"""Who may import whom: the core stands alone, and everything else builds on it."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "braintumor"
CORE = [
    "config",
    "images",
    "dataset",
    "splits",
    "generators",
    "backbones",
    "models",
    "training",
    "metrics",
    "runs",
    "plots",
]
LAYERS = ["support", "studies", "app"]


def imported(source):
    """All modules of the package that a source imports, such as ``support.files``."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(node.module)
    package = "braintumor."
    return {name.removeprefix(package) for name in names if name.startswith(package)}


def imported_by(file):
    return imported(file.read_text(encoding="utf-8"))


def of_layer(names, layer):
    return {name for name in names if name.split(".")[0] == layer}


def modules_of(layer):
    return sorted((PACKAGE / layer).glob("*.py"))


def test_every_module_has_its_place():
    files = {file.stem for file in PACKAGE.glob("*.py")}
    assert files - {"__init__", "__main__"} == set(CORE)
    folders = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir()}
    assert folders - {"__pycache__"} == set(LAYERS)


@pytest.mark.parametrize("name", CORE)
def test_the_core_needs_neither_studies_nor_applications_nor_several_machines(name):
    found = imported_by(PACKAGE / f"{name}.py")
    assert not of_layer(found, "studies") and not of_layer(found, "app")
    assert "support.cluster" not in found


@pytest.mark.parametrize("file", modules_of("support"), ids=lambda file: file.stem)
def test_support_needs_of_the_core_its_settings_alone(file):
    if file.stem == "cluster":
        pytest.skip("several machines extend the core")
    # what only a type checker imports is no need
    source = file.read_text(encoding="utf-8").split("if TYPE_CHECKING:")[0]
    found = {name.split(".")[0] for name in imported(source)}
    assert found <= {"config", "support"}


@pytest.mark.parametrize("file", modules_of("app"), ids=lambda file: file.stem)
def test_applications_need_no_study(file):
    assert not of_layer(imported_by(file), "studies")


@pytest.mark.parametrize("folder", LAYERS)
def test_each_folder_says_what_lives_there(folder):
    tree = ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)


@pytest.mark.parametrize(
    "name",
    [
        "01_download",
        "02_explore",
        "03_train_vgg16",
        "04_train_resnet50",
        "05_compare",
    ],
)
def test_the_first_five_notebooks_need_the_core_alone(name):
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            found = imported("".join(cell["source"]))
            assert {module.split(".")[0] for module in found} <= set(CORE)
