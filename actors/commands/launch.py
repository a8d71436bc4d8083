"""Starting and resuming runs: the live table, run.json, the report, and the exit status."""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors.config.schema import Config
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.command.output import emit, say
from experience.errors import ConfigError, IsolationError, XpError
from experience.shards.catalog import Catalog

_MOST_WHY = 2000
"""Characters of an error in run.json: a traceback may be longer than all else there."""
_MOST_COUNTING_SECONDS = 5.0


@dataclass(frozen=True)
class Attempt:
    """What is done in a run directory, once from its start or from where it was left.

    live: does it, and tells its progress on the way. end: is called where that ended well, with
    the seconds that it took. go_on: the command that goes on after an interruption. report: writes
    the report of an attempt that failed, too, and returns its path.
    """

    directory: RunDirectory
    live: Callable[[Callable[[Progress], None]], Progress]
    end: Callable[[Progress, float], None]
    go_on: str
    report: Callable[[Progress], Path] | None = None
    learns: bool = False


class Launch:
    """A block that starts one run. With `as_json`, its last record is a `result` or an `error`."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._about: dict[str, Any] = {}

    def __enter__(self) -> Launch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: Any
    ) -> None:
        if error is None or not self.as_json:
            return
        # Typer ends a command that was called wrongly by SystemExit: no run has begun then.
        if isinstance(error, SystemExit) and not self._about:
            return
        emit(_failed(error) | self._about)

    def start(
        self,
        config: Config,
        origins: dict[str, str],
        trusted: bool = False,
        trackers: Sequence[str] = (),
    ) -> None:
        """trackers: names of actors/trackers, to which the metrics go too."""
        from actors.commands.doctor import require
        from actors.trackers.tracker import check

        check(trackers, config.workers)
        say_where_key_goes(config)
        require(config, trusted)
        directory = RunDirectory.create(config, origins, sys.argv[1:])
        directory.hold()
        self._live(config, directory, trackers)

    def resume(self, name: str, trusted: bool = False, trackers: Sequence[str] = ()) -> None:
        from actors.commands.doctor import require
        from actors.config.changes import refuse
        from actors.reading.listing import seconds_of
        from actors.trackers.tracker import check

        directory = RunDirectory.find(name)
        if verb := directory.record.get("verb"):
            raise ConfigError(
                f"{directory.name} is no run that learns: ./xp {verb} made it",
                f"./xp {verb} goes on with it, called as before",
            )
        config = directory.config()
        check(trackers, config.workers)
        changed = directory.changes()
        for change in changed:
            say(f"config.yaml differs from what the run was made with: {change}")
        refuse(changed, str(directory.path / "config.yaml"))
        check_origin(config, directory, trusted)
        say_where_key_goes(config)
        require(config, trusted)
        directory.begin_again(
            seconds=seconds_of(directory), changed=[str(change) for change in changed]
        )
        self._live(config, directory, trackers)

    def _live(self, config: Config, directory: RunDirectory, trackers: Sequence[str]) -> None:
        """Runs `config`; writes run.json and report.html, prints a summary or JSON records."""
        from actors.reading.live import check_learned
        from actors.reading.report import write_report
        from actors.run import run
        from actors.running.events import Events
        from actors.trackers.tracker import tracked

        def live(report: Callable[[Progress], None]) -> Progress:
            events = Events()
            with tracked(trackers, config, directory.path, events):
                progress = run(config, directory, report, events)
            check_learned(config, progress)
            return progress

        self.attempt(
            Attempt(
                directory,
                live,
                lambda progress, seconds: self._end(directory, progress, seconds),
                f"./xp resume {directory.name}",
                lambda progress: write_report(directory, progress),
                config.policy.learns,
            )
        )

    def attempt(self, attempt: Attempt) -> None:
        """Makes one attempt with a live table on stderr; however it ends, run.json says so."""
        from actors.reading.live import LiveTable

        directory = attempt.directory
        self._about = {"run": directory.name}
        if self.as_json:
            emit(
                {
                    "kind": "progress",
                    "event": "launch",
                    "run": directory.name,
                    "dir": str(directory.path),
                    "phase": "starting",
                }
            )
        started = time.time()
        newest = Progress(directory.name, learns=attempt.learns)
        spent = float(directory.record.get("seconds") or 0.0)  # of earlier attempts

        def seen(progress: Progress) -> None:
            nonlocal newest
            newest = progress
            table.update(progress)

        try:
            with LiveTable(directory.name, self.as_json) as table:
                progress = attempt.live(seen)
        except BaseException as error:
            self._fail(attempt, newest, error, spent + time.time() - started)
            raise
        directory.write_record(
            status="succeeded",
            exit=0,
            seconds=spent + time.time() - started,
            version=progress.version,
            steps=progress.steps,
            episodes=progress.episodes,
            acked_steps=progress.acknowledged,
            dropped=progress.dropped,
            failures=dict(progress.failures),
            cut_short=progress.cut_short,
            restarts=progress.restarts,
        )
        attempt.end(progress, time.time() - started)

    def _fail(
        self, attempt: Attempt, newest: Progress, error: BaseException, seconds: float
    ) -> None:
        status = _status(error)
        directory = attempt.directory
        directory.write_record(
            status=status,
            exit=_exit_code(error),
            why=str(error)[:_MOST_WHY],
            seconds=seconds,
            version=newest.version,
            steps=newest.steps,
            episodes=newest.episodes,
            failures=dict(newest.failures),
            cut_short=newest.cut_short,
        )
        self._about |= {"version": newest.version, "steps": newest.steps}
        if attempt.report is not None:
            report = attempt.report(newest)
            self._about["report"] = str(report)
            say(f"report {report}")
        if status == "interrupted":
            newest_name = directory.checkpoints.newest_name
            saved = f" and {newest_name}" if newest_name else ""
            say(
                f"interrupted while {newest.phase}; {_kept(directory, newest)}{saved} are kept. "
                f"Go on with: {attempt.go_on}"
            )
            error.add_note("told")

    def _end(self, directory: RunDirectory, progress: Progress, seconds: float) -> None:
        from actors.reading.live import summary_line, warnings
        from actors.reading.report import write_report

        directory.write_record(held_out=_held_out_in_words(progress))
        report = write_report(directory, progress)
        for warning in warnings(progress):
            say(f"warning: {warning}")
        if not self.as_json:
            emit(summary_line(progress, report))
            return
        emit(_result(directory, progress, seconds, report))


def _kept(directory: RunDirectory, newest: Progress) -> str:
    """The rows that are kept, in words. A second signal may have ended the collectors before they
    said what they had acknowledged: then the store is read, for some seconds at most."""
    if newest.acknowledged:
        return f"{newest.acknowledged} rows"
    until = time.monotonic() + _MOST_COUNTING_SECONDS
    rows = 0
    for batch in Catalog(directory.shards).batches():
        rows += batch.num_rows
        if time.monotonic() > until:
            return f"at least {rows} rows"
    return f"{rows} rows"


def _failed(error: BaseException) -> dict[str, Any]:
    """The last JSON record of a run that did not succeed."""
    return {
        "kind": "error",
        "event": "done",
        "status": _status(error),
        "exit": _exit_code(error),
        "why": str(error)[:_MOST_WHY] or type(error).__name__,
        "hint": error.hint if isinstance(error, XpError) else "",
    }


def _held_out_in_words(progress: Progress) -> dict[str, dict[str, str]]:
    """Per world the held-out means of random, of each version, and the gain, for run.json."""
    words = {}
    for world, by_version in progress.returns.items():
        versions = {f"v{version}": str(mean) for version, mean in by_version.items()}
        gain = str(progress.gain.get(world, ""))
        words[world] = {"random": str(progress.random[world]), "gain": gain, **versions}
    return words


def _held_out_means(progress: Progress) -> dict[str, dict[str, Any]]:
    """The same as data."""
    means = {}
    for world, by_version in progress.returns.items():
        gain = progress.gain.get(world)
        means[world] = {
            "random": vars(progress.random[world]),
            "gain": None if gain is None else vars(gain),
            "versions": {str(version): vars(mean) for version, mean in by_version.items()},
        }
    return means


def _result(
    directory: RunDirectory, progress: Progress, seconds: float, report: Path
) -> dict[str, Any]:
    """The last JSON record of a run that succeeded."""
    from actors.reading.live import warnings

    return succeeded(directory, progress, seconds) | {
        "training_steps": progress.training_steps,
        "held_out": _held_out_means(progress),
        "warnings": warnings(progress),
        "report": str(report),
    }


def succeeded(directory: RunDirectory, progress: Progress, seconds: float) -> dict[str, Any]:
    """What the last JSON record of every attempt that succeeded holds."""
    return {
        "kind": "result",
        "event": "done",
        "status": "succeeded",
        "exit": 0,
        "run": directory.name,
        "version": progress.version,
        "episodes": progress.episodes,
        "steps": progress.steps,
        "acked_steps": progress.acknowledged,
        "seconds": round(seconds, 1),
        "failures": dict(progress.failures),
        "cut_short": progress.cut_short,
    }


def check_origin(config: Config, directory: RunDirectory, trusted: bool) -> None:
    """Raises IsolationError if a run directory from elsewhere names code or servers to be used."""
    from actors.making import package_of

    # The bundled package only: to import another is to run its code.
    strange = {f"envs:{name}" for name in package_of().STRANGERS}
    named = [
        w.id
        for w in config.worlds
        if not w.id.startswith("envs:") or w.id in strange or set(w.arguments) - {"wording"}
    ]
    named += [config.policy.base_url] if config.policy.engine in ("openai", "vllm") else []
    if config.policy.engine == "vllm":  # it may start a program of its own
        program = config.policy.arguments.get("server", "")
        named += [str(program), *map(str, config.policy.arguments.get("flags", []))]
        named = [name for name in named if name]
    named += [config.address] if config.workers and config.address else []
    named += (
        [config.policy.model]
        if config.policy.engine in ("hugging_face", "vllm") and config.policy.model
        else []
    )
    if named and not trusted and not directory.is_ours:
        raise IsolationError(
            f"{directory.path / 'config.yaml'} was not written by you on this machine, and names "
            f"{', '.join(named)}",
            "read it; then say that you trust it: --i-trust-this-code",
        )


def say_where_key_goes(config: Config) -> None:
    """Says, before anything is sent, which environment variable's value goes to which host, unless
    that is this one."""
    policy = config.policy
    if policy.engine != "openai" or not os.environ.get(policy.api_key_env):
        return
    host = urlsplit(policy.base_url).hostname or ""
    if not _is_loopback(host):
        say(
            f"the value of {policy.api_key_env} (policy.api_key_env) is sent to {host} "
            "(policy.base_url)"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _status(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


def _exit_code(error: BaseException) -> int:
    return {KeyboardInterrupt: 130, SystemExit: 143}.get(
        type(error), getattr(error, "exit_code", 1)
    )
