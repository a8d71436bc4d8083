"""One-file worlds: a typed method is an action, a Gymnasium space, an LLM's tool and an MCP tool.

    class Guess(ToolWorld[int]):
        signal_catalogue = {"hit": SignalKind("fraction", "env_state")}
        reward_weights = {"hit": 1.0}
        def draw(self, rng): return int(rng.integers(1, 100))
        def begin(self): self.hint = ""
        def observe(self): return f"a number from 1 to 99 {self.hint}"
        @action
        def guess(self, number: Annotated[int, Range(1, 99)]) -> Outcome:
            "Say a number."
            ...
            return {"hit": float(number == self.task)}, number == self.task
        def oracle_action(self): return f"guess {self.task}"

The agent writes `guess 42`, or the tool call `{"name": "guess", "arguments": {"number": 42}}`. A
method returns the measured signals and whether the task has ended. To refuse a call, it raises
ValueError and leaves the state as it was. Parameters are int, float, bool, str or Literal[...]; if
the last parameter is a str, it takes the rest of the line.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import gymnasium
import numpy as np

from envs.contract import INVALID, Outcome, Task, World
from envs.unicode_text import UnicodeText
from envs.wording import Refused, explained, miswritten, usage_in_words
from experience.signal import SignalKind

Answer = Outcome
"""The name of `Outcome` in worlds that were written before it was called so."""

Method = TypeVar("Method", bound=Callable[..., Any])
_JSON = {int: "integer", float: "number", bool: "boolean", str: "string"}
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_TRUTH = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(
    ("false", "0", "no", "off"), False
)


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included. Random actions take `low` plus a multiple of `step`."""

    low: float
    high: float
    step: float = 1.0


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool. If `choices` is not empty, no other values are accepted."""

    name: str
    type: type
    choices: tuple[Any, ...] = ()
    range: Range | None = None
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def schema(self) -> dict[str, Any]:
        """The parameter as JSON Schema."""
        found: dict[str, Any] = {"type": _JSON[self.type]}
        if self.choices:
            found["enum"] = list(self.choices)
        if self.range:
            found |= {"minimum": self.range.low, "maximum": self.range.high}
        return found if self.required else found | {"default": self.default}

    def read(self, given: Any) -> Any:
        """`given` (text or a JSON value) as a value of this parameter's type.

        Raises ValueError saying which values are accepted.
        """
        try:
            value = self._converted(given)
        except (KeyError, ValueError, TypeError, OverflowError):
            raise Refused(
                f"{self.name} is {_article(_JSON[self.type])}, not {str(given)[:20]!r}",
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
        value = self.type(given)
        if self.type is int and float(given) != value:  # int(1.5) is 1: not what was written
            raise ValueError
        return value

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


@dataclass(frozen=True)
class Tool:
    """An action that an agent can take, as declared by its method."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]

    def schema(self) -> dict[str, Any]:
        """The function-calling schema, in the form that language models are given."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": self.input_schema(),
            },
        }

    def input_schema(self) -> dict[str, Any]:
        """The arguments as JSON Schema, as MCP lists them."""
        return {
            "type": "object",
            "properties": {p.name: p.schema() for p in self.parameters},
            "required": [p.name for p in self.parameters if p.required],
            "additionalProperties": False,
        }

    def space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({p.name: p.space() for p in self.parameters})

    def usage(self) -> str:
        words = [p.name if p.required else f"[{p.name}]" for p in self.parameters]
        return " ".join([self.name, *words])

    def read(self, text: str) -> dict[str, Any]:
        """The arguments by name, read from the words after the tool's name. Raises ValueError."""
        if self.parameters and self.parameters[-1].type is str:
            words = text.split(None, len(self.parameters) - 1)  # the last one keeps its spaces
        else:
            words = text.split()
        names = [p.name for p in self.parameters]
        return self.read_arguments(dict(zip(names, words, strict=False)), len(words))

    def read_arguments(self, given: Mapping[str, Any], count: int | None = None) -> dict[str, Any]:
        """The arguments of a tool call, read and completed by defaults.

        `count` is the number of words that were written, if there may be more than `given`. Raises
        ValueError for an argument that is missing, unknown or cannot be read.
        """
        known = {p.name for p in self.parameters}
        missing = [p.name for p in self.parameters if p.required and p.name not in given]
        if missing or set(given) - known or (count or len(given)) > len(known):
            raise Refused(f"write: {self.usage()}", miswritten(self, missing, count or len(given)))
        return {
            p.name: p.read(given[p.name]) if p.name in given else p.default for p in self.parameters
        }

    def draw(self, rng: np.random.Generator, shown: Sequence[str] = ()) -> str:
        """A well-formed line at random; free texts are drawn from the words `shown`."""
        return " ".join([self.name, *(p.draw(rng, shown) for p in self.parameters)])


