"""Where a run comes from: the signature of its user, and the revision of its source."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import subprocess
from pathlib import Path

from actors import ROOT

_KEY_BYTES = 32


def signature(path: Path) -> str:
    """HMAC-SHA-256 of a file under a key that only this user of this machine has.

    Empty where no key can be kept. The key is made at first use, in XDG_STATE_HOME or
    ~/.local/state.
    """
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "xp"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(base / "key", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.write(descriptor, secrets.token_bytes(_KEY_BYTES))
            os.close(descriptor)
        key = (base / "key").read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return ""
    # A process that died while it made the key leaves a shorter one, which is no secret.
    if len(key) != _KEY_BYTES:
        return ""
    return hmac.new(key, path.read_bytes(), "sha256").hexdigest()


def revision() -> str:
    """The source's git revision, with `+changes` if the tree differs. Empty outside git.

    The address of a remote is never part of it: an address may hold a password.
    """
    try:
        sha = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return sha + ("+changes" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
