"""Signed tokens: the unguessable part of a rollout's URL.

A token names one rollout and is signed with the gateway's key, so that no program can make the URL
of another rollout. The key is a file beside the store that only its owner may read; it is never in
the store. Does not cover: a program that gives its URL away.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from experience.text.strict_json import dumps

SHAPE = "sk-xp-"
"""How a token begins: the redactor of the store knows this shape, and lets none through."""
_KEY_BYTES = 32
_SIGNATURE_BYTES = 16
_MOST_CHARACTERS = 1024


@dataclass(frozen=True)
class Ticket:
    """What a token says. rollout: 32 hexadecimal digits, also the id of its stream. task, group: as
    in the columns task_id and group_id."""

    rollout: str
    task: str = ""
    group: str = ""

    @classmethod
    def new(cls, task: str = "", group: str = "") -> Ticket:
        return cls(secrets.token_hex(16), task, group)

    @property
    def stream_id(self) -> bytes:
        return bytes.fromhex(self.rollout)


class Signer:
    """Signs tickets, and reads what it has signed."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(_KEY_BYTES)

    @classmethod
    def kept_in(cls, path: Path) -> Signer:
        """With the key of a file, which is made where there is none: the URLs that were given out
        stay good when a gateway starts again."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls(path.read_bytes())
        with os.fdopen(descriptor, "wb") as file:
            file.write(key := secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        return cls(key)

    def sign(self, ticket: Ticket) -> str:
        said = dumps([ticket.rollout, ticket.task, ticket.group]).encode()
        return SHAPE + _coded(said + self._signature(said))

    def read(self, token: str) -> Ticket | None:
        """What a token says; None if it was not signed here."""
        if not token.startswith(SHAPE) or len(token) > _MOST_CHARACTERS or not token.isascii():
            return None
        token = token.removeprefix(SHAPE)
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        said, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(said)):
            return None
        return Ticket(*json.loads(said))

    @property
    def master(self) -> str:
        """The token that allows to begin rollouts."""
        return SHAPE + _coded(hmac.digest(self._key, b"begin rollouts", "sha256"))

    def is_master(self, token: str) -> bool:
        given = token.encode("utf-8", "replace")
        return hmac.compare_digest(given, self.master.encode())

    def _signature(self, said: bytes) -> bytes:
        return hmac.digest(self._key, b"rollout" + said, hashlib.sha256)[:_SIGNATURE_BYTES]


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
