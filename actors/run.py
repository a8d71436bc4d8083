"""The main loop: collect, learn, plan, push, and again. One screen, the same with and without Ray."""

from __future__ import annotations

from collections.abc import Callable

from actors.config.schema import Config
from actors.running.assembly import assemble
from actors.running.progress import Progress
from actors.running.rundir import RunDirectory


def run(
    config: Config, directory: RunDirectory, report: Callable[[Progress], None] = lambda _: None
) -> Progress:
    """Lives and learns until the budget is spent; what `directory` already holds is continued, not repeated.

    Returns what was reached. Raises XpError for what the user can mend; the shards stay readable in any case.
    """
    with assemble(config, directory, report) as parts:
        learner, replay, pool, evaluator = parts.learner, parts.replay, parts.pool, parts.evaluator
        thought = parts.thought
        if parts.is_new:
            parts.demonstrate()
            with parts.all_cores():  # the collectors have nothing to do yet
                parts.imitate()
            parts.save()
        parts.push()
        evaluator.order(learner.policy(), config.evaluation.final_episodes)
        for shard in pool.shards(until=parts.budget_is_spent):
            parts.take(shard)
            if replay.ready_groups < parts.groups_per_update:
                continue
            lived = replay.window(learner.version, parts.groups_per_update)
            if not parts.can_learn_from(lived):
                continue
            parts.note(learner.improve(lived, parts.rate))  # direct learning
            parts.fit_world_model(config.planning.fit_steps)  # model learning
            # planning: the same rule on imagined experience, then what the planner concludes
            parts.note(learner.improve(thought.imagine(), parts.planning_rate))
            parts.note(learner.imitate_plans(thought.plan(lived), parts.planning_rate))
            parts.curate()  # options: found, tried again, retired
            learner.publish()
            parts.push()  # collectors take it up between steps
            if parts.should_evaluate(learner.version):
                evaluator.order(learner.policy(), config.evaluation.episodes)
            parts.checkpoint()
        return parts.finish()
