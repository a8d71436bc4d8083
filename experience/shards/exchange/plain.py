"""A step as JSON, and back: what every format of ours stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from experience.policy import Decision, VersionSpan
from experience.signal import Signal
from experience.step import Blob, Boundary, Step


def as_plain(step: Step) -> dict[str, Any]:
    """A step as JSON: ids and bytes in hexadecimal, arrays as lists. `from_plain` gives back exactly the step."""
    plain: Any = _plain(step)
    return dict(plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return int(value) if isinstance(value, Boundary) else value


def from_plain(plain: Mapping[str, Any]) -> Step:
    """Raises RecordError, KeyError, TypeError or ValueError if it is not a step."""
    said = dict(plain)
    if said.get("decision") is not None:
        d = dict(said["decision"])
        d["version_spans"] = tuple(VersionSpan(**v) for v in d["version_spans"])
        said["decision"] = Decision(**d | {
            "prompt_ids": np.array(d["prompt_ids"], np.int32), "action_ids": np.array(d["action_ids"], np.int32),
            "logprobs": np.array(d["logprobs"], np.float32)})
    for name in ("stream_id", "work_id", "action_struct"):
        if name in said:
            said[name] = bytes.fromhex(said[name])
    if said.get("parent") is not None:
        said["parent"] = (bytes.fromhex(said["parent"][0]), said["parent"][1])
    said["signals"] = tuple(Signal(**s) for s in said.get("signals", ()))
    said["obs_blobs"] = tuple(Blob(**b | {"hash": bytes.fromhex(b["hash"])}) for b in said.get("obs_blobs", ()))
    said["boundary"] = Boundary(said.get("boundary", 0))
    return Step(**said)
