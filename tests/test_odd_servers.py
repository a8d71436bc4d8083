"""A model's server that answers oddly costs the episodes that it was asked about, and no others."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from actors.collecting.work import Work
from actors.config.schema import load
from experience.errors import EngineError
from experience.models.weights import PolicyBundle, Weights
from experience.shards.catalog import Catalog
from experience.step import Step
from tests.alone import Alone

WORLD = "tests.strange_world:Strange-v0"
GOOD = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "left"}}
    ],
}


class Server(BaseHTTPRequestHandler):
    """Answers a request with what `odd` gives for its number, or else well."""

    protocol_version = "HTTP/1.1"
    odd: Callable[[int], tuple[int, bytes] | None]
    count: Iterator[int]
    once: bool
    """Whether a request that is sent again is answered well: by chance, three might be odd."""
    odd_before: set[bytes]
    lock = threading.Lock()

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            number = next(self.count)
        odd = type(self).odd(number)
        if odd is not None and self.once:
            with self.lock:
                odd = None if asked in self.odd_before else odd
                self.odd_before.add(asked)
        status, body = odd or (200, json.dumps(GOOD).encode())
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        cut = body.startswith(b"CUT")
        self.send_header("Content-Length", str(len(body) + (50 if cut else 0)))
        self.end_headers()
        self.wfile.write(body)
        if cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(odd: Callable[[int], tuple[int, bytes] | None], once: bool = False) -> Iterator[str]:
    own = {"odd": staticmethod(odd), "count": iter(range(10**6))}
    handler = type("Odd", (Server,), own | {"once": once, "odd_before": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def collector(url: str, folder: Path, slots: int = 4) -> Alone:
    config = load(
        [],
        [
            f"worlds=[{{id: '{WORLD}', isolation: inside, groups: 1, demonstrations: 0}}]",
            "policy.engine=openai",
            f"policy.base_url={url}",
            "policy.model=m",
            "policy.learns=false",
            "policy.retries=0",
            "policy.timeout_seconds=20",
            f"collecting.slots={slots}",
            "collecting.group_size=2",
        ],
    )[0]
    return Alone(config, folder / "shards")


def lived(url: str, folder: Path, episodes: int, slots: int = 4) -> list[Step]:
    one = collector(url, folder, slots)
    works = [
        Work.named(f"{n}", env_id=WORLD, lane="evaluation", seed=2 * n, split="heldout", version=0)
        for n in range(episodes)
    ]
    one.order(works, PolicyBundle(Weights(0, b"", "")))
    deadline = time.monotonic() + 120
    try:
        while not one.is_done:
            assert time.monotonic() < deadline
            one.pump()
    finally:
        one.close()
    return [row for block in Catalog(folder / "shards").follow() for row in block]


ODD = {
    "a page": (200, b"<html>sign in</html>"),
    "a page as an error": (502, b"<html>Bad Gateway</html>"),
    "nothing": (200, b""),
    "null": (200, b"null"),
    "a list": (200, b"[]"),
    "no choices": (200, json.dumps(GOOD | {"choices": []}).encode()),
    "choices that are null": (200, json.dumps(GOOD | {"choices": None}).encode()),
    "a choice that is null": (200, json.dumps(GOOD | {"choices": [None]}).encode()),
    "no message": (200, json.dumps(GOOD | {"choices": [{"index": 0}]}).encode()),
    "an error that is no error": (200, b'{"error": {"message": "overloaded", "code": 529}}'),
    "half an answer": (200, b"CUT" + json.dumps(GOOD).encode()[:40]),
    "bad bytes": (200, b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
    "half a character": (
        200,
        json.dumps(GOOD).replace('"left"', '"\\ud800"').encode(),
    ),
    "400": (400, b'{"error": {"message": "context too long"}}'),
    "401": (401, b'{"error": {"message": "no key"}}'),
    "404": (404, b'{"error": {"message": "no such model"}}'),
    "413": (413, b"too large"),
    "429": (429, b'{"error": {"message": "slow down"}}'),
    "500": (500, b"Traceback (most recent call last)"),
    "503": (503, b""),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_answer_now_and_then_is_asked_for_again_and_ends_no_episode(
    what: str, tmp_path: Path
) -> None:
    with served(lambda number: ODD[what] if number % 5 == 2 else None, once=True) as url:
        rows = lived(url, tmp_path, 6)
    assert Counter(row.ending for row in rows if row.is_closing) == {"terminated": 6}


def test_requests_that_fail_for_good_end_their_own_episodes_as_engine_errors(
    tmp_path: Path,
) -> None:
    """The fourth request, and its two repetitions, whichever slot asks them."""
    with served(lambda number: ODD["400"] if number in (3, 4, 5) else None) as url:
        rows = lived(url, tmp_path, 6, slots=1)
    endings = Counter(row.ending for row in rows if row.is_closing)
    assert endings == {"terminated": 5, "engine_error": 1}
    (failed,) = [row for row in rows if row.is_closing and row.ending == "engine_error"]
    assert "context too long" in failed.info["error"] and failed.reward is None


def test_an_answer_that_takes_long_holds_up_nobody_else(tmp_path: Path) -> None:
    """The first request is answered when 40 others have been, which nobody would send who waits."""
    others, found = threading.Event(), []

    def slow(number: int) -> None:
        if number == 40:
            others.set()
        if number == 0:
            found.append(others.wait(20))

    with served(slow) as url:
        rows = lived(url, tmp_path, 30, slots=3)
    assert found == [True]
    assert Counter(row.ending for row in rows if row.is_closing) == {"terminated": 30}


def test_a_server_that_answers_nobody_any_more_ends_the_run_with_its_own_error(
    tmp_path: Path,
) -> None:
    with (
        served(lambda number: ODD["503"] if number > 5 else None) as url,
        pytest.raises(EngineError, match="503"),
    ):
        lived(url, tmp_path, 200, slots=2)
