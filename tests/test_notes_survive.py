"""Notes are rows: a collector that comes back has what its agents noted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actors.collecting.work import Work
from actors.config.schema import Config, load
from actors.engines.engine import Situation
from actors.engines.registry import EngineKind
from actors.engines.scripted import ScriptedEngine
from experience.models.weights import Weights
from experience.policy import Decision
from experience.shards.catalog import Catalog
from tests.alone import SMALLEST_POLICY, Alone

ROOT = Path(__file__).resolve().parent.parent


class Noting(ScriptedEngine):
    """Notes something new before it acts, and writes what it reads of its notes."""

    def __init__(self) -> None:
        self._notes = True

    def load(self, weights: Weights) -> None:
        pass

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        self._notes = not self._notes
        if self._notes:
            return [Decision(f"go, knowing {s.memory!r}", policy_version=0) for s in situations]
        return [Decision(f"note: {os.urandom(8).hex()}", policy_version=0) for _ in situations]


KIND = EngineKind(lambda policy, seed, trained: Noting(), is_pretrained=True)


def configuration() -> Config:
    words = [
        "worlds=[{id: 'envs:Nim-v0', groups: 1, demonstrations: 0, arguments: {stones: 5}}]",
        *SMALLEST_POLICY,
        "agent.notes=2000",
        "collecting.slots=1",
        "collecting.group_size=2",
        "policy.learns=false",
        "planning.enabled=false",
    ]
    config = load([], words)[0]
    engine = f"{__name__}:KIND"
    return config.model_copy(update={"policy": config.policy.model_copy(update={"engine": engine})})


def works(count: int) -> list[Work]:
    return [Work.named(f"{n}", env_id="envs:Nim-v0", seed=n) for n in range(count)]


def run_on(folder: str) -> None:
    """What the test kills: episodes in which an agent notes what it sees."""
    one = Alone(configuration(), Path(folder))
    one.order(works(1000))
    while one.closed < 2:
        one.pump()
    one.journal.commit()
    print("ready", flush=True)
    while True:
        one.pump()


def notes_of(folder: Path) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for step in (step for block in Catalog(folder).follow() for step in block):
        if step.decision is not None and step.decision.text.startswith("note: "):
            note = step.decision.text.removeprefix("note: ")
            found.setdefault(step.stream_id, []).append(note)
    return found


def test_a_killed_collectors_notes_are_read_back_by_the_one_that_goes_on(tmp_path: Path) -> None:
    program = f"import sys; from {__name__} import run_on; run_on(sys.argv[1])"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = notes_of(tmp_path)
    last = max(len(notes) for notes in before.values())
    assert last > 2
    one = Alone(configuration(), tmp_path)
    one.order([replace(work, work_id=bytes(15) + b"\1") for work in works(1)])
    while one.closed < 2:
        one.pump()
    one.close()
    first = min(
        (
            step
            for block in Catalog(tmp_path).follow()
            for step in block
            if step.work_id == bytes(15) + b"\1"
            and step.decision
            and "knowing" in step.decision.text
        ),
        key=lambda step: step.t_end_ns,
    )
    for note in before[first.stream_id][-5:]:
        assert first.decision is not None and note in first.decision.text, (
            "what was noted before the kill is read after it"
        )
