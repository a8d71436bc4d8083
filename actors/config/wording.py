"""The wording of bundled worlds by the engine of a run: plain for models that read chats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.engines.registry import CHAT_ENGINES

if TYPE_CHECKING:
    from actors.config.acting import World
    from actors.config.schema import Config

_BUNDLED = "envs:"
WORDING = "wording"
"""The argument of every bundled world. Other worlds get it only from their own `arguments`."""


def with_wording(config: Config) -> Config:
    """`config` with `wording: plain` for each bundled world that is told nothing else, if its
    engine's model reads chats.

    It stands among the world's arguments, so that all who make the world, and the store, know it.
    """
    if config.policy.engine not in CHAT_ENGINES:
        return config
    return config.model_copy(update={"worlds": [_plainly(world) for world in config.worlds]})


def _plainly(world: World) -> World:
    if not world.id.startswith(_BUNDLED) or WORDING in world.arguments:
        return world
    return world.model_copy(update={"arguments": {**world.arguments, WORDING: "plain"}})
