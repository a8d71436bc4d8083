"""proof/lean: what is refused, and, where the user's Lean 4 is there, what it proves.

XP_LEAN names a toolchain whose bin/lean is not on the path, XP_LEAN_SECONDS what one run of it may
take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from envs.proof.lean.tactics import checked_tactic
from envs.proof.lean.world import Lean, read_theorems
from envs.sandbox import confine
from experience.errors import MissingPartError

TOOLCHAIN = os.environ.get("XP_LEAN", "")
needs_lean = pytest.mark.skipif(
    not (TOOLCHAIN or shutil.which("lean")), reason="no Lean 4 on the path, nor XP_LEAN"
)


@pytest.mark.parametrize(
    "text",
    [
        *(c.removeprefix("tactic ") for c in Lean.cheats if str(c).startswith("tactic ")),
        "simp; sorry",
        "Sorry",
        "exact h\naxiom f : False",
        "simp %x",
        "first | sorry | rfl",
        "· sorry",
        "exact «sorry»",
    ],
)
def test_a_command_or_a_hole_is_refused_as_a_tactic(text: str) -> None:
    with pytest.raises(ValueError, match=r"refused|small letter"):
        checked_tactic(text)


def test_what_lean_people_write_is_a_tactic() -> None:
    for text in (
        "intro h",
        "exact ⟨h.2, h.1⟩",
        "induction n with | zero => rfl | succ n ih => omega",
        "rw [Nat.add_comm]",
        "simp only [List.length_append, endpoint]",
        "obtain ⟨x, hx⟩ := h",
        "<;> simp",
        "constructor <;> assumption",
        "have h2 : a + 1 ≤ b := by omega",
        "exact Nat.le_of_lt h",
        "cases h.symm",
    ):
        assert checked_tactic(text) == text


def test_statements_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.lean").write_text("""/- theorem no : False := by -/
theorem mathd_1 (x : Int) (h₀ : 2 * x = 4) :
    x = 2 := by
  omega
-- theorem neither : True := by
lemma two : 1 + 1 = 2 := by rfl
""")
    assert [t.statement for t in read_theorems(tmp_path)] == [
        "∀ (x : Int) (h₀ : 2 * x = 4), x = 2",
        "1 + 1 = 2",
    ]
    (tmp_path / "a.lean").write_text("def x := 1")
    with pytest.raises(MissingPartError, match="holds no theorem"):
        read_theorems(tmp_path)


def test_a_missing_lean_or_project_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="no bin/lean in"):
        gymnasium.make("envs:Lean-v0", toolchain=str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lean").touch()
    with pytest.raises(MissingPartError, match="no built Lake project"):
        gymnasium.make("envs:Lean-v0", toolchain=str(tmp_path), project=str(tmp_path))


STAND_IN = r"""#!/bin/sh
text=$(cat)
say() { printf '{"severity": "%s", "data": "%s"}\n' "$1" "$2"; }
case "$text" in
*wrong*) say error 'unknown ∧ wrong'; exit 1 ;;
*borrowed*"#print axioms"*) say information "'judged' depends on axioms: [propext, boom]" ;;
*"#print axioms"*) say information "'judged' depends on axioms: [propext]" ;;
*exact*) ;;
*) say error 'unsolved goals\n⊢ P ∧ Q\n\n⊢ P → Q'; exit 1 ;;
esac
"""
"""Answers as Lean does: `exact` closes the last goal, and `exact borrowed` uses an axiom for it."""


@pytest.fixture
def answered() -> Iterator[Any]:
    """The world with a stand-in for Lean, which its places can read."""
    with confine.folder("xp-lean-") as folder:
        lean = Path(folder) / "bin" / "lean"
        lean.parent.mkdir(mode=0o755)
        lean.write_text(STAND_IN)
        lean.chmod(0o755)
        world = gymnasium.make("envs:Lean-v0", toolchain=folder).unwrapped
        world.reset(seed=0)
        yield world


GOALS = "|- P /\\ Q\n|- P -> Q"


def test_open_goals_are_shown_and_a_tactic_that_errs_leaves_them(answered: Any) -> None:
    assert answered.observe() == GOALS
    seen, _, _, _, info = answered.step("tactic apply wrong")
    assert seen == f"{GOALS}\n! unknown /\\ wrong"
    assert info["signals"]["errors"] == (1.0, "unknown /\\ wrong")
    assert answered.accepted() == []


def test_the_last_tactic_is_taken_back_and_the_first_goal_is_there_again(answered: Any) -> None:
    assert answered.step("tactic intros")[4]["signals"] == {"tactics": 1.0, "goals_left": 2.0}
    assert answered.accepted() == ["intros"]
    assert answered.step("undo")[0] == GOALS and answered.accepted() == []
    assert answered.step("undo")[0] == f"{GOALS}\n! nothing to undo"


@pytest.mark.parametrize(
    ("tactic", "proved"),
    [
        ("exact h", (1.0, "no axiom but Lean's own")),
        ("exact borrowed", (0.0, "'judged' depends on axioms: [propext, boom]")),
    ],
)
def test_the_second_lean_decides_and_an_axiom_that_is_not_its_own_pays_nothing(
    tactic: str, proved: tuple[float, str], answered: Any
) -> None:
    _, _, terminated, _, info = answered.step(f"tactic {tactic}")
    assert terminated and info["signals"]["proved"] == proved


@needs_lean
@pytest.mark.timeout(3600)
@pytest.mark.long
def test_a_real_lean_shows_goals_takes_tactics_and_judges(tmp_path: Path) -> None:
    (tmp_path / "a.lean").write_text("theorem t (p q : Prop) (h : p ∧ q) : q ∧ p := by\n")
    world: Any = gymnasium.make(
        "envs:Lean-v0",
        toolchain=TOOLCHAIN,
        theorems=str(tmp_path),
        seconds=float(os.environ.get("XP_LEAN_SECONDS", "60")),
    ).unwrapped
    world.task, world.split = world._given[0], "train"
    world._turn, world._ended, world._acted = 0, False, []
    world.begin()
    assert world.observe() == "|- forall (p q : Prop), p /\\ q -> q /\\ p"
    assert world.act("tactic exact nonsense")[0]["errors"][0] == 1
    signals, ended = world.act("tactic intro p q h <;> constructor")
    assert signals["goals_left"] == 2 and not ended
    assert world.observe().splitlines()[:4] == ["case left", "p q : Prop", "h : p /\\ q", "|- q"]
    signals, ended = world.act("tactic all_goals simp [h]")
    assert ended and signals["goals_left"] == 0
    said = signals["proved"]
    for wrong in (["exact sorryAx _ true"], ["exact test_sorry"], ["decide +native"], ["simp"]):
        # As if the tactic had passed the words that are refused.
        assert world.elaborator.verdict(world.task.statement, wrong), wrong
    if "in a `module`" in said[1]:
        pytest.skip(
            "this build of Lean takes every file for a module, for which it names no axioms: "
            "nothing is credited"
        )
    assert said == (1.0, "no axiom but Lean's own")
