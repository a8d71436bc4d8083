"""Dyna: short imagined branches from real stored steps, gated by the model's own uncertainty.

A branch starts at a real observation of a training stream and follows the present policy for at most `horizon` turns.
It is cut where the model is unsure or writes nothing that can happen. With a value function, what is left of an
unfinished branch is worth the value of where it stops; without one, only branches that reached an end count.
Imagined turns are ordinary steps with source `imagined`, the model's version and the real step they branch from.
Groups are wholly imagined: no baseline ever mixes real and imagined returns.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from experience.learning.value import ValueFunction
from experience.planning.option import USE
from experience.planning.world_model import WorldModel
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.replay import Episode, Group, Replay
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Ending, Step, discount_after, state_key

Act = Callable[[Sequence[str]], list[Decision]]


@dataclass
class Imagined:
    """The groups that survived, and what became of all branches, by reason."""

    groups: list[Group]
    branches: Counter[str] = field(default_factory=Counter)

    @property
    def steps(self) -> list[Step]:
        return [s for g in self.groups for e in g.episodes for s in (*e.steps, *([e.closing] if e.closing else []))]


@dataclass
class _Branch:
    group: int
    root: Step
    observation: str
    steps: list[Step] = field(default_factory=list)
    fate: str = "unfinished"


def imagine(act: Act, model: WorldModel, replay: Replay, rewards: RewardModel, catalogue: dict[str, SignalKind],
            *, groups: int, group_size: int, horizon: int, discount: float = 1.0,
            value: ValueFunction | None = None) -> Imagined:
    """`groups` groups of `group_size` branches from steps of uniformly drawn episodes: those that passed the gate."""
    roots = replay.sample_roots(groups, 2 * horizon)
    branches = [_Branch(g, root, root.obs_text) for g, root in enumerate(roots) for _ in range(group_size)]
    for _ in range(horizon):
        going = [b for b in branches if b.fate == "unfinished"]
        if not going:
            break
        decisions = act([b.observation for b in going])
        predictions = model.predict([b.observation for b in going], [d.text for d in decisions])
        for branch, decision, prediction in zip(going, decisions, predictions, strict=True):
            if prediction.answer is None or decision.text.startswith(USE):  # a world knows nothing of options
                branch.fate = "impossible"
            elif prediction.uncertainty > model.threshold:
                branch.fate = "uncertain"
            elif not set(prediction.answer.signals) <= set(catalogue):
                branch.fate = "impossible"
            else:
                signals = tuple(Signal(n, v, catalogue[n].unit, "model") for n, v in prediction.answer.signals.items())
                ending: Ending = "terminated" if prediction.answer.ended else "none"
                branch.steps.append(replace(
                    branch.root, source="imagined", split="train", obs_text=branch.observation, decision=decision,
                    signals=signals, reward=rewards.reward(branch.root.env_id, signals), ending=ending,
                    reward_version=rewards.version, discount=discount_after(ending, discount),
                    model_version=model.version, uncertainty=prediction.uncertainty,
                    parent=(branch.root.stream_id, branch.root.t), step_in_episode=len(branch.steps),
                    state_key=state_key(branch.observation), boundary=Boundary.NONE, info={}))
                branch.observation = prediction.answer.observation
                branch.fate = "ended" if prediction.answer.ended else "unfinished"
    result = Imagined([], Counter(b.fate for b in branches))
    usable = [b for b in branches if b.steps and (value is not None or b.fate == "ended")]
    ends = value([b.observation for b in usable]) if value is not None and usable else [None] * len(usable)
    for number in range(groups):
        kept = tuple(_as_episode(b, None if b.fate == "ended" or v is None else float(v))
                     for b, v in zip(usable, ends, strict=True) if b.group == number)
        if len(kept) > 1:
            result.groups.append(Group(f"imagined-{model.version}-{number}", kept))
    return result


def _as_episode(branch: _Branch, end_value: float | None) -> Episode:
    """The branch as a stream of its own, closed by its last imagined observation and what that is worth."""
    stream = uuid.uuid4().bytes
    steps = tuple(replace(s, stream_id=stream, t=t, episode=0, work_id=stream,
                          boundary=Boundary.RESET if t == 0 else Boundary.NONE) for t, s in enumerate(branch.steps))
    last = steps[-1]
    closing = replace(last, t=last.t + 1, decision=None, obs_text=branch.observation, signals=(), reward=None,
                      step_in_episode=len(steps), value_estimate=end_value,
                      boundary=Boundary.TERMINATED if branch.fate == "ended" else Boundary.NONE)
    return Episode(steps, closing)
