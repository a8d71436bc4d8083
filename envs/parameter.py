"""The parameters of a tool: how each is declared, read, drawn at random and described."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gymnasium
import numpy as np

from envs.contract import World
from envs.refused import Refused
from envs.unicode_text import UnicodeText

JSON_NAMES = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    list: "array",
    dict: "object",
}
"""The types of parameters, and what JSON Schema calls them."""
_NOUNS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list in JSON",
    dict: "an object in JSON",
}
_TRUTH = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(
    ("false", "0", "no", "off"), False
)


Kind = type


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included. Random actions take `low` plus a multiple of `step`."""

    low: float
    high: float
    step: float = 1.0


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool. If `choices` is not empty, no other values are accepted.

    items: the type of a list's items, or of an object's values; None: any. optional: null is
    accepted, and is read as None.
    """

    name: str
    type: type
    choices: tuple[Any, ...] = ()
    range: Range | None = None
    default: Any = inspect.Parameter.empty
    items: Kind | None = None
    optional: bool = False

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def schema(self) -> dict[str, Any]:
        """The parameter as JSON Schema."""
        found: dict[str, Any] = {"type": JSON_NAMES[self.type]}
        if self.items:
            key = "items" if self.type is list else "additionalProperties"
            found[key] = {"type": JSON_NAMES[self.items]}
        if self.choices:
            found["enum"] = list(self.choices)
        if self.range:
            found |= {"minimum": self.range.low, "maximum": self.range.high}
        if self.required or self.default is None:
            return found
        return found | {"default": self.default}

    def read(self, given: Any) -> Any:
        """`given` (text or a JSON value) as a value of this parameter's type.

        Raises ValueError saying which values are accepted.
        """
        if self.optional and (given is None or str(given).lower() in ("null", "none")):
            return None
        try:
            value = self._converted(given)
        except (KeyError, ValueError, TypeError, OverflowError):
            raise Refused(
                f"{self.name} is {_article(JSON_NAMES[self.type])}, not {str(given)[:20]!r}",
                f"{self.placeholder} must be {self.in_words()}, not {str(given)[:20]!r}.",
            ) from None
        if self.choices and value not in self.choices:
            raise Refused(
                f"{self.name} is one of {', '.join(map(str, self.choices))}",
                f"{self.placeholder} must be {self.in_words()}, not {value}.",
            )
        if self.range and not self.range.low <= value <= self.range.high:  # NaN fails too
            raise Refused(
                f"{self.name} from {self.range.low:g} to {self.range.high:g}",
                f"{self.placeholder} must be {self.in_words()}, not {value:g}.",
            )
        return value

    @property
    def placeholder(self) -> str:
        """The parameter's name where plain words show how an action is written."""
        return self.name.upper().replace("_AND_", " ")

    def in_words(self) -> str:
        """The values that are accepted, as a noun with its article."""
        if self.choices:
            *most, last = map(str, self.choices)
            return f"{', '.join(most)} or {last}" if most else last
        noun = _NOUNS[self.type]
        if self.range is None:
            return noun
        return f"{noun} from {self.range.low:g} to {self.range.high:g}"

    def _converted(self, given: Any) -> Any:
        if self.type is bool:
            return _TRUTH[str(given).lower()]  # bool("false") would be True
        if self.type in (list, dict):
            return self._members(given)
        if isinstance(given, list | dict):
            raise ValueError
        value = self.type(given)
        if self.type is int and float(given) != value:  # int(1.5) is 1: not what was written
            raise ValueError
        return value

    def _members(self, given: Any) -> Any:
        """A list or an object, from JSON or as JSON text; a text with commas is a list too."""
        if isinstance(given, str):
            begins = given.strip()[:1]
            given = json.loads(given) if begins in ("[", "{") else given.split(",")
        members: Any = given
        kind: Any = self.type
        if not isinstance(members, kind):
            raise ValueError
        if self.items is None:
            return members
        member = Parameter(self.name, self.items)
        if isinstance(members, dict):
            return {str(key): member.read(value) for key, value in members.items()}
        return [member.read(v.strip() if isinstance(v, str) else v) for v in members]

    def draw(self, rng: np.random.Generator, shown: Sequence[str] = ()) -> str:
        """A value at random, as text.

        A free text is one of the words `shown`, which may happen to be right; without such words
        it is a word that means nothing.
        """
        if self.choices:
            return str(self.choices[rng.integers(len(self.choices))])
        if self.type in (int, float):
            bounds = self.range or Range(0, 9)
            steps = int((bounds.high - bounds.low) / bounds.step)
            return f"{bounds.low + bounds.step * int(rng.integers(steps + 1)):g}"
        if self.type is bool:
            return str(rng.choice(["true", "false"]))
        if self.type is list:
            member = Parameter(self.name, self.items or int)
            return ",".join(member.draw(rng, shown) for _ in range(int(rng.integers(1, 4))))
        if self.type is dict:
            return "{}"
        return str(rng.choice(list(shown) or ["a", "b", "x", "no"]))

    def space(self) -> gymnasium.Space[Any]:
        """The Gymnasium space of the values; a choice is its index in `choices`."""
        if self.choices or self.type is bool:
            return gymnasium.spaces.Discrete(len(self.choices) or 2)
        if self.type is int:
            bounds = self.range or Range(-(2**31), 2**31 - 1)
            return gymnasium.spaces.Discrete(
                int(bounds.high - bounds.low) + 1, start=int(bounds.low)
            )
        if self.type is float:
            bounds = self.range or Range(-np.inf, np.inf)
            return gymnasium.spaces.Box(bounds.low, bounds.high, (), np.float64)
        return UnicodeText(World.action_characters)


def parameter_of(tool: str, name: str, hint: Any, default: Any) -> Parameter:
    """The parameter that a type hint declares.

    Raises TypeError for a type that an agent cannot write.
    """
    bounds, optional = None, False
    choices: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        bounds = next((extra for extra in extras if isinstance(extra, Range)), None)
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        optional = len(kinds) < len(get_args(hint))
        hint = kinds[0] if len(kinds) == 1 else hint
    if get_origin(hint) is Annotated:  # Annotated[int, Range(…)] | None
        inner = parameter_of(tool, name, hint, default)
        return Parameter(name, inner.type, inner.choices, inner.range, default, None, optional)
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        hint = type(choices[0])
    items = None
    if get_origin(hint) in (list, dict):
        items = get_args(hint)[-1]
        hint = get_origin(hint)
        items = items if items in JSON_NAMES else None
    if hint not in JSON_NAMES:
        raise TypeError(
            f"{tool}: parameter {name} is {hint}; use int, float, bool, str, Literal, list, dict "
            "or one of these | None"
        )
    return Parameter(name, hint, choices, bounds, default, items, optional)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
