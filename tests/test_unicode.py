"""A text in any script is the same in the world, the agent, the shards and whatever reads them."""

from __future__ import annotations

import html
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from gymnasium.spaces import flatten, unflatten
from gymnasium.utils.env_checker import check_env

from actors.collecting.work import Lane, Work
from actors.config.schema import load
from actors.reading.query import connect
from actors.reading.replayed import described
from actors.reading.report import write_report
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from envs.unicode_text import UnicodeText
from experience.models.tokenizer import ByteTokenizer
from experience.shards.catalog import Catalog
from experience.shards.exchange import EXPORTERS, export, import_from
from experience.step import Step
from experience.text.characters import is_readable, readable
from tests.alone import SMALLEST_POLICY, Alone
from tests.speaking_world import LONG, TEXT, Speaks

WORLD = "tests.speaking_world:Speaks-v0"


def lived(folder: Path, lane: Lane, arguments: str = "{}", *settings: str) -> list[Step]:
    """The two rows of one episode."""
    world = f"{{id: '{WORLD}', groups: 1, demonstrations: 0, arguments: {arguments}}}"
    settings = (f"worlds=[{world}]", *SMALLEST_POLICY, "collecting.slots=1", *settings)
    one = Alone(load([], settings)[0], folder)
    one.order([Work.named("1", env_id=WORLD, lane=lane, seed=1, split="heldout")])
    deadline = time.monotonic() + 60
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    return [step for block in Catalog(folder).follow() for step in block]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's directory with one demonstrated episode in ten scripts."""
    path = tmp_path_factory.mktemp("runs") / "one"
    for folder in ("imagined", "checkpoints", "metrics"):
        (path / folder).mkdir(parents=True)
    RunDirectory(path).write_record(status="succeeded", seed=0, started=1.0)
    room = ("policy.max_tokens=1024", "policy.context=2048")
    lived(path / "shards", "demonstration", "{}", *room)
    return path


def steps(run: Path) -> list[Step]:
    return [step for block in Catalog(run / "shards").follow() for step in block]


def test_ten_scripts_are_the_same_in_world_tokens_shard_and_signal(run: Path) -> None:
    turn, closing = steps(run)
    assert turn.obs_text == closing.obs_text == TEXT
    assert turn.decision is not None and turn.decision.text == TEXT
    tokens = ByteTokenizer()
    assert tokens.text(turn.decision.prompt_ids) == TEXT
    assert tokens.text(turn.decision.action_ids) == TEXT
    (same,) = turn.signals
    assert (same.value, same.evidence) == (1.0, TEXT[:200]), "the world was told the very text"


def test_queries_and_the_report_show_the_same_text(run: Path) -> None:
    found = connect({"steps": run / "shards"}).sql(
        "select obs_text, action_text from steps order by t"
    )
    assert found.fetchall() == [(TEXT, TEXT), (TEXT, None)]
    page = html.unescape(write_report(RunDirectory(run), Progress(run.name)).read_text())
    assert page.count(TEXT) == 3
    assert TEXT in described(steps(run)[0])


def texts(to: str, out: Path) -> Iterator[str]:
    """The observation of every first turn that is in an export, as others read it."""
    if to in ("jsonl", "atif"):
        import_from(out, to, out.with_name("again"))
        first = next(Catalog(out.with_name("again")).follow())[0]
        yield first.obs_text
        assert first.decision is not None
        yield first.decision.text
    elif to == "parquet":
        row = pl.read_parquet(out / "heldout.parquet").row(0, named=True)
        yield from (row["obs_text"], row["action_text"])
    elif to == "lerobot":
        rows = pl.read_parquet(next(out.glob("*/data/chunk-000/file-000.parquet")))
        yield rows["observation.text"][0]
    elif to == "hf":
        datasets = pytest.importorskip("datasets", reason="uv pip install -r tests/readers.txt")
        yield datasets.load_from_disk(str(out / "heldout"))[0]["obs_text"]
    else:
        minari = pytest.importorskip("minari", reason="uv pip install -r tests/readers.txt")
        (episode,) = minari.load_dataset("xp/Speaks-v0").iterate_episodes()
        yield from (episode.observations[0], episode.actions[0])


