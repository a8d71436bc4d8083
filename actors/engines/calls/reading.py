"""What a model's answer asks the world to do, whatever habits of writing the model has.

The answer is taken apart into thoughts, words and calls. What cannot be read is told in words that
a model can act on: they go back to it, and never into the world.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from actors.engines.calls.forms import MARKS, calls_in, tool_meant
from actors.engines.calls.lenient import unwrapped
from actors.engines.calls.thoughts import apart
from experience.text.tools import Answer, Schema, name_of, parameters_of

_FENCE = re.compile(r"```[\w-]*[ \t]*\n?(.*?)(?:```|$)", re.DOTALL)
_LEFT_OVER = re.compile(
    r"<\|(?:im_end|im_start|eot_id|eom_id|end|call|return|endoftext|message|start|channel|constrain)"
    r"\|>|</?s>|<end_of_turn>|<start_of_turn>"
)
_BULLET = re.compile(
    r"^\s*(?:[-*>•]|\d+[.)]|(?:final\s+)?(?:action|answer|command|call)\s*:)\s*", re.I
)
_LOOKS_LIKE_A_CALL = re.compile(r"^\s*(?:```\w*\s*)?[\[{].*", re.DOTALL)
_MOST_SHOWN = 60


def read_answer(text: str, tools: Sequence[Schema]) -> Answer:
    """A model's answer in a world with these tools."""
    known = {name_of(tool): tool for tool in tools}
    names = set(known)
    reasoning, said = apart(text, MARKS)
    found = list(calls_in(said, names))
    marked = MARKS.search(said) is not None
    if not marked:  # an object that is no call is part of what a line says
        found = _of_this_world(found, said, names)
    if found:
        return _checked(found, known, reasoning, _content(said, marked))
    if marked:
        return Answer(reasoning, said, trouble=_trouble("your call could not be read", known))
    return _line(reasoning, said, known)


def _of_this_world(
    found: list[tuple[str, Any]], said: str, names: set[str]
) -> list[tuple[str, Any]]:
    first = said.split(None, 1)[:1]
    if first and first[0].strip("`") in names:  # `write {"a": 1}` is a line, whatever follows
        return []
    if _LOOKS_LIKE_A_CALL.match(said):
        return found
    return [(name, given) for name, given in found if tool_meant(name, names)]


def _checked(
    found: Sequence[tuple[str, Any]], known: Mapping[str, Schema], reasoning: str, content: str
) -> Answer:
    """The calls, if each names a tool and has arguments that could be read."""
    calls = []
    for name, given in found:
        tool = tool_meant(name, set(known))
        if tool is None:
            trouble = f"there is no tool {name[:_MOST_SHOWN]!r}"
            return Answer(reasoning, content, trouble=_trouble(trouble, known))
        arguments = _named_arguments(given, known[tool])
        if arguments is None:
            trouble = f"the arguments of {tool} could not be read"
            return Answer(reasoning, content, trouble=_trouble(trouble, {tool: known[tool]}))
        calls.append((tool, arguments))
    return Answer(reasoning, content, tuple(calls))


def _named_arguments(given: Any, tool: Schema) -> dict[str, Any] | None:
    """Arguments by name. Values that were written as texts become objects where the tool takes
    objects or lists."""
    parameters = parameters_of(tool)
    placed: Sequence[Any] = ()
    if isinstance(given, tuple):
        placed, given = given
    elif isinstance(given, list):
        placed, given = given, {}
    if not isinstance(given, dict) or len(placed) > len(parameters):
        return None
    named: dict[str, Any] = dict(zip(parameters, placed, strict=False)) | given
    for name, value in named.items():
        wanted = parameters.get(name, {})
        if isinstance(value, str) and wanted.get("type") in ("array", "object"):
            named[name] = unwrapped(value)
    return named


def _line(reasoning: str, said: str, known: Mapping[str, Schema]) -> Answer:
    """An answer without a call: a line that begins with a tool's name, alone or among words."""
    if not said:
        what = "your answer has thoughts only" if reasoning else "your answer is empty"
        return Answer(reasoning, "", trouble=_trouble(what, known))
    whole = _bare(_unfenced(said))
    first = whole.split(None, 1)[0] if whole.split() else ""
    if first in known:
        return Answer(reasoning, "", line=whole)
    lines = _unfenced(said).splitlines()
    for place in range(len(lines) - 1, -1, -1):
        line = _bare(_BULLET.sub("", lines[place]))
        name = line.split(None, 1)[0] if line.split() else ""
        if name in known:
            return Answer(reasoning, "\n".join(lines[:place]).strip(), line=line)
    what = "your call could not be read"
    return Answer(reasoning, said, line=whole, trouble=_trouble(what, known))


def _trouble(what: str, known: Mapping[str, Schema]) -> str:
    """What was wrong, and what to write: for the model."""
    name, tool = next(iter(known.items()))
    given = ", ".join(f'"{p}": …' for p in parameters_of(tool))
    form = f'{{"name": "{name}", "arguments": {{{given}}}}}'
    there_are = f"; the tools are {', '.join(known)}" if len(known) > 1 else ""
    return f"{what}: write {form}{there_are}"


def _content(said: str, marked: bool) -> str:
    """What is said before the call."""
    begins = MARKS.search(said) if marked else re.search(r"```|[\[{]", said)
    text = said[: begins.start()] if begins else ""
    return _LEFT_OVER.sub("", text).strip()


def _unfenced(said: str) -> str:
    fenced = _FENCE.search(said)
    return (said[: fenced.start()] + fenced[1]).strip() if fenced else said


def _bare(line: str) -> str:
    line = _LEFT_OVER.sub("", line).strip()
    if len(line) > 1 and line[0] == line[-1] and line[0] in "`'\"*":
        line = line.strip("*") if line[0] == "*" else line[1:-1]
    return line.strip()
