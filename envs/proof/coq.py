"""proof/coq: prove a lemma in Coq, tactic by tactic; the kernel judges.

A real coqtop keeps the proof state; the agent sends tactics, takes them back, or searches. What
closes the last goal is not yet a proof: a second Coq (coqc, a fresh process in its own place)
compiles the whole file, with the original statement written out once more, and only "Closed under
the global context" counts. Lemmas are drawn from families (propositions, linear arithmetic, ring
identities, recursion by induction, lists); miniF2F or other files of lemmas come from the user's
path (`lemmas=`). An answer may hold several sentences (bullets and braces are sentences too); Coq
gets them one by one, and each must be answered by one prompt. Before a coqtop serves another
episode, it is back where it began, and what it then tells of its libraries, options, definitions,
tactics and notations is what it told at its start; else another one is started. Covers: Admitted,
axioms, shadowed notations, loaded files and plugins: an agent sends tactics only, never commands
(`coq_sentences`). Does not cover: a bug in Coq's kernel.
"""

from __future__ import annotations

import itertools
import re
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from envs.authoring import Outcome, action
from envs.proof.coq_sentences import checked, formal, is_structure
from envs.proof.lemma import Lemma, ProofWorld, read_statements
from envs.sandbox import confine
from experience.errors import EnvironmentFailure, MissingPartError

HEADER = ("From Coq Require Import Lia ZArith List Arith.", "Import ListNotations.")
TACTIC_SECONDS, JUDGE_SECONDS = 4, 60
_PROMPT = re.compile(rb"<prompt>(\S+) < (\d+) \|([^|<]*)\| \d+ < </prompt>")
_GLOBAL = (
    "Print Libraries.",
    "Print Options.",
    "Print All.",
    "Print Ltac Signatures.",
    "Print Visibility.",
    "Print HintDb core.",
)
"""What tells of all that a sentence could have changed for the next episode."""


def _proposition(rng: np.random.Generator) -> Lemma:
    a, b, c = (str(x) for x in rng.choice(list("PQRSTU"), 3, replace=False))
    made = [
        (f"{a} /\\ {b} -> {b} /\\ {a}"),
        (f"({a} -> {b}) -> ({b} -> {c}) -> {a} -> {c}"),
        (f"{a} \\/ {b} -> ({a} -> {c}) -> ({b} -> {c}) -> {c}"),
        (f"{a} /\\ ({b} \\/ {c}) -> {a} /\\ {b} \\/ {a} /\\ {c}"),
        (f"~ ({a} \\/ {b}) -> ~ {a} /\\ ~ {b}"),
        (f"({a} -> {b} -> {c}) -> {a} /\\ {b} -> {c}"),
        (f"{a} -> ~ ~ {a}"),
        (f"({a} -> {b}) -> ~ {b} -> ~ {a}"),
    ]
    statement = made[rng.integers(len(made))]
    return Lemma("proposition", "", f"forall {a} {b} {c} : Prop, {statement}", ("tauto.",))


def _linear(rng: np.random.Generator) -> Lemma:
    k, m, n = (int(x) for x in rng.integers(1, 30, 3))
    made = [
        f"forall a b : nat, a <= b -> a + {k} <= b + {k + m}",
        f"forall a b : nat, a + {k} < b -> {m} * a < {m} * b",
        f"forall x y : Z, (x + {k} = y -> {m} * x + {k * m} = {m} * y)%Z",
        f"forall a : nat, {k} < a -> exists b, a = b + {k}",
        f"forall a b c : nat, a < b -> b < c -> a + {min(k, 2)} <= c + {n}",
    ]
    which = int(rng.integers(len(made)))
    proof = ("intros a h.", f"exists (a - {k}).", "lia.") if which == 3 else ("intros.", "lia.")
    return Lemma("linear", "", made[which], proof)


def _ring(rng: np.random.Generator) -> Lemma:
    k, m = (int(x) for x in rng.integers(2, 20, 2))
    made = [
        f"forall x : Z, ((x + {k}) * (x - {k}) = x * x - {k * k})%Z",
        f"forall x y : Z, ((x + {k} * y) * (x + {m} * y) = x * x + {k + m} * (x * y) + {k * m} "
        "* (y * y))%Z",
        f"forall x y : Z, ({k} * (x + y) * {m} = {k * m} * y + {k * m} * x)%Z",
        f"forall x : Z, ((x + {k}) * (x + {k}) * (x + {k}) = "
        f"x * x * x + {3 * k} * (x * x) + {3 * k * k} * x + {k**3})%Z",
    ]
    return Lemma("ring", "", made[rng.integers(len(made))], ("intros.", "ring."))


