"""The registry of engines: the names that a configuration may give, and what stands behind each.

A file `NAME_engine.py` in this folder is the engine `NAME`: the file's `KIND` says how it is made.
Names are read from the folder, and a file is imported when its engine is used, so that heavy
libraries are loaded only by the engine that needs them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experience.errors import ConfigError, MissingPartError

if TYPE_CHECKING:
    from actors.engines.engine import Engine
    from actors.engines.model import TrainedModel
    from actors.engines.settings import PolicySettings

OUTSIDE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""The name of an engine that is not in this folder: `my_package:MyEngine`."""

_FILES = "_engine.py"
CHAT_ENGINES = frozenset({"hugging_face", "openai", "vllm"})
"""Bundled engines whose models read sentences: bundled worlds speak plainly to them."""


@dataclass(frozen=True)
class EngineKind:
    """How an engine is made. Only the first of the three functions is needed."""

    make_engine: Callable[[PolicySettings, int, TrainedModel | None], Engine]
    """(settings, seed, model to sample from, None for a new one) -> the engine."""
    make_model: Callable[[PolicySettings, int], TrainedModel | None] | None = None
    """(settings, seed) -> the model that a learner may update; None if there is no such model."""
    check: Callable[[PolicySettings], None] | None = None
    """Raises EngineError, within seconds, if the engine could not answer."""
    is_pretrained: bool = False
    """Whether a new model is the same for every seed: each process may load its own."""


def names() -> list[str]:
    """The names of the bundled engines, in order of the alphabet. Imports none of them."""
    files = Path(__file__).parent.glob(f"*{_FILES}")
    return sorted(file.name.removesuffix(_FILES) for file in files)


def find(name: str) -> EngineKind:
    """What stands behind the name of an engine. Raises ConfigError if nothing does."""
    if name in names():
        kind: EngineKind = import_module(f"actors.engines.{name}_engine").KIND
        return kind
    if not OUTSIDE.fullmatch(name):
        raise ConfigError(
            f"policy.engine: {name!r} is not one of {', '.join(names())}",
            "an engine of your own is named my_package:MyEngine",
        )
    return _find_outside(name)


def make_engine(policy: PolicySettings, seed: int, trained: TrainedModel | None = None) -> Engine:
    """The engine that the configuration names. It samples from `trained`, which a learner may
    update meanwhile; without it, from a model of its own."""
    return find(policy.engine).make_engine(policy, seed, trained)


def make_model(policy: PolicySettings, seed: int) -> TrainedModel | None:
    """The model that a learner may update, before its first update; None if there is none."""
    make = find(policy.engine).make_model
    return None if make is None else make(policy, seed)


def is_pretrained(policy: PolicySettings) -> bool:
    """Whether all processes that make this engine have the same model, whatever the seed."""
    kind = find(policy.engine)
    return kind.make_model is None or kind.is_pretrained


def check_engine(policy: PolicySettings) -> None:
    """To be called before a run begins. Raises EngineError, within seconds, if the engine could
    not answer, such as a server that is down; ConfigError if there is no such engine."""
    check = find(policy.engine).check
    if check is not None:
        check(policy)


def _find_outside(name: str) -> EngineKind:
    """The engine of somebody else: an EngineKind, or a class that is made with (settings, seed)."""
    module, _, attribute = name.partition(":")
    found: Any = getattr(_imported(module, name), attribute, None)
    if isinstance(found, EngineKind):
        return found
    if not callable(found):
        raise ConfigError(
            f"policy.engine: {module} has no class {attribute!r}",
            "docs/add-an-engine.md shows a whole engine",
        )
    return EngineKind(lambda policy, seed, trained: found(policy, seed))


def _imported(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        # `import a.b` may fail because there is no `a`, or because `a.b` imports what is missing
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"policy.engine: {name}: no module {error.name!r} is found",
                "an engine of your own is a file in the folder that you call ./xp from, "
                "or an installed package",
            ) from error
        raise MissingPartError(
            f"policy.engine: {name} needs {error.name!r}, which is not installed",
            f"install it: pip install {error.name}",
        ) from error
    except Exception as error:
        raise ConfigError(
            f"policy.engine: {module} cannot be imported: {type(error).__name__}: {error}",
            f"python -c 'import {module}' shows where",
        ) from error
