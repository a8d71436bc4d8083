"""BrowserGym's environments, in its own Python: pip install browsergym-core browsergym-miniwob

Options: id (e.g. browsergym/miniwob.click-test); browser (a Chromium's path; without it, the one
that Playwright downloaded); miniwob (the folder of the pages); delay (seconds before each
observation; without it, BrowserGym's own default).
"""

import importlib
import os
import random
import re

from speak import speak


class BrowserGym:
    instructions = "Reply with one BrowserGym action, e.g. click('12'), fill('12', 'text'), noop()"

    def __init__(self, options):
        if "miniwob" in options:
            os.environ["MINIWOB_URL"] = f"file://{options['miniwob'].rstrip('/')}/"
        if "browser" in options:
            _launch_with(options["browser"])
        import gymnasium

        name = options["id"].partition("/")[2].partition(".")[0]
        importlib.import_module(f"browsergym.{name}")
        from browsergym.utils.obs import flatten_axtree_to_str

        more = {"pre_observation_delay": options["delay"]} if "delay" in options else {}
        self._flatten = flatten_axtree_to_str
        self._env = gymnasium.make(options["id"], disable_env_checker=True, **more)

    def _text(self, seen):
        self._tree = self._flatten(seen["axtree_object"])
        error = f"\n! {seen['last_action_error']}" if seen["last_action_error"] else ""
        return f"{seen['goal']}\n{self._tree}{error}"

    def reset(self, seed):
        return self._text(self._env.reset(seed=seed)[0])

    def step(self, action):
        seen, reward, ended, truncated, _ = self._env.step(action)
        return self._text(seen), float(reward), bool(ended), bool(truncated)

    def random(self, seed):
        # An element's id stands in brackets; without elements, 0 is refused like any wrong id.
        found = re.findall(r"\[(\w+)\]", self._tree) or ["0"]
        return f"click('{random.Random(seed).choice(found)}')"

    def close(self):
        self._env.close()


def _launch_with(path):
    """Playwright takes the browser at `path`, which may run as root in a container."""
    from playwright.sync_api import BrowserType

    launch = BrowserType.launch

    def patched(self, **more):
        # Chromium's own sandbox needs rights that the place around it has taken away.
        more["args"] = [*(more.get("args") or []), "--no-sandbox"]
        return launch(self, **(more | {"executable_path": path}))

    BrowserType.launch = patched


if __name__ == "__main__":
    speak(BrowserGym)
