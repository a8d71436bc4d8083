"""The same seed in one process, learning from nothing late, is the same run: row for row and weight
for weight."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from actors.config.schema import load
from actors.run import run
from actors.runs.directory import RunDirectory
from experience.shards.catalog import Catalog
from experience.shards.exchange import as_plain

ROOT = Path(__file__).resolve().parent.parent
SAME = [
    "workers=0",
    "learning.max_lag=0",
    "seed=11",
    "policy.layers=1",
    "policy.width=32",
    "policy.heads=4",
    "policy.max_tokens=64",
    "policy.context=160",
    "collecting.slots=6",
    "collecting.group_size=4",
    "learning.imitation_passes=2",
    "policy.listed=true",
    "planning.model.first_steps=8",
    "planning.model.layers=1",
    "planning.model.width=32",
    "planning.model.fit_steps=2",
    "planning.branches.groups=2",
    "planning.every=1",
    "planning.model.trusted_accuracy=0",
    "learning.recipe=turn_ppo",
    "evaluation.episodes=3",
    "evaluation.final_episodes=4",
    "evaluation.every=2",
]
FAST = [
    "worlds=[{id: 'tests.uneven_world:Uneven-v0', groups: 3, demonstrations: 12}]",
    "budget.updates=3",
]
LONG = [
    "worlds=[{id: 'envs:PythonTask-v0', groups: 2, demonstrations: 12}, {id: "
    "'tests.uneven_world:Uneven-v0', "
    "groups: 2, demonstrations: 12}]",
    "budget.updates=8",
    "planning.options.skills=2",
    "planning.model.first_steps=400",
]


def lived(folder: Path, *settings: str) -> dict[str, str]:
    """A run, as the hash of its rows (without clock times, and with streams by number) and those of
    its checkpoints."""
    config, origins = load([], [*SAME, *settings, f"runs_dir={folder}"])
    directory = RunDirectory.create(config, origins, ["test"])
    run(config, directory)
    found = {"rows": _rows(directory.shards)}
    found["imagined"] = _rows(directory.path / "imagined")
    for file in sorted(directory.checkpoints.folder.glob("*/*")):
        if file.name != "SHA256SUMS":
            found[f"{file.parent.name}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _rows(shards: Path) -> str:
    streams: dict[bytes, bytes] = {}
    rows = []
    for step in (s for block in Catalog(shards).follow() for s in block):
        named = streams.setdefault(step.stream_id, len(streams).to_bytes(16, "big"))
        work = step.work_id if step.source != "imagined" else named  # its work is its stream
        rows.append(
            as_plain(
                replace(
                    step,
                    stream_id=named,
                    work_id=work,
                    t_start_ns=0,
                    t_end_ns=0,
                    parent=step.parent and (b"\0" * 16, step.parent[1]),
                )
            )
        )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_two_runs_of_a_seed_have_the_same_rows_and_the_same_weights(tmp_path: Path) -> None:
    one, other = lived(tmp_path / "a", *FAST), lived(tmp_path / "b", *FAST)
    assert one == other
    assert any("step-000003/policy" in name for name in one)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    short = [*FAST, "budget.updates=1", "planning.enabled=false"]
    one, other = lived(tmp_path / "a", *short), lived(tmp_path / "b", *short, "seed=12")
    assert not {hash_ for name, hash_ in one.items() if "policy" in name or name == "rows"} & set(
        other.values()
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_20_of_20_runs_are_the_same_in_processes_of_their_own_on_a_busy_machine(
    tmp_path: Path,
) -> None:
    """Two at a time, each with another seed of Python's hashes: what differs is what the machine
    does, and no more."""
    waiting = [
        [
            sys.executable,
            "-c",
            f"import json; from pathlib import Path; from tests.test_same_run import lived, LONG\n"
            f"print(json.dumps(lived(Path({str(tmp_path / str(n))!r}), *LONG)))",
        ]
        for n in range(20)
    ]
    found = []
    for start in range(0, 20, 2):
        pair = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONHASHSEED": str(start + n)},
            )
            for n, command in enumerate(waiting[start : start + 2])
        ]
        found += [json.loads(process.communicate()[0].splitlines()[-1]) for process in pair]
    assert next(tmp_path.glob("0/*/imagined/*/*"))
    assert sum(one == found[0] for one in found) == 20, [
        sorted(name for name in found[0] if one.get(name) != found[0][name]) for one in found
    ]
