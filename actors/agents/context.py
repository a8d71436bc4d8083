"""The context: what an agent has seen and done in its episode, as its model reads it again.

Tokens are appended: the prompt of a turn is the prompt before it, the answer to that, and what is
new, exactly as they were sampled. Where something is left out, or replaced by a summary, the next
row starts a new lineage, which names the row that it comes from as its parent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from actors.agents.sight import shown
from actors.engines.engine import Engine, Exchange, Situation
from experience.policy import Decision
from experience.replay.lineages import continues

LEFT_OUT = "(an earlier screen, left out)"
"""Stands for an earlier observation under `newest_screen`."""
SUMMARISE = (
    "Your memory is nearly full. Write a short summary of what you have seen, done and learned in "
    "this task so far, with all that you need to go on. You will read only this summary."
)
NOTES = (
    "You may answer with a line `note: TEXT` to keep TEXT for later, also for later tasks; you are "
    "then asked again."
)
_NOTE = re.compile(r"note:\s*(\S.*)", re.IGNORECASE | re.DOTALL)
_MOST_ASIDES = 2
"""Notes and unreadable answers in a row. The answer after them goes to the world in any case."""
_MOST_EXCHANGES = 4096
"""Turns that are kept at most, such as those of a script, which reads nothing again."""
_CHARACTERS_A_TOKEN = 3
"""For engines that do not count tokens. Few, so that a prompt is rather too short than too long."""
_TOKENS_A_PICTURE = 1000
"""For the same engines: models read a picture as some 60 to 1,500 tokens."""


@dataclass(frozen=True)
class History:
    """What an agent reads again.

    kind: none; full (what fits: when the context is full, its older half is dropped); last (the
    last `turns` turns); newest_screen (all answers, and the present observation alone); compact
    (when the context is nearly full, the model writes a summary, which stands for it).
    room: tokens of a prompt. notes: characters of notes that outlive an episode; 0 is no notes.
    pictures: whether the model is shown the world's pictures. The store keeps them in any case.
    """

    kind: str = "none"
    turns: int = 0
    room: int = 1 << 30
    notes: int = 0
    pictures: bool = True

    @classmethod
    def of(cls, name: str, room: int, notes: int, pictures: bool = True) -> History:
        """From a setting such as `full` or `last(8)`."""
        kind, _, turns = name.rstrip(")").partition("(")
        return cls(kind, int(turns or 0), room, notes, pictures)


def note_in(answer: str) -> str:
    """The note that an answer is; empty if it is none."""
    found = _NOTE.match(answer.strip())
    return " ".join(found[1].split()) if found else ""


def length(engine: Engine, situation: Situation) -> int:
    """The tokens of a whole prompt: counted by the engine, or estimated from its characters."""
    measure: Any = getattr(engine, "length", None)
    if measure is not None:
        return int(measure(situation))
    answers = sum(len(exchange.answer) for exchange in situation.earlier)
    seen = sum(map(len, situation.observations))
    characters = len(situation.instructions) + seen + answers
    pictures = sum(map(len, situation.pictures))
    return characters // _CHARACTERS_A_TOKEN + pictures * _TOKENS_A_PICTURE


@dataclass
class Context:
    """The memory of one stream. Invariant: `_before` holds the exact tokens of `_earlier`, or None.

    is_aside: the present decision is a summary, a note or an answer that could not be read, and no
    action in the world.
    forks: the prompt of the present decision does not continue that of the decision before it.
    """

    history: History = field(default_factory=History)
    is_aside: bool = False
    forks: bool = False
    _earlier: list[Exchange] = field(default_factory=list)
    _before: np.ndarray | None = None
    _lineage: np.ndarray | None = None
    """The tokens that the last decision's row ended with, whatever was left out since."""
    _summary: str = ""
    _notes: list[str] = field(default_factory=list)
    _read: str | None = None
    """The observation of the present turn, as the policy was shown it."""
    _saw: Mapping[str, bytes] = field(default_factory=dict)
    """The pictures of the present turn, as the policy was shown them."""
    _is_summarising: bool = False
    """Whether a summary was asked for, and no action."""
    _asides: int = 0
    _refusal: str = ""
    """Why the last answer could not be done, in words for the model."""

    def begin(self) -> None:
        """A new episode: nothing but the notes is kept."""
        self._earlier = []
        self._before = self._lineage = self._read = None
        self._saw = {}
        self._summary = self._refusal = ""
        self._asides = 0
        self.is_aside = self.forks = self._is_summarising = False

    def situation(self, asked: Situation, engine: Engine) -> Situation:
        """`asked`, with what the policy reads again. What has no room any more is forgotten.

        Raises ConfigError for a picture that the engine cannot show its model.
        """
        self._is_summarising = False
        if asked.images:
            asked = shown(asked, engine) if self.history.pictures else replace(asked, images={})
        if self._refusal and not asked.is_free:
            asked = self._after_a_refusal(asked)
        self._read, self._saw = asked.observation, asked.images
        if self.history.kind == "none" and not self.history.notes:
            return asked
        if self.history.kind == "last":
            self._forget(len(self._earlier) - self.history.turns)
        found = self._with_earlier(asked)
        while self._earlier and length(engine, found) > self.history.room:
            self._forget((len(self._earlier) + 1) // 2)
            found = self._with_earlier(asked)
        return found

    def _after_a_refusal(self, asked: Situation) -> Situation:
        """What was wrong with the last answer follows what was seen, which is not shown twice."""
        if self.history.kind in ("full", "compact") and self._earlier:
            return replace(asked, observation=f"! {self._refusal}", images={})
        return replace(asked, observation=f"{asked.observation}\n! {self._refusal}")

    def is_nearly_full(self, asked: Situation, engine: Engine) -> bool:
        """Whether a summary is to be written before the next action."""
        if self.history.kind != "compact" or len(self._earlier) < 2:
            return False
        request = replace(self._with_earlier(asked), observation=asked.observation + SUMMARISE)
        return length(engine, request) > self.history.room

    def request_for_summary(self, asked: Situation, engine: Engine) -> Situation:
        """What the model is asked so that its answer is the summary."""
        # with the pictures of its turn: the row of a summary names them, as every row does
        request = replace(asked, observation=SUMMARISE, actions=(), is_free=True)
        found = self.situation(request, engine)
        self._is_summarising = True
        return found

    def _summarise(self, decision: Decision) -> None:
        """The decision is a summary: it stands for all that was read until now."""
        self._note_lineage(decision)
        self._is_summarising = False
        self.is_aside = True
        self._earlier = []
        self._before = None
        self._summary = decision.text
        self._read, self._saw = None, {}

    def acted(self, observation: str, decision: Decision) -> None:
        """The decision was taken: in the world, unless it is a summary or a note, or could not be
        read."""
        if self._is_summarising:
            self._summarise(decision)
            return
        self.is_aside = self._keep_note(decision.text) or self._refuse(decision)
        self._asides = self._asides + 1 if self.is_aside else 0
        if self.history.kind == "none" and not self.history.notes:
            return
        self._note_lineage(decision)
        if self.history.kind != "none":
            seen = observation if self._read is None else self._read
            calls = decision.tool_calls
            ids = decision.action_ids
            self._earlier.append(Exchange(seen, decision.text, ids, self._saw, calls))
            is_known = decision.token_exact and len(decision.prompt_ids) > 0
            self._before = self._lineage if is_known else None
            self._forget(len(self._earlier) - _MOST_EXCHANGES)
        self._read, self._saw = None, {}

    def recall(self, notes: Iterable[str]) -> None:
        """Adds notes, those of an earlier incarnation too; the oldest go where room is short."""
        if self.history.notes:
            self._notes += notes
        while len("\n".join(self._notes)) > self.history.notes:
            self._notes.pop(0)

    def _keep_note(self, answer: str) -> bool:
        """Keeps a note. False if the answer is none, or one too many: then the world gets it."""
        note = note_in(answer) if self.history.notes else ""
        if not note or self._asides >= _MOST_ASIDES:
            return False
        self.recall([note])
        return True

    def _refuse(self, decision: Decision) -> bool:
        """Whether the answer goes back to the model. One too many goes to the world as it is."""
        self._refusal = decision.refusal if self._asides < _MOST_ASIDES else ""
        return bool(self._refusal)

    def _note_lineage(self, decision: Decision) -> None:
        if self.history.kind == "none":
            return
        before = self._lineage
        prompt = decision.prompt_ids
        self.forks = before is not None and not continues(before, prompt)
        self._lineage = None
        if decision.token_exact and len(prompt):
            self._lineage = np.concatenate([prompt, decision.action_ids])

    def _with_earlier(self, asked: Situation) -> Situation:
        earlier = tuple(self._earlier)
        before = self._before
        if self.history.kind == "newest_screen" and earlier:
            earlier = tuple(replace(e, observation=LEFT_OUT, images={}) for e in earlier)
            before = None
        instructions = asked.instructions
        if self.history.notes:
            instructions = f"{instructions}\n\n{NOTES}".strip()
        return replace(
            asked,
            instructions=instructions,
            memory=self._memory(),
            earlier=earlier,
            before=before if earlier else None,
        )

    def _memory(self) -> str:
        """What stands before the first observation that is read."""
        parts = []
        if self._notes:
            parts.append("Your notes:\n" + "\n".join(f"- {note}" for note in self._notes))
        if self._summary:
            parts.append(f"What happened before: {self._summary}")
        return "\n\n".join(parts)

    def _forget(self, turns: int) -> None:
        if turns > 0:
            del self._earlier[:turns]
            self._before = None
