"""What another project's game or task does not say is unknown here, never 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest

from tests.test_bridges import peer


class Answers:
    """A game's session that answers what it was given, whatever is asked."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    def ask(self, _call: str, **_more: Any) -> dict[str, Any]:
        return self._answer

    def close(self) -> None: ...


def ended(world: Any, answer: dict[str, Any], move: str) -> tuple[float, dict[str, Any]]:
    """(reward, signals) of a move that the game answers with `answer`."""
    world.reset(seed=0)
    world._leave()
    world._game = Answers(answer)
    _, reward, terminated, _, info = world.step(move)
    assert terminated
    return reward, info["signals"]


def test_a_duel_whose_end_names_no_reward_for_the_mover_has_an_unknown_reward() -> None:
    pytest.importorskip("pettingzoo", reason="./xp setup worlds")
    world = gymnasium.make("envs:Duel-v0").unwrapped
    world.reset(seed=0)
    mover, move = world._now.player, str(world._now.legal[0])
    over = {"over": True, "players": list(world._now.players), "player": mover, "legal": []}
    reward, signals = ended(world, over | {"rows": None, "rewards": {}}, move)
    assert reward != reward and signals["outcome"] is None
    reward, signals = ended(world, over | {"rows": None, "rewards": {mover: 0}}, move)
    assert reward == 0.0 and signals["outcome"] == 0.0, "a draw was measured"
    world.close()


def test_an_arena_whose_end_names_no_outcome_of_the_mover_has_an_unknown_reward() -> None:
    pytest.importorskip("textarena", reason="./xp setup worlds")
    world = gymnasium.make("envs:Arena-v0").unwrapped
    over = {"over": True, "player": 0, "seen": "the game is over"}
    reward, signals = ended(world, over | {"outcomes": {}}, "[4]")
    assert reward != reward and signals["outcome"] is None
    reward, signals = ended(world, over | {"outcomes": {"0": -1}}, "[4]")
    assert reward == -1.0
    world.close()


def test_a_task_of_verifiers_without_a_reward_has_an_unknown_one(tmp_path: Path) -> None:
    (tmp_path / "chats.py").write_text("""import verifiers.v1 as vf
class ChatTask(vf.Task[vf.TaskData]): ...
class ChatTaskset(vf.Taskset[ChatTask, vf.TasksetConfig]):
    def load(self):
        yield ChatTask(vf.TaskData(prompt="Say hello."), self.config.task)
__all__ = ["ChatTaskset"]
""")
    world = gymnasium.make(
        "envs:Peer-v0",
        python=peer("verifiers"),
        package="verifiers",
        options={"taskset": "chats", "path": str(tmp_path)},
    ).unwrapped
    world.reset(seed=0)
    _, reward, terminated, _, info = world.step("hello")
    assert terminated and reward != reward and info["signals"] == {"env_reward": None}
    world.close()
