"""Harnesses: agent programs of others, and how each is started in a world's place.

A program is started unmodified, in a Python environment of its own. It finds the policy where it
looks for a server: in OPENAI_BASE_URL and ANTHROPIC_BASE_URL, or in its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PORT = 8099
"""Of loopback inside a place, where the gateway answers."""
TASK = "{task}"
"""Stands in a command for what the world wants done."""


@dataclass(frozen=True)
class Preset:
    """argv: a command, in which {folder}, {url}, {token} and {steps} are filled in here, and {task}
    by the world."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "mini-swe-agent": Preset(
        (
            *("{folder}/bin/python", "-m", "minisweagent.run.mini"),
            *("--model", "openai/policy", "--model-class", "litellm_textbased"),
            *("--task", TASK, "--yolo", "--exit-immediately", "--output", "/tmp/trajectory.json"),
            *("--config", "mini_textbased.yaml", "--config", "agent.step_limit={steps}"),
        ),
        {
            "MSWEA_CONFIGURED": "true",
            "MSWEA_SILENT_STARTUP": "1",
            "MSWEA_COST_TRACKING": "ignore_errors",
            "MSWEA_GLOBAL_CONFIG_DIR": "/tmp/mini",
            "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "2",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
    ),
    "smolagents": Preset(
        (
            *("{folder}/bin/smolagent", TASK, "--model-type", "OpenAIModel"),
            *("--model-id", "policy", "--api-base", "{url}", "--api-key", "{token}"),
            *("--imports", "os", "subprocess", "pathlib", "--verbosity-level", "1"),
        )
    ),
}
"""By the names that `agents` in a configuration may give; `program` has its own command."""


def command_of(settings: Mapping[str, Any], token: str) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) of the program of one item of `agents`, for the rollout of a token."""
    preset = PRESETS.get(settings["harness"], Preset(()))
    address = f"http://127.0.0.1:{PORT}/r/{token}"
    values = {
        "{folder}": settings["folder"],
        "{url}": f"{address}/v1",
        "{token}": token,
        "{steps}": str(settings["steps"]),
    }
    argv = [_filled(word, values) for word in settings["command"] or preset.argv]
    environment = {
        "OPENAI_BASE_URL": f"{address}/v1",
        "OPENAI_API_BASE": f"{address}/v1",
        "OPENAI_API_KEY": token,
        "ANTHROPIC_BASE_URL": address,
        "ANTHROPIC_API_KEY": token,
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CONFIG_HOME": "/tmp",
        **preset.environment,
        **settings["environment"],
    }
    return argv, {name: _filled(text, values) for name, text in environment.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text
