"""The learner: imitates demonstrations, then improves on experience, real or imagined, by one rule.

An algorithm is a row of settings, not a class: source, advantage (within a group, of episodes or of turns from the same
state; or of a turn over a value function), ratio (token, clipped higher above), aggregation (token mean), plus
c·NLL(demos).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from experience.episode import Episode, Group
from experience.learning.advantages import (
    advantages,
    as_turn,
    best_turns,
    expert_returns,
    state_advantages,
    turn_advantages,
)
from experience.learning.batch import TokenBatch, Turn, as_arrays, micro_batches
from experience.learning.finite import FiniteSteps
from experience.learning.losses import (
    Clip,
    clipped_policy_gradient,
    negative_log_likelihood,
    token_logprobs,
)
from experience.learning.value import ValueFunction
from experience.models.weights import Weights, pack_optimizer, unpack_optimizer
from experience.options.hierarchy import best_pursuits, levels
from experience.options.option import library_in
from experience.step import Step
from experience.strict_json import dumps

_PLAN_PASSES = 2

Watch = Callable[[int, int], bool]
"""Told how many steps are done, and how many there are in all; whether to go on."""


def to_the_end(done: int, steps: int) -> bool:
    return True


@dataclass(frozen=True)
class LearnerSettings:
    """Learning rates per optimiser step. `imitation_weight` is c of L = L_PG + c·L_NLL(demonstrations),
    and `imitation_ratio` how many turns are imitated for each that is learned from;
    `observation_weight` adds the NLL of the demonstrations' observations: a model that starts from nothing learns
    the worlds' language from them (early experience, arXiv 2510.08558). `negative_weight` scales advantages
    below zero: under 1, a policy that is pushed off what failed by stale samples does not unlearn what it can do
    (asymmetric REINFORCE, arXiv 2506.20520). `advantage` is what a turn is compared with, where there
    is no value function."""

    learning_rate: float = 3e-4
    imitation_rate: float = 1e-3
    imitation_weight: float = 0.05
    imitation_ratio: float = 1.0
    observation_weight: float = 0.2
    clip_below: float = 0.2
    clip_above: float = 0.28
    negative_weight: float = 1.0
    advantage: Literal["group", "state", "turn"] = "group"
    minibatches: int = 4
    micro_batch_tokens: int = 8192
    batch_turns: int = 64
    gradient_norm: float = 1.0
    remembered_successes: int = 2000
    seed: int = 0


class Learner:
    """Owns the policy being learned. Invariant: `version` rises by one with every `improve` on real experience."""

    def __init__(
        self, model: nn.Module, settings: LearnerSettings, value: ValueFunction | None = None
    ) -> None:
        self.model, self.settings, self.value = model, settings, value
        self.version = 0
        self.options = b""
        """The library of options that goes with the policy (`Library.dump`)."""
        self.planner: Mapping[str, bytes] = {}
        """What its planner thinks with where it acts."""
        self.optimizer, self._steps = self._new_optimizer(), FiniteSteps("policy")
        self._rng = np.random.default_rng(settings.seed)
        self._demonstrations: list[Turn] = []
        self._successes: list[Turn] = []
        self._spread: dict[str, float] = {}
        self._minibatch = 0
        self._imitated = 0
        """Optimiser steps of the first imitation that were taken."""
        self._bar: dict[str, float] = {}

    @property
    def skipped(self) -> int:
        """Updates left out because their loss or gradient was not finite."""
        return self._steps.skipped + (self.value.skipped if self.value else 0)

    def policy(self) -> Weights:
        return replace(
            Weights.of(self.model, self.version), options=self.options, planner=self.planner
        )

    def show(self, turns: Iterable[Turn]) -> None:
        """Turns to be imitated from now on as the policy's own best ones are."""
        self._successes = [*self._successes, *turns][-self.settings.remembered_successes :]

    def imitate(
        self, demonstrations: Iterable[Step], passes: float, watch: Watch = to_the_end
    ) -> dict[str, float]:
        """Supervised fine-tuning: `passes` over the demonstrations' action tokens. Gives the last loss, in nats.

        Begins where `restore` left it. `watch` is told of each optimiser step, may save, and ends imitation by False.
        """
        self._take_demonstrations(demonstrations)
        metrics: dict[str, float] = {}
        per_step = self.settings.batch_turns
        steps = int(passes * len(self._demonstrations) / per_step)
        while self._imitated < steps:
            step = self._imitated
            self._set_rate(
                self.settings.imitation_rate * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / steps)
            )
            metrics |= self._update([], self._sample_demonstrations(per_step), 1.0)
            self._imitated += 1
            if not watch(self._imitated, steps):
                break
        # Adam's second moments now hold the small gradients of a finished imitation; policy gradients are a hundred
        # times larger, and their first steps would be as much too long.
        self.optimizer = self._new_optimizer()
        loss = {"imitation_nll": metrics["nll"]} if metrics else {}
        return {**loss, "imitation_steps": float(self._imitated)}

    def improve(self, groups: Sequence[Group], rate: float = 1.0) -> dict[str, float]:
        """One pass of clipped policy gradient over `groups`, with imitation mixed in, at `rate` × the learning rate
        (less in the first five versions, while Adam's moments settle).

        Where no group tells good from bad, only the imitation term is left; without groups nothing happens.
        """
        if not groups:
            return {}
        turns, metrics = self._credited(groups)
        self._successes += self._best([g for g in groups if g.episodes[0].first.source == "real"])
        del self._successes[: -self.settings.remembered_successes]
        self._set_rate(self.settings.learning_rate * rate * min(1.0, (self.version + 1) / 5))
        order = self._rng.permutation(len(turns))
        parts: dict[str, list[float]] = defaultdict(list)
        for part in np.array_split(order, max(min(self._parts(groups, len(turns)), len(turns)), 1)):
            demos = self._sample_demonstrations(
                max(int(self.settings.imitation_ratio * len(part)), 8)
            )
            for name, value in self._update(
                [turns[i] for i in part], demos, self.settings.imitation_weight
            ).items():
                parts[name].append(value)
        metrics |= {name: float(np.mean(values)) for name, values in parts.items()}
        imagined = groups[0].episodes[0].first.source == "imagined"
        return (
            {f"imagined_{name}": value for name, value in metrics.items()} if imagined else metrics
        )

    def _credited(self, groups: Sequence[Group]) -> tuple[list[Turn], dict[str, float]]:
        """The groups' turns with their advantages, as `advantage` says."""
        if self.value is None and self.settings.advantage != "state":
            return advantages(groups, self.settings.negative_weight)
        leveled = [replace(g, episodes=tuple(self._levels(g.episodes))) for g in groups]
        if self.value is None:
            return state_advantages(leveled, self._spread, self.settings.negative_weight)
        # Before the fit: a value that has seen these returns hides what was better or worse than expected.
        turns, metrics = turn_advantages(
            leveled, self.value, self._spread, self.settings.negative_weight
        )
        lived = [e for g in leveled for e in g.episodes if e.first.source == "real"]
        fitted = self.value.fit(
            lived
        )  # never what was imagined: it would teach the value its own mistakes
        return turns, metrics | fitted

    def imitate_plans(self, plans: Sequence[Turn], rate: float = 1.0) -> dict[str, float]:
        """Two passes of imitation over what planning found to be best, demonstrations mixed in (expert iteration,
        Anthony et al. 2017), at `rate` × the imitation rate."""
        if not plans:
            return {}
        size, losses = self.settings.batch_turns, list[float]()
        self._set_rate(self.settings.imitation_rate * rate)
        for _ in range(_PLAN_PASSES):
            for part in np.array_split(self._rng.permutation(len(plans)), -(-len(plans) // size)):
                shown = [plans[i] for i in part] + self._sample_demonstrations(size // 4)
                losses += [m["nll"] for m in [self._update([], shown, 1.0)] if m]
        return {
            "plan_nll": float(np.mean(losses)) if losses else float("nan"),
            "planned_turns": float(len(plans)),
        }

    def _parts(self, groups: Sequence[Group], turns: int) -> int:
        """How many minibatches: as set for real turns; for imagined ones, of which there may be many more, as many as
        have the size that the last real ones had."""
        if groups[0].episodes[0].first.source != "imagined":
            if turns:  # where a planner chose them all, there is none to weigh
                self._minibatch = max(turns // self.settings.minibatches, 1)
            return self.settings.minibatches
        return max(turns // self._minibatch, 1) if self._minibatch else self.settings.minibatches

    def publish(self) -> Weights:
        """The policy after this round's updates, as a new version."""
        self.version += 1
        return self.policy()

    def save(self) -> dict[str, bytes]:
        """What the next update depends on, by file name: weights, Adam's moments, random state."""
        about = {
            "version": self.version,
            "random": self._rng.bit_generator.state,
            "spread": self._spread,
            "minibatch": self._minibatch,
            "imitated": self._imitated,
        }
        return {
            "policy.safetensors": self.policy().data,
            "optimizer.safetensors": pack_optimizer(self.optimizer),
            "learner.json": dumps(about).encode(),
            **(self.value.save() if self.value else {}),
        }

    def restore(
        self,
        saved: Mapping[str, bytes],
        demonstrations: Iterable[Step],
        learned_from: Iterable[Group],
    ) -> None:
        """Continues where `save` was called. With the same demonstrations, and the groups learned from until then in
        their order, every later update is the same, bit for bit."""
        about = json.loads(saved["learner.json"])
        self.version, self._rng.bit_generator.state = about["version"], about["random"]
        self._spread, self._minibatch = about["spread"], about["minibatch"]
        self._imitated = about.get("imitated", 0)
        Weights.read(self.version, saved["policy.safetensors"]).put_into(self.model)
        unpack_optimizer(saved["optimizer.safetensors"], self.optimizer)
        groups = list(learned_from)
        if self.value is not None:
            self.value.restore(saved, self._levels(e for g in groups for e in g.episodes))
        self._take_demonstrations(demonstrations)
        self._successes = self._best(groups)[-self.settings.remembered_successes :]

    def _best(self, groups: Sequence[Group]) -> list[Turn]:
        """The turns that are imitated from then on: of whole episodes, and of pursuits of subgoals."""
        library = library_in(self.options)
        parts = [s for g in groups for pursuit in best_pursuits(g, library) for s in pursuit.steps]
        return [
            *best_turns(groups, self._bar),
            *(t for s in parts if (t := as_turn(s)) is not None),
        ]

    def _levels(self, episodes: Iterable[Episode]) -> list[Episode]:
        """With subgoals in its library, each episode's choices and pursuits: credited apart."""
        library = library_in(self.options)
        return [level for episode in episodes for level in levels(episode, library).episodes]

    def _take_demonstrations(self, demonstrations: Iterable[Step]) -> None:
        shown = list(demonstrations)
        self._demonstrations = [turn for s in shown if (turn := as_turn(s)) is not None]
        self._bar = expert_returns(shown)

    def _update(
        self, turns: Sequence[Turn], demos: Sequence[Turn], imitation_weight: float
    ) -> dict[str, float]:
        """One optimiser step on L = L_PG(turns) + c·L_NLL(demos), each a mean over all its tokens, accumulated over
        micro-batches. Gives nothing where it was skipped, because the loss or a gradient is not finite."""
        self.model.eval()  # without dropout, as the sampler is: π/μ compares like with like
        self.optimizer.zero_grad()
        loss, metrics = self._weigh(turns) if turns else (0.0, {})
        if demos and imitation_weight:
            imitation, metrics["nll"] = self._imitate(demos, imitation_weight)
            loss += imitation
        norm = self._steps.take(
            self.optimizer,
            loss,
            lambda: as_arrays(turns=turns, demonstrations=demos),
            self.settings.gradient_norm,
        )
        return {} if norm is None else {**metrics, "gradient_norm": norm}

    def _weigh(self, turns: Sequence[Turn]) -> tuple[float, dict[str, float]]:
        """Adds the gradient of the clipped policy gradient; that loss and its metrics, means over choices of tokens."""
        batches = [
            TokenBatch.of(micro) for micro in micro_batches(turns, self.settings.micro_batch_tokens)
        ]
        tokens = max(sum(float(b.mask.sum()) for b in batches), 1.0)
        clip = Clip(self.settings.clip_below, self.settings.clip_above)
        total, metrics = 0.0, defaultdict[str, float](float)
        for batch in batches:
            logits = self.model(batch.tokens)
            logp = token_logprobs(
                logits, batch.tokens, batch.temperature, batch.barred(logits.shape[-1])
            )
            loss, found = clipped_policy_gradient(
                logp, batch.logp_behaviour, batch.advantage, batch.mask, clip
            )
            (loss / tokens).backward()
            total += float(loss.detach()) / tokens
            for name, value in found.items():
                metrics[name] += value / tokens
        return total, dict(metrics)

    def _imitate(self, demos: Sequence[Turn], weight: float) -> tuple[float, float]:
        """Adds `weight` times the gradient of the NLL of the actions, and of what was observed; that loss, and the
        actions' NLL, in nats a token."""
        batches = [
            TokenBatch.of(micro) for micro in micro_batches(demos, self.settings.micro_batch_tokens)
        ]
        tokens = max(sum(float(b.mask.sum()) for b in batches), 1.0)
        observed = max(sum(float(b.observed.sum()) for b in batches), 1.0)
        total = nll = 0.0
        for batch in batches:
            logits = self.model(batch.tokens)
            logp = token_logprobs(logits, batch.tokens, barred=batch.barred(logits.shape[-1]))
            said = negative_log_likelihood(logp, batch.mask) / tokens
            seen = negative_log_likelihood(logp, batch.observed) / observed
            loss = weight * (said + self.settings.observation_weight * seen)
            loss.backward()
            total, nll = total + float(loss.detach()), nll + float(said.detach())
        return total, nll

    def _sample_demonstrations(self, n: int) -> list[Turn]:
        """From the experts' turns and the policy's own best ones alike (self-imitation, Oh et al. 2018): as the
        policy solves more tasks, the experts' word weighs less."""
        known = self._demonstrations + self._successes
        return [known[i] for i in self._rng.integers(len(known), size=n)] if known else []

    def _new_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.model.parameters(),
            lr=self.settings.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate


class NullLearner:
    """A learner that learns nothing, for policies whose weights live elsewhere: versions count rounds."""

    version, value, options, skipped = 0, None, b"", 0
    planner: Mapping[str, bytes] = {}

    def policy(self) -> Weights:
        return Weights(self.version, b"", "")

    def publish(self) -> Weights:
        self.version += 1
        return self.policy()

    def imitate(
        self, demonstrations: Iterable[Step], passes: float, watch: Watch = to_the_end
    ) -> dict[str, float]:
        return {}

    def improve(self, groups: Sequence[Group], rate: float = 1.0) -> dict[str, float]:
        return {}

    def imitate_plans(self, plans: Sequence[Turn], rate: float = 1.0) -> dict[str, float]:
        return {}

    def show(self, turns: Iterable[Turn]) -> None:
        pass

    def save(self) -> dict[str, bytes]:
        return {"learner.json": dumps({"version": self.version}).encode()}

    def restore(
        self,
        saved: Mapping[str, bytes],
        demonstrations: Iterable[Step],
        learned_from: Iterable[Group],
    ) -> None:
        self.version = json.loads(saved["learner.json"])["version"]
