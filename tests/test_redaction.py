"""Redaction: no secret reaches a file, in whatever form it was written."""

from __future__ import annotations

import json
import os
import random
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import numpy as np
import pytest

from actors.commands.launch import Launch
from actors.config.schema import load
from experience.errors import XpError
from experience.policy import Decision, VersionSpan
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.redaction.redact import MARK, Redactor
from experience.signal import Signal
from experience.step import Boundary
from tests.conftest import CATALOGUE, make_step

FORMS = 12
ROOT = Path(__file__).resolve().parent.parent


def secrets(count: int) -> list[str]:
    rng = random.Random(0)
    alphabet = string.ascii_letters + string.digits + '+/=_-.&<"\\'
    return ["".join(rng.choices(alphabet, k=rng.randint(12, 40))) for _ in range(count)]


def planted(secret: str) -> list[tuple[str, str]]:
    """(text that holds the secret as a program would leave it there, the part that gives it away),
    12 encodings. Written out here on its own: the redactor's list is what is tested."""
    import base64
    import html
    import json
    from urllib.parse import quote

    raw, inside = secret.encode(), len(secret) * 8 // 6 - 4

    def shifted(lead: bytes) -> tuple[str, str]:
        text, start = base64.b64encode(lead + raw + b" and more").decode(), -(-len(lead) * 8 // 6)
        return text, text[start + 1 : start + inside]

    forms = [
        secret,
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        base64.b32encode(raw).decode().rstrip("="),
        raw.hex(),
        raw.hex().upper(),
        quote(secret, safe=""),
        "".join(f"%{b:02X}" for b in raw),
        json.dumps(secret)[1:-1],
        "".join(f"\\u{ord(c):04x}" for c in secret),
        html.escape(secret),
    ]
    return [*((form, form[:-1]) for form in forms), shifted(b"user:"), shifted(b"x")]


def test_no_planted_secret_in_any_encoding_is_in_any_file(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
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
            journal.append(
                make_step(
                    t,
                    boundary=Boundary.RESET,
                    obs_text=text if place == 0 else "page",
                    task_id="t",
                    decision=Decision(
                        text if place == 1 else "act",
                        0,
                        ids if place == 0 else ids[:0],
                        ids if place == 1 else ids[:0],
                        np.zeros(len(ids) if place == 1 else 0, np.float32),
                        (VersionSpan(0, len(ids)),) if place == 1 else (),
                        token_exact=place < 2,
                    ),
                    signals=(
                        Signal("done", 1.0, "fraction", "env_state", text if place == 2 else ""),
                    ),
                    info={"said": [text]} if place == 3 else {},
                )
            )
            t += 1
    journal.close()
    rows = sum(len(steps) for steps in Catalog(tmp_path).follow())
    assert rows == t
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    kept = [
        b"\0".join(
            [
                step.obs_text.encode(),
                step.decision.text.encode(),
                repr(step.info).encode(),
                step.signals[0].evidence.encode(),
                step.decision.prompt_ids.astype(np.uint8).tobytes(),
                step.decision.action_ids.astype(np.uint8).tobytes(),
            ]
        )
        for steps in Catalog(tmp_path).follow()
        for step in steps
        if step.decision
    ]
    for i, secret in enumerate(known):
        for n, (_, core) in enumerate(planted(secret)):
            assert len(core) >= 7
            assert (
                core.encode() not in kept[i * FORMS + n]
                and repr(core)[1:-1].encode() not in kept[i * FORMS + n]
            )
            assert i >= 40 or core.encode() not in everything, core


def test_no_secret_is_in_the_metadata_of_a_shard(tmp_path: Path) -> None:
    secret = "pl4nted/Zq7-metadata"
    journal = Journal(
        tmp_path / "w",
        CATALOGUE,
        metadata={"run": secret, "of": [f"a {secret}"]},
        redactor=Redactor([secret]),
    )
    journal.append(make_step(0))
    journal.close()
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert secret.encode() not in everything and MARK.encode() in everything


def spelled(secret: str) -> dict[str, str]:
    """How programs write a secret into a text, beyond `planted`: escaped twice or in part, in other
    capitals, cut into lines, as numbers, one code within another."""
    import base64
    import html
    import quopri

    raw, b64 = secret.encode(), base64.b64encode(secret.encode()).decode()
    return {
        "url with slashes": quote(secret),
        "url twice": quote(quote(secret, safe=""), safe=""),
        "url thrice": quote(quote(quote(secret, safe=""), safe=""), safe=""),
        "url, small": quote(secret, safe="").lower(),
        "url of old": "".join(f"%u{ord(c):04x}" for c in secret),
        "json of json": json.dumps(json.dumps(json.dumps(secret))),
        "json of Go": json.dumps(secret)
        .replace("<", "\\u003c")
        .replace("&", "\\u0026")
        .replace("+", "\\u002B"),
        "json of PHP": json.dumps(secret).replace("/", "\\/"),
        "js": "".join(f"\\u{{{ord(c):x}}}" for c in secret),
        "JSON, large": "".join(f"\\u{ord(c):04X}" for c in secret),
        "bytes, large": "".join(f"\\x{b:02X}" for b in raw),
        "repr of bytes": repr(raw),
        "ascii": ascii(secret),
        "octal": "".join(f"\\{b:o}" for b in raw),
        "entities": "".join(f"&#x{ord(c):X};" for c in secret),
        "entities, padded": "".join(f"&#{ord(c):05};" for c in secret),
        "html of html": html.escape(html.escape(secret)),
        "mail": quopri.encodestring(raw).decode(),
        "large": secret.upper(),
        "small": secret.lower(),
        "base32 in a text": base64.b32encode(b"abc" + raw + b"xy").decode(),
        "base32, small": base64.b32encode(raw).decode().lower(),
        "base32hex": base64.b32hexencode(raw).decode(),
        "hex, colons, large": raw.hex(":").upper(),
        "hex, dashes": raw.hex("-"),
        "0x": " ".join(map(hex, raw)),
        "0x, listed": ", ".join(f"0x{b:02X}" for b in raw),
        "numbers": str(list(raw)),
        "numbers, blanks": " ".join(map(str, raw)),
        "bits": " ".join(f"{b:08b}" for b in raw),
        "UTF-16": "\0".join(secret),
        "UTF-32": "\0\0\0".join(secret),
        "UTF-16 in base64": base64.b64encode(secret.encode("utf-16-le")).decode(),
        "UTF-16 in hex": secret.encode("utf-16-be").hex(),
        "base64 in lines": "\n".join(b64[i : i + 12] for i in range(0, len(b64), 12)),
        "base64, escaped lines": "\\n".join(b64[i : i + 12] for i in range(0, len(b64), 12)),
        "two lines": f"{secret[:9]}\n{secret[9:]}",
        "two lines of Windows": f"{secret[:9]}\r\n    {secret[9:]}",
        "a line that goes on": f"{secret[:9]}\\\n{secret[9:]}",
        "joined": f'"{secret[:9]}" + "{secret[9:]}"',
        "blanks": " ".join(secret),
        "no-width blanks": "\u200b".join(secret),
        "backwards": secret[::-1],
        "backwards in base64": base64.b64encode(raw[::-1]).decode(),
        "base64 backwards": b64[::-1],
        "hex backwards": raw[::-1].hex(),
        "base64 of base64": base64.b64encode(b64.encode()).decode(),
        "base64 of hex": base64.b64encode(raw.hex().encode()).decode(),
        "hex of base64": b64.encode().hex(),
        "base64 of a URL": base64.b64encode(quote(secret, safe="").encode()).decode(),
        "base64 of JSON": base64.b64encode(json.dumps({"k": secret}).encode()).decode(),
        "bytes as Latin-1": raw.decode("latin-1"),
    } | ({} if "\\" in secret else {"a list": json.dumps(list(secret))})


@pytest.mark.parametrize(
    "secret",
    [
        "pl4nted/Zq7+pV.secret&1<x",
        "hunter2hunter2hunter2",
        "p\u00e4ssw\u00f6rd-\u00f1and\u00fa-1234",
        "a'b\"c\\d+e/f-1234",
    ],
)
def test_a_secret_is_found_in_every_spelling(secret: str) -> None:
    redactor = Redactor([secret])
    missed = [
        name
        for name, text in spelled(secret).items()
        if redactor.text(text) == text or MARK not in redactor.text(f"before it {text} after it")
    ]
    assert missed == []


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY_2",
        "API_KEYS",
        "TOKEN_1",
        "DB_PASS",
        "MYSQL_PWD",
        "REDISCLI_AUTH",
        "GITHUB_PAT",
        "aws_secret",
        "SENTRY_DSN",
        "SSH_PASSPHRASE",
        "STRIPE_KEY_LIVE",
        "GCP_CREDS_JSON",
        "JWT",
    ],
)
def test_a_secret_of_an_unusual_name_is_one(name: str) -> None:
    assert (
        Redactor.of_environment({name: "pl4nted/Zq7"}).text("it is pl4nted/Zq7") == f"it is {MARK}"
    )


