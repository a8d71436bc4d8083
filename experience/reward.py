"""Rewards: versioned functions of signals, computed when steps are read."""

from __future__ import annotations

import ast
import builtins
import dis
import hashlib
import inspect
import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any

from experience.errors import ConfigError, RecordError
from experience.signal import Signal, as_number
from experience.text.near import did_you_mean
from experience.text.strict_json import dumps

if TYPE_CHECKING:
    from experience.step import Step

Values = Mapping[str, float | None]
Context = Mapping[str, Any]
RewardCode = Callable[[Values, Mapping[str, float], Context], float | None]
"""`reward_function(signals, weights, context)` of a world; see `RewardFunction`."""


def weighted_sum(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """Σ_k w_k φ_k over the signals that a step reported; None if a weighted signal is unknown.

    A signal that the step did not report adds nothing. A signal that it reported as None makes the
    sum unknown.
    """
    total = 0.0
    for name, weight in weights.items():
        if name in values:
            value = values[name]
            if value is None:
                return None
            total += weight * value
    return total


def check_weights(where: str, weights: Mapping[str, float], known: Collection[str]) -> None:
    """Raises ConfigError unless every weight is a finite number, and its signal is `known`.

    No step reports a misspelt signal: its weight would silently add nothing.
    """
    for name, weight in weights.items():
        if name not in known:
            there_are = f"there are: {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(
                f"{where}: no signal is called {name!r}",
                f"{did_you_mean(name, known, 0.5)} {there_are}".lstrip(),
            )
        if not math.isfinite(weight):
            raise ConfigError(
                f"{where}: the weight of {name!r} is {weight}", "a weight is a finite number"
            )


def context_of(turn: int, ending: str, task_id: str) -> dict[str, Any]:
    """What a reward function is told of a step beside its signals: the turn of the episode, from
    0; how the episode ended with it, "none" if it goes on; the task."""
    return {"turn": turn, "ending": ending, "task_id": task_id}


def context_of_step(step: Step) -> dict[str, Any]:
    return context_of(step.step_in_episode, step.ending, step.task_id)


@dataclass(frozen=True)
class RewardFunction:
    """A reward that is code of a world: a pure function of signals, weights and context.

    source: the function's source, without comments and layout; it is part of the version.
    """

    source: str
    code: RewardCode

    @classmethod
    def of(cls, world: type) -> RewardFunction | None:
        """The static method `reward_function(signals, weights, context)` of a class of worlds; None
        if there is none, or something else of that name.

        Raises ConfigError if the function is no function of its arguments and the module `math`
        alone: what else it read could change while its version stayed the same.
        """
        return _function_of(world)

    def __call__(self, values: Values, weights: Mapping[str, float], context: Context) -> Any:
        return self.code(values, weights, context)


NAME = "reward_function"
_IMPURE = frozenset({"open", "input", "print", "eval", "exec", "__import__", "globals", "vars"})


@lru_cache(256)
def _function_of(world: type) -> RewardFunction | None:
    static = inspect.getattr_static(world, NAME, None)
    if not isinstance(static, staticmethod):
        return None
    code: Any = static.__func__
    where = f"{world.__module__}.{world.__name__}.{NAME}"
    if list(inspect.signature(code).parameters) != ["signals", "weights", "context"]:
        raise ConfigError(
            f"{where} takes {inspect.signature(code)}",
            f"write: @staticmethod, def {NAME}(signals, weights, context)",
        )
    for name in _read_from_outside(code.__code__):
        if (name != "math" and not hasattr(builtins, name)) or name in _IMPURE:
            raise ConfigError(
                f"{where} reads {name!r}, which is none of its arguments",
                "it may use signals, weights, context, math and what it defines itself: "
                "a number of yours belongs into `reward_weights`",
            )
    try:
        text = inspect.getsource(code)
    except OSError as error:
        raise ConfigError(
            f"{where}: its source is not found", "define it in a file, not in a shell"
        ) from error
    return RewardFunction(ast.unparse(ast.parse(textwrap.dedent(text))), code)


def _read_from_outside(code: CodeType) -> Iterator[str]:
    """The names that a function, or one within it, reads from its module, imports or encloses."""
    yield from code.co_freevars if code.co_name == NAME else ()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "IMPORT_NAME"):
            yield str(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _read_from_outside(inner)


@dataclass(frozen=True)
class RewardModel:
    """r = Σ_k w_k φ_k with one row of weights for each environment id, or f_w(φ, context) where
    `functions` has the environment's own function.

    `version` names exactly these weights and functions. The reward of an environment without a row
    is unknown. An empty row gives a reward of 0.
    """

    weights: Mapping[str, Mapping[str, float]]
    functions: Mapping[str, RewardFunction] = field(default_factory=dict)

    @cached_property
    def version(self) -> str:
        if self.functions:
            return "code-" + hashlib.sha256(self.description.encode()).hexdigest()[:12]
        # Sorted: the same weights in another order are the same reward, under the same name.
        canonical = dumps({k: dict(sorted(v.items())) for k, v in sorted(self.weights.items())})
        return "linear-" + hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def noun(self) -> str:
        return "reward_function's" if self.functions else "weighted sum"

    @cached_property
    def description(self) -> str:
        """Weights and sources as JSON: what the version stands for."""
        return dumps(
            {
                "weights": {k: dict(sorted(v.items())) for k, v in sorted(self.weights.items())},
                "functions": {k: f.source for k, f in sorted(self.functions.items())},
            }
        )

    def check(self, known: Collection[str]) -> None:
        """Raises ConfigError if a weight is not finite, or its signal is not `known`."""
        for env_id, row in self.weights.items():
            check_weights(f"rewards of {env_id}", row, known)

    def reward(
        self, env_id: str, signals: Iterable[Signal], context: Context | None = None
    ) -> float | None:
        """The reward of a step in `env_id` that reported `signals`; None is unknown.

        context: see `context_of`; empty if it is not known, as of an imagined step.
        """
        return self.of_values(env_id, {s.name: s.value for s in signals}, context)

    def of_values(
        self, env_id: str, values: Values, context: Context | None = None
    ) -> float | None:
        """The reward of values by signal name, as a world model predicts them.

        Raises RecordError if the environment's function raises, or gives no number and not None.
        """
        row = self.weights.get(env_id)
        if row is None:
            return None
        function = self.functions.get(env_id)
        if function is None:
            return weighted_sum(values, row)
        return computed(env_id, function, values, row, context or {})


def computed(
    world: str,
    function: RewardFunction,
    values: Values,
    weights: Mapping[str, float],
    context: Context,
) -> float | None:
    """What `function` gives. Raises RecordError if it raises, or gives no number and not None."""
    try:
        found = function(dict(values), dict(weights), dict(context))
    except Exception as error:  # a world's code may raise anything
        raise RecordError(
            f"{world}: its {NAME} raised {type(error).__name__}: {error}, for the signals "
            f"{dict(values)} and the context {dict(context)}",
            "an unknown signal is None, and an imagined step has no context: use .get",
        ) from error
    number = as_number(found)
    if found is not None and number is None:
        raise RecordError(
            f"{world}: its {NAME} gave {found!r:.80}", "give a number, or None if it is unknown"
        )
    return number
