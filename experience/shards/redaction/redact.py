"""Redaction: secrets never reach a shard, in any of the forms that programs give them.

Covered are the values of the process's secrets: of environment variables whose names end in KEY,
TOKEN, SECRET or PASSWORD, and of variables that a configuration names (`name_secrets`). They are
found plain and in some fifty encodings, each also escaped, split over lines or in other capitals
(`spelling`). Covered are also well-known kinds of credentials, by their shape, and the user and
password of every URL.

Where a step's text was changed, its token ids are removed, because ids beside clean text would
spell the secret. The step is then no longer token-exact. The later steps of the episode lose their
ids too, because their prompts may repeat the text.

Not covered are secrets that the process does not know and that have no known shape, secrets of
fewer than 8 characters (6 where a configuration names the variable), pictures, and a secret that a
model paraphrases.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import functools
import html
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from experience.policy import Decision
from experience.shards.redaction.sieve import SHORTEST as SIEVED
from experience.shards.redaction.sieve import Sieve
from experience.shards.redaction.spelling import cover, fold, may_be_escaped, squeezed, unescaped
from experience.step import Boundary, Step
from experience.text.strict_json import dumps
from experience.text.tools import ToolCall, ToolResult

MARK = "[redacted]"
_SECRET_NAME = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$|"
    r"(^|[_.-])(API_?KEYS?|KEY|TOKENS?|SECRETS?|PASSW(OR)?DS?|PASS|PASSPHRASE|PASSCODE|"
    r"CREDENTIALS?|CREDS|AUTH|PAT|JWT|COOKIE|DSN)"
    r"(_?\d+|[_.-](PROD|DEV|TEST|LIVE|VALUE|ID|NEW|OLD|BASE64|B64|PEM|JSON|RO|RW))*$|"
    r"[A-Z]_PWD$",
    re.IGNORECASE,
)
_PASSWORD_OF_URL = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_SHORTEST, _SHORTEST_NAMED = 8, 6
NAMES = "XP_SECRET_NAMES"
"""Environment variable that lists the variables which a configuration names as secret.

