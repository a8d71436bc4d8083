"""Programs as actors of a run: started in the world's place, judged by what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.agents.harness import PRESETS, command_of
from actors.collecting.work import Work
from actors.config.acting import Harness
from actors.config.schema import Config, load
from actors.gathering.acting import acting
from actors.gathering.gathering import gathering
from actors.gathering.tally import Tally
from actors.pool.local import LocalPool
from actors.run import run
from actors.runs.directory import RunDirectory
from envs.code_execution import workspace
from envs.code_execution.repo.edits import changed
from envs.sandbox.tiers import shared_python
from experience.errors import ConfigError
from experience.shards.catalog import Catalog
from experience.step import Step

HERE = Path(__file__).resolve().parent
LEVER = "tests.gateway.lever_world:Lever-v0"
SMALL = ["policy.layers=1", "policy.width=16", "policy.heads=2", "policy.context=128"]


def config_of(
    runs: Path, what: str = "", *overrides: str, seconds: float = 60
) -> tuple[Config, Any]:
    command = [shared_python()[0], "/tmp/puller.py", "{task}", what]
    copied = _readable(runs)
    command[1] = str(copied)
    item = {"harness": "program", "command": command, "readable": [str(copied)], "seconds": seconds}
    world = {"id": LEVER, "demonstrations": 0, "groups": 1, "isolation": "inside"}
    given = [f"agents=[{_yaml(item)}]", f"worlds=[{_yaml(world)}]", f"runs_dir={runs}"]
    return load([], [*SMALL, "policy.max_tokens=1", "planning.enabled=false", *given, *overrides])


def _readable(runs: Path) -> Path:
    """The program where the user of a place can read it: a test's own folder may be private."""
    copied = Path(f"/tmp/xp-puller-{runs.name}.py")
    copied.write_text((HERE / "puller.py").read_text())
    copied.chmod(0o644)
    return copied


def _yaml(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value)


def lived(tmp_path: Path, what: str, episodes: int = 1, seconds: float = 60) -> list[Step]:
    config, origins = config_of(
        tmp_path, what, "collecting.slots=2", "collecting.group_size=2", seconds=seconds
    )
    directory = RunDirectory.create(config, origins, [], tmp_path / "store")
    who = acting("engine", config)
    works = [Work.named(f"{n}", env_id=LEVER, seed=n, group_id="a-1") for n in range(episodes)]
    with gathering(who, 1.0, directory, Tally(), lambda _: None, "collecting") as gathered:
        gathered.live(lambda: works)
    rows = [step for steps in Catalog(directory.shards).follow() for step in steps]
    return sorted(rows, key=lambda row: (row.stream_id, row.t))


def test_a_program_acts_in_its_place_and_the_world_judges_what_it_leaves(tmp_path: Path) -> None:
    rows = lived(tmp_path, "escape", episodes=4)
    assert len(rows) == 12
    for n in range(0, 12, 3):
        call, end, closing = rows[n : n + 3]
        assert call.decision and call.decision.token_exact and call.decision.sampled
        assert (call.obs_text, call.reward, call.ending) == ("[user]\npull?", 0.0, "none")
        assert end.decision and end.decision.behaviour_id == "harness:program"
        pulled = float(not call.decision.text or ord(call.decision.text[0]) < 128)
        assert [(s.name, s.value) for s in end.signals] == [("up", pulled)]
        assert (end.reward, end.ending, closing.ending) == (pulled, "terminated", "terminated")
        assert call.work_id == end.work_id and call.group_id == "a-1"


@pytest.mark.parametrize(("what", "ending"), [("crash", "env_error"), ("hang", "timeout")])
def test_a_program_that_crashes_or_hangs_ends_with_a_type_and_no_reward(
    tmp_path: Path, what: str, ending: str
) -> None:
    call, end, closing = lived(tmp_path, what, seconds=8)
    assert call.ending == "none" and end.ending == closing.ending == ending
    assert end.reward is None and not end.signals
    said = "exit code 1" if what == "crash" else "after 8 s"
    assert said in end.info["error"]
    assert what == "hang" or "crashed on task" in end.info["error"]


def test_a_world_without_a_place_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config, origins = config_of(tmp_path, "", "worlds.0.id=envs:KeyDoor-v0")
    directory = RunDirectory.create(config, origins, [], tmp_path / "store")
    with pytest.raises(ConfigError, match="KeyDoor-v0 gives a program no place"):
        run(config, directory, lambda _: None)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("{harness: other}", "agents[0]: harness: Input should be"),
        ("{harness: program}", "needs its `command`"),
        ("{harness: mini-swe-agent}", "give the `folder`"),
        ("{harness: program, command: [x], foldr: y}", "foldr: Extra inputs"),
        ("{harness: program, command: [x], seconds: 0}", "seconds: Input should be greater"),
    ],
)
def test_a_mistake_in_agents_is_named(item: str, said: str) -> None:
    with pytest.raises(ConfigError, match="exit 2") as raised:
        load([], [f"agents=[{item}]"])
    assert said in str(raised.value)


