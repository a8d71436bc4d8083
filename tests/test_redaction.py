"""Redaction: no secret reaches a file, in whatever form it was written."""

from __future__ import annotations

import random
import string
from pathlib import Path

import numpy as np
import pytest

from experience.policy import Decision, VersionSpan
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.redact import MARK, Redactor
from experience.signal import Signal
from experience.step import Boundary
from tests.conftest import CATALOGUE, make_step

FORMS = 12


def secrets(count: int) -> list[str]:
    rng = random.Random(0)
    alphabet = string.ascii_letters + string.digits + "+/=_-.&<\"\\"
    return ["".join(rng.choices(alphabet, k=rng.randint(12, 40))) for _ in range(count)]


def planted(secret: str) -> list[tuple[str, str]]:
    """(text that holds the secret as a program would leave it there, the part that gives it away), 12 encodings.
    Written out here on its own: the redactor's list is what is tested."""
    import base64
    import html
    import json
    from urllib.parse import quote

    raw, inside = secret.encode(), len(secret) * 8 // 6 - 4

    def shifted(lead: bytes) -> tuple[str, str]:
        text, start = base64.b64encode(lead + raw + b" and more").decode(), -(-len(lead) * 8 // 6)
        return text, text[start + 1:start + inside]

    forms = [secret, base64.urlsafe_b64encode(raw).decode().rstrip("="), base64.b32encode(raw).decode().rstrip("="),
             raw.hex(), raw.hex().upper(), quote(secret, safe=""), "".join(f"%{b:02X}" for b in raw),
             json.dumps(secret)[1:-1], "".join(f"\\u{ord(c):04x}" for c in secret), html.escape(secret)]
    return [*((form, form[:-1]) for form in forms), shifted(b"user:"), shifted(b"x")]


def test_no_planted_secret_in_any_encoding_is_in_any_file(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    known = secrets(1000 if request.config.getoption("--long") else 40)
    redactor = Redactor(known)
    journal = Journal(tmp_path / "w", CATALOGUE, redactor=redactor, batch_rows=64)
    t = 0
    for i, secret in enumerate(known):
        forms = planted(secret)
        assert len(forms) == FORMS
        for n, (form, _) in enumerate(forms):
            text = f"before {form} after"
            ids = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
            place = (i + n) % 4
            journal.append(make_step(
                t, boundary=Boundary.RESET, obs_text=text if place == 0 else "page", task_id="t",
                decision=Decision(text if place == 1 else "act", 0, ids if place == 0 else ids[:0],
                                  ids if place == 1 else ids[:0], np.zeros(len(ids) if place == 1 else 0, np.float32),
                                  (VersionSpan(0, len(ids)),) if place == 1 else (), token_exact=place < 2),
                signals=(Signal("done", 1.0, "fraction", "env_state", text if place == 2 else ""),),
                info={"said": [text]} if place == 3 else {}))
            t += 1
    journal.close()
    rows = sum(len(steps) for steps in Catalog(tmp_path).follow())
    assert rows == t
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    kept = [b"\0".join([step.obs_text.encode(), step.decision.text.encode(), repr(step.info).encode(),
                        step.signals[0].evidence.encode(), step.decision.prompt_ids.astype(np.uint8).tobytes(),
                        step.decision.action_ids.astype(np.uint8).tobytes()])
            for steps in Catalog(tmp_path).follow() for step in steps if step.decision]
    for i, secret in enumerate(known):
        for n, (_, core) in enumerate(planted(secret)):
            assert len(core) >= 7
            assert core.encode() not in kept[i * FORMS + n] and repr(core)[1:-1].encode() not in kept[i * FORMS + n]
            assert i >= 40 or core.encode() not in everything, core


def test_clean_text_is_left_as_it_is() -> None:
    redactor = Redactor(["correct horse battery"])
    for step in map(make_step, range(300)):
        assert redactor.step(step) is step


def test_known_kinds_of_credentials_are_found_without_being_told() -> None:
    redactor = Redactor()
    for text in ("key sk-" + "a1B2" * 8, "ghp_" + "x" * 36, "AKIA" + "ABCD1234" * 2, "postgres://me:hunter2pass@db/x",
                 "Authorization: Bearer " + "q9" * 12, "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nmore"):
        assert MARK in redactor.text(text), text
    assert redactor.text("submit f=lambda x:x+1") == "submit f=lambda x:x+1"


def test_ids_beside_redacted_text_go_and_so_do_the_episodes_later_ones() -> None:
    redactor = Redactor(["open sesame 1234"])
    first = redactor.step(make_step(0, obs_text="the word is open sesame 1234"))
    later = redactor.step(make_step(1, boundary=Boundary.NONE))
    fresh = redactor.step(make_step(2, boundary=Boundary.RESET))
    assert first.obs_text == f"the word is {MARK}"
    for step in (first, later):
        assert step.decision is not None and not step.decision.token_exact and len(step.decision.prompt_ids) == 0
    assert fresh.decision is not None and fresh.decision.token_exact
