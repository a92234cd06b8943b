"""The mirror's thread between a scripted kernel and recording rooms: sync, overruns, errors, adjacencies."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import pytest
from netlink_fakes import (
    ACTIONS,
    DEFAULT_RULES,
    MAC,
    OTHER_MAC,
    FakeAdjacencies,
    FakePath,
    FakeRib,
    FakeSink,
    FakeStream,
    Leg,
    address_message,
    ip,
    link_message,
    neighbour_message,
    nexthop_message,
)

from ixroute.fib.adjacency import GroupLeg
from ixroute.netlink import messages, mirror, sockets
from ixroute.netlink.contract import Port
from ixroute.netlink.mirror import Mirror
from ixroute.netlink.sockets import Message

LAN = 10
GATEWAY = "10.0.0.1"


class FakeSocket:
    """A socket whose datagrams a test puts in; an int is an errno that the next receive fails with."""

    def __init__(self) -> None:
        self._readable, self._bell = socket.socketpair()
        self._queue: deque[bytes | int] = deque()
        self.sent: list[bytes] = []
        self.closed = False

    def put(self, item: bytes | int) -> None:
        self._queue.append(item)
        self._bell.send(b"!")

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        if not self._queue:
            raise BlockingIOError
        self._readable.recv(1)
        item = self._queue.popleft()
        if isinstance(item, int):
            raise OSError(item, os.strerror(item))
        return item, (0, 0)

    def send(self, data: bytes) -> int:
        self.sent.append(data)
        return len(data)

    def setblocking(self, blocking: bool) -> None:
        pass

    def fileno(self) -> int:
        return self._readable.fileno()

    def close(self) -> None:
        self.closed = True
        self._readable.close()
        self._bell.close()

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stage:
    """A mirror, and everything it touches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rib, self.stream = FakeRib(), FakeStream()
        self.table, self.sink = FakeAdjacencies(), FakeSink()
        self.answers: dict[int, list[Message]] = {
            messages.RTM_GETRULE: DEFAULT_RULES,
            messages.RTM_GETLINK: [link_message(LAN, "lan")],
            messages.RTM_GETNEIGH: [neighbour_message(LAN, GATEWAY, managed=True)],
            messages.RTM_GETADDR: [address_message(LAN, "10.0.0.254")],
        }
        self.dump_errors: list[int] = []
        self.opened: list[FakeSocket] = []
        self.requests: list[FakeSocket] = []
        monkeypatch.setattr(sockets, "open_events", self._open)
        monkeypatch.setattr(sockets, "open_requests", self._open_requests)
        monkeypatch.setattr(sockets, "dump", self._dump)
        self.mirror = Mirror(
            self.rib,
            self.stream,
            self.table,
            ports=[Port(3, "lan")],
            actions=ACTIONS,
            sink=self.sink,
            watch=["eth0"],
            audit_s=0,
        )

    def _open(self, groups: object, buffer_bytes: int) -> FakeSocket:
        self.opened.append(FakeSocket())
        return self.opened[-1]

    def _open_requests(self) -> FakeSocket:
        self.requests.append(FakeSocket())
        return self.requests[-1]

    def _dump(self, kind: int, body: bytes) -> list[Message]:
        if self.dump_errors:
            code = self.dump_errors.pop(0)
            raise OSError(code, os.strerror(code))
        return self.answers.get(kind, [])

    @property
    def state(self) -> FakeSocket:
        return self.opened[-3]

    @property
    def neighbours(self) -> FakeSocket:
        return self.opened[-2]

    @property
    def routes(self) -> FakeSocket:
        return self.opened[-1]

    def until(self, condition: Callable[[], object], why: str) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, why
            time.sleep(0.005)

    def start(self) -> None:
        self.mirror.start()
        assert self.mirror.wait_synced(10)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(monkeypatch)
    yield stage
    stage.mirror.stop()
    assert all(sock.closed for sock in (*stage.opened, *stage.requests))


