"""`./xp collect` and `./xp eval` as they are typed: stores that grow, exit codes, records, Ray."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experience.shards.catalog import Catalog
from experience.step import Step
from tests.commands import Commands, Told
from tests.test_house import ROOT

CONFIG = """
name: keys
worlds: [{id: "envs:KeyDoor-v0", groups: 1, demonstrations: 0}]
policy: {layers: 1, width: 16, heads: 2, max_tokens: 6, context: 64}
collecting: {slots: 2, group_size: 4}
learning: {max_lag: 0}
evaluation: {final_episodes: 3}
"""


@pytest.fixture(scope="module")
def xp() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "keys.yaml").write_text(CONFIG)
    return tmp_path


def result(told: Told) -> dict[str, Any]:
    assert told.code == 0, told.err
    records = [json.loads(line) for line in told.out.splitlines()]
    assert [record["kind"] for record in records][-1] == "result"
    return dict(records[-1])


def rows(store: Path) -> list[Step]:
    return [row for block in Catalog(store / "shards").follow() for row in block]


def works(store: Path) -> list[bytes]:
    return [r.work_id for r in rows(store) if r.is_closing and r.ending != "cancelled"]


def test_a_store_grows_by_each_call_and_every_reading_verb_reads_it(
    xp: Commands, here: Path
) -> None:
    words = ("collect", "-c", "keys.yaml", "--policy", "random", "--episodes", "5", "--json")
    first, second = result(xp(here, *words)), result(xp(here, *words))
    assert (first["new"], first["episodes"]) == (5, 5)
    assert (second["new"], second["episodes"]) == (5, 10)
    store = here / "runs/collected-keys"
    assert len(works(store)) == len(set(works(store))) == 10
    expert = xp(here, "collect", "-c", "keys.yaml", "--policy", "expert", "--episodes", "1")
    assert expert.code == 0 and "holds 11 episodes, 1 of them new, by expert" in expert.out
    assert "0 lost" in expert.out
    assert xp(here, "verify", "collected-keys", "--deep").code == 0
    assert "succeeded" in xp(here, "show", "collected-keys").out
    asked = "select count(*) as n from episodes where ending = 'terminated' or whole"
    assert json.loads(xp(here, "query", "collected-keys", asked, "--json").out)["n"] == 11
    out = xp(here, "export", "collected-keys", "--to", "jsonl", "--out", "out")
    assert out.code == 0, out.err


def test_what_was_removed_from_a_store_is_not_lived_again(xp: Commands, here: Path) -> None:
    words = ("collect", "-c", "keys.yaml", "--policy", "random", "--episodes", "4", "--json")
    result(xp(here, *words))
    store = here / "runs/collected-keys"
    stream = rows(store)[0].stream_id.hex()
    removed = set(works(store))
    assert xp(here, "forget", "collected-keys", "--stream", stream, "--yes").code == 0
    kept = set(works(store))
    assert kept < removed
    assert result(xp(here, *words))["new"] == 4
    assert len(set(works(store)) - removed) == 4


def test_a_store_of_other_tasks_or_of_another_kind_is_refused_with_what_differs(
    xp: Commands, here: Path
) -> None:
    words = ("collect", "-c", "keys.yaml", "--policy", "random", "--episodes", "1")
    assert xp(here, *words).code == 0
    other = xp(here, *words, "seed=3")
    assert other.code == 2 and "seed: was 0, is 3" in other.err and "--to NAME" in other.err
    evaluated = xp(here, "eval", "random", "-c", "keys.yaml", "--to", "collected-keys")
    assert evaluated.code == 2 and "was not made by ./xp eval" in evaluated.err
    resumed = xp(here, "resume", "collected-keys")
    assert resumed.code == 2 and "./xp collect goes on with it" in resumed.err
    (here / "runs/taken/of_mine").mkdir(parents=True)
    assert xp(here, *words, "--to", "taken").code == 2
    assert xp(here, *words, "--to", "../elsewhere", "seed=3").code == 0
    assert (here.parent / "elsewhere/run.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["eval", "random", "--split", "test"], "no such split"),
        (["eval", "random", "--k", "1,x"], "--k 1,x"),
        (["eval", "random", "--k", "4", "--attempts", "2"], "pass@4 needs 4 attempts"),
        (["eval", "nobody"], "no run 'nobody'"),
        (["collect", "--policy", "nobody@3"], "no run 'nobody'"),
        (["collect", "--policy", "mine.safetensors"], "mine.safetensors cannot be read"),
        (["collect", "worlds.0.groups=0"], "no world has groups"),
        (["collect", "--to", "a b"], "--to a b"),
    ],
)
def test_a_call_that_cannot_be_meant_says_what_to_do_and_makes_no_store(
    xp: Commands, here: Path, words: list[str], says: str
) -> None:
    told = xp(here, *words, "-c", "keys.yaml")
    assert told.code in (2, 4) and says in told.err
    assert not list((here / "runs").glob("*/run.json"))


def test_an_evaluation_is_kept_as_tables_and_made_only_once(xp: Commands, here: Path) -> None:
    words = ("eval", "expert", "-c", "keys.yaml", "--k", "1,2", "--success-at", "0.9", "--json")
    found = result(xp(here, *words))["evaluation"]
    world = found["worlds"]["envs:KeyDoor-v0"]
    assert (world["tasks"], world["episodes"], world["failed"]) == (3, 6, 0)
    assert world["success"]["mean"] == world["pass_at"]["2"]["mean"] == 1.0
    store = here / "runs/evaluated-keys"
    begun = len(rows(store))
    assert result(xp(here, *words))["evaluation"] == found and len(rows(store)) == begun
    (table,) = store.glob("evaluations/expert-heldout*.csv")
    with open(table) as file:
        kept = list(csv.DictReader(file))
    assert [row["attempts"] for row in kept] == ["2"] * 3
    (record,) = store.glob("evaluations/expert-heldout*.json")
    assert json.loads(record.read_text()) == found
    assert {row.split for row in rows(store)} == {"heldout"}
    text = xp(here, *words[:-1]).out
    assert "pass@2" in text and "a success is a return of 0.9 or more" in text


def test_without_a_bar_there_is_no_pass_at_k_and_greedy_attempts_are_warned_of(
    xp: Commands, here: Path
) -> None:
    told = xp(here, "eval", "engine", "-c", "keys.yaml", "--k", "2", "--episodes", "1")
    assert told.code == 0 and "pass@" not in told.out
    assert "--success-at RETURN defines it" in told.err
    assert "evaluation.temperature=1 samples" in told.err


def test_where_no_episode_can_be_lived_the_verb_fails_with_the_worlds_own_words(
    xp: Commands, here: Path
) -> None:
    world = "worlds=[{id: 'tests.broken_worlds:NeverStarts-v0', groups: 1}]"
    words = ("-c", "keys.yaml", world, "--episodes", "2", "--json")
    for verb in (("collect", "--policy", "random"), ("eval", "random")):
        told = xp(here, *verb, *words)
        last = json.loads(told.out.splitlines()[-1])
        assert told.code == 1 and last["kind"] == "error"
        assert "the simulator is not up" in last["why"]
        (record,) = here.glob(f"runs/*{verb[0][:3]}*-keys/run.json")
        assert json.loads(record.read_text())["status"] == "failed"


def started(here: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "actors", *words],
        cwd=here,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
    )


def test_ctrl_c_keeps_what_was_lived_and_the_same_command_goes_on(xp: Commands, here: Path) -> None:
    words = ("collect", "-c", "keys.yaml", "--policy", "random", "--episodes", "250")
    process = started(here, *words)
    store = here / "runs/collected-keys"
    deadline = time.monotonic() + 600
    while not (store.exists() and len(works(store)) > 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130 and "Go on with: the same command" in err
    lived = works(store)
    assert 0 < len(lived) < 250
    assert xp(here, "verify", "collected-keys").code == 0
    told = xp(here, *words)
    assert told.code == 0 and f"{len(lived)} of its 250 episodes are there" in told.err
    assert len(works(store)) == len(set(works(store))) == 250


def test_under_ray_the_same_works_are_lived_with_the_same_weights(xp: Commands, here: Path) -> None:
    """All collectors, and each of their starts, have the weights that the seed decides: greedy
    actions at the same tasks are equal."""
    words = ("eval", "engine", "-c", "keys.yaml", "--json", "--to")
    result(xp(here, *words, "alone", "--episodes", "1"))
    result(xp(here, *words, "alone", "--episodes", "4"))
    process = started(here, *words, "ray", "--episodes", "4", "workers=2")
    out, err = process.communicate(timeout=600)
    found = result(Told(process.returncode, out, err))
    acted: list[dict[bytes, list[str]]] = [{}, {}]
    for texts, name in zip(acted, ("alone", "ray"), strict=True):
        for row in rows(here / "runs" / name):
            if row.decision is not None:
                texts.setdefault(row.work_id, []).append(row.decision.text)
    assert acted[0] == acted[1] and len(acted[0]) == 4
    assert found["acked_steps"] == len(rows(here / "runs/ray"))
