"""Keys of `info` that mean something to us, and that a stranger may use for things of its own.

A world that declares no signals knows nothing of us. Where it puts something else under one of our
keys, the key is its own: it is left out, and said once on the world's output, which goes to the
run's logs/worlds.log. A world that declares signals means what it says, and gets an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experience.world import WorldCard


class ReservedKeys:
    """Takes a stranger's own keys out of each answer of its world, and says each once."""

    def __init__(
        self, env_id: str, world: Any, card: WorldCard, say: Callable[[str], None]
    ) -> None:
        self._env_id = env_id
        self._splits = {"train", "heldout", *card.splits}
        self._is_stranger = not hasattr(world, "signal_catalogue")
        self._say = say
        self._said: set[str] = set()

    def without_own(self, answer: Any) -> Any:
        """The answer of `reset` or `step`. What is no such answer is given back as it is."""
        if not isinstance(answer, tuple) or not answer or not isinstance(answer[-1], dict):
            return answer
        own = {name: kind for name in answer[-1] if (kind := self._own(name, answer[-1][name]))}
        if not own:
            return answer
        for name in own.keys() - self._said:
            self._said.add(name)
            self._say(f"{self._env_id}: info[{name!r}] is {own[name]}; it is the world's own")
        kept = {name: value for name, value in answer[-1].items() if name not in own}
        return (*answer[:-1], kept)

    def _own(self, name: str, value: Any) -> str:
        """What a key's value is that has no meaning for us; empty if it has one."""
        if name == "split" and not (isinstance(value, str) and value in self._splits):
            return f"{str(value)[:40]!r}, and no split"
        is_ours = name in ("images", "signals", "late")
        if self._is_stranger and is_ours and not isinstance(value, Mapping):
            return f"one {type(value).__name__}, and no mapping"
        return ""