def test_after_start_everything_known_is_in_place_and_told(stage: Stage) -> None:
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)),)))
    stage.start()
    assert stage.table.entries[8] == (ACTIONS.forward, 3, MAC, 1500)
    assert stage.rib.dumps[:2] == [4, 6]
    assert stage.rib.neighbours == {(ip(GATEWAY), LAN)}
    stage.until(lambda: stage.sink.links, "nothing told")
    assert stage.sink.ports[3].up
    assert stage.sink.local4 == [ip("10.0.0.254")]
    assert stage.sink.vlans == {3: frozenset()}
    assert not stage.sink.links[-1].present
    status = stage.mirror.status()
    assert status["synced"]
    assert status["resyncs"] == {"start": 1}


def test_reserved_adjacencies_have_their_actions_before_any_route(stage: Stage) -> None:
    stage.mirror.start()
    expected = [
        ACTIONS.no_route,
        ACTIONS.local_route,
        ACTIONS.broadcast,
        ACTIONS.multicast,
        ACTIONS.blackhole_route,
        ACTIONS.reject_route,
        ACTIONS.external_route,
    ]
    assert [stage.table.entries[index][0] for index in range(7)] == expected


def test_a_neighbours_new_mac_reaches_the_adjacency(stage: Stage) -> None:
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)),)))
    stage.start()
    stage.neighbours.put(neighbour_message(LAN, GATEWAY, OTHER_MAC).data)
    stage.until(lambda: stage.table.entries[8][2] == OTHER_MAC, "the MAC never came")


def test_a_path_id_used_again_is_written_even_if_it_resolves_the_same(stage: Stage) -> None:
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)),)))
    stage.start()
    with stage.mirror.locked():
        stage.table.entries[8] = (
            ACTIONS.unresolved_neigh,
            0,
            bytes(6),
            0,
        )  # as rib_create's new_path_action does
        stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)),), type=1))
    stage.mirror.resync("test")
    stage.until(lambda: stage.table.entries[8][0] == ACTIONS.forward, "the fresh path was not written")


@pytest.mark.parametrize(("which", "dumped"), [("state", [4, 6]), ("neighbours", []), ("routes", [4, 6])])
def test_an_overrun_costs_a_dump_of_what_may_be_missing(stage: Stage, which: str, dumped: list[int]) -> None:
    stage.start()
    stage.rib.dumps.clear()
    stage.answers[messages.RTM_GETNEIGH] = [neighbour_message(LAN, GATEWAY, OTHER_MAC, managed=True)]
    if which == "routes":
        stage.stream.script = [-errno.ENOBUFS]
        stage.mirror._wake_up()
    else:
        getattr(stage, which).put(errno.ENOBUFS)
    stage.until(lambda: stage.mirror.status()["resyncs"].get("overrun"), "no dump after an overrun")
    assert stage.rib.dumps == dumped
    assert stage.mirror.status()["overruns"] == 1
    assert len(stage.opened) == 3, "the sockets go on working"
    if which == "neighbours":
        assert stage.mirror.neighbours()[0].mac == OTHER_MAC.hex(":")


def test_a_broken_socket_is_opened_again_and_everything_dumped(stage: Stage) -> None:
    stage.start()
    stage.state.put(errno.EIO)
    stage.until(lambda: stage.mirror.status()["resyncs"].get("reopened"), "not opened again")
    assert len(stage.opened) == 6
    assert all(sock.closed for sock in stage.opened[:3])
    assert stage.mirror.status()["reopened"] == 1


