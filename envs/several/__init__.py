"""Worlds with several agents: how one is written, and how one is seen from a single seat."""

from envs.several.world import Moves, SharedOutcome, SharedWorld

__all__ = ["Moves", "SharedOutcome", "SharedWorld"]
