"""Names that a secret goes by, and texts of a command line with the secrets behind such names
masked."""

from __future__ import annotations

import re

from experience.shards.redaction.redact import Redactor

_SECRET_KEY = re.compile(
    r"(^|_)(api_?keys?|access_?key(_id)?|private_?key|auth_?key|app_?secret|secrets?|(hf_?)?token|"
    r"(access|auth|api|bearer|refresh|session)_tokens|passw(or)?ds?|passwort|pass|"
    r"pass_?(phrase|code|word)|pwd|credentials?|creds|auth|authorization|bearer|jwt|pat|cookies?|"
    r"session_?id|sas|dsn|mnemonic|connection_string|"
    r"(account|client|consumer|encryption|function|hmac|license|master|openai|anthropic|azure|"
    r"secret|shared|signing|ssh|storage|subscription|wandb)_?key)(_value)?(_?\d+)?$"
)
_NO_SECRET = re.compile(r"(^|_)(eos|bos|pad|unk|sep|cls|mask|stop|end|start|special)_token$")
_IN_TEXT = re.compile(
    r"(?i)((?:key|token|secret|passw(?:or)?d|pwd|passphrase|credential|authorization|bearer)s?\w*"
    r"[\"']?\s*[:=]\s*)(\"[^\"]*\"?|'[^']*'?|[^,}\]]+)"
)
_AFTER_OPTION = re.compile(
    r"(?:(?<=[\s\[,\"'=])|^)--?([A-Za-z][\w-]+)[\"']?(?:\s*,\s*|\s+)"
    r"(\"[^\"]*\"?|'[^']*'?|[^,\]}\s]+)"
)
"""An option of a command line and the word behind it, in a list or in a text."""


def shown(text: str) -> str:
    """`text` of a command line as a message may hold it: what stands behind a secret's name is
    masked."""
    return Redactor.current().text(_AFTER_OPTION.sub(_mask_after_option, _IN_TEXT.sub(_mask, text)))


def _mask_after_option(found: re.Match[str]) -> str:
    return f"{found[0].removesuffix(found[2])}***" if is_secret(found[1]) else found[0]


def _mask(found: re.Match[str]) -> str:
    name = re.match(r"\w+", found[1])
    harmless = name is not None and (
        name[0].lower().endswith("_env") or name[0].lower() == "tokens"
    )
    return found[0] if harmless else found[1] + "***"


def is_secret(key: str) -> bool:
    """Whether a value under this key is one that nobody should read."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
    words = re.sub(r"[-. ]", "_", words)
    return bool(_SECRET_KEY.search(words)) and not _NO_SECRET.search(words)
