"""The wheel: library, command, worlds and configurations, in an environment of its own."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_house import ROOT

Call = Callable[..., subprocess.CompletedProcess[str]]
SMALL = """
name: small
workers: 1
worlds: [{id: "my_world:MyWorld-v0", groups: 1, demonstrations: 4}]
budget: {updates: 1, minutes: 4}
policy: {engine: small, layers: 1, width: 32, heads: 4, context: 256, max_tokens: 16}
evaluation: {episodes: 0, final_episodes: 0}
learning: {imitation_passes: 1}
planning: {enabled: false}
"""
FOREIGN = "HERE = 'an environment collection of somebody else'\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=280,
    )
    [built] = out.glob("*.whl")
    return built


def make_venv(folder: Path) -> Path:
    """An empty environment; its site-packages hold a foreign package called `envs`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "envs").mkdir()
    (packages / "envs" / "__init__.py").write_text(FOREIGN)
    return packages


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(bin, site-packages) of an environment with the wheel, and this one's dependencies."""
    folder = tmp_path_factory.mktemp("venv")
    packages = make_venv(folder)
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    script = folder / "bin" / "xp"
    script.write_text(
        f"#!{folder / 'bin' / 'python'}\nfrom experience.command.house import main\nmain()\n"
    )
    script.chmod(0o755)
    return folder / "bin", packages


@pytest.fixture
def call(installed: tuple[Path, Path], tmp_path: Path) -> Call:
    """Calls a program of that environment in an empty folder, with a clean environment."""

    def calling(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(installed[0] / program), *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=290,
        )

    return calling


def test_the_wheel_puts_one_package_at_the_top_and_holds_every_room(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "experience",
        "xp_experience-0.1.0.dist-info",
    }
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "experience", "actors", "envs", "configs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    wanted = {
        name if name.startswith("experience/") else f"experience/_house/{name}"
        for name in tracked
        if (ROOT / name).is_file()
    }
    assert wanted - set(names) == set()
    assert "experience/py.typed" in names
    [entries] = [name for name in names if name.endswith("entry_points.txt")]
    told = zipfile.ZipFile(wheel).read(entries).decode()
    assert "xp = experience.command.house:main" in told


def test_the_command_works_in_an_empty_folder_and_leaves_a_foreign_package_of_its_name_alone(
    call: Call, installed: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "collect" in call("xp", "--help").stdout
    new = call("xp", "env", "new", "my_world")
    assert new.returncode == 0 and (tmp_path / "my_world.py").exists()
    assert "next: xp env check my_world:MyWorld-v0" in new.stderr
    checked = call("xp", "run", "-c", "configs/recall.yaml", "--dry-run")
    assert checked.returncode == 0 and "envs:Recall-v0" in checked.stdout, checked.stderr
    assert (installed[1] / "envs" / "__init__.py").read_text() == FOREIGN
    told = call("python", "-c", "import envs, experience; print(envs.HERE, experience.__file__)")
    assert "somebody else" in told.stdout and str(installed[1]) in told.stdout
    refused = call("xp", "test")
    assert refused.returncode == 2 and "works in a checkout only" in refused.stderr


@pytest.mark.long
def test_a_world_of_ones_own_is_checked_and_lived_in_under_ray(call: Call, tmp_path: Path) -> None:
    call("xp", "env", "new", "my_world")
    checked = call("xp", "env", "check", "my_world:MyWorld-v0")
    assert checked.returncode == 0 and "0 failed" in checked.stdout, checked.stdout
    (tmp_path / "small.yaml").write_text(SMALL)
    ran = call("xp", "run", "-c", "small.yaml")
    assert ran.returncode == 0, ran.stderr[-3000:]
    opened = call(
        "python",
        "-c",
        "import experience as xp; run = xp.open('runs/latest')\n"
        "print(len(run.episodes()), set(run.episodes()['env_id'].to_pylist()))",
    )
    assert "my_world:MyWorld-v0" in opened.stdout, opened.stderr


@pytest.mark.long
@pytest.mark.skipif(
    "XP_TEST_INSTALL" not in os.environ, reason="downloads 600 MB: XP_TEST_INSTALL=1 tries it"
)
def test_pip_installs_the_wheel_with_all_that_the_command_needs(
    wheel: Path, tmp_path: Path
) -> None:
    make_venv(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "ensurepip"], check=True, capture_output=True)
    subprocess.run([python, "-m", "pip", "install", "-q", str(wheel)], check=True, timeout=1500)
    (tmp_path / "empty").mkdir()
    for words in (["--help"], ["env", "new", "mine"], ["env", "check", "mine:Mine-v0"]):
        done = subprocess.run(
            [python.with_name("xp"), *words],
            cwd=tmp_path / "empty",
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
