"""text/players: a PettingZoo game, in turns or at once, with every agent as itself.

    envs:Players-v0  arguments {game: classic.connect_four_v3}            in turns (AEC)
    envs:Players-v0  arguments {game: classic.rps_v2, parallel: true}    at once (parallel)

Observations are written and actions read as `envs:Text-v0` does. Boards of two players' stones are
drawn. Once an action is read it is numbers, so no text of an agent reaches the game.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from envs.contract import INVALID
from envs.several import Moves, SharedOutcome, SharedWorld
from envs.text.describing import described
from envs.text.reading import read
from envs.text.world import cut, is_of_numbers
from envs.text.writing import Style, shown, written
from experience.command.failures import check_arguments
from experience.errors import ConfigError, EnvironmentFailure, MissingPartError
from experience.signal import SignalKind, as_number

_FOR_A_NOTE = 1000
_MOST_ACTIONS = 100


class Players(SharedWorld[int]):
    """The game `game` of PettingZoo, e.g. classic.tictactoe_v3; a task is a seed.

    parallel: whether all act at once; None is in turns, where the game can be played so.
    """

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "env_reward": SignalKind("reward", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"env_reward": 1.0, INVALID: -0.1}
    instructions: ClassVar[str] = ""

    def __init__(
        self,
        game: str = "classic.tictactoe_v3",
        max_turns: int = 200,
        parallel: bool | None = None,
        digits: int | None = None,
        others: Any = "policy",
        others_heldout: Any = None,
        **settings: Any,
    ) -> None:
        self.observation_characters = 20_000  # type: ignore[misc]
        super().__init__(others, others_heldout)
        self.game = game
        self.max_turns = max_turns
        self._style = Style(digits)
        self._has_begun = False
        self._inside, self._is_parallel = _made(game, parallel, settings)
        self.agents = tuple(map(str, self._inside.possible_agents))  # type: ignore[misc]
        actions = [self._inside.action_space(agent) for agent in self.agents]
        self.sandbox_tier = "none-needed" if all(map(is_of_numbers, actions)) else "none"
        self.instructions = f"Reply with {described(actions[0])}"  # type: ignore[misc]

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**31))

    def signature(self, task: int) -> str:
        return f"{self.game} {task}"

    def begin(self) -> None:
        with _failing(self.game):
            found = self._inside.reset(seed=self.task)
        self._seen: dict[str, Any] = dict(found[0]) if self._is_parallel else {}
        self._has_begun = True

    def to_act(self) -> tuple[str, ...]:
        if self._is_parallel:
            return tuple(self._inside.agents)
        return (self._inside.agent_selection,) if self._inside.agents else ()

    def observe_as(self, agent: str) -> str:
        seen = self._observation(agent)
        board = _board(seen)
        if board is None:
            space = self._inside.observation_space(agent)
            board = cut(shown(space, seen, self._style), self.observation_characters - _FOR_A_NOTE)
        legal = self._legal(agent)
        if legal is None:
            return board
        return f"{board}\nlegal: {' '.join(map(str, legal)) or 'nothing'}"

    def _observation(self, agent: str) -> Any:
        if self._is_parallel:
            return self._seen[agent]
        return self._inside.observe(agent)

    def _legal(self, agent: str) -> list[int] | None:
        """The numbers of the moves that are allowed now; None if the game does not say."""
        seen = self._observation(agent)
        mask = seen.get("action_mask") if isinstance(seen, dict) else None
        if mask is None:
            return None
        return [int(number) for number in np.flatnonzero(mask)] if agent in self.to_act() else []

    def actions_as(self, agent: str) -> tuple[str, ...]:
        space = self._inside.action_space(agent)
        if not isinstance(space, spaces.Discrete) or space.n > _MOST_ACTIONS:
            return ()
        legal = self._legal(agent) if self._has_begun else None
        if legal:
            return tuple(map(str, legal))
        return tuple(str(space.start + number) for number in range(int(space.n)))

    def random_action_as(self, agent: str, rng: np.random.Generator) -> str:
        legal = self._legal(agent)
        if legal:
            return str(legal[int(rng.integers(len(legal)))])
        space = self._inside.action_space(agent)
        space.seed(int(rng.integers(2**31)))
        return written(space, space.sample())

    def read(self, agent: str, action: str) -> Any:
        move = read(self._inside.action_space(agent), action)
        legal = self._legal(agent)
        if legal is not None and move not in legal:
            raise ValueError("choose a legal move: " + " ".join(map(str, legal)))
        return move

    def play(self, moves: Moves) -> SharedOutcome:
        with _failing(self.game):
            return self._all_at_once(moves) if self._is_parallel else self._in_turn(moves)

    def _all_at_once(self, moves: Moves) -> SharedOutcome:
        actions = dict(moves)
        for agent in self._inside.agents:
            # who wrote no move is moved all the same: such a game needs every agent's action
            if agent not in actions:
                space = self._inside.action_space(agent)
                space.seed(int(self.np_random.integers(2**31)))
                actions[agent] = space.sample()
        seen, rewards, terminated, truncated, _ = self._inside.step(actions)
        self._seen |= seen
        ended = {a for a in terminated if terminated[a]}
        # PettingZoo's own limit of turns ends all agents at once
        self.cut_off = bool(truncated) and all(truncated.values())
        return self._signals(rewards), ended

    def _in_turn(self, moves: Moves) -> SharedOutcome:
        (move,) = moves.values()
        before = set(self._inside.agents)
        self._inside.step(move)
        rewards = dict(self._inside.rewards)
        ended = {a for a in before if self._inside.terminations.get(a, False)}
        cut_off = {a for a in before if self._inside.truncations.get(a, False)}
        self.cut_off = cut_off >= before - ended and bool(cut_off)
        # an agent that has ended is taken out of the game by a step without an action
        while self._inside.agents and self._is_out(self._inside.agent_selection):
            self._inside.step(None)
        return self._signals(rewards), ended

    def _is_out(self, agent: str) -> bool:
        inside = self._inside
        return bool(inside.terminations.get(agent) or inside.truncations.get(agent))

    def _signals(self, rewards: Any) -> dict[str, dict[str, Any]]:
        found = {}
        for agent, reward in rewards.items():
            number = as_number(reward)
            if number is None:
                raise EnvironmentFailure(f"{self.game}: {agent}'s reward is {reward!r}")
            found[str(agent)] = {"env_reward": number}
        return found

    def close(self) -> None:
        self._inside.close()
        super().close()


class _failing:
    """Says which game failed: its code is a stranger's, and may raise anything."""

    def __init__(self, game: str) -> None:
        self._game = game

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, EnvironmentFailure):
            what = f"{self._game}: {type(error).__name__}: {error}"
            raise EnvironmentFailure(what) from error


