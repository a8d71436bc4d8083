"""A world that cannot be had is a mistake of the configuration: named with its place before
anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.commands.doctor import require
from actors.config.schema import load
from actors.worlds import check_ids, check_worlds
from experience.errors import ConfigError, MissingPartError, XpError

ROOT = Path(__file__).resolve().parent.parent


def refused(env_id: str, tmp_path: Path, more: str = "", bundled_only: bool = False) -> str:
    (tmp_path / "a.yaml").write_text(
        f"name: a\nworlds:\n  - id: envs:KeyDoor-v0\n  - id: {env_id}\n{more}"
    )
    config = load([tmp_path / "a.yaml"])[0]
    with pytest.raises(ConfigError) as raised:
        check_ids(config, bundled_only=True) if bundled_only else check_worlds(config)
    return str(raised.value)


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("envs:Nope-v0", "see ./xp env list"),
        ("envs:Reacter-v0", "did you mean 'envs:Reactor-v0'?"),
        ("envs:Reactor-v7", "envs:Reactor-v0"),
        ("envs:Reactor", "envs:Reactor-v0"),
        ("env:Reactor-v0", "did you mean 'envs:Reactor-v0'?"),
        ("Cartpole-v1", "did you mean 'CartPole-v1'?"),
        ("nopackage:X-v0", "no module 'nopackage' is found"),
        ("tests.no_such_world:X-v0", "no module 'tests.no_such_world' is found"),
        ("tests.broken_worlds:AllTheSame-v1", "did you mean 'tests.broken_worlds:AllTheSame-v0'?"),
        (
            "tests.broken_worlds:X-v0",
            "tests.broken_worlds registers tests.broken_worlds:",
        ),
        ("a b", "not a known"),
        ("'::'", "no module ':'"),
        ("''", "not a known"),
    ],
)
def test_an_unknown_world_is_named_with_its_place_and_a_near_name(
    env_id: str, says: str, tmp_path: Path
) -> None:
    said = refused(env_id, tmp_path)
    assert (
        "a.yaml:4:5\n  worlds[1].id: " in said
        and says in said
        and "nothing was started (exit 2)" in said
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_library", "wanting needs 'no_such_library', which is not installed"),
        ("def f(:", "wanting cannot be imported: SyntaxError"),
        ("1 / 0", "wanting cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_world_whose_module_cannot_be_imported_says_why(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wanting.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert says in refused("wanting:X-v0", tmp_path)


def test_arguments_that_a_world_does_not_take_are_told_with_their_place(tmp_path: Path) -> None:
    said = refused("envs:Reasoning-v0", tmp_path, "    arguments: {stagez: 3}\n")
    assert "a.yaml:5:5: worlds[1]: envs:Reasoning-v0 takes no argument stagez" in said


def test_a_world_that_is_not_set_up_says_where_it_was_asked_for_and_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "textarena", None)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(
        MissingPartError, match=r"override 'worlds=.*envs:Mcp-v0.*worlds\[0\]: this needs mcp"
    ) as raised:
        world = "{id: 'envs:Mcp-v0', isolation: inside, arguments: {command: [true]}}"
        check_worlds(load([], [f"worlds=[{world}]"])[0])
    assert raised.value.hint == "./xp setup worlds"


def test_a_world_that_cannot_be_made_for_its_own_reasons_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unlucky.py").write_text(
        "import gymnasium\ndef make(): raise ConnectionError('the simulator is not up')\n"
        "gymnasium.register(id='Unlucky-v0', entry_point=make)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        XpError,
        match=r"unlucky:Unlucky-v0 raised ConnectionError when it was made: the simulator is not up",
    ):
        check_worlds(load([], ["worlds=[{id: 'unlucky:Unlucky-v0'}]"])[0])


def test_an_unknown_world_starts_no_run_and_config_check_finds_it_without_importing(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
    (tmp_path / "a.yaml").write_text("worlds: [{id: 'envs:Reacter-v0'}, {id: 'mine:X-v0'}]\n")
    at = {
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
        "env": os.environ | {"PYTHONPATH": str(ROOT)},
    }
    checked = subprocess.run(
        [sys.executable, "-P", "-m", "actors", "config", "check", "a.yaml"], **at
    )  # type: ignore[call-overload]
    assert (
        checked.returncode == 2
        and "envs:Reactor-v0" in checked.stderr
        and "imported" not in checked.stderr
    )
    (tmp_path / "b.yaml").write_text("worlds: [{id: Reactor-v0}]\n")
    bare = subprocess.run([sys.executable, "-P", "-m", "actors", "config", "check", "b.yaml"], **at)  # type: ignore[call-overload]
    assert bare.returncode == 2 and "did you mean 'envs:Reactor-v0'?" in bare.stderr
    for words in (["run", "-c", "a.yaml"], ["run", "-c", "a.yaml", "--dry-run"]):
        (tmp_path / "a.yaml").write_text("worlds: [{id: 'envs:Reacter-v0'}]\n")
        done = subprocess.run([sys.executable, "-P", "-m", "actors", *words], **at)  # type: ignore[call-overload]
        assert (
            (done.returncode, done.stdout) == (2, "")
            and "a.yaml:1:" in done.stderr
            and "Traceback" not in done.stderr
        )
    assert not (tmp_path / "runs").exists()


_HANGS = """
import time, gymnasium
from tests.broken_worlds import AllTheSame

class Hangs(AllTheSame):
    def __init__(self, where):
        self._where = where
        if where == "constructor": time.sleep(100_000)

    @property
    def actions(self):  # which a run reads of each world
        if self._where == "description": time.sleep(100_000)
        return ("left", "right")

gymnasium.register(id="Hangs-v0", entry_point=Hangs)
"""


@pytest.mark.parametrize("where", ["constructor", "description"])
def test_a_world_that_hangs_at_the_start_is_named_with_its_seconds_and_the_process_ends(
    where: str, tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text(_HANGS)
    (tmp_path / "a.yaml").write_text(
        f"worlds: [{{id: 'hangs:Hangs-v0', arguments: {{where: {where}}}, demonstrations: 0}}]\n"
        "collecting: {step_timeout_seconds: 2}\n"
    )
    program = (
        "import sys, actors.collecting.hosts.look as w; w.LEAST_SECONDS = w._SILENT_SECONDS = 1; "
        "sys.argv[1:] = ['run', '-c', 'a.yaml']\n"
        "from actors.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "hangs:Hangs-v0 could not be made and looked at within 2 s" in done.stderr
    assert (
        "collecting.step_timeout_seconds" in done.stderr
        and "still waiting for hangs:Hangs-v0" in done.stderr
    )


def test_a_package_of_worlds_may_say_which_parts_of_a_machine_a_world_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_worlds.py").write_text(
        "import gymnasium\n"
        "from experience.errors import MissingPartError\n"
        "gymnasium.register(id='Needy-v0', entry_point='envs.small.grid:KeyDoor')\n"
        "gymnasium.register(id='Modest-v0', entry_point='envs.small.grid:KeyDoor')\n"
        "def parts_of(name): return ('robot',) if name == 'Needy-v0' else ()\n"
        "def probe(part): raise MissingPartError(f'no {part} is connected', 'plug it in')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("Needy", "Modest"):
        (tmp_path / f"{name}.yaml").write_text(f"worlds: [{{id: 'needy_worlds:{name}-v0'}}]\n")
    require(load([tmp_path / "Modest.yaml"])[0])
    with pytest.raises(MissingPartError, match="cannot run here: no robot is connected") as raised:
        require(load([tmp_path / "Needy.yaml"])[0])
    assert raised.value.hint == "plug it in"
