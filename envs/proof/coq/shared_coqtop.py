"""One coqtop that all Coq worlds of a process share, one proof at a time.

To start a coqtop takes seconds, so it is kept from episode to episode. Whoever speaks first gets it
into the state of its own proof, by saying all answers of that proof again. Before it serves another
proof, it must be back where it began, in all that it tells of itself; else another one is started.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from envs.proof.coq.coqtop import TACTIC_SECONDS, Coqtop
from envs.proof.coq.sentences import checked, formal
from envs.proof.lemma import Lemma
from experience.errors import EnvironmentFailure


@dataclass(eq=False)
class OpenProof:
    """A proof in the making: plain data, so that a snapshot of a world can hold it.

    A coqtop is recognized as standing in this proof by the object's identity: a restored copy is
    another proof, and is said again from its start.
    """

    lemma: Lemma
    answers: list[str] = field(default_factory=list)
    goals: str = ""
    """As Coq shows them after `answers`. Empty if `answers` must be said again."""
    state: int = 0
    """The number of coqtop's state after `answers`."""


@dataclass(frozen=True)
class Refusal:
    """Why an answer was not taken, for the agent and for the record."""

    shown: str
    evidence: str


COQ_ENDED = Refusal("that ended Coq", "coqtop ended")


class SharedCoqtop:
    """Takes answers of several proofs; `lock` lets one of them speak at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.machine: Coqtop | None = None
        self._standing_in: OpenProof | None = None

    def resume(self, proof: OpenProof) -> Coqtop:
        """The coqtop, in the state of `proof`. Raises EnvironmentFailure."""
        with self.lock:
            machine = self._fit_for(proof)
            if self._standing_in is not proof or not proof.goals:
                machine.back(machine.start)
                if proof.lemma.definitions:
                    machine.say(proof.lemma.definitions)
                machine.say(f"Lemma sol : {proof.lemma.statement}.")
                for answer in proof.answers:
                    _say_all(machine, answer)
                proof.state = machine.state
                self._standing_in = proof
                proof.goals = machine.goals()
            return machine

    def _fit_for(self, proof: OpenProof) -> Coqtop:
        """A live coqtop in which nothing is left of any other proof."""
        machine = self.machine
        if machine is not None:
            if machine.alive and (self._standing_in is proof or machine.reset()):
                return machine
            machine.close()
        self.machine = Coqtop()
        self._standing_in = None
        return self.machine

    def apply(self, proof: OpenProof, answer: str) -> Refusal | None:
        """Says all sentences of an answer, or, if one fails, none of them.

        Returns why Coq refused the answer. `answer` must have passed `checked`.
        """
        with self.lock:
            machine = self.resume(proof)
            try:
                _say_all(machine, answer)
            except ValueError as wrong:
                machine.back(proof.state)
                return Refusal(str(wrong), str(wrong))
            except EnvironmentFailure:
                # The agent's tactic killed Coq. Were this a failure of the world, an agent could
                # choose to end an episode without a reward.
                self._restart(proof)
                return COQ_ENDED
            proof.answers.append(answer)
            proof.state = machine.state
            proof.goals = machine.goals()
            return None

    def take_back(self, proof: OpenProof) -> None:
        """Removes the last answer of the proof."""
        with self.lock:
            proof.answers.pop()
            proof.goals = ""
            self.resume(proof)

    def search(self, proof: OpenProof, pattern: str) -> str | Refusal:
        """What Coq finds for a pattern, or its error; the proof does not change."""
        with self.lock:
            machine = self.resume(proof)
            try:
                found = machine.say(f"Timeout {TACTIC_SECONDS} Search ({pattern}).")
                machine.back(proof.state)
            except ValueError as wrong:
                return str(wrong)
            except EnvironmentFailure:
                # More was found than is read, for example: the agent's doing, as in `apply`.
                self._restart(proof)
                return COQ_ENDED
            return found

    def _restart(self, proof: OpenProof) -> None:
        """Another coqtop in place of this one, in the state of the proof."""
        proof.goals = ""
        if self.machine is not None:
            self.machine.close()
        self.resume(proof)

    def leave(self, proof: OpenProof) -> None:
        """Forgets the proof: it is over."""
        with self.lock:
            if self._standing_in is proof:
                self._standing_in = None


def _say_all(machine: Coqtop, answer: str) -> None:
    for sentence in checked(answer):
        machine.say(formal(sentence, TACTIC_SECONDS))
