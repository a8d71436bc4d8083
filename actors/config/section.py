"""What every section of the configuration is made of, and the paths in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, ValidationInfo

from experience.errors import ConfigError

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def absolute(path: str | Path) -> Path:
    """`path` from the root, with `~` expanded, so that it survives a change of folder by a world.

    Raises ConfigError for a path that cannot be expanded.
    """
    try:
        return Path(path).expanduser().absolute()
    # No such user, or the current folder is gone.
    except (RuntimeError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", "give a path that begins with '/'") from error


def at_home(path: str | Path) -> Path:
    """`path` as it was given, for messages, but for a `~` at its beginning."""
    return absolute(path) if str(path).startswith("~") else Path(path)


def _absolute_or_address(path: str) -> str:
    try:
        return path if not path or ADDRESS.match(path) else str(absolute(path))
    except ConfigError as error:
        raise ValueError(str(error)) from error


def model_here(model: str, info: ValidationInfo) -> str:
    """A model's folder or file as a place on this machine; a name stays a name."""
    is_path = info.data.get("engine") in ("hugging_face", "vllm", "small") and (
        model.startswith("~") or (model and Path(model).exists())
    )
    return _absolute_or_address(model) if is_path else model


PathText = Annotated[str, AfterValidator(_absolute_or_address)]


def _resolved(path: str) -> str:
    return path if not path or ADDRESS.match(path) else str(Path(path).resolve())


ResolvedText = Annotated[PathText, AfterValidator(_resolved)]
"""A path whose links are followed now: `runs/latest` is another run once this one has begun."""


SEEDS = 2**31
"""Seeds are below this: what NumPy, PyTorch, Gymnasium and the worlds behind them all take."""


class Section(BaseModel):
    # `validate_default`: a default that its own range forbids would fail only where it is used.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )
    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    def place(self, name: str) -> str:
        """Which file:line or override set the key; for messages."""
        return self._places.get(name, "the default")
