"""The agent: turns observations into situations, and an engine's answers into actions.

Also the two scripted agents that a run needs: the world's own expert, and random actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from actors.agents.options import EnvSlot, choose
from actors.agents.planner import Planner, next_experiment
from actors.engines.engine import Engine, Situation
from experience.errors import ConfigError, EnvironmentFailure
from experience.models.weights import PolicyBundle
from experience.options.option import USE, Experiments, Library, library_in
from experience.policy import Decision, VersionSpan
from experience.text.tools import Schema
from experience.world import WorldView

NO_OPTIONS = Library()


def situation(slot: EnvSlot, options: Library = NO_OPTIONS) -> Situation:
    """What the policy must answer. While no option is under way, one may be started; if
    subgoals may be started, one of them must be."""
    context = prompt_context(slot.view, slot.tools)
    options = options.within(slot.env_id)
    actions = context.actions
    if actions and not slot.option_stack.running:
        goals = tuple(USE + name for name in options.subgoals(slot.observation))
        actions = goals or actions + tuple(options.admissible(slot.observation))
    return replace(
        context,
        observation=slot.option_stack.read(slot.observation, options),
        actions=actions,
        draw=slot.draw,
        images=slot.images,
    )


def prompt_context(view: WorldView, tools: Sequence[Schema] = ()) -> Situation:
    """The part of a prompt that is the same at every turn of a world: its rules, its actions if
    the world lists them, and its tools if it has any."""
    return Situation("", view.instructions, view.actions, tools=tuple(tools))


class Agent:
    """An engine as a policy, with options and, if given, a planner that is asked before it."""

    def __init__(self, engine: Engine, temperature: float, planner: Planner | None = None) -> None:
        self.engine = engine
        self.temperature = temperature
        self.options = NO_OPTIONS
        self._planner = planner

    def load(self, policy: PolicyBundle) -> None:
        self.engine.load(policy.weights)
        self.options = library_in(policy.options)
        if self._planner is not None:
            self._planner.load(policy.planner)

    def act(self, slots: Sequence[EnvSlot]) -> list[Decision]:
        """The next decision of each slot: of the option under way, else of the policy, which may
        start an option. Where an agent's context is nearly full, the decision is a summary of it.
        """
        full = [slot for slot in slots if self._is_nearly_full(slot)]
        if not full:
            return choose(slots, self.options, self._ask, self.engine.version)
        decisions = dict(zip(map(id, full), self._summarise(full), strict=True))
        rest = [slot for slot in slots if id(slot) not in decisions]
        chosen = choose(rest, self.options, self._ask, self.engine.version)
        decisions |= zip(map(id, rest), chosen, strict=True)
        return [decisions[id(slot)] for slot in slots]

    def close(self) -> None:
        if self._planner is not None:
            self._planner.close()

    def _ask(self, slots: Sequence[EnvSlot]) -> list[Decision]:
        planned = self._experiments(slots)
        if self._planner is not None:
            planned |= self._plan(
                self._planner, [slot for slot in slots if not slot.option_stack.running]
            )
        left = iter(self._by_policy([slot for slot in slots if id(slot) not in planned]))
        return [planned[id(slot)] if id(slot) in planned else next(left) for slot in slots]

    def _experiments(self, slots: Sequence[EnvSlot]) -> dict[int, Decision]:
        """The next experiment, by `id(slot)`, where a campaign is under way in a laboratory."""
        decisions: dict[int, Decision] = {}
        for slot in slots:
            if slot.option_stack.running and isinstance(
                slot.option_stack.running[-1].option, Experiments
            ):
                context = prompt_context(slot.view, slot.tools)
                planned = next_experiment(
                    slot.view, slot.observation, partial(self._write, context)
                )
                if planned is not None:
                    decisions[id(slot)], slot.option_stack.value_estimate = planned
        return decisions

    def _write(self, context: Situation, seen: str, action: str) -> Decision:
        return planned(self.engine, replace(context, observation=seen), action, self.engine.version)

    def _plan(self, planner: Planner, slots: Sequence[EnvSlot]) -> dict[int, Decision]:
        """The planner's decisions, by `id(slot)`; none where no model is loaded."""
        decisions: dict[int, Decision] = {}
        for env_id in dict.fromkeys(slot.env_id for slot in slots):
            here = [slot for slot in slots if slot.env_id == env_id]
            context = prompt_context(here[0].view, here[0].tools)

            def ask(seen: Sequence[str], context: Situation = context) -> list[Decision]:
                # a plan needs candidates that differ, also where the agent itself acts greedily
                return self.engine.act([replace(context, observation=o) for o in seen], 1.0)

            found = planner.decide(
                env_id,
                [slot.view for slot in here],
                [slot.observation for slot in here],
                ask,
                partial(self._write, context),
                {k: v for slot in here for k, v in slot.option_stack.lived.items()},
                greedy=self.temperature == 0,
            )
            for slot, thought in zip(here, found, strict=False):
                if thought is not None:
                    decisions[id(slot)], slot.option_stack.value_estimate = thought
        return decisions

    def _by_policy(self, slots: Sequence[EnvSlot]) -> list[Decision]:
        if not slots:
            return []
        asked = [s.context.situation(situation(s, self.options), self.engine) for s in slots]
        return self.engine.act(asked, self.temperature)

    def _is_nearly_full(self, slot: EnvSlot) -> bool:
        return slot.context.history.kind == "compact" and slot.context.is_nearly_full(
            situation(slot, self.options), self.engine
        )

    def _summarise(self, slots: Sequence[EnvSlot]) -> list[Decision]:
        for slot in slots:
            slot.option_stack.is_choice = False
            slot.option_stack.value_estimate = None
        asked = [
            slot.context.request_for_summary(situation(slot, self.options), self.engine)
            for slot in slots
        ]
        return self.engine.act(asked, self.temperature)


