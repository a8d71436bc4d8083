"""An engine that knows how networkx came: as a model that mends, for programs that can only ask.

It looks at the lines that the task names, puts back the one that differs, and submits, each by one
command in the form of mini-swe-agent. Named tests.gateway.mending_engine:Mending.
"""

from __future__ import annotations

import re

from actors.engines.engine import Situation
from envs.code_execution.repo.package import source
from tests.gateway.telling_engine import Telling


class Mending(Telling):
    behaviour_id = "mending"

    def answer(self, situation: Situation) -> str:
        return f"THOUGHT: next.\n\n```mswea_bash_command\n{self._command(situation)}\n```"

    def _command(self, situation: Situation) -> str:
        task = situation.observations[0]
        module = re.search(r"the module is networkx/algorithms/(\w+)\.py", task)
        lines = re.search(r"the line is one of (\d+) to (\d+)", task)
        assert module and lines
        file, first, last = f"networkx/algorithms/{module[1]}.py", int(lines[1]), int(lines[2])
        if not situation.earlier:
            return f"sed -n '{first},{last}p' {file}"
        seen = re.search(r"<output>\n(.*?)\n?</output>", situation.observation, re.DOTALL)
        shown = seen[1].split("\n") if seen else []
        right = source(module[1])[first - 1 : last]
        for number, (now, then) in enumerate(zip(shown, right, strict=False), first):
            if now.rstrip() != then.rstrip() and len(situation.earlier) == 1:
                new = then.replace("\\", "\\\\").replace("/", r"\/").replace("&", r"\&")
                return f"sed -i '{number}s/.*/{new}/' {file}"
        return "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


class Pulling(Telling):
    """Pulls the lever of lever_world, in the form of smolagents' agents that write code."""

    behaviour_id = "pulling"

    def answer(self, situation: Situation) -> str:
        return (
            "Thought: the lever must be up.\n<code>\nimport pathlib\n"
            'pathlib.Path("lever").write_text("up")\nfinal_answer("done")\n</code>'
        )