def test_a_failing_dump_is_tried_until_it_works(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.dump_errors = [errno.EPERM, errno.EPERM]
    stage.start()
    status = stage.mirror.status()
    assert status["failed_resyncs"] == 2
    assert [record.message for record in caplog.records if "CAP_NET_ADMIN" in record.message] != []
    assert len([record for record in caplog.records if "CAP_NET_ADMIN" in record.message]) == 1, "said once"


def test_a_sink_that_raises_ends_nothing(stage: Stage) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("router")

    stage.sink.set_port = broken  # type: ignore[method-assign]
    stage.start()
    stage.neighbours.put(neighbour_message(LAN, "10.0.0.7").data)
    stage.until(lambda: (ip("10.0.0.7"), LAN) in stage.rib.neighbours, "the mirror stopped")
    assert stage.mirror.status()["errors"] >= 1


def test_an_error_nobody_thought_of_costs_a_dump_not_the_thread(stage: Stage) -> None:
    stage.start()
    real, failures = stage.rib.take_new_paths, [ZeroDivisionError("?")]

    def broken() -> list[int]:
        if failures:
            raise failures.pop()
        return real()

    stage.rib.take_new_paths = broken  # type: ignore[method-assign]
    stage.mirror._wake_up()
    stage.until(lambda: stage.mirror.status()["resyncs"].get("error"), "no dump after the error")
    assert stage.mirror.status()["alive"]


def test_garbage_from_a_socket_is_counted(stage: Stage) -> None:
    stage.start()
    stage.state.put(b"\xff" * 64)
    stage.state.put(struct.pack("=IHHII", 20, 16, 0, 0, 0) + bytes(4))
    stage.until(lambda: stage.mirror.status()["malformed"] >= 2, "not counted")
    assert stage.mirror.status()["alive"]


def test_link_down_is_acted_on_before_the_dump(stage: Stage) -> None:
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)),)))
    stage.start()
    stage.answers[messages.RTM_GETLINK] = [link_message(LAN, "lan", up=False)]
    stage.state.put(link_message(LAN, "lan", up=False).data)
    stage.until(lambda: stage.table.entries[8][0] == ACTIONS.external_route, "still forwarding to the dead")
    stage.until(lambda: not stage.sink.ports[3].up, "the port is still up")
    stage.until(lambda: stage.mirror.status()["resyncs"].get("link"), "no dump")


def test_an_unknown_gateway_is_asked_for_and_marked(stage: Stage) -> None:
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip("10.0.0.9")),)))
    stage.start()
    stage.until(lambda: stage.requests and stage.requests[-1].sent, "nobody asked")
    request = stage.requests[-1].sent[0]
    assert ip("10.0.0.9") in request
    assert stage.mirror.status()["managed"] == 1


def test_paths_that_are_gone_are_forgotten(stage: Stage) -> None:
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip("10.0.0.9")),)))
    stage.start()
    with stage.mirror.locked():
        del stage.rib.paths[8]
        stage.rib.users[8] = 0
    stage.mirror.resync("test")
    stage.until(lambda: stage.mirror.status()["paths"] == 0, "a path nobody uses is kept")
    assert stage.mirror.describe(8) == "unused"


def test_resync_on_demand_counts_its_reason(stage: Stage) -> None:
    stage.start()
    stage.mirror.resync("SIGHUP")
    stage.until(lambda: stage.mirror.status()["resyncs"].get("SIGHUP"), "no dump")


def test_what_people_are_shown(stage: Stage) -> None:
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)),), mtu=1400))
    stage.rib.put(9, FakePath(legs=(Leg(LAN, ip(GATEWAY)), Leg(77, ip("10.7.0.1")))))
    stage.rib.put(10, FakePath(nhid=5, family=6))
    stage.start()
    describe = stage.mirror.describe
    assert describe(8) == "via 10.0.0.1 dev lan mtu 1400"
    assert describe(9) == "nexthop via 10.0.0.1 dev lan weight 1 nexthop via 10.7.0.1 dev if77 weight 1"
    assert describe(10) == "nhid 5 nexthop object that only the kernel follows"
    assert (describe(0), describe(4), describe(4000)) == ("no route", "blackhole", "unused")
    view = stage.mirror.neighbours()[0]
    assert (view.port, view.interface, view.address, view.state, view.managed) == (
        3,
        "lan",
        GATEWAY,
        "reachable",
        True,
    )


