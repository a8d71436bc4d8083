"""The program `vllm` on this machine: where it is, and the words that start a server with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from actors import ROOT
from experience.errors import MissingPartError

OWN = ROOT / ".peers/vllm/bin/vllm"
"""Where `./xp setup vllm` puts it, in a Python of its own."""
INSTALL = "./xp setup vllm (3.5 GB, some minutes)"


def find_program(named: str = "") -> Path:
    """The program. Raises MissingPartError if it is not there."""
    found = named or (str(OWN) if OWN.exists() else shutil.which("vllm"))
    if not found or not shutil.which(found):
        what = (
            f"policy.arguments.server: no program at {named}" if named else "vllm is not installed"
        )
        raise MissingPartError(what, f"install it: {INSTALL}")
    return Path(found)


def has_gpu() -> bool:
    """Whether there is a GPU of NVIDIA or AMD that a server could use."""
    return Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()


def serve_command(policy: Any, arguments: Any, model: Path) -> list[str]:
    """The words that start a server of `model`, with `{port}` for its port.

    Raises MissingPartError if there is no program.
    """
    is_cpu = not has_gpu()
    dtype = arguments.served_dtype
    if dtype == "auto":
        dtype = "bfloat16"
    words = [
        *(str(find_program(arguments.server)), "serve", str(model)),
        *("--served-model-name", Path(policy.model).name),
        *("--host", "127.0.0.1", "--port", "{port}"),
        *("--max-model-len", str(policy.context), "--dtype", dtype),
        # the log-probabilities of what is sampled, after temperature
        *("--logprobs-mode", "processed_logprobs"),
        # the model's own settings for generation are not used
        *("--generation-config", "vllm"),
    ]
    if arguments.lora_rank:
        words += [
            *("--enable-lora", "--max-lora-rank", str(_rank(arguments.lora_rank))),
            *("--max-loras", str(arguments.adapters)),
            *("--max-cpu-loras", str(4 * arguments.adapters)),
        ]
    if is_cpu:
        words.append("--enforce-eager")  # there is nothing to capture or compile for so few cores
    return [*words, *arguments.flags]


def _rank(wanted: int) -> int:
    """The smallest rank that vLLM makes room for and `wanted` fits in."""
    return next((r for r in (1, 8, 16, 32, 64, 128, 256, 320, 512) if r >= wanted), wanted)


def environment_of(arguments: Any) -> dict[str, str]:
    """What a server reads from its environment: adapters may come and go, nothing is downloaded."""
    told = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    if has_gpu():
        return told
    last = max((os.cpu_count() or 1) - 2, 0)  # a core is left to the worlds and the learner
    return {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": str(arguments.cache_gb),
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{last}" if last else "0",
        **{name: value for name, value in os.environ.items() if name.startswith("VLLM_")},
        **told,
    }
