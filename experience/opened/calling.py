"""`xp.run`, `xp.collect` and `xp.evaluate`: the command, called from a script or a notebook.

The library does not import the actors, who stand above it. It starts their command as a process of
its own and reads the records that `--json` documents. So a run in a notebook is a run like any
other: it survives the notebook's mistakes, and the notebook survives those of the run.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from experience.command.house import command, environment
from experience.errors import ConfigError, IsolationError, ShardError, XpError
from experience.opened.opening import open
from experience.opened.run import Run
from experience.text.strict_json import dumps

Setting = str | Path | Mapping[str, Any]
"""A YAML file, an override such as "workers=4", or settings: {"budget": {"updates": 3}}."""
Record = Mapping[str, Any]
Show = Callable[[Record], None]
_ERRORS: dict[int, type[XpError]] = {2: ConfigError, 4: ShardError, 5: IsolationError}
"""By the exit codes of experience/command/ending.py."""
_SECONDS_TO_SEAL = 120.0
"""How long an interrupted command may take to seal its journals."""


def run(
    *settings: Setting,
    log: Sequence[str] = (),
    show: Show | None = None,
    trusted: bool = False,
) -> Run:
    """Lives and learns as the settings say, and opens the run: `./xp run`.

    settings: later ones win. log: where the metrics go too, e.g. ["tensorboard"]. show: is given
    each progress record (docs/python-api.md) while the run
    goes on; lines of progress go to stderr in any case. trusted: as `--i-trust-this-code`.

    Raises ConfigError, IsolationError, ShardError or XpError with the reason if the command ends
    with an error. An interruption (Ctrl-C) seals the run, which `./xp resume` goes on with.
    """
    logs = [word for name in log for word in ("--log", name)]
    words = ["run", "--json", *logs, *_trust(trusted), "--", *_words(settings)]
    return open(_call(words, show)["dir"])


def collect(
    *settings: Setting,
    policy: str = "engine",
    episodes: int = 100,
    to: str | Path = "",
    show: Show | None = None,
    trusted: bool = False,
) -> Run:
    """Has `episodes` more episodes lived without learning, and opens the store: `./xp collect`.

    policy: random, expert, engine, RUN, RUN@VERSION or a file of weights. to: the store, by name or
    path. Errors: see `run`.
    """
    options = ["--policy", policy, "--episodes", str(episodes), *(["--to", str(to)] if to else [])]
    words = ["collect", "--json", *options, *_trust(trusted), "--", *_words(settings)]
    return open(_call(words, show)["dir"])


def evaluate(
    policy: str,
    *settings: Setting,
    split: str = "heldout",
    episodes: int | None = None,
    k: tuple[int, ...] = (),
    attempts: int | None = None,
    success_at: float | None = None,
    to: str | Path = "",
    show: Show | None = None,
    trusted: bool = False,
) -> Record:
    """How well a policy does on tasks that no training draws: `./xp eval`.

    Without settings, a run is evaluated in its own worlds. Returns the record of the evaluation:
    under `worlds`, for each world its mean `return`, `success` and `pass_at` with 95 % intervals
    over tasks, null where nothing is known; under `dir`, the store of its episodes. Errors: see
    `run`.
    """
    given = {
        "--split": split,
        "--episodes": episodes,
        "--k": ",".join(map(str, k)) or None,
        "--attempts": attempts,
        "--success-at": success_at,
        "--to": to or None,
    }
    options = [w for name, of in given.items() if of is not None for w in (name, str(of))]
    words = ["eval", "--json", *options, *_trust(trusted), "--", policy, *_words(settings)]
    result = _call(words, show)
    return {**result["evaluation"], "dir": result["dir"]}


def _trust(trusted: bool) -> list[str]:
    return ["--i-trust-this-code"] if trusted else []


def _words(settings: tuple[Setting, ...]) -> list[str]:
    """The settings as words of the command: files, and overrides whose values are JSON."""
    words: list[str] = []
    for setting in settings:
        if isinstance(setting, Mapping):
            words += [f"{key}={dumps(value, default=str)}" for key, value in _flat(setting)]
        else:
            words.append(str(setting))
    return words


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _call(words: list[str], show: Show | None) -> dict[str, Any]:
    """The record `result` of the command, with the directory that it told before.

    The deadline of the command is its own: `budget` of its configuration.
    """
    process = subprocess.Popen(
        [*command(), *words],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # an interruption reaches it once, by us
    )
    assert process.stdout is not None and process.stderr is not None
    said: deque[str] = deque(maxlen=20)
    talk = threading.Thread(target=_pass_on, args=(process.stderr, said), daemon=True)
    talk.start()
    found: dict[str, Any] = {}
    try:
        for record in _records(process.stdout):
            if record.get("kind") == "progress" and show is not None:
                show(record)
            found |= record
        code = process.wait(_SECONDS_TO_SEAL)
    except BaseException:
        _end(process)
        raise
    talk.join(_SECONDS_TO_SEAL)
    if code or found.get("kind") != "result":
        why = found.get("why") or "".join(said).strip() or f"exit code {code}"
        raise _ERRORS.get(code, XpError)(why.removeprefix("error: "))
    return found


def _records(lines: IO[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def _pass_on(lines: IO[str], said: deque[str]) -> None:
    for line in lines:
        said.append(line)
        print(line, end="", file=sys.stderr, flush=True)


def _end(process: subprocess.Popen[str]) -> None:
    """Lets the command seal what it has; kills it where that takes too long."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_SECONDS_TO_SEAL)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