def _made(game: str, parallel: bool | None, settings: dict[str, Any]) -> tuple[Any, bool]:
    """(the game, whether all act at once). Raises ConfigError for a game that does not exist."""
    try:
        importlib.import_module("pettingzoo")
    except ModuleNotFoundError as missing:
        raise MissingPartError("pettingzoo is not installed", "./xp setup worlds") from missing
    try:
        module = importlib.import_module(f"pettingzoo.{game}")
    except ModuleNotFoundError as missing:
        if not f"pettingzoo.{game}".startswith(str(missing.name)):
            raise MissingPartError(
                f"{game} needs {missing.name!r}, which is not installed",
                f"install it into .venv: pip install {missing.name}",
            ) from missing
        raise ConfigError(
            f"game: PettingZoo has no {game!r}", "write FAMILY.GAME_vN: classic.connect_four_v3"
        ) from missing
    ways = {False: getattr(module, "env", None), True: getattr(module, "parallel_env", None)}
    if parallel is None:
        parallel = ways[False] is None
    make = ways[parallel]
    if make is None:
        has = "at once" if ways[True] else "in turns"
        raise ConfigError(f"{game} is played {has} alone", "leave out `parallel`")
    check_arguments("envs:Players-v0", make, settings)
    return make(**settings), parallel


def _board(seen: Any) -> str | None:
    """A board of two players' stones, x the reader's own; None where this is none.

    Such an observation is planes of 0 and 1: the reader's stones, and the other player's.
    """
    planes = np.asarray(seen["observation"]) if isinstance(seen, dict) else np.zeros(0)
    if planes.ndim != 3 or planes.shape[-1] != 2 or not np.isin(planes, (0, 1)).all():
        return None
    stones = planes[..., 0].astype(int) - planes[..., 1].astype(int)
    rows = [" ".join({1: "x", -1: "o", 0: "."}[int(value)] for value in row) for row in stones]
    return "you are x\n" + "\n".join(rows)
