"""The transitions that a language model is fitted to: their texts, how they are drawn and shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from experience.learning.batch import Turn
from experience.models.decoding import fit
from experience.models.tokenizer import ByteTokenizer
from experience.planning.world_models.change import Outcome, event, write_change
from experience.planning.world_models.gate import Use, question, use_of
from experience.planning.world_models.retrieval import Memory
from experience.planning.world_models.world_model import outcome_of
from experience.step import Step

LONGEST_CHANGE = 72
"""Tokens. A transition that changes more is not fitted, and counted in `too_long`."""


class Transitions:
    """Fitted transitions as (question, change) texts, held-out ones as rows with their outcome.

    `context` is the longest question in tokens; of a longer one the first and the last part stay.
    With `retrieve`, so many similar fitted transitions stand before each question.
    """

    def __init__(self, context: int, retrieve: int) -> None:
        self.fitted: list[tuple[str, str]] = []
        self.held_out: dict[Use, list[tuple[Step, Outcome]]] = {"gate": [], "measured": []}
        self.too_long = 0
        self._context = context
        self._retrieve = retrieve
        self._memory = Memory()
        self._tokenizer = ByteTokenizer()
        self._by_event: dict[str, list[int]] = defaultdict(list)

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None:
        """Takes (row, next row) pairs, except those without action or with an unknown signal."""
        first_new = len(self.fitted)
        for step, following in transitions:
            if step.decision is None or any(s.value is None for s in step.signals):
                continue
            outcome = outcome_of(step, following)
            use = use_of(step.obs_text, step.decision.text)
            if use == "fitted":
                self._add_fitted(step.obs_text, step.decision.text, outcome)
            else:
                self.held_out[use].append((step, outcome))
        if self._retrieve:
            self._memory.add(first_new, [asked for asked, _ in self.fitted[first_new:]])

    def _add_fitted(self, observation: str, action: str, outcome: Outcome) -> None:
        change = write_change(observation, outcome)
        if len(self._tokenizer.action(change)) > LONGEST_CHANGE:
            self.too_long += 1
            return
        # By the event's text, values included: a reward of 1 and one of ½ are drawn apart.
        self._by_event[event(outcome)].append(len(self.fitted))
        self.fitted.append((question(observation, action), change))

    def replace(self, fitted: Iterable[tuple[str, str]]) -> None:
        """Retrieves from these (question, change) texts and no others from now on."""
        self.fitted = list(fitted)
        self._memory = Memory()
        self._memory.add(0, [asked for asked, _ in self.fitted])

    def draw(self, n: int, rng: np.random.Generator) -> list[Turn]:
        """`n` fitted transitions, with replacement: three of four uniform, one of four by event.

        An event is the signals and whether the episode ended. Rewarded outcomes are rare, so that
        uniform draws alone hardly show them; with more draws by event the model predicts events
        where there are none.
        """
        events = list(self._by_event.values())
        uniform = rng.integers(len(self.fitted), size=n - n // 4)
        kinds = rng.integers(len(events), size=n // 4)
        rare = [events[k][int(rng.integers(len(events[k])))] for k in kinds]
        chosen = [int(i) for i in (*uniform, *rare)]
        # A transition must not be retrieved for its own question: it would show the answer.
        prompts = self.prompts([self.fitted[i][0] for i in chosen], without=chosen)
        changes = [self._tokenizer.action(self.fitted[i][1]) for i in chosen]
        return [
            Turn(prompt, change, np.zeros(len(change), np.float32))
            for prompt, change in zip(prompts, changes, strict=True)
        ]

    def prompts(self, questions: Sequence[str], without: Sequence[int] = ()) -> list[np.ndarray]:
        """The tokens that the model reads for each question, int [L].

        Similar transitions come first, the most similar of them last; then the question.
        `without[i]` is the fitted transition that question i must not retrieve.
        """
        if not self._retrieve:
            return [fit(self._tokenizer.prompt(asked), self._context) for asked in questions]
        nearest = self._memory.nearest(questions, self._retrieve, without)
        found = []
        for asked, alike in zip(questions, nearest, strict=True):
            examples = [self.fitted[i] for i in alike]
            before = "".join(f"{seen}\n= {change}\n\n" for seen, change in examples)
            room = self._context + len(alike) * (self._context + LONGEST_CHANGE)
            found.append(fit(self._tokenizer.prompt(before + asked), room))
        return found
