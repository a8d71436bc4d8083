"""Tasksets of verifiers, in verifiers' own Python: pip install verifiers

Options: taskset (its id, as vf-eval takes it), config (its fields), path (a folder to find it in).
An episode is a task: the observation is the prompt, and the task's own rewards score the reply.
Tasks with tools, or whose rewards need a runtime, need verifiers' own harness and are refused.
"""

import asyncio
import inspect
import sys

from speak import speak


class Verifiers:
    instructions = "Reply with the answer"

    def __init__(self, options):
        sys.path.insert(0, options.get("path", "."))
        from verifiers.v1.utils.loaders import load_taskset, taskset_config_type

        name = options["taskset"]
        config = taskset_config_type(name).model_validate({"id": name} | options.get("config", {}))
        # A taskset may be endless; these are as many as the world's seeds by default.
        self._tasks = [task for task, _ in zip(load_taskset(config), range(1000), strict=False)]
        if not self._tasks:
            raise RuntimeError(f"the taskset {name} has no tasks")
        first = self._tasks[0]
        rewards = [inspect.signature(reward).parameters for reward in first.hooks("reward")]
        if type(first).toolsets(first.config) or any("runtime" in names for names in rewards):
            raise RuntimeError(
                f"the tasks of {name} need tools or a runtime: use vf-eval, and read its traces"
            )

    def reset(self, seed):
        self._task = self._tasks[seed % len(self._tasks)]
        return self._task.data.prompt_text

    def step(self, action):
        from verifiers.v1.configs.agent import AgentConfig
        from verifiers.v1.graph import MessageNode
        from verifiers.v1.trace import AgentInfo, Trace, TraceTask
        from verifiers.v1.types import AssistantMessage, UserMessage

        trace = Trace(
            task=TraceTask(type=type(self._task).__name__, data=self._task.data),
            agent=AgentInfo(config=AgentConfig()),
            nodes=[
                MessageNode(message=UserMessage(content=self._task.data.prompt_text)),
                MessageNode(parent=0, message=AssistantMessage(content=action), sampled=True),
            ],
        )
        asyncio.run(self._task.score(trace))
        # `trace.reward` counts what was not scored as 0, and the sum of no rewards as well.
        known = trace.rewards and all(part is not None for part in trace.rewards.values())
        return "", float(trace.reward) if known else None, True, False

    def random(self, seed):
        return str(seed % 100)


if __name__ == "__main__":
    speak(Verifiers)
