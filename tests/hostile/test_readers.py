"""docs/security.md's table of judges is true: what reads an agent's text is where it says, and
nothing else reads it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import envs
from envs.authoring import ToolWorld, tools_of

ROOT = Path(__file__).resolve().parents[2]
ROWS = {
    cells[0]: cells
    for line in (ROOT / "docs/security.md").read_text().split("## Judges")[1].splitlines()
    if len(cells := [c.strip() for c in line.strip("|").split("|")]) == 5
    and cells[0] in envs.WORLDS
}
RUNNING = {
    "eval",
    "exec",
    "parse_expr",
    "sympify",
    "literal_eval",
    "__import__",
    "system",
    "popen",
    "loads of pickle",
    "load of pickle",
    "load of yaml",
    "unsafe_load",
    "full_load",
    "read_pickle",
    "loads of marshal",
    "open of shelve",
}
"""Calls that may make a program of a text, and those that a text should not get near."""
PLACED = {
    "Reasoning-v0": ("reasoning_gym",),
    "Arena-v0": ("textarena",),
    "Duel-v0": ("pettingzoo",),
    "Household-v0": ("textworld_express", "py4j"),
    "Science-v0": ("scienceworld", "py4j"),
    "Peer-v0": ("verifiers", "nemo_gym", "browsergym"),
}
"""The packages whose code reads what an agent wrote, by the world that has them in a place."""
NUMBERS = {
    "Reactor-v0": {"cantera"},
    "Materials-v0": {"pycalphad"},
    "Battery-v0": {"pybamm"},
    "Liquid-v0": {"pylabrobot", "sila2"},
}
"""Packages in the host that are given numbers and choices only."""
OURS = {"envs/sandbox/zygote.py": {"exec"}, "envs/contract.py": {"loads of pickle"}}
"""Where we do such ourselves: the cage, where an agent's code is meant to run, and our own
snapshots."""


def calls(source: str) -> set[str]:
    """The calls of `RUNNING` that a module's source makes, aliases of a module as the module."""
    tree = ast.parse(source)
    modules = {
        a.asname or a.name: a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.Import)
        for a in n.names
    }
    modules |= {
        a.asname or a.name: f"{a.name} of {n.module}"
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom)
        for a in n.names
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            named = modules.get(node.func.id, node.func.id)
            found |= {
                node.func.id,
                named,
                named.partition(" of ")[0] if node.func.id not in ("load", "loads", "open") else "",
            }
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = (
                modules.get(node.func.value.id, node.func.value.id)
                if isinstance(node.func.value, ast.Name)
                else ""
            )
            found |= {f"{node.func.attr} of {owner}"} | (
                {node.func.attr} if owner != "re" else set()
            )
    return found & RUNNING


