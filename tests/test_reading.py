"""One way to a run's rows: all of them, at every moment, or a word on what is wrong; the docs'
snippets as they stand."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from actors.reading.query import connect
from actors.runs.directory import RunDirectory
from experience.errors import ShardError
from experience.reward import RewardModel
from experience.shards.amend import Amendment, amend, reward_again
from experience.shards.catalog import Catalog
from experience.shards.cold.compaction import compact
from experience.shards.journal import Journal
from experience.signal import Signal, SignalKind
from tests.conftest import make_step

ROOT = Path(__file__).resolve().parent.parent
MOMENTS = ("before the first seal", "sealed", "after compaction", "all at once")
CATALOGUE = {
    name: SignalKind("1", "env_state") for name in ("syngas_yield", "carbon_burnt", "done")
}


def a_run(runs: Path, moment: str) -> tuple[Path, int]:
    """A run at that moment, `latest` beside it, and how many rows it holds."""
    path = runs / "one"
    for folder in ("shards", "imagined", "checkpoints"):
        (path / folder).mkdir(parents=True)
    RunDirectory(path).write_record(status="running")
    (runs / "latest").symlink_to("one")
    written = 0
    for closed in {"before the first seal": (False,), "all at once": (True, False)}.get(
        moment, (True,)
    ):
        journal = Journal(path / "shards" / "w", CATALOGUE)
        for _ in range(12):
            t = journal.next_t(b"s" * 16)
            journal.append(
                make_step(
                    t,
                    env_id="envs:Reactor-v0",
                    split="heldout" if t % 2 else "train",
                    signals=tuple(Signal(name, 0.5, "1", "env_state") for name in CATALOGUE),
                )
            )
            written += 1
        journal.commit()
        _open.append(journal)
        if closed:
            journal.close()
            if moment != "sealed":
                compact(path / "shards")
    return path, written


_open: list[Journal] = []


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_row_reaches_sql_arrow_polars_and_pandas_at_every_moment(
    tmp_path: Path, moment: str
) -> None:
    path, rows = a_run(tmp_path, moment)
    for name in (path, str(path), path / "shards", tmp_path / "latest", str(tmp_path / "latest")):
        run = Catalog.of(name)
        steps = run.dataset()
        assert duckdb.sql("select count(*) from steps").fetchall() == [(rows,)]
        assert steps.count_rows() == rows == run.table().num_rows
        if importlib.util.find_spec("pandas"):  # ./xp setup worlds brings it
            assert len(run.table().to_pandas()) == rows
        assert len(pl.from_arrow(run.table(["t", "signal.done"]))) == rows
        assert sum(map(len, run.follow())) == rows
        assert sum(map(len, Catalog(name).follow())) == rows
    assert Catalog.of(path, imagined=True).dataset().count_rows() == 0


def blocks(name: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("README.md", {"rewards": 6, "turns": 1, "dataset": 1}),
        ("docs/exchange.md", {"by_world": 1, "done": 12, "table": 12, "blocks": 1}),
        ("docs/add-a-reward.md", {"steps": 12, "again": 12}),
    ],
)
def test_the_snippets_of_the_docs_give_rows_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, wanted: dict[str, int], moment: str
) -> None:
    (tmp_path / "runs").mkdir()
    _, rows = a_run(tmp_path / "runs", moment)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(blocks(page), found)
    for name, least in wanted.items():
        assert len(found[name]) >= least, name
    if "sealed" in found:
        assert found["sealed"] == {"before the first seal": 0, "all at once": 12}.get(moment, rows)


def test_what_is_no_run_is_said_with_what_to_name_instead(tmp_path: Path) -> None:
    path, _ = a_run(tmp_path, "sealed")
    (tmp_path / "empty").mkdir()
    for wrong, said in (
        (tmp_path / "missing", "runs there: .*one"),
        (path / "run.json", "is a file"),
        (path / "shards" / "w", "name the folder above"),
        (tmp_path, "runs there: .*one"),
        (tmp_path / "empty", "holds no experience"),
        ("s3://bucket/run", "RemoteDisk"),
        (path / "checkpoints", "holds no experience"),
    ):
        with pytest.raises(ShardError, match=said):
            Catalog.of(wrong)
    for wrong in (tmp_path / "missing", str(tmp_path / "missing")):
        with pytest.raises(ShardError, match="is not there"):
            Catalog(wrong)


def test_a_glob_over_the_store_finds_steps_alone(tmp_path: Path) -> None:
    path, rows = a_run(tmp_path, "after compaction")
    amend(path / "shards", [Amendment(b"s" * 16, t, "done", 1.0) for t in range(12)])
    assert duckdb.sql(f"select count(*) from '{path}/shards/**/*.parquet'").fetchall() == [(rows,)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_query_sees_amendments_and_rewards_given_again_and_what_was_written(
    tmp_path: Path, moment: str
) -> None:
    path, _ = a_run(tmp_path, moment)
    store, stream, liked = path / "shards", b"s" * 16, {"liked": SignalKind("1", "human")}
    amend(
        store,
        [
            Amendment(stream, 2, "done", 0.9, evidence="again"),
            Amendment(stream, 3, "liked", 1.0),
            Amendment(stream, 4, "done", None),
        ],
        new=liked,
    )
    sql = connect({"steps": store, "imagined": path / "imagined"}).execute
    assert sql(
        'select t, "signal.done", "signal.liked", signal(signals, \'done\') from steps where t '
        "in (1, 2, 3, 4) "
        "order by t"
    ).fetchall() == [
        (1, 0.5, None, 0.5),
        (2, 0.9, None, 0.9),
        (3, 0.5, 1.0, 0.5),
        (4, None, None, None),
    ]
    assert sql(
        'select "signal.done", reward, reward_version from raw_steps where t = 2'
    ).fetchall() == [(0.5, 0.5, "linear-1")]
    model = RewardModel({"envs:Reactor-v0": {"done": 10.0}})
    reward_again(store, model)
    sql = connect({"steps": store}).execute
    assert sql(
        "select t, reward, reward_version from steps where t in (1, 2, 4) order by t"
    ).fetchall() == [(1, 5.0, model.version), (2, 9.0, model.version), (4, None, model.version)]
    assert (
        sql("select count(*), count(distinct t) from steps").fetchall()[0]
        == sql("select count(*), count(distinct t) from raw_steps").fetchall()[0]
    )
