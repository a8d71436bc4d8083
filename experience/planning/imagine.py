"""Dyna: short imagined branches from real stored steps, gated by the model's own uncertainty.

A branch starts at a real observation of a training stream and follows the present policy for at
most `horizon` turns. It is cut where the model is uncertain, or predicts nothing that is possible.
With a value function, an unfinished branch ends in the value of its last observation; without one,
only branches that reached an end are learned from. Imagined turns are ordinary steps with source
`imagined`, the model's version, and the real step that they branch from. A group holds imagined
episodes only: no baseline ever mixes real and imagined returns.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from experience.episode import Episode, Group
from experience.learning.value import ValueFunction
from experience.options.hierarchy import REACHED
from experience.options.option import USE, Library, Subgoal, option_id
from experience.planning.lookahead import in_model
from experience.planning.reach import Choice, Reach, worth
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.world_model import Prediction, WorldModel
from experience.policy import Decision
from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Ending, Step, discount_after, state_key

Act = Callable[[Sequence[str], Sequence[str]], list[Decision]]
"""(environment ids, observations) -> the present policy's decisions."""
Listed = Callable[[str, Sequence[str]], Sequence[Sequence[str]]]
"""(environment id, observations) -> the actions that are possible in each."""


@dataclass(frozen=True)
class _Rules:
    """What an imagined turn needs besides its prediction: rewards, signals' units, γ, a version."""

    rewards: RewardModel
    catalogue: Mapping[str, SignalKind]
    discount: float
    model_version: int

    def know(self, answer: Outcome) -> bool:
        """Whether the environment has every signal that was predicted."""
        return set(answer.signals) <= set(self.catalogue)


@dataclass
class Imagined:
    """The groups that survived, and the number of all branches by their fate.

    The fates are `ended`, `unfinished`, `uncertain` and `impossible`.
    """

    groups: list[Group]
    branches: Counter[str] = field(default_factory=Counter)

    @property
    def steps(self) -> list[Step]:
        return [s for g in self.groups for e in g.episodes for s in e.rows]


@dataclass
class _Branch:
    """Imagined turns after the real step `root`; `observation` is the one they led to."""

    group: int
    root: Step
    observation: str
    steps: list[Step] = field(default_factory=list)
    fate: str = "unfinished"

    def take(
        self, decision: Decision, prediction: Prediction, threshold: float, rules: _Rules
    ) -> None:
        """Lives one more turn if the prediction passes the gate, else ends the branch."""
        answer = prediction.answer
        # A world knows nothing of options: what the model makes of `use NAME` means nothing.
        if answer is None or decision.text.startswith(USE):
            self.fate = "impossible"
        elif prediction.uncertainty > threshold:
            self.fate = "uncertain"
        elif not rules.know(answer):
            self.fate = "impossible"
        else:
            self.live(decision, answer, prediction.uncertainty, rules)

    def live(self, decision: Decision, answer: Outcome, uncertainty: float, rules: _Rules) -> None:
        """Adds one turn, as the model answered it."""
        root = self.root
        signals = tuple(
            Signal(name, value, rules.catalogue[name].unit, "model")
            for name, value in answer.signals.items()
        )
        ending: Ending = "terminated" if answer.ended else "none"
        self.steps.append(
            replace(
                root,
                source="imagined",
                split="train",
                obs_text=self.observation,
                decision=decision,
                signals=signals,
                # By the present reward model, not by the prediction: a model predicts signals only.
                reward=rules.rewards.reward(root.env_id, signals),
                ending=ending,
                reward_version=rules.rewards.version,
                discount=discount_after(ending, rules.discount),
                model_version=rules.model_version,
                uncertainty=uncertainty,
                parent=(root.stream_id, root.t),
                step_in_episode=len(self.steps),
                state_key=state_key(self.observation),
                boundary=Boundary.NONE,
                info={},
            )
        )
        self.observation = answer.observation
        self.fate = "ended" if answer.ended else "unfinished"


def imagine(
    act: Act,
    model: WorldModel,
    replay: Replay,
    rewards: RewardModel,
    catalogue: dict[str, SignalKind],
    *,
    groups: int,
    group_size: int,
    horizon: int,
    discount: float = 1.0,
    value: ValueFunction | None = None,
) -> Imagined:
    """Up to `groups` groups of `group_size` branches, from steps of uniformly drawn episodes.

    Branches that the gate cut before their first turn are left out, and so are groups with fewer
    than two branches left.
    """
    rules = _Rules(rewards, catalogue, discount, model.version)
    # Only the first turns of an episode: later ones are mostly those of a policy that is stuck.
    roots = replay.sample_roots(groups, 2 * horizon)
    branches = [
        _Branch(g, root, root.obs_text) for g, root in enumerate(roots) for _ in range(group_size)
    ]
    for _ in range(horizon):
        going = [b for b in branches if b.fate == "unfinished"]
        if not going:
            break
        decisions = act([b.root.env_id for b in going], [b.observation for b in going])
        predictions = model.predict([b.observation for b in going], [d.text for d in decisions])
        for branch, decision, prediction in zip(going, decisions, predictions, strict=True):
            branch.take(decision, prediction, model.threshold, rules)
    fates = Counter(branch.fate for branch in branches)
    return Imagined(_grouped(branches, groups, model.version, value), fates)