def written(engine: Engine, asked: Situation, text: str, version: int) -> Decision:
    """An action that the engine did not sample, as its tokens if the engine knows them."""
    encoded = engine.encode(asked, text)
    if encoded is None:
        return Decision(text, policy_version=version)
    return replace(
        encoded,
        policy_version=version,
        version_spans=(VersionSpan(version, len(encoded.action_ids)),),
    )


def planned(engine: Engine, asked: Situation, text: str, version: int) -> Decision:
    """An action that a planner chose, as tokens. An action that is too long is still done, without
    tokens, and nothing is learned from it: a planner may choose the text of a sample that was cut,
    which takes more tokens than the sample had."""
    try:
        return written(engine, asked, text, version)
    except ConfigError:
        return Decision(text, policy_version=version, action_cut=True)


def check_room(
    engine: Engine, contexts: Mapping[str, Situation], options: Sequence[str] = ()
) -> None:
    """Raises ConfigError, with the number of tokens needed, if something has no room that every
    run in these worlds must read or write: the rules, a listed action, an option's start.

    contexts: by environment id. What is only known later, such as an expert's actions, is checked
    when it is first written.
    """
    for context in contexts.values():
        writable = [*context.actions, *(USE + name for name in options)]
        # the longest first: its error names the number that is enough for all
        for action in sorted(writable, key=len, reverse=True) or [""]:
            engine.encode(context, action)


def scripted(slot: EnvSlot) -> str:
    """The action that the world's own script has here. Raises EnvironmentFailure without one."""
    if slot.view.scripted is None:
        raise EnvironmentFailure(
            f"{slot.env_id} has no action of its own here",
            "its expert_action() or random_action(rng) gives a text at every turn",
        )
    return slot.view.scripted


class Expert:
    """The world's scripted expert. Its actions are certain: their log-probability is 0."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def act(self, slots: Sequence[EnvSlot]) -> list[Decision]:
        return [self._do(slot) for slot in slots]

    def _do(self, slot: EnvSlot) -> Decision:
        asked = slot.context.situation(situation(slot), self._engine)
        return replace(written(self._engine, asked, scripted(slot), 0), behaviour_id="expert")


class Random:
    """Well-formed actions at random: the baseline that learning must beat."""

    def act(self, slots: Sequence[EnvSlot]) -> list[Decision]:
        return [
            Decision(
                scripted(s),
                policy_version=0,
                behaviour_id="random",
            )
            for s in slots
        ]
