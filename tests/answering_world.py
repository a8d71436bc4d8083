"""A world that answers in the way it is asked to: each turn as Gymnasium wants it, but for what
`how` names."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Text

from experience.signal import SignalKind

REWARDS = {
    "nan": float("nan"),
    "infinite": float("-inf"),
    "none": None,
    "a text": "1.0",
    "an array of two": np.ones(2),
    "complex": 1j,
    "too large": 10**400,
    "float32": np.float32(1.0),
    "an array of none": np.array(1.0),
    "bool": True,
    "numpy bool": np.True_,
    "int8": np.int8(1),
}
SIGNALS = {
    "nan signal": {"done": float("nan")},
    "a text as signal": {"done": "1.0"},
    "infinite signal": {"done": (np.inf, "why")},
    "a list of signals": ["done"],
    "a signal of three": {"done": (1.0, "why", "more")},
    "an unknown signal": {"won": 1.0},
    "a sum beyond numbers": {"done": 1e308},
    "unreadable evidence": {"done": (1.0, "\ud800")},
    "a numpy signal": {"done": np.float32(1.0)},
}
STEPS = {
    "four values": ("on", 1.0, True, {}),
    "one value": "on",
    "three values": ("on", 1.0, True),
    "info is a list": ("on", 1.0, True, False, []),
    "info is nothing": ("on", 1.0, True, False, None),
    "no text": (None, 1.0, True, False, {}),
    "unreadable text": ("\ud800", 1.0, True, False, {}),
    "terminated is nothing": ("on", 1.0, None, False, {}),
    "truncated is two": ("on", 1.0, False, np.ones(2), {}),
    "terminated is numpy's": ("on", 1.0, np.True_, np.False_, {}),
    "images is a list": ("on", 1.0, True, False, {"images": [1]}),
    "unreadable state": ("on", 1.0, True, False, {"state": "\ud800"}),
}
RESETS = {
    "reset gives no tuple": "begin",
    "reset gives three": ("begin", {}, 1),
    "reset gives no info": ("begin", None),
    "reset gives no text": (7, {}),
}


class Answers(gymnasium.Env[str, str]):
    """The second turn of an episode with an odd seed answers as `how` says; every other one is as
    it should be."""

    observation_space, action_space = Text(100), Text(100)
    actions = ("left", "right")
    signal_catalogue = {"done": SignalKind("fraction", "env_state")}

    def __init__(self, how: str) -> None:
        self._how = how
        self.reward_weights = {"done": 10.0} if how in SIGNALS else {"env_reward": 1.0}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._turn, self._odd = 0, bool((seed or 0) % 2)
        return RESETS.get(self._how, ("begin", {})) if self._odd else ("begin", {})

    def step(self, action: str) -> Any:
        self._turn += 1
        if self._odd and self._turn == 2:
            if self._how in REWARDS:
                return "on", REWARDS[self._how], True, False, {}
            return STEPS.get(
                self._how, ("on", float("nan"), True, False, {"signals": SIGNALS.get(self._how)})
            )
        return (
            "on",
            1.0,
            self._turn >= 2,
            False,
            {"signals": {"done": 1.0}} if self._how in SIGNALS else {},
        )

    def random_action(self, rng: Any) -> str:
        return "left"


gymnasium.register(id="Answers-v0", entry_point=Answers, disable_env_checker=True)
gymnasium.register(id="CheckedAnswers-v0", entry_point=Answers, max_episode_steps=9)
