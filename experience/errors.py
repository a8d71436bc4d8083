"""The errors that a user can meet. Each says what was found, where, and in `hint` what to do.

XpError
├── ConfigError           a key or value of a configuration (exit 2)
├── ShardError            bytes on disk are not what was written (exit 4)
│   └── FencedError       a newer incarnation of this writer exists
├── RecordError           a step breaks the record's rules and is refused before it is written
├── IsolationError        the machine isolates less than `sandbox.min_tier` asks for (exit 5)
├── MissingPartError      an optional part (browser, model file, server) is not installed
├── EnvironmentFailure    the world broke: the episode ends as env_error, without a reward
├── EngineError           a language model could not answer
├── DivergedError         several updates in a row were not finite; the weights are as before
└── WeightsError          a policy file is damaged or does not fit the model
"""

from collections.abc import Mapping
from typing import Any


class XpError(Exception):
    """The root of the tree. `hint` is the next thing to try; the command exits with `exit_code`."""

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
    """`batch` holds the data of the last refused update: arrays by name."""

    def __init__(self, message: str, batch: Mapping[str, Any], hint: str = "") -> None:
        super().__init__(message, hint)
        self.batch = batch


class WeightsError(XpError):
    exit_code = 4
