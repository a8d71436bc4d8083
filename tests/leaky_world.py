"""A stranger's world that leaves a secret wherever it can: in texts, names of pictures, prints,
logs and errors."""

from __future__ import annotations

import base64
import logging
import os
import sys
import zlib
from typing import Any

import gymnasium
from gymnasium.spaces import Text

NAMES = ("LLM_FOR_TESTS", "XP_URL_PASSWORD")


def forms() -> list[str]:
    found = []
    for secret in (os.environ.get(name, "") for name in NAMES):
        raw = secret.encode()
        found += [
            secret,
            base64.b64encode(b"user:" + raw).decode(),
            raw.hex(),
            "".join(f"%{b:02X}" for b in raw),
        ]
    return found


class Leaky(gymnasium.Env[str, str]):
    def __init__(self, **_: Any) -> None:
        self.observation_space, self.action_space = Text(4000), Text(200)
        self.env_version = forms()[0]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.n = 0
        return " ".join(forms()), {"task_id": forms()[0]}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.n += 1
        for form in forms():
            print("debug", form)
            print("debug", form, file=sys.stderr)
            logging.getLogger("leaky").warning("debug %s", form)
        if self.np_random.random() < 0.2:
            raise RuntimeError("refused: " + " ".join(forms()))
        picture = b"\x89PNG\r\n\x1a\n" + zlib.compress(b"")
        return (
            "end " + forms()[2],
            1.0,
            self.n > 1,
            False,
            {"images": {forms()[0]: picture}, "state": forms()[0]},
        )

    def random_action(self, rng: Any) -> str:
        return "go"

    expert_action = oracle_action = lambda self: "go " + forms()[0]


gymnasium.register(id="Leaky-v0", entry_point=Leaky, order_enforce=False, disable_env_checker=True)
