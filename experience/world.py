"""What an environment offers beyond Gymnasium, read in one place, with one default if absent.

A stranger's environment has none of these attributes, and may have others of the same name: an
attribute that is not of the expected kind counts as absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experience.reward import RewardFunction
from experience.several.agents import POLICY, agents_of, seat_of
from experience.signal import SignalKind, as_number
from experience.text.tools import Schema

PLAIN_SIGNALS: Mapping[str, SignalKind] = {"env_reward": SignalKind("1", "env_state")}
"""The signals of a plain Gymnasium environment: its reward is all that it measures."""

PLAIN_REWARDS: Mapping[str, float] = {"env_reward": 1.0}

SEGMENT_TURNS = 100
"""The length of the segments of a world that says that it is endless, and no length."""


def instructions_of(env: Any) -> str:
    """The rules of the world, empty if it has none. They may change from episode to episode."""
    text = getattr(env, "instructions", "")
    return text if isinstance(text, str) else ""


def actions_of(env: Any) -> tuple[str, ...]:
    """All present actions, if the world lists them. The list may change from turn to turn."""
    listed = getattr(env, "actions", ())
    if isinstance(listed, list | tuple) and all(isinstance(action, str) for action in listed):
        return tuple(listed)
    return ()


def tools_of(env: Any) -> tuple[Schema, ...]:
    """The tools that the world offers, if it does, in the form that language models are given."""
    offered = getattr(env, "tool_schemas", ())
    if isinstance(offered, list | tuple) and all(map(_is_tool, offered)):
        return tuple(offered)
    return ()


def _is_tool(value: Any) -> bool:
    described = value.get("function") if isinstance(value, Mapping) else None
    return isinstance(described, Mapping) and isinstance(described.get("name"), str)


def random_action(env: Any, rng: np.random.Generator) -> str:
    """A well-formed action at random: the world's own, else one that it lists, else a sample of its
    action space."""
    if callable(getattr(env, "random_action", None)):
        return str(env.random_action(rng))
    listed = actions_of(env)
    if listed:
        return listed[int(rng.integers(len(listed)))]
    # A space draws from a generator of its own: seeded here, so that a run repeats itself.
    env.action_space.seed(int(rng.integers(2**31)))
    return str(env.action_space.sample())


@dataclass(frozen=True)
class WorldView:
    """What a world shows at one turn beside its observation: all that an agent reads of it.

    Plain data, so that the agent and the world need not share a thread, a process or a machine.
    """

    instructions: str = ""
    actions: tuple[str, ...] = ()
    scripted: str | None = None
    """The action of the world's expert, or one at random, where a script acts in place of a
    policy."""
    snapshot: bytes | None = None
    """The whole state, where a planner tries actions in forks of it."""
    experiment: tuple[str, float, float] | None = None
    """(action, value of the best recipe, weight of the simulation) of the next experiment, where a
    campaign is under way in a laboratory."""

    @classmethod
    def of(cls, env: Any, agent: str = "") -> WorldView:
        """Reads the rules and the listed actions of an unwrapped environment, for one of its
        agents if it has several."""
        seat = seat_of(env, agent)
        return cls(instructions_of(seat), actions_of(seat))


@dataclass(frozen=True)
class WorldCard:
    """What a world offers that does not change while it lives. `instructions_of` and `actions_of`
    read the two that may."""

    signals: Mapping[str, SignalKind]
    """Unit and source of each entry of info["signals"]."""
    rewards: Mapping[str, float]
    """The default reward is the sum of the signals with these weights."""
    env_version: str
    sandbox_tier: str
    """Where the world runs what an agent writes; empty if the world does not say."""
    splits: tuple[str, ...]
    """The task splits that a reset may ask for; the first is the default."""
    goes_back: bool
    """Whether it has snapshot() and restore(bytes)."""
    has_oracle: bool
    """Whether it has oracle_action(), which knows the hidden state."""
    has_laboratory: bool
    """Whether it has laboratory(), for campaigns of experiments."""
    reward_source: str = ""
    """Of its reward function (see experience/reward.py); empty: the reward is the weighted sum."""
    deadline_seconds: float | None = None
    """How long a reset or a step may take; None: the configuration says it."""
    segment_turns: int = 0
    """An endless world is lived in segments of so many turns; 0: its episodes end by themselves."""
    gives_images: bool = False
    """Whether it says that its `info["images"]` has pictures; a world may give some unsaid."""
    runs_programs: bool = False
    """Whether it has run_program(program), in which somebody else's agent acts to its end."""
    tools: tuple[Schema, ...] = ()
    """What language models may call, if the world has tools: see `tool_schemas`."""
    agents: tuple[str, ...] = ()
    """The names of its agents, where the world has several (see experience/several/agents.py)."""
    others: Any = POLICY
    """Who plays the agents that the policy does not: for all, or by agent."""
    others_heldout: Any = None
    """The same in held-out episodes; None is as in training."""

    @classmethod
    def of(cls, env: Any) -> WorldCard:
        """Reads the card of an unwrapped environment."""
        splits = getattr(env, "splits", ())
        agents = agents_of(env)
        return cls(
            signals=_mapping(env, "signal_catalogue", PLAIN_SIGNALS),
            rewards=_mapping(env, "reward_weights", PLAIN_REWARDS),
            env_version=_text(env, "env_version"),
            sandbox_tier=_text(env, "sandbox_tier"),
            splits=tuple(splits) if splits else ("train", "heldout"),
            # no state of one agent alone can be gone back to, nor experimented with
            goes_back=not agents and getattr(env, "goes_back", False) is True,
            has_oracle=callable(getattr(env, "oracle_action", None)),
            has_laboratory=not agents and callable(getattr(env, "laboratory", None)),
            reward_source="" if (code := RewardFunction.of(type(env))) is None else code.source,
            deadline_seconds=_deadline(env),
            segment_turns=0 if agents else _segment_turns(env),
            gives_images=getattr(env, "gives_images", False) is True,
            runs_programs=callable(getattr(env, "run_program", None)),
            tools=tools_of(env),
            agents=agents,
            others=getattr(env, "others", POLICY) if agents else POLICY,
            others_heldout=getattr(env, "others_heldout", None) if agents else None,
        )


def _mapping(env: Any, name: str, absent: Mapping[str, Any]) -> Mapping[str, Any]:
    value = getattr(env, name, None)
    return value if isinstance(value, Mapping) else absent


def _deadline(env: Any) -> float | None:
    value = as_number(getattr(env, "deadline_seconds", None))
    return value if value is not None and 0 < value < math.inf else None


def _segment_turns(env: Any) -> int:
    value = getattr(env, "segment_turns", 0)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return SEGMENT_TURNS if getattr(env, "max_turns", 0) is None else 0


def _text(env: Any, name: str) -> str:
    value = getattr(env, name, "")
    return value if isinstance(value, str) else ""
