"""Search in a tree of few actions: sequential halving with Gumbel noise at the root, and its
improved policy.

Danihelka et al. 2022, "Policy improvement by planning with Gumbel": with any number of simulations
the improved policy is no worse than the prior under the values searched with. Where the thought
happens is one function, as for lookahead.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from experience.planning.lookahead import Act, Place, Try, ValueOf
from experience.planning.reach import LARGEST_DISCOUNT
from experience.planning.world_models.change import Outcome
from experience.returns import Floats

State = TypeVar("State")


@dataclass(frozen=True)
class Leaf(Generic[State]):
    """What came of an action: where it leads, the reward on the way, the discount and the value
    from there, and the prior's logits float [A] over what can be done there; none where nothing
    can."""

    state: State
    reward: float
    discount: float
    value: float
    logits: Sequence[float]


@dataclass
class _Node(Generic[State]):
    """A state in the tree: prior logits float [A], its value by the model, and what came of each
    action."""

    state: State
    logits: Floats
    value: float
    children: dict[int, _Node[State]] = field(default_factory=dict)
    rewards: dict[int, float] = field(default_factory=dict)
    discounts: dict[int, float] = field(default_factory=dict)
    visits: Floats = field(default_factory=lambda: np.zeros(0))
    returns: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self.visits, self.returns = np.zeros(len(self.logits)), np.zeros(len(self.logits))

    @property
    def q(self) -> Floats:
        """Mean return of each action; what was never tried has the value that the visited ones and
        the prior give (ibid., eq. 33: v_mix)."""
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


def gumbel_search(
    root: Leaf[State],
    *,
    simulations: int,
    rng: np.random.Generator | None,
    considered: int = 16,
    scale: float = 1.0,
    depth: int = 50,
) -> Generator[tuple[State, int], Leaf[State], Found]:
    """The action of the greatest g + logits + σ(q̂) after sequential halving, and π' =
    softmax(logits + σ(q̂)).

    A generator: it asks what comes of (state, action) and is sent the leaf, so that many searches
    are answered at once. σ(q) = (50 + max N)·scale·q, with q rescaled to [0, 1] over the root's
    actions (ibid., eq. 8 and appendix F). Without `rng` there is no noise g: the search is greedy.
    """
    top = _Node(root.state, np.asarray(root.logits, float), root.value)
    gumbel = rng.gumbel(size=len(top.logits)) if rng is not None else np.zeros(len(top.logits))
    alive = list(
        np.argsort(-(gumbel + top.logits), kind="stable")[
            : min(considered, simulations, len(top.logits))
        ]
    )
    left, phases = simulations, max(math.ceil(math.log2(len(alive))), 1)
    while left > 0:
        each = max(simulations // (phases * len(alive)), 1)
        for action in alive * each:
            if left == 0:
                break
            yield from _simulate(top, int(action), depth)
            left -= 1
        scores = gumbel + top.logits + _sigma(top, scale)
        alive = sorted(alive, key=lambda a: -scores[a])[: max(len(alive) // 2, 1)]
    policy = softmax(top.logits + _sigma(top, scale))
    return Found(int(alive[0]), policy, float((policy * top.q).sum()))


def _sigma(node: _Node[State], scale: float) -> Floats:
    q = node.q
    spread = float(q.max() - q.min())
    return np.asarray(
        (50 + node.visits.max()) * scale * ((q - q.min()) / spread if spread > 1e-12 else 0 * q)
    )


def _simulate(
    root: _Node[State], action: int, depth: int
) -> Generator[tuple[State, int], Leaf[State], None]:
    """One descent: the given action at the root, below it the one most behind the improved policy
    (ibid., eq. 14)."""
    path = [(root, action)]
    while (
        len(path) < depth
        and (node := path[-1][0].children.get(path[-1][1])) is not None
        and len(node.logits)
    ):
        wanted = softmax(node.logits + _sigma(node, 1.0)) - node.visits / (1 + node.visits.sum())
        path.append((node, int(wanted.argmax())))
    above, last = path[-1]
    if last not in above.children:
        leaf = yield above.state, last
        above.children[last] = _Node(leaf.state, np.asarray(leaf.logits, float), leaf.value)
        above.rewards[last], above.discounts[last] = leaf.reward, leaf.discount
    result = above.children[last].value
    for node, taken in reversed(path):
        result = node.rewards[taken] + node.discounts[taken] * result
        node.visits[taken] += 1
        node.returns[taken] += result


@dataclass(frozen=True)
class _Spot(Generic[Place]):
    """Where a thought has come to, what can be done there, and what that is worth."""

    place: Place
    actions: Sequence[str]
    value: float


@dataclass(frozen=True)
class TreeSearch(Generic[Place]):
    """Gumbel search for many situations at once, each with `simulations` thoughts. Could be done
    what the world lists, or else what the policy says when it is asked `candidates` times; the
    prior is how often it says each, and one part for all alike. Thoughts end as in
    `lookahead.Search`."""

    act: Act
    tries: Try[Place]
    value: ValueOf
    reward: Callable[[Outcome], float]
    listed: Sequence[str] = ()
    candidates: int = 4
    simulations: int = 64
    discount: float = 1.0
    threshold: float = float("inf")
    rng: np.random.Generator | None = None

    def __call__(
        self, places: Sequence[Place], observations: Sequence[str]
    ) -> list[tuple[str, float] | None]:
        """For each situation the action found and what the improved policy is worth there; None
        where one action only could be done."""
        found: list[tuple[str, float] | None] = [None] * len(places)
        roots = self._leaves(places, observations, [0.0] * len(places))
        searches = {
            i: gumbel_search(root, simulations=self.simulations, rng=self.rng)
            for i, root in enumerate(roots)
            if len(root.logits) > 1
        }
        asked = {i: next(search) for i, search in searches.items()}
        while asked:
            leaves = self._tried([(spot, spot.actions[action]) for spot, action in asked.values()])
            for i, leaf in zip(list(asked), leaves, strict=True):
                try:
                    asked[i] = searches[i].send(leaf)
                except StopIteration as over:
                    del asked[i]
                    found[i] = roots[i].state.actions[over.value.action], over.value.value
        return found

    def _tried(self, asked: Sequence[tuple[_Spot[Place], str]]) -> list[Leaf[_Spot[Place]]]:
        """What comes of each action at its spot."""
        tried = self.tries([spot.place for spot, _ in asked], [action for _, action in asked])
        known = [p.answer if p.uncertainty <= self.threshold else None for _, p in tried]
        going = [
            (place, a)
            for (place, _), a in zip(tried, known, strict=True)
            if a is not None and not a.ended
        ]
        met = iter(
            self._leaves(
                [place for place, _ in going],
                [a.observation for _, a in going],
                [self.reward(a) for _, a in going],
            )
        )
        return [
            Leaf(spot, 0.0, 1.0, spot.value, ())
            if answer is None
            else Leaf(spot, self.reward(answer), 0.0, 0.0, ())
            if answer.ended
            else next(met)
            for (spot, _), answer in zip(asked, known, strict=True)
        ]

    def _leaves(
        self, places: Sequence[Place], observations: Sequence[str], rewards: Sequence[float]
    ) -> list[Leaf[_Spot[Place]]]:
        """Where thoughts have come to, each with what the policy would do and what the value
        function expects."""
        if not places:
            return []
        n, discount = self.candidates, min(self.discount, LARGEST_DISCOUNT)
        said = [d.text for d in self.act([o for o in observations for _ in range(n)])]
        values, leaves = self.value(observations).tolist(), []
        for i, (place, reward, value) in enumerate(zip(places, rewards, values, strict=True)):
            heard = Counter(said[i * n : (i + 1) * n])
            actions = tuple(self.listed) or tuple(heard)
            logits = [math.log((heard[a] + 1 / len(actions)) / (n + 1)) for a in actions]
            leaves.append(Leaf(_Spot(place, actions, value), reward, discount, value, logits))
        return leaves
