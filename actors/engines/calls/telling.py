"""How a model is told of its tools: by its own chat template, or in words among the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from experience.text.strict_json import dumps
from experience.text.tools import Schema, name_of, parameters_of

Telling = Literal["auto", "template", "text", "none"]
_PROBE: Schema = {
    "type": "function",
    "function": {
        "name": "probe_of_tools",
        "description": "Asks whether a template shows tools.",
        "parameters": {"type": "object", "properties": {}},
    },
}


def shows_tools(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template has a place for tools."""
    if getattr(tokenizer, "chat_template", None) is None:
        return False
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "system", "content": ""}, {"role": "user", "content": "x"}],
            tools=[_PROBE],
            add_generation_prompt=True,
            tokenize=False,
        )
    except Exception:  # noqa: BLE001  a template raises what it likes
        return False
    return "probe_of_tools" in str(text)


def after_an_answer(tokenizer: Any, answer: str, observation: str, role: str) -> str | None:
    """What a template writes from `answer` on; None where it does not know the role.

    The observation may hold the answer too, and comes after it: the first one counts.
    """
    seen = {"role": role, "content": observation}
    if role == "tool":
        seen |= {"name": "world", "tool_call_id": "call00000"}
    chat = [{"role": "user", "content": "…"}, {"role": "assistant", "content": answer}, seen]
    try:
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    except Exception:
        if role == "tool":
            return None
        raise
    after = str(text).partition(answer)[2]
    return after if role != "tool" or observation.strip() in after else None


def in_words(tools: Sequence[Schema]) -> str:
    """The tools as lines of text, and how a call is written."""
    name, given = name_of(tools[0]), parameters_of(tools[0])
    example = {"name": name, "arguments": {p: _example(s) for p, s in given.items()}}
    return "\n".join(
        [
            "You can call these tools:",
            *(f"- {_signature(tool)}: {_description(tool)}" for tool in tools),
            f"Answer with one call, written like this: {dumps(example)}",
        ]
    )


def with_tools(instructions: str, tools: Sequence[Schema]) -> str:
    """The rules, followed by the tools in words."""
    return f"{instructions}\n\n{in_words(tools)}".strip() if tools else instructions


def _signature(tool: Schema) -> str:
    required = tool["function"].get("parameters", {}).get("required", ())
    words = [
        f"{name}{'' if name in required else '?'}: {_kind(schema)}"
        for name, schema in parameters_of(tool).items()
    ]
    return f"{name_of(tool)}({', '.join(words)})"


def _description(tool: Schema) -> str:
    return str(tool["function"].get("description", "")).strip() or name_of(tool)


def _kind(schema: Mapping[str, Any]) -> str:
    if schema.get("enum"):
        return " | ".join(map(str, schema["enum"]))
    bounds = [f"{schema[key]:g}" for key in ("minimum", "maximum") if key in schema]
    kind = str(schema.get("type", "any"))
    return f"{kind} {'..'.join(bounds)}" if len(bounds) == 2 else kind


def _example(schema: Mapping[str, Any]) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    if "minimum" in schema:
        low = schema["minimum"]
        return int(low) if schema.get("type") == "integer" else low
    of_type = {"integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}
    return of_type.get(str(schema.get("type")), "…")
