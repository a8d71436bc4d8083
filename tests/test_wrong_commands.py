"""A command line that cannot work ends with one sentence on what is wrong, and one on what to do;
never a traceback of ours. What a world raises keeps the world's own traceback."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broken_worlds import WORLDS_THAT_RAISE
from tests.commands import Commands
from tests.test_house import ROOT


@pytest.fixture(scope="module")
def xp() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An author's folder, with worlds that break in each way."""
    for name, source in WORLDS_THAT_RAISE.items():
        (tmp_path / f"{name}.py").write_text(source)
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "not_utf8.yaml").write_bytes(b"\xff\xfe")
    return tmp_path


def run_in(world: str) -> tuple[str, ...]:
    return "run", f"worlds=[{world}]", "workers=0", "budget.minutes=0.1"


@pytest.mark.parametrize(
    ("words", "code", "what", "next_step"),
    [
        (("env", "check", "nosuch:World-v0"), 2, "there is no module nosuch", "FILE:Name-v0"),
        (("env", "card", "nosuch:World-v0"), 2, "there is no module nosuch", "FILE:Name-v0"),
        (("env", "play", "nosuch:World-v0"), 2, "there is no module nosuch", "FILE:Name-v0"),
        (
            ("env", "bench", "rises_in_step:World-v0"),
            2,
            "no module rises_in_step",
            "did you mean raises_in_step:",
        ),
        (
            ("env", "check", "envs:KeyDor-v0"),
            2,
            "envs:KeyDor-v0 is not registered",
            "did you mean 'envs:KeyDoor-v0'?",
        ),
        (
            ("env", "check", "json:Foo-v0"),
            2,
            "json:Foo-v0 is not registered",
            "end it with gymnasium.register(",
        ),
        (
            ("env", "check", "raises_in_step"),
            2,
            "is not registered",
            "write raises_in_step:NAME-v0",
        ),
        (("env", "check", "LunarLander-v9"), 2, "LunarLander", "did you mean 'LunarLander-v3'?"),
        (("env", "check", "LunarLander-v3"), 1, "Box2D is not installed", "pip install"),
        (
            ("env", "check", "envs:KeyDoor-v0", "--set", "sise=3"),
            2,
            "takes no argument sise",
            "did you mean 'size'?",
        ),
        (
            ("env", "check", "envs:KeyDoor-v0", "--set", "size"),
            2,
            "not of the form name=value",
            "--set world=CartPole-v1",
        ),
        (
            ("env", "check", "envs:KeyDoor-v0", "--only", "nosuch"),
            2,
            "no check 'nosuch'",
            "there are: startup",
        ),
        (("env", "check", "envs:KeyDoor-v0", "--episodes", "0"), 2, "--episodes", "or equal to 1"),
        (
            ("env", "check", "envs:Text-v0", "--set", "world=NoSuch-v1"),
            2,
            "NoSuch-v1 is not registered",
            "./xp env list",
        ),
        (
            ("env", "play", "envs:KeyDoor-v0", "--split", "test"),
            2,
            "has train and heldout",
            "--split train",
        ),
        (("env", "serve", "CartPole-v1"), 2, "has no typed actions", "./xp env new"),
        (("env", "replay", "nosuch"), 2, "no run 'nosuch'", "./xp demo"),
        (("env", "new", "Bad-Name"), 2, "not a name of a module", "e.g. my_world"),
        (("env", "new", "json"), 2, "a module of that name exists", "my_json"),
        (("env", "new", "a_folder"), 2, "a module of that name exists", "my_a_folder"),
        (("env", "new", "raises_in_step"), 2, "exists already", "another name"),
        (
            ("env", "new", "my_world", "--kind", "nosuch"),
            2,
            "no kind 'nosuch'",
            "tools, gymnasium, code",
        ),
        (
            run_in('{id: "CartPole-v1"}'),
            2,
            "CartPole-v1 shows Box(4,) and takes Discrete(2)",
            'write instead: {id: "envs:Text-v0", arguments: {"world": "CartPole-v1"}}',
        ),
        (
            run_in('{id: "nosuch:World-v0"}'),
            2,
            "worlds[0].id: nosuch:World-v0: no module 'nosuch'",
            "FILE:Name-v0",
        ),
        (
            run_in('{id: "envs:KeyDor-v0"}'),
            2,
            "worlds[0].id: envs:KeyDor-v0 is not a known environment",
            "'envs:KeyDoor-v0'?",
        ),
        (
            run_in('{id: "envs:KeyDoor-v0", arguments: {sise: 3}}'),
            2,
            "takes no argument sise",
            "did you mean 'size'?",
        ),
        (
            run_in('{id: "envs:Text-v0", arguments: {world: "NoSuch-v1"}}'),
            2,
            "NoSuch-v1 is not registered",
            "env list",
        ),
        (("run", "-c", "not_utf8.yaml"), 2, "not UTF-8", ""),
        (("run", "-c", "a_folder"), 2, "Is a directory", "give the path of a YAML file"),
        (("nosuch",), 2, "No such command", "xp --help"),
        (("runn",), 2, "No such command", "Did you mean 'run'?"),
    ],
    ids=lambda value: " ".join(value)[:70] if isinstance(value, tuple) else "",
)
def test_a_wrong_command_says_what_is_wrong_and_what_to_do(
    xp: Commands, folder: Path, words: tuple[str, ...], code: int, what: str, next_step: str
) -> None:
    if "serve" in words:
        pytest.importorskip("mcp", reason="./xp setup worlds")
    found, _, told = xp(folder, *words)
    assert (found, "Traceback" in told) == (code, False), told
    assert what in told and next_step in told, told
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [("env", "check"), ("env", "card"), ("env", "play"), ("env", "bench"), ("run",)],
    ids=" ".join,
)
@pytest.mark.parametrize("how", ["raises_in_init", "raises_on_import"])
def test_a_world_that_cannot_be_made_is_named_with_its_own_traceback(
    xp: Commands, folder: Path, words: tuple[str, ...], how: str
) -> None:
    code, _, told = xp(
        folder,
        *(
            run_in(f'{{id: "{how}:World-v0"}}')
            if words == ("run",)
            else (*words, f"{how}:World-v0")
        ),
    )
    if (words, how) == (
        ("run",),
        "raises_on_import",
    ):  # which is found with the ids, before a world is made
        assert code == 2 and f"{how} cannot be imported: RuntimeError: trouble on import" in told, (
            told
        )
        return
    assert code == 1 and f"{how}:World-v0 raised" in told and "./xp env check" in told, told
    assert f'{how}.py", line' in told and "trouble" in told
    assert "gymnasium/envs" not in told and "importlib" not in told, (
        "frames that say nothing of the world"
    )