def test_the_password_within_an_address_is_a_secret_by_itself() -> None:
    redactor = Redactor.of_environment(
        {"DATABASE_URL": "postgres://me:pl4nted%2FZq7@db/x?sslmode=require"}
    )
    assert (
        redactor.text("refused: pl4nted/Zq7")
        == f"refused: {MARK}"
        == redactor.text("refused: pl4nted%2FZq7")
    )


def test_places_and_settings_are_no_secrets() -> None:
    ordinary = {
        "PWD": "/home/somebody",
        "OLDPWD": "/home/somebody",
        "SSH_AUTH_SOCK": "/tmp/ssh-abc/agent",
        "PATH": "/usr/bin:/bin",
        "XAUTHORITY": "/home/somebody",
        "RAY_AUTH_MODE": "token-auth",
        "KEYBOARD": "us-international",
        "TOKENIZERS_PARALLELISM": "falsefalse",
        "PYTHONPATH": "/home/somebody",
    }
    assert Redactor.of_environment(ordinary).text(text := " ".join(ordinary.values())) == text


def test_only_the_secrets_own_place_is_covered() -> None:
    redactor = Redactor(["pl4nted/Zq7+pV=secret"])
    for spelling in (
        "pl4nted%252FZq7%252BpV%253Dsecret",
        "PL4NTED/ZQ7\\\n+PV=SECRET",
        "pl4n\n ted/Zq7+pV\\u003dsecret",
    ):
        assert (
            redactor.text(f"caf\u00e9 100%20 a\\nb: {spelling} and 5%41 more, {spelling}!")
            == f"caf\u00e9 100%20 a\\nb: {MARK} and 5%41 more, {MARK}!"
        )


