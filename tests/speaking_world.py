"""A world that shows texts in ten scripts, and is told them again."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contract import Outcome, World
from experience.signal import SignalKind

SCRIPTS = {
    "Latin": "Zürich, São Paulo, Łódź, İstanbul",
    "Greek": "Ἀθῆναι · δοκιμή",
    "Cyrillic": "Съешь ещё этих мягких",
    "Arabic": "مرحبا بالعالم ١٢٣",
    "Hebrew": "שָׁלוֹם עולם (abc) 12",
    "Devanagari": "नमस्ते दुनिया क्षत्रिय",
    "Thai": "สวัสดีชาวโลก กำ",
    "Han": "你好,世界𠮷𠀋",
    "Hangul": "안녕하세요 각",
    "Kana": "こんにちは がぎぐ",
    "emoji": "👩‍👩‍👧‍👦 👍🏽 🇨🇭 ❤️",
    "marks": "e\u0301 a\u030a\u0323 Z\u0351\u036b\u0343",
    "right to left": "\u202babc\u202c \u2067x\u2069 \u200f",
    "spaces": "a\u00a0b\u3000c\u2028d\ufeff\u200be",
    "private": "\ue000 \U0010fffd \ufffe",
}
TEXT = "\n".join(f"{name}: {text}" for name, text in SCRIPTS.items())
"""One line a script; its first and its last character are ASCII's, because agents strip spaces."""
LONG = (TEXT + "." * 1000 + "\n") * 100


class Speaks(World[int]):
    """Shows `TEXT`, or `LONG` up to `observation_characters`; pays for the same text as action."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "same": SignalKind("fraction", "env_state")
    }
    reward_weights: ClassVar[dict[str, float]] = {"same": 1.0}
    max_turns = 1

    def __init__(self, long: bool = False, half: bool = False, **limits: int) -> None:
        self.shown = LONG if long else TEXT
        if half:
            self.shown = "a \ud800"
        super().__init__(**limits)

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(1000))

    def begin(self) -> None:
        pass

    def observe(self) -> str:
        return self.shown

    def act(self, action: str) -> Outcome:
        told = self.shown[: self.action_characters]
        return {"same": (float(action == told.strip()), action[:200])}, True

    def oracle_action(self) -> str:
        return self.shown[: self.action_characters].strip()

    def random_action(self, rng: Any) -> str:
        return self.oracle_action()


gymnasium.register(id="Speaks-v0", entry_point=Speaks)
