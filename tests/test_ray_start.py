"""Ray's processes start wherever the checkout stands, and a collector that cannot be started ends
the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_ASKS = """
from actors.pool.starting.ray_start import start_ray
ray = start_ray(None)
@ray.remote
class Actor:
    def says(self): return "started"
print(ray.get(Actor.remote().says.remote(), timeout=240))
"""


def test_collectors_start_from_a_path_with_spaces_and_quotes(tmp_path: Path) -> None:
    """Ray hands its Python's path to a shell as it is: five tries of a minute each, in silence,
    ended such a run."""
    folder = tmp_path / "it's my work"
    folder.mkdir()
    (folder / "venv").symlink_to(Path(sys.executable).parent.parent)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "PYTHONPATH": str(ROOT)
    }
    done = subprocess.run(
        [folder / "venv" / "bin" / "python", "-c", _ASKS],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.stdout == "started\n", done.stderr
