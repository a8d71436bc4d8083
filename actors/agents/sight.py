"""Sight: a model that sees is shown a world's pictures; any other model is an error."""

from __future__ import annotations

from collections.abc import Iterable

from actors.engines.engine import Engine, Situation
from experience.errors import ConfigError


def shown(asked: Situation, engine: Engine) -> Situation:
    """`asked`, if its pictures can be shown. Raises ConfigError if the engine's model is blind."""
    if asked.images and not sees(engine):
        raise _blind(f"the world shows pictures ({', '.join(sorted(asked.images))})")
    return asked


def check_sight(engine: Engine, with_pictures: Iterable[str]) -> None:
    """Raises ConfigError if the model is blind and some worlds, named by their ids, say that they
    give pictures. Worlds that do not say so are met at their first picture, by `shown`."""
    named = list(with_pictures)
    if named and not sees(engine):
        raise _blind(f"{', '.join(named)}: shows pictures")


def sees(engine: Engine) -> bool:
    """Whether an engine shows its model the pictures of a situation."""
    return getattr(engine, "sees", False) is True


def _blind(what: str) -> ConfigError:
    return ConfigError(
        f"{what}, and the model of policy.engine is given text alone",
        "set agent.sight=ignore to keep the pictures in the store without showing them, make the "
        "world without them, or use a model that sees (docs/sight.md)",
    )