Child processes inherit it."""
_KNOWN_SHAPES = (  # a character that must be there, a word that must be there, the shape
    *(
        (character, sign, rf"{sign}(?<=\b{sign}){rest}")
        for character, sign, rest in (  # begins with letters: is fast
            ("-", "sk-", r"[A-Za-z0-9_-]{20,}"),
            ("_", "gh", r"[pousr]_[A-Za-z0-9]{36,}"),
            ("_", "github_pat_", r"[A-Za-z0-9_]{22,}"),
            ("K", "AKIA", r"[0-9A-Z]{16}\b"),
            ("S", "ASIA", r"[0-9A-Z]{16}\b"),
            ("-", "xox", r"[abprs]-[A-Za-z0-9-]{10,}"),
            ("_", "hf_", r"[A-Za-z0-9]{30,}"),
            ("J", "eyJ", r"[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
            ("B", "Bearer ", r"[A-Za-z0-9._~+/-]{16,}=*"),
        )
    ),
    (
        "-",
        "-----BEGIN ",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    ),
    (
        "@",
        "://",
        r"(?<=://)[^/\s@:\"'<>,]*:(?!\*\*\*@)[^/\s@]+(?=@)|(?<=://)[^/\s@:\"'<>,]{20,}(?=@)",
    ),
)
_SHAPES = [(character, sign, re.compile(shape)) for character, sign, shape in _KNOWN_SHAPES]


def encodings(secret: str) -> Iterator[str]:
    """The forms in which `secret` may turn up inside other text.

    Base64 gives three forms, by the position of the secret in a longer text. Of each form only the
    characters count that the secret alone decides: its neighbours decide the others.
    """
    raw = secret.encode()
    yield secret
    for lead in range(3):
        start, end = -(-lead * 8 // 6), (lead + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * lead + raw).decode()[start:end]
    for lead in range(5):
        start, end = -(-lead * 8 // 5), (lead + len(raw)) * 8 // 5
        for encode in (base64.b32encode, base64.b32hexencode):
            yield encode(b"\0" * lead + raw).decode()[start:end]
    yield raw.hex()
    yield raw.hex().upper()
    yield quote(secret, safe="")
    yield "".join(f"%{b:02X}" for b in raw)
    yield "".join(f"%{b:02x}" for b in raw)
    yield dumps(secret)[1:-1]
    yield "".join(f"\\u{ord(c):04x}" for c in secret)
    yield "".join(f"\\x{b:02x}" for b in raw)
    yield html.escape(secret)
    yield "".join(f"&#{ord(c)};" for c in secret)
    yield secret[::-1]
    yield dumps(dumps(secret)[1:-1])[1:-1]
    yield "".join(f"\\{b:03o}" for b in raw)
    yield raw.hex(":")
    yield raw.hex(" ")
    yield base64.b85encode(raw).decode()
    yield base64.a85encode(raw).decode()
    yield codecs.encode(secret, "rot13")
    yield "\0".join(secret)  # UTF-16 read as bytes
    inner = base64.b64encode(raw).decode()
    yield base64.b64encode(inner.encode()).decode().rstrip("=")[:-1]
    yield quote(inner, safe="")
    yield inner[::-1].lstrip("=")
    yield inner.encode().hex()
    yield raw[::-1].hex()
    yield raw.decode("latin-1")
    yield "".join(map(str, raw))
    yield "".join(f"{b:08b}" for b in raw)
    yield binascii.b2a_qp(raw).decode()
    yield "\0\0\0".join(secret)
    within = (
        raw[::-1],
        raw.hex().encode(),
        quote(secret, safe="").encode(),
        dumps(secret).encode()[1:-1],
    )
    for wide in ("utf-16-le", "utf-16-be", "utf-32-le"):
        yield secret.encode(wide).hex()
    for said in (*within, secret.encode("utf-16-le"), secret.encode("utf-16-be")):
        for lead in range(3):
            start, end = -(-lead * 8 // 6), (lead + len(said)) * 8 // 6
            yield base64.b64encode(b"\0" * lead + said).decode()[start:end]


def name_secrets(names: Iterable[str]) -> None:
    """Makes the values of these environment variables secrets, here and in child processes."""
    known = os.environ.get(NAMES, "").split(",")
    os.environ[NAMES] = ",".join(dict.fromkeys(n for n in [*known, *names] if n))


def _values(environment: Mapping[str, str]) -> tuple[str, ...]:
    named = environment.get(NAMES, "").split(",")
    found = {v for n, v in environment.items() if n in named and len(v) >= _SHORTEST_NAMED}
    found |= {v for n, v in environment.items() if _SECRET_NAME.search(n) and len(v) >= _SHORTEST}
    of_urls = (
        part for v in environment.values() if "://" in v for part in _PASSWORD_OF_URL.findall(v)
    )
    found |= {said for part in of_urls for said in (part, unquote(part)) if len(said) >= _SHORTEST}
    return tuple(sorted(found))


class Redactor:
    """Replaces secrets in text and steps."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        secrets = list(secrets)
        lines = {line.strip() for secret in secrets for line in [secret, *secret.splitlines()]}
        literal = {
            form
            for secret in lines
            if len(secret) >= _SHORTEST_NAMED
            for form in encodings(secret)
            if len(form) >= _SHORTEST_NAMED
        }
        folded = {form for form in map(fold, literal) if len(form) >= _SHORTEST}
        self._forms: dict[bytes, list[str]] = defaultdict(list)
        for form in literal:
            self._forms[squeezed(form)].append(form)
        self._odd_forms = [form for form in literal if not _can_be_sieved(form)]
        self._folded = {form.encode(): form for form in folded if form.isascii()}
        self._odd_folded = [form for form in folded if not form.isascii()]
        self._sieve = Sieve(
            {squeezed(form) for form in literal if _can_be_sieved(form)} | set(self._folded)
        )
        self._tainted: set[bytes] = set()

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Redactor:
        return cls(_values(environment))

    @classmethod
    def current(cls) -> Redactor:
        """The redactor of the present environment, rebuilt only when the secrets have changed."""
        return _made(_values(os.environ))

    def text(self, text: str) -> str:
        found = self._sieve.found_in(squeezed(text))
        clean = _without_shapes(self._without_forms(text, found))
        if may_be_escaped(clean):
            found = self._sieve.found_in(squeezed(unescaped(clean)))
        elif clean is not text:
            found = self._sieve.found_in(squeezed(clean))
        spelled = [self._folded[word] for word in found if word in self._folded]
        if self._odd_folded:
            folded = fold(clean)
            spelled += [form for form in self._odd_folded if form in folded]
        return cover(clean, spelled, MARK) if spelled else clean

    def _without_forms(self, text: str, found: Set[bytes]) -> str:
        """`text` without the forms of secrets that it holds unescaped.

        found: the squeezed forms that may be in the text.
        """
        if not found and not self._odd_forms:
            return text
        forms = [*self._odd_forms, *(form for word in found for form in self._forms.get(word, ()))]
        # The longest first: without a shorter form in its midst it would not be found.
        for form in sorted(forms, key=lambda form: (-len(form), form)):
            text = text.replace(form, MARK)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value, its strings and keys redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.value(v) for k, v in value.items()}
        return [self.value(v) for v in value] if isinstance(value, list | tuple) else value

    def _is_in_answer(self, decision: Decision) -> bool:
        whole = _answer_of(decision)
        return self.text(whole) != whole

    def step(self, step: Step) -> Step:
        """`step`, or where it holds a secret, a copy without."""
        if self._tainted and step.boundary & Boundary.RESET:
            self._tainted.discard(step.stream_id)
        decision = step.decision
        # All texts in one search: most steps hold no secret, and are given back as they are.
        whole = "\0".join(_texts_of(step))
        if self.text(whole) == whole and step.stream_id not in self._tainted:
            return step
        text = self.text
        labels: dict[str, Any] = {name: text(getattr(step, name)) for name in _LABELS}
        clean = replace(
            step,
            obs_text=text(step.obs_text),
            action_struct=text(step.action_struct.decode("latin-1")).encode("latin-1"),
            info=self.value(step.info),
            obs_blobs=tuple(
                replace(b, media=text(b.media), role=text(b.role)) for b in step.obs_blobs
            ),
            signals=tuple(replace(s, evidence=text(s.evidence)) for s in step.signals),
            tool_results=tuple(ToolResult(text(r.id), text(r.result)) for r in step.tool_results),
            **labels,
        )
        said = self.text(decision.text) if decision else ""
        if clean.obs_text != step.obs_text or (decision and self._is_in_answer(decision)):
            self._tainted.add(step.stream_id)
        if decision is None:
            return clean
        said_beside: dict[str, Any] = {n: text(getattr(decision, n)) for n in _OF_DECISION}
        clean = replace(
            clean,
            decision=replace(
                decision,
                **said_beside,
                tool_calls=tuple(
                    ToolCall(text(c.id), text(c.name), text(c.arguments))
                    for c in decision.tool_calls
                ),
            ),
        )
        if step.stream_id not in self._tainted:
            return clean
        return replace(
            clean,
            decision=replace(
                clean.decision or decision,
                text=said,
                prompt_ids=_NO_IDS,
                action_ids=_NO_IDS,
                logprobs=_NO_LOGPROBS,
                version_spans=(),
                token_exact=False,
                sampled=False,
                allowed_ids=_NO_IDS,
                allowed_counts=_NO_IDS,
            ),
        )


