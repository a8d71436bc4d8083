"""The dispatcher leases work: once, to who asks, as far as learning has got."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.collecting.dispatcher import Dispatcher, Lease, Report
from actors.collecting.hosts.hosted_world import HostedWorld
from actors.collecting.hosts.messages import Arrived, Close, Reset, Wants
from actors.collecting.loop.collector import Collector
from actors.collecting.loop.leases import DirectLine
from actors.collecting.work import Done, Work
from actors.config.schema import load
from actors.pool.told import Told
from experience.errors import ConfigError
from experience.shards.catalog import Catalog
from tests.alone import SMALLEST_POLICY, Alone

WORLD = "envs:KeyDoor-v0"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def dispatcher(*settings: str, done: Done | None = None) -> tuple[Dispatcher, Clock]:
    config = load(
        [],
        [
            f"worlds=[{{id: '{WORLD}', groups: 1}}]",
            "collecting.group_size=4",
            "workers=2",
            *settings,
        ],
    )[0]
    clock = Clock()
    return Dispatcher(config, done or Done(), lease_seconds=10, clock=clock), clock


def works(*names: str, version: int = -1) -> list[Work]:
    return [
        Work.named(name, env_id=WORLD, seed=1, lane="evaluation", version=version) for name in names
    ]


def ids(lease: Lease) -> tuple[bytes, ...]:
    return tuple(work.work_id for work in lease.works)


def test_ordered_work_comes_before_training_and_each_work_is_leased_once() -> None:
    one, _ = dispatcher()
    one.publish(0, 1, "policy")
    one.order(works("a", "b"))
    one.order(works("b", "a"))
    first = one.renew(Report("c0", 3))
    second = one.renew(Report("c1", 9))
    assert [work.lane for work in first.works] == ["evaluation", "evaluation", "train"]
    assert len({*ids(first), *ids(second)}) == len(first.works) + len(second.works) == 6


def test_no_more_training_groups_are_begun_than_are_allowed_by_all_collectors_together() -> None:
    one, _ = dispatcher()
    one.publish(0, 3, "policy")
    leased = [one.renew(Report(name, 5)) for name in ("c0", "c1", "c2")]
    assert sum(len(lease.works) for lease in leased) == 12, "3 groups of 4"
    one.publish(1, 4, "newer")
    assert len(one.renew(Report("c3", 9)).works) == 4


def test_a_late_message_never_brings_back_an_older_policy_or_a_smaller_quota() -> None:
    one, _ = dispatcher()
    for version in (3, 1, 2, 0):
        one.publish(version, version, f"policy {version}")
    lease = one.renew(Report("c0", 20))
    assert (lease.version, lease.policy, len(lease.works)) == (3, "policy 3", 12)
    assert one.renew(Report("c0", 0, ids(lease), version=3)).policy is None, "it has it"


def test_work_that_is_not_renewed_goes_to_another_and_the_first_is_told() -> None:
    one, clock = dispatcher()
    one.order(works("a", "b"))
    first = one.renew(Report("c0", 2))
    clock.now = 9
    assert one.renew(Report("c1", 2)).works == ()
    clock.now = 11
    second = one.renew(Report("c1", 2))
    assert ids(second) == ids(first), "in the order in which it was leased"
    assert one.renew(Report("c0", 0, ids(first))).lost == set(ids(first))


def test_work_that_is_renewed_stays() -> None:
    one, clock = dispatcher()
    one.order(works("a"))
    first = one.renew(Report("c0", 1))
    for clock.now in range(0, 60, 5):
        assert not one.renew(Report("c0", 0, ids(first))).lost
    assert one.renew(Report("c1", 1)).works == ()


def test_a_lease_that_was_lost_on_the_way_is_leased_again() -> None:
    one, _ = dispatcher()
    one.order(works("a"))
    lost = one.renew(Report("c0", 1))
    assert ids(one.renew(Report("c0", 1))) == ids(lost), "the report names nothing that it holds"


def test_work_that_is_done_is_never_leased_again() -> None:
    one, clock = dispatcher()
    one.order(works("a"))
    lease = one.renew(Report("c0", 1))
    one.renew(Report("c0", 0, done=ids(lease)))
    one.order(works("a"))
    clock.now = 100
    assert one.renew(Report("c1", 5)).works == ()
    assert not one.may_go_on


def test_work_that_a_collector_gave_up_itself_may_be_ordered_again() -> None:
    one, _ = dispatcher()
    one.order(works("a"))
    lease = one.renew(Report("c0", 1))
    one.renew(Report("c0", 0, cancelled=ids(lease)))
    assert not one.may_go_on
    one.order(works("a"))
    assert len(one.renew(Report("c1", 1)).works) == 1


def test_what_an_earlier_attempt_finished_is_not_lived_again_and_its_group_numbers_stay_used() -> (
    None
):
    (before,) = works("a")
    done = Done({before.work_id}, next_group=5, whole_groups=3, training_steps=7)
    one, _ = dispatcher(done=done)
    one.order(works("a"))
    one.publish(0, 4, None)
    leased = one.renew(Report("c0", 99)).works
    assert {work.group_id for work in leased} == {"0-5"}, "3 of 4 groups are whole already"


def test_the_limit_of_steps_is_shared_by_all_and_never_passed() -> None:
    one, _ = dispatcher("budget.steps=100")
    one.publish(0, 50, None)
    allowed = [one.renew(Report(name, 4)).steps for name in ("c0", "c1", "c2")]
    assert allowed == [64, 36, 0]
    last = one.renew(Report("c2", 4))
    assert last.is_last_step and not last.works


def test_an_evaluations_policy_comes_with_its_work_and_only_with_it() -> None:
    one, _ = dispatcher()
    one.order(works("a", version=3), 3, "pinned 3")
    one.order(works("b", version=4), 4, "pinned 4")
    first = one.renew(Report("c0", 1))
    assert first.pins == {3: "pinned 3"}
    assert one.renew(Report("c1", 1)).pins == {4: "pinned 4"}


def test_a_policy_that_no_work_is_pinned_to_is_not_kept() -> None:
    one, _ = dispatcher()
    one.order(works("a", version=3), 3, "pinned 3")
    one.order(works("b", version=4), 4, "pinned 4")
    lease = one.renew(Report("c0", 2))
    assert lease.pins.keys() == {3, 4}
    one.renew(Report("c0", 0, ids(lease)[1:], done=ids(lease)[:1]))
    one.order(works("c", version=5), 5, "pinned 5")
    assert one._policies._pins.keys() == {4, 5}


def test_a_task_that_ends_three_processes_is_leased_as_quarantined_and_said() -> None:
    one, _ = dispatcher()
    for number in range(3):
        one.order(works(f"a{number}"))
        lease = one.renew(Report("c0", 1))
        assert not lease.works[0].is_quarantined
        one.renew(Report("c0", 0, done=ids(lease), ended=((WORLD, 1),)))
    one.order(works("again"))
    assert one.renew(Report("c0", 1)).works[0].is_quarantined
    assert one.quarantined == [(WORLD, 1)]


def test_what_is_dropped_is_not_leased_and_who_lives_it_is_told() -> None:
    one, _ = dispatcher()
    one.order(works("a", "b"))
    lease = one.renew(Report("c0", 1))
    one.drop()
    assert one.renew(Report("c0", 5, ids(lease))).lost == set(ids(lease))
    assert not one.may_go_on


def test_nothing_new_is_begun_once_it_holds_back_and_a_begun_group_is_ended() -> None:
    one, _ = dispatcher()
    one.publish(0, 5, None)
    assert len(one.renew(Report("c0", 2)).works) == 2
    one.hold_back()
    assert len(one.renew(Report("c1", 9)).works) == 2, "the rest of the first group"


def test_a_lease_names_the_reward_in_force_and_a_collector_of_another_one_stops(
    tmp_path: Path,
) -> None:
    config = load([], [f"worlds=[{{id: '{WORLD}', groups: 1}}]", *SMALLEST_POLICY])[0]
    one = Alone(config, tmp_path)
    own = one.leases._recorder.reward_version
    other = Dispatcher(config, Done(), rewards="another")
    assert other.renew(Report("c", 1)).rewards == "another"
    one.leases._line = DirectLine(Dispatcher(config, Done(), rewards=own))
    one.pump(0)
    one.leases._line = DirectLine(other)
    one.leases.hear()
    with pytest.raises(ConfigError, match="the run's is another"):
        one.pump(0)


def test_work_that_a_killed_collector_finished_unheard_is_not_lived_again(tmp_path: Path) -> None:
    config = load(
        [], [f"worlds=[{{id: '{WORLD}', groups: 1}}]", *SMALLEST_POLICY, "collecting.slots=1"]
    )[0]
    ordered = [
        Work.named(f"{n}", env_id=WORLD, seed=n, lane="random", split="heldout") for n in range(3)
    ]
    shared, clock = dispatcher()
    shared.order(ordered)
    held = shared.renew(Report("collector-0000/1", 3))
    first = Alone(config, tmp_path)
    first.order(ordered)
    while first.closed < 3:
        first.pump()
    first.journal.commit()  # it dies now: the rows are there, and `shared` has not heard of them
    again = Collector(config, "r", tmp_path, 0, DirectLine(shared))
    again.pump(0)
    clock.now = 60
    assert shared.renew(Report("c9", 9)).works == () and len(held.works) == 3
    again.close()


def test_a_dispatcher_that_starts_again_is_told_what_still_holds() -> None:
    first, _ = dispatcher()
    told = Told(first)
    told.publish(3, 8, "policy")
    told.order(works("a"), -1, None)
    told.drop()
    told.order(works("b"), -1, None)
    told.hold_back()
    second, _ = dispatcher()
    told._teller = second
    told.again()
    lease = second.renew(Report("c", 9))
    assert ids(lease) == tuple(work.work_id for work in works("b")), "and no training"
    assert (lease.version, lease.policy) == (3, "policy")
    told.publish(3, 9, "policy")
    assert len(second.renew(Report("c", 9, ids(lease))).works) > 0, "more than ever is allowed"


def test_deadlines_of_calls_that_are_over_do_not_pile_up(tmp_path: Path) -> None:
    config = load(
        [], [f"worlds=[{{id: '{WORLD}', groups: 1}}]", *SMALLEST_POLICY, "collecting.slots=4"]
    )[0]
    one = Alone(config, tmp_path)
    one.order(
        [
            Work.named(f"{n}", env_id=WORLD, seed=n, lane="random", split="heldout")
            for n in range(60)
        ]
    )
    while not one.is_done:
        one.pump()
    taken = len([row for block in Catalog(tmp_path).follow() for row in block])
    kept = len(one._loop._inbox._hosting._deadlines)
    one.close()
    assert taken > 300 and kept <= 2 * 4 + 64


def test_a_worlds_card_is_sent_once_by_each_host() -> None:
    hosted = HostedWorld(WORLD, {})
    replies = [hosted.reply(Reset(seed, "train", Wants())) for seed in (1, 2)]
    cards = [reply.card for reply in replies if isinstance(reply, Arrived)]
    assert cards[0] is not None and cards[1] is None
    hosted.reply(Close())
