"""What a server of the OpenAI chat protocol answers, as one text with the calls in it."""

from __future__ import annotations

from typing import Any

from experience.text.strict_json import dumps


def said_in(answer: Any) -> tuple[str, str]:
    """(the whole answer, why it ended) of a chat completion.

    Calls and thoughts that the server has taken apart are written into the answer again, so that
    one reader reads the answers of all servers: some leave both in the text. Raises AttributeError,
    IndexError, TypeError or ValueError if it is no chat completion.
    """
    choice = answer.choices[0]
    message = choice.message
    said = str(message.content or "")
    thought = _thought(message)
    if thought:
        said = f"<think>{thought}</think>\n{said}"
    calls = getattr(message, "tool_calls", None) or ()
    for call in calls:
        asked = {"name": call.function.name, "arguments": call.function.arguments}
        # an argument may be a text about calls: its marks are not marks of this answer
        said += "\n<tool_call>" + dumps(asked).replace("<", "\\u003c") + "</tool_call>"
    return said, str(choice.finish_reason)


def _thought(message: Any) -> str:
    for name in ("reasoning_content", "reasoning"):
        found = getattr(message, name, None)
        if isinstance(found, str) and found:
            return found.replace("</think>", "")
    return ""


def counted(answer: Any) -> dict[str, Any]:
    """The tokens of the prompt and of the answer, if the server has counted them."""
    usage = getattr(answer, "usage", None)
    named = {"prompt_tokens": "prompt_tokens", "answer_tokens": "completion_tokens"}
    counts = {ours: getattr(usage, theirs, None) for ours, theirs in named.items()}
    return {name: count for name, count in counts.items() if isinstance(count, int)}
