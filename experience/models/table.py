"""Action values in a table: the model of a policy where states repeat."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch

from experience.errors import WeightsError
from experience.models.weights import Weights, pack
from experience.step import state_key
from experience.text.strict_json import dumps

Values = Mapping[str, Sequence[float]]
_key_of = lru_cache(maxsize=1 << 16)(state_key)


class Table:
    """q(s, a) by `state_key` of the observation and the action's text; 0 for a missing pair."""

    def __init__(
        self, actions: Sequence[str] = (), values: Mapping[int, np.ndarray] | None = None
    ) -> None:
        self.actions = tuple(actions)
        self._values = dict(values or {})
        self._index = {action: i for i, action in enumerate(self.actions)}

    def __len__(self) -> int:
        return len(self._values)

    def __call__(self, observation: str, actions: Sequence[str]) -> np.ndarray:
        """The value of each of `actions`, float [A]."""
        row = self._values.get(_key_of(observation))
        if row is None:
            return np.zeros(len(actions))
        if len(actions) == len(row) and tuple(actions) == self.actions:
            return row
        return np.array([row[self._index[a]] if a in self._index else 0.0 for a in actions])

    @staticmethod
    def weights(actions: Sequence[str], values: Values, version: int) -> Weights:
        """`values` (observation -> float [A]) as weights that can be sent.

        Tensors: `actions` uint8 (the texts as JSON), `keys` int64 [N], `values` float64 [N, A].
        """
        # The same 64 bits as a signed integer: torch computes with no unsigned ones of that size.
        keys = np.array([_key_of(o) for o in values], np.uint64).view(np.int64)
        table = np.array(list(values.values()), float).reshape(len(values), len(actions))
        names = np.frombuffer(dumps(list(actions)).encode(), np.uint8).copy()
        data = pack(
            {
                "actions": torch.from_numpy(names),
                "keys": torch.from_numpy(keys),
                "values": torch.from_numpy(table),
            }
        )
        return Weights.read(version, data)

    @classmethod
    def read(cls, weights: Weights) -> Table:
        """Reads what `weights` wrote. Raises WeightsError if it is damaged or is not a table."""
        tensors = weights.tensors()
        if tensors.keys() != {"actions", "keys", "values"}:
            raise WeightsError(
                f"version {weights.version}: tensors {sorted(tensors)} are not a table",
                "policy.engine=table takes the policy of a tabular learner",
            )
        keys = tensors["keys"].numpy().view(np.uint64)
        values = tensors["values"].numpy()
        actions = json.loads(tensors["actions"].numpy().tobytes())
        return cls(actions, {int(k): row for k, row in zip(keys, values, strict=True)})
