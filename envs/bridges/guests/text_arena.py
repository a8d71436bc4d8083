"""Runs a TextArena game inside its place, with the other players: takes moves, answers turns."""

import random
import re

import numpy as np


class Judge:
    def __init__(self):
        import textarena

        self._make = textarena.make

    def begin(self, game, players, alone, seed):
        # Some games draw from Python's own generator, whatever seed their reset is given.
        random.seed(seed)
        self._rng = np.random.default_rng(seed)
        self._alone = alone
        self._inside = self._make(game)  # anew: its wrappers remember the game before
        self._inside.reset(num_players=players, seed=seed)
        self._over = False
        self._outcomes = {}
        return self._until_the_agents_turn()

    def move(self, action):
        self._move(action)
        return self._until_the_agents_turn()

    def some_move(self, seed):
        return self._some_move(np.random.default_rng(seed))

    def _until_the_agents_turn(self):
        """Plays the others' moves until the agent is to act, or the game is over."""
        while not self._over:
            self._player, seen = self._inside.get_observation()
            # Without TextArena's wrappers an observation is a list of (sender, message, kind).
            self._seen = seen if isinstance(seen, str) else "\n".join(str(part[1]) for part in seen)
            if self._player == 0 or not self._alone:
                break
            self._move(self._some_move(self._rng))
        outcomes = {str(player): float(value) for player, value in self._outcomes.items()}
        return {
            "player": int(self._player),
            "seen": self._seen,
            "over": self._over,
            "outcomes": outcomes,
        }

    def _move(self, action):
        over, _ = self._inside.step(action)
        if over:
            rewards, _ = self._inside.close()
            self._over = True
            self._outcomes = dict(rewards or {})

    def _some_move(self, rng):
        # The rules show examples in brackets too: only what follows the last list counts.
        listed = self._seen.rpartition("Available Moves")[2] or self._seen
        offered = re.findall(r"\[\w+(?: \w+)*\]", listed)
        if not offered:
            return f"[{int(rng.integers(9))}]"
        return str(offered[int(rng.integers(len(offered)))])