def _recursion(rng: np.random.Generator) -> Lemma:
    k, c = (int(x) for x in rng.integers(1, 12, 2))
    define = f"Fixpoint f (n : nat) : nat := match n with O => {c} | S m => {k} + f m end."
    made = [
        f"forall n, f n = {c} + {k} * n",
        f"forall n, {c} <= f n",
        "forall n m, n <= m -> f n <= f m",
        f"forall n, f (S n) = f n + {k}",
    ]
    which = int(rng.integers(len(made)))
    proofs = [
        ("induction n as [|n h].", "reflexivity.", "simpl.", "lia."),
        ("induction n as [|n h].", "simpl.", "lia.", "simpl.", "lia."),
        ("intros n m h.", "induction h as [|m h i].", "lia.", "simpl.", "lia."),
        ("intros n.", "simpl.", "lia."),
    ]
    return Lemma("recursion", define, made[which], proofs[which])


def _lists(rng: np.random.Generator) -> Lemma:
    k = int(rng.integers(1, 12))
    made: list[tuple[str, tuple[str, ...]]] = [
        (
            f"forall l : list nat, length (map (fun x => x + {k}) l) = length l",
            ("intros l.", "apply map_length."),
        ),
        (
            f"forall l m : list nat, length (l ++ m ++ repeat {k} {k}) = length l + length m + {k}",
            ("intros l m.", "repeat rewrite app_length.", "rewrite repeat_length.", "lia."),
        ),
        (
            f"forall l : list nat, map (fun x => x + 0) (l ++ [{k}]) = map (fun x => x) (l ++ "
            f"[{k}])",
            ("intros l.", "apply map_ext.", "intros a.", "lia."),
        ),
        (
            f"forall l m : list nat, rev (l ++ [{k}] ++ m) = rev m ++ [{k}] ++ rev l",
            (
                "intros l m.",
                "repeat rewrite rev_app_distr.",
                "simpl.",
                "rewrite app_assoc_reverse.",
                "reflexivity.",
            ),
        ),
        (
            f"forall (l : list nat) (x : nat), In x l -> In (x + {k}) (map (fun y => y + {k}) l)",
            ("intros l x h.", f"exact (in_map (fun y => y + {k}) l x h)."),
        ),
    ]
    statement, proof = made[rng.integers(len(made))]
    return Lemma("list", "", statement, proof)


FAMILIES: tuple[Callable[[np.random.Generator], Lemma], ...] = (
    _proposition,
    _linear,
    _ring,
    _recursion,
    _lists,
)


