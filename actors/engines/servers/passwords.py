"""The password in a server's address: kept in the environment, never in a copy of a file."""

from __future__ import annotations

import os
from urllib.parse import quote

from experience.errors import EngineError

HIDDEN = "***"
"""Stands for the password in every copy of policy.base_url."""

PASSWORD = "XP_URL_PASSWORD"
"""The environment variable that holds the password of policy.base_url."""


def with_password(base_url: str) -> str:
    """The address that a client connects to. Raises EngineError if its password is not set here."""
    if f":{HIDDEN}@" in base_url and not os.environ.get(PASSWORD):
        raise EngineError(
            f"{PASSWORD} is not set here, and policy.base_url needs its password",
            f"set {PASSWORD} in the environment of every node",
        )
    password = quote(os.environ.get(PASSWORD, ""), safe="")
    return base_url.replace(f":{HIDDEN}@", f":{password}@", 1)
