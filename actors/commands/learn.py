"""Learning from stores alone: one run directory, and what is said of it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from actors.commands.launch import Attempt, Launch, succeeded
from actors.config.schema import Config
from actors.engines.model import limit_threads
from actors.gathering.offline import Offline
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.command.output import emit
from experience.errors import ConfigError


def learn(launch: Launch, config: Config, origins: dict[str, str]) -> None:
    """Learns a policy from the stores of `experience`, in a new run directory.

    `./xp eval` tries its checkpoints, and `./xp resume` goes on by living in the worlds. Raises
    ConfigError before anything is written if there is nothing to learn from.
    """
    if not config.experience:
        raise ConfigError(
            "there is nothing to learn from: no `experience` is configured",
            "name runs or stores: experience=[{run: runs/latest}]",
        )
    if config.policy.engine == "table" or not config.policy.learns:
        raise ConfigError(
            "a policy of tokens is learned here", "set policy.engine=small and policy.learns=true"
        )
    directory = RunDirectory.create(config, origins, sys.argv[1:])
    directory.hold()
    directory.write_record(verb="learn")
    made: list[Offline] = []

    def live(report: Callable[[Progress], None]) -> Progress:
        limit_threads(config.learning.threads)
        offline = Offline(config, directory, report)
        made.append(offline)
        progress = offline.run()
        # Done: whoever resumes it now goes on by living.
        directory.write_record(verb="", learned_from=told(offline))
        return progress

    def end(progress: Progress, seconds: float) -> None:
        offline = made[-1]
        if launch.as_json:
            emit(succeeded(directory, progress, seconds) | {"learned_from": told(offline)})
            return
        learned = offline.learned_from
        emit(
            f"{directory.name} v{progress.version}: imitated {learned.imitated} turns, learned "
            f"from {learned.groups} groups ({learned.turns} turns, {learned.flat} groups flat) by "
            f"{config.learning.recipe} · ./xp eval {directory.name} · {directory.path}"
        )

    launch.attempt(
        Attempt(directory, live, end, "the same command, which begins anew", learns=True)
    )


def told(offline: Offline) -> dict[str, dict[str, int]]:
    """By run, what was drawn from it; and in all, what was imitated."""
    drawn = {name: dict(vars(drawn)) for name, drawn in offline.mixture.drawn.items()}
    return {**drawn, "all": dict(vars(offline.learned_from))}
