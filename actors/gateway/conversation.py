"""The conversations of one rollout, as a tree of calls.

A call whose messages begin with those of an earlier call, and its answer as it was sent, goes on
from that call's exact tokens: nothing is rendered or encoded twice. What the program has put between
two answers is then the new part of a prompt, which no learner takes for the model's own. A program
may keep several conversations at a time, such as those of its subagents: each call is put to the
longest earlier sequence of tokens that its prompt begins with. A call that no sequence leads to
begins a lineage of its own; it names the row that it was edited from, if there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from actors.engines.engine import Exchange, Situation
from actors.gateway.messages import Asked, Message, Said
from experience.policy import Decision
from experience.replay.lineages import continues


@dataclass(frozen=True)
class Call:
    """A call that was answered, and is kept as row `t`.

    key: names the conversation with its answer. keys: the conversation up to each of its messages.
    whole: int32, all that was read and written; empty where nobody knows the tokens.
    """

    t: int
    key: str
    keys: tuple[str, ...]
    whole: np.ndarray
    answer_ids: np.ndarray
    lineage: int


@dataclass(frozen=True)
class Place:
    """Where a new call belongs.

    lineage: its number. parent_t: of the row that it goes on from, or that it was edited from; None
    if there is none. goes_on: whether its prompt begins with all of that row.
    """

    lineage: int
    parent_t: int | None
    goes_on: bool


@dataclass
class Conversations:
    """Invariant: `calls` holds the answered calls in the order of their rows."""

    calls: list[Call] = field(default_factory=list)
    _by_key: dict[str, Call] = field(default_factory=dict)
    _lineages: int = 0

    def situation(self, asked: Asked, draw: int) -> Situation:
        """What the engine is asked, with the exact tokens of what it has read and written."""
        keys = asked.names()
        rules, rest = _rules(asked.messages)
        turns, seen = list[Exchange](), list[Message]()
        before: np.ndarray | None = None
        for number, message in enumerate(rest, len(asked.messages) - len(rest)):
            if message.role != "assistant":
                seen.append(message)
                continue
            known = self._by_key.get(keys[number])
            ids = np.empty(0, np.int32) if known is None else known.answer_ids
            turns.append(Exchange(_shown(seen), _written(message), ids, calls=message.calls))
            is_exact = known is not None and len(known.whole) > 0
            before = known.whole if known is not None and is_exact else None
            seen = []
        return Situation(
            _shown(seen),
            rules,
            draw=draw,
            earlier=tuple(turns),
            before=before,
            tools=asked.tools,
            is_free=not asked.tools,
        )

    def new_messages(self, asked: Asked) -> tuple[str, Sequence[Message]]:
        """The key of the call that a conversation goes on from, empty if there is none; and what
        the program has added since."""
        keys = asked.names()
        for number in range(len(keys) - 1, -1, -1):
            if keys[number] in self._by_key:
                return keys[number], asked.messages[number + 1 :]
        return "", asked.messages

    def place(self, asked: Asked, decision: Decision) -> Place:
        """Where the answered call belongs."""
        found = self._before(asked, decision)
        if found is not None:
            return Place(found.lineage, found.t, True)
        edited = self._edited_from(asked)
        if edited is not None:
            return Place(edited.lineage, edited.t, False)
        return Place(self._lineages, None, False)

    def add(self, asked: Asked, said: Said, decision: Decision, place: Place, t: int) -> None:
        """Keeps an answered call, whose row is t."""
        whole, ids = _tokens(decision)
        keys = tuple(asked.names())
        self._take(Call(t, asked.name_with(said), keys, whole, ids, place.lineage))

    def restore(
        self, t: int, decision: Decision, lineage: int, after: str, names: Sequence[str], key: str
    ) -> None:
        """Keeps a call that an earlier gateway answered, from what its row tells."""
        before = self._by_key.get(after)
        keys = (*before.keys, before.key, *names) if before is not None else tuple(names)
        self._take(Call(t, key, keys, *_tokens(decision), lineage))

    def _take(self, call: Call) -> None:
        self.calls.append(call)
        self._by_key[call.key] = call
        self._lineages = max(self._lineages, call.lineage + 1)

    def _before(self, asked: Asked, decision: Decision) -> Call | None:
        """The call with the longest sequence that the prompt begins with. Where the tokens are not
        known, the messages decide."""
        if decision.token_exact and len(decision.prompt_ids):
            fits = [
                call
                for call in self.calls
                if len(call.whole) and continues(call.whole, decision.prompt_ids)
            ]
            return max(fits, key=lambda call: len(call.whole), default=None)
        known = [self._by_key[key] for key in asked.names() if key in self._by_key]
        return known[-1] if known else None

    def _edited_from(self, asked: Asked) -> Call | None:
        """The newest call whose conversation has the longest beginning in common, up to a message
        of the user's at least: rules alone may be those of several conversations."""
        rules = len(asked.messages) - len(_rules(asked.messages)[1])
        best, longest = None, rules
        keys = asked.names()
        for call in self.calls:
            common = 0
            for mine, theirs in zip(keys, (*call.keys, call.key), strict=False):
                if mine != theirs:
                    break
                common += 1
            if common > rules and common >= longest:
                best, longest = call, common
        return best


def _rules(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The leading messages of the system as one text, and the others."""
    first = next((n for n, m in enumerate(messages) if m.role != "system"), len(messages))
    return "\n\n".join(message.text for message in messages[:first]), messages[first:]


def _tokens(decision: Decision) -> tuple[np.ndarray, np.ndarray]:
    """(all that was read and written, the answer), int32; both empty where they are not known."""
    if not decision.token_exact or not len(decision.prompt_ids):
        return np.empty(0, np.int32), np.empty(0, np.int32)
    return np.concatenate([decision.prompt_ids, decision.action_ids]), decision.action_ids


def _shown(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.text for message in messages)


def _written(message: Message) -> str:
    calls = [f'{{"name": "{c.name}", "arguments": {c.arguments}}}' for c in message.calls]
    return "\n".join([*([message.text] if message.text else []), *calls])
