"""A step as JSON, and back. JSON that comes back is checked: a stranger may have written it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa

from experience.errors import RecordError
from experience.policy import Decision, VersionSpan
from experience.shards.record.decode import first_decoding
from experience.shards.record.model_columns import of_json, results_of_json
from experience.shards.record.schema import TYPES
from experience.signal import Signal, SignalSource
from experience.step import ENDINGS, SOURCES, Blob, Boundary, Step
from experience.text.strict_json import dumps

_WORDS = {"source": SOURCES, "ending": ENDINGS}
_MAY_BE_UNKNOWN = {
    "parent",
    "model_version",
    "uncertainty",
    "decision",
    "option_id",
    "option_step",
    "plan_id",
    "value_estimate",
    "reward",
}
_NEVER_NEGATIVE = {"t", "episode", "step_in_episode", "t_start_ns", "t_end_ns", "option_step"}
_INT32 = np.iinfo(np.int32)
_MOST_SINGLE = float(np.finfo(np.float32).max)


def as_plain(step: Step) -> dict[str, Any]:
    """A step as JSON: ids and bytes in hexadecimal, arrays as lists. Inverse: `from_plain`."""
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
    """The step that `plain` describes.

    Raises RecordError, KeyError, TypeError or ValueError for a field of another name or type, a
    number out of its column's range or not finite, or an unknown word.
    """
    said = dict(_an(dict, plain, "a step"))
    said["decision"] = None if said.get("decision") is None else _decision(said["decision"])
    said["parent"] = None if said.get("parent") is None else _parent(said["parent"])
    said["signals"] = tuple(_signal(s) for s in _an(list, said.get("signals", []), "signals"))
    said["obs_blobs"] = tuple(_blob(b) for b in _an(list, said.get("obs_blobs", []), "obs_blobs"))
    said["tool_results"] = results_of_json(said.get("tool_results", []))
    for name in ("stream_id", "work_id", "action_struct"):
        if name in said:
            said[name] = _bytes(said[name], name)
    said["boundary"] = Boundary(_integer(said.get("boundary", 0), "boundary", 0, 255))
    said["info"] = _an(dict, said.get("info", {}), "info")
    dumps(said["info"])  # what is nested too deep for us raises here, where its place is known
    for name, value in said.items():
        if name in TYPES and name not in (
            "stream_id",
            "work_id",
            "action_struct",
            "signals",
            "obs_blobs",
            "tool_results",
            "boundary",
            "info",
        ):
            said[name] = _of_column(name, value)
    return Step(**said)


def _of_column(name: str, value: Any) -> Any:
    """`value` if it is what column `name` holds."""
    of = TYPES[name]
    if value is None and name in _MAY_BE_UNKNOWN:
        return None
    if pa.types.is_integer(of):
        bounds = np.iinfo(of.to_pandas_dtype())
        least = 0 if name in _NEVER_NEGATIVE else int(bounds.min)
        return _integer(value, name, least, int(bounds.max))
    if pa.types.is_floating(of):
        return _number(value, name, of == pa.float32())
    text = _text(value, name)
    if name in _WORDS and text not in _WORDS[name]:
        raise RecordError(f"{name} is {text[:40]!r}", f"there are: {', '.join(_WORDS[name])}")
    return text


def _decision(plain: Any) -> Decision:
    said = dict(_an(dict, plain, "decision"))
    spans = [
        VersionSpan(**_an(dict, s, "a version span"))
        for s in _an(list, said.get("version_spans", []), "spans")
    ]
    for span in spans:
        _integer(span.version, "a span's version", -(2**63), 2**63 - 1)
        _integer(span.tokens, "a span's tokens", 0, int(_INT32.max))
    ids = _tokens(said.get("action_ids", []), "action_ids")
    if spans and sum(span.tokens for span in spans) != len(ids):
        raise RecordError(
            f"version spans cover {sum(s.tokens for s in spans)} tokens, the action has {len(ids)}",
            "give one span per run of tokens, or none",
        )
    exact = said.get("token_exact", False)
    if type(exact) is not bool:
        raise TypeError(f"token_exact is {type(exact).__name__}, not true or false")
    logprobs = [
        _number(p, "a log-probability", True)
        for p in _an(list, said.get("logprobs", []), "logprobs")
    ]
    for name in ("text", "decoder", "behaviour_id"):
        said[name] = _text(said.get(name, ""), name)
    if "sampled" not in said:  # written by the first format
        said |= first_decoding(said["decoder"], exact)
    for name, kind in (
        ("sampled", bool),
        ("temperature", float),
        ("prompt_cut", int),
        ("action_cut", bool),
    ):
        _check_known(said.get(name), name, kind)
    said |= {name: _tokens(said.get(name, []), name) for name in ("allowed_ids", "allowed_counts")}
    return Decision(
        **said
        | of_json(said)
        | {
            "policy_version": _integer(
                said["policy_version"], "policy_version", -(2**63), 2**63 - 1
            ),
            "prompt_ids": _tokens(said.get("prompt_ids", []), "prompt_ids"),
            "action_ids": ids,
            "logprobs": np.array(logprobs, np.float32),
            "version_spans": tuple(spans),
        }
    )


def _check_known(value: Any, name: str, kind: type) -> None:
    """Raises TypeError or RecordError unless `value` is None or of `kind`."""
    if value is None:
        return
    if kind is bool and type(value) is not bool:
        raise TypeError(f"{name} is {type(value).__name__}, not true or false")
    if kind is int:
        _integer(value, name, 0, int(_INT32.max))
    if kind is float:
        _number(value, name)


def _tokens(ids: Any, name: str) -> np.ndarray:
    return np.array([_integer(i, name, 0, int(_INT32.max)) for i in _an(list, ids, name)], np.int32)


def _parent(plain: Any) -> tuple[bytes, int]:
    stream, t = _an(list, plain, "parent")
    return _bytes(stream, "parent", 16), _integer(t, "parent's t", 0, 2**63 - 1)


def _signal(plain: Any) -> Signal:
    signal = Signal(**_an(dict, plain, "a signal"))
    for name in ("name", "unit", "evidence"):
        _text(getattr(signal, name), f"a signal's {name}")
    if signal.value is not None:
        _number(signal.value, f"signal {signal.name!r}")
    if signal.source not in get_args(SignalSource):
        raise RecordError(
            f"signal {signal.name!r} has the source {signal.source!r}",
            f"there are: {', '.join(get_args(SignalSource))}",
        )
    return signal


def _blob(plain: Any) -> Blob:
    said = _an(dict, plain, "a blob")
    blob = Blob(**said | {"hash": _bytes(said["hash"], "a blob's hash", 32)})
    _integer(blob.nbytes, "a blob's nbytes", 0, 2**63 - 1)
    for name in ("w", "h"):
        _integer(getattr(blob, name), f"a blob's {name}", 0, int(_INT32.max))
    for name in ("media", "role"):
        _text(getattr(blob, name), f"a blob's {name}")
    return blob


def _an(of: type, value: Any, name: str) -> Any:
    if not isinstance(value, of):
        raise TypeError(f"{name} is {type(value).__name__}, not {of.__name__}")
    return value


def _text(value: Any, name: str) -> str:
    _an(
        str, value, name
    ).encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    return cast(str, value)


def _bytes(value: Any, name: str, size: int | None = None) -> bytes:
    found = bytes.fromhex(_text(value, name))
    if size is not None and len(found) != size:
        raise RecordError(
            f"{name} holds {len(found)} bytes, not {size}", "give them in hexadecimal"
        )
    return found


def _integer(value: Any, name: str, least: int, most: int) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} is {type(value).__name__}, not a whole number")
    if not least <= value <= most:
        raise RecordError(
            f"{name} is {value if abs(value) < 2**70 else 'huge'}", f"give {least} to {most}"
        )
    return value


def _number(value: Any, name: str, single: bool = False) -> float:
    """`single`: it is to fit into 32 bits."""
    if type(value) not in (int, float):
        raise TypeError(f"{name} is {type(value).__name__}, not a number")
    if not math.isfinite(value) or (single and abs(value) > _MOST_SINGLE):
        raise RecordError(
            f"{name} is {value}", "a number is finite, or null where it may be unknown"
        )
    return cast(float, value)
