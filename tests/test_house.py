"""The house: imports run down the picture only, and each heavy library has one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"experience": {"actors", "envs", "ray", "gymnasium", "playwright"}, "actors": {"envs"}, "envs": {"actors"}}
HOMES = {
    "ray": ("actors/pool.py",),
    "pyarrow": ("experience/shards/",),
    "playwright": ("envs/browser/", "envs/bridges/peers/"),
    "cantera": ("envs/lab/",), "pycalphad": ("envs/lab/",), "pybamm": ("envs/lab/",),
    "mcp": ("envs/bridges/",), "textarena": ("envs/bridges/",), "pettingzoo": ("envs/bridges/",),
    "torch": ("experience/models/", "experience/learning/", "experience/planning/", "actors/engines/", "actors/pool.py",
              "actors/parts.py", "actors/doctor.py"),
    "transformers": ("experience/models/", "actors/engines/"),
    "openai": ("actors/engines/",),
}


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {a.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    return names | {(n.module or "").partition(".")[0] for n in ast.walk(tree)
                    if isinstance(n, ast.ImportFrom) and not n.level}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_down_the_picture_only(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        assert not imported(path) & FORBIDDEN[room], path


@pytest.mark.parametrize("library", HOMES)
def test_each_heavy_library_has_one_home(library: str) -> None:
    for room in FORBIDDEN:
        for path in (ROOT / room).rglob("*.py"):
            where = str(path.relative_to(ROOT))
            assert library not in imported(path) or where.startswith(HOMES[library]), where


def test_the_main_loop_fits_one_screen() -> None:
    assert len((ROOT / "actors/run.py").read_text().splitlines()) <= 50


def test_help_loads_nothing_heavy() -> None:
    code = ("import sys; sys.argv = ['xp', '--help']\n"
            "from actors.cli import app\n"
            "try: app()\n"
            "except SystemExit: pass\n"
            "print(sorted({'torch', 'ray', 'pyarrow', 'transformers', 'playwright', 'pydantic'} & set(sys.modules)))")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")


def test_a_foreign_package_of_our_name_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    code = f"import sys, runpy; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; runpy.run_module('actors')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "package 'envs'" in done.stderr
    assert str(tmp_path) in done.stderr