class Coqtop:
    """One coqtop in its place.

    Sentences go in, goals or an error come out; a state can be gone back to.
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
        self._marks, self._secret = itertools.count(), secrets.token_hex(8)
        self.state, self._proofs = 1, b""
        self._until_prompt(30)
        for sentence in HEADER:
            self.say(sentence, 30)
        self.start = self.state
        self._at_start = self._told()
        self.back(self.start)

    def say(self, sentence: str, seconds: float = TACTIC_SECONDS + 10) -> str:
        """What Coq answers to one sentence. Raises ValueError with Coq's own words for an error
        (nothing has changed), EnvironmentFailure if it fell silent or took the sentence for
        several."""
        before = self.state
        self._write(sentence)
        answer = self._until_prompt(seconds)
        after = self.state
        self._in_step()
        if after == before:
            raise ValueError(" ".join(answer.rpartition("Error:")[2].split())[:200])
        return answer

    def goals(self) -> str:
        """The open goals; asked for, since coqtop tells of itself only those that it thinks are
        news."""
        return _shown(self.say("Show.")) or "No more goals."

    def back(self, state: int) -> None:
        """To an earlier state, as if nothing had been said since."""
        self._write(f"BackTo {state}.")
        self._until_prompt(10)
        if self.state != state:
            self.close()
            raise EnvironmentFailure(
                f"coqtop went to state {self.state}, not back to {state}", "it is started anew"
            )

    def reset(self) -> bool:
        """Whether it is again as it was at its start: no proof open, nothing defined, set, loaded
        or noted."""
        try:
            self.back(self.start)
            same = not self._proofs.strip() and self._told() == self._at_start
            self.back(self.start)
        except (EnvironmentFailure, ValueError):
            return False
        return same

    def _told(self) -> list[str]:
        return [self.say(question, 30) for question in _GLOBAL]

    def _in_step(self) -> None:
        """Asks Coq for a name that nobody knows: its answer is the next one, unless the last
        sentence was several."""
        mark = f"xp_{self._secret}_{next(self._marks)}"
        self._write(f"Locate {mark}.")
        if mark not in self._until_prompt(10):
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
        assert self._process.stdout is not None
        watchdog = threading.Timer(seconds, self._process.kill)
        watchdog.start()
        try:
            while True:
                found = _PROMPT.search(self._pending)
                if found:
                    answer, self._pending = (
                        self._pending[: found.start()],
                        self._pending[found.end() :],
                    )
                    self.state, self._proofs = int(found[2]), found[3]
                    return answer.decode("utf-8", "replace")
                more = self._process.stdout.read(1 << 16)
                if not more:
                    said = self._pending[-200:].decode("utf-8", "replace").strip()
                    raise EnvironmentFailure(
                        f"coqtop ended or fell silent: {said}",
                        "it is started anew for the next episode",
                    )
                self._pending += more
                if len(self._pending) > 1 << 20:
                    self._process.kill()
        finally:
            watchdog.cancel()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait()


def judge(lemma: Lemma, tactics: Sequence[str]) -> str:
    """Empty if a fresh Coq accepts the proof of exactly that statement without axioms, else what it
    said.

    The statement is written a second time and proved by the first, so that nothing in between can
    have changed it.
    """
    coqc = shutil.which("coqc")
    if coqc is None:
        raise MissingPartError("proof/coq needs coqc", "./xp setup worlds")
    text = "\n".join(
        [
            *HEADER,
            lemma.definitions,
            f"Lemma sol : {lemma.statement}.",
            "Proof.",
            *tactics,
            "Qed.",
            f"Definition judged : {lemma.statement} := sol.",
            "Print Assumptions judged.",
            "",
        ]
    )
    try:
        done = confine.run(
            ["sh", "-c", f"cd /tmp && cat > proof.v && {coqc} -q proof.v"],
            stdin=text.encode(),
            seconds=JUDGE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no verdict in {JUDGE_SECONDS} s"
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode == 0 and said.strip().endswith("Closed under the global context"):
        return ""
    return " ".join(said.split())[-300:] or f"coqc ended with {done.returncode}"


def read_lemmas(path: Path) -> list[Lemma]:
    """The Theorem and Lemma statements of .v files (miniF2F's, say), with their binders."""
    return read_statements(
        path, ".v", r"\(\*.*?\*\)", r"\b(?:Theorem|Lemma)\s+\w+\s*(.*?)\.\s*Proof\b", "forall"
    )


class Coq(ProofWorld):
    families = FAMILIES
    cheats = (
        "tactic admit",
        "tactic Admitted",
        "tactic Axiom a : False",
        "tactic give_up",
        "tactic (* *) admit.",
        "tactic Unset Guard Checking",
        "tactic idtac. Admitted",
        'tactic Notation "x = y" := True',
        'tactic Load "/tmp/x"',
        'tactic Redirect "x" Print nat',
        'tactic Declare ML Module "x"',
        "tactic exact_no_check I",
        "tactic vm_cast_no_check I",
        "tactic Abort",
        "tactic Qed",
        "tactic abstract admit",
        "tactic Ltac lia := idtac",
        "tactic { Set Printing All.",
        "tactic - Axiom a : False.",
        "tactic { admit. }",
        "tactic Require Import Classical",
        "tactic Parameter x : False",
        'tactic Extraction "x" nat',
        "search Admitted. Axiom a : False",
        "undo",
    )

    _machine: ClassVar[Coqtop | None] = None
    _one_at_a_time: ClassVar[threading.RLock] = threading.RLock()
    _owner: ClassVar[Any] = None

    def __init__(self, lemmas: str | None = None) -> None:
        super().__init__(read_lemmas(Path(lemmas).expanduser()) if lemmas else [])

    def begin(self) -> None:
        self._done = []
        self._goals = ""
        with Coq._one_at_a_time:
            if Coq._owner is self:
                Coq._owner = None  # a new episode: what the last one left is looked at
            self._replay()

    def _replay(self) -> Coqtop:
        """The shared coqtop, in this episode's proof state: it serves whoever speaks, one at a
        time."""
        with Coq._one_at_a_time:
            machine = Coq._machine
            if (
                machine is None
                or not machine.alive
                or (Coq._owner is not self and not machine.reset())
            ):
                if machine is not None:
                    machine.close()
                machine = Coq._machine = Coqtop()
                Coq._owner = None
            if Coq._owner is not self or not self._goals:
                machine.back(machine.start)
                if self.task.definitions:
                    machine.say(self.task.definitions)
                machine.say(f"Lemma sol : {self.task.statement}.")
                for answer in self._done:
                    self._say(machine, answer)
                self._state = machine.state
                Coq._owner = self
                self._goals = machine.goals()
            return machine

    def _begin_again(self, machine: Coqtop) -> None:
        """Another coqtop in place of `machine`, in this episode's proof state."""
        self._goals = ""
        machine.close()
        self._replay()

    @staticmethod
    def _say(machine: Coqtop, answer: str) -> None:
        for sentence in checked(answer):
            machine.say(formal(sentence, TACTIC_SECONDS))

    def observe(self) -> str:
        return "\n".join([*([self.task.definitions] if self.task.definitions else []), self._goals])

    @action
    def tactic(self, text: str) -> Outcome:
        """Apply Coq tactics, with bullets and braces; all of them or, if one fails, none."""
        said = checked(text)
        tried = float(sum(not is_structure(sentence) for sentence in said) or 1)
        with Coq._one_at_a_time:
            machine = self._replay()
            try:
                self._say(machine, text)
            except ValueError as wrong:
                machine.back(self._state)
                self._note = f"\n! {wrong}"
                return {"tactics": tried, "errors": (1.0, str(wrong))}, False
            except EnvironmentFailure:
                self._begin_again(machine)  # a tactic that killed Coq is an error of its own
                self._note = "\n! that ended Coq"
                return {"tactics": tried, "errors": (1.0, "coqtop ended")}, False
            self._done.append(text)
            self._state = machine.state
            self._goals = machine.goals()
        left = goals_left(self._goals)
        signals: dict[str, Any] = {"tactics": tried, "goals_left": float(left)}
        if left:
            return signals, False
        verdict = judge(self.task, written(self._done))
        return signals | {
            "proved": (float(not verdict), verdict or "closed under the global context")
        }, True

    @action
    def undo(self) -> Outcome:
        """Take the last answer back."""
        if not self._done:
            raise ValueError("nothing to undo")
        with Coq._one_at_a_time:
            self._replay()
            self._done.pop()
            self._goals = ""
            self._replay()
        return {"tactics": 1.0}, False

    @action
    def search(self, pattern: str) -> Outcome:
        """List lemmas about a name or pattern."""
        if not re.fullmatch(r"[\w() +*<=_/\\-]{1,60}", pattern, re.ASCII) or "(*" in pattern:
            raise ValueError("a pattern is names, _ and operators; (* begins a comment")
        with Coq._one_at_a_time:
            machine = self._replay()
            try:
                said = machine.say(f"Timeout {TACTIC_SECONDS} Search ({pattern}).")
                machine.back(self._state)
            except ValueError as wrong:
                said = str(wrong)
            except (
                EnvironmentFailure
            ):  # it found more than is read, say: the agent's doing, as for a tactic
                self._note = "\n! that ended Coq"
                self._begin_again(machine)
                return {"tactics": 1.0, "errors": (1.0, "coqtop ended")}, False
        self._note = "\n" + "\n".join(said.strip().splitlines()[:12])[:800]
        return {"tactics": 1.0}, False

    def restore(self, snapshot: bytes) -> tuple[str, dict[str, Any]]:
        with Coq._one_at_a_time:
            Coq._owner = None  # the proof is said again to coqtop before the next tactic
            return super().restore(snapshot)

    def random_action(self, rng: np.random.Generator) -> str:
        return "tactic " + str(
            rng.choice(
                [
                    "intros.",
                    "simpl.",
                    "lia.",
                    "ring.",
                    "reflexivity.",
                    "auto.",
                    "split.",
                    "induction n.",
                    "tauto.",
                    "left.",
                    "right.",
                    "assumption.",
                    "intros l.",
                ]
            )
        )

    def close(self) -> None:
        with Coq._one_at_a_time:
            if Coq._owner is self:
                Coq._owner = None
        super().close()


def written(answers: Sequence[str]) -> list[str]:
    """The sentences of a proof as `judge` reads them; braces that are open when no goal is left are
    closed."""
    said = [sentence for answer in answers for sentence in checked(answer)]
    still_open = sum(s.endswith("{") for s in said) - said.count("}")
    return [formal(sentence) for sentence in said] + ["}"] * still_open


def goals_left(said: str) -> int:
    if "No more goals" in said or "No more subgoals" in said:
        return 0
    found = re.search(r"(\d+) (?:sub)?goals?", said)
    return int(found[1]) if found else 1


def _shown(said: str) -> str:
    """Coq's answer as the agent sees it: hypotheses, a line, and the goal; other goals as
    conclusions."""
    lines = [re.sub(r" \(ID \d+\)", "", line).rstrip() for line in said.splitlines()]
    kept = [
        line.strip()
        for line in lines
        if line.strip() and not line.startswith(("<infomsg>", "</infomsg>"))
    ]
    return "\n".join(itertools.islice(kept, 40))
