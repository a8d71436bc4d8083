"""Tree search with few simulations: sequential halving with Gumbel noise, and an improved policy.

Danihelka et al. 2022, "Policy improvement by planning with Gumbel": with any number of simulations
the improved policy is at least as good as the prior, under the values of the search. Where actions
are tried is one function (`Try`), as for lookahead.
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

_MAX_VISIT_WEIGHT = 50
"""c_visit of σ (ibid., appendix F): the weight of q in the policy before any visit."""


@dataclass(frozen=True)
class Leaf(Generic[State]):
    """The result of an action.

    state: where it leads. reward: on the way. discount, value: of that state. logits: the prior's,
    float [A], over the actions that are possible there; empty if there are none.
    """

    state: State
    reward: float
    discount: float
    value: float
    logits: Sequence[float]


@dataclass
class _Node(Generic[State]):
    """A state in the tree: the prior's logits float [A], its value, and the results of actions.

    visits, returns: float [A], the number of simulations through each action, and the sum of their
    returns.
    """

    state: State
    logits: Floats
    value: float
    children: dict[int, _Node[State]] = field(default_factory=dict)
    rewards: dict[int, float] = field(default_factory=dict)
    discounts: dict[int, float] = field(default_factory=dict)
    visits: Floats = field(default_factory=lambda: np.zeros(0))
    returns: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self.visits = np.zeros(len(self.logits))
        self.returns = np.zeros(len(self.logits))

    @property
    def q(self) -> Floats:
        """The mean return of each action, float [A]; an action never tried gets v_mix.

        v_mix = (v + Σ_b N(b) · Σ_tried π(b) q(b) / Σ_tried π(b)) / (1 + Σ_b N(b))    ibid., eq. 33
        """
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
    """The result of a search.

    action: the one to take. policy: float [A], the improved policy, a target for the prior. value:
    of the root under that policy.
    """

    action: int
    policy: Floats
    value: float


def softmax(logits: Floats) -> Floats:
    # Less the greatest logit: the result is the same, and exp cannot overflow.
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
    """Searches by sequential halving: g + logits + σ(q̂) decides which actions are kept.

    π' = softmax(logits + σ(q̂)), σ(q) = (50 + max_b N(b))·scale·q    ibid., eq. 8

    In σ, q is rescaled to [0, 1] over the root's actions (ibid., appendix F). A generator: it
    yields (state, action) and is sent the leaf, so that many searches are answered together.
    Without `rng` there is no noise g, and the search is greedy. `considered`: at most so many
    actions of the root are tried.
    """
    top = _Node(root.state, np.asarray(root.logits, float), root.value)
    gumbel = rng.gumbel(size=len(top.logits)) if rng is not None else np.zeros(len(top.logits))
    # The k greatest of g + logits are k samples of the prior without replacement.
    most = min(considered, simulations, len(top.logits))
    alive = list(np.argsort(-(gumbel + top.logits), kind="stable")[:most])
    left = simulations
    phases = max(math.ceil(math.log2(len(alive))), 1)
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
    """σ(q) of the node's actions, float [A]; 0 if they are all worth the same."""
    q = node.q
    spread = float(q.max() - q.min())
    rescaled = (q - q.min()) / spread if spread > 1e-12 else 0 * q
    return np.asarray((_MAX_VISIT_WEIGHT + node.visits.max()) * scale * rescaled)


def _simulate(
    root: _Node[State], action: int, depth: int
) -> Generator[tuple[State, int], Leaf[State], None]:
    """One simulation: down to a leaf by `action`, then the return back up to the root.

    Below the root it takes argmax_a π'(a) − N(a) / (1 + Σ_b N(b))    ibid., eq. 14
    """
    path = _descent(root, action, depth)
    above, last = path[-1]
    if last not in above.children:
        leaf = yield above.state, last
        above.children[last] = _Node(leaf.state, np.asarray(leaf.logits, float), leaf.value)
        above.rewards[last] = leaf.reward
        above.discounts[last] = leaf.discount
    # A known child can be the end of the path: it has no actions, or the depth is reached.
    result = above.children[last].value
    for node, taken in reversed(path):
        result = node.rewards[taken] + node.discounts[taken] * result
        node.visits[taken] += 1
        node.returns[taken] += result


def _descent(root: _Node[State], action: int, depth: int) -> list[tuple[_Node[State], int]]:
    """The nodes and actions of one simulation, from the root to an action without a child."""
    path = [(root, action)]
    while len(path) < depth:
        above, taken = path[-1]
        node = above.children.get(taken)
        if node is None or not len(node.logits):
            break
        # Deterministic: visits follow the improved policy, as samples from it would on average.
        wanted = softmax(node.logits + _sigma(node, 1.0)) - node.visits / (1 + node.visits.sum())
        path.append((node, int(wanted.argmax())))
    return path


@dataclass(frozen=True)
class _Spot(Generic[Place]):
    """A state of the search: its place, the actions that are possible there, and its value."""

    place: Place
    actions: Sequence[str]
    value: float


@dataclass(frozen=True)
class TreeSearch(Generic[Place]):
    """Gumbel search for many situations at once, each with `simulations` simulations.

    The possible actions are those that the world lists, or else `candidates` samples of the policy.
    The prior is how often the policy chose each, plus one sample that is shared by all. Actions end
    and are cut as in `lookahead.Search`.
    """

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
        """The action of each situation, and the root's value under the improved policy.

        None where only one action is possible: then nothing is tried.
        """
        found: list[tuple[str, float] | None] = [None] * len(places)
        roots = self._leaves(places, observations, [0.0] * len(places))
        searches = {
            i: gumbel_search(root, simulations=self.simulations, rng=self.rng)
            for i, root in enumerate(roots)
            if len(root.logits) > 1
        }
        asked = {i: next(search) for i, search in searches.items()}
        # All searches ask in step, so that the model and the policy see one batch a simulation.
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
        """The leaf of each action at its spot."""
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
        leaves = []
        for (spot, _), answer in zip(asked, known, strict=True):
            if answer is None:
                # Unknown: as if nothing had happened, the value of the spot where it was tried.
                leaves.append(Leaf(spot, 0.0, 1.0, spot.value, ()))
            elif answer.ended:
                leaves.append(Leaf(spot, self.reward(answer), 0.0, 0.0, ()))
            else:
                leaves.append(next(met))
        return leaves

    def _leaves(
        self, places: Sequence[Place], observations: Sequence[str], rewards: Sequence[float]
    ) -> list[Leaf[_Spot[Place]]]:
        """The states that actions lead to, each with the policy's prior and its value."""
        if not places:
            return []
        n = self.candidates
        # Below 1, or circles would be as good as the shortest path (see LARGEST_DISCOUNT).
        discount = min(self.discount, LARGEST_DISCOUNT)
        said = [d.text for d in self.act([o for o in observations for _ in range(n)])]
        values = self.value(observations).tolist()
        leaves = []
        for i, (place, reward, value) in enumerate(zip(places, rewards, values, strict=True)):
            heard = Counter(said[i * n : (i + 1) * n])
            actions = tuple(self.listed) or tuple(heard)
            # One shared sample: an action that the policy never chose keeps a probability above 0.
            logits = [math.log((heard[a] + 1 / len(actions)) / (n + 1)) for a in actions]
            leaves.append(Leaf(_Spot(place, actions, value), reward, discount, value, logits))
        return leaves
