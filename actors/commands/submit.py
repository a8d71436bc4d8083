"""`ray job submit` of a run, after checks of its address, secrets and upload size."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from actors import ROOT
from actors.config.reader import shown
from actors.config.section import absolute
from actors.engines.servers.passwords import HIDDEN, PASSWORD
from experience.command.output import emit
from experience.errors import ConfigError, XpError
from experience.shards.redaction.redact import Redactor

_MOST_BYTES = 50 << 20


def submit_job(words: Sequence[str], address: str | None, wait: bool) -> int:
    """Submits `python -m actors run WORDS` and returns Ray's exit code.

    Raises XpError before anything is sent.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        raise ConfigError(
            "no cluster: neither --address nor RAY_ADDRESS is set",
            "for example: ./xp submit --address http://127.0.0.1:8265 configs/local.yaml",
        )
    _check_dashboard(address)
    _check_secrets(words)
    words = [_in_the_upload(word) for word in words]
    _check_size(ROOT)
    command = [
        sys.executable,
        "-P",
        "-m",
        "ray.scripts.scripts",
        "job",
        "submit",
        "--address",
        address,
        "--working-dir",
        str(ROOT),
        *([] if wait else ["--no-wait"]),
        "--",
        "python",
        "-m",
        "actors",
        "run",
        *words,
    ]
    print(shlex.join(command), file=sys.stderr)
    job = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")},
    )
    assert job.stdout is not None
    for line in job.stdout:  # through this process's guarded output
        emit(line, end="")
    return job.wait()


def _check_dashboard(address: str) -> None:
    """Raises ConfigError if no dashboard listens at `address`, before anything is packed."""
    split = urlsplit(address if "//" in address else f"//{address}")
    try:
        host, port = split.hostname, split.port or {"https": 443}.get(split.scheme, 8265)
        if host and split.scheme in ("http", "https"):  # others, a provider's, are for Ray to read
            socket.create_connection((host, port), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{address}: no dashboard answers there: {error}",
            "give the address that `ray start --head` prints, e.g. http://127.0.0.1:8265",
        ) from error


def _in_the_upload(word: str) -> str:
    """The name of a configuration file within the upload; any other word unchanged.

    Raises ConfigError for a file that would not be uploaded.
    """
    if not word.endswith((".yaml", ".yml")) or "=" in word:
        return word
    path = absolute(word).resolve()
    if not path.is_relative_to(ROOT):
        raise ConfigError(
            f"{word} is not below {ROOT}, which is what a job takes along", "copy it into configs/"
        )
    return str(path.relative_to(ROOT))


def _check_secrets(words: Sequence[str]) -> None:
    """Raises ConfigError, without the value, if a word or a file holds a secret.

    A cluster keeps the command and the files of a job.
    """
    for word in words:
        files = (
            [absolute(word)]
            if word.endswith((".yaml", ".yml")) and absolute(word).is_file()
            else []
        )
        for text in [word, *(file.read_text(errors="replace") for file in files)]:
            if Redactor.current().text(text) != text:
                raise ConfigError(
                    f"{shown(word)}: it holds a secret, which the cluster would keep",
                    f"a URL is written user:{HIDDEN}@host, {PASSWORD} set on its machines; "
                    "other secrets are named, as policy.api_key_env does",
                )


def _check_size(root: Path) -> None:
    """Weighs what Ray would upload: the tracked and untracked files that git does not ignore."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return
    sizes = sorted(
        ((p.stat().st_size, name) for name in listed if (p := root / name).is_file()), reverse=True
    )
    total = sum(size for size, _ in sizes)
    print(f"uploading {total / 2**20:.1f} MiB in {len(sizes)} files", file=sys.stderr)
    if total > _MOST_BYTES:
        biggest = "\n  ".join(f"{size / 2**20:8.1f} MiB  {name}" for size, name in sizes[:5])
        raise XpError(
            f"the working directory is {total / 2**20:.0f} MiB, the limit is 50\n  {biggest}",
            "add what a run does not need to .gitignore or .rayignore",
        )
