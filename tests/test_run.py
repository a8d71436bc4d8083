"""The whole loop: small real runs in this process, killed and resumed, and under Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from actors.config.schema import Config, load
from actors.run import run
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.errors import ConfigError, DivergedError
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.storage.blobs import BlobReader, entries, packs
from experience.shards.verify import verify
from experience.step import Step

ROOT = Path(__file__).resolve().parent.parent
Finished = tuple[Config, RunDirectory, Progress]
SMALL = [
    "worlds=[{id: 'envs:PythonTask-v0', groups: 2, demonstrations: 12}]",
    "policy.layers=1",
    "policy.width=32",
    "policy.heads=4",
    "policy.max_tokens=64",
    "policy.context=200",
    "collecting.slots=8",
    "collecting.group_size=4",
    "learning.imitation_passes=4",
    "planning.model.first_steps=2",
    "planning.model.fit_steps=1",
    "evaluation.episodes=2",
    "evaluation.final_episodes=4",
    "evaluation.every=2",
    "budget.updates=3",
]


def configured(tmp_path: Path, *more: str) -> tuple[Config, RunDirectory]:
    config, origins = load([], [*SMALL, f"runs_dir={tmp_path}", *more])
    return config, RunDirectory.create(config, origins, ["test"])


def steps_of(directory: RunDirectory) -> list[Step]:
    return [s for block in Catalog(directory.shards).follow() for s in block]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    config, directory = configured(tmp_path_factory.mktemp("runs"))
    return config, directory, run(config, directory)


def test_a_run_reaches_its_budget_and_evaluates_what_it_learned(finished: Finished) -> None:
    config, _, progress = finished
    assert progress.version == config.budget.updates
    returns = progress.returns["envs:PythonTask-v0"]
    assert returns[0].n == 4
    assert returns[3].n == 4
    assert progress.random["envs:PythonTask-v0"].n == 4


def test_an_action_without_room_is_refused_at_the_start_with_the_place_and_the_number(
    tmp_path: Path,
) -> None:
    """Listed ones before anything is lived; an expert's where it is first written, before anything
    is learned."""
    with pytest.raises(ConfigError, match=r"override 'policy\.max_tokens=5'.*'right' takes 6"):
        config, directory = configured(
            tmp_path, "worlds=[{id: 'envs:KeyDoor-v0'}]", "policy.max_tokens=5"
        )
        run(config, directory)
    assert steps_of(directory) == []
    with pytest.raises(ConfigError, match=r"override 'policy\.max_tokens=24'.* takes \d\d"):
        config, directory = configured(tmp_path, "policy.max_tokens=24")
        run(config, directory)
    assert not any(directory.checkpoints.folder.iterdir())


def test_prompts_and_actions_that_are_cut_are_counted_and_marked(tmp_path: Path) -> None:
    config, directory = configured(
        tmp_path, "policy.context=80", "budget.updates=1", "planning.enabled=false"
    )
    cut = run(config, directory).cut
    decisions = [s.decision for s in steps_of(directory) if s.decision and s.decision.token_exact]
    assert cut["prompts"] == sum(bool(d.prompt_cut) for d in decisions) > 0
    assert cut["actions"] == sum(bool(d.action_cut) for d in decisions)
    assert list(directory.metrics())[-1]["cut"] == dict(cut)


def test_rows_on_disk_are_the_steps_taken(finished: Finished) -> None:
    _, directory, progress = finished
    rows = steps_of(directory)
    assert len(rows) == progress.acknowledged
    assert (
        sum(not s.is_closing for s in rows)
        == progress.steps["real"] + progress.steps["demonstration"]
    )


def test_what_the_browser_showed_is_kept_with_the_row_once(tmp_path: Path) -> None:
    config, directory = configured(
        tmp_path,
        "worlds=[{id: 'envs:Office-v0', groups: 0, demonstrations: 3, arguments: {screenshots: "
        "true}}]",
        "agent.sight=ignore",
        "budget.updates=0",
        "evaluation.final_episodes=1",
        "evaluation.episodes=1",
    )
    run(config, directory)
    rows, blobs = steps_of(directory), BlobReader(directory.shards)
    shown = [blob for step in rows for blob in step.obs_blobs]
    assert len(shown) == len(rows) > 10
    assert {(b.media, b.role) for b in shown} == {("image/png", "screenshot")}
    assert all(blobs.read(b.hash).startswith(b"\x89PNG") and b.w > 200 and b.h > 100 for b in shown)
    kept = sum(
        1
        for writer in directory.shards.iterdir()
        if writer.is_dir()  # the index of episodes stands beside them
        for pack in packs(writer)
        for _ in entries(pack)
    )
    assert kept == len({b.hash for b in shown}) <= len(shown)
    assert not verify(directory.shards, deep=True).problems


def test_every_row_says_whose_where_and_by_which_policy(finished: Finished) -> None:
    _, directory, _ = finished
    for step in steps_of(directory):
        assert step.env_id == "envs:PythonTask-v0"
        assert step.sandbox_tier == "namespaces"
        assert step.task_id
        assert step.state_key
        if step.source == "real" and step.decision and step.decision.behaviour_id == "small":
            assert step.decision.token_exact
            assert sum(s.tokens for s in step.decision.version_spans) == len(
                step.decision.action_ids
            )
            assert step.decision.version_spans[0].version == step.decision.policy_version


def test_held_out_tasks_appear_only_in_evaluation(finished: Finished) -> None:
    _, directory, _ = finished
    rows = steps_of(directory)
    held_out, train = (
        {s.task_id for s in rows if s.split == split} for split in ("heldout", "train")
    )
    assert held_out
    assert train
    assert not held_out & train


def test_later_versions_act(finished: Finished) -> None:
    _, directory, _ = finished
    acted = {
        s.decision.policy_version for s in steps_of(directory) if s.decision and s.split == "train"
    }
    assert max(acted) >= 1


def test_a_finished_run_is_not_lived_again_on_resume(finished: Finished) -> None:
    config, directory, before = finished
    rows = len(steps_of(directory))
    again = run(config, directory)
    assert again.version == before.version
    assert len(steps_of(directory)) == rows


def test_a_report_holds_its_pictures_and_fetches_nothing(finished: Finished) -> None:
    from actors.reading.report import write_report

    _, directory, progress = finished
    page = write_report(directory, progress).read_text()
    assert page.count("<svg") >= 3
    assert "src=" not in page
    assert "<script" not in page
    assert "https://" not in page.replace("https://matplotlib.org/", "")


def test_a_run_killed_anywhere_resumes_and_loses_nothing(tmp_path: Path) -> None:
    words = [
        *SMALL,
        f"runs_dir={tmp_path}",
        "budget.updates=4",
        "evaluation.every=1",
        "policy.listed=true",
        "worlds=[{id: 'tests.uneven_world:Uneven-v0', groups: 2, demonstrations: 12}]",
    ]
    command = [sys.executable, "-m", "actors", "run", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("latest/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    directory = RunDirectory.find("latest", str(tmp_path))
    before = {(s.stream_id, s.t) for s in steps_of(directory)}
    done = subprocess.run(
        [sys.executable, "-m", "actors", "resume", str(directory.path), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["status"], last["version"]) == ("succeeded", 4)
    after = [(s.stream_id, s.t) for s in steps_of(directory)]
    assert before <= set(after)
    assert len(after) == len(set(after)) == check_acknowledged(directory.shards, {})


def test_a_slow_world_ends_its_episode_as_timeout_without_a_reward(tmp_path: Path) -> None:
    from tests.alone import Alone

    config, directory = configured(
        tmp_path,
        "worlds=[{id: 'tests.slow_world:Slow-v0', groups: 1}]",
        "collecting.step_timeout_seconds=0.2",
        "collecting.slots=2",
    )
    collector = Alone(config, directory.shards)
    collector.load(None, 1)
    deadline = time.monotonic() + 300
    # two rows an episode; which slot lives the next one is not said
    streams = [slot.stream_id for slot in collector._slots]
    while sum(map(collector.journal.next_t, streams)) < 4 and time.monotonic() < deadline:
        collector.pump()
    assert time.monotonic() < deadline
    collector.close()
    endings = [s.ending for s in steps_of(directory)]
    assert "timeout" in endings
    assert all(s.reward is None for s in steps_of(directory) if s.ending == "timeout")


def test_a_strangers_plain_gymnasium_environment_joins_by_its_id(tmp_path: Path) -> None:
    config, directory = configured(
        tmp_path,
        "worlds=[{id: 'tests.slow_world:Coin-v0', groups: 1, demonstrations: 0}]",
        "budget.updates=1",
        "evaluation.final_episodes=0",
        "evaluation.episodes=0",
    )
    run(config, directory)
    rows = [s for s in steps_of(directory) if not s.is_closing]
    assert {s.signals[0].name for s in rows} == {"env_reward"}
    assert {s.reward for s in rows} <= {0.0, 1.0}


@pytest.mark.timeout(3000)
def test_a_killed_ray_collector_comes_back_and_its_streams_go_on(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Random kill -9 of collectors during a run; every acknowledged step is found once at the end."""
    kills = 200 if request.config.getoption("--long") else 2
    driver = ROOT / "tests" / "crash" / "kill_collectors.py"
    done = subprocess.run(
        [sys.executable, str(driver), str(kills), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith('{"kills"'))
    )
    assert found["kills"] == kills
    assert found["lost"] == found["doubled"] == found["followed_not_kept"] == 0
    assert found["restart_marks"] >= kills


