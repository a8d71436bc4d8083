"""Adding a world: what `./xp env new` writes is checked, played and collected from as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action
from envs.check import check
from envs.template import KINDS
from experience.shards.catalog import Catalog

ROOT = Path(__file__).resolve().parent.parent


def xp(*words: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actors", *words],
        cwd=cwd,
        input=stdin,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{cwd}"},
        timeout=300,
    )


class Kitchen(ToolWorld[int]):
    signal_catalogue = {"heat": SignalKind("K", "env_state")}
    reward_weights = {"heat": 1.0}

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(100))

    def begin(self) -> None:
        self.seen = ""

    def observe(self) -> str:
        return self.seen

    @action
    def cook(
        self,
        minutes: Annotated[int, Range(1, 60)],
        how: Literal["boil", "fry"],
        salt: bool = False,
        note: str = "",
    ) -> Outcome:
        """Cook it."""
        self.seen = f"{minutes} {how} {salt} {note}"
        return {"heat": 1.0}, False

    @action
    def rest(self) -> Outcome:
        """Do nothing for a while."""
        return {"heat": 0.0}, False


@pytest.fixture
def kitchen() -> Kitchen:
    world = Kitchen()
    world.reset(seed=0)
    return world


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("cook 5 fry", "5 fry False "),
        ("cook 5 boil yes with much butter", "5 boil True with much butter"),
        ('{"name": "cook", "arguments": {"minutes": 7, "how": "fry"}}', "7 fry False "),
    ],
)
def test_an_action_is_a_line_or_a_tool_call(said: str, seen: str, kitchen: Kitchen) -> None:
    kitchen.step(said)
    assert kitchen.seen == seen


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cook", "write: cook minutes how [salt] [note]"),
        ("cook x fry", "minutes is an integer"),
        ("cook 2.5 fry", "minutes is an integer"),
        ("cook 61 fry", "minutes from 1 to 60"),
        ("cook 5 bake", "how is one of boil, fry"),
        ("cook 5 fry maybe", "salt is a boolean"),
        ("dance", "no action dance"),
        ("rest now", "write: rest"),
        ('{"name": "cook", "arguments": {"minutes": 7, "how": "fry", "x": 1}}', "write: cook"),
        ('{"name": "cook"', "a tool call is"),
        ("{" * 2000, "a tool call is"),
        ("cook inf fry", "minutes is an integer"),
    ],
)
def test_what_cannot_be_read_is_told_and_changes_nothing(
    said: str, told: str, kitchen: Kitchen
) -> None:
    observation, reward, _, _, info = kitchen.step(said)
    assert (
        told in observation
        and reward == -0.1
        and kitchen.seen == ""
        and "invalid_action" in info["signals"]
    )


def test_hints_and_docstring_are_the_schema_and_the_space(kitchen: Kitchen) -> None:
    schema = kitchen.tools["cook"].schema()["function"]
    assert schema["description"] == "Cook it."
    assert schema["parameters"]["properties"]["minutes"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 60,
    }
    assert schema["parameters"]["properties"]["how"] == {"type": "string", "enum": ["boil", "fry"]}
    assert schema["parameters"]["required"] == ["minutes", "how"]
    assert kitchen.tool_space[0]["minutes"].contains(60) and not kitchen.tool_space[0][
        "minutes"
    ].contains(61)
    assert "`cook minutes how [salt] [note]` cook it" in kitchen.instructions
    rng = np.random.default_rng(0)
    for _ in range(50):
        kitchen.read(kitchen.random_action(rng))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_world_is_short_and_passes_its_checks(kind: str, tmp_path: Path) -> None:
    made = xp("env", "new", "my_world", "--kind", kind, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert len((tmp_path / "my_world.py").read_text().splitlines()) <= 30
    checked = xp("env", "check", "my_world:MyWorld-v0", "--json", cwd=tmp_path)
    results = [json.loads(line) for line in checked.stdout.splitlines()]
    assert checked.returncode == 0, [r for r in results if r["outcome"] == "FAIL"] or checked.stderr
    assert sum(r["outcome"] == "PASS" for r in results) >= 17


def test_a_new_world_is_collected_from_and_lived_again(tmp_path: Path) -> None:
    assert xp("env", "new", "my_world", cwd=tmp_path).returncode == 0
    run = xp(
        "run",
        "-c",
        str(ROOT / "configs/local.yaml"),
        'worlds=[{id: "my_world:MyWorld-v0", groups: 2, demonstrations: 4}]',
        "workers=0",
        "budget.updates=1",
        "evaluation.episodes=2",
        "evaluation.final_episodes=2",
        "--limit",
        "30",
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-800:]
    lived = [s for block in Catalog(tmp_path / "runs/latest/shards").follow() for s in block]
    assert len(lived) > 30
    again = xp("env", "replay", "latest", "--again", cwd=tmp_path)
    assert again.returncode == 0 and "the same rewards" in again.stderr


def test_a_person_plays_and_goes_back(tmp_path: Path) -> None:
    xp("env", "new", "my_world", cwd=tmp_path)
    played = xp(
        "env",
        "play",
        "my_world:MyWorld-v0",
        cwd=tmp_path,
        stdin="guess 26\n:back\n:oracle\n:quit\n",
    )
    assert '"found": 0.0' in played.stdout and "one turn back" in played.stdout
    assert '"found": 1.0' in played.stdout, played.stdout


def test_checks_notice_a_world_that_breaks_its_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each break is noticed by the check that is named for it."""
    import gymnasium

    breaks = {
        "seed_control": "def begin(self): import time; self.low, self.high, self.number = "
        "time.perf_counter(), 99, sum(self.task)",
        "episode_determinism": "def observe(self): import os; return str(os.getpid())",
        "episode_isolation": "low = high = 5\n    def begin(self): self.number = "
        "sum(self.task); type(self).low = 1",
        "observation_schema": "observation_characters = 4000\n    def _seen(self): return 'é' "
        "* 5000",
        "reward_well_formed": "reward_weights = {'found': float('nan')}",
        "oracle_max": "def oracle_action(self): return 'guess 10'",
        "no_solution_leakage": "def observe(self): return self.oracle_action()\n    def "
        "oracle_action(self): return f'guess {sum(self.task):020d}'",
        "canary_floor": "cheats = ('guess 15', ['guess 15'])\n    def draw(self, rng): return "
        "10, int(rng.choice([5, 5, 5, 6]))\n    def tasks(self, split, rng): "
        "return (10, 5) if split == 'heldout' else (int(rng.integers(10, 20)), 0)",
        "split_disjointness": "def tasks(self, split, rng): return self.draw(rng)",
        "tool_declaration_accuracy": "instructions = ''",
        "resource_bounds": "def begin(self): import os; self.low, self.high, self.number = 1, "
        "99, sum(self.task); [os.dup(0) for _ in range(2)]",
        "snapshot_restore": "def snapshot(self): return b''\n    def restore(self, b): "
        "self.low = 7; return self._seen(), self._info({})",
        "host_containment": "def begin(self): import pathlib, uuid; self.low, self.high, "
        f"self.number = 1, 99, sum(self.task); pathlib.Path({str(ROOT)!r}, "
        "'left-' + uuid.uuid4().hex).write_text('')",
    }
    monkeypatch.syspath_prepend(str(tmp_path))
    base = KINDS["tools"]
    try:
        for number, (name, change) in enumerate(breaks.items()):
            text = base.format(name="Broken", title="broken")
            world, register, _ = text.partition("\n\ngymnasium.register")
            # In a class the last definition of a name counts, so the change replaces the first.
            (tmp_path / f"broken{number}.py").write_text(
                f"{world}\n    {change}\n{register}(id='Broken{number}-v0', entry_point=Broken)\n"
            )
            results = {r.id: r for r in check(f"broken{number}:Broken{number}-v0", only=[name])}
            assert results[name].outcome == "FAIL", (name, results[name])
            assert gymnasium.spec(f"Broken{number}-v0")
    finally:
        for left in ROOT.glob("left-*"):
            left.unlink()
