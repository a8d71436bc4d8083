"""One coqtop process: sentences go in, goals or an error come out.

coqtop runs in a place of its own (no network, nothing of the host to write). It numbers its states,
and a state can be gone back to. Covers: a sentence that Coq takes for several, a coqtop that falls
silent, dies or floods, and what outlives going back (libraries, options, definitions, tactics,
notations, hints). Does not cover: which sentences may be said at all (`sentences`), nor whether a
proof holds (`judge`).
"""

from __future__ import annotations

import itertools
import re
import secrets
import shutil
import subprocess
import threading

from envs.sandbox import confine
from experience.errors import EnvironmentFailure, MissingPartError

HEADER = ("From Coq Require Import Lia ZArith List Arith.", "Import ListNotations.")
TACTIC_SECONDS = 4
_START_SECONDS = 30
_BACK_SECONDS = 10
_MOST_ANSWER_BYTES = 1 << 20
_MOST_GOAL_LINES = 40
# With -emacs a prompt is `<prompt>Coq < STATE |OPEN PROOFS| DEPTH < </prompt>`.
_PROMPT = re.compile(rb"<prompt>(\S+) < (\d+) \|([^|<]*)\| \d+ < </prompt>")
_GOAL_ID = re.compile(r" \(ID \d+\)")
_QUESTIONS = (
    "Print Libraries.",
    "Print Options.",
    "Print All.",
    "Print Ltac Signatures.",
    "Print Visibility.",
    "Print HintDb core.",
)
"""The answers show all that a sentence could have changed for the next episode."""


class Coqtop:
    """A running coqtop that has read HEADER.

    `state` is the number of the present state; `start` is that of the state after HEADER.
    """

    def __init__(self) -> None:
        coqtop = shutil.which("coqtop")
        if coqtop is None:
            raise MissingPartError("proof/coq needs Coq 8.16 or newer", "./xp setup worlds")
        self._process = confine.start(
            [coqtop, "-q", "-emacs"],
            pipes={
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.STDOUT,
            },
        )
        self._pending = b""
        self._marks = itertools.count()
        # An agent that knew the marks could answer the question of `_check_one_answer` itself.
        self._secret = secrets.token_hex(8)
        self.state = 1
        self._open_proofs = b""
        self._until_prompt(_START_SECONDS)
        for sentence in HEADER:
            self.say(sentence, _START_SECONDS)
        self.start = self.state
        self._at_start = self._ask_what_could_change()
        self.back(self.start)

    def say(self, sentence: str, seconds: float = TACTIC_SECONDS + 10) -> str:
        """Returns Coq's answer to one sentence.

        Raises ValueError with Coq's own words for an error, which has changed nothing. Raises
        EnvironmentFailure if coqtop fell silent or took the sentence for several.
        """
        before = self.state
        self._write(sentence)
        answer = self._until_prompt(seconds)
        after = self.state
        self._check_one_answer()
        # coqtop counts a state for each sentence that it takes, and none for an error.
        if after == before:
            raise ValueError(" ".join(answer.rpartition("Error:")[2].split())[:200])
        return answer

    def goals(self) -> str:
        """The open goals, as the agent sees them.

        They are asked for, because coqtop of itself shows only goals that it thinks have changed.
        """
        return _shown(self.say("Show.")) or "No more goals."

    def back(self, state: int) -> None:
        """Goes back to an earlier state, as if nothing had been said since."""
        self._write(f"BackTo {state}.")
        self._until_prompt(_BACK_SECONDS)
        if self.state != state:
            self.close()
            raise EnvironmentFailure(
                f"coqtop went to state {self.state}, not back to {state}", "it is started anew"
            )

    def reset(self) -> bool:
        """Goes back to the start, and returns whether coqtop is again as it was there.

        False if a proof is open, or something is defined, set, loaded or noted.
        """
        try:
            self.back(self.start)
            same = not self._open_proofs.strip() and self._ask_what_could_change() == self._at_start
            self.back(self.start)
        except (EnvironmentFailure, ValueError):
            return False
        return same

    def _ask_what_could_change(self) -> list[str]:
        return [self.say(question, _START_SECONDS) for question in _QUESTIONS]

    def _check_one_answer(self) -> None:
        """Raises EnvironmentFailure if the last sentence got more than one answer.

        Coq is asked for a name that nobody knows. Its answer repeats the name, and is the next
        answer unless another one of the last sentence still waits.
        """
        mark = f"xp_{self._secret}_{next(self._marks)}"
        self._write(f"Locate {mark}.")
        if mark not in self._until_prompt(_BACK_SECONDS):
            self.close()
            raise EnvironmentFailure(
                "coqtop took a sentence for more than one", "it is started anew"
            )

    def _write(self, sentence: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(sentence.encode() + b"\n")
        except (OSError, ValueError) as error:
            raise EnvironmentFailure(
                f"coqtop ended: {error}", "it is started anew for the next episode"
            ) from error

    def _until_prompt(self, seconds: float) -> str:
        """All that coqtop writes before its next prompt; sets `state` from that prompt.

        Raises EnvironmentFailure if coqtop ends, writes nothing for `seconds`, or writes too much.
        """
        assert self._process.stdout is not None
        # A read of a pipe has no deadline of its own: the timer kills coqtop, which ends the read.
        watchdog = threading.Timer(seconds, self._process.kill)
        watchdog.start()
        try:
            while not (found := _PROMPT.search(self._pending)):
                more = self._process.stdout.read(1 << 16)
                if not more:
                    said = self._pending[-200:].decode("utf-8", "replace").strip()
                    raise EnvironmentFailure(
                        f"coqtop ended or fell silent: {said}",
                        "it is started anew for the next episode",
                    )
                self._pending += more
                if len(self._pending) > _MOST_ANSWER_BYTES:
                    self._process.kill()
        finally:
            watchdog.cancel()
        answer = self._pending[: found.start()]
        self._pending = self._pending[found.end() :]
        self.state = int(found[2])
        self._open_proofs = found[3]
        return answer.decode("utf-8", "replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait()


def goals_left(answer: str) -> int:
    """The number of open goals that an answer of coqtop tells of; 1 if it tells of none."""
    if "No more goals" in answer or "No more subgoals" in answer:
        return 0
    found = re.search(r"(\d+) (?:sub)?goals?", answer)
    return int(found[1]) if found else 1


def without_goal_ids(answer: str) -> list[str]:
    """The lines of an answer without Coq's internal numbers, which differ from run to run."""
    return [_GOAL_ID.sub("", line) for line in answer.splitlines()]


def _shown(answer: str) -> str:
    """Goals as the agent sees them: hypotheses, a line, the conclusion; then other conclusions."""
    kept = [
        line.strip()
        for line in without_goal_ids(answer)
        if line.strip() and not line.startswith(("<infomsg>", "</infomsg>"))
    ]
    return "\n".join(kept[:_MOST_GOAL_LINES])
