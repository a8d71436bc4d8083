"""Runs a PettingZoo game for two inside its place: takes numbers of moves, answers boards."""

import importlib

import numpy as np


class Judge:
    def __init__(self, game):
        self._inside = importlib.import_module(f"pettingzoo.{game}").env()

    def begin(self, seed, alone):
        self._inside.reset(seed=seed)
        self._rng = np.random.default_rng(seed)
        self._alone = alone
        # Alone, the agent plays first or second by chance: the first move is an advantage.
        first_or_second = int(self._rng.integers(2)) if alone else 0
        self._me = self._inside.agents[first_or_second]
        return self._until_our_turn()

    def move(self, number):
        self._inside.step(number)
        return self._until_our_turn()

    def _until_our_turn(self):
        while not self._over() and self._alone and self._inside.agent_selection != self._me:
            legal = self._legal()
            self._inside.step(legal[int(self._rng.integers(len(legal)))])
        return self._turn()

    def _over(self):
        # PettingZoo takes players away as they end: without any, `terminations` is empty too.
        return not self._inside.agents or any(self._inside.terminations.values())

    def _legal(self):
        observation, *_ = self._inside.last()
        return [int(i) for i in np.flatnonzero(observation["action_mask"])]

    def _turn(self):
        players = list(self._inside.possible_agents)
        turn = {
            "over": bool(self._over()),
            "players": players,
            "player": str(self._inside.agent_selection),
            "rewards": {str(p): float(r) for p, r in self._inside.rewards.items()},
            "rows": None,
            "legal": [],
        }
        if self._inside.agents:
            observation, *_ = self._inside.last()
            planes = np.asarray(observation["observation"])
            # Plane 0 holds the stones of the player to move, plane 1 the other's.
            rows = np.atleast_2d(planes[..., 0].astype(int) - planes[..., 1].astype(int))
            turn |= {"rows": rows.tolist(), "legal": self._legal()}
        return turn