def test_every_named_harness_has_a_preset_that_finds_the_gateway() -> None:
    names = set(Harness.model_fields["harness"].annotation.__args__)  # type: ignore[union-attr]
    assert names == {*PRESETS, "program"}
    for name in names:
        settings = Harness(harness=name, folder="/venv", command=["x"] * (name == "program"))
        argv, environment = command_of(settings.model_dump(), "sk-xp-t")
        assert environment["OPENAI_BASE_URL"] == "http://127.0.0.1:8099/r/sk-xp-t/v1"
        assert not any("{" in word.replace("{task}", "") for word in argv)


def test_a_file_that_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "dir").symlink_to("/etc")
    (tmp_path / "big").write_bytes(b"x" * (workspace.MOST_FILE_BYTES + 1))
    (tmp_path / "bytes").write_bytes(b"\xff")
    import os

    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "dir/passwd", "big", "bytes", "fifo", "inner", "absent"):
        with pytest.raises(
            ValueError, match=name.partition("/")[0] if name != "dir/passwd" else "passwd"
        ):
            workspace.read_left(tmp_path, name)
    (tmp_path / "inner/good").write_text("yes")
    assert workspace.read_left(tmp_path, "inner/good") == "yes"


def test_a_program_may_change_lines_only_as_an_agent_may() -> None:
    before = ["def f(a):", "    return a < 1", "x = f(2)"]
    assert changed(before, "def f(a):\n    return a <= 1\nx = f(2)\n")[1] == "    return a <= 1"
    for after, said in (
        ("def f(a):\n    return a <= 1\n", "had 3 lines"),
        ("def f(a):\n    import os\nx = f(2)\n", "line 2: no imports"),
        ("def f(a):\n        return a < 1\nx = f(2)\n", "indentation"),
        ("def f(a):\n    return b < 1\nx = f(2)\n", "line 2: the file has no b"),
    ):
        with pytest.raises(ValueError, match=said):
            changed(before, after)


@pytest.mark.long
def test_a_policy_learns_through_a_program(tmp_path: Path) -> None:
    """Policy gradient on what the gateway kept: the share of pulled levers rises."""
    config, origins = config_of(
        tmp_path,
        "",
        "collecting.slots=8",
        "learning.imitation_passes=0",
        "learning.learning_rate=0.05",
        "learning.minibatches=1",
        "budget.updates=10",
        "evaluation.final_episodes=0",
        "evaluation.episodes=0",
        "worlds.0.groups=4",
    )
    directory = RunDirectory.create(config, origins, [], tmp_path / "store")
    run(config, directory, lambda _: None)
    rows = [step for steps in Catalog(directory.shards).follow() for step in steps]
    ends = [r for r in rows if r.decision and r.decision.behaviour_id.startswith("harness")]
    ends = sorted((r for r in ends if r.reward is not None), key=lambda r: r.t_end_ns)
    first, last = (np.mean([r.reward for r in part]) for part in (ends[:32], ends[-32:]))
    assert last > first + 0.2, (first, last)
    assert all(r.decision.token_exact for r in rows if r.decision and r not in ends)


def test_scripts_act_as_ever_where_programs_acted_before(tmp_path: Path) -> None:
    config, origins = config_of(tmp_path, "", "collecting.slots=1", "policy.max_tokens=16")
    directory = RunDirectory.create(config, origins, [], tmp_path / "store")
    lanes: list[Any] = ["train", "demonstration", "random"]
    works = [Work.named(lane, env_id=LEVER, seed=1, lane=lane) for lane in lanes]
    pool = LocalPool(config, directory.name, directory.shards, Catalog(directory.shards))
    policy = acting("engine", config).bundle
    assert policy is not None
    pool.push(policy, 0)
    for work in works:  # one after the other, in the same slot
        pool.order([work])
        ended = pool.collector.closed + 1
        for _ in pool.shards(lambda ended=ended: pool.collector.closed >= ended):
            pass
    pool.close()
    rows = [step for steps in Catalog(directory.shards).follow() for step in steps]
    acted = [row.decision.text for row in rows if row.decision and not row.decision.token_exact]
    assert acted[0] == "program" and "program" not in acted[1:]
    assert {row.ending for row in rows if row.is_closing} == {"terminated"}