def imports(source: str) -> set[str]:
    """The top names of all that a source imports, strings given to import_module included."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
            and node.args
        ):
            names.add(ast.unparse(node.args[0]).lstrip("f").strip("'\""))
    return {n.partition(".")[0] for n in names}


def ours() -> Iterator[tuple[str, str]]:
    """(path, source) of all that runs in the host: what runs in places is left out."""
    for path in sorted((ROOT / "envs").rglob("*.py")):
        where = str(path.relative_to(ROOT))
        if not where.startswith(
            ("envs/bridges/guests/", "envs/bridges/peers/", "envs/bridges/offered/")
        ):
            yield where, path.read_text()


def files_of(package: str) -> Iterator[Path]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed: ./xp setup worlds")
    yield from Path(next(iter(spec.submodule_search_locations))).rglob("*.py")


def moved_back(sources: Iterator[tuple[str, str]]) -> set[tuple[str, str]]:
    """(path, package) of each package of `PLACED` that code of the host imports."""
    among = {package for packages in PLACED.values() for package in packages} | {"sympy"}
    return {(where, package) for where, source in sources for package in imports(source) & among}


def test_every_world_is_in_the_table_with_its_tier() -> None:
    assert set(ROWS) == set(envs.WORLDS)
    for name, entry in envs.WORLDS.items():
        module, _, kind = entry.partition(":")
        world, told = getattr(import_module(module), kind), ROWS[name][3]
        if told == "the cage's":
            assert any(
                "tier()" in Path(import_module(c.__module__).__file__ or "").read_text()
                and "sandbox_tier" in Path(import_module(c.__module__).__file__ or "").read_text()
                for c in world.__mro__
                if c.__module__.startswith("envs.") and c.__module__ != "envs.contract"
            ), name
        elif name != "Peer-v0":  # which says it itself, by `confined`
            assert world.sandbox_tier == told.partition(";")[0], name


def test_what_runs_text_is_in_no_world_without_a_place() -> None:
    for name, packages in PLACED.items():
        assert ROWS[name][3] == "namespaces", name
        assert "place" in ROWS[name][2] and packages


def test_no_judge_is_in_the_hosts_process() -> None:
    # The user names a game of Players-v0, and its actions are numbers that we read.
    assert moved_back(ours()) == {("envs/bridges/games/players.py", "pettingzoo")}
    before = "def score(name):\n    import reasoning_gym\n    return reasoning_gym.create_dataset(name)\n"
    assert moved_back(iter([("envs/bridges/reasoning.py", before)])) == {
        ("envs/bridges/reasoning.py", "reasoning_gym")
    }
    lazily = "import importlib\ndef env(game):\n    return importlib.import_module(f'pettingzoo.{game}').env()\n"
    assert moved_back(iter([("envs/x.py", lazily)])) == {("envs/x.py", "pettingzoo")}


def test_our_own_code_runs_no_text_but_where_it_says() -> None:
    assert {
        where: found for where, source in ours() if (found := calls(source) - {"__import__"})
    } == OURS
    assert calls("import yaml as y\ny.load(text)") == {"load of yaml"}
    assert calls("from pickle import loads\nloads(x)") == {"loads of pickle"}
    assert calls(
        "import pandas as pd\npd.read_pickle(x)\nf.eval(y)\nimport json\njson.loads(z)"
    ) == {"read_pickle", "eval"}
    assert calls("import re\nre.compile(x)\njson.load(y)") == set()


def test_the_scorers_that_run_an_answer_are_those_that_are_replaced() -> None:
    """A new version of the package with a tenth is noticed."""
    found: dict[str, set[str]] = {}
    for path in files_of("reasoning_gym"):
        functions = [
            n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)
        ]
        for function in functions:
            if function.name == "score_answer" and (
                some := calls(ast.unparse(function)) - {"__import__"}
            ):
                found[str(path).split("reasoning_gym/")[-1]] = some
    evaluating = {
        f"algorithmic/{n}.py"
        for n in ("spiral_matrix", "string_insertion", "binary_matrix", "number_sorting")
    }
    parsing = {
        "games/countdown.py",
        "games/puzzle24.py",
        "algebra/simple_integration.py",
        "algebra/intermediate_integration.py",
        "algebra/polynomial_multiplication.py",
    }
    assert {p for p, c in found.items() if "eval" in c} == evaluating | {
        "games/n_queens.py"
    }  # number_sorting: its own answer
    assert {p for p, c in found.items() if "parse_expr" in c} == parsing


def test_the_games_run_no_text_but_where_the_page_says() -> None:
    for package in ("textarena", "pettingzoo"):
        found = {}
        for path in files_of(package):
            with suppress(SyntaxError):  # what this Python cannot read, it cannot run
                some = calls(path.read_text()) - {"__import__", "system", "popen"}
                if some and not {"agents", "test"} & set(path.parts):
                    found[path.parent.name] = some
        assert found == ({"Tak": {"literal_eval"}} if package == "textarena" else {})


@pytest.mark.parametrize("name", NUMBERS)
def test_a_library_in_the_host_is_given_numbers_and_choices_only(name: str) -> None:
    module, _, kind = envs.WORLDS[name].partition(":")
    world = getattr(import_module(module), kind)
    assert ROWS[name][3] == "none-needed"
    if issubclass(world, ToolWorld):
        parameters = [p for tool in tools_of(world).values() for p in tool.parameters]
        assert parameters and all(p.type is not str or p.choices for p in parameters)


def test_a_world_of_our_own_imports_no_stranger() -> None:
    """Within envs/lab, envs/health and envs/small/grid.py: Python's own, numpy, gymnasium, and what is
    given numbers."""
    import sys

    allowed = {"numpy", "gymnasium", "envs", "experience"} | {
        p for packages in NUMBERS.values() for p in packages
    }
    for where, source in ours():
        if where.startswith(("envs/lab/", "envs/health/", "envs/small/grid.py")):
            strangers = {
                n for n in imports(source) if n and n not in sys.stdlib_module_names
            } - allowed
            assert not strangers, (where, strangers)
