"""What Coq is told is tactics: by sentence, with bullets and braces, and no command however it is
wrapped."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.proof.coq.coqtop import Coqtop
from envs.proof.coq.families import FAMILIES
from envs.proof.coq.sentences import MOST_SENTENCES, checked, formal, sentences
from envs.proof.coq.world import Coq
from envs.proof.lemma import Lemma
from experience.errors import EnvironmentFailure

needs_coq = pytest.mark.skipif(
    shutil.which("coqc") is None, reason="Coq is not installed: ./xp setup worlds"
)
SWAP = Lemma("proposition", "", "forall P Q : Prop, P /\\ Q -> Q /\\ P", ("tauto.",))


@pytest.fixture(scope="module")
def coq() -> Iterator[Any]:
    world = gymnasium.make("envs:Coq-v0").unwrapped
    yield world
    world.close()


@pytest.fixture
def machine() -> Iterator[Coqtop]:
    made = Coqtop()
    yield made
    made.close()


def proved(world: Any, lemma: Lemma, answers: list[str]) -> tuple[float, str]:
    """What the last answer was paid for `proved`, and what was seen."""
    world.tasks = lambda split, rng: lemma
    seen = world.reset(seed=0)[0]
    info: dict[str, Any] = {"signals": {}}
    for answer in answers:
        seen, _, _, _, info = world.step(f"tactic {answer}")
    return info["signals"].get("proved", (0.0, ""))[0], seen


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("lia", ["lia."]),
        ("lia.", ["lia."]),
        ("- lia.", ["-", "lia."]),
        ("-- lia", ["--", "lia."]),
        ("-lia.", ["-", "lia."]),
        ("{ split. }", ["{", "split.", "}"]),
        ("{split.}", ["{", "split.}."]),
        ("} { + lia.", ["}", "{", "+", "lia."]),
        ("2: { lia. }", ["2: {", "lia.", "}"]),
        ("[x]: { lia.", ["[x]: {", "lia."]),
        ("all: lia.", ["all: lia."]),
        ("a. b.\nc", ["a.", "b.", "c."]),
        ("apply Nat.add_comm. lia.", ["apply Nat.add_comm.", "lia."]),
        ("intros; [ .. | lia ]. lia.", ["intros; [ .. | lia ].", "lia."]),
        ("auto... lia.", ["auto...", "lia."]),
        ("exists 1.5. lia.", ["exists 1.5.", "lia."]),
        ("a (* . b. *) c. d.", ["a c.", "d."]),
        ('(* a (* b *) " *) " *) lia.', ["lia."]),
        ("*** - lia.", ["***", "-", "lia."]),
        ("1-2, 4: lia.", ["1-2, 4: lia."]),
        (
            "induction n as [|n h]. { easy. } easy.",
            ["induction n as [|n h].", "{", "easy.", "}", "easy."],
        ),
        ("", []),
    ],
)
def test_a_text_is_cut_where_coq_cuts_it(text: str, cut: list[str]) -> None:
    assert sentences(text) == cut


def test_a_tactic_is_said_between_brackets_with_its_goals_before_them() -> None:
    assert [formal(s, 4) for s in checked("- intros; lia. 2: { all: auto. }")] == [
        "-",
        "Timeout 4 (intros; lia).",
        "2: {",
        "Timeout 4 all: (auto).",
        "}",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "lia). Set Printing All. (lia",
        "lia) (",
        "]",
        "(lia]",
        "{ lia) }",
        'idtac "x"',
        "a `b`",
        "lia ....",
        "(* lia",
        "a.(b)",
        "f\u2024 b",
        "lia\x00.",
        " ",
        "(* *)",
        "par: lia.",
        "1: 2: lia)",
        "start ltac profiling",
        "tauto || admit",
        "exact ltac:(give_up)",
        "a. " * (MOST_SENTENCES + 1),
    ],
)
def test_what_could_close_our_brackets_or_ends_in_doubt_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        checked(text)


BULLETS = (
    ["intros P Q h. destruct h as [p q]. split. - exact q. - exact p."],
    ["intros P Q h. destruct h as [p q]. split.", "-", "exact q.", "- exact p."],
    ["intros P Q h.", "destruct h as [p q]. split.", "{ exact q. }", "{ exact p. }"],
    ["intros P Q h. destruct h as [p q]. split. { exact q. } exact p."],
    ["{ tauto."],
    ["{ { tauto. }"],
    ["intros P Q h. destruct h as [p q]. split. { exact q. } { exact p."],
    ["intros P Q h. destruct h as [p q]. split. 2: { exact p. } exact q."],
    ["intros P Q h. destruct h as [p q]. split. all: assumption."],
    ["- + * -- tauto."],
    ["intros P Q h. destruct h as [p q]; split. 1-2: assumption."],
    ["(* by hand *) tauto (* . *)."],
)


@needs_coq
@pytest.mark.parametrize("answers", BULLETS, ids=" / ".join)
def test_a_proof_with_bullets_and_braces_is_paid(answers: list[str], coq: Any) -> None:
    assert proved(coq, SWAP, answers)[0] == 1.0


@needs_coq
@pytest.mark.parametrize("family", range(5))
def test_every_family_is_proved_in_one_answer_by_bullets_and_by_braces(
    family: int, coq: Any
) -> None:
    lemma = FAMILIES[family](np.random.default_rng([family, 1]))
    proof = " ".join(lemma.proof)
    for whole in (f"- {proof}", f"+ {{ {proof}"):
        assert proved(coq, lemma, [whole])[0] == 1.0, whole


@needs_coq
def test_an_induction_by_bullets_is_paid_and_one_goal_left_is_not(coq: Any) -> None:
    lemma = Lemma("x", "", "forall n : nat, n + 0 = n", ("lia.",))
    assert (
        proved(
            coq, lemma, ["induction n as [|n h]. - reflexivity. - simpl. rewrite h. reflexivity."]
        )[0]
        == 1.0
    )
    paid, seen = proved(coq, lemma, ["induction n as [|n h]. { reflexivity. }"])
    assert paid == 0 and "S n" in seen
    paid, seen = proved(coq, lemma, ["induction n as [|n h]. - reflexivity."])
    assert paid == 0 and "No more goals" not in seen


@needs_coq
def test_an_answer_of_which_a_sentence_fails_changes_nothing(coq: Any) -> None:
    _, first = proved(coq, SWAP, [])
    seen, _, _, _, info = coq.step("tactic intros P Q h. split. - exact h.")
    assert seen.startswith(first) and info["signals"]["errors"][0] == 1.0 and "\n!" in seen
    assert coq.step("tactic intros P Q h. split.")[0] != first
    assert coq.step("undo")[0] == first


COMMANDS = (
    "Set Printing All.",
    "Unset Printing Notations.",
    "Set Nested Proofs Allowed.",
    "Axiom boom : False.",
    "Parameter boom : False.",
    "Ltac lia := idtac.",
    'Redirect "out" Print nat.',
    "Require Import Classical.",
    'Notation "x === y" := True (at level 70).',
    "Definition f := 1.",
    "Hint Resolve I : core.",
    "Print nat.",
    "Abort.",
    "Admitted.",
    'Cd "/tmp".',
    "Time idtac.",
    "Fail Qed.",
    "Timeout 1 idtac.",
    "#[local] Axiom b : False.",
    "Unset Guard Checking.",
    "Require Extraction.",
    'Declare ML Module "coq-core.plugins.ssreflect".',
    "Fixpoint g (n : nat) : nat := n.",
    "Inductive U := u.",
    "Opaque plus.",
    "Check nat.",
    "Local Set Printing All.",
    "Goal True.",
    "Restart.",
    "Undo.",
    "Show Script.",
    "Focus.",
    "Unfocus.",
    "Grab Existential Variables.",
)
CARRIERS = {"": 1, "{ ": 2, "- ": 2, "idtac. ": 2, "1: { ": 2, "- { ": 3, "{ (* *)": 2}


@needs_coq
def test_commands_that_coqtop_takes_are_refused_however_they_are_wrapped(machine: Coqtop) -> None:
    """The control: the same text goes to coqtop as it is, which runs it."""
    taken = 0
    for carrier, command in itertools.product(CARRIERS, COMMANDS):
        with pytest.raises(ValueError):
            checked(carrier + command)
        machine.back(machine.start)
        machine.say("Lemma sol : True.")
        machine._write(carrier + command)
        answers = [machine._until_prompt(10) for _ in range(CARRIERS[carrier])]
        taken += not any("Error" in answer for answer in answers)
    assert taken >= 150, taken


@needs_coq
def test_brackets_alone_keep_every_command_out(machine: Coqtop) -> None:
    """Were our words to let one through, Coq's grammar would not."""
    for command in COMMANDS:
        machine.back(machine.start)
        machine.say("Lemma sol : True.")
        with pytest.raises(ValueError):
            machine.say(formal(command, 4))
    assert machine.reset()


