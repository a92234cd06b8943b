"""When dumps happen, in which order, and what an interrupted or failed one does."""

from __future__ import annotations

import errno

import pytest
from netlink_fakes import DEFAULT_RULES, FakeRib, FakeStream, link_message, neighbour_message

from ixroute.netlink import messages, sockets
from ixroute.netlink.contract import Port
from ixroute.netlink.dumps import Dumper
from ixroute.netlink.follow import Follower
from ixroute.netlink.paths import PathIndex
from ixroute.netlink.resync import ResyncPlan, Scope
from ixroute.netlink.sockets import Message
from ixroute.netlink.sysctls import InterfaceSysctls


def test_nothing_wanted_waits_for_nothing() -> None:
    assert ResyncPlan().wait(5.0) is None


def test_the_first_dump_after_quiet_starts_at_once() -> None:
    plan = ResyncPlan()
    plan.want(Scope.ROUTES4, "address")
    assert plan.wait(100.0) == 0.0


def test_wants_become_one_dump_with_all_their_reasons() -> None:
    plan = ResyncPlan()
    plan.want(Scope.ROUTES4, "address")
    plan.want(Scope.NEIGHBOURS, "overrun")
    plan.want(Scope.ROUTES4, "address")
    scope, reasons = plan.begin(0.0)
    plan.done(0.01, reasons)
    assert scope == Scope.ROUTES4 | Scope.NEIGHBOURS
    assert plan.counts == {"address": 1, "overrun": 1}
    assert plan.wait(0.01) is None


@pytest.mark.parametrize(("took", "pause"), [(0.0, 0.2), (0.05, 0.2), (0.4, 0.8), (30.0, 2.0)])
def test_the_pause_after_a_dump_grows_with_it_up_to_two_seconds(took: float, pause: float) -> None:
    plan = ResyncPlan()
    plan.want(Scope.ALL, "link")
    plan.begin(10.0)
    plan.done(10.0 + took, ("link",))
    plan.want(Scope.ALL, "link")
    assert plan.wait(10.0 + took) == pytest.approx(pause)
    assert plan.wait(10.0 + took + pause) == 0.0


def test_a_storm_of_events_costs_a_bounded_number_of_dumps_and_ends_with_one() -> None:
    plan, dumps, last_event = ResyncPlan(), [], 0.0
    for millisecond in range(10_000):
        now = millisecond / 1000
        if millisecond < 9_000:
            plan.want(Scope.ROUTES, "link")
            last_event = now
        if plan.wait(now) == 0.0:
            plan.begin(now)
            plan.done(now + 0.02, ("link",))
            dumps.append(now)
    assert len(dumps) <= 9_000 / 200 + 2
    assert last_event <= dumps[-1] <= last_event + 0.25


def test_a_failed_dump_is_wanted_again_after_ever_longer_pauses() -> None:
    plan, now, pauses = ResyncPlan(), 0.0, []
    plan.want(Scope.ROUTES6, "nexthop")
    for _ in range(6):
        scope, reasons = plan.begin(now)
        assert (scope, reasons) == (Scope.ROUTES6, ("nexthop",))
        plan.failed(now, reasons)
        pauses.append(plan.wait(now) or 0.0)
        now += pauses[-1]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    assert plan.failures == 6
    plan.begin(now)
    plan.done(now, ("nexthop",))
    assert plan.counts["nexthop"] == 1


