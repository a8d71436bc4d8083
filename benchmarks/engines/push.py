"""From a learner's commit to the first token that is sampled with it, under load.

    python -m benchmarks.engines.push --pushes 100 --askers 4                    # LoRA into vLLM
    python -m benchmarks.engines.push --pushes 100 --askers 4 --whole            # all weights, in
                                                                                 # this process
Askers ask all the time. A commit is the moment at which the weights are bytes with a hash; the first
token of a version is that of the first request that names it. Counted too: requests that failed,
and answers whose version is older than the newest that was in force when they were asked.
"""

from __future__ import annotations

import argparse
import threading
import time
from typing import Any

import numpy as np

from actors.config.schema import Policy
from actors.engines.engine import Situation
from actors.engines.registry import make_engine, make_model
from actors.engines.serving.shared import SharedEngine
from experience.errors import XpError
from experience.models.weights import Weights
from experience.text.strict_json import dumps


class Askers:
    """Threads that ask without pause, and note what they were answered."""

    def __init__(self, shared: SharedEngine, count: int) -> None:
        self._shared = shared
        self.first: dict[int, float] = {}
        """The moment of the first token of each version."""
        self.answered = self.lost = self.unmarked = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=[n]) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        draw = number
        while not self._stop.is_set():
            draw += 1000
            in_force = self._shared.version
            begun = time.perf_counter()
            situation = Situation("Which way?", "Answer with one word.", draw=draw)
            try:
                decision = self._shared.ask(situation, 1.0).result(300)
            except XpError:
                with self._lock:
                    self.lost += 1
                continue
            ended = time.perf_counter()
            wait = decision.first_token_seconds
            # where nothing streams, the whole answer stands for its first token
            moment = ended if wait is None else begun + wait
            with self._lock:
                self.answered += 1
                spans = {span.version for span in decision.version_spans}
                is_marked = (
                    spans == {decision.policy_version} and decision.policy_version >= in_force
                )
                self.unmarked += not is_marked
                known = self.first.get(decision.policy_version, np.inf)
                self.first[decision.policy_version] = min(known, moment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--server", default="", help="the program vllm")
    parser.add_argument("--base-url", default="", help="a vLLM server that runs already")
    parser.add_argument("--pushes", type=int, default=100)
    parser.add_argument("--askers", type=int, default=4)
    parser.add_argument("--whole", action="store_true", help="all weights, into this process")
    asked = parser.parse_args()
    given: dict[str, Any] = {"lora_rank": 16, "stream": True, "server": asked.server}
    kind = "hugging_face" if asked.whole else "vllm"
    policy = Policy(engine=kind, model=asked.model, context=256, max_tokens=8,
                    base_url=asked.base_url, timeout_seconds=300,
                    arguments={} if asked.whole else given)  # fmt: skip
    trained = make_model(policy, 0)
    assert trained is not None
    shared = SharedEngine(lambda: make_engine(policy, 0))
    shared.load(Weights.of(trained.model, 0))
    shared.ask(Situation("Which way?"), 1.0).result(900)
    askers = Askers(shared, asked.askers)
    committed: dict[int, float] = {}
    for version in range(1, asked.pushes + 1):
        weights = Weights.of(trained.model, version)
        committed[version] = time.perf_counter()
        shared.load(weights)
        until = time.perf_counter() + 60
        while version not in askers.first and time.perf_counter() < until:
            time.sleep(0.01)
    askers.close()
    waits = [askers.first[v] - at for v, at in committed.items() if v in askers.first]
    print(
        dumps(
            {
                "engine": policy.engine,
                "bytes": len(Weights.of(trained.model, 0).data),
                "pushes": len(committed),
                "reached": len(waits),
                "p50_seconds": round(float(np.percentile(waits, 50)), 3),
                "p99_seconds": round(float(np.percentile(waits, 99)), 3),
                "answered": askers.answered,
                "lost": askers.lost,
                "unmarked": askers.unmarked,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
