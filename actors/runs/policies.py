"""The policy of a run, as one of its checkpoints has it."""

from __future__ import annotations

from actors.runs.directory import RunDirectory
from experience.errors import ConfigError
from experience.models.weights import PolicyBundle, Weights
from experience.options.option import Library


def run_of(policy: str) -> tuple[RunDirectory, int | None]:
    """The run that `RUN` or `RUN@VERSION` names, and the version; None is the newest."""
    name, at, version = policy.rpartition("@")
    if not at or not version.isdecimal() or len(version) > 9:
        return RunDirectory.find(policy), None
    return RunDirectory.find(name), int(version)


def saved_policy(run: RunDirectory, version: int | None) -> PolicyBundle:
    """The weights and options of a version; None is the newest.

    Raises ConfigError where the run has no such checkpoint; ShardError or WeightsError where its
    bytes are damaged.
    """
    saved = run.checkpoints.newest() if version is None else run.checkpoints.of_version(version)
    if saved is None:
        raise ConfigError(
            f"{run.name} has no checkpoint yet",
            "wait for its first one, or name another run; `engine` is the policy untrained",
        )
    number = (run.checkpoints.newest_version() or 0) if version is None else version
    options = saved.get("options.json", b"")
    if options and not len(Library.load(options)):
        options = b""
    return PolicyBundle(Weights.read(number, saved["policy.safetensors"]), options)
