"""A real gateway in this process, with a real store, for the tests of this folder."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.config.schema import load
from actors.gateway.app import make_app
from actors.gateway.recording import Recording
from actors.gateway.serving import Serving, on_port
from actors.gateway.tokens import Ticket
from actors.runs.directory import RunDirectory
from experience.shards.catalog import Catalog
from experience.step import Step

SMALL = ("policy.layers=1", "policy.width=16", "policy.heads=2", "policy.max_tokens=256")
TELLING = "policy.engine=tests.gateway.telling_engine:Telling"


class Served:
    """A gateway, and what a test needs of it."""

    def __init__(self, recording: Recording, directory: RunDirectory) -> None:
        self.recording = recording
        self.directory = directory

    def begin(self, **about: str) -> dict[str, Any]:
        """The addresses of a new rollout."""
        return self.recording.begin(self.recording.signer.master, about)

    def rollout(self) -> tuple[str, str]:
        """(URL of a new rollout up to /v1, its id)."""
        found = self.recording.urls(Ticket.new())
        return found["OPENAI_BASE_URL"], found["rollout"]

    def rows(self, rollout: str) -> list[Step]:
        return rows_of(self.directory.shards, rollout)


def rows_of(shards: Path, rollout: str) -> list[Step]:
    found = [s for steps in Catalog(shards).follow() for s in steps]
    return [step for step in found if step.stream_id.hex() == rollout]


@contextmanager
def gateway(path: Path, *overrides: str) -> Iterator[Served]:
    config, origins = load([], ["policy.context=4096", *SMALL, *overrides])
    if not (path / "run.json").exists():
        RunDirectory.create(config, origins, [], path)
    directory = RunDirectory(path)
    recording = Recording(config, None, "small", directory, {"env_reward": 1.0, "success": 2.0})
    listening = on_port(0)
    recording.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    serving = Serving(make_app(recording), listening)
    try:
        yield Served(recording, directory)
    finally:
        serving.close()
        recording.close()
    if recording.failed is not None:
        raise recording.failed


def post(url: str, body: Any, **headers: str) -> tuple[int, Any]:
    """(status, answer) of a request; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def ask(url: str, *said: tuple[str, str], **also: Any) -> str:
    """The text that a chat is answered with."""
    messages = [{"role": role, "content": content} for role, content in said]
    status, answer = post(f"{url}/chat/completions", {"model": "m", "messages": messages, **also})
    assert status == 200, answer
    return str(answer["choices"][0]["message"]["content"] or "")
