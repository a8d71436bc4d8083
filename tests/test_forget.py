"""Deleting: what a user wants gone is gone, with all that hangs on it, and the rest is as it was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.collecting.work import Work
from actors.commands.forgetting import forget_rows, forget_run
from actors.config.schema import load
from actors.pool.local import LocalPool
from actors.runs.directory import RunDirectory
from experience.errors import ConfigError, ShardError
from experience.models.table import Table
from experience.models.weights import PolicyBundle
from experience.shards.amend import Amendment, amend, amendments, follow_amended
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.cold.compaction import compact
from experience.shards.cold.snapshot import read_snapshot
from experience.shards.forget import drop_orphans, forget, look
from experience.shards.journal import Journal
from experience.shards.sampling.windows import WindowReader
from experience.shards.storage.blobs import BlobReader
from experience.shards.verify import verify
from experience.step import Boundary, Step
from tests.conftest import CATALOGUE, make_step
from tests.crash.simulated_disk import Fault, SimulatedDisk, power_cuts
from tests.golden.make import plain

ANN, BOB = b"a" * 16, b"b" * 16
SECRETS = ("ann has a cold", "ann's picture", "ann's evidence", "ann might sneeze")


def a_run(run: Path, *, close: bool = True, interleaved: bool = False) -> list[Step]:
    """A stream about ann and one about bob, or one that tells of both by turns, with pictures,
    amendments and imagined branches."""
    journal, steps = (
        Journal(
            run / "shards" / "w", CATALOGUE, batch_rows=4, seal_bytes=9_000 if close else 1 << 28
        ),
        [],
    )
    for t in range(24):
        for stream in (ANN, BOB):
            about_ann = (t // 4) % 2 == 0 if interleaved else stream == ANN
            text = f"ann has a cold {t}" if about_ann else f"bob is well {t}"
            picture = journal.blobs.put(
                f"{'ann' if about_ann else 'bob'}'s picture {t // 2}".encode(), "image/png"
            )
            shared = journal.blobs.put(b"a picture of the room", "image/png")
            step = make_step(
                t,
                stream,
                obs_text=text,
                closing=t % 4 == 3,
                obs_blobs=(picture, shared),
                boundary=Boundary.RESET if t % 4 == 0 else Boundary.NONE,
                t_end_ns=t + 1,
                ending="terminated" if t % 4 > 1 else "none",
                subject="ann" if about_ann else "bob",
            )
            steps.append(step)
            journal.append(step)
    journal.commit()
    if close:
        journal.close()
    dreams = Journal(run / "imagined" / "w", CATALOGUE)
    for i, stream in enumerate((ANN, BOB)):
        name = "ann" if stream == ANN else "bob"
        for t in range(3):
            dreams.append(
                make_step(
                    t,
                    bytes([i]) * 16,
                    obs_text=f"{name} might sneeze {t}",
                    source="imagined",
                    parent=(stream, 1),
                    model_version=1,
                    closing=t == 2,
                )
            )
        dreams.append(
            make_step(
                0,
                bytes([i + 10]) * 16,
                obs_text=f"{name} might sneeze in a dream",
                source="imagined",
                parent=(bytes([i]) * 16, 1),
                model_version=1,
            )
        )
    dreams.close()
    for stream, name in ((ANN, "ann"), (BOB, "bob")):
        amend(run / "shards", [Amendment(stream, 1, "done", 1.0, evidence=f"{name}'s evidence")])
    amend(
        run / "shards",
        [Amendment(stream, 2, "done", 0.0, evidence="both") for stream in (ANN, BOB)],
    )
    return steps


def read(store: Path) -> dict[tuple[bytes, int], object]:
    return {(s.stream_id, s.t): plain(s) for block in Catalog(store).follow() for s in block}


def grep(folder: Path, *words: str) -> list[str]:
    """Files below `folder` that hold a word, as bytes, compressed or not (Parquet is read)."""
    import pyarrow.parquet as parquet

    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if data[:4] == b"PAR1":
                data += str(parquet.read_table(path).to_pylist()).encode()
            found += [f"{path}: {word}" for word in words if word.encode() in data]
    return found


@pytest.mark.parametrize("cold", ["hot", "cold", "both"])
@pytest.mark.parametrize("by", ["stream", "subject"])
def test_nothing_of_a_stream_or_a_subject_stays_on_disk_and_the_rest_is_as_it_was(
    tmp_path: Path, by: str, cold: str
) -> None:
    a_run(tmp_path)
    if cold != "hot":
        compact(tmp_path / "shards")
    if cold == "both":
        journal = Journal(tmp_path / "shards" / "w", CATALOGUE)
        journal.append(make_step(24, ANN, obs_text="ann has a cold again", subject="ann"))
        journal.close()
    assert len(grep(tmp_path, *SECRETS)) >= 4
    before, dreamt = read(tmp_path / "shards"), read(tmp_path / "imagined")
    what: dict[str, object] = dict(streams=[ANN]) if by == "stream" else dict(subject="ann")
    rows = 25 if cold == "both" else 24
    planned = look(tmp_path, **what)  # type: ignore[arg-type]
    assert (planned.rows, planned.amendments, planned.blobs) == (
        {"shards": rows, "imagined": 4},
        2,
        12,
    )
    assert read(tmp_path / "shards") == before, "to look changes nothing"
    assert forget(tmp_path, **what).rows == planned.rows  # type: ignore[arg-type]
    assert grep(tmp_path, *SECRETS) == []
    assert read(tmp_path / "shards") == {k: v for k, v in before.items() if k[0] == BOB}
    assert read(tmp_path / "imagined") == {
        k: v for k, v in dreamt.items() if k[0] in (b"\1" * 16, b"\x0b" * 16)
    }
    assert amendments(tmp_path / "shards").num_rows == 2
    for store in ("shards", "imagined"):
        assert not verify(tmp_path / store, deep=True).problems
    reader = BlobReader(tmp_path / "shards")
    assert all(reader.read(b.hash) for s in follow_steps(tmp_path / "shards") for b in s.obs_blobs)
    check_acknowledged(tmp_path / "shards", {ANN: rows - 1, BOB: 23})
    with pytest.raises(ShardError, match="no such row"):
        forget(tmp_path, **what)  # type: ignore[arg-type]


def follow_steps(store: Path) -> list[Step]:
    return [s for block in follow_amended(store) for s in block]


def test_rows_in_the_midst_of_a_stream_go_and_later_prompts_read_whole(tmp_path: Path) -> None:
    """Every prompt continues the one before, so that rows are told as what is new since rows that
    go."""
    context, steps = np.arange(3, dtype=np.int32), []
    journal = Journal(tmp_path / "shards" / "w", CATALOGUE, batch_rows=64)
    for t in range(30):
        step = make_step(
            t,
            ANN,
            subject="ann" if 10 <= t < 20 else "bob",
            closing=t % 10 == 9,
            obs_text=f"turn {t}",
        )
        if step.decision:
            step = replace(step, decision=replace(step.decision, prompt_ids=context))
            context = np.concatenate([context, step.decision.action_ids, np.array([t], np.int32)])  # type: ignore[union-attr]
        steps.append(step)
        journal.append(step)
    journal.close()
    forget(tmp_path, subject="ann")
    found = read(tmp_path / "shards")
    assert found == {(s.stream_id, s.t): plain(s) for s in steps if s.subject == "bob"}
    assert not verify(tmp_path / "shards", deep=True).problems
    assert read_snapshot(tmp_path / "shards").removed_spans == {ANN: [(10, 19)]}
    journal = Journal(tmp_path / "shards" / "w", CATALOGUE)
    assert journal.next_t(ANN) == 30
    journal.append(make_step(30, ANN))
    journal.close()
    forget(tmp_path, streams=[ANN])
    assert read(tmp_path / "shards") == {}
    journal = Journal(tmp_path / "shards" / "w", CATALOGUE)
    assert journal.next_t(ANN) == 31, "a stream that is gone whole is not begun again"
    journal.append(make_step(31, ANN))
    journal.close()
    assert not verify(tmp_path / "shards", deep=True).problems


def test_no_window_spans_rows_that_were_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "shards" / "w", CATALOGUE)
    for t in range(30):
        journal.append(make_step(t, ANN, subject="ann" if 10 <= t < 20 else "bob"))
    journal.close()
    forget(tmp_path, subject="ann")
    windows = WindowReader(tmp_path / "shards", ("t",))
    assert windows.refresh() == 20
    drawn = windows.gather(windows.draw(400, 5)).numbers["t"]
    assert (np.diff(drawn, axis=1) == 1).all() and set(drawn[:, 0]) == {
        0,
        1,
        2,
        3,
        4,
        5,
        20,
        21,
        22,
        23,
        24,
        25,
    }


def test_compaction_by_age_lets_a_whole_stream_go_and_what_hangs_on_it(tmp_path: Path) -> None:
    a_run(tmp_path)
    done = compact(tmp_path / "shards", expire_before_ns=time.time_ns(), grace_seconds=0)
    assert done.rows_removed == 48
    assert read(tmp_path / "shards") == {} and amendments(tmp_path / "shards").num_rows == 0
    assert grep(tmp_path / "shards", "ann has", "ann's", "bob") == []
    assert not verify(tmp_path / "shards", deep=True).problems
    journal = Journal(tmp_path / "shards" / "w", CATALOGUE)
    assert journal.next_t(ANN) == 24
    journal.close()


def test_imagined_rows_that_hang_on_rows_gone_by_age_go_too(tmp_path: Path) -> None:
    a_run(tmp_path)
    compact(tmp_path / "shards", expire_before_ns=3, grace_seconds=0)  # t = 0 and 1 of both streams
    assert drop_orphans(tmp_path) == 8 and read(tmp_path / "imagined") == {}
    assert drop_orphans(tmp_path) == 0
    assert (
        not grep(tmp_path, "might sneeze") and not verify(tmp_path / "imagined", deep=True).problems
    )


def test_rows_that_go_by_age_in_several_parts_go_in_one_pass(tmp_path: Path) -> None:
    for _ in range(3):
        journal = Journal(tmp_path / "w", CATALOGUE)
        for _ in range(5):
            t = journal.next_t(ANN)
            journal.append(make_step(t, ANN, t_end_ns=t))
        journal.close()
        compact(tmp_path)
    assert compact(tmp_path, expire_before_ns=12).rows_removed == 12
    assert [t for _, t in read(tmp_path)] == [12, 13, 14]


def test_a_run_that_is_being_written_is_left_alone_and_a_killed_one_can_be_sealed(
    tmp_path: Path,
) -> None:
    a_run(tmp_path, close=False)
    with pytest.raises(ShardError, match="still being written"):
        forget(tmp_path, subject="ann")
    assert grep(tmp_path, "ann has a cold")
    forget(tmp_path, subject="ann", seal=True)
    assert not grep(tmp_path, *SECRETS) and not verify(tmp_path / "shards", deep=True).problems


def test_old_snapshots_and_the_parts_that_only_they_name_go_after_their_time(
    tmp_path: Path,
) -> None:
    a_run(tmp_path)
    store = tmp_path / "shards"
    compact(store)
    before = {p.name for p in (store / "cold").iterdir()}
    assert compact(store, expire_before_ns=10).files_waiting == 2
    assert before < {p.name for p in (store / "cold").iterdir()}, "a reader may have opened them"
    assert not verify(store, deep=True).problems
    compact(store, grace_seconds=0)
    assert (
        len(list((store / "cold").iterdir())) == 1
        and len(list((store / "snapshots").glob("*.json"))) == 1
    )
    assert not verify(store, deep=True).problems


STORE = Path("/store")


def on_disk(disk: SimulatedDisk) -> None:
    """Eighteen rows, hot and cold, half of them amended."""
    for _ in range(2):
        journal = Journal(
            STORE / "w", CATALOGUE, batch_rows=3, seal_bytes=9_000, low_water_bytes=0, disk=disk
        )
        for _ in range(9):
            t = journal.next_t(ANN)
            journal.append(
                make_step(t, ANN, obs_blobs=(journal.blobs.put(b"picture %d" % t, "image/png"),))
            )
        journal.close()
        if disk.names(STORE / "w") and not disk.exists(STORE / "snapshots"):
            compact(STORE, disk=disk)
    amend(STORE, [Amendment(ANN, t, "done", 1.0) for t in range(0, 18, 2)], disk)


def some(table: Any, _: object) -> np.ndarray:
    return np.isin(table.column("t").to_numpy(), range(5, 12))


def is_whole_or_without(disk: SimulatedDisk) -> None:
    """What a crash left reads as all of the rows or as those that stay; the same call again ends
    it, for good."""
    Journal(STORE / "w", CATALOGUE, low_water_bytes=0, disk=disk).close()
    rows = sorted(s.t for block in Catalog(STORE, disk=disk).follow() for s in block)
    stay = [t for t in range(18) if not 5 <= t < 12]
    assert rows in (list(range(18)), stay)
    compact(STORE, removes=some, grace_seconds=0, disk=disk)
    assert sorted(s.t for block in Catalog(STORE, disk=disk).follow() for s in block) == stay
    assert amendments(STORE, disk)["t"].to_pylist() == [t for t in stay if t % 2 == 0]
    found = verify(STORE, deep=True, disk=disk)
    assert not found.problems and found.blobs == 11
    assert len(disk.names(STORE / "cold")) == len(read_snapshot(STORE, disk).parts)
    pictures = b"".join(disk.files()[p] for p in disk.files() if p.suffix == ".blobs")
    assert all((b"picture %d" % t in pictures) == (t in stay) for t in range(5, 18))


def test_whichever_call_of_a_deletion_fails_it_can_be_done_again(
    request: pytest.FixtureRequest,
) -> None:
    before = SimulatedDisk()
    on_disk(before)
    at = 0
    while True:
        at += 1 if request.config.getoption("--long") else 14
        disk = SimulatedDisk(before.files())
        disk.fault = fault = Fault(at, 5)
        with contextlib.suppress(OSError, ShardError):
            compact(STORE, removes=some, grace_seconds=0, disk=disk)
        disk.fault = None
        if not fault.fired:
            break
        is_whole_or_without(SimulatedDisk(disk.files()))
    assert at > 60


def test_a_power_cut_in_a_deletion_leaves_all_of_the_rows_or_those_that_stay(
    request: pytest.FixtureRequest,
) -> None:
    before, rng = SimulatedDisk(), random.Random(0)
    on_disk(before)
    disk = SimulatedDisk(before.files())
    compact(STORE, removes=some, grace_seconds=0, disk=disk)
    images = list(power_cuts(disk, 20 if request.config.getoption("--long") else 1, rng))
    for _, image in images if request.config.getoption("--long") else images[::4]:
        is_whole_or_without(SimulatedDisk(image))


class Ward(gymnasium.Env[str, str]):
    """A world that says at reset whom an episode is about."""

    observation_space, action_space = gymnasium.spaces.Text(100), gymnasium.spaces.Text(100)
    actions = ("wait",)

    def random_action(self, rng: np.random.Generator) -> str:
        return "wait"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "a patient", {"subject": f"patient {(seed or 0) % 2}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "better", 1.0, True, False, {}


def test_the_subject_that_a_world_names_at_reset_is_on_every_row_of_the_episode(
    tmp_path: Path,
) -> None:
    gymnasium.register(id="Ward-v0", entry_point=Ward, disable_env_checker=True)
    config, _ = load([], ["worlds=[{id: Ward-v0}]", "policy.engine=table", "collecting.slots=2"])
    (tmp_path / "shards").mkdir()
    pool = LocalPool(config, "test", tmp_path / "shards", Catalog(tmp_path / "shards"))
    works = [
        Work.named(f"w/{i}", env_id="Ward-v0", seed=i, lane="random", split="train", version=0)
        for i in range(6)
    ]
    pool.order(works, PolicyBundle(Table.weights(("wait",), {}, 0)))
    rows: list[Step] = []
    for shard in pool.shards(lambda: sum(s.is_closing for s in rows) >= 6):
        rows.extend(shard)
    pool.close()
    assert len(rows) >= 12 and all(s.subject == f"patient {s.seed % 2}" for s in rows)
    gone = forget(tmp_path, subject="patient 1")
    assert {s.subject for block in Catalog(tmp_path / "shards").follow() for s in block} == {
        "patient 0"
    }
    assert gone.rows["shards"] == sum(s.subject == "patient 1" for s in rows)
    assert not verify(tmp_path / "shards", deep=True).problems


def xp(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actors", "forget", *words], capture_output=True, text=True
    )


def test_the_command_says_what_would_go_and_deletes_only_when_told(tmp_path: Path) -> None:
    run, other = tmp_path / "one", tmp_path / "two"
    for path in (other, run):
        a_run(path)
        for folder in ("checkpoints", "metrics"):
            (path / folder).mkdir()
        RunDirectory(path).write_record(status="succeeded")
        (path / "report.html").write_text("ann has a cold 3")
    (tmp_path / "latest").symlink_to("one")
    said = xp(str(run), "--subject", "ann", "--json")
    assert said.returncode == 0 and json.loads(said.stdout)["rows"] == {"shards": 24, "imagined": 4}
    assert "--yes" in said.stderr and grep(run, *SECRETS)
    assert xp(str(run), "--subject", "ann", "--yes").returncode == 0
    assert not grep(run, *SECRETS)
    with pytest.raises(ConfigError, match="32 hexadecimal digits"):
        forget_rows(RunDirectory(run), ["xyz"], None, False, False)
    assert forget_run(RunDirectory(run), False, False)["files"] > 5 and run.exists()
    assert xp(str(run), "--yes").returncode == 0
    assert not run.exists() and os.readlink(tmp_path / "latest") == "two"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
