"""Skills of a run: found in its successes, tried again in the world, pushed, and retired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.agents.agent import prompt_context
from actors.engines.engine import Engine
from actors.making import make_world
from experience.episode import Episode
from experience.errors import ConfigError, RecordError
from experience.learning.advantages import of_decision
from experience.learning.batch import Turn
from experience.options.option import USE, Library, Program
from experience.planning.discovery import induce_skills, record_uses, retire
from experience.reward import RewardModel
from experience.shards.redaction.redact import Redactor
from experience.signal import SignalKind, read_signals
from experience.world import WorldView, tools_of


def library_from(path: str) -> Library:
    """Options written by hand.

    Raises ConfigError if the file cannot be read as a library, or holds a secret: prompts
    and checkpoints have copies of it."""
    try:
        data = Path(path).read_bytes()
        if Redactor.current().text(text := data.decode(errors="replace")) != text:
            raise ConfigError(
                f"planning.options.library={path}: it holds a secret",
                "take it out: prompts and checkpoints have copies of the options",
            )
        return Library.load(data)
    except (OSError, RecordError) as error:
        raise ConfigError(
            f"planning.options.library={path}: {error}",
            "give a JSON file such as configs/keydoor-subgoals.json",
        ) from error


class Skills:
    """The library of a run. Invariant: replayed in the real world, each skill earned its return
    again."""

    def __init__(
        self,
        rewards: RewardModel,
        catalogue: Mapping[str, SignalKind],
        arguments: Mapping[str, Mapping[str, Any]],
        most: int,
    ) -> None:
        self.library = Library()
        self._rewards = rewards
        self._catalogue = catalogue
        self._arguments = arguments
        self.most = most
        self._worlds: dict[str, Any] = {}
        self._recorded: set[bytes] = set()

    def resume(self, library: Library, recorded: set[bytes]) -> None:
        """Goes on with `library`, whose records know the uses in the episodes of that work."""
        self.library, self._recorded = library, recorded

    def curate(self, successes: Sequence[Episode], recent: Sequence[Episode]) -> bool:
        """Retires skills that do worse in `recent` than episodes without them, and looks for new
        ones in `successes` while there is room. The records count the uses since the last call.
        True if the set of skills changed."""
        newest = [e for e in recent if e.first.work_id not in self._recorded]
        self._recorded = {e.first.work_id for e in recent}
        self.library = before = record_uses(self.library, newest)
        self.library = retire(self.library, recent)
        room = self.most - len(self.library)
        if room > 0:
            self.library = induce_skills(successes, self._replay, self.library, most=room)
        return self.library is not before

    def turns(self, successes: Sequence[Episode], engine: Engine) -> list[Turn]:
        """Turns to imitate: `use NAME` wherever a success did what the skill does."""
        found = []
        for option in self.library:
            if not isinstance(option, Program):
                continue
            for episode in (e for e in successes if option.world in ("", e.first.env_id)):
                done = episode.acted
                for start in range(len(done) - len(option.actions) + 1):
                    seen, actions = (
                        done[start][0],
                        tuple(a for _, a in done[start : start + len(option.actions)]),
                    )
                    if actions != option.actions or not option.starts(seen):
                        continue
                    world = self._world(episode.first.env_id)
                    rules = prompt_context(WorldView.of(world), tools_of(world))
                    asked = replace(rules, observation=seen)
                    encoded = engine.encode(asked, USE + option.name)
                    if encoded is not None:
                        found.append(of_decision(encoded))
        return found

    def _replay(self, episode: Episode, actions: Sequence[str]) -> float:
        """The return of `actions` in the task of `episode`, in a world of its own; NaN if it ends
        before the last action."""
        first = episode.first
        world = self._world(first.env_id)
        world.reset(seed=first.seed, options={"split": first.split})
        total = 0.0
        for number, action in enumerate(actions):
            _, reward, terminated, truncated, info = world.step(action)
            if "signals" in info:
                known = self._rewards.reward(first.env_id, read_signals(info, self._catalogue))
                reward = float("nan") if known is None else known
            total += float(reward)
            if (terminated or truncated) and number + 1 < len(actions):
                return float("nan")
        return total

    def _world(self, env_id: str) -> Any:
        """A world of its own, for what is tried again."""
        if env_id not in self._worlds:
            self._worlds[env_id] = make_world(env_id, self._arguments.get(env_id, {})).unwrapped
        return self._worlds[env_id]

    def close(self) -> None:
        for world in self._worlds.values():
            world.close()