@pytest.mark.parametrize("to", sorted(EXPORTERS))
def test_every_format_holds_the_same_text(
    run: Path, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    if to in ("hf", "minari"):
        pytest.importorskip({"hf": "datasets"}.get(to, to), reason="tests/readers.txt")
    export(run / "shards", to, tmp_path / "out")
    found = list(texts(to, tmp_path / "out"))
    assert found and set(found) == {TEXT}


@pytest.mark.parametrize("lane", ["demonstration", "random"])
def test_100_000_characters_arrive_whole(lane: Lane, tmp_path: Path) -> None:
    limits = "{long: true, observation_characters: 100000, action_characters: 100000}"
    if lane == "demonstration":
        limits = limits.replace("action_characters: 100000", "action_characters: 2000")
    room = ("policy.max_tokens=8192", "policy.context=131072")
    turn, closing = lived(tmp_path / "shards", lane, limits, *room)
    assert turn.obs_text == closing.obs_text == LONG[:100_000]
    assert turn.decision is not None and turn.signals[0].value == 1.0
    if lane == "demonstration":
        assert turn.decision.prompt_cut == 0
        assert ByteTokenizer().text(turn.decision.prompt_ids) == LONG[:100_000]
    else:
        assert turn.decision.text == LONG[:100_000].strip()
    out = tmp_path / "out"
    export(tmp_path / "shards", "jsonl", out)
    first = json.loads((out / "steps.jsonl").read_text().splitlines()[0])
    assert first["obs_text"] == LONG[:100_000]


def test_control_characters_and_lone_surrogates_become_escapes() -> None:
    world = Speaks()
    world.shown = "\x1b[31mred\x1b[0m \x00 \x85 \ud800 \tkept\r\n"
    seen, info = world.reset(seed=0)
    assert seen == info["state"] == r"\x1b[31mred\x1b[0m \x00 \x85 \ud800 " + "\tkept\r\n"
    assert world.observation_space.contains(seen)
    assert is_readable(TEXT) and readable(TEXT) == TEXT


def test_an_action_with_half_a_character_is_kept_and_told_as_an_escape(tmp_path: Path) -> None:
    turn, _ = lived(tmp_path, "random", "{half: true}")
    assert turn.decision is not None and turn.decision.text == r"a \ud800"
    assert turn.obs_text == r"a \ud800" and turn.ending == "terminated"


def test_an_action_beyond_the_worlds_limit_is_refused() -> None:
    world = Speaks(action_characters=5)
    world.reset(seed=0)
    seen, _, terminated, _, info = world.step("é" * 6)
    assert not terminated and "6 characters; an action has at most 5" in seen
    assert info["signals"] == {"invalid_action": (1.0, "é" * 6)}


def test_the_space_of_texts_takes_every_script_and_stock_tools_take_the_space() -> None:
    space = UnicodeText(len(TEXT), seed=3)
    assert TEXT in space and "" in space
    assert TEXT + "x" not in space and "\x1b" not in space and "\ud800" not in space
    assert 7 not in space
    assert unflatten(space, flatten(space, TEXT)) == TEXT
    assert space.sample() in space and pickle.loads(pickle.dumps(space)) == space
    assert space != UnicodeText(3)
    only = np.zeros(len(space.character_set), np.int8)
    only[ord("é")] = 1
    assert space.sample(mask=(3, only)) == "ééé"
    check_env(Speaks(), skip_render_check=True)


def test_a_vector_of_worlds_shows_texts_in_every_script() -> None:
    import gymnasium

    # with shared memory, Gymnasium 1.4 shows no text of its own space Text either
    worlds: Any = gymnasium.vector.AsyncVectorEnv([Speaks, Speaks], shared_memory=False)
    try:
        seen, _ = worlds.reset(seed=0)
        assert seen == (TEXT, TEXT)
    finally:
        worlds.close()
