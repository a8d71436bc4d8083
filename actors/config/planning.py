"""The section `planning` of a configuration: world models, branches, sweeps, search, options."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from actors.config.section import PathText, Section


class WorldModelSection(Section):
    """The world model that the run learns: what it is, how it is fitted, when it is trusted."""

    kind: Literal["language", "ensemble"] = Field(
        "language",
        description="language: any text; ensemble: networks for screens of one form with numbers",
    )
    layers: int = Field(2, ge=1, le=64, description="language: transformer blocks")
    width: int = Field(96, ge=16, le=4096, description="width of the network's layers")
    retrieve: int = Field(
        0,
        ge=0,
        le=8,
        description="language: similar real transitions that it reads before it predicts; "
        "each makes the prompt longer",
    )
    first_steps: int = Field(
        150, ge=0, le=1_000_000, description="optimiser steps on the demonstrations"
    )
    fit_steps: int = Field(6, ge=0, le=1_000_000, description="optimiser steps per update")
    trusted_accuracy: float = Field(
        0.9,
        ge=0,
        le=1,
        description="gate: a prediction is trusted up to the uncertainty at which this share of "
        "held-out predictions is right; 0 trusts all predictions",
    )


class Branches(Section):
    """Branches imagined with the policy from real steps, learned from by policy gradient."""

    groups: int = Field(6, ge=0, le=10_000, description="imagined groups each time; 0 is off")
    horizon: int = Field(
        3, ge=1, le=32, description="longest branch, in turns; the model's errors add up along it"
    )


class Sweeps(Section):
    """Value iteration over the states that the model reaches; its best actions are imitated."""

    roots: int = Field(
        0, ge=0, le=1_000_000, description="real steps from which states are expanded; 0 is off"
    )
    first_turns: int = Field(
        6,
        ge=1,
        le=1_000_000,
        description="roots are drawn from an episode's first turns, up to this",
    )
    states: int = Field(64, ge=2, le=1_000_000, description="states expanded for each root")


class Lookahead(Section):
    """Search by the agent before each turn."""

    candidates: int = Field(
        0,
        ge=0,
        le=64,
        description="actions sampled for each turn (sweeps: where the world lists none); 0 is off",
    )
    search: Literal["rollouts", "sweeps", "gumbel", "campaign"] = Field(
        "rollouts",
        description="rollouts: follow the policy; sweeps: value iteration over what can be "
        "reached; gumbel: tree search; campaign: a laboratory's next experiment",
    )
    simulator: Literal["model", "fork"] = Field(
        "model",
        description="where actions are tried: in the world model, or in forks of worlds that can "
        "go back",
    )
    horizon: int = Field(3, ge=1, le=32, description="rollouts: length of each, in turns")
    rollouts: int = Field(
        1, ge=1, le=64, description="rollouts: how many for each action; their mean is its value"
    )
    states: int = Field(
        64, ge=2, le=1_000_000, description="sweeps, gumbel: states expanded for each turn"
    )


class DynaTable(Section):
    """Dyna-Q of policy.engine=table."""

    updates: int = Field(
        10, ge=0, le=1_000_000, description="planning updates after each real step (Dyna-Q)"
    )
    curiosity: float = Field(
        0.0, ge=0, le=1000, description="κ of Dyna-Q+: planning bonus κ√τ of an action"
    )


class OptionsSection(Section):
    """Options of the agent: given by a file, or found by the run itself."""

    library: PathText = Field(
        "", description="a file of options written by hand (JSON): subgoals, programs"
    )
    skills: int = Field(
        0,
        ge=0,
        le=64,
        description="programs found in successes and kept as options, each replayed before use",
    )


class Planning(Section):
    enabled: bool = Field(True, description="learn a world model and plan with it (Dyna)")
    every: int = Field(2, ge=1, le=1_000_000, description="branches, sweeps: at every n-th update")
    weight: float = Field(
        0.5, ge=0, le=1, description="learning rate of imagined against real updates"
    )
    model: WorldModelSection = WorldModelSection()
    branches: Branches = Branches()
    sweeps: Sweeps = Sweeps()
    lookahead: Lookahead = Lookahead()
    table: DynaTable = DynaTable()
    options: OptionsSection = OptionsSection()
