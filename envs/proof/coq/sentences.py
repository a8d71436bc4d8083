"""The sentences of a Coq answer, and which of them an agent may say: tactics, bullets and braces.

Coq reads sentence by sentence: `- lia.` is two sentences, and so is `{ split.`. `sentences` cuts
text as Coq's lexer does. `formal` puts a tactic between brackets, `(lia).`, where Coq's own grammar
takes nothing but a tactic expression: a command there is a syntax error, whatever its name.
Brackets must match within a sentence, so that no bracket of the agent closes ours. Covers: commands
after bullets, braces, selectors and full stops; admitted goals; tactics that write files, start
programs or set what outlives a proof. Does not cover: a proof that Coq takes and should not;
`judge` has the last word.
"""

from __future__ import annotations

import re

MOST_SENTENCES = 12
"""The most sentences in one answer."""
_SPACE = " \t\n\r"
_OPEN = {"(": ")", "[": "]", "{": "}"}
# A selector names the goals that a tactic is for: `2:`, `1-2, 4:`, `all:`, `[name]:`, `!:`.
_NUMBERS = r"\d+(?:-\d+)?(?: ?, ?\d+(?:-\d+)?)*"
_SELECTOR = re.compile(rf"(?:{_NUMBERS}|all|\[ ?[A-Za-z_][\w']* ?\]|!) ?: ?(?!=)")
_STRUCTURE = re.compile(r"-+|\++|\*+|\}|(?:(?:\d+|\[ ?[A-Za-z_][\w']* ?\]) ?: ?)?\{")
# Qualified names and decimal numbers are one token each, so that their dots end no sentence.
_TOKEN = re.compile(r"[A-Za-z_][\w']*(?:\.[A-Za-z_][\w']*)*|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\.+|\S")
_REFUSED = {
    "an admitted goal is no proof": (
        "admit",
        "give_up",
        "exact_no_check",
        "vm_cast_no_check",
        "native_cast_no_check",
        "change_no_check",
        "convert_concl_no_check",
    ),
    "it starts a program": ("native_compute", "psatz"),
    "it sets what outlives the proof": ("optimize_heap", "restart_timer", "finish_timing"),
}
_WHY = {word: why for why, words in _REFUSED.items() for word in words}


def sentences(text: str) -> list[str]:
    """`text` cut into Coq's sentences, without comments, each with its full stop.

    A full stop that is missing at the end is added. Bullets and braces are sentences of their own.
    Raises ValueError for a string, and for a comment that is not closed.
    """
    found = []
    left = " ".join(_without_comments(text).split())
    while left:
        structure = _STRUCTURE.match(left)
        end = structure.end() if structure else _end(left)
        sentence = left[:end]
        if not structure and not sentence.endswith("."):
            sentence += "."
        found.append(sentence)
        left = left[end:].lstrip()
    return found


def _end(text: str) -> int:
    """Where the first sentence of `text` ends.

    A sentence ends after one full stop, or three, if a blank or the end of the text follows.
    """
    for token in _TOKEN.finditer(text):
        ends = token.end() == len(text) or text[token.end()] in _SPACE
        if token[0] in (".", "...") and ends:
            return token.end()
    return len(text)


def _without_comments(text: str) -> str:
    """`text` with a blank in place of each comment.

    As in Coq, comments nest, and a string within a comment hides the end of the comment.
    """
    kept: list[str] = []
    depth = 0
    at = 0
    while at < len(text):
        pair = text[at : at + 2]
        if text[at] == '"':
            end = text.find('"', at + 1)
            if end < 0 or not depth:
                raise ValueError("strings are refused")
            at = end + 1
        elif pair == "(*":
            depth += 1
            at += 2
            kept.append(" ")
        elif pair == "*)" and depth:
            depth -= 1
            at += 2
        else:
            if not depth:
                kept.append(text[at])
            at += 1
    if depth:
        raise ValueError("a comment is not closed")
    return "".join(kept)


def checked(text: str) -> tuple[str, ...]:
    """The sentences of an answer, all of them tactics, bullets or braces.

    Raises ValueError for the first sentence that is none of these; then no sentence of the answer
    may be said.
    """
    # Other scripts have letters and dots that look like ours and that Coq reads otherwise.
    if bad := re.search(r"[^\x20-\x7e\t\n\r]", text):
        raise ValueError(f"only ASCII is read, not {bad[0]!r}")
    found = sentences(text)
    if not found:
        raise ValueError("say a tactic")
    if len(found) > MOST_SENTENCES:
        raise ValueError(f"at most {MOST_SENTENCES} sentences at a time")
    for sentence in found:
        if not is_structure(sentence):
            _check(sentence)
    return tuple(found)


def is_structure(sentence: str) -> bool:
    """Whether the sentence is a bullet or a brace, which prove nothing by themselves."""
    return _STRUCTURE.fullmatch(sentence) is not None


def _check(sentence: str) -> None:
    """Raises ValueError if the sentence is no tactic, or a tactic that is refused."""
    _, tactic = _parts(sentence)
    if re.match(r"par ?:", tactic):
        raise ValueError("par: starts programs; say all:")
    if not re.match(r"[a-z_(\[]", tactic):
        raise ValueError(
            f"{sentence[:40]!r}: a tactic begins with a small letter; commands are refused"
        )
    if re.search(r"\(\*|\*\)", sentence):
        raise ValueError("write ( * ) with blanks: (* begins a comment")
    if re.search(r"\b(?:start|stop|reset|show) ltac profil", sentence):
        raise ValueError("profiling is refused: it sets what outlives the proof")
    # An unmatched bracket could close the brackets that `formal` writes around the tactic.
    awaited: list[str] = []
    for token in _TOKEN.findall(tactic):
        if re.fullmatch(r"\.|\.{3,}|[#\"`]", token):
            raise ValueError(f"{token} is refused within a tactic")
        for word in token.split("."):
            if word in _WHY:
                raise ValueError(f"{word} is refused: {_WHY[word]}")
        if token in _OPEN:
            awaited.append(_OPEN[token])
        elif token in _OPEN.values() and (not awaited or awaited.pop() != token):
            raise ValueError(f"a {token} that closes nothing")
    if awaited:
        raise ValueError(f"a {awaited[-1]} is missing")


def _parts(sentence: str) -> tuple[str, str]:
    """(the selector of a sentence, as `all: `, or ""; its tactic without the full stop)."""
    selector = _SELECTOR.match(sentence)
    end = selector.end() if selector else 0
    return sentence[:end], re.sub(r"(?<!\.)(?:\.|\.{3})$", "", sentence[end:])


def formal(sentence: str, seconds: int | None = None) -> str:
    """The sentence as it is said to Coq: a tactic stands in brackets.

    If `seconds` are given, Coq ends the tactic after that time, as an error.
    """
    if is_structure(sentence):
        return sentence
    selector, tactic = _parts(sentence)
    timeout = "" if seconds is None else f"Timeout {seconds} "
    return f"{timeout}{selector}({tactic})."