class Kernel:
    """Answers dumps, and remembers which were asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.answers: dict[int, list[Message]] = {
            messages.RTM_GETRULE: DEFAULT_RULES,
            messages.RTM_GETLINK: [link_message(10, "lan")],
            messages.RTM_GETNEIGH: [neighbour_message(10, "10.0.0.1")],
        }

    def dump(self, kind: int, body: bytes) -> list[Message]:
        self.asked.append(kind)
        return self.answers.get(kind, [])


class Rig:
    def __init__(self) -> None:
        self.rib, self.stream, self.plan, self.kernel = FakeRib(), FakeStream(), ResyncPlan(), Kernel()
        self.follower = Follower(
            self.rib, [Port(3, "lan")], PathIndex(), self.plan, lambda name: InterfaceSysctls()
        )
        self.events: list[int] = []  # datagrams that each drain finds
        self.dumper = Dumper(
            follower=self.follower,
            rib=self.rib,
            stream=self.stream,
            plan=self.plan,
            drain=self.drain,
            dump=self.kernel.dump,
        )

    def drain(self) -> int:
        self.stream.log.append("drain")
        return self.events.pop(0) if self.events else 0


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    class Quiet:
        def __enter__(self) -> Quiet:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def send(self, data: bytes) -> int:
            return len(data)

        def fileno(self) -> int:
            return -1

    monkeypatch.setattr(sockets, "open_requests", Quiet)
    return Rig()


def test_nexthops_are_dumped_before_routes_and_events_applied_before_and_after_each_dump(rig: Rig) -> None:
    rig.dumper.run(Scope.ALL)
    asked = rig.kernel.asked
    assert asked[0] == messages.RTM_GETLINK
    assert asked.index(messages.RTM_GETNEXTHOP) < asked.index(messages.RTM_GETNEIGH)
    assert rig.stream.log == ["drain", *["drain", "dump", "drain"] * 2], "the first one is for new rules"
    assert rig.rib.dumps == [4, 6]


def test_a_tap_found_by_a_dump_has_its_neighbours_in_the_same_one(rig: Rig) -> None:
    rig.dumper.run(Scope.LINKS)
    assert rig.rib.neighbours
    assert rig.plan.wanted == Scope(0)


def test_a_dump_of_routes_alone_waits_for_the_kernel_to_finish_first(rig: Rig) -> None:
    rig.dumper.run(Scope.ROUTES4)
    assert rig.kernel.asked == [messages.RTM_GETLINK]
    assert rig.rib.dumps == [4]
    assert len(rig.follower.tables.links) == 0, "the barrier's answer is not a table"


def test_an_interrupted_dump_is_done_again_and_sweeps_nothing_meanwhile(rig: Rig) -> None:
    rig.stream.dump_errors = [errno.EINTR, errno.EINTR]
    rig.dumper.run(Scope.ROUTES4)
    assert rig.rib.aborted == [4, 4]
    assert rig.rib.dumps == [4]


def test_a_dump_that_is_always_interrupted_fails(rig: Rig) -> None:
    rig.stream.dump_errors = [errno.EINTR] * 50
    with pytest.raises(OSError, match="changed during every dump"):
        rig.dumper.run(Scope.ROUTES4)
    assert rig.rib.dumps == []
    assert not rig.rib.dumping


def test_a_refused_dump_fails_and_leaves_the_rib_as_it_was(rig: Rig) -> None:
    rig.stream.dump_errors = [errno.ENOMEM]
    with pytest.raises(OSError, match="dump"):
        rig.dumper.run(Scope.ROUTES)
    assert rig.rib.aborted == [4]
    assert rig.rib.dumps == []


def test_an_ipv6_dump_under_changing_routes_is_done_again_a_few_times(rig: Rig) -> None:
    rig.rib.differences = 1
    again = 0
    rig.plan.want(Scope.ROUTES6, "link")
    while rig.plan.wanted:
        rig.events = [0, 5]
        scope, _ = rig.plan.begin(0.0)
        rig.dumper.run(scope)
        again += 1
        assert again < 10
    assert again == 4


@pytest.mark.parametrize(
    ("family_scope", "events", "differences"),
    [(Scope.ROUTES4, 5, 1), (Scope.ROUTES6, 0, 1), (Scope.ROUTES6, 5, 0)],
)
def test_other_dumps_are_settled(rig: Rig, family_scope: Scope, events: int, differences: int) -> None:
    rig.rib.differences = differences
    rig.events = [0, events]
    rig.dumper.run(family_scope)
    assert rig.plan.wanted == Scope(0)
