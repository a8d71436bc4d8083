"""Pictures reach models that see, and no other model in silence."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.agents.context import LEFT_OUT, Context, History
from actors.agents.sight import check_sight
from actors.collecting.hosts.described import describe_worlds
from actors.config.schema import Config, load
from actors.engines.engine import Engine, Situation
from actors.engines.openai_engine import make_engine
from actors.engines.registry import check_engine
from actors.pool.pool import all_new
from envs.small.click import Click
from experience.errors import ConfigError, EngineError
from experience.policy import Decision
from experience.shards.catalog import Catalog
from experience.shards.storage.blobs import BlobReader
from tests.alone import SMALLEST_POLICY, Alone

ONE, OTHER = Click(), Click()
ONE.reset(seed=1), OTHER.reset(seed=2)
FIRST, SECOND = ONE.images(), OTHER.images()


class Seeing:
    """As much of an engine as a context asks for."""

    sees = True


def read(name: str, turns: int = 3, engine: Any = None) -> Situation:
    """What a policy with this history reads after so many turns, each with a picture."""
    context = Context(History.of(name, 1 << 30, 0))
    for turn in range(turns):
        asked = Situation(f"screen {turn}", images=FIRST if turn % 2 else SECOND)
        found = context.situation(asked, engine or Seeing())  # type: ignore[arg-type]
        context.acted(asked.observation, Decision(f"act {turn}", 0))
    return found


def test_the_pictures_of_earlier_turns_are_seen_again_where_the_history_keeps_them() -> None:
    first, second = FIRST["screen"], SECOND["screen"]
    assert first != second
    assert read("none").pictures == [(second,)]
    assert read("full").pictures == [(second,), (first,), (second,)]
    assert read("last(1)").pictures == [(first,), (second,)]
    newest = read("newest_screen")
    assert newest.pictures == [(), (), (second,)]
    assert newest.observations == [LEFT_OUT, LEFT_OUT, "screen 2"]


@contextmanager
def server(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat server that says yes, and keeps what it was asked; it refuses pictures with
    `status`."""
    asked: list[dict[str, Any]] = []
    answer = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(json.loads(body))
            self._say(status if b"image_url" in body else 200, answer)

        def _say(self, code: int, what: dict[str, Any]) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(what).encode())

        def log_message(self, *_: object) -> None: ...

    found = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}/v1", asked
    found.shutdown()


def policy(url: str, *words: str) -> Any:
    wanted = ["policy.engine=openai", f"policy.base_url={url}", "policy.model=m", *words]
    config, _ = load([], [*wanted, "policy.learns=false", "policy.retries=0"])
    return config.policy


def test_a_server_is_sent_the_pictures_of_each_turn_as_data_urls_before_its_text() -> None:
    with server() as (url, asked):
        engine = make_engine(policy(url, "policy.sees=true"), 0, None)
        engine.act([read("full", 2, engine)], 0.0)
    system, first, answer, second = asked[0]["messages"]
    assert (system["role"], answer["content"]) == ("system", "act 0")
    for message, text, picture in ((first, "screen 0", SECOND), (second, "screen 1", FIRST)):
        shown, said = message["content"]
        head, _, coded = shown["image_url"]["url"].partition(",")
        assert (head, shown["type"]) == ("data:image/png;base64", "image_url")
        assert base64.b64decode(coded) == picture["screen"]
        assert said == {"type": "text", "text": text}


def test_a_server_whose_model_is_blind_is_found_out_before_the_run() -> None:
    with server(400) as (url, _):
        check_engine(policy(url))
        with pytest.raises(EngineError, match="400"):
            check_engine(policy(url, "policy.sees=true"))


def config_of(*words: str, world: str = "envs:Click-v0") -> Config:
    config, _ = load(
        [],
        [
            f"worlds=[{{id: '{world}'}}]",
            *SMALLEST_POLICY,
            "policy.max_tokens=8",
            "planning.enabled=false",
            "collecting.slots=1",
            "collecting.group_size=2",
            *words,
        ],
    )
    return config


def test_a_picture_for_a_model_that_cannot_see_is_an_error_at_start() -> None:
    class Blind:
        """An engine that says nothing of sight, as one of strangers does not."""

    engine: Engine = Blind()  # type: ignore[assignment]
    found = describe_worlds(config_of()).with_pictures
    assert found == ["envs:Click-v0"]
    with pytest.raises(ConfigError, match=r"Click-v0: shows pictures[\s\S]*agent.sight=ignore"):
        check_sight(engine, found)
    assert describe_worlds(config_of(world="envs:KeyDoor-v0")).with_pictures == []
    check_sight(engine, [])
    check_sight(Seeing(), found)  # type: ignore[arg-type]


def test_a_world_that_did_not_say_that_it_gives_pictures_is_met_at_its_first_one(
    tmp_path: Path,
) -> None:
    one = Alone(config_of(), tmp_path)
    one.load(None, 1)
    with pytest.raises(ConfigError, match=r"pictures \(screen\)"):
        while not one.closed:
            one.pump()


def test_pictures_that_the_model_is_not_to_see_are_kept_all_the_same(tmp_path: Path) -> None:
    one = Alone(config_of("agent.sight=ignore"), tmp_path)
    one.load(None, 1)
    while one.closed < 2:
        one.pump()
    one.close()
    rows = all_new(Catalog(tmp_path))
    blobs = BlobReader(tmp_path)
    assert rows and all(len(row.obs_blobs) == 1 for row in rows)
    assert blobs.read(rows[0].obs_blobs[0].hash).startswith(b"\x89PNG")


def test_the_click_world_pays_for_a_click_on_its_target_and_its_text_does_not_say_where() -> None:
    world = Click()
    texts, states = set(), set()
    for seed in range(40):
        text, info = world.reset(seed=seed)
        texts.add(text)
        states.add(info["state"])
        x, y = world.target.x, world.target.y
        assert world.step(f"click {x} {y}")[1] == 1.0
        world.reset(seed=seed)
        missed = world.task[1]
        assert world.step(f"click {missed.x} {missed.y}")[1] == 0.0
    assert len(texts) <= 12 and len(states) == 40
    with pytest.raises(ValueError, match="1 to 5"):
        Click(6)


def test_a_figure_is_drawn_where_the_world_pays_for_it() -> None:
    from envs.small.click import COLOURS, picture

    world = Click(5)
    world.reset(seed=3)
    drawn = picture(world.task)
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    for figure in world.task:
        is_there = (drawn == COLOURS[figure.colour]).all(2)
        assert np.array_equal(is_there, figure.covers(x, y))
