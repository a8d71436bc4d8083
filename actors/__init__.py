"""Who acts: the main loop, the pool of collectors, the agent and its engines, the command."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where the three packages, the configurations and the tests are, wherever a command
is called from."""

CALLED_FROM = os.getcwd()
"""The folder that the command was called from, whatever folder a world changes to later."""
