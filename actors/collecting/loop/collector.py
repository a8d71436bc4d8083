"""The collector: keeps many environments going, asks the agents, and journals every step.

Each environment advances alone, and every wait is for one answer: of a world, or of the model. The
same class runs in this process and inside a Ray actor.

In step (`in_step`), all environments are waited for, then answered together. Otherwise it depends
on which environment was faster which rows the model answers at once, and so the last bits of its
logits. The random numbers of a turn come from the run's seed, the work and the turn in either case.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from actors.agents.players import roles
from actors.collecting.endings import Endings
from actors.collecting.hosting import Hosting
from actors.collecting.hosts.described import describe_worlds
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.loop.desk import Desk
from actors.collecting.loop.lanes import Lanes, MakeEngine
from actors.collecting.loop.leases import Leases, Line
from actors.collecting.loop.slot_loop import SlotLoop
from actors.collecting.loop.tables import Tables
from actors.collecting.recorder import Recorder
from actors.collecting.streams import Streams, left_behind
from actors.collecting.work import in_step
from actors.config.schema import Config
from actors.engines.registry import make_engine
from experience.reward import RewardModel
from experience.shards.journal import Journal

MakeDesk = Callable[[Lanes, Mailbox, bool, int, Recorder, Journal], Desk]
"""Makes a desk of another kind, such as one at which agents are programs."""


class Collector:
    """Lives episodes: training groups up to a quota, and ordered work before them.

    Invariant: a step counts as taken when the journal has acknowledged it, and never twice.
    """

    def __init__(
        self,
        config: Config,
        run_id: str,
        directory: Path,
        index: int,
        line: Line,
        make_desk: MakeDesk | None = None,
        make: MakeEngine = make_engine,
    ) -> None:
        self.index = index
        os.environ["XP_LOGS"] = str(directory.parent.absolute() / "logs")  # for servers of engines
        # the worlds know no configuration: they read the weakest tier from the environment
        os.environ["XP_MIN_TIER"] = config.sandbox.min_tier
        name = f"collector-{index:04d}"
        described = describe_worlds(config)
        rewards = described.rewards
        directory.mkdir(parents=True, exist_ok=True)  # a node that shares no disk has none yet
        before = left_behind(directory, name, notes=config.agent.notes > 0)
        self.journal = Journal(
            directory / name,
            described.catalogue,
            durability=config.collecting.durability,
            commit_seconds=config.collecting.commit_seconds,
            seal_bytes=config.collecting.seal_bytes,
            seal_seconds=config.collecting.seal_seconds,
            metadata={"run": run_id, "rewards": rewards.version} | _code(rewards),
        )
        self._recorder = Recorder(
            self.journal,
            rewards.version,
            config.collecting.discount,
            remembers=config.planning.lookahead.candidates > 0,
        )
        self._endings = Endings(self._recorder)
        self.mailbox = Mailbox()
        log = directory.parent / "logs" / "worlds.log"
        self._hosting = Hosting(config, self.mailbox, described, log)
        streams = Streams(config, f"{run_id}/{index}", before, bool(self.journal.acknowledged))
        self._slots = streams.slots
        # an incarnation after a crash does not draw the numbers of the one before again
        seed = config.seed + 1000 * (index + 1) + self.journal.epoch
        lanes = Lanes(config, rewards, seed, described.shared.values(), make)
        # what a server answers is never the same twice: nothing is gained by waiting for all
        self.in_step = in_step(config) and not lanes.answers_alone
        at = lanes, self.mailbox, self.in_step, len(self._slots)
        self._desk = make_desk(*at, self._recorder, self.journal) if make_desk else Desk(*at)
        self.leases = Leases(
            f"{name}/{self.journal.epoch}",
            line,
            self._desk,
            self._recorder,
            self._endings,
            {env_id: roles(card) for env_id, card in described.shared.items()},
            before.finished,
        )
        self._loop = SlotLoop(
            self._slots,
            self.leases,
            self._recorder,
            self._endings,
            self._desk,
            self._hosting,
            Tables(described.shared, self._hosting, self._recorder, self._endings, streams.seat),
            self.mailbox,
            self.in_step,
        )

    @property
    def closed(self) -> int:
        """Episodes closed so far."""
        return self._endings.closed

    @property
    def idle(self) -> bool:
        return self.leases.is_empty and self._loop.is_idle

    def pump(self, patience_seconds: float = 0.05) -> bool:
        """One round: finished worlds are recorded, waiting ones answered. False if there was
        nothing to do.

        On a full disk nothing new is begun and nothing in memory grows, until there is room again.
        """
        if self.journal.paused:
            time.sleep(patience_seconds)
            self.journal.commit()
            return True
        self._loop.round(patience_seconds)
        self.journal.commit_if_due()
        return not self._loop.is_idle

    def close(self) -> dict[bytes, int]:
        """Acknowledges and seals what there is; episodes under way end here, as cancelled. Returns
        the last acknowledged t of each stream."""
        for slot in self._slots:
            if slot.work is not None:
                self._endings.cancel(slot)
        self.journal.close()
        self._desk.close()
        wrong = self._hosting.close(self._slots)
        self._recorder.failures.update(f"close: {why}" for why in wrong)
        self.leases.tell()
        self.mailbox.close()
        return dict(self.journal.acknowledged)


def _code(rewards: RewardModel) -> dict[str, str]:
    """What the version of a reward with code stands for; a shard outlives the world's file."""
    return {"reward_model": rewards.description} if rewards.functions else {}