SECOND = "10.0.0.2"


def resilient(stage: Stage, members: tuple[int, ...]) -> None:
    """A path by a resilient group of 8 buckets; its object has these members."""
    stage.answers[messages.RTM_GETNEXTHOP] = [
        nexthop_message(1, oif=LAN, gateway=GATEWAY),
        nexthop_message(2, oif=LAN, gateway=SECOND),
        nexthop_message(3, oif=LAN, gateway=SECOND),
        nexthop_message(20, group=members, resilient=(8, 1_000_000, 0)),
    ]


def test_several_next_hops_are_written_as_a_group_and_followed(stage: Stage) -> None:
    stage.answers[messages.RTM_GETNEIGH] = [
        neighbour_message(LAN, GATEWAY, managed=True),
        neighbour_message(LAN, SECOND, OTHER_MAC, managed=True),
    ]
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY), 1), Leg(LAN, ip(SECOND), 3))))
    stage.start()
    assert stage.table.groups[8] == ((GroupLeg(MAC, 3, 0, 1500, 1), GroupLeg(OTHER_MAC, 3, 0, 1500, 3)), None)
    stage.neighbours.put(neighbour_message(LAN, SECOND, MAC, managed=True).data)
    stage.until(lambda: stage.table.groups[8][0][1].mac == MAC, "the leg's MAC stays")
    stage.state.put(link_message(LAN, "lan", up=False).data)
    stage.until(lambda: stage.table.entries.get(8, (0,))[0] == ACTIONS.external_route, "still a group")


def test_gateways_of_all_legs_are_asked_for(stage: Stage) -> None:
    stage.answers[messages.RTM_GETNEIGH] = []
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)), Leg(LAN, ip(SECOND)))))
    stage.start()
    sent = lambda: b"".join(data for sock in stage.requests for data in sock.sent)  # noqa: E731
    stage.until(lambda: ip(GATEWAY) in sent() and ip(SECOND) in sent(), "not asked for")


def test_a_group_without_memory_is_the_kernels_until_there_is_some(stage: Stage) -> None:
    stage.answers[messages.RTM_GETNEIGH] += [neighbour_message(LAN, "10.0.0.2", OTHER_MAC)]
    legs = (Leg(LAN, ip(GATEWAY)), Leg(LAN, ip("10.0.0.2")))
    for path_id in (8, 9, 10):
        stage.rib.put(path_id, FakePath(legs=legs))
    stage.start()
    stage.until(lambda: len(stage.table.groups) == 3, "no groups")
    third = OTHER_MAC[:5] + b"\x77"
    stage.table.refusals = 2
    with stage.mirror.locked():
        stage.neighbours.put(neighbour_message(LAN, "10.0.0.2", third).data)
    stage.until(lambda: len(stage.table.groups) < 3 and not stage.mirror.paths.dirty, "no group was refused")
    stage.until(
        lambda: (
            len(stage.table.groups) == 3
            and all(legs[1].mac == third for legs, _ in stage.table.groups.values())
        ),
        "a group kept its old neighbour, or was forgotten",
    )
    assert stage.mirror.status()["errors"] == 2


def test_a_refused_group_is_not_left_as_it_was(stage: Stage) -> None:
    stage.answers[messages.RTM_GETNEIGH] += [neighbour_message(LAN, "10.0.0.2", OTHER_MAC)]
    stage.rib.put(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)), Leg(LAN, ip("10.0.0.2")))))
    stage.start()
    stage.table.refusals = 1 << 30
    stage.neighbours.put(neighbour_message(LAN, "10.0.0.2", MAC).data)
    stage.until(lambda: 8 in stage.table.entries, "packets still go to a neighbour that moved")
    assert stage.table.entries[8][0] == ACTIONS.external_route
    stage.table.refusals = 0
    stage.until(lambda: 8 in stage.table.groups, "never tried again")


