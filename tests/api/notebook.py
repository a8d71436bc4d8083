"""docs/notebook.py as a notebook: its cells, and `python -m tests.api.notebook RUN`, which executes
them in Jupyter (tests/readers.txt) and writes docs/notebook.ipynb with their outputs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.test_house import ROOT

SCRIPT, NOTEBOOK = ROOT / "docs" / "notebook.py", ROOT / "docs" / "notebook.ipynb"
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class Cell(NamedTuple):
    kind: str
    source: str


def cells_of_script(script: str) -> list[Cell]:
    """The cells of a script in the percent format; those of Markdown without their `# `."""
    found = []
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n)*)", script, re.MULTILINE):
        is_text = "[markdown]" in head
        text = re.sub(r"^# ?", "", body, flags=re.MULTILINE) if is_text else body
        found.append(Cell("markdown" if is_text else "code", text.strip()))
    return found


def cells_of_notebook(notebook: str) -> list[Cell]:
    cells = json.loads(notebook)["cells"]
    return [Cell(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def execute(cells: list[Cell], folder: Path) -> dict[str, Any]:
    """The notebook of these cells with their outputs, executed by a kernel in `folder`."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": _KERNEL})
    for number, cell in enumerate(cells):
        make = getattr(nbformat.v4, f"new_{cell.kind}_cell")
        notebook.cells.append(make(cell.source, id=f"cell-{number}"))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:  # times of the execution: another file each time
        cell.metadata.pop("execution", None)
    return dict(notebook)


if __name__ == "__main__":
    os.environ["XP_NOTEBOOK_RUN"] = str(Path(sys.argv[1]).resolve())
    made = execute(cells_of_script(SCRIPT.read_text()), ROOT / "docs")
    NOTEBOOK.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
