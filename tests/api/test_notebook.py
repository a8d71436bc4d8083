"""The notebook of the documentation: it is executed, and its file is that of its script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import experience as xp
from tests.api.notebook import NOTEBOOK, SCRIPT, cells_of_notebook, cells_of_script, execute
from tests.lived_runs import COIN_RUN, WrittenRun
from tests.test_house import ROOT


def run_script(run: Path) -> str:
    """What the script prints of a run. Raises CalledProcessError if a cell fails."""
    return subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "XP_NOTEBOOK_RUN": str(run), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    ).stdout


def test_every_cell_runs_and_compares_the_versions_task_by_task(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    written = WrittenRun(tmp_path)
    for version, task in ((v, task) for v in (0, 3) for task in range(6)):
        # the last version earns 1 more at all tasks but the first, at which it earns 1 less
        more = 0.0 if version == 0 else (1.0 if task else -1.0)
        written.live([1.0, 1.0 + more], version=version, split="heldout", seed=task)
        written.live([0.5], version=version)
    said = run_script(written.close())
    assert "version 0 and 3: 6 tasks of both, 1 got worse" in said
    assert "gain task by task: 0.67 ± 0.86" in said  # -1, 1, 1, 1, 1, 1: t(5) = 2.571
    assert "signals: cost, done | counted: cost, done" in said
    assert re.search(r"mean return after +0\.75 ± 0\.\d\d", said)  # 2 turns or 1, of 0.5 each


def test_the_notebook_has_the_cells_of_its_script_and_small_outputs() -> None:
    assert cells_of_notebook(NOTEBOOK.read_text()) == cells_of_script(SCRIPT.read_text())
    text = NOTEBOOK.read_text()
    assert len(text) < 100_000 and text.count('"image/png"') == 1
    assert '"output_type": "error"' not in text and not re.search(r"/(home|tmp|work|root)/", text)


@pytest.mark.long
def test_the_notebook_is_executed_by_jupyter_on_a_run_that_has_just_been_lived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nbclient", reason="tests/readers.txt")
    run = xp.run(*COIN_RUN, {"runs_dir": str(tmp_path)})
    monkeypatch.setenv("XP_NOTEBOOK_RUN", str(run.stores[0].path.parent))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = execute(cells_of_script(SCRIPT.read_text()), tmp_path)
    outputs = [output for cell in done["cells"] for output in cell.get("outputs", [])]
    assert outputs and all(output["output_type"] != "error" for output in outputs)
