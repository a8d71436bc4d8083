"""Where the command's rooms (actors, envs, configs) lie, and how the command is started.

In a checkout they lie beside this package. An installed package holds them in `experience/_house`,
for a folder `envs` at the top of site-packages would overwrite another distribution's. Only the
processes of the command have that folder on their path.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from experience.errors import MissingPartError

_PACKAGE = Path(__file__).resolve().parent.parent
IS_INSTALLED = (_PACKAGE / "_house").is_dir()
"""Whether this is an installed package, and no checkout."""


def house() -> Path:
    """The folder of the rooms. Raises MissingPartError where only the library is there."""
    found = _PACKAGE / "_house" if IS_INSTALLED else _PACKAGE.parent
    if not (found / "actors" / "__main__.py").is_file():
        raise MissingPartError(
            f"the command is not beside {_PACKAGE}", "pip install xp-experience, or use a checkout"
        )
    return found


def as_called(text: str) -> str:
    """`text` with the command's name as it is called here: `./xp` is the name in a checkout."""
    return text.replace("./xp ", "xp ") if IS_INSTALLED else text


def command() -> list[str]:
    """The words that start the command; its own words follow.

    -P: modules of the folder that it is called from do not stand in for others.
    """
    return [sys.executable, "-P", "-m", "actors"]


def environment() -> dict[str, str]:
    """The environment of a process of the command: its rooms are the first on its path."""
    path = os.environ.get("PYTHONPATH")
    rooms = str(house())
    return {**os.environ, "PYTHONPATH": f"{rooms}{os.pathsep}{path}" if path else rooms}


def main() -> None:
    """The console script `xp`: becomes the process of the command."""
    try:
        there = environment()
    except MissingPartError as error:
        sys.exit(f"error: {error}")
    os.execve(sys.executable, [*command(), *sys.argv[1:]], there)
