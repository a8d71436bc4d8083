"""Redaction: secrets never reach a shard, in any of the forms that programs give them.

Exact values of the process's secrets (environment variables whose names end in KEY, TOKEN, SECRET or PASSWORD), plain
and in a dozen encodings, and what looks like a well-known kind of credential. Where a step's text was changed, its
token ids go too: ids beside clean text would spell the secret; the step is then no longer token-exact, and so are
the episode's later ones, whose prompts may repeat it.
Does not cover: a secret that the process does not know and that has no known shape; a model's own paraphrase of one.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np

from experience.step import Boundary, Step

MARK = "[redacted]"
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST = 8
_HEAD = _SHORTEST - 1
_MANY = 300
_KNOWN_SHAPES = (  # a character that must be there, a word that must be there, the shape
    ("-", "sk-", r"\bsk-[A-Za-z0-9_-]{20,}"), ("_", "gh", r"\bgh[pousr]_[A-Za-z0-9]{36,}"),
    ("_", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{22,}"), ("K", "AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
    ("S", "ASIA", r"\bASIA[0-9A-Z]{16}\b"), ("-", "xox", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    ("_", "hf_", r"\bhf_[A-Za-z0-9]{30,}"),
    ("J", "eyJ", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    ("B", "Bearer ", r"\bBearer [A-Za-z0-9._~+/-]{16,}=*"),
    ("Y", "PRIVATE KEY",
     r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
    (":", "://", r"(?<=://)[^/\s:@]{1,64}:[^/\s@]{3,}(?=@)"))


def encodings(secret: str) -> Iterator[str]:
    """The forms in which `secret` may turn up inside other text. Base64 has three, by where in a longer text the
    secret began; of those only the characters that the secret alone decides."""
    raw = secret.encode()
    yield secret
    for lead in range(3):
        start, end = -(-lead * 8 // 6), (lead + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * lead + raw).decode()[start:end]
    yield base64.b32encode(raw).decode().rstrip("=")
    yield raw.hex()
    yield raw.hex().upper()
    yield quote(secret, safe="")
    yield "".join(f"%{b:02X}" for b in raw)
    yield "".join(f"%{b:02x}" for b in raw)
    yield json.dumps(secret)[1:-1]
    yield "".join(f"\\u{ord(c):04x}" for c in secret)
    yield "".join(f"\\x{b:02x}" for b in raw)
    yield html.escape(secret)
    yield "".join(f"&#{ord(c)};" for c in secret)
    yield secret[::-1]


def _rarest(word: str) -> str:
    """The character of `word` that ordinary text holds least."""
    return max(word, key=lambda c: (not c.isalnum() and c not in " .,-", c.isupper(), c.isdigit(), c))


class Redactor:
    """Replaces secrets in text and steps."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        literal = {form for secret in secrets if len(secret) >= _SHORTEST for form in encodings(secret)
                   if len(form) >= _HEAD}
        longest_first = sorted(literal, key=lambda form: (-len(form), form))  # a form may hold another
        self._forms = [(_rarest(form), form) for form in longest_first]
        self._heads = {form[:_HEAD] for _, form in self._forms}
        self._shapes = [(character, sign, re.compile(shape)) for character, sign, shape in _KNOWN_SHAPES]
        self._tainted: set[bytes] = set()

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Redactor:
        return cls(value for name, value in environment.items() if _SECRET_NAME.search(name))

    def text(self, text: str) -> str:
        for character, form in self._candidates(text):  # one character is looked for ten times faster than a word
            if character in text and form in text:
                text = text.replace(form, MARK)
        for character, sign, shape in self._shapes:
            if character in text and sign in text:
                text = shape.sub(MARK, text)
        return text

    def _candidates(self, text: str) -> Sequence[tuple[str, str]]:
        """The forms to look for: all, or where there are very many, those whose first letters are in `text`."""
        if len(self._forms) < _MANY:
            return self._forms
        begun = {text[i:i + _HEAD] for i in range(len(text) - _HEAD + 1)} & self._heads
        return [found for found in self._forms if found[1][:_HEAD] in begun] if begun else []

    def value(self, value: Any) -> Any:
        """A JSON value, its strings and keys redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.value(v) for k, v in value.items()}
        return [self.value(v) for v in value] if isinstance(value, list | tuple) else value

    def step(self, step: Step) -> Step:
        """`step`, or where it holds a secret, a copy without."""
        if self._tainted and step.boundary & Boundary.RESET:
            self._tainted.discard(step.stream_id)
        decision = step.decision
        whole = "\0".join((step.obs_text, decision.text if decision else "", step.task_id,
                           step.action_struct.decode("latin-1"), *_strings(step.info),
                           *(s.evidence for s in step.signals)))
        if self.text(whole) == whole and step.stream_id not in self._tainted:
            return step
        clean = replace(step, obs_text=self.text(step.obs_text), task_id=self.text(step.task_id),
                        action_struct=self.text(step.action_struct.decode("latin-1")).encode("latin-1"),
                        info=self.value(step.info),
                        signals=tuple(replace(s, evidence=self.text(s.evidence)) for s in step.signals))
        said = self.text(decision.text) if decision else ""
        if clean.obs_text != step.obs_text or (decision and said != decision.text):
            self._tainted.add(step.stream_id)
        if decision is None or step.stream_id not in self._tainted:
            return clean
        return replace(clean, decision=replace(decision, text=said, prompt_ids=_NO_IDS, action_ids=_NO_IDS,
                                               logprobs=_NO_LOGPROBS, version_spans=(), token_exact=False))


def _strings(value: Any) -> Iterator[str]:
    """All strings and keys of a JSON value, as they are: not escaped once more."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


_NO_IDS = np.empty(0, np.int32)
_NO_LOGPROBS = np.empty(0, np.float32)
