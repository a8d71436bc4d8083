"""The house: imports run down the picture only, and each heavy library has one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "experience": {"actors", "envs", "ray", "gymnasium", "playwright"},
    "actors": {"envs"},
    "envs": {"actors"},
}
HOMES = {
    "ray": ("actors/pool/",),
    "pyarrow": ("experience/shards/",),
    "playwright": ("envs/browser/", "envs/bridges/peers/"),
    "cantera": ("envs/lab/",),
    "pycalphad": ("envs/lab/",),
    "pybamm": ("envs/lab/",),
    "mcp": ("envs/bridges/",),
    "textarena": ("envs/bridges/",),
    "pettingzoo": ("envs/bridges/",),
    "torch": (
        "experience/models/",
        "experience/learning/",
        "experience/planning/",
        "experience/opened/loader.py",  # a dataset for torch's DataLoader is a class of torch
        "experience/preferences/",  # the preference model, and losses over rankings
        "experience/pretraining/",  # which scores texts with models
        "actors/engines/",
        "actors/pool/ray_actors.py",
        "actors/running/assembly.py",
        "actors/commands/doctor.py",
    ),
    "transformers": ("experience/models/", "actors/engines/"),
    "openai": ("actors/engines/",),
    # the two servers of ours; a guest of a peer tests that peer's own app
    "starlette": ("actors/gateway/", "actors/reading/viewer/", "envs/bridges/peers/"),
}


BY_NAME = {"import_module", "__import__", "find_spec", "run_module"}
"""Functions that reach a module by its name: a literal name counts as an import."""


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, by a statement or by a literal name."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
        elif isinstance(node, ast.Call):
            found |= named_modules(node)
    return {name.partition(".")[0] for name in found}


def named_modules(call: ast.Call) -> set[str]:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    words = [*call.args, *(keyword.value for keyword in call.keywords)]
    texts = [w.value for w in words if isinstance(w, ast.Constant) and isinstance(w.value, str)]
    return set(texts[:1]) if name in BY_NAME else set()


def test_a_module_reached_by_its_literal_name_counts_as_imported(tmp_path: Path) -> None:
    file = tmp_path / "reaching.py"
    file.write_text(
        "import importlib, runpy\nfrom importlib import import_module as load\n"
        "importlib.import_module('envs.make').make\nimportlib.util.find_spec(name='ray')\n"
        "runpy.run_module('torch')\n__import__('mcp')\nimportlib.import_module(given)\n"
    )
    assert imported(file) == {"importlib", "runpy", "envs", "ray", "torch", "mcp"}


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


def rooms() -> dict[str, set[str]]:
    """Folder -> the folders that its files import.

    A file at the top of a package is a room of its own.
    """
    files = [
        p for room in FORBIDDEN for p in (ROOT / room).rglob("*.py") if p.name != "__init__.py"
    ]
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): room_of(p) for p in files}
    arrows: dict[str, set[str]] = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            told = []
            if isinstance(node, ast.ImportFrom) and node.module:
                told = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            elif isinstance(node, ast.Import):
                told = [a.name for a in node.names]
            arrows.setdefault(room_of(path), set()).update(names[t] for t in told if t in names)
    return {room: to - {room} for room, to in arrows.items()}


def room_of(path: Path) -> str:
    where = path.relative_to(ROOT)
    return str(where.parent if len(where.parts) > 2 else where)


def test_no_folder_is_in_a_circle_of_imports() -> None:
    left = rooms()
    while True:
        leaves = {room for room, to in left.items() if not to & set(left)}
        if not leaves:
            break
        left = {room: to for room, to in left.items() if room not in leaves}
    assert not left, {room: to & set(left) for room, to in left.items()}


def test_no_folder_holds_more_than_twelve_files() -> None:
    for room in FORBIDDEN:
        for folder in (ROOT / room, *(p for p in (ROOT / room).rglob("*") if p.is_dir())):
            assert len(list(folder.glob("*.py"))) <= 12, folder


def test_the_main_loop_fits_one_screen() -> None:
    assert len((ROOT / "actors/run.py").read_text().splitlines()) <= 50


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['xp', '--help']\n"
        "from actors.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'pyarrow', 'transformers', 'playwright', 'pydantic'} & "
        "set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert out.strip().endswith("[]")


def test_a_foreign_package_of_our_name_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    code = f"import sys, runpy; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; runpy.run_module('actors')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "package 'envs'" in done.stderr
    assert str(tmp_path) in done.stderr
