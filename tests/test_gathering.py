"""Collecting without learning, in this process and under Ray: what is lived, kept and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.collecting.dispatcher import Dispatcher
from actors.collecting.loop.collector import Collector
from actors.collecting.loop.leases import DirectLine
from actors.collecting.work import Done, Work
from actors.config.schema import Config, load
from actors.engines.registry import make_model
from actors.gathering.acting import acting
from actors.gathering.exam import as_record, results, table, tasks_as_csv
from actors.gathering.gathering import gathering
from actors.gathering.orders import Call, Exam, next_call, task_seed
from actors.gathering.tally import Tally
from actors.run import run
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.errors import ConfigError, EngineError, WeightsError
from experience.models.weights import PolicyBundle, Weights
from experience.shards.catalog import Catalog
from experience.shards.verify import verify
from experience.step import Step
from tests.alone import SMALLEST_POLICY

KEYDOOR = "envs:KeyDoor-v0"
SMALL = (
    *SMALLEST_POLICY,
    "policy.max_tokens=6",
    "collecting.slots=2",
    "collecting.group_size=4",
    "learning.max_lag=0",
)


def configuration(folder: Path, *more: str, world: str = KEYDOOR) -> Config:
    worlds = f"worlds=[{{id: '{world}', groups: 1, demonstrations: 0}}]"
    return load([], [worlds, *SMALL, f"runs_dir={folder}", *more])[0]


def store(config: Config) -> RunDirectory:
    return RunDirectory.create(config, {}, ["test"])


def gather(
    config: Config,
    directory: RunDirectory,
    policy: str,
    works: Callable[[], Any],
    tally: Tally | None = None,
    temperature: float = 1.0,
) -> Progress:
    who = acting(policy, config)
    with gathering(
        who, temperature, directory, tally or Tally(), lambda _: None, "collecting"
    ) as gathered:
        gathered.live(works)
    return gathered.progress


def collect(config: Config, directory: RunDirectory, policy: str, call: Call) -> Progress:
    lane = acting(policy, config).lane
    return gather(config, directory, policy, lambda: call.works(config, lane))


def rows(directory: RunDirectory) -> list[Step]:
    return [row for block in Catalog(directory.shards).follow() for row in block]


def closings(directory: RunDirectory) -> list[Step]:
    return [row for row in rows(directory) if row.is_closing and row.ending != "cancelled"]


def test_a_collection_has_the_groups_of_its_tasks_and_a_second_call_makes_the_last_one_whole(
    tmp_path: Path,
) -> None:
    config = configuration(tmp_path)
    directory = store(config)
    first = next_call([], "small", 6, 4)
    progress = collect(config, directory, "engine", first)
    assert progress.done == {"episode": (6, 6)} and not progress.cut_short
    second = next_call([first], "small", 2, 4)
    collect(config, directory, "engine", second)
    closed = closings(directory)
    assert Counter(row.group_id for row in closed) == {"0-0": 4, "0-1": 4}
    assert len({row.work_id for row in closed}) == 8
    seeds = {row.group_id: row.seed for row in closed}
    assert seeds == {f"0-{g}": task_seed(config.seed, "train", g) for g in (0, 1)}
    acted = [row for row in rows(directory) if row.decision]
    assert {row.split for row in acted} == {"train"} and all(row.is_training for row in acted)
    assert all(row.decision.sampled for row in acted if row.decision)
    assert verify(directory.shards).problems == []


def test_another_policy_begins_a_group_of_its_own_and_worlds_share_by_their_groups(
    tmp_path: Path,
) -> None:
    config = load(
        [],
        [
            f"worlds=[{{id: '{KEYDOOR}', groups: 2}}, {{id: 'envs:Battery-v0', groups: 1}}]",
            f"runs_dir={tmp_path}",
            "collecting.group_size=4",
        ],
    )[0]
    calls = [Call("random", 0, 6)]
    assert next_call(calls, "random", 3, 4) == Call("random", 6, 9)
    assert next_call(calls, "expert", 3, 4) == Call("expert", 8, 11)
    works = list(Call("random", 0, 24).works(config, "random"))
    assert Counter(work.env_id for work in works) == {KEYDOOR: 16, "envs:Battery-v0": 8}


def test_an_interrupted_collection_keeps_its_rows_and_goes_on_with_what_is_missing(
    tmp_path: Path,
) -> None:
    config = configuration(tmp_path)
    directory = store(config)
    call = Call("random", 0, 90)
    passes = iter(range(9))

    def interrupted() -> Iterator[Work]:
        is_ordering = next(passes) == 1
        for number, work in enumerate(call.works(config, "random")):
            if is_ordering and number == 70:  # in the second block: some are done by then
                raise KeyboardInterrupt
            yield work

    with pytest.raises(KeyboardInterrupt):
        gather(config, directory, "random", interrupted)
    done = {row.work_id for row in closings(directory)}
    assert 10 < len(done) < 90 and verify(directory.shards).problems == []
    progress = collect(config, directory, "random", call)
    assert progress.done == {"episode": (90, 90)}
    closed = [row.work_id for row in closings(directory)]
    assert len(closed) == len(set(closed)) == 90 and done < set(closed)
    begun = len(rows(directory))
    assert collect(config, directory, "random", call).acknowledged == 0
    assert len(rows(directory)) == begun, "what is there is not lived again"


@pytest.mark.parametrize(("policy", "source"), [("random", "real"), ("expert", "demonstration")])
def test_scripts_act_without_the_engine_that_the_configuration_names(
    policy: str, source: str, tmp_path: Path
) -> None:
    config = configuration(
        tmp_path,
        "policy.engine=openai",
        "policy.base_url=http://127.0.0.1:9/v1",  # where nobody listens
        "policy.model=none",
        "policy.learns=false",
    )
    directory = store(config)
    collect(config, directory, policy, Call(policy, 0, 3))
    acted = [row for row in rows(directory) if row.decision]
    assert {row.source for row in acted} == {source} and len(closings(directory)) == 3
    assert {row.decision.behaviour_id for row in acted if row.decision} == {policy}
    with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
        collect(config, directory, "engine", Call("engine", 4, 6))


def test_a_world_that_never_ends_is_cut_by_the_budget_of_steps_and_the_next_call_has_its_own(
    tmp_path: Path,
) -> None:
    world = "tests.broken_worlds:Endless-v0"
    config = configuration(tmp_path, "budget.steps=50", world=world)
    directory = store(config)
    for _ in range(2):
        before = len(rows(directory))
        progress = collect(config, directory, "random", Call("random", 0, 4))
        assert "0 of 4 episodes after" in progress.cut_short["collecting"]
        assert "budget.steps" in progress.cut_short["collecting"]
        assert len(rows(directory)) - before >= 50
    assert verify(directory.shards).problems == []
    quick = configuration(tmp_path, "budget.minutes=0.005", world=world)
    progress = collect(quick, store(quick), "random", Call("random", 0, 4))
    assert "budget.minutes" in progress.cut_short["collecting"]


def test_nothing_that_would_stop_a_run_without_a_learner_stops_a_collection(tmp_path: Path) -> None:
    """No update comes: with max_lag=0 a run would wait for one after its first groups."""
    config = configuration(tmp_path, "budget.updates=0", world="tests.slow_world:Coin-v0")
    progress = collect(config, store(config), "engine", Call("small", 0, 60))
    assert progress.done == {"episode": (60, 60)} and progress.version == 0


def test_failed_episodes_are_masked_and_counted_and_pass_at_k_is_over_the_others(
    tmp_path: Path,
) -> None:
    config = configuration(
        tmp_path,
        "collecting.slots=12",
        "collecting.step_timeout_seconds=1.5",
        world="tests.endings_world:Ends-v0",
    )
    directory = store(config)
    who = acting("random", config)
    exam = Exam(who.label, "heldout", tasks=12, attempts=2, temperature=0.0)
    tally = Tally(keeps=True)
    broken: frozenset[bytes] = frozenset()

    def works() -> Iterator[Work]:
        return exam.works(config, who.lane, broken)

    gather(config, directory, "random", works, tally)
    ways = [task_seed(config.seed, "heldout", number) % 6 for number in range(12)]
    whole = sum(way < 2 for way in ways)  # terminated or truncated: each earns 3
    assert 0 < whole < 12, "the seeds of this test should hold both"
    found = results(config, who, exam, tally, (1, 2), bar=3.0)
    (of,) = found.scores.values()
    assert (of.tasks, of.episodes, of.failed) == (whole, 2 * whole, 2 * (12 - whole))
    assert of.mean_return.mean == 3.0
    assert of.passed[2].mean.mean == 1.0 and of.passed[2].short == 12 - whole
    record = as_record(found)["worlds"]["tests.endings_world:Ends-v0"]
    assert record["failed"] == 2 * (12 - whole) and record["success"]["mean"] == 1.0
    assert len(table(found)) == 2
    lines = tasks_as_csv(config, found).decode().splitlines()
    assert len(lines) == 13
    assert sum(line.endswith(",0,0,2,0,") for line in lines) == 12 - whole, "unknown, not zero"
    broken = frozenset(tally.broken)
    tally = Tally(keeps=True)
    gather(config, directory, "random", works, tally)
    assert len(closings(directory)) == 2 * whole + 4 * (12 - whole), "what failed is tried again"
    again = results(config, who, exam, tally, (1, 2), bar=3.0)
    (after,) = again.scores.values()
    assert (after.episodes, after.failed) == (2 * whole, 4 * (12 - whole))
    assert again.missing == 0 and after.mean_return == of.mean_return


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, RunDirectory, Progress]:
    config = configuration(
        tmp_path_factory.mktemp("learned"),
        "worlds.0.demonstrations=8",
        "learning.imitation_passes=6",
        "planning.enabled=false",
        "budget.updates=2",
        "evaluation.every=1",
        "evaluation.episodes=3",
        "evaluation.final_episodes=5",
    )
    directory = store(config)
    return config, directory, run(config, directory)


def test_a_checkpoint_is_evaluated_to_the_very_returns_that_its_run_measured(
    learned: tuple[Config, RunDirectory, Progress], tmp_path: Path
) -> None:
    config, directory, progress = learned
    for name, tasks in ((str(directory.path), 5), (f"{directory.path}@1", 3)):
        who = acting(name, config)
        exam = Exam(who.label, "heldout", tasks, 1, config.evaluation.temperature)
        tally = Tally(keeps=True)
        gather(
            config,
            store(configuration(tmp_path)),
            name,
            lambda exam=exam, who=who: exam.works(config, who.lane, ()),
            tally,
            temperature=0.0,
        )
        found = results(config, who, exam, tally, (), None)
        assert who.version == (1 if name.endswith("@1") else 2)
        assert found.scores[KEYDOOR].mean_return == progress.returns[KEYDOOR][who.version]


def test_a_policy_of_a_run_keeps_its_shape_and_takes_how_it_is_sampled(
    learned: tuple[Config, RunDirectory, Progress], tmp_path: Path
) -> None:
    _, directory, _ = learned
    other = configuration(tmp_path, "policy.width=64", "policy.temperature=0.5")
    who = acting(f"{directory.path}@1", other)
    assert who.label == f"{directory.name}@1"
    assert (who.config.policy.width, who.config.policy.temperature) == (16, 0.5)
    assert who.config.runs_dir == other.runs_dir
    with pytest.raises(ConfigError, match="no checkpoint of version 9"):
        acting(f"{directory.path}@9", other)


def test_a_file_of_weights_acts_and_one_of_another_shape_is_refused(
    learned: tuple[Config, RunDirectory, Progress], tmp_path: Path
) -> None:
    config, directory, _ = learned
    file = tmp_path / "mine.safetensors"
    saved = directory.checkpoints.newest()
    assert saved is not None
    file.write_bytes(saved["policy.safetensors"])
    own = store(configuration(tmp_path))
    collect(config, own, str(file), Call("mine", 0, 2))
    assert len(closings(own)) == 2
    wider = configuration(tmp_path, "policy.width=32")
    with pytest.raises(WeightsError, match="another model"):
        collect(wider, store(wider), str(file), Call("mine", 0, 2))


def test_an_untrained_policy_has_the_weights_that_the_seed_decides_in_every_collector(
    tmp_path: Path,
) -> None:
    config = configuration(tmp_path)
    who = acting("engine", config)
    trained = make_model(config.policy, config.seed)
    assert trained is not None and who.bundle is not None
    assert who.bundle.weights == Weights.of(trained.model, 0)


def test_a_policy_is_named_by_all_that_decides_what_it_answers(tmp_path: Path) -> None:
    names = [
        acting("engine", configuration(tmp_path, *words)).name
        for words in ((), ("policy.temperature=2",), ("policy.width=32",), ("policy.listed=true",))
    ]
    assert names[0] == names[1] and len(set(names)) == 3
    assert acting("random", configuration(tmp_path, "policy.width=32")).name == "random"


def test_training_work_waits_for_the_first_policy(tmp_path: Path) -> None:
    """What the engine has before is nobody's policy, and its rows would bear a version's number."""
    fetched: list[Callable[[], None]] = []

    class SlowLine(DirectLine):
        def fetch(self, policy: Any, reply: Callable[[Any], None]) -> None:
            fetched.append(lambda: reply(policy))

    config = configuration(tmp_path, world="tests.slow_world:Coin-v0")
    dispatcher = Dispatcher(config, Done(), lease_seconds=float("inf"))
    one = Collector(config, "r", tmp_path / "shards", 0, SlowLine(dispatcher))
    trained = make_model(config.policy, 5)
    assert trained is not None
    dispatcher.publish(7, 1, PolicyBundle(Weights.of(trained.model, 7)))
    for _ in range(5):
        one.pump(0.001)
    assert fetched and not one.idle and one.closed == 0
    fetched.pop()()
    while one.closed < config.collecting.group_size:
        one.pump(0.01)
    one.close()
    acted = [s for block in Catalog(tmp_path / "shards").follow() for s in block if s.decision]
    assert {s.decision.policy_version for s in acted if s.decision} == {7}
