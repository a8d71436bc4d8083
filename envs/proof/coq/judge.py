"""The verdict on a Coq proof: a fresh coqc compiles the whole file, in a place of its own.

The statement is written a second time and proved by the first, so that nothing in between can have
changed it; only "Closed under the global context" counts. Covers: Admitted, axioms, another
statement under the same name. Does not cover: a bug in Coq's kernel.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from envs.proof.coq.coqtop import HEADER
from envs.proof.coq.sentences import checked, formal
from envs.proof.lemma import Lemma
from envs.sandbox import confine
from experience.errors import MissingPartError

JUDGE_SECONDS = 60


def judge(lemma: Lemma, tactics: Sequence[str]) -> str:
    """Empty if a fresh Coq accepts the proof of exactly that statement without axioms.

    Else what Coq said. Raises MissingPartError without coqc.
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
    # The end of the output: what comes before it, a proof can have printed.
    if done.returncode == 0 and said.strip().endswith("Closed under the global context"):
        return ""
    return " ".join(said.split())[-300:] or f"coqc ended with {done.returncode}"


def as_judged(answers: Sequence[str]) -> list[str]:
    """The sentences of a proof as `judge` reads them.

    Braces that are still open when no goal is left are closed: coqtop does not ask for the closing
    ones, coqc does.
    """
    said = [sentence for answer in answers for sentence in checked(answer)]
    still_open = sum(s.endswith("{") for s in said) - said.count("}")
    return [formal(sentence) for sentence in said] + ["}"] * still_open
