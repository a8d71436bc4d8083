"""The errors a user can meet. Each says what was found, where, and (in `hint`) what to do.

XpError
├── ConfigError           a key or value of a configuration (exit 2)
├── ShardError            bytes on disk are not what was written (exit 4)
│   └── FencedError       a newer incarnation of this writer exists
├── RecordError           a step breaks the record's rules and is refused before it is written
├── IsolationError        the machine offers less isolation than `sandbox.min_tier` asks (exit 5)
├── MissingPartError      an optional part (browser, model file, server) is not installed
├── EnvironmentFailure    the world broke: the episode ends as env_error, never as reward 0
├── EngineError           a language model could not answer
├── DivergedError         losses or gradients were not finite, again and again; the weights are as before them
└── WeightsError          a policy file is damaged or does not fit the model
"""

from collections.abc import Mapping
from typing import Any


class XpError(Exception):
    """Anything that xp refuses to do. `hint` is the next thing to try; `exit_code` ends the command."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message}\n  {hint}")
        self.hint = hint


class ConfigError(XpError):
    exit_code = 2


class ShardError(XpError):
    exit_code = 4


class FencedError(ShardError):
    pass


class RecordError(XpError):
    pass


class IsolationError(XpError):
    exit_code = 5


class MissingPartError(XpError):
    pass


class EnvironmentFailure(XpError):
    pass


class EngineError(XpError):
    pass


class DivergedError(XpError):
    """`batch` is what the last refused update would have learned from: arrays by name."""

    def __init__(self, message: str, batch: Mapping[str, Any], hint: str = "") -> None:
        super().__init__(message, hint)
        self.batch = batch


class WeightsError(XpError):
    exit_code = 4
