"""Worlds by their ids: how one is made."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import gymnasium


def make_world(env_id: str, arguments: Mapping[str, Any]) -> Any:
    """A world made with copies of its arguments: what one does with a list of its own, no other sees."""
    return gymnasium.make(env_id, **deepcopy(dict(arguments)))
