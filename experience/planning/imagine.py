"""Dyna: short imagined branches from real stored steps, gated by the model's own uncertainty.

A branch starts at a real observation of a training stream and follows the present policy for at
most `horizon` turns. It is cut where the model is unsure or writes nothing that can happen. With a
value function, what is left of an unfinished branch is worth the value of where it stops; without
one, only branches that reached an end count. Imagined turns are ordinary steps with source
`imagined`, the model's version and the real step they branch from. Groups are wholly imagined: no
baseline ever mixes real and imagined returns.
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
from experience.planning.reach import Reach, worth
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.world_model import Prediction, WorldModel
from experience.policy import Decision
from experience.replay.memory import Replay
from experience.reward import RewardModel
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Ending, Step, discount_after, state_key

Act = Callable[[Sequence[str], Sequence[str]], list[Decision]]
"""(environment ids, observations) -> the present policy's decisions."""
Listed = Callable[[str, Sequence[str]], Sequence[Sequence[str]]]
"""(environment id, observations) -> what could be done in each."""


@dataclass
class Imagined:
    """The groups that survived, and what became of all branches, by reason."""

    groups: list[Group]
    branches: Counter[str] = field(default_factory=Counter)

    @property
    def steps(self) -> list[Step]:
        return [s for g in self.groups for e in g.episodes for s in e.rows]


@dataclass
class _Branch:
    group: int
    root: Step
    observation: str
    steps: list[Step] = field(default_factory=list)
    fate: str = "unfinished"

    def live(
        self,
        decision: Decision,
        prediction: Prediction,
        version: int,
        rewards: RewardModel,
        catalogue: Mapping[str, SignalKind],
        discount: float,
    ) -> None:
        """One more turn, as the model answers it."""
        assert prediction.answer is not None
        root, answer = self.root, prediction.answer
        signals = tuple(Signal(n, v, catalogue[n].unit, "model") for n, v in answer.signals.items())
        ending: Ending = "terminated" if answer.ended else "none"
        self.steps.append(
            replace(
                root,
                source="imagined",
                split="train",
                obs_text=self.observation,
                decision=decision,
                signals=signals,
                reward=rewards.reward(root.env_id, signals),
                ending=ending,
                reward_version=rewards.version,
                discount=discount_after(ending, discount),
                model_version=version,
                uncertainty=prediction.uncertainty,
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
    """`groups` groups of `group_size` branches from steps of uniformly drawn episodes: those that
    passed the gate."""
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
            if prediction.answer is None or decision.text.startswith(
                USE
            ):  # a world knows nothing of options
                branch.fate = "impossible"
            elif prediction.uncertainty > model.threshold:
                branch.fate = "uncertain"
            elif not set(prediction.answer.signals) <= set(catalogue):
                branch.fate = "impossible"
            else:
                branch.live(decision, prediction, model.version, rewards, catalogue, discount)
    result = Imagined([], Counter(b.fate for b in branches))
    usable = [b for b in branches if b.steps and (value is not None or b.fate == "ended")]
    ends = (
        value([b.observation for b in usable])
        if value is not None and usable
        else [None] * len(usable)
    )
    for number in range(groups):
        kept = tuple(
            _as_episode(b, None if b.fate == "ended" or v is None else float(v))
            for b, v in zip(usable, ends, strict=True)
            if b.group == number
        )
        if len(kept) > 1:
            result.groups.append(Group(f"imagined-{model.version}-{number}", kept))
    return result


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
    """What is best to do in the states that the model reaches from `roots` real steps, `states` for
    each: for every state where that is known, an episode of the one turn. `value_estimate` is what
    sweeps found it to be worth. Where several actions are best, one of them is drawn.

    With subgoals in the `library` it is what is best to reach them, from where each may start: so
    far a plan is worth something even if the model cannot see to the end. The turn then carries the
    subgoal's `option_id`."""
    rng, episodes = np.random.default_rng(model.version), []
    plans: dict[tuple[str, Subgoal | None], list[Step]] = defaultdict(list)
    goals = list(library.goals.values()) if library else []
    for root in replay.sample_roots(roots, within):
        for goal in [g for g in goals if g.starts(root.obs_text)] if goals else [None]:
            plans[root.env_id, goal].append(root)
    for (env_id, goal), known in plans.items():
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
            prediction = choice.best[action]
            if prediction.answer is None or not set(prediction.answer.signals) <= set(catalogue):
                continue
            branch = _Branch(0, known[choice.root], observation)
            decision = Decision(
                action, policy_version=-1, decoder=f"sweeps over {states} states", token_exact=False
            )
            branch.live(decision, prediction, model.version, rewards, catalogue, discount)
            branch.steps[0] = replace(
                branch.steps[0],
                value_estimate=choice.value,
                option_step=1 if goal else None,
                option_id=option_id(goal.name) if goal else None,
            )
            episodes.append(_as_episode(branch, None))
    return episodes


def _pursued(rewards: RewardModel, env_id: str, goal: Subgoal | None, answer: Outcome) -> float:
    """What a thought earns in the world, and for the goal, if there is one and it is reached."""
    return worth(rewards, env_id, answer) + REACHED * (
        goal is not None and goal.reached(answer.observation)
    )


def _as_episode(branch: _Branch, end_value: float | None) -> Episode:
    """The branch as a stream of its own, closed by its last imagined observation and what that is
    worth."""
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
