"""Jupyter folders apart from those in the home folder.

Somebody's start-up files could change results, their kernels may be those of another
Python, and a home folder may be read-only.
"""

from pathlib import Path

VARIABLES = (
    "IPYTHONDIR",
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
)
# where else Jupyter looks for kernels and settings, and what it finds first
NOWHERE_ELSE = {
    "JUPYTER_PATH": "",
    "JUPYTER_CONFIG_PATH": "",
    "JUPYTER_PREFER_ENV_PATH": "1",
}


def make_jupyter_folders(folder: Path) -> dict[str, str]:
    """Make the folders that Jupyter and IPython otherwise have in the home folder.

    Args:
        folder: Where to make them.

    Returns:
        The environment variables that name them.
    """
    variables = NOWHERE_ELSE.copy()
    for name in VARIABLES:
        own_folder = folder / name.lower()
        own_folder.mkdir(parents=True, exist_ok=True)
        variables[name] = str(own_folder)
    return variables
