"""`python -m benchmarks.worlds.strangers [--write] [PACKAGE …]`: others' worlds by envs:Text-v0.

Each is what its package on PyPI installs into .peers/strangers (`./xp setup peers`), unmodified,
and gets a process of its own. A row has its spaces, the result of `./xp env check`, what a step
costs as text, and the mean return of ten random episodes of at most 200 turns, with its standard
error. `--write` puts the rows into docs/text.md; rows of packages that are not named stay.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experience.text.strict_json import dumps

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / ".peers/strangers/bin/python"
PAGE = ROOT / "docs/text.md"
_BEGIN = "<!-- strangers -->"
_END = "<!-- /strangers -->"
_TIMEOUT_SECONDS = 600
_EPISODES = 10

_SOKOBAN = {"env_id": "gym_sokoban:Sokoban-small-v0", "make_kwargs": {"disable_env_checker": True}}
_NETHACK = {
    "world": "nle:NetHackScore-v0",
    "observation_keys": ["blstats", "chars", "message"],
    "codes": ["chars", "message"],
}
STRANGERS: dict[str, tuple[str, dict[str, Any]]] = {
    "minigrid": ("minigrid:MiniGrid-DoorKey-5x5-v0", {}),
    "minigrid (BabyAI)": ("minigrid:BabyAI-GoToRedBall-v0", {}),
    "ale-py": ("ale_py:ALE/Pong-v5", {}),
    "highway-env": ("highway_env:highway-fast-v0", {}),
    "gymnasium[mujoco]": ("Hopper-v5", {}),
    "gymnasium[box2d]": ("LunarLander-v3", {}),
    "gymnasium[box2d], pixels": ("CarRacing-v3", {}),
    "gymnasium[toy-text]": ("Blackjack-v1", {}),
    "gymnasium[classic-control]": ("Pendulum-v1", {}),
    "gymnasium-robotics": ("gymnasium_robotics:AdroitHandDoor-v1", {}),
    "gymnasium-robotics, maze": ("gymnasium_robotics:PointMaze_UMaze-v3", {}),
    "nle": ("envs:Text-v0", _NETHACK),
    "popgym": ("popgym:popgym-RepeatPreviousEasy-v0", {}),
    "bsuite, by shimmy": ("shimmy:bsuite/catch-v0", {}),
    "flappy-bird-gymnasium": ("flappy_bird_gymnasium:FlappyBird-v0", {"use_lidar": False}),
    "tetris-gymnasium": ("tetris_gymnasium.envs:tetris_gymnasium/Tetris", {}),
    "gym-sokoban, by shimmy": ("shimmy:GymV21Environment-v0", _SOKOBAN),
    "vizdoom": ("vizdoom.gymnasium_wrapper:VizdoomBasic-v1", {}),
    "pettingzoo": ("envs:Duel-v0", {}),
}
"""Package on PyPI -> the world that is tried, with its arguments."""

HEAD = (
    "| package | world | shows | takes | check | steps/s | characters | pictures | random |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def environment() -> dict[str, str]:
    """Environment variables of a process that plays a stranger's world: no screen, no sound."""
    quiet = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "MUJOCO_GL": "egl"}
    return {**os.environ, **quiet, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def measured(env_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One world's row. Call it in a new process, with the Python that has the package."""
    from envs.check import Subject, check
    from envs.episode import do_random, live, measure

    verdicts = Counter(result.outcome for result in check(env_id, arguments, episodes=4))
    subject = Subject(env_id, arguments)
    world = subject.world
    inner = getattr(world, "inner", world)  # a world of text needs no envs:Text-v0
    _, info = world.reset(seed=0)
    episodes = [live(world, seed, do_random, "heldout") for seed in range(_EPISODES)]
    returns = [episode.total for episode in episodes]
    row = {
        "id": env_id,
        "shows": short(inner.observation_space),
        "takes": short(inner.action_space),
        "check": dict(verdicts),
        "characters": max(len(text) for episode in episodes for text in episode.seen),
        "pictures": len(info["images"]),
        "random": statistics.mean(returns),
        "random_error": statistics.stdev(returns) / math.sqrt(len(returns)),
        "steps_per_second": 1000 / measure(world, 3.0)["step_p50_ms"],
    }
    subject.close()
    return row


def short(space: Any) -> str:
    """A space in a few words: kind, shape and type of numbers; the parts of a composed one."""
    kind = "Text" if "Text" in type(space).__name__ else type(space).__name__
    if kind == "Box":
        return f"Box {'x'.join(map(str, space.shape)) or '()'} {space.dtype}"
    if kind == "Text":
        return "text"
    if kind == "Discrete":
        return f"Discrete {space.n}"
    parts = getattr(space, "spaces", None)
    if parts is None:
        return str(space) if len(str(space)) < 40 else kind
    named = parts.items() if isinstance(parts, dict) else enumerate(parts)
    said = [f"{name}: {short(part)}" for name, part in named]
    more = [f"and {len(said) - 4} more"] if len(said) > 4 else []
    return f"{kind} of {'; '.join(said[:4] + more)}"


def row_of(package: str) -> dict[str, Any]:
    """One stranger's row, measured in a process of its own; with `missing` if that failed."""
    env_id, arguments = STRANGERS[package]
    words = ["-m", "benchmarks.worlds.strangers", "--one", env_id, dumps(arguments)]
    nothing = {"package": package, "id": env_id}
    try:
        done = played(words, _TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return {**nothing, "missing": f"took more than {_TIMEOUT_SECONDS} seconds"}
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["said nothing"]
        return {**nothing, "missing": said[-1][:160]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"package": package, **row}


def played(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """A command of the strangers' Python, in a folder of its own: some write a file where they are.

    Raises subprocess.TimeoutExpired.
    """
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [str(PYTHON), *words],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
        )


def rows(packages: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not PYTHON.exists():
        sys.exit(f"error: there is no {PYTHON}\n  type: ./xp setup peers")
    if unknown := set(packages) - set(STRANGERS):
        sys.exit(f"error: no stranger {min(unknown)!r}\n  there are: {', '.join(STRANGERS)}")
    for package in packages or STRANGERS:
        yield row_of(package)


def line(row: dict[str, Any]) -> str:
    """A row as Markdown."""
    arguments = STRANGERS[row["package"]][1]
    world = arguments.get("world") or arguments.get("env_id") or row["id"]
    head = f"| {row['package']} | {world.rpartition(':')[2]} |"
    if "missing" in row:
        return f"{head} {row['missing'].replace('|', '/')} | | | | | | |"
    check = row["check"]
    result = f"{check.get('PASS', 0)} passed, {check.get('FAIL', 0)} failed"
    return (
        f"{head} {row['shows']} | {row['takes']} | {result} | {row['steps_per_second']:,.0f} | "
        f"{row['characters']:,} | {row['pictures']} | "
        f"{row['random']:.2f} ± {row['random_error']:.2f} |"
    )


def main(packages: Sequence[str], write: bool) -> None:
    print(HEAD)
    found = {}
    for row in rows(packages):
        found[row["package"]] = line(row)
        print(found[row["package"]], flush=True)
    if write:
        PAGE.write_text(written_into(PAGE.read_text(), found))


def written_into(page: str, found: Mapping[str, str]) -> str:
    """The page with these lines by package in its table, which keeps its other lines."""
    before, _, rest = page.partition(_BEGIN)
    table, _, after = rest.partition(_END)
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if "|" in line}
    lines |= found
    kept = [lines[package] for package in STRANGERS if package in lines]
    return "\n".join([before + _BEGIN, HEAD, *kept, _END + after])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(dumps(measured(sys.argv[2], json.loads(sys.argv[3]))))
    else:
        main([word for word in sys.argv[1:] if word != "--write"], "--write" in sys.argv)