def _grouped(
    branches: Sequence[_Branch], groups: int, version: int, value: ValueFunction | None
) -> list[Group]:
    """The branches that can be learned from, as groups of two or more episodes."""
    usable = [b for b in branches if b.steps and (value is not None or b.fate == "ended")]
    ends: list[float | None] = [None] * len(usable)
    if value is not None and usable:
        ends = [float(v) for v in value([b.observation for b in usable])]
    episodes: dict[int, list[Episode]] = defaultdict(list)
    for branch, end in zip(usable, ends, strict=True):
        # An ended branch is worth nothing after its end, whatever the value function says.
        episodes[branch.group].append(_as_episode(branch, None if branch.fate == "ended" else end))
    # One episode has no baseline: it would only teach that every return is the expected one.
    return [
        Group(f"imagined-{version}-{number}", tuple(episodes[number]))
        for number in range(groups)
        if len(episodes[number]) > 1
    ]


def sweep(
    listed: Listed,
    model: WorldModel,
    replay: Replay,
    rewards: RewardModel,
    catalogue: Mapping[str, SignalKind],
    *,
    roots: int,
    within: int,
    states: int,
    discount: float = 1.0,
    library: Library | None = None,
) -> list[Episode]:
    """The best actions in the states that the model reaches from `roots` real steps.

    `states` states are laid out for each root. Every state whose best action is known gives an
    episode of one turn; `value_estimate` is the value that value iteration found. One of several
    best actions is drawn.

    With subgoals in the `library`, the best way to each subgoal is planned from where it may start:
    such a plan has a value even if the model does not reach the end of the episode. The turn then
    carries the subgoal's `option_id`.
    """
    rng = np.random.default_rng(model.version)
    rules = _Rules(rewards, catalogue, discount, model.version)
    episodes: list[Episode] = []
    for (env_id, goal), known in _starts(replay.sample_roots(roots, within), library).items():
        reach = Reach(
            partial(listed, env_id),
            in_model(model),
            partial(_pursued, rewards, env_id, goal),
            states,
            discount,
            model.threshold,
            goal.reached if goal else lambda _: False,
        )
        seen = [root.obs_text for root in known]
        for observation, choice in reach(seen, seen).items():
            action = str(rng.choice(list(choice.best)))
            branch = _Branch(0, known[choice.root], observation)
            turn = _planned_turn(branch, action, choice, rules, goal, states)
            if turn is not None:
                branch.steps = [turn]
                episodes.append(_as_episode(branch, None))
    return episodes


def _starts(
    roots: Sequence[Step], library: Library | None
) -> dict[tuple[str, Subgoal | None], list[Step]]:
    """The roots by environment and by the subgoal that may start there.

    Without subgoals in the library, the subgoal is None. With some, roots where none may start are
    left out: a policy that must choose a subgoal never acts there on its own.
    """
    goals = list(library.goals.values()) if library else []
    starts: dict[tuple[str, Subgoal | None], list[Step]] = defaultdict(list)
    for root in roots:
        if not goals:
            starts[root.env_id, None].append(root)
        for goal in goals:
            if goal.starts(root.obs_text):
                starts[root.env_id, goal].append(root)
    return starts


def _planned_turn(
    branch: _Branch,
    action: str,
    choice: Choice,
    rules: _Rules,
    goal: Subgoal | None,
    states: int,
) -> Step | None:
    """The turn that takes `action` on the branch; None if a predicted signal is unknown."""
    prediction = choice.best[action]
    if prediction.answer is None or not rules.know(prediction.answer):
        return None
    # Neither sampled nor with tokens: the learner imitates it, and takes no ratio of policies.
    decision = Decision(
        action, policy_version=-1, decoder=f"sweeps over {states} states", token_exact=False
    )
    branch.live(decision, prediction.answer, prediction.uncertainty, rules)
    return replace(
        branch.steps[0],
        value_estimate=choice.value,
        option_step=1 if goal else None,
        option_id=option_id(goal.name) if goal else None,
    )


def _pursued(rewards: RewardModel, env_id: str, goal: Subgoal | None, answer: Outcome) -> float:
    """The reward of an imagined outcome, plus that of reaching the goal if it is reached."""
    reached = goal is not None and goal.reached(answer.observation)
    return worth(rewards, env_id, answer) + REACHED * reached


def _as_episode(branch: _Branch, end_value: float | None) -> Episode:
    """The branch as a stream of its own, closed by its last imagined observation and its value."""
    stream = uuid.uuid4().bytes
    steps = tuple(
        replace(
            s,
            stream_id=stream,
            t=t,
            episode=0,
            work_id=stream,
            boundary=Boundary.RESET if t == 0 else Boundary.NONE,
        )
        for t, s in enumerate(branch.steps)
    )
    last = steps[-1]
    closing = replace(
        last,
        t=last.t + 1,
        decision=None,
        obs_text=branch.observation,
        signals=(),
        reward=None,
        step_in_episode=len(steps),
        value_estimate=end_value,
        boundary=Boundary.TERMINATED if branch.fate == "ended" else Boundary.NONE,
    )
    return Episode(steps, closing)
