"""NeMo-Gym's resources servers, in NeMo-Gym's own Python (3.12 or later): pip install nemo-gym

Options: server (module:Class, e.g.
resources_servers.example_session_state_mgmt.app:StatefulCounterResourcesServer) and dataset (a
JSONL file; without it, the server's own example). An episode is a row: tool calls go to the server,
the final answer to its /verify. Several rows share one server, each with a session of its own, as
in NeMo-Gym itself.
"""

import json
import random
from importlib import import_module
from pathlib import Path

from speak import Refused, speak


class NemoGym:
    instructions = (
        'Reply with a tool call, {"name": "...", "arguments": {...}}, '
        "or with the final answer as plain text, which ends the episode"
    )

    def __init__(self, options):
        from nemo_gym.config_types import BaseServerConfig
        from nemo_gym.server_utils import ServerClient
        from omegaconf import OmegaConf

        module, _, name = options["server"].partition(":")
        found = import_module(module)
        kind = getattr(found, name)
        config = kind.model_fields["config"].annotation
        # Required by the configuration, and never used: the server is asked in this process.
        where = {"host": "127.0.0.1", "port": 1}
        server = kind(
            config=config(name=module, entrypoint="app.py", **where),
            server_client=ServerClient(
                head_server_config=BaseServerConfig(**where),
                global_config_dict=OmegaConf.create({}),
            ),
        )
        self._app = server.setup_webserver()
        rows = Path(options.get("dataset") or Path(found.__file__).parent / "data/example.jsonl")
        self._rows = [json.loads(line) for line in rows.read_text().splitlines() if line.strip()]

    def reset(self, seed):
        from starlette.testclient import TestClient

        self._row = self._rows[seed % len(self._rows)]
        self._asked = self._row["responses_create_params"]
        # A client for each episode: the server knows a session by its cookie.
        self._client = TestClient(self._app)
        self._output = []
        self._client.post("/seed_session", json=self._row).raise_for_status()
        self._tools = {t["name"]: t for t in self._asked.get("tools") or []}
        contents = [message["content"] for message in self._asked["input"]]
        texts = [c if isinstance(c, str) else json.dumps(c) for c in contents]
        tools = [
            f"tool {tool['name']} {json.dumps(tool['parameters']['properties'])}"
            for tool in self._tools.values()
        ]
        return "\n".join(texts + tools)

    def step(self, action):
        call = _tool_call(action)
        if call is None:
            return self._verified(action)
        name, arguments = call
        if name not in self._tools:
            raise Refused(f"no tool {name!r}: {', '.join(self._tools)}")
        number = f"call_{len(self._output)}"
        answer = self._client.post(f"/{name}", json=arguments)
        self._output += [
            {
                "type": "function_call",
                "call_id": number,
                "name": name,
                "arguments": json.dumps(arguments),
            },
            {"type": "function_call_output", "call_id": number, "output": answer.text},
        ]
        return answer.text, 0.0, False, False

    def _verified(self, text):
        message = {
            "id": "msg_0",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }
        response = {
            "id": "resp_0",
            "created_at": 0,
            "model": "xp",
            "object": "response",
            "status": "completed",
            "output": [*self._output, message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": self._asked.get("tools") or [],
        }
        answer = self._client.post("/verify", json=self._row | {"response": response})
        answer.raise_for_status()
        return "", float(answer.json()["reward"]), True, False

    def random(self, seed):
        rng = random.Random(seed)
        if not self._tools or rng.random() < 0.3:
            return str(rng.randrange(10))
        tool = rng.choice(list(self._tools.values()))
        values = {
            "integer": rng.randrange(10),
            "number": rng.random(),
            "boolean": True,
            "array": [],
            "object": {},
        }
        properties = tool["parameters"]["properties"]
        arguments = {name: values.get(p.get("type"), "x") for name, p in properties.items()}
        return json.dumps({"name": tool["name"], "arguments": arguments})


def _tool_call(text):
    """(name, arguments) of a tool call, or None for an answer."""
    try:
        call = json.loads(text)
        return str(call["name"]), dict(call.get("arguments") or {})
    except (ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    speak(NemoGym)
