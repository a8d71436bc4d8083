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
ValueError and leaves the state as it was. Parameters are int, float, bool, str, Literal[...], lists
and dicts, or one of these or None; if the last parameter is a str, it takes the rest of the line. A
method may be `async`. With `calls_a_turn = 3`, up to three calls are done in one turn, in order.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

import gymnasium
import numpy as np

from envs.contract import INVALID, Outcome, Task, World
from envs.parameter import Parameter, parameter_of
from envs.parameter import Range as Range
from envs.refused import Refused
from envs.wording import explained, miswritten, usage_in_words
from experience.signal import SignalKind
from experience.text.strict_json import dumps

Answer = Outcome
"""The name of `Outcome` in worlds that were written before it was called so."""

Method = TypeVar("Method", bound=Callable[..., Any])


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
        parameters.append(parameter_of(name, parameter.name, hint, parameter.default))
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
    calls_a_turn: int = 1
    """How many calls of one answer are done; those beyond are refused with words."""

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

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """The tools as language models are told of them.

        Empty in a world that reads actions in a way of its own: its instructions tell of that.
        """
        if type(self).read is not ToolWorld.read:
            return []
        return [tool.schema() for tool in self.tools.values()]

    def act(self, action: str) -> Outcome:
        self._results: list[str] = []
        calls = _several(action)
        return self._call(action) if calls is None else self._call_each(calls)

    def _call(self, action: str) -> Outcome:
        name, arguments = self.read(action)
        answer: Any = getattr(self, name)(**arguments)
        if inspect.isawaitable(answer):
            answer = _awaited(answer)
        found: Outcome = answer
        return found

    def _call_each(self, calls: Sequence[str]) -> Outcome:
        """The calls in order, until one ends the task. A refused call changes nothing, and the
        others are done. Raises ValueError if none was done."""
        signals: dict[str, Any] = {}
        refused: list[str] = []
        ended, done = False, 0
        for number, call in enumerate(calls, 1):
            if number > self.calls_a_turn:
                most = f"{self.calls_a_turn} call{'s' * (self.calls_a_turn > 1)} a turn"
                refused.append(f"call {number} was not done: {most}")
                self._results.append(dumps({"error": f"not done: {most}"}))
            elif not ended:
                try:
                    measured, ended = self._call(call)
                except ValueError as unreadable:
                    refused.append(f"call {number}: {unreadable}")
                    self._results.append(dumps({"error": str(unreadable)}))
                else:
                    done += 1
                    self._results.append(_result(measured))
                    signals = _together(signals, measured, self.signal_catalogue)
        if refused and not done:
            raise ValueError("; ".join(refused))
        if refused:
            self._note = "\n! " + "; ".join(refused)
            signals[INVALID] = (float(len(refused)), "; ".join(refused)[:80])
        return signals, ended

    def _info(self, signals: dict[str, Any]) -> dict[str, Any]:
        """Also what each of several calls gave; of a single one, that is what is seen next."""
        results, self._results = getattr(self, "_results", []), []
        info = super()._info(signals)
        return info | {"tool_results": results} if results else info

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


def _awaited(answer: Awaitable[Any]) -> Any:
    """The result of an async method; in a thread of its own if this one has an event loop, as the
    thread of a browser has."""

    async def result() -> Any:
        return await answer

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(result())
    with ThreadPoolExecutor(1) as one:
        return one.submit(asyncio.run, result()).result()


def _several(text: str) -> list[str] | None:
    """The calls of a list of tool calls in JSON, each as text; None for any other text."""
    if not text.startswith("["):
        return None
    try:
        calls = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [json.dumps(call) for call in calls] or None


def _result(measured: Mapping[str, Any]) -> str:
    """The numbers that one call measured, as JSON."""
    return dumps({n: v[0] if isinstance(v, tuple) else v for n, v in measured.items()})


def _together(
    before: dict[str, Any], measured: dict[str, Any], catalogue: Mapping[str, SignalKind]
) -> dict[str, Any]:
    """The signals of two calls of one turn: counts add up, of others the last one holds."""
    found = dict(before)
    for name, signal in measured.items():
        value, *evidence = signal if isinstance(signal, tuple) else (signal,)
        kind = catalogue.get(name)
        earlier = found.get(name)
        if earlier is not None and value is not None and kind and kind.unit == "count":
            value += earlier[0] if isinstance(earlier, tuple) else earlier
        found[name] = (value, *evidence) if evidence else value
    return found
