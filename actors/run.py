"""The main loop: collect, learn, plan, push, and again; the same with and without Ray."""

from __future__ import annotations

from collections.abc import Callable

from actors.config.schema import Config
from actors.running.assembly import assemble
from actors.running.events import Events, Updated
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory


def run(
    config: Config,
    directory: RunDirectory,
    report: Callable[[Progress], None] = lambda _: None,
    events: Events | None = None,
) -> Progress:
    """Lives and learns until the budget is spent; what `directory` already holds is continued.

    events: whose subscribers are told what happens. Returns what was reached. Raises XpError for
    what the user can mend; the shards stay readable in any case.
    """
    with assemble(config, directory, report, events or Events()) as parts:
        learner, replay, world_model = parts.learner, parts.replay, parts.model_learning
        thought, budget, learned = parts.thought, parts.budget, parts.learned
        if parts.is_new:
            parts.prepare()
        parts.publish()
        parts.evaluator.order(learner.policy(), config.evaluation.final_episodes)
        for rows in parts.pool.shards(until=budget.is_spent):  # committed, of any collector
            parts.take(rows)
            if replay.ready_groups < budget.groups_per_update:
                continue
            lived = replay.window(learner.version, budget.groups_per_update)
            if not lived and config.policy.learns:
                parts.publish()  # nothing can be learned from these: let collectors go on
                continue
            learned(learner.improve(parts.with_others(lived), budget.rate))  # direct learning
            world_model.fit(config.planning.model.fit_steps)  # model learning
            # planning: the same rule on imagined experience, then what the planner concludes
            learned(learner.improve(thought.imagine(), budget.planning_rate))
            learned(learner.imitate_plans(thought.plan(lived), budget.planning_rate))
            parts.curation.curate()  # options: discover, test, retire
            learner.publish()
            parts.publish()
            parts.events.emit(Updated(learner.version))
        return parts.finish()
