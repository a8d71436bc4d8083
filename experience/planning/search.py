"""Search over few actions: sequential halving with Gumbel noise at the root, and its improved policy.

Danihelka et al. 2022, "Policy improvement by planning with Gumbel": with any number of simulations the improved policy
is no worse than the prior under the values searched with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from experience.learning.returns import Floats

Expand = Callable[[object, int], "tuple[object, float, float, Sequence[float], float]"]
"""(state, action) -> (next state, reward, discount, prior logits there, value there)."""


@dataclass
class _Node:
    """A state in the tree: prior logits float [A], its value by the model, and what came of each action."""

    state: object
    logits: Floats
    value: float
    children: dict[int, _Node] = field(default_factory=dict)
    rewards: dict[int, float] = field(default_factory=dict)
    discounts: dict[int, float] = field(default_factory=dict)
    visits: Floats = field(default_factory=lambda: np.zeros(0))
    returns: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self.visits, self.returns = np.zeros(len(self.logits)), np.zeros(len(self.logits))

    @property
    def q(self) -> Floats:
        """Mean return of each action; what was never tried has the value that the visited ones and the prior give
        (ibid., eq. 33: v_mix)."""
        tried = self.visits > 0
        prior = softmax(self.logits)
        mean = self.returns / np.maximum(self.visits, 1)
        if not tried.any():
            return np.full(len(self.logits), self.value)
        weighted = float((prior * mean)[tried].sum() / prior[tried].sum())
        mixed = (self.value + self.visits.sum() * weighted) / (1 + self.visits.sum())
        return np.where(tried, mean, mixed)


@dataclass(frozen=True)
class Found:
    """The action chosen, the improved policy float [A] to train the prior on, and the root's value."""

    action: int
    policy: Floats
    value: float


def softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())


def gumbel_search(state: object, logits: Sequence[float], value: float, expand: Expand, *, simulations: int,
                  rng: np.random.Generator, considered: int = 16, scale: float = 1.0, depth: int = 50) -> Found:
    """The action of the greatest g + logits + σ(q̂) after sequential halving, and π' = softmax(logits + σ(q̂)).

    σ(q) = (50 + max N)·scale·q, with q rescaled to [0, 1] over the root's actions (ibid., eq. 8 and appendix F).
    """
    root = _Node(state, np.asarray(logits, float), value)
    gumbel = rng.gumbel(size=len(root.logits))
    alive = list(np.argsort(-(gumbel + root.logits))[:min(considered, simulations, len(root.logits))])
    left, phases = simulations, max(math.ceil(math.log2(len(alive))), 1)
    while left > 0:
        each = max(simulations // (phases * len(alive)), 1)
        for action in alive * each:
            if left == 0:
                break
            _simulate(root, int(action), expand, depth)
            left -= 1
        scores = gumbel + root.logits + _sigma(root, scale)
        alive = sorted(alive, key=lambda a: -scores[a])[:max(len(alive) // 2, 1)]
    policy = softmax(root.logits + _sigma(root, scale))
    return Found(int(alive[0]), policy, float((policy * root.q).sum()))


def _sigma(node: _Node, scale: float) -> Floats:
    q = node.q
    spread = float(q.max() - q.min())
    return np.asarray((50 + node.visits.max()) * scale * ((q - q.min()) / spread if spread > 1e-12 else 0 * q))


def _simulate(root: _Node, action: int, expand: Expand, depth: int) -> None:
    """One descent: the given action at the root, below it the one most behind the improved policy (ibid., eq. 14)."""
    path = [(root, action)]
    while len(path) < depth and path[-1][1] in path[-1][0].children:
        node = path[-1][0].children[path[-1][1]]
        wanted = softmax(node.logits + _sigma(node, 1.0)) - node.visits / (1 + node.visits.sum())
        path.append((node, int(wanted.argmax())))
    leaf, last = path[-1]
    if last in leaf.children:
        result = leaf.children[last].value
    else:
        state, reward, discount, logits, result = expand(leaf.state, last)
        leaf.children[last] = _Node(state, np.asarray(logits, float), result)
        leaf.rewards[last], leaf.discounts[last] = reward, discount
    for node, taken in reversed(path):
        result = node.rewards[taken] + node.discounts[taken] * result
        node.visits[taken] += 1
        node.returns[taken] += result
