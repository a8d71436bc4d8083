"""The forms in which models write calls of tools, each turned into names and arguments.

What is told apart here is the form alone: whether there is such a tool is asked elsewhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from actors.engines.calls.lenient import read_json, unwrapped

Found = tuple[str, Any]
"""A name and arguments: a mapping, a list of values in the order of the parameters, or None where
they could not be read."""

MARKS = re.compile(
    r"<\|?/?(?:minimax:|steptml:|antml:)?(?:tool_?calls?|tools|function_?calls?|invoke|tool_use|"
    r"tool_call_start|tool_calls_section_begin|tool_call_begin|action_start)\b[^<>]*\|?>"
    r"|<function=|<function name=|\[TOOL_CALLS?\]|<\|python_tag\|>|functools\[|<\|plugin\|>"
    r"|<\|START_ACTION\|>|<\uff5ctool\u2581call|\bto=functions\.|\[TOOL_REQUEST\]",
    re.IGNORECASE,
)
"""What begins a call and nothing else."""

_NAME = r"[A-Za-z_][\w.\-]*"
_BEFORE_JSON = (
    # Harmony; Mistral from v11; DeepSeek V3.1; Kimi; Functionary; ReAct; Gemma
    rf"to=functions\.({_NAME})[^{{]*?<\|message\|>",
    rf"({_NAME})(?:\[CALL_ID\]\w+)?\[ARGS\]\s*",
    rf"\[TOOL_CALLS\]\s*({_NAME})\s*(?=\{{)",
    rf"function<\uff5ctool\u2581sep\uff5c>({_NAME})\s*(?:```(?:json)?)?\s*",
    rf"({_NAME})<\uff5ctool\u2581sep\uff5c>\s*",
    rf"({_NAME})(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*",
    rf">>>({_NAME})\s*\n",
    rf"Action:\s*`?({_NAME})`?\s*\n\s*Action[ _]Input:\s*(?:```(?:json)?)?\s*",
    rf"call:({_NAME})\s*(?=\{{)",
)
_NAMED_JSON = re.compile("|".join(f"(?:{form})" for form in _BEFORE_JSON))
_FUNCTION = re.compile(
    rf"<(?:\w+:)?(?:function|invoke|tool_use)(?:=|\s+name=)\s*[\"']?({_NAME})[\"']?\s*>"
    r"(.*?)(?=</(?:\w+:)?(?:function|invoke|tool_use|tool_call)>|"
    r"<(?:\w+:)?(?:function|invoke)(?:=|\s+name=)|$)",
    re.DOTALL,
)
_PARAMETER = re.compile(
    r"<(?:\w+:)?parameter(?:=|\s+name=)\s*[\"']?([\w.\-]+)[\"']?[^<>]*>"
    r"(.*?)(?=</(?:\w+:)?parameter>|<(?:\w+:)?parameter(?:=|\s+name=)|$)",
    re.DOTALL,
)
_KEY_AND_VALUE = re.compile(
    r"<arg_key>\s*(.*?)\s*</arg_key>\s*<arg_value>(.*?)(?=</arg_value>|<arg_key>|$)", re.DOTALL
)
_KEYED = re.compile(rf"<tool_call>\s*({_NAME})\s*(?=<arg_key>|</arg_value>|</tool_call>|$)")
_NAMES_OF = (
    "name",
    "tool_name",
    "tool",
    "function_name",
    "action",
    "action_type",
    "recipient_name",
)
_ARGUMENTS_OF = ("arguments", "parameters", "args", "params", "input", "tool_input", "action_input")
_AROUND = ("function", "function_call", "tool_call")
_MANY = ("tool_calls", "tool_uses", "calls")
_MOST_FAILED = 50
"""Brackets that begin no JSON, before the rest of an answer is not looked at."""
_BESIDE = {"id", "type", "index", "call_id", "thought", "reasoning"}


def calls_in(text: str, names: set[str]) -> Iterator[Found]:
    """The calls in a text that may have more in it, by the first form that is met in it.

    `names`: of the tools that there are, for forms that are no calls but by their name.
    """
    for form in (_of_functions, _of_keys, _after_names, _of_json, _of_python):
        found = list(form(text, names))
        if found:
            yield from found
            return


def _of_functions(text: str, names: set[str]) -> Iterator[Found]:
    """`<function=NAME><parameter=KEY>VALUE</parameter></function>` and its kin."""
    for name, body in _FUNCTION.findall(text):
        given: Any = {k: _inner(v) for k, v in _PARAMETER.findall(body)}
        start = body.find("{")
        if not given and start >= 0:
            given = _object(body, start)
        yield name, given


def _of_keys(text: str, names: set[str]) -> Iterator[Found]:
    """GLM: `<tool_call>NAME <arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>`."""
    starts = [m for m in _KEYED.finditer(text) if "<arg_" in text or tool_meant(m[1], names)]
    ends = [m.start() for m in starts[1:]] + [len(text)]
    for found, end in zip(starts, ends, strict=False):
        body = text[found.end() : end]
        yield found[1], {k: _inner(v) for k, v in _KEY_AND_VALUE.findall(body)}


def _after_names(text: str, names: set[str]) -> Iterator[Found]:
    """A name, a mark, and the arguments as JSON."""
    for found in _NAMED_JSON.finditer(text):
        name = next(name for name in found.groups() if name)
        if text[found.end() : found.end() + 1] == "{":
            yield name, _object(text, found.end())
        else:
            yield name, {} if not text[found.end() :].strip() else None


def _of_json(text: str, names: set[str]) -> Iterator[Found]:
    """Objects and lists of objects, anywhere in the text, that have the shape of a call."""
    at, failed = 0, 0
    while (at := _first(text, "{[", at)) >= 0 and failed < _MOST_FAILED:
        try:
            value, end = read_json(text, at)
        except (ValueError, RecursionError):
            failed += 1
            at += 1
            continue
        found = list(_shaped(value, names))
        yield from found
        at = end if found or isinstance(value, dict) else at + 1


def _of_python(text: str, names: set[str]) -> Iterator[Found]:
    """`[f(a=1), g("x")]`, `f(a=1)`, `print(tools.f(a=1))`, `f.call(a=1)`."""
    for found in re.finditer(rf"({_NAME})\(", text):
        if tool_meant(found[1], names) is None:
            continue
        end = _closing(text, found.end() - 1)
        try:
            call = ast.parse(text[found.start() : end].replace("\n", " "), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            yield found[1], None
            continue
        if isinstance(call, ast.Call):
            yield found[1], _arguments(call)


def _arguments(call: ast.Call) -> Any:
    try:
        named = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
        placed = [ast.literal_eval(value) for value in call.args]
    except (ValueError, TypeError, RecursionError):
        return None
    if len(placed) == 1 and isinstance(placed[0], dict) and not named:
        return placed[0]
    return named if not placed else (placed, named)


def _shaped(value: Any, names: set[str]) -> Iterator[Found]:
    if isinstance(value, list):
        for member in value:
            yield from _shaped(member, names)
        return
    if not isinstance(value, dict):
        return
    for key in _MANY:
        if isinstance(value.get(key), list):
            yield from _shaped(value[key], names)
            return
    for key in _AROUND:
        if isinstance(value.get(key), dict):
            yield from _shaped(value[key], names)
            return
    said_by = next((k for k in (*_NAMES_OF, *_AROUND) if isinstance(value.get(k), str)), None)
    if said_by is not None:
        yield from _named(value, said_by, names)
    elif len(value) == 1:  # {"guess": {"number": 42}}
        ((only, given),) = value.items()
        if tool_meant(only, names) and isinstance(given, dict):
            yield only, given


def _named(value: dict[str, Any], key: str, names: set[str]) -> Iterator[Found]:
    """A call whose name stands under `key`; its arguments may stand beside it."""
    name = value[key]
    held = next((k for k in _ARGUMENTS_OF if k in value and k != key), None)
    if held is not None:
        given = unwrapped(value[held])
        if given is None or given == "":
            given = {}
        yield name, given if isinstance(given, dict | list) else None
    elif tool_meant(name, names) is not None or key == "name":
        beside = {k: v for k, v in value.items() if k != key and k not in _BESIDE}
        if beside or tool_meant(name, names) is not None:
            yield name, beside


def tool_meant(name: str, names: set[str]) -> str | None:
    """The tool that a name means, however it is written; None if there is none."""
    bare = re.split(r"[<\[|:(\s]", name.strip().strip("`\"'"))[0]
    for candidate in (bare, bare.removesuffix(".call"), bare.rpartition(".")[2]):
        if candidate in names:
            return candidate
        plain = candidate.lower().replace("-", "_").replace(".", "_")
        for known in names:
            if known.lower().replace("-", "_") == plain:
                return known
    return None


def _object(text: str, at: int) -> Any:
    try:
        value = unwrapped(read_json(text, at)[0])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _inner(value: str) -> str:
    """A value between marks: the line breaks next to the marks are not part of it."""
    for closing in ("</function>", "</tool_call>", "</invoke>", "</parameter>"):
        value = value.partition(closing)[0]
    return value.removeprefix("\r").removeprefix("\n").removesuffix("\n").removesuffix("\r")


def _first(text: str, letters: str, at: int) -> int:
    found = [i for i in (text.find(letter, at) for letter in letters) if i >= 0]
    return min(found, default=-1)


def _closing(text: str, at: int) -> int:
    """The place after the bracket that closes the one at `at`; quotes are passed over."""
    depth, quote = 0, ""
    for place in range(at, len(text)):
        letter = text[place]
        if quote:
            if letter == quote and text[place - 1] != "\\":
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0:
                return place + 1
    return len(text)
