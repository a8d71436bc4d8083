"""Calls of tools as models write them: every habit is from a public report or a model's page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.engines.calls.lenient import read_json, unwrapped
from actors.engines.calls.reading import read_answer

_TEXT = {"type": "string"}


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}.",
            "parameters": {"type": "object", "properties": parameters},
        },
    }


TOOLS = [
    tool("guess", number={"type": "integer"}),
    tool("write", path=_TEXT, text=_TEXT),
    tool("plan", steps={"type": "array"}, options={"type": "object"}),
    tool("get_weather", city=_TEXT),
    tool("submit"),
]
GUESS = [("guess", {"number": 42})]
TEXT_GUESS = [("guess", {"number": "42"})]
WRITE = [("write", {"path": "a.py", "text": "x = 1\n"})]
DUBLIN = [("get_weather", {"city": "Dublin"})]
SUBMIT = [("submit", {})]
J = '{"name": "guess", "arguments": {"number": 42}}'

HABITS: dict[str, tuple[str, list[Any]]] = {
    # Hermes and Qwen
    "hermes": (f"<tool_call>\n{J}\n</tool_call>", GUESS),
    "no closing mark (vllm 22885)": (f"<tool_call>\n{J}", GUESS),
    "the last brace is missing (vllm 22885)": (f"<tool_call>\n{J[:-1]}\n</tool_call>", GUESS),
    "no opening mark": (f"{J}\n</tool_call>", GUESS),
    "words before (vllm 22975)": (f"I try 42.\n\n<tool_call>{J}</tool_call>", GUESS),
    "two calls": (f"<tool_call>{J}</tool_call>\n<tool_call>{J}</tool_call>", GUESS * 2),
    "plural mark (inspect_ai 1871)": (f"<tool_calls>[{J}]</tool_calls>", GUESS),
    "qwen2.5-coder (vllm 33083)": (f"<tools>\n{J}\n</tools>", GUESS),
    "bare JSON (crustly 39)": (J, GUESS),
    "fenced JSON (crustly 39)": (f"```json\n{J}\n```", GUESS),
    "fenced, no end, words around": (f"Sure!\n```\n{J}\n", GUESS),
    "granite": (f"<|tool_call|>[{J}]", GUESS),
    "nemotron": (f"<TOOLCALL>[{J}]</TOOLCALL>", GUESS),
    "lm studio": (f"[TOOL_REQUEST]{J}[END_TOOL_REQUEST]", GUESS),
    "phi-4": (f"functools[{J}]", GUESS),
    # Qwen3-Coder
    "function XML": (
        "<tool_call>\n<function=guess>\n<parameter=number>\n42\n</parameter>\n"
        "</function>\n</tool_call>",
        TEXT_GUESS,
    ),
    "no opening tool_call (ollama 16686)": (
        "I'll guess.\n\n<function=guess>\n<parameter=number>\n42\n</parameter>\n"
        "</function>\n</tool_call>",
        TEXT_GUESS,
    ),
    "a parameter without an end (vllm 23099)": (
        "<function=write>\n<parameter=path>\na.py\n<parameter=text>\nx = 1\n\n</parameter></function>",
        WRITE,
    ),
    "a parameter closed by the function (ollama 17353)": (
        "<tool_call><function=guess><parameter=number>42</function></tool_call>",
        TEXT_GUESS,
    ),
    "llama 3.1 function (llama-models 169)": (
        '<function=guess>{"number": 42}</function><|eot_id|>',
        GUESS,
    ),
    "invoke": (
        '<function_calls><invoke name="guess"><parameter name="number">42</parameter>'
        "</invoke></function_calls>",
        TEXT_GUESS,
    ),
    "minimax": (
        '<minimax:tool_call><invoke name="guess"><parameter name="number">42</parameter>'
        "</invoke></minimax:tool_call>",
        TEXT_GUESS,
    ),
    # Llama
    "llama 3.1": ('<|python_tag|>{"name": "guess", "parameters": {"number": 42}}<|eom_id|>', GUESS),
    "llama 3.1 with a type": (
        '{"type": "function", "name": "guess", "parameters": {"number": "42"}}',
        TEXT_GUESS,
    ),
    "semicolons": (f"<|python_tag|>{J}; {J}", GUESS * 2),
    "llama 3.2, pythonic (llama-models 169)": ("[guess(number=42)]", GUESS),
    "pythonic after words (vllm 22917)": (
        'To find out, I ask.\n[submit(), get_weather(city="Dublin")]',
        SUBMIT + DUBLIN,
    ),
    "pythonic, by place": ("guess(42)", GUESS),
    "built-in": ('<|python_tag|>get_weather.call(city="Dublin")', DUBLIN),
    "gemma": ('```tool_code\nprint(default_api.get_weather(city="Dublin"))\n```', DUBLIN),
    "lfm2": ("<|tool_call_start|>[guess(number=42)]<|tool_call_end|>", GUESS),
    # Mistral
    "mistral": (f"[TOOL_CALLS][{J}]", GUESS),
    "mistral 11": ('[TOOL_CALLS]guess[ARGS]{"number": 42}', GUESS),
    "mistral with an id": ('[TOOL_CALLS]guess[CALL_ID]a1b2c3d4e[ARGS]{"number": 42}', GUESS),
    "mistral, no ARGS": ('[TOOL_CALLS]guess{"number": 42}', GUESS),
    "rehearsed form (unsloth 5704)": ('guess[ARGS]{"number": 42}', GUESS),
    # DeepSeek, Kimi, GLM
    "deepseek v3": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>guess\n```json\n"
        '{"number": 42}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        GUESS,
    ),
    "deepseek v3.1": (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>guess<｜tool▁sep｜>{"number": 42}'
        "<｜tool▁call▁end｜>",
        GUESS,
    ),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.guess:0"
        '<|tool_call_argument_begin|>{"number": 42}<|tool_call_end|><|tool_calls_section_end|>',
        GUESS,
    ),
    "glm": (
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Dublin</arg_value>\n"
        "</tool_call>",
        DUBLIN,
    ),
    "glm, a mark in the name (fw-ai 119)": ("<tool_call>submit</arg_value>", SUBMIT),
    "glm, as an object (fw-ai 119)": ('{"name": "submit</arg_value>", "arguments": "{}"}', SUBMIT),
    # Harmony
    "harmony (mlxcel 654)": (
        "<|channel|>analysis<|message|>They ask for 42.<|end|><|start|>assistant<|channel|>"
        'commentary to=functions.guess <|constrain|>json<|message|>{"number": 42}<|call|>',
        GUESS,
    ),
    "harmony, recipient first (llama.cpp 15181)": (
        '<|start|>assistant to=functions.guess<|channel|>commentary json<|message|>{"number": 42}',
        GUESS,
    ),
    # others
    "functionary": ('>>>guess\n{"number": 42}', GUESS),
    "react": ('Thought: I try.\nAction: guess\nAction Input: {"number": 42}', GUESS),
    "command r": (
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "guess", '
        '"parameters": {"number": 42}}]<|END_ACTION|>',
        GUESS,
    ),
    "openai's own, as text": (
        '{"tool_calls": [{"id": "call_1", "type": "function", "function": '
        '{"name": "guess", "arguments": "{\\"number\\": 42}"}}]}',
        GUESS,
    ),
    "older openai": (
        '{"function_call": {"name": "guess", "arguments": "{\\"number\\": 42}"}}',
        GUESS,
    ),
    # how the JSON is written
    "arguments as a text (smolagents 1003)": (
        '{"name": "guess", "arguments": "{\\"number\\": 42}"}',
        GUESS,
    ),
    "arguments as a text in a text (OpenManus 989)": (
        json.dumps({"name": "guess", "arguments": json.dumps(json.dumps({"number": 42}))}),
        GUESS,
    ),
    "a list as a text (kimi-cli 2513)": (
        '{"name": "plan", "arguments": {"steps": "[1, 2]", "options": "{\\"fast\\": true}"}}',
        [("plan", {"steps": [1, 2], "options": {"fast": True}})],
    ),
    "a trailing comma (genie-claw 469)": (
        '{"name": "guess", "arguments": {"number": 42,},}',
        GUESS,
    ),
    "single quotes (mlx-lm 1071)": ("{'name': 'guess', 'arguments': {'number': 42}}", GUESS),
    "curly quotes (open-historia 353)": ("{“name”: “guess”, “arguments”: {“number”: 42}}", GUESS),
    "Python's words": (
        "{'name': 'plan', 'arguments': {'steps': [None, True], 'options': {}}}",
        [("plan", {"steps": [None, True], "options": {}})],
    ),
    "keys without quotes": ('{name: "guess", arguments: {number: 42}}', GUESS),
    "a comment": ('{"name": "guess", // mine\n"arguments": {"number": 42}}', GUESS),
    "line breaks in a text": (
        '{"name": "write", "arguments": {"path": "a.py", "text": "x = 1\n"}}',
        WRITE,
    ),
    "cut at the limit": ('{"name": "guess", "arguments": {"number": 42', GUESS),
    "arguments beside the name": ('{"name": "guess", "number": 42}', GUESS),
    "the tool as the key": ('{"guess": {"number": 42}}', GUESS),
    "action and action_input": ('{"action": "guess", "action_input": {"number": 42}}', GUESS),
    "no arguments": ('{"name": "submit"}', SUBMIT),
    "null arguments": ('{"name": "submit", "arguments": null}', SUBMIT),
    "a namespace": ('{"name": "functions.guess", "arguments": {"number": 42}}', GUESS),
    "another case": ('{"name": "Get-Weather", "arguments": {"city": "Dublin"}}', DUBLIN),
    "a brace before (open-historia 353)": (f"I use {{braces}} first. {J}", GUESS),
    # thoughts
    "a thought": (f"<think>a <tool_call> b</think>\n<tool_call>{J}</tool_call>", GUESS),
    "a thought without an end": (f"<think>I try 42.\n<tool_call>{J}</tool_call>", GUESS),
    "an end without a thought (deepseek)": (f"I try 42.</think>\n{J}", GUESS),
    "an empty end first (omlx 2649)": (f"</think>hm</think>{J}", GUESS),
    "a call in a thought (lm studio 1592)": (
        '<think>maybe <tool_call>{"name": "submit"}</tool_call>?</think>' + J,
        GUESS,
    ),
    "magistral": (f"[THINK]hm[/THINK]{J}", GUESS),
    "a mark of thought as data (unsloth 5704)": (
        '<tool_call>{"name": "write", "arguments": {"path": "a", "text": "<think>b</think>"}}'
        "</tool_call>",
        [("write", {"path": "a", "text": "<think>b</think>"})],
    ),
}


@pytest.mark.parametrize("habit", HABITS)
def test_a_call_is_read_whatever_the_habit(habit: str) -> None:
    said, expected = HABITS[habit]
    answer = read_answer(said, TOOLS)
    assert (list(answer.calls), answer.trouble) == (expected, "")
    found = json.loads(answer.action)
    assert len(found if isinstance(found, list) else [found]) == len(expected)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("guess 42", "guess 42"),
        ("`guess 42`", "guess 42"),
        ("**guess 42**", "guess 42"),
        ("I think it is this:\nguess 42", "guess 42"),
        ("- guess 42", "guess 42"),
        ("Action: guess 42", "guess 42"),
        ("```\nguess 42\n```", "guess 42"),
        ("<think>hm</think>guess 42", "guess 42"),
        ("guess 42<|im_end|>", "guess 42"),
        ('write a.py {"name": "guess", "arguments": {}}', None),
        ("write a.py x = 1\ny = f(2)", None),
    ],
)
def test_a_line_stays_a_line(said: str, line: str | None) -> None:
    answer = read_answer(said, TOOLS)
    assert (answer.action, answer.calls, answer.trouble) == (line or said, (), "")


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ("", "your answer is empty"),
        ("<think>what shall I do", "your answer has thoughts only"),
        ("I do not know what to do.", "your call could not be read"),
        ("<tool_call>\nguess that\n</tool_call>", "your call could not be read"),
        ('<tool_call>{"name": "fly", "arguments": {}}</tool_call>', "there is no tool 'fly'"),
        ('{"name": "guess", "arguments": "forty-two"}', "the arguments of guess could not be"),
        ("guess(number=forty + two)", "the arguments of guess could not be read"),
        ("[" * 5000, "your call could not be read"),
        ('{"name":' * 500, "your call could not be read"),
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_write(said: str, trouble: str) -> None:
    answer = read_answer(said, TOOLS)
    assert answer.trouble.startswith(trouble) and not answer.calls
    assert 'write {"name": "guess", "arguments": {"number": …}}' in answer.trouble


def test_thoughts_words_and_calls_are_apart() -> None:
    answer = read_answer(f"<think>It is\n42.</think>I try it.\n<tool_call>{J}</tool_call>", TOOLS)
    assert (answer.reasoning, answer.content) == ("It is\n42.", "I try it.")
    assert read_answer("hm</think>guess 1", TOOLS).reasoning == "hm"


def test_strict_json_is_read_as_strict_json() -> None:
    value = {"a": ["it's", 'say "hi"', "}{,:", 1.5e3, None, True, "é\n"]}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert read_json(text + " and more")[0] == value
    assert unwrapped("[oops") == ["oops"] and unwrapped("5") == "5" and unwrapped("{") == {}
