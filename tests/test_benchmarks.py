"""What the benchmarks compute themselves: worlds, controls, rows, tables and figures of the code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.house import measure as measure_files
from benchmarks.planning import worlds
from benchmarks.planning.bench import PARTS, main, with_results
from benchmarks.planning.record import Row, row
from benchmarks.planning.science import problem, until_found
from benchmarks.store import append, rows, scan, timing, windows
from benchmarks.store.bench import compare
from benchmarks.store.blocks import as_lived, check_seconds
from benchmarks.worlds.browser import medians
from benchmarks.worlds.table import line, with_row
from benchmarks.worlds.table import rows as world_rows
from experience.errors import ConfigError
from experience.planning.campaign import Campaign
from experience.shards.catalog import Catalog


def test_the_figures_of_a_file_are_those_counted_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "counted.py"
    file.write_text(
        '"""A docstring is no code."""\n'
        "\n"
        "# a comment\n"
        "class Two:\n"
        "    x = 1 if True else 2  # another\n"
        f"y = [i for i in ()]{' ' * 100}\n"
    )
    found = measure_files([file])
    assert (found.files, found.longest_file, found.longest_class) == (1, 6, 2)
    assert (found.code_lines, found.comment_lines, found.wide_lines) == (3, 2, 1)
    assert (found.conditionals, found.comprehensions) == (1, 1)
    # Module, class, two assignments, two targets, the conditional and its three parts, the
    # comprehension, its element, its clause with a target and an empty tuple.
    assert found.nodes == 15
    assert found.nodes_a_line == 5


def test_walls_and_edges_stop_a_move() -> None:
    assert worlds.moved((0, 0), "up", 6, 9, []) == (0, 0)
    assert worlds.moved((0, 0), "right", 6, 9, [(0, 1)]) == (0, 0)
    assert worlds.moved((0, 0), "right", 6, 9, []) == (0, 1)
    assert len(worlds.CELLS) == 104


def test_a_mazes_walls_change_once_in_a_life_and_not_in_an_episode() -> None:
    maze = worlds.Maze("blocking")
    maze.reset(seed=0)
    for _ in range(1000):
        maze.step("down")
    maze.at = (2, 0)
    assert maze.step("down")[0].endswith("at 3 0"), "the new walls are open on the left"
    maze.reset(seed=1)
    maze.at = (2, 8)
    assert maze.step("down")[0].endswith("at 2 8"), "a reset does not bring the old walls back"


def test_every_maze_shows_a_life_of_its_own() -> None:
    first, _ = worlds.Maze().reset(seed=0)
    second, _ = worlds.Maze().reset(seed=0)
    assert first != second


@pytest.mark.parametrize("correlation", [0.0, 0.58, 1.0])
def test_the_simulator_is_correlated_with_the_truth_as_asked(correlation: float) -> None:
    _, truth, simulated = problem(3, correlation)
    assert abs(float(np.corrcoef(truth, simulated)[0, 1]) - correlation) < 1e-6


def test_measurements_are_counted_until_one_is_among_the_best() -> None:
    x, truth, _ = problem(0, 0.5)
    order = np.arange(len(x))
    rng = np.random.default_rng(0)
    assert until_found(Campaign(x, None), order, truth, {4}, 0.0, 81, rng) == 5.0
    assert until_found(Campaign(x, None), order, truth, {500}, 0.0, 7, rng) == 7.0


@pytest.mark.parametrize(
    ("goal", "met"),
    [("", True), (">= 2", True), (">= 2.1", False), ("<= 2", True), ("<= 1", False)],
)
def test_a_goal_is_a_bound_on_our_figure(goal: str, met: bool) -> None:
    assert row("a", "b", "share", [2.0, 2.0], goal).goal_met is met


def test_a_kept_row_is_read_as_it_was_written() -> None:
    written = row("a", "b", "share", [1.0, 2.0, 3.0, 4.0, 5.0], ">= 2", {"control": 0.5}, "note")
    kept = json.loads(json.dumps(written.record()))
    again = Row.read(kept)
    assert again.record() == written.record()
    assert again.values == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_a_page_keeps_all_but_what_stands_between_its_marks() -> None:
    page = "head\n<!-- results -->\nold\n<!-- end -->\ntail\n"
    once = with_results(page, "new\n")
    assert once == "head\n<!-- results -->\nnew\n<!-- end -->\ntail\n"
    assert with_results(once, "new\n") == once


def test_an_unknown_part_is_an_error_that_names_the_parts() -> None:
    with pytest.raises(ConfigError, match="no part 'nosuch'") as found:
        main("nosuch", as_json=False, write=False)
    assert "hierarchy" in str(found.value)
    for module, *functions in PARTS.values():
        text = (Path(main.__code__.co_filename).parent / f"{module}.py").read_text()
        for function in functions:
            assert f"def {function}(" in text, (module, function)


def test_a_ratio_compares_the_rounds_and_not_their_medians() -> None:
    results = {"ours": [1.0, 10.0, 4.0], "peer": [2.0, 5.0, 1.0], "limit": [100.0, 100.0, 50.0]}
    (found,) = compare("W", "rows/s", results, "ours", "limit", {"peer": 3.0}, {"ours": "sync"})
    assert found.ratio == 2.0
    assert found.interval == (0.5, 4.0)
    assert (found.limit, found.goal_met, found.durability) == (100.0, False, "sync")


def test_a_first_round_is_not_counted() -> None:
    called: list[int] = []

    def measure() -> float:
        called.append(1)
        return float(len(called))

    assert timing.rounds({"one": measure}, 2) == {"one": [2.0, 3.0]}


def test_the_same_rows_are_made_every_time_and_committed_by_the_hundred() -> None:
    made = rows.make_rows(250)
    again = rows.make_rows(250)
    assert [r["obs_text"] for r in made] == [r["obs_text"] for r in again]
    assert [len(part) for part in rows.commits(made)] == [100, 100, 50]
    by_stream = rows.by_stream(made)
    assert [(r["stream"], r["t"]) for r in by_stream[:4]] == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_our_writer_and_the_peers_keep_the_same_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    made = append.with_steps(rows.make_rows(200))
    for name in ("ours", "parquet", "sqlite", "raw"):
        (tmp_path / name).mkdir()
    append.ours_append_os(made, tmp_path / "ours")
    append.parquet_append(made, tmp_path / "parquet")
    append.sqlite_append(made, tmp_path / "sqlite")
    append.raw_append(made, tmp_path / "raw", sync=False)
    steps = [step for block in Catalog(tmp_path / "ours").follow() for step in block]
    table = parquet.read_table(tmp_path / "parquet/rows.parquet")
    assert [s.obs_text for s in steps] == [r["obs_text"] for r in made]
    assert table["obs_text"].to_pylist() == [r["obs_text"] for r in made]
    bytes_of_all = sum(len(r["obs_text"]) + 8 * len(r["action_ids"]) for r in made)
    assert (tmp_path / "raw/raw").stat().st_size == bytes_of_all


def test_the_scans_find_the_same_rows_and_a_batch_of_windows_is_whole(tmp_path: Path) -> None:
    made = append.with_steps(rows.make_rows(64 * 20))
    paid = sum(r["reward"] > 0 for r in made)
    for name in ("ours", "parquet", "windows", "limit"):
        (tmp_path / name).mkdir()
    assert paid > 0
    assert scan.ours_filter(made, tmp_path / "ours")() == paid
    assert scan.parquet_filter(made, tmp_path / "parquet")() == paid
    rng = np.random.default_rng(0)
    draw = windows.ours_windows(made, tmp_path / "windows")
    least = rows.BATCH * rows.WINDOW
    assert draw(rng) > 2 * least
    draw.journal.close()  # type: ignore[attr-defined]
    assert windows.memcpy_windows(made, tmp_path / "limit")(rng) > least


def test_sealing_is_measured_on_rows_that_stay_the_same(tmp_path: Path) -> None:
    steps = [r["step"] for r in append.with_steps(rows.make_rows(100))]
    write, seal = as_lived(steps, tmp_path, append.CATALOGUE, 0.05, 1024)
    assert write > 0 and seal > 0
    kept = [step for block in Catalog(tmp_path).follow() for step in block]
    assert [s.obs_text for s in kept] == [s.obs_text for s in steps]
    assert check_seconds(0.001, files=2) > 0


def test_medians_are_taken_of_each_figure() -> None:
    rounds = [{"a": 1.0, "b": 9.0}, {"a": 5.0, "b": 7.0}, {"a": 3.0, "b": 8.0}]
    assert medians(rounds) == {"a": 3.0, "b": 8.0}


def test_a_world_without_an_oracle_or_a_part_is_a_row_that_says_so() -> None:
    measured = {
        "id": "envs:My-v0",
        "step_p50_ms": 0.5,
        "step_p99_ms": 1.25,
        "resets_per_second": 0.25,
        "cpu_ms_per_step": 2.0,
        "memory_mib": 100.4,
        "goes_back": True,
        "random": 0.1,
        "random_error": 0.02,
        "nothing": 0.0,
        "nothing_error": 0.0,
        "oracle": None,
        "oracle_error": None,
    }
    assert line(measured) == (
        "| My-v0 | 0.50 / 1.2 | 0.2 | 2.00 | 100 | yes | 0.10 ± 0.02 | 0.00 ± 0.00 | — |"
    )
    assert line({"id": "envs:No-v0", "missing": "a|b"}).startswith("| envs:No-v0 | a/b |")


def test_one_worlds_row_takes_the_place_of_its_old_one_or_stands_at_the_end() -> None:
    table = ["| A-v0 | 1 |", "| B-v0 | 2 |"]
    assert with_row(table, "| A-v0 | 3 |") == ["| A-v0 | 3 |", "| B-v0 | 2 |"]
    assert with_row(table, "| C-v0 | 3 |") == [*table, "| C-v0 | 3 |"]


def test_a_world_that_is_not_in_the_table_is_not_measured() -> None:
    with pytest.raises(ConfigError, match="no world 'Nowhere-v0'"):
        next(world_rows("Nowhere-v0"))
