"""The public names of `experience`: all there, imported late, and typed."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import experience

ROOT = Path(__file__).resolve().parent.parent


def test_import_experience_loads_nothing_heavy() -> None:
    code = (
        "import sys, experience\n"
        "heavy = {'numpy', 'pyarrow', 'torch', 'safetensors', 'ray', 'gymnasium'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "experience.Step\n"
        "print('numpy' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True False"]


def test_every_public_name_is_the_object_of_its_module() -> None:
    for name in experience.__all__:
        found = getattr(experience, name)
        assert getattr(sys.modules[found.__module__], name) is found
        assert found.__doc__ or issubclass(found, Exception), f"{name} says what it is"
    assert set(experience.__all__) <= set(dir(experience))


def test_type_checkers_see_the_names_that_programs_get() -> None:
    tree = ast.parse(Path(experience.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"experience.{module}" for name, module in experience._HOME.items()}
    assert sorted(seen) == experience.__all__


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Stepping'"):
        _ = experience.Stepping


def test_the_package_ships_the_mark_that_it_is_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # whole: tests/api/test_wheel.py looks into the wheel
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["experience"]
    assert (ROOT / "experience" / "py.typed").exists()