def action(method: Method) -> Method:
    """Marks a method as an action of agents. Its docstring and type hints describe the tool."""
    method.is_action = True  # type: ignore[attr-defined]
    return method


def tool_of(name: str, method: Callable[..., Any]) -> Tool:
    """The tool that a method declares.

    Raises TypeError for a parameter whose type an agent cannot write, and for a method without a
    docstring.
    """
    hints = get_type_hints(method, include_extras=True)
    parameters = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:  # without `self`
        hint = hints.get(parameter.name, str)
        bounds = None
        choices: tuple[Any, ...] = ()
        if get_origin(hint) is Annotated:
            hint, *extras = get_args(hint)
            bounds = next((e for e in extras if isinstance(e, Range)), None)
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            hint = type(choices[0])
        if hint not in _JSON:
            raise TypeError(
                f"{name}: parameter {parameter.name} is {hint}; "
                "use int, float, bool, str or Literal"
            )
        parameters.append(Parameter(parameter.name, hint, choices, bounds, parameter.default))
    if not method.__doc__:
        raise TypeError(f"{name}: an action needs a docstring; the agent reads it")
    return Tool(name, inspect.cleandoc(method.__doc__).splitlines()[0], tuple(parameters))


def tools_of(world: type) -> dict[str, Tool]:
    """The tools of a class of worlds, by name, in the order of their definition."""
    found = {}
    for parent in reversed(world.__mro__):
        for name, member in vars(parent).items():
            if getattr(member, "is_action", False):
                # A method of the same name in a subclass replaces this one.
                found[name] = tool_of(name, getattr(world, name))
    return found


class ToolWorld(World[Task], Generic[Task]):
    """A world whose actions are its methods marked with `@action`."""

    tools: ClassVar[dict[str, Tool]] = {}

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.signal_catalogue = {INVALID: SignalKind("count", "env_state")} | cls.signal_catalogue
        cls.reward_weights = {INVALID: -0.1} | cls.reward_weights
        cls.tools = tools_of(cls)
        if cls.tools and "instructions" not in vars(cls):
            cls.instructions = _listed(cls.tools)

    @property
    def tool_space(self) -> gymnasium.spaces.OneOf:
        """The space of actions as values: the index of a tool, and its arguments."""
        return gymnasium.spaces.OneOf([tool.space() for tool in self.tools.values()])

    def read(self, text: str) -> tuple[str, dict[str, Any]]:
        """(tool, arguments) of a line, or of a tool call in JSON.

        Raises ValueError saying what to write.
        """
        if text.startswith("{"):
            call = _tool_call(text)
            if call is None or call[0] not in self.tools:
                raise Refused(
                    'a tool call is {"name": ..., "arguments": {...}}: ' + ", ".join(self.tools),
                    'A tool call is written {"name": ..., "arguments": {...}}, with one of these '
                    f"names: {', '.join(self.tools)}.",
                )
            return call[0], self.tools[call[0]].read_arguments(call[1])
        name, _, rest = text.partition(" ")
        if name not in self.tools:
            raise Refused(
                f"no action {name[:20]}: {', '.join(self.tools)}",
                f"The first word must be one of: {', '.join(self.tools)}.",
            )
        return name, self.tools[name].read(rest)

    def ways(self) -> Mapping[str, str]:
        """Each tool as it is written, and what it does: in `forms` by its name, if it is there.

        Tools in `forms` come first, in the order in which they stand there.
        """
        ordered = [name for name in self.forms if name in self.tools]
        ordered += [name for name in self.tools if name not in self.forms]
        return {
            usage_in_words(self.tools[name]): explained(self.tools[name], self.forms.get(name, ""))
            for name in ordered
        }

    def own_instructions(self) -> str:
        return "" if self.instructions == _listed(self.tools) else self.instructions

    def act(self, action: str) -> Outcome:
        name, arguments = self.read(action)
        answer: Outcome = getattr(self, name)(**arguments)
        return answer

    def random_action(self, rng: np.random.Generator) -> str:
        tools = list(self.tools.values())
        drawn: Tool = tools[rng.integers(len(tools))]
        return drawn.draw(rng, _words(self.observe()))


def _listed(tools: Mapping[str, Tool]) -> str:
    """The instructions of a world that has these tools."""
    return "Reply with one line: " + "; ".join(
        f"`{t.usage()}` {t.description[0].lower()}{t.description[1:].rstrip('.')}"
        for t in tools.values()
    )


def _words(text: str) -> list[str]:
    """The different words of `text`, in order, without punctuation around them."""
    bare = (word.strip(".,:;!?()[]{}<>\"'") for word in text.split())
    return list(dict.fromkeys(word for word in bare if word))


def _tool_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """(name, arguments) of a tool call in JSON; None for any other text."""
    try:
        call = json.loads(text)
        name = call["name"]
        arguments = call.get("arguments", {})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if isinstance(name, str) and isinstance(arguments, dict):
        return name, arguments
    return None


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
