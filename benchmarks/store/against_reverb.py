"""Our rate limiter beside Reverb's own, on random histories: may the next inserts, the next samples happen?

    python3.11 -m venv .venv-reverb && .venv/bin/uv pip install -p .venv-reverb -r benchmarks/store/reverb.txt
    PYTHONPATH=. .venv-reverb/bin/python benchmarks/store/against_reverb.py [histories]

Reverb needs TensorFlow 2.15 and Python ≤ 3.11: an environment of its own.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import reverb

from experience.errors import ConfigError
from experience.replay.limits import RateLimiter


def pair(rng: random.Random) -> tuple[RateLimiter, Any]:
    """The same limiter, ours and theirs."""
    kind = rng.choice(("min_size", "ratio", "band", "queue"))
    size, spi = rng.randint(1, 6), rng.choice((0.25, 0.5, 1.0, 1.5, 3.0))
    theirs = reverb.rate_limiters
    if kind == "min_size":
        return RateLimiter.min_size(size), theirs.MinSize(size)
    if kind == "queue":
        return RateLimiter.queue(size), theirs.Queue(size)
    buffer: Any = (
        rng.choice((0.5, 1.0, 2.0, 4.0, 7.5))
        if kind == "ratio"
        else (float(rng.randint(-4, 1)), float(rng.randint(2, 9)))
    )
    try:
        mine = RateLimiter.sample_to_insert_ratio(spi, size, buffer)
    except ConfigError:
        try:
            theirs.SampleToInsertRatio(spi, size, buffer)
        except ValueError:
            return pair(rng)
        raise AssertionError(
            f"we refuse a ratio of {spi} from {size} within {buffer}, Reverb does not"
        ) from None
    return mine, theirs.SampleToInsertRatio(spi, size, buffer)


def main(histories: int) -> None:
    rng, questions = random.Random(0), 0
    for history in range(histories):
        mine, theirs = pair(rng)
        table = reverb.Table("t", reverb.selectors.Fifo(), reverb.selectors.Fifo(), 10_000, theirs)
        server = reverb.Server([table], port=None)
        client = server.localhost_client()
        for _ in range(12):
            for n in range(1, 6):
                questions += 2
                asked = (mine.can_insert(n), mine.can_sample(n))
                answered = (table.can_insert(n), table.can_sample(n))
                assert asked == answered, (history, n, asked, answered, mine)
            if mine.can_insert() and (rng.random() < 0.55 or not mine.can_sample()):
                client.insert([0], {"t": 1.0})
                mine.counts.inserted += 1
            elif mine.can_sample():
                next(iter(client.sample("t", 1)))
                mine.counts.sampled += 1
        server.stop()
    print(f"{histories} histories, {questions} questions, the same answers")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