def test_work_is_done_once_though_it_is_ordered_again_and_the_collector_restarts(
    tmp_path: Path,
) -> None:
    from actors.collecting.work import Work
    from tests.alone import Alone

    config, directory = configured(
        tmp_path, "worlds=[{id: 'envs:PythonTask-v0', groups: 1}]", "collecting.slots=2"
    )
    works = [
        Work.named(f"w{i}", env_id="envs:PythonTask-v0", lane="random", seed=i, split="heldout")
        for i in range(3)
    ]
    for _ in range(2):
        collector = Alone(config, directory.shards)
        collector.order(works)
        deadline = time.monotonic() + 300
        while not collector.is_done and time.monotonic() < deadline:
            collector.order(works)  # those under way and those done are known
            collector.pump()
        collector.close()
        closing = [s.work_id for s in steps_of(directory) if s.is_closing]
        assert sorted(closing) == sorted(w.work_id for w in works)


def test_an_evaluation_is_lived_by_the_weights_that_it_was_ordered_for(tmp_path: Path) -> None:
    from actors.collecting.work import Work
    from actors.engines.registry import make_model
    from experience.models.weights import PolicyBundle, Weights
    from tests.alone import Alone

    config, directory = configured(
        tmp_path, "worlds=[{id: 'envs:PythonTask-v0', groups: 1}]", "collecting.slots=2"
    )
    collector = Alone(config, directory.shards)
    texts = {}
    for version, seed in ((0, 5), (1, 6)):  # untrained, and different: each babbles in its own way
        model = make_model(config.policy, seed).model
        collector.order(
            [
                Work.named(
                    f"{version}/{i}",
                    env_id="envs:PythonTask-v0",
                    lane="evaluation",
                    seed=1,
                    split="heldout",
                    version=version,
                )
                for i in range(3)
            ],
            PolicyBundle(Weights.of(model, version)),
        )
    deadline = time.monotonic() + 300
    while not collector.is_done and time.monotonic() < deadline:
        collector.pump()
    collector.close()
    for step in steps_of(directory):
        if step.decision and step.step_in_episode == 0:
            texts.setdefault(step.decision.policy_version, set()).add(step.decision.text)
    assert {version: len(said) for version, said in texts.items()} == {0: 1, 1: 1}
    assert texts[0] != texts[1]


def test_a_run_whose_updates_are_not_finite_ends_and_keeps_the_batch(tmp_path: Path) -> None:
    config, directory = configured(
        tmp_path, "learning.imitation_rate=0.9", "planning.enabled=false"
    )
    diverging = config.learning.model_copy(
        update={"observation_weight": 1e38}
    )  # more than a configuration may ask for
    config = config.model_copy(update={"learning": diverging})
    with pytest.raises(DivergedError, match=r"numpy\.load") as caught:
        run(config, directory)
    (kept,) = directory.path.glob("diverged-*.npz")
    assert str(kept) in str(caught.value)
    assert len(np.load(kept)["demonstrations_tokens"])
    assert not verify(directory.shards).problems