@needs_coq
def test_a_sentence_that_coq_takes_for_two_ends_that_coqtop_and_never_answers_for_another() -> None:
    for two in (
        "Lemma a : True. exact I.",
        "Lemma a : True. {",
        "Print nat. Print nat. Print nat.",
    ):
        poisoned = Coqtop()
        with pytest.raises(EnvironmentFailure, match="more than one"):
            poisoned.say(two)
        assert not poisoned.alive


@needs_coq
def test_what_outlives_going_back_is_seen_and_the_next_episode_has_another_coqtop(coq: Any) -> None:
    """Options of a plugin stay when Coq goes back to before it was loaded."""
    assert proved(coq, SWAP, [])[0] == 0
    used = Coq.shared.machine
    assert used is not None
    coq.reset(seed=0)
    assert Coq.shared.machine is used, "nothing was left behind"
    used.say("Require Extraction.", 30)
    coq.reset(seed=0)
    assert Coq.shared.machine is not used and not used.alive
    assert proved(coq, SWAP, ["tauto."])[0] == 1.0


@needs_coq
def test_a_poisoned_episode_does_not_change_the_next(coq: Any) -> None:
    _, first = proved(coq, SWAP, ["intros P Q h."])
    for carrier, command in itertools.product(("", "{ ", "intros P Q h. - "), COMMANDS):
        coq.reset(seed=0)
        coq.step(f"tactic {carrier}{command}")
        assert proved(coq, SWAP, ["intros P Q h."])[1] == first
    assert proved(coq, SWAP, ["tauto."])[0] == 1.0


