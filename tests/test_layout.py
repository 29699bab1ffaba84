"""Who may import whom: the core stands alone, and everything else builds on it; and what it needs from others."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
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


class WithoutTypeImports(ast.NodeTransformer):
    """Leaves out what only a type checker imports, as that is no need."""

    def visit_If(self, node):
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return node.orelse or None
        return self.generic_visit(node)


def imported(source, for_types=True):
    """All modules of the package that a source imports, such as ``support.files``; with or without those for types."""
    names = set()
    tree = ast.parse(source)
    if not for_types:
        tree = WithoutTypeImports().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(node.module)
    package = "braintumor."
    return {name.removeprefix(package) for name in names if name.startswith(package)}


def imported_by(file, for_types=True):
    return imported(file.read_text(encoding="utf-8"), for_types)


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
    found = {name.split(".")[0] for name in imported_by(file, for_types=False)}
    assert found <= {"config", "support"}


@pytest.mark.parametrize("file", modules_of("studies"), ids=lambda file: file.stem)
def test_studies_need_of_the_applications_the_heatmaps_alone(file):
    modules = {".".join(name.split(".")[:2]) for name in imported_by(file)}
    assert of_layer(modules, "app") <= {"app.gradcam"}


def test_an_import_after_those_for_types_is_a_need():
    source = """
if TYPE_CHECKING:
    from braintumor.training import Phase

def later():
    from braintumor.models import build_classifier
"""
    needed = {"models", "models.build_classifier"}
    assert imported(source, for_types=False) == needed


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


# --- what it needs from others ---

# packages whose module has another name; Colab has its own
OTHER_NAMES = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn"}
OTHER_NAMES |= {"PIL": "pillow", "IPython": "ipython"}
OTHER_NAMES["gradio_client"] = "gradio"  # comes with it
OF_COLAB = {"google"}
# who installs what: extras may be missing
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


def package_names(requirements):
    """The packages that requirements name."""
    return {re.match(r"[\w.-]+", line)[0].lower() for line in requirements}


def sources(folder):
    """The Python source of all modules and notebooks of a folder."""
    for file in (ROOT / folder).rglob("*.py"):
        yield file.read_text(encoding="utf-8")
    for file in (ROOT / folder).rglob("*.ipynb"):
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            lines = "".join(cell["source"]).splitlines()
            if cell["cell_type"] == "code":
                yield "\n".join(line for line in lines if line[:1] not in ("%", "!"))


def foreign_modules(source):
    """The modules of others that a source imports."""
    own = {
        file.stem
        for name in ("tools", "benchmarks")
        for file in (ROOT / name).glob("*")
    }
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            module = name.partition(".")[0]
            if module not in {"braintumor", *own, *OF_COLAB, *sys.stdlib_module_names}:
                yield module


@pytest.mark.parametrize("folder", ["src", "tools", "benchmarks", "notebooks"])
def test_whatever_is_imported_is_a_named_dependency(folder):
    named = package_names(PROJECT["dependencies"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra != "dev":
            named |= package_names(requirements)
    imported_modules = set()
    for source in sources(folder):
        imported_modules |= set(foreign_modules(source))
    assert "numpy" in imported_modules
    packages = {OTHER_NAMES.get(name, name).lower() for name in imported_modules}
    assert packages - named == set()


def test_requirements_name_every_dependency():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = package_names(line for line in lines if line[:1].isalpha())
    needed = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["notebooks"]
    assert package_names(needed) - required == set()


# --- how it is checked out ---


def tracked_files():
    """The paths that git knows; skips where there is no git."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    return listed.stdout.strip("\0").split("\0")


RESERVED = r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)"


def test_windows_and_macos_can_check_out_every_file():
    files = tracked_files()
    assert len({file.casefold() for file in files}) == len(files)
    for file in files:
        assert file.isascii() and len(file) < 120, file
        assert not re.search(r'[<>:"|?*\\\x00-\x1f]', file), file
        for part in file.split("/"):
            assert part.rstrip(" .") == part and not re.match(RESERVED, part), file


def test_git_leaves_line_ends_as_they_are():
    """On Windows it would change them: scripts would not run, checksums would not fit."""
    tracked_files()
    command = [
        "git",
        "check-attr",
        "eol",
        "text",
        "--",
        "launch/slurm.sh",
        "data/original_history.csv",
    ]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert "launch/slurm.sh: eol: lf" in shown
    assert "data/original_history.csv: text: unset" in shown


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_takes_a_file_whose_name_holds_spaces():
    command = ["make", "-n", "demo", "MODEL=my classifiers/one (2).onnx"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert 'tools/demo.py --model "my classifiers/one (2).onnx"' in shown