def test_texts_made_to_be_slow_are_not() -> None:
    redactor = Redactor(["pl4nted/Zq7+pV=secret"])
    began = time.process_time()
    for piece in ("\\", "%25", "&#", "&amp;", "0x0", "=", "%2525", "\\\\u", "pl4nted/", " "):
        redactor.text(piece * (100_000 // len(piece)))
    assert time.process_time() - began < 10, (
        "of this process alone; it took minutes when runs of signs were tried anew"
    )


def test_a_clean_text_costs_little_however_many_secrets_are_known() -> None:
    redactor = Redactor(secrets(5))
    text = "it goes on and says that nothing of all this is true, not even here. " * 60

    def seconds(work: Callable[[], object]) -> float:
        took = []
        for _ in range(20):
            began = time.process_time()
            for _ in range(50):
                work()
            took.append(time.process_time() - began)
        return min(took)

    one_pass = seconds(lambda: text.translate({ord(" "): None}))
    assert seconds(lambda: redactor.text(text)) < 6 * one_pass, (
        "it was 90, each form looked for by itself"
    )


@pytest.mark.parametrize(
    "wrapped", ["{}", "a {} b", "caf\u00e9 {}\u200b", "x=1 & y\n{}!", "\u212a {}", "\ud800 {}"]
)
def test_a_secret_is_found_at_every_place_of_a_text(wrapped: str) -> None:
    for secret in ("pl4nted/Zq7", "p\u00e4ss-w\u00f6rd", "sechs6", "aaaaaaaaaaaa"):
        redactor = Redactor([secret])
        for lead in range(9):
            around = "." * lead + wrapped
            assert redactor.text(around.format(secret)) == around.format(MARK)
    assert Redactor(["keykeykey"]).text("it: \u212aEY\u212aEY\u212aEY") == f"it: {MARK}", (
        "small, these are plain letters"
    )


def test_clean_text_is_left_as_it_is() -> None:
    redactor = Redactor(["correct horse battery"])
    for step in map(make_step, range(300)):
        assert redactor.step(step) is step


def test_known_kinds_of_credentials_are_found_without_being_told() -> None:
    redactor = Redactor()
    for text in (
        "key sk-" + "a1B2" * 8,
        "ghp_" + "x" * 36,
        "AKIA" + "ABCD1234" * 2,
        "postgres://me:hunter2pass@db/x",
        "Authorization: Bearer " + "q9" * 12,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nmore",
    ):
        assert MARK in redactor.text(text), text
    assert redactor.text("submit f=lambda x:x+1") == "submit f=lambda x:x+1"


def test_ids_beside_redacted_text_go_and_so_do_the_episodes_later_ones() -> None:
    redactor = Redactor(["open sesame 1234"])
    first = redactor.step(make_step(0, obs_text="the word is open sesame 1234"))
    later = redactor.step(make_step(1, boundary=Boundary.NONE))
    fresh = redactor.step(make_step(2, boundary=Boundary.RESET))
    assert first.obs_text == f"the word is {MARK}"
    for step in (first, later):
        assert (
            step.decision is not None
            and not step.decision.token_exact
            and len(step.decision.prompt_ids) == 0
        )
    assert fresh.decision is not None and fresh.decision.token_exact


KEY, URL_SECRET = "planted-Zq7+pV/secret&1", "pa55-Word+x9<y"


class EchoingServer(BaseHTTPRequestHandler):
    """A model's server that tells back all that it was sent, the credentials included."""

    asked = 0
    secrets: ClassVar[tuple[str, str]] = KEY, URL_SECRET
    authorized: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        type(self).asked += 1
        told = self.headers.get("Authorization", "")
        self.authorized.add(told)
        failed = self.asked % 5 == 4
        body = (
            {"error": {"message": f"refused: {told} {' '.join(self.secrets)}"}}
            if failed
            else {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": f"go {told} {self.secrets[0]}"},
                    }
                ],
            }
        )
        sent = json.dumps(body).encode()
        self.send_response(400 if failed else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None: ...


def run_that_leaks(
    folder: Path, *more: str, control: bool = False
) -> subprocess.CompletedProcess[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), EchoingServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    start = (
        "from experience.shards.redaction import redact; redact.Redactor.text = lambda self, "
        "text: text\n"
        if control
        else ""
    )
    environment = {
        k: v for k, v in os.environ.items() if k not in ("XP_SECRET_NAMES", "XP_URL_PASSWORD")
    }
    try:
        return subprocess.run(
            [
                sys.executable,
                "-c",
                start + "import runpy; runpy.run_module('actors', run_name='__main__')",
                "run",
                *more,
                f"runs_dir={folder}",
                "worlds=[{id: 'tests.leaky_world:Leaky-v0', groups: 1, demonstrations: 2}]",
                "agent.sight=ignore",
                "policy={engine: openai, model: m, learns: false, retries: 0, api_key_env: "
                "LLM_FOR_TESTS}",
                f"policy.base_url=http://user:{quote(URL_SECRET, safe='')}@127.0.0.1:{server.server_port}/v1",
                "budget.updates=0",
                "budget.steps=12",
                "planning.enabled=false",
                "evaluation.episodes=4",
                "evaluation.final_episodes=4",
                "collecting.slots=2",
                "collecting.group_size=2",
            ],
            cwd=ROOT,
            env=environment | {"LLM_FOR_TESTS": KEY},
            capture_output=True,
            text=True,
            timeout=200,
        )
    finally:
        server.shutdown()


def leaks(folder: Path, done: subprocess.CompletedProcess[str]) -> list[str]:
    """Where a planted secret stands, in any of its encodings: files by their bytes, and both
    outputs."""
    exits = {
        str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
    }
    exits |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    cores = {core for secret in (KEY, URL_SECRET) for _, core in planted(secret)}
    return [
        f"{where}: {core}"
        for where, data in exits.items()
        for core in cores
        if core.encode() in data
    ]


def test_what_a_configuration_names_as_secret_leaves_by_no_exit(tmp_path: Path) -> None:
    done = run_that_leaks(tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-3000:]
    assert EchoingServer.authorized and all(
        "Basic" in a or KEY in a for a in EchoingServer.authorized
    )
    assert leaks(tmp_path / "runs", done) == []
    (run,) = (p for p in (tmp_path / "runs").iterdir() if not p.is_symlink())
    assert {"report.html", "config.yaml", "run.json", "metrics"} <= {p.name for p in run.iterdir()}
    assert "user:***@127.0.0.1" in (run / "config.yaml").read_text()
    assert MARK in (run / "logs" / "worlds.log").read_text(), "what the world printed, without"


@pytest.mark.parametrize(
    ("address", "is_said"),
    [
        ("https://api.example.org/v1", True),
        ("http://10.0.0.7:8000/v1", True),
        ("http://localhost.example.org/v1", True),
        ("http://127.0.0.1:8000/v1", False),
        ("http://localhost:8000/v1", False),
        ("http://[::1]:8000/v1", False),
    ],
)
def test_before_a_key_is_sent_to_another_host_the_run_says_so(
    address: str,
    is_said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MY_OWN_THING", KEY)
    monkeypatch.setenv("XP_SECRET_NAMES", "")  # which loading changes
    config, origins = load(
        [],
        [
            f"policy={{engine: openai, model: m, learns: false, base_url: '{address}', "
            "api_key_env: "
            "MY_OWN_THING}",
            "worlds=[{id: 'nowhere:No-v0'}]",
            f"runs_dir={tmp_path}",
        ],
    )
    with pytest.raises(XpError):  # such a world there is not: nothing is sent here
        Launch(False).start(config, origins)
    said = capsys.readouterr().err
    assert ("MY_OWN_THING" in said) == is_said and KEY not in said
    host = address.split("/")[2].split(":")[0]
    assert (
        not is_said
        or f"the value of MY_OWN_THING (policy.api_key_env) is sent to {host} (policy.base_url)"
        in said
    )


@pytest.mark.long
def test_without_the_redactor_the_same_run_leaks_at_every_exit(tmp_path: Path) -> None:
    control = run_that_leaks(tmp_path / "control", control=True)
    found = " ".join(leaks(tmp_path / "control", control))
    for where in (".arrow", "run.json", "report.html", "stdout", "stderr"):
        assert where in found, f"the control finds it in {where}"


def test_a_traceback_and_a_log_record_hold_no_secret(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from experience.command.output import guard; guard()\n"
        f"logging.basicConfig(filename={str(tmp_path / 'log')!r}, level=10)\n"
        "import os; key = os.environ['MY_KEY']\n"
        "logging.info('it is %s', key); logging.exception('oh', exc_info=ValueError(key))\n"
        "sys.stdout.write(key[:5]); sys.stdout.write(key[5:] + '\\n'); "
        "sys.stdout.buffer.write(key.encode())\n"
        "print('\\x1b[2Jcleared \\x07\\u202e ok\\tyes')\n"
        "raise RuntimeError('refused ' + key)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"MY_KEY": KEY},
    )
    text = (tmp_path / "log").read_text() + done.stdout + done.stderr
    assert KEY not in text and text.count(MARK) == 5, text
    assert (
        "refused " + MARK in done.stderr
        and "[2Jcleared  ok\tyes" in done.stdout
        and "\x1b" not in done.stdout
    )
