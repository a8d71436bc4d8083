"""Chromium's own sandbox is on wherever a page of a stranger is drawn, started as root and as a
user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from tests.hostile.places import command_line, eventually_sandboxed, inside, sandboxed
from tests.hostile.test_places import opened

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("way", ["browser", "fast browser"])
def test_chromiums_own_sandbox_is_on(way: str) -> None:
    with opened(way):
        assert eventually_sandboxed()
        assert not [pid for pid in inside() if b"--no-sandbox" in command_line(pid)]


def test_a_browser_without_its_sandbox_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    from envs.browser.chrome import devtools

    monkeypatch.setattr(devtools, "_FLAGS", (*devtools._FLAGS, "--no-sandbox"))
    with opened("fast browser"):
        assert sandboxed() and not any(filtered for filtered, _ in sandboxed())
        assert [pid for pid in inside() if b"--no-sandbox" in command_line(pid)]


UNCAGED = {"envs/bridges/peers/in_browser_gym.py"}
"""BrowserGym's own browser, which its package starts: around its renderers is the peer's place
alone, as docs/security.md says."""


def test_no_file_of_the_product_turns_a_sandbox_off() -> None:
    for folder in ("envs", "actors", "experience", "configs", "benchmarks"):
        for file in (ROOT / folder).rglob("*"):
            if (
                file.suffix in (".py", ".yaml", ".sh")
                and str(file.relative_to(ROOT)) not in UNCAGED
            ):
                text = file.read_text()
                assert "--no-sandbox" not in text and "chromium_sandbox=False" not in text, file


AS_USER = """
import json, sys
sys.path[:0] = [sys.argv[1]]
from tests.hostile.places import PLACES, eventually_sandboxed
with PLACES[sys.argv[2]]():
    print(json.dumps(eventually_sandboxed()))
"""


@pytest.mark.parametrize("way", ["browser", "fast browser"])
def test_chromiums_own_sandbox_is_on_without_root(way: str) -> None:
    if (
        os.geteuid() != 0
        or shutil.which("setpriv") is None
        or not Path("/usr/bin/python3").exists()
    ):
        pytest.skip("needs root, to give it up, and a system Python")
    if shutil.which("chromium-headless-shell") is None:
        pytest.skip("apt-get install chromium-headless-shell")
    home = Path(f"/tmp/xp-nonroot-{os.getpid()}-browser")
    for name in ("envs/sandbox", "envs/browser"):
        shutil.copytree(ROOT / name, home / name)
    (home / "tests/hostile").mkdir(parents=True)
    (home / "experience").mkdir()
    shutil.copy(ROOT / "experience/errors.py", home / "experience")
    shutil.copy(ROOT / "envs/refused.py", home / "envs")
    shutil.copy(ROOT / "tests/hostile/places.py", home / "tests/hostile")
    for package in ("playwright", "greenlet"):
        where = Path(str(import_module(package).__file__)).parent
        linked = os.stat(where).st_dev == os.stat(home).st_dev
        shutil.copytree(where, home / package, copy_function=os.link if linked else shutil.copy2)
    shutil.copy(str(import_module("typing_extensions").__file__), home)
    try:
        done = subprocess.run(
            [
                "setpriv",
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                AS_USER,
                str(home),
                way,
            ],
            capture_output=True,
            text=True,
            timeout=300,
            cwd="/",
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
        )
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stderr[-900:]
    assert json.loads(done.stdout) is True


def test_a_browser_is_watched_where_no_groups_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most users: then a watch adds up what it uses, from its first process on."""
    import threading

    from envs.browser.chrome.chromium import Chromium
    from envs.sandbox import cgroups

    monkeypatch.setattr(cgroups, "make", lambda *_: [])
    browser = Chromium()
    try:
        watches = [t.name for t in threading.enumerate() if t.name.startswith("limits of ")]
        assert f"limits of {browser._bounds._pid}" in watches
        assert b"chromium" in command_line(browser._bounds._pid) or b"bwrap" in command_line(
            browser._bounds._pid
        )
    finally:
        browser.close()
