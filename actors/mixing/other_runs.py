"""Other runs that a configuration names under `experience`, opened and checked before the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from actors.agents.agent import planned
from actors.config.schema import Config, ExperienceSource
from actors.engines.engine import Engine, Situation
from actors.runs.directory import RunDirectory
from experience.command.output import say
from experience.episode import Episode
from experience.errors import ConfigError, ShardError
from experience.replay.mixture import Mixture, OtherRun
from experience.reward import RewardModel
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.storage.locate import find_store
from experience.step import Step

IMITATED_TURNS = 2000
"""Turns of other runs that are imitated at most, the newest."""
_OF_TOKENS = ("engine", "model")
"""Keys of `policy` that decide what a token means."""


def open_mixture(
    config: Config, rewards: RewardModel | None, *, beside_own: bool = False
) -> Mixture:
    """The stores that `experience` names. Says what each may be used for.

    beside_own: whether the run lives groups of its own, which need a share, too.

    Raises ConfigError for a run that is not there, is named twice, or has other tokens or a longer
    context than the policy.
    """
    shares = sum(source.share for source in config.experience)
    if beside_own and shares >= 1:
        raise ConfigError(
            f"experience: the shares are {shares:g} in all, and nothing is left for what is lived",
            "give less than 1 in all; ./xp learn learns from stores alone",
        )
    runs = [_open(source, config, rewards) for source in config.experience]
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"experience: {name} is named twice", "give it one larger share")
    return Mixture(runs, config.seed)


def _open(source: ExperienceSource, config: Config, rewards: RewardModel | None) -> OtherRun:
    where = f"{source.place('run')}: experience.run: {source.run}"
    try:
        store = find_store(source.run)
    except ShardError as error:
        raise ConfigError(f"{where}: {error}", error.hint) from error
    index = EpisodeIndex.open(store, rewards)
    name = store.parent.name if store.name in ("shards", "imagined") else store.name
    if not len(index):
        raise ConfigError(f"{where} holds no episode", "name a run that has lived something")
    why_not = _why_not_exact(store.parent, config, where)
    run = OtherRun(name, source.share, index, not why_not)
    if run.groups:
        say(f"{name}: {len(index)} episodes, {len(run.groups)} groups with exact tokens")
    else:
        why = why_not or "no group of it has two episodes with exact samples and known returns"
        say(f"{name}: {len(index)} episodes, usable for imitation only: {why}")
    return run


def _why_not_exact(run: Path, config: Config, where: str) -> str:
    """Why the tokens of a store say nothing to our policy; empty if they do.

    Raises ConfigError for a run whose tokens are other ones, or whose context is longer.
    """
    if not (run / "config.yaml").exists():
        return "it is no run of ours, so that nobody knows what its tokens mean"
    theirs, ours = RunDirectory(run).config().policy, config.policy
    for key in _OF_TOKENS:
        if getattr(theirs, key) != getattr(ours, key):
            raise ConfigError(
                f"{where}: its tokens are those of policy.{key}={getattr(theirs, key)!r}, "
                f"not of {getattr(ours, key)!r}",
                "learn with that policy; or export its rows and import them: texts can be imitated",
            )
    if theirs.context > ours.context:
        raise ConfigError(
            f"{where}: its prompts have up to {theirs.context} tokens, and policy.context is "
            f"{ours.context}",
            f"set policy.context={theirs.context}",
        )
    return ""


def to_imitate(runs: Sequence[OtherRun], most_turns: int, engine: Engine | None) -> Iterator[Step]:
    """Rows that may be imitated, each run its share of `most_turns`, with tokens of our policy."""
    total = sum(run.share for run in runs)
    for run in runs:
        for episode in run.to_imitate(int(most_turns * run.share / total)):
            yield from with_tokens(episode, engine, bool(run.groups))


def with_tokens(episode: Episode, engine: Engine | None, are_ours: bool) -> Iterator[Step]:
    """The acted rows; their text is written in our tokens where theirs are not known."""
    for step in episode.steps:
        if step.decision is None:
            continue
        if are_ours and step.decision.token_exact:
            yield step
        elif engine is not None:
            asked = Situation(step.obs_text)
            yield replace(step, decision=planned(engine, asked, step.decision.text, 0))
