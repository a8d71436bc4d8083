"""Who acts: the main loop, the pool of collectors, the agent and its engines, the command."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where the three packages, the configurations and the tests are, wherever a command is called from."""
