"""A world for tests, written without our classes: three agents act at once, and one leaves early.

Each says a number; whoever said the highest is paid 1. `quitter` ends after its first answer.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
from gymnasium.spaces import Text


class AtOnce(gymnasium.Env[Any, Any]):
    agents: ClassVar[tuple[str, ...]] = ("left", "right", "quitter")
    instructions: ClassVar[str] = "Say a number"
    actions: ClassVar[tuple[str, ...]] = ("1", "2", "3")

    def __init__(self, others: Any = "policy", others_heldout: Any = None) -> None:
        self.observation_space = self.action_space = Text(200)
        self.others, self.others_heldout = others, others_heldout

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.round = 0
        return dict.fromkeys(self.agents, "round 0"), {}

    def step(self, actions: Any) -> Any:
        self.round += 1
        best = max(actions.values())
        ended = {agent: self.round == 3 or agent == "quitter" for agent in actions}
        return (
            dict.fromkeys(actions, f"round {self.round}"),
            {agent: float(said == best) for agent, said in actions.items()},
            ended,
            {},
            {},
        )


gymnasium.register(id="AtOnce-v0", entry_point=AtOnce)
