"""The battery's answers depend on what is asked, and on nothing that was asked before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pybamm", reason="./xp setup worlds")

_SCRIPT = """
import json, sys
from envs.lab.battery import Cell, Protocol, charge
asked = [
    ("real", Protocol(5.0, 10, 1.0), Cell(30, 10, 15, 2.0)),
    ("real", Protocol(3.0, 5, 3.0), Cell(20, 40, 25, 0.5)),
    ("cheap", Protocol(7.0, 8, 1.0), Cell(25, 20, 10, 1.0)),
    ("cheap", Protocol(3.0, 8, 1.0), Cell(25, 5, 10, 1.0)),
]
found = {i: charge(*asked[i]) for i in json.loads(sys.argv[1])}
print(json.dumps([[found[i].gained, found[i].plated] for i in range(4)]))
"""


def test_a_cell_charges_the_same_whichever_cells_were_charged_before() -> None:
    answers = [
        subprocess.run(
            [sys.executable, "-c", _SCRIPT, json.dumps(order)],
            cwd=Path(__file__).parent.parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()[-1]
        for order in ([0, 1, 2, 3], [3, 1, 2, 0])
    ]
    assert answers[0] == answers[1]
    (gained, plated), *_ = json.loads(answers[0])
    assert 0 < plated < gained < 1
