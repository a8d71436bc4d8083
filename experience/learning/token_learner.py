"""The learner of language models: it imitates demonstrations, then improves on experience.

Real and imagined experience are learned from by one rule, a row of the table of recipes: an
estimator of advantages and the terms of one loss. Turns whose prompts continue each other are
learned from as one sequence.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import nn

from experience.episode import Group
from experience.learning.advantages import ranked, ranked_turns
from experience.learning.batch import TokenSequence, Turn, join
from experience.learning.credit import AdvantageEstimator
from experience.learning.demonstrations import Demonstrations
from experience.learning.learner import LearnerSettings, Watch, to_the_end
from experience.learning.mismatch import engine_mismatch
from experience.learning.objectives import Preferences, text_terms
from experience.learning.sequences.sequence import count_turns
from experience.learning.trainer import Part, Trainer
from experience.learning.value import ValueFunction
from experience.models.sight import Album
from experience.models.weights import PolicyBundle, Weights
from experience.options.hierarchy import split_levels
from experience.options.option import Library, library_in
from experience.step import Step
from experience.text.strict_json import dumps

_PLAN_PASSES = 2
_WARM_UP_STEPS = 20
"""Optimiser steps of imitation over which its learning rate rises."""
_WARM_UP_VERSIONS = 5
"""Versions over which the learning rate on experience rises, while Adam's moments settle."""
_FEWEST_DEMONSTRATIONS = 8
"""Turns that are imitated in each update on experience, however few it learns from."""


