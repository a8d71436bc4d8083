"""`./xp gateway`: serves and records other people's agents until it is interrupted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from actors.commands.gather import prepared
from actors.config.schema import Config
from actors.gateway.app import make_app
from actors.gateway.recording import Recording
from actors.gateway.serving import Serving, on_port
from actors.gateway.tokens import Ticket
from actors.gathering.acting import Acting, acting, is_run, run_of
from actors.gathering.store import open_store
from actors.runs.directory import RunDirectory
from experience.command.output import emit, say
from experience.errors import ConfigError
from experience.text.strict_json import dumps

_LOOK_SECONDS = 5.0
"""Between two looks for a newer checkpoint."""


def serve(
    config: Config,
    origins: dict[str, str],
    policy: str,
    port: int,
    store: str,
    signals: Mapping[str, float],
    is_fixed: bool,
    as_json: bool,
    trusted: bool,
) -> None:
    """Answers programs until SIGINT or SIGTERM, and writes into the run directory `store`.

    is_fixed: the policy stays what it is now; else a run's newer checkpoints are taken as they
    come.
    """
    who = prepared(policy, config, trusted)
    if who.is_script:
        raise ConfigError(f"--policy {policy}: a script answers no program", "choose a model")
    directory = open_store(store or f"gateway-{config.name}", "gateway", config, origins)
    acts = who.at(config.policy.temperature)
    listening = on_port(port)
    with _interrupted() as interrupted:
        recording = Recording(acts, who.bundle, who.label, directory, signals)
        serving = None
        try:
            recording.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            serving = Serving(make_app(recording), listening)
            _tell(recording, directory, as_json)
            _wait(recording, interrupted, "" if is_fixed or not is_run(policy) else policy, who)
        finally:
            if serving is not None:
                serving.close()
            recording.close()
    if recording.failed is not None:
        directory.write_record(status="failed", why=str(recording.failed)[:500])
        raise recording.failed
    directory.write_record(status="finished", why="")
    say(f"{recording.rows} rows acknowledged, 0 lost · {directory.path}")


def signals_of(words: Sequence[str]) -> dict[str, float]:
    """`name` or `name=weight` each. Raises ConfigError for anything else."""
    found = {}
    for word in words:
        name, _, weight = word.partition("=")
        try:
            found[name] = float(weight or 1.0)
        except ValueError:
            found[name] = float("nan")
        if not name.isidentifier() or name == "reward" or not abs(found[name]) < 1e9:
            raise ConfigError(f"--signal {word}: no signal", "write NAME or NAME=WEIGHT")
    return found


def _tell(recording: Recording, directory: RunDirectory, as_json: bool) -> None:
    """Writes the addresses into a file that its owner alone may read, and says where it is: they
    hold tokens, and what is printed may end up in a log."""
    path = directory.path / "gateway.json"
    addresses = {
        "rollouts": f"{recording.url}/rollouts",
        "token": recording.signer.master,
        "first": recording.urls(Ticket.new()),
    }
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(dumps(addresses, indent=1))
    if as_json:
        emit({"kind": "gateway", "url": recording.url, "addresses": str(path)})
        return
    emit(f"answers at {recording.url}; its addresses, with their tokens, are in {path}")


def _wait(recording: Recording, interrupted: threading.Event, follows: str, who: Acting) -> None:
    """Until an interruption or a failure; takes newer checkpoints of the run `follows`."""
    newest = who.version
    while not interrupted.wait(_LOOK_SECONDS) and recording.failed is None:
        if not follows:
            continue
        run, pinned = run_of(follows)
        version = run.checkpoints.newest_version() if pinned is None else None
        if version is not None and version > newest:
            found = acting(follows, who.config)
            newest = found.version
            if found.bundle is not None:
                recording.load(found.bundle)
                say(f"policy version {newest} answers from now on")


@contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    event = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[Any, Any] = {n: signal.signal(n, lambda *_: event.set()) for n in numbers}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
