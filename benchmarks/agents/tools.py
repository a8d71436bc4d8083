"""How often a real language model calls a world's tools so that the world does it.

python -m benchmarks.agents.tools [MODEL [TURNS]]

Each way of telling the model of the tools is asked in the same turns of the same worlds: an answer
that can be read goes into the world, and a refused one back to the model, at most twice.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import gymnasium

from actors.agents.agent import prompt_context
from actors.agents.context import Context
from actors.config.schema import Policy
from actors.engines.hugging_face_engine import make_engine, make_model
from experience.world import WorldView, tools_of

WORLDS = ("Materials-v0", "Coach-v0", "Repo-v0", "Intranet-v0")
WAYS = ("none", "text", "template")


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "smollm2"
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 24
    print("world          tools     read at once  read in three  valid in the world  calls")
    for way in WAYS:
        policy = Policy(engine="hugging_face", model=model, context=2048, max_tokens=60, tools=way)
        try:
            engine = make_engine(policy, 0, make_model(policy, 0))
        except Exception as error:  # noqa: BLE001  a template without a place for tools
            print(f"{'':14} {way:9} {error}")
            continue
        for world in WORLDS:
            print(f"{world:14} {way:9} {measure(engine, world, turns)}", flush=True)


def measure(engine: Any, world: str, turns: int) -> str:
    """Shares over `turns` turns: read at the first try, read in three tries, not refused by the
    world, and made as a call."""
    env = gymnasium.make(f"envs:{world}").unwrapped
    tools = tools_of(env)
    at_once = read = valid = called = 0
    ended, seen, context = True, "", Context()
    for turn in range(turns):
        if ended:
            seen, _ = env.reset(seed=turn)
            context.begin()
        for attempt in range(3):
            asked = prompt_context(WorldView.of(env), tools)
            asked = context.situation(
                replace(asked, observation=seen, draw=10 * turn + attempt), engine
            )
            (decision,) = engine.act([asked], 1.0)
            context.acted(seen, decision)
            if not context.is_aside:
                break
        at_once += attempt == 0 and not decision.refusal
        read += not decision.refusal
        called += bool(decision.tool_calls)
        seen, _, terminated, truncated, info = env.step(decision.text)
        valid += not info["signals"].get("invalid_action")
        ended = terminated or truncated
    env.close()
    return "  ".join(f"{count / turns:>13.2f}" for count in (at_once, read, valid, called))


if __name__ == "__main__":
    main()