@needs_coq
@pytest.mark.parametrize("pattern", ["(*", "(* ", "nat (* a *)", "_", "аbc", "_ _", "_ = _", "(_)"])
def test_no_search_fails_the_world_or_loses_the_proof(pattern: str, coq: Any) -> None:
    """A failed world pays nothing and takes nothing: an agent must not be able to choose it."""
    _, shown = proved(coq, SWAP, ["intros P Q h."])
    seen, reward, *_ = coq.step(f"search {pattern}")
    assert seen.startswith(shown) and reward < 0
    assert coq.step("tactic tauto.")[4]["signals"]["proved"][0] == 1.0


@needs_coq
def test_two_worlds_take_turns_at_one_coqtop_each_in_its_own_proof(coq: Any) -> None:
    other = gymnasium.make("envs:Coq-v0").unwrapped
    _, shown = proved(coq, SWAP, ["intros P Q h."])
    del coq.tasks  # given by `proved`; a snapshot holds no functions
    saved = coq.snapshot()
    assert proved(other, SWAP, ["intros A B."])[1] != shown
    assert coq.step("tactic destruct h as [p q]. split.")[0] != shown
    assert coq.restore(saved)[0] == shown
    assert other.step("undo")[4]["signals"] == {"tactics": 1.0}
    assert coq.step("tactic tauto.")[4]["signals"]["proved"][0] == 1.0
    other.close()
