"""What a world answers to `reset` and `step`, read strictly.

An answer of another form is a failure of that world (EnvironmentFailure, which says what was
expected), never a step. Accepted are also numpy's numbers and truth values, and arrays of one
number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experience.errors import EnvironmentFailure, RecordError
from experience.shards.storage.pictures import is_picture, png
from experience.signal import LateSignals, Signal, SignalKind, as_number, read_signals

_TEXTS = ("state", "subject", "task_id", "split", "agent_id")
"""Keys of `info` that a step keeps as text."""
KEPT = (*_TEXTS, "images", "tool_results")
"""Keys of `info` that a step keeps; signals apart, which the answer holds by themselves."""


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """What answered an action: everything in it can be kept in a step."""

    observation: str
    signals: tuple[Signal, ...]
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]
    late: tuple[LateSignals, ...] = ()
    tag: str = ""
    """A name of this step, by which its late signals may be reported."""


def reset_parts(world: str, answer: Any) -> tuple[Any, dict[str, Any]]:
    """(observation, info) of an answer to `reset`.

    Raises EnvironmentFailure for an answer of another form.
    """
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], dict):
        raise EnvironmentFailure(
            f"{world}: reset gave {_kinds(answer)}",
            "Gymnasium's reset gives (observation, info: dict)",
        )
    return answer


def step_parts(world: str, answer: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """(observation, reward, terminated, truncated, info) of an answer to `step`.

    Raises EnvironmentFailure for an answer of another form.
    """
    if not isinstance(answer, tuple) or len(answer) != 5 or not isinstance(answer[4], dict):
        raise EnvironmentFailure(
            f"{world}: step gave {_kinds(answer)}",
            "Gymnasium's step gives (observation, reward, terminated, truncated, info: dict)",
        )
    return answer


def read_reset(world: str, answer: Any) -> tuple[str, Mapping[str, Any]]:
    """(observation, info) of a world that speaks text.

    Raises EnvironmentFailure for values that a step cannot hold.
    """
    observation, info = reset_parts(world, answer)
    return _observation(world, observation), _info(world, info)


def read_step(world: str, answer: Any, catalogue: Mapping[str, SignalKind]) -> StepAnswer:
    """The answer of a world that speaks text. Without signals, the reward becomes `env_reward`.

    Raises EnvironmentFailure for values that a step cannot hold.
    """
    observation, reward, terminated, truncated, info = step_parts(world, answer)
    if "signals" in info:
        signals = _signals(world, info, catalogue)
    else:  # a plain Gymnasium environment: its reward is the one signal there is
        signals = (Signal("env_reward", _reward(world, reward), "1", "env_state"),)
    return StepAnswer(
        _observation(world, observation),
        signals,
        _flag(world, "terminated", terminated),
        _flag(world, "truncated", truncated),
        _info(world, info),
        read_late(world, info, catalogue),
        _text(world, "info['tag']", str(info.get("tag", ""))),
    )


def read_late(
    world: str, info: Mapping[str, Any], catalogue: Mapping[str, SignalKind]
) -> tuple[LateSignals, ...]:
    """The signals of earlier steps in `info["late"]`, {tag or number of the step: signals}.

    Raises EnvironmentFailure for anything else, and for signals that are not in the catalogue.
    """
    late = info.get("late", {})
    if not isinstance(late, Mapping) or not all(_names_a_step(of) for of in late):
        raise EnvironmentFailure(
            f"{world}: info['late'] is {_shown(late)}; late signals are "
            "{tag or number of the step: {signal: value}}",
            "name a step by the info['tag'] of its answer, or by its number since the reset",
        )
    return tuple(
        LateSignals(of, _signals(world, {"signals": signals}, catalogue))
        for of, signals in late.items()
    )


def _names_a_step(of: Any) -> bool:
    return isinstance(of, str | int) and not isinstance(of, bool)


def _signals(
    world: str, info: Mapping[str, Any], catalogue: Mapping[str, SignalKind]
) -> tuple[Signal, ...]:
    try:
        signals = read_signals(info, catalogue)
    except RecordError as error:
        what = str(error).removesuffix(error.hint).rstrip()
        raise EnvironmentFailure(f"{world}: {what}", error.hint) from error
    for signal in signals:
        _text(world, f"the evidence of signal {signal.name!r}", signal.evidence)
    return signals


def _reward(world: str, reward: Any) -> float:
    number = as_number(reward)
    if number is None or not math.isfinite(number):
        raise EnvironmentFailure(
            f"{world}: its reward is {_shown(reward)}; a reward is a finite number",
            "report what could not be measured as a signal that is None",
        )
    return number


def _flag(world: str, name: str, value: Any) -> bool:
    # By value, not by type: numpy.bool_ is no bool, and some worlds answer 0 and 1.
    number = as_number(value)
    if number not in (0.0, 1.0):
        raise EnvironmentFailure(
            f"{world}: {name} is {_shown(value)}; it is true or false",
            "Gymnasium's step gives (observation, reward, terminated, truncated, info: dict)",
        )
    return bool(number)


def _observation(world: str, observation: Any) -> str:
    if not isinstance(observation, str):
        raise EnvironmentFailure(
            f"{world}: its observation is {_shown(observation)}; agents read text",
            "give text, or let envs:Text-v0 show the world as text",
        )
    return _text(world, "its observation", str(observation))


def _info(world: str, info: dict[str, Any]) -> dict[str, Any]:
    """`info`, the texts that a step keeps of it as texts."""
    images = info.get("images", {})
    if isinstance(images, Mapping):
        images = {
            role: png(picture) if is_picture(picture) else picture
            for role, picture in images.items()
        }
    if not isinstance(images, Mapping) or not all(
        isinstance(data, bytes) for data in images.values()
    ):
        raise EnvironmentFailure(
            f"{world}: info['images'] is {_shown(images)}; images are bytes by name",
            "give {role: the bytes of a PNG}, or another name to what is no image",
        )
    if images:
        info = info | {"images": images}
    texts: dict[str, Any] = {
        name: _text(world, f"info[{name!r}]", str(info[name])) for name in _TEXTS if name in info
    }
    results = info.get("tool_results")
    if isinstance(results, list) and all(isinstance(result, str) for result in results):
        texts["tool_results"] = [_text(world, "info['tool_results']", r) for r in results]
    elif results is not None:  # a stranger's own
        info = {name: value for name, value in info.items() if name != "tool_results"}
    return info | texts


def _text(world: str, what: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EnvironmentFailure(
            f"{world}: {what} is no text that can be kept: {error.reason} at character "
            f"{error.start}",
            "decode bytes with errors='replace'",
        ) from error
    return text


def _kinds(answer: Any) -> str:
    if isinstance(answer, tuple):
        return f"{len(answer)} values ({', '.join(type(v).__name__ for v in answer)})"
    return f"one {type(answer).__name__}"


def _shown(value: Any) -> str:
    # Python refuses to write out a whole number of more than 4300 digits: repr would raise.
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1000:
        return f"a whole number of {value.bit_length()} bits"
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:77]}..."
