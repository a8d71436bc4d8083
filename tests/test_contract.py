"""What the guide says that a world may have beside tasks and actions, each tried."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.collecting.work import Work
from actors.config.schema import load
from envs.contract import World
from envs.episode import begin, take
from experience.errors import EnvironmentFailure
from experience.replay.replay import Replay
from experience.shards.catalog import Catalog
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.storage.blobs import BlobReader
from experience.step import Step
from tests.alone import SMALLEST_POLICY, Alone
from tests.full_world import PNG, Full

WORLD = "tests.full_world:Full-v0"
ROOT = Path(__file__).resolve().parent.parent


def lived(folder: Path, arguments: str, split: str = "heldout", *more: str) -> list[Step]:
    told = f"worlds=[{{id: '{WORLD}', groups: 1, demonstrations: 0, arguments: {arguments}}}]"
    one = Alone(load([], [told, *SMALLEST_POLICY, "collecting.slots=1", *more])[0], folder)
    one.order([Work.named("1", env_id=WORLD, lane="random", seed=3, split=split)])
    deadline = time.monotonic() + 60
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    return [step for block in Catalog(folder).follow() for step in block]


def test_images_arguments_threads_and_close_are_as_the_guide_says(tmp_path: Path) -> None:
    rows = lived(tmp_path / "shards", f"{{sizes: [4, 5], mark: '{tmp_path}'}}")
    assert [s.ending for s in rows] == ["terminated", "terminated"], rows[0].info
    assert rows[0].obs_text.endswith("of [4, 5]"), "a constructor's arguments are lists as well"
    (blob,) = rows[0].obs_blobs
    assert (blob.role, blob.media, blob.w) == ("screenshot", "image/png", 1)
    assert BlobReader(tmp_path / "shards").read(blob.hash) == PNG
    assert (tmp_path / "closed").read_text() == "closed by its own thread"


def test_a_split_of_its_own_is_kept_with_the_rows_and_never_learned_from(tmp_path: Path) -> None:
    rows = lived(tmp_path, "{}", "hard")
    assert {s.split for s in rows} == {"hard"} and int(rows[0].task_id) >= 100
    replay = Replay(EpisodeIndex.open(tmp_path), group_size=1, max_lag=1)
    assert not replay.episodes["real"] and replay.training_steps == 0
    with pytest.raises(ValueError, match="train and heldout and hard"):
        Full().reset(options={"split": "harder"})

    class Forgets(Full):
        tasks = World.tasks

    with pytest.raises(NotImplementedError, match="which tasks are 'hard'"):
        Forgets().reset(options={"split": "hard"})


def test_a_world_sets_its_own_deadline(tmp_path: Path) -> None:
    quick = lived(tmp_path / "a", "{deadline_seconds: 0.1}")
    assert quick[0].ending == "timeout" and "no answer in 0.1 s" in quick[0].info["error"]
    run_is_stricter = "collecting.step_timeout_seconds=0.1"
    arguments = "{deadline_seconds: 20, episode_seconds: 0.2}"
    patient = lived(tmp_path / "b", arguments, "heldout", run_is_stricter)
    assert [s.ending for s in patient] == ["truncated", "truncated"]


def test_the_checks_keep_a_worlds_deadline_too() -> None:
    world = Full(deadline_seconds=0.05)
    episode = begin(world, 0, "train")
    with pytest.raises(EnvironmentFailure, match=r"did not answer within 0\.05 s"):
        take(world, episode, "sleep 2")


def test_a_budget_of_time_truncates_the_episode() -> None:
    world = Full(episode_seconds=0.05)
    world.reset(seed=0)
    assert world.step("on")[2:4] == (False, False)
    assert world.step("sleep 0.06")[2:4] == (False, True)
    world.reset(seed=0)
    assert world.step("sleep 0.06 end")[3], "each reset begins a new budget"


def test_a_worlds_file_and_its_packages_may_lie_in_the_folder_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("HELLO = 'hello from beside'\n")
    (tmp_path / "lonely.py").write_text(
        "import gymnasium, parts\nfrom tests.full_world import Full\n"
        "class Lonely(Full):\n    def observe(self): return parts.HELLO\n"
        "gymnasium.register(id='Lonely-v0', entry_point=Lonely)\n"
    )
    program = (
        "from actors.collecting.hosts.look import look_at\n"
        "from actors.collecting.hosts.housing import is_isolated\n"
        "from actors.config.acting import World\n"
        "from actors.making import make_world\n"
        "world = World(id='lonely:Lonely-v0')\n"
        "assert is_isolated(world)\n"
        "print(look_at(world, 60).card.splits)\n"
        "print(make_world(world.id, {}).reset(seed=0)[0])\n"
    )
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["('train', 'heldout', 'hard')", "hello from beside"]
