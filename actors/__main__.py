"""`python -m actors VERB`, from the checkout's root: what ./xp runs."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def _check_rooms() -> None:
    """Each of our packages must be the one of this checkout: `envs` is a common name."""
    from importlib.util import find_spec

    for name in ("experience", "actors", "envs"):
        spec = find_spec(name)
        if spec is None or spec.origin is None or _ROOT not in Path(spec.origin).resolve().parents:
            sys.exit(f"error: package {name!r} is {spec.origin if spec else 'missing'}, not the one below {_ROOT}\n"
                     f"  run ./xp from the checkout's root, or: cd {_ROOT} && python -m actors …")


_check_rooms()

from actors.cli import main  # noqa: E402  only after the check

main()