def _answer_of(decision: Decision) -> str:
    """All that the model wrote, as far as it is kept as text: its tokens spell it too."""
    calls = (f"{c.name}\0{c.arguments}" for c in decision.tool_calls)
    return "\0".join([decision.text, decision.reasoning, decision.content, *calls])


def _without_shapes(text: str) -> str:
    """`text` without what looks like a credential."""
    for character, sign, shape in _SHAPES:
        # One character is looked for ten times faster than a word.
        if character in text and sign in text:
            text = shape.sub(MARK, text)
    return text


def _can_be_sieved(form: str) -> bool:
    return form.isascii() and len(squeezed(form)) >= SIEVED


_LABELS = (
    "env_id",
    "task_id",
    "group_id",
    "env_version",
    "split",
    "sandbox_tier",
    "reward_version",
    "agent_id",
)
_OF_DECISION = (
    "decoder",
    "behaviour_id",
    "reasoning",
    "content",
    "refusal",
    "finish_reason",
    "model",
)
"""Texts of a decision beside its action."""


def _texts_of(step: Step) -> Iterator[str]:
    """Every text that a step carries into a file."""
    yield from (
        step.obs_text,
        step.action_struct.decode("latin-1"),
        *(getattr(step, name) for name in _LABELS),
    )
    if step.decision:
        yield from (getattr(step.decision, name) for name in ("text", *_OF_DECISION))
        for call in step.decision.tool_calls:
            yield from (call.id, call.name, call.arguments)
    for result in step.tool_results:
        yield from (result.id, result.result)
    yield from _strings(step.info)
    yield from (s.evidence for s in step.signals)
    for blob in step.obs_blobs:
        yield from (blob.media, blob.role)


@functools.lru_cache(4)
def _made(secrets: tuple[str, ...]) -> Redactor:
    return Redactor(secrets)


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