def test_what_stumbled_while_it_was_told_is_told_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.start()
    stage.until(lambda: stage.sink.links, "nothing told")
    announce, calls = stage.mirror.programs.announce, []

    def stumble(*what: object) -> None:
        calls.append(what)
        if len(calls) == 1:
            raise MemoryError
        announce(*what)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.mirror.programs, "announce", stumble)
    stage.state.put(link_message(LAN, "lan", mtu=1400).data)
    stage.until(lambda: stage.sink.ports[3].mtu == 1400, "it was forgotten")
    assert stage.mirror.status()["errors"] == 1


def test_a_pass_ends_however_long_paths_take(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for path_id in range(8, 8 + 4 * mirror.PATHS_AT_ONCE):
        stage.rib.put(path_id, FakePath(legs=(Leg(LAN, ip(GATEWAY)),)))
    stage.start()
    monkeypatch.setattr(mirror, "PATHS_S", 0.0)
    with stage.mirror.locked():
        passes = stage.mirror.passes
        stage.mirror.paths.touch_all()
        stage.mirror.update_paths()
        assert stage.mirror.paths.dirty == 4 * mirror.PATHS_AT_ONCE, "time was up before the first"
        monkeypatch.setattr(mirror, "PATHS_S", 0.25)
    stage.until(lambda: not stage.mirror.paths.dirty, "paths were forgotten")
    assert stage.mirror.passes > passes


def test_buckets_in_use_stay_when_a_member_joins_a_resilient_group(stage: Stage) -> None:
    resilient(stage, (1, 2))
    stage.rib.put(8, FakePath(nhid=20))
    stage.start()
    _, before = stage.table.groups[8]
    assert before is not None
    assert sorted(before) == [0, 0, 0, 0, 1, 1, 1, 1]
    busy = {bucket for bucket, leg in enumerate(before) if leg == 0}
    stage.table.used[8] = set(busy)
    stage.state.put(nexthop_message(20, group=(1, 2, 3), resilient=(8, 1_000_000, 0)).data)
    stage.until(lambda: len(stage.table.groups[8][0]) == 3, "the member did not join")
    _, after = stage.table.groups[8]
    assert after is not None
    assert {bucket for bucket, leg in enumerate(after) if leg == 0} == busy
    assert 2 in after


def test_the_buckets_of_a_deleted_member_are_dealt_out_at_once(stage: Stage) -> None:
    resilient(stage, (1, 2, 3))
    stage.rib.put(8, FakePath(nhid=20))
    stage.start()
    stage.table.used[8] = set(range(8))
    resilient(stage, (1, 2))
    stage.state.put(nexthop_message(20, group=(1, 2), resilient=(8, 1_000_000, 0)).data)
    stage.until(lambda: len(stage.table.groups[8][0]) == 2, "the member is still there")
    assert sorted(stage.table.groups[8][1] or ()) == [0, 0, 0, 0, 1, 1, 1, 1]
    stage.state.put(nexthop_message(20, kind=105).data)
    stage.until(lambda: stage.table.entries.get(8, (0,))[0] == ACTIONS.external_route, "still a group")
    assert len(stage.mirror.follower.tables.buckets) == 0


def test_stop_ends_the_thread_and_may_be_called_twice(stage: Stage) -> None:
    before = threading.active_count()
    stage.start()
    stage.mirror.stop()
    stage.mirror.stop()
    assert threading.active_count() == before
    stage.mirror.resync("after the end")


def test_ports_that_share_a_tap_are_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match="share"):
        Mirror(
            stage.rib,
            stage.stream,
            stage.table,
            ports=[Port(0, "lan"), Port(1, "lan")],
            actions=ACTIONS,
            sink=stage.sink,
        )
    stage.mirror.start()
