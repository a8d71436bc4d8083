"""Where agents act: worlds as plain Gymnasium environments, registered by id.

`gymnasium.make("envs:PythonTask-v0")` imports this package, which registers the ids and nothing
heavy.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module

import gymnasium

WORLDS = {
    "PythonTask-v0": "envs.code_execution.python_task:PythonTask",
    "HumanEval-v0": "envs.code_execution.human_eval:HumanEval",
    "Exercism-v0": "envs.code_execution.exercism:Exercism",
    "Repo-v0": "envs.code_execution.repo.world:Repo",
    "Office-v0": "envs.browser.office:Office",
    "Intranet-v0": "envs.browser.intranet:Intranet",
    "Wiki-v0": "envs.browser.wiki:Wiki",
    "MiniWoB-v0": "envs.browser.miniwob:MiniWoB",
    "Web-v0": "envs.browser.web:Web",
    "Desktop-v0": "envs.desktop.office.world:DesktopOffice",
    "Reactor-v0": "envs.lab.reactor:Reactor",
    "Materials-v0": "envs.lab.materials:Materials",
    "Battery-v0": "envs.lab.battery:Battery",
    "Liquid-v0": "envs.lab.liquid:LiquidLab",
    "Coach-v0": "envs.health.coach:Coach",
    "Coq-v0": "envs.proof.coq.world:Coq",
    "Lean-v0": "envs.proof.lean.world:Lean",
    "Metamath-v0": "envs.proof.metamath:Metamath",
    "Text-v0": "envs.text:Text",
    "KeyDoor-v0": "envs.small.grid:KeyDoor",
    "Recall-v0": "envs.small.recall:Recall",
    "Click-v0": "envs.small.click:Click",
    "Nim-v0": "envs.small.nim:Nim",
    "Reasoning-v0": "envs.bridges.reasoning:Reasoning",
    "Household-v0": "envs.bridges.text_world:Household",
    "Science-v0": "envs.bridges.science_world:Science",
    "Arena-v0": "envs.bridges.text_arena:Arena",
    "Duel-v0": "envs.bridges.petting_zoo:Duel",
    "Players-v0": "envs.bridges.games.players:Players",
    "Mcp-v0": "envs.bridges.mcp_server:Mcp",
    "OpenEnv-v0": "envs.bridges.open_env:OpenEnv",
    "Peer-v0": "envs.bridges.peer:Peer",
}
STRANGERS = ("Exercism-v0", "Lean-v0", "Mcp-v0", "OpenEnv-v0", "Peer-v0", "Players-v0", "Web-v0")
"""Worlds that show a server, package or folder of the user's: without one they cannot be made."""

PARTS: Mapping[str, bool] = {"sandbox": False, "browser": False, "desktop": True}
"""Parts of a machine that some worlds need; True for a part that most users do without."""

for _id, _entry in WORLDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            id=_id, entry_point=_entry, order_enforce=False, disable_env_checker=True
        )


def described() -> Iterator[dict[str, str]]:
    """One record a bundled world: its id, where it is, and its module's first line."""
    for name, entry in WORLDS.items():
        module, _, _ = entry.partition(":")
        paragraph = (import_module(module).__doc__ or "").partition("\n\n")[0]
        summary = " ".join(paragraph.split())
        yield {"id": f"envs:{name}", "entry_point": entry, "summary": summary}


def probe(part: str) -> str:
    """Describes a part of this machine. Raises MissingPartError or IsolationError without it."""
    if part == "sandbox":
        from envs.sandbox.cage import tier

        return f"tier {tier()}"
    if part == "browser":
        from envs.browser.chrome.chromium import find_browser

        return str(find_browser())
    from envs.desktop.programs import programs

    return str(programs())


def parts_of(name: str) -> tuple[str, ...]:
    """The parts that the bundled world of that name needs; none for an unknown name."""
    room = WORLDS.get(name, "").partition(":")[0]
    if room.startswith("envs.browser."):
        return "sandbox", "browser"
    if room.startswith("envs.desktop."):
        return "sandbox", "desktop"
    return ("sandbox",) if room.startswith("envs.code_execution.") else ()