@pytest.mark.parametrize("when", ["reset", "step"])
def test_a_check_tells_once_where_a_world_raised(xp: Commands, folder: Path, when: str) -> None:
    only = ("--only", "observation_schema", "--only", "floor_gap", "--json")
    _, out, err = xp(folder, "env", "check", f"raises_in_{when}:World-v0", *only)
    assert [json.loads(line)["outcome"] for line in out.splitlines()] == ["FAIL", "FAIL"]
    assert err.count("Traceback") == 1 and f'raises_in_{when}.py", line' in err, err


def test_a_numeric_world_is_played_and_measured_as_text(xp: Commands, folder: Path) -> None:
    code, _, err = xp(folder, "env", "bench", "CartPole-v1", "--seconds", "0.1")
    assert code == 0 and "CartPole-v1 is shown as text by envs:Text-v0" in err


def test_a_configuration_of_the_checkout_is_found_from_every_folder(
    xp: Commands, folder: Path
) -> None:
    code, out, err = xp(folder, "run", "-c", "configs/new-world.yaml", "--dry-run")
    assert code == 0 and "name: new-world" in out, err


@pytest.mark.parametrize("kind", ["tools", "gymnasium", "code"])
def test_the_next_commands_of_a_new_world_work_as_they_are_printed(
    xp: Commands, folder: Path, kind: str
) -> None:
    code, _, told = xp(folder, "env", "new", "my_world", "--kind", kind)
    run = told.rpartition("; ")[2]
    program, *words = shlex.split(run)
    assert code == 0 and Path(program).samefile(ROOT / "xp")
    code, out, err = xp(folder, *words, "--dry-run")
    assert code == 0 and "my_world:MyWorld-v0" in out, err
