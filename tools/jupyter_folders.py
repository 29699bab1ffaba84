"""Jupyter folders apart from those in the home folder.

Somebody's start-up files could change results, and a home folder may be read-only.
"""

from pathlib import Path

VARIABLES = (
    "IPYTHONDIR",
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
)


def make_jupyter_folders(folder: Path) -> dict[str, str]:
    """Make the folders that Jupyter and IPython otherwise have in the home folder.

    Args:
        folder: Where to make them.

    Returns:
        The environment variables that name them.
    """
    variables = {}
    for name in VARIABLES:
        own_folder = folder / name.lower()
        own_folder.mkdir(parents=True, exist_ok=True)
        variables[name] = str(own_folder)
    return variables
