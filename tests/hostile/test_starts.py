"""Nothing in envs/ starts a process that is handed this process's environment without a reason that
stands here."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTS = {
    "subprocess": {
        "Popen",
        "run",
        "call",
        "check_call",
        "check_output",
        "getoutput",
        "getstatusoutput",
    },
    "os": {"system", "popen"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "multiprocessing": {"Process", "Pool"},
}
ALLOWED = {
    "envs/check/repeating.py": "a world's own check in a second process of ours, which needs "
    "the settings of the first",
    "envs/check/containment.py": "asks whether a network namespace can be made here, before a "
    "world is checked",
    "envs/check/__main__.py": "mount of the check's own second process, in namespaces of its own",
    "envs/code_execution/forward.py": "runs inside the workspace's place, whose environment is given",
    "envs/desktop/office/libreoffice_reader.py": "runs inside the judge's place, whose environment is empty",
    "envs/proof/lean/elaborator.py": "asks the user's own toolchain where it is, before an agent acts",
}


def starts_with_the_environment(text: str) -> list[int]:
    """Lines that start a process without `env=`, or with one made from os.environ."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        module = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        name = node.func.attr
        own = module == "os" and name.startswith(("exec", "spawn", "posix_spawn"))
        if not own and name not in STARTS.get(module, ()):
            continue
        given = next((k.value for k in node.keywords if k.arg == "env"), None)
        if given is None or "environ" in ast.dump(given):
            found.append(node.lineno)
    return found


def test_a_start_without_an_environment_of_its_own_is_noticed() -> None:
    assert starts_with_the_environment(
        "import subprocess\nsubprocess.run(['x'])\nsubprocess.Popen(['x'], env={})"
    ) == [2]
    assert starts_with_the_environment(
        "import os, subprocess\nsubprocess.run(['x'], env=os.environ | {'A': '1'})"
    ) == [2]
    assert starts_with_the_environment(
        "import os\nos.execv('x', ['x'])\nos.posix_spawn('x', ['x'], {})"
    ) == [2, 3]


def test_no_world_hands_the_hosts_environment_to_what_it_starts() -> None:
    found = {
        str(file.relative_to(ROOT)): lines
        for file in sorted((ROOT / "envs").rglob("*.py"))
        if (lines := starts_with_the_environment(file.read_text()))
    }
    assert set(found) <= set(ALLOWED), {name: found[name] for name in set(found) - set(ALLOWED)}
    gone = set(ALLOWED) - set(found)
    assert not gone, f"these need no reason any more: {gone}"


def test_only_confine_and_the_browsers_wrapper_make_places() -> None:
    """Whatever starts bubblewrap does it by way of confine or cage, which give it an empty
    environment."""
    users = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "envs").rglob("*.py")
        if 'which("bwrap")' in file.read_text() or "confine.entry(" in file.read_text()
    }
    assert users == {
        "envs/sandbox/confine.py",
        "envs/sandbox/tiers.py",
        "envs/browser/chrome/chromium.py",
    }
