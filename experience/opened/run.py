"""A run that was opened: its episodes and rows as tables, windows, datasets and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experience.errors import ConfigError
from experience.opened.picture import Picture
from experience.reward import RewardModel
from experience.shards.amend import Amendment, amend
from experience.shards.known import Known
from experience.shards.selection import Steps, Store, Table, choose, select
from experience.shards.storage.blobs import BlobReader

if TYPE_CHECKING:
    from experience.episode import Episode
    from experience.opened.loader import StepDataset
    from experience.shards.episodes.index import EpisodeIndex
    from experience.shards.sampling.row_files import Windows
    from experience.shards.sampling.samplers import Sampler
    from experience.signal import SignalKind
    from experience.step import Source, Step

LEARNED_FROM = ("obs_text", "prompt_ids", "action_ids", "action_logprobs", "reward", "discount")
"""The columns that `windows` and `torch` give where none are named."""
_KEY = re.compile(r"([0-9a-f]{32}):(\d{1,18})")


class Run:
    """What happened in a run, or in several: made by `experience.open`.

    Nothing is read before it is asked for, and every byte that is read is compared with its
    checksum: ShardError says where one is wrong. Each call sees the rows committed by then.
    """

    def __init__(self, stores: Sequence[Store], reward: RewardModel | None = None) -> None:
        self.stores = tuple(stores)
        self._reward = reward
        self._blobs = [BlobReader(store.path, store.disk) for store in stores]
        self._indexes: dict[Store, EpisodeIndex] = {}

    def __repr__(self) -> str:
        return f"<Run {', '.join(store.name for store in self.stores)}>"

    def episodes(
        self, where: str = "", *, order: str = "", limit: int | None = None, offset: int = 0
    ) -> Table:
        """One row an episode, as an Arrow table, in the order in which they were begun.

        where: an SQL condition over the columns, e.g. "split = 'heldout' and total_reward > 0".
        order: SQL, e.g. "total_reward desc". limit and offset: one page. Columns: `key`, `run`, and
        those of EpisodeIndex.table; `total_reward` is null where a reward is unknown, `ending` is
        null while the episode goes on.
        """
        tables = [(store.name, self._index(store).table()) for store in self.stores]
        return choose(tables, where, order, limit, offset)

    def episode(self, key: str) -> Episode:
        """One episode with all its rows; `key` is that of `episodes`, `STREAM:FIRST_T`.

        Raises ConfigError where no episode has the key.
        """
        found = _KEY.fullmatch(key)
        stream, t = (bytes.fromhex(found[1]), int(found[2])) if found else (b"", -1)
        for store in self.stores if found else ():
            index = self._index(store)
            number = index.records.at(stream, t)
            if number >= 0 and index.records.rows["first_t"][number] == t:
                return index.read(number)
        raise ConfigError(
            f"no episode has the key {key!r}", "keys stand in the column `key` of run.episodes()"
        )

    def steps(self, columns: Sequence[str] = (), where: str = "") -> Steps:
        """Rows as Arrow, Polars, pandas or a DuckDB relation: see `Steps`.

        columns: some of docs/reference-columns.md, `run` and `signal.NAME`; empty: all. where: an
        SQL condition over them, e.g. "policy_version = 3 and \\"signal.done\\" = 1". Raises
        ConfigError for an unknown column or a condition that DuckDB refuses.
        """
        return select(self.stores, columns, where, self._reward)

    def windows(
        self,
        k: int,
        n: int = 256,
        columns: Sequence[str] = LEARNED_FROM,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        source: Source = "real",
        split: str = "train",
        oldest_version: int | None = None,
        across_gaps: bool = False,
    ) -> Iterator[Windows]:
        """Endless batches of `n` windows of `k` successive rows, drawn with replacement.

        Numbers are arrays [n, k]; texts and lists are `Ragged` of n·k rows. columns: of numbers,
        long texts and lists, and `signal.NAME`. The other arguments: see `WindowReader.draw`.
        Raises ShardError if there is no such window, or a column cannot be gathered.
        """
        from experience.opened.rows import RowReader

        reader = RowReader(self._only("windows"), columns, self._reward, seed=seed)
        while True:
            rows = reader.windows.draw(
                n,
                k,
                sampler,
                source=source,
                split=split,
                oldest_version=oldest_version,
                across_gaps=across_gaps,
            )
            yield reader.gather(rows)

    def torch(
        self,
        columns: Sequence[str] = LEARNED_FROM,
        where: str = "",
        *,
        k: int = 1,
        batch: int = 256,
        seed: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> StepDataset:
        """A dataset for PyTorch; `dataset.loader(workers)` is its DataLoader.

        One pass gives each row of the chosen episodes once, by whichever worker: windows of `k`
        rows within an episode, `batch` windows at a time (see `as_tensors` for the shapes). where:
        as for `episodes`. seed: shuffles; None keeps the order. share: (rank, processes) where
        several processes train together. Raises ConfigError where no episode is chosen.
        """
        from experience.opened.loader import StepDataset
        from experience.opened.rows import spans_of

        if k < 1 or batch < 1 or not 0 <= share[0] < share[1]:
            raise ConfigError(
                f"k={k}, batch={batch}, share={share}",
                "k and batch are 1 or more, and share is (rank, processes)",
            )
        table = self.episodes(where)
        chosen = [(store, spans_of(table, store.name)) for store in self.stores]
        if not any(len(spans.rows) for _, spans in chosen):
            raise ConfigError(f"no episode is chosen by where={where!r}", "see run.episodes()")
        return StepDataset(chosen, columns, self._reward, k=k, batch=batch, seed=seed, share=share)

    def hf(self, split: str = "train", to: str | Path | None = None) -> Any:
        """A `datasets.Dataset` with a row a step, as `./xp export --to hf` writes it.

        to: the folder that it is exported to, or was; None: a temporary one. Its rewards are those
        of the store, not of `with_reward`. Raises MissingPartError if `datasets` is not installed,
        ConfigError for a split that there is none of.
        """
        from experience.opened.exported import hugging_face

        return hugging_face(self._only("hf").path, split, to)

    def pictures(self, step: Step) -> list[Picture]:
        """What was shown at a turn: screenshots and other blobs. A notebook shows them by itself.

        Raises ShardError if the bytes are missing or are not what their SHA-256 says.
        """
        return [
            Picture(blob.media, self._blob(blob.hash), blob.w, blob.h, blob.role)
            for blob in step.obs_blobs
        ]

    def _blob(self, digest: bytes) -> bytes:
        reader = next((blobs for blobs in self._blobs if digest in blobs), self._blobs[0])
        return reader.read(digest)

    def with_reward(self, model: RewardModel) -> Run:
        """The same run, its rewards computed by `model` from the signals; nothing is written.

        Raises ConfigError for a weight of a signal that the store does not know.
        """
        known = {name for store in self.stores for name in Known(store.path, store.disk).signals()}
        model.check(known)
        return Run(self.stores, model)

    def amend(
        self, amendments: Iterable[Amendment], *, new: Mapping[str, SignalKind] | None = None
    ) -> Path:
        """Writes what became known later, such as a person's rating: all of it, or nothing.

        new: declares signals that the store does not know yet. Returns the file's path. Raises
        RecordError for an amendment that does not fit the store.
        """
        return amend(self._only("amend").path, amendments, new=new)

    def _index(self, store: Store) -> EpisodeIndex:
        """The episodes of a store, with those that came since the last call."""
        from experience.shards.episodes.index import EpisodeIndex

        if store not in self._indexes:
            self._indexes[store] = EpisodeIndex.open(store.path, self._reward, store.disk)
        else:
            self._indexes[store].refresh()
        return self._indexes[store]

    def _only(self, what: str) -> Store:
        """The one store. Raises ConfigError where there are several."""
        if len(self.stores) > 1:
            raise ConfigError(f"{what}: {len(self.stores)} runs are open", "open one run")
        return self.stores[0]