class Minibatches:
    """Cuts the sequences of an update into minibatches, one for each optimiser step.

    Real ones make `wanted` minibatches. Imagined ones may be many more: their minibatches get the
    size that the last real ones had.
    """

    def __init__(self, wanted: int) -> None:
        self.real_size = 0
        self._wanted = wanted

    def cut(self, count: int, imagined: bool, rng: np.random.Generator) -> list[np.ndarray]:
        """The numbers below `count`, shuffled and cut; one empty minibatch if there are none."""
        wanted = self._wanted
        if imagined and self.real_size:
            # Equal sizes give equal step lengths: imagined turns must not be worth more each.
            wanted = max(count // self.real_size, 1)
        if count and not imagined:  # if a planner chose all actions, there are none to weigh
            self.real_size = max(count // self._wanted, 1)
        order = rng.permutation(count)
        return np.array_split(order, max(min(wanted, count), 1))


def imitation_schedule(step: int, steps: int) -> float:
    """The share of the imitation rate at `step`: a short linear rise, then a fall to a tenth."""
    # The rise gives Adam's moments time to settle; the fall to a tenth averages the noise out.
    warm_up = min(1.0, (step + 1) / _WARM_UP_STEPS)
    return warm_up * (1 - 0.9 * step / steps)


class TokenLearner:
    """Owns a policy that writes tokens. See `Learner` for what its methods promise.

    album: the pictures of turns, for a policy that sees.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: LearnerSettings,
        value: ValueFunction | None = None,
        album: Album | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.value = value
        self.version = 0
        self.options = b""
        self.planner: Mapping[str, bytes] = {}
        self.trainer = Trainer(model, settings, album)
        self.advantages = AdvantageEstimator(
            self.trainer.recipe, value, self.trainer.scorer.log_ratios
        )
        self._demonstrations = Demonstrations(settings.remembered_successes)
        self._rng = np.random.default_rng(settings.seed)
        self._minibatches = Minibatches(settings.minibatches)
        self._imitated = 0
        self._bundle: PolicyBundle | None = None
        self._bundle_updates = -1

    @property
    def skipped(self) -> int:
        return self.trainer.skipped + (self.value.skipped if self.value else 0)

    def policy(self) -> PolicyBundle:
        """The present policy, serialised only if it changed since the last call."""
        if self._bundle is None or self._bundle_updates != self.trainer.updates:
            self._bundle = PolicyBundle(Weights.of(self.model, self.version))
            self._bundle_updates = self.trainer.updates
        weights = self._bundle.weights.as_version(self.version)
        self._bundle = self._bundle.updated(weights, self.options, self.planner)
        return self._bundle

    def publish(self) -> PolicyBundle:
        self.version += 1
        return self.policy()

    def show(self, turns: Iterable[Turn]) -> None:
        self._demonstrations.add(turns)

    def imitate(
        self, demonstrations: Iterable[Step], passes: float, watch: Watch = to_the_end
    ) -> dict[str, float]:
        """Supervised fine-tuning: `passes` over the demonstrations' action tokens.

        Begins where `restore` left it. Returns the last loss, in nats a token.
        """
        self._demonstrations.take(demonstrations)
        metrics: dict[str, float] = {}
        per_step = self.settings.batch_turns
        steps = int(passes * len(self._demonstrations) / per_step)
        while self._imitated < steps:
            schedule = imitation_schedule(self._imitated, steps)
            self.trainer.set_rate(self.settings.imitation_rate * schedule)
            shown = self._demonstrations.sample(per_step, self._rng)
            metrics |= self.trainer.update([], shown, 1.0)
            self._imitated += 1
            if not watch(self._imitated, steps):
                break
        # Adam's second moments now hold the small gradients of a finished imitation. Policy
        # gradients are a hundred times larger: their first steps would be as much too long.
        self.trainer.forget_moments()
        loss = {"imitation_nll": metrics["nll"]} if metrics else {}
        return {**loss, "imitation_steps": float(self._imitated)}

    def improve(self, groups: Sequence[Group], rate: float = 1.0) -> dict[str, float]:
        """One pass of the objective over `groups`, with imitation mixed in.

        If no group tells good from bad, only the imitation term is left. Metrics of imagined
        groups are named `imagined_…`.
        """
        if not groups:
            return {}
        self.trainer.keep_reference()
        if isinstance(rule := self.trainer.terms[0].objective, Preferences):
            return self._prefer(groups, rate, rule)
        library = library_in(self.options)
        mismatch = engine_mismatch(self.trainer.scorer, groups, self.version)
        turns, metrics = self.advantages(groups, library)
        sequences = join(turns)
        metrics |= _sizes(sequences)
        if self.trainer.recipe.decoupled:
            sequences = self.trainer.scorer.proximal(sequences)
        real = [g for g in groups if g.episodes[0].first.source == "real"]
        self._demonstrations.add_best(real, library)
        warm_up = min(1.0, (self.version + 1) / _WARM_UP_VERSIONS)
        self.trainer.set_rate(self.settings.learning_rate * rate * warm_up)
        imagined = groups[0].episodes[0].first.source == "imagined"
        found = defaultdict[str, list[float]](list)
        for part in self._minibatches.cut(len(sequences), imagined, self._rng):
            learned = [sequences[i] for i in part]
            wanted = int(self.settings.imitation_ratio * count_turns(learned))
            update = self.trainer.update(
                learned,
                self._demonstrations.sample(max(wanted, _FEWEST_DEMONSTRATIONS), self._rng),
                self.settings.imitation_weight,
            )
            for name, value in update.items():
                found[name].append(value)
        metrics |= {name: float(np.mean(values)) for name, values in found.items()} | mismatch
        if not imagined:
            return metrics
        return {f"imagined_{name}": value for name, value in metrics.items()}

    def _prefer(self, groups: Sequence[Group], rate: float, by: Preferences) -> dict[str, float]:
        """One pass of a preference rule over the groups' rankings, with imitation mixed in."""
        rankings = ranked(groups)
        self.trainer.set_rate(self.settings.learning_rate * rate)
        found = defaultdict[str, list[float]](list)
        for part in self._minibatches.cut(len(rankings), False, self._rng):
            # Anew for each step: the weights of answers are a gradient, and hold at one point.
            turns, metrics = ranked_turns(
                [rankings[i] for i in part], by.rule, by.beta, self.trainer.likelihoods
            )
            wanted = int(self.settings.imitation_ratio * len(turns))
            shown = self._demonstrations.sample(max(wanted, _FEWEST_DEMONSTRATIONS), self._rng)
            metrics |= self.trainer.update(join(turns), shown, self.settings.imitation_weight)
            for name, value in metrics.items():
                found[name].append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def imitate_plans(self, plans: Sequence[Turn], rate: float = 1.0) -> dict[str, float]:
        """Imitates the plans and some demonstrations (expert iteration, Anthony et al. 2017)."""
        if not plans:
            return {}
        size = self.settings.batch_turns
        self.trainer.set_rate(self.settings.imitation_rate * rate)
        losses = list[float]()
        sequences = join(plans)
        steps = min(-(-len(plans) // size), len(sequences))
        for _ in range(_PLAN_PASSES):
            for part in np.array_split(self._rng.permutation(len(sequences)), steps):
                shown = [sequences[i] for i in part]
                shown += self._demonstrations.sample(size // 4, self._rng)
                if metrics := self.trainer.update([], shown, 1.0):
                    losses.append(metrics["nll"])
        nll = float(np.mean(losses)) if losses else float("nan")
        return {"plan_nll": nll, "planned_turns": float(len(plans))}

    def read(self, texts: Sequence[np.ndarray], rate: float = 1.0) -> dict[str, float]:
        """Learns to predict the next token of plain texts, int32 [N] each, in one pass.

        At `rate` times the imitation rate. Returns the mean loss, in nats a token.
        """
        if not texts:
            return {}
        self.trainer.set_rate(self.settings.imitation_rate * rate)
        nothing = np.empty(0, np.int32)
        shown = [Turn(ids, nothing, nothing.astype(np.float32)) for ids in texts]
        losses = list[float]()
        steps = -(-len(shown) // self.settings.batch_turns)
        for part in np.array_split(self._rng.permutation(len(shown)), steps):
            source = Part("text", [shown[i] for i in part], text_terms(), temperature=1.0)
            if metrics := self.trainer.take([source]):
                losses.append(metrics["observed_nll"])
        return {"text_nll": float(np.mean(losses)) if losses else float("nan")}

    def save(self) -> dict[str, bytes]:
        """Everything that the next update depends on and that the store does not hold."""
        state = {
            "version": self.version,
            "random": self._rng.bit_generator.state,
            "spread": self.advantages.spread,
            "running": self.advantages.running,
            "minibatch": self._minibatches.real_size,
            "imitated": self._imitated,
        }
        return {
            "policy.safetensors": self.policy().weights.data,
            "learner.json": dumps(state).encode(),
            **self.trainer.save(),
            **(self.value.save() if self.value else {}),
        }

    def restore(
        self,
        saved: Mapping[str, bytes],
        demonstrations: Iterable[Step],
        learned_from: Iterable[Group],
    ) -> None:
        """Continues where `save` was called: every later update is the same, bit for bit."""
        state = json.loads(saved["learner.json"])
        self.version = state["version"]
        self._rng.bit_generator.state = state["random"]
        self.advantages.spread.update(state["spread"])
        self.advantages.running.update(state.get("running", {}))
        self._minibatches.real_size = state["minibatch"]
        self._imitated = state.get("imitated", 0)
        self.trainer.restore(saved)
        library = library_in(self.options)
        self._demonstrations.take(demonstrations)
        groups = self._still_remembered(learned_from, library)
        if self.value is not None:
            lived = [e for group in groups for e in group.episodes]
            self.value.restore(saved, split_levels(lived, library))
        self._demonstrations.add_best(groups, library)

    def _still_remembered(self, learned_from: Iterable[Group], library: Library) -> list[Group]:
        """The newest groups that fill all that is remembered of them; older ones are not read."""
        groups = learned_from if isinstance(learned_from, Sequence) else list(learned_from)
        kept, episodes, turns = list[Group](), 0, 0
        for group in reversed(groups):
            kept.append(group)
            episodes += len(group.episodes)
            turns += self._demonstrations.count_best(group, library)
            is_enough = self.value is None or episodes >= self.value.most_remembered
            if is_enough and turns > self.settings.remembered_successes:
                break
        return kept[::-1]


def _sizes(sequences: Sequence[TokenSequence]) -> dict[str, float]:
    """How many sequences there are, and the tokens that are read for each one that was chosen."""
    chosen = sum(turn.chosen for sequence in sequences for turn in sequence.turns)
    if not chosen:
        return {"sequences": float(len(sequences))}
    read = sum(sequence.length for sequence in sequences)
    return {"sequences": float(len(sequences)), "tokens_a_chosen": read / chosen}
