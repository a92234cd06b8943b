"""The vfio-user transport (driver/vfio_user.py) against the server (vfio_user/server.py), over a real socket."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vfio_user_rig import (
    BAR_BYTES,
    DOORBELL,
    MAPPED_PAGE,
    MATCHED,
    MSIX_AT,
    VECTORS,
    Memory,
    Toy,
    driven,
    open_fds,
    serving,
)

from ixroute._dataplane import ffi, lib
from ixroute.driver.transport import Transport, TransportError
from ixroute.driver.vfio_user import FIRST_IOVA, IOVA_STEP, VfioUserTransport
from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.channel import Inbox, send
from ixroute.vfio_user.server import Server


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """And nothing stays open behind the test's back."""
    before = open_fds()
    yield tmp_path / "card"
    assert open_fds() == before


def readable(fd: int, seconds: float = 5) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


# ---- registers ----


@pytest.mark.parametrize("mapped", ["", "page", "all"])
def test_a_register_keeps_what_is_written_however_it_is_reached(path: Path, mapped: str) -> None:
    with driven(path, Toy(mapped)) as (transport, toy, _):
        bar = transport.map_bar(0)
        assert bar.size == BAR_BYTES
        assert transport.map_bar(0) is bar
        for offset in (
            0x40,
            MAPPED_PAGE - 4,
            MAPPED_PAGE,
            MAPPED_PAGE + 4092,
            MAPPED_PAGE + 4096,
            BAR_BYTES - 4,
        ):
            bar.write32(offset, 0xFE000000 + offset)
            assert bar.read32(offset) == 0xFE000000 + offset
            assert toy.bar[offset : offset + 4] == (0xFE000000 + offset).to_bytes(4, "little")


def test_only_what_is_not_mapped_reaches_the_server_as_a_message(path: Path) -> None:
    with driven(path, Toy("page")) as (transport, _, server):
        bar = transport.map_bar(0)
        before = server.counters.messages
        for _ in range(10):
            bar.write32(MAPPED_PAGE, 7)
            assert bar.read32(MAPPED_PAGE) == 7
        assert server.counters.messages == before
        assert [bar.read32(0) for _ in range(3)] == [1, 2, 3]
        assert server.counters.messages == before + 3


@pytest.mark.parametrize(
    ("mapped", "shadow", "posted"), [("", False, True), ("page", False, False), ("", True, True)]
)
def test_writes_are_posted_unless_other_writes_could_overtake_them(
    path: Path, mapped: str, shadow: bool, posted: bool
) -> None:
    with driven(path, Toy(mapped, shadow)) as (transport, _, server):
        bar = transport.map_bar(0)
        if posted:
            bar.write32(0x14, 1)  # refused, and nobody is told
        else:
            with pytest.raises(TransportError, match="No such device or address"):
                bar.write32(0x14, 1)
        bar.read32(0x40)
        assert server.counters.refused == 1


@pytest.mark.parametrize("offset", [-4, 1, 2, BAR_BYTES, BAR_BYTES - 2, 1 << 40])
def test_offsets_that_are_no_register_are_a_mistake_of_the_caller(path: Path, offset: int) -> None:
    with driven(path, Toy("page")) as (transport, _, _):
        bar = transport.map_bar(0)
        for access in (lambda: bar.read32(offset), lambda: bar.write32(offset, 0), lambda: bar.bell(offset)):
            with pytest.raises(ValueError, match="BAR0"):
                access()


def test_a_bar_that_the_device_does_not_have_is_said_to_be_missing(path: Path) -> None:
    with driven(path) as (transport, _, _):
        with pytest.raises(TransportError, match="BAR3"):
            transport.map_bar(3)
        with pytest.raises(ValueError, match="BAR7"):
            transport.map_bar(7)


def test_a_register_that_the_device_refuses_is_an_error_that_names_the_socket(path: Path) -> None:
    with driven(path) as (transport, _, _):
        with pytest.raises(TransportError, match=f"{path}: .*REGION_READ.*No such device or address"):
            transport.map_bar(0).read32(0x14)
        assert transport.map_bar(0).read32(0x40) == 0


def test_two_threads_may_read_registers_at_once(path: Path) -> None:
    with driven(path) as (transport, _, _):
        bar = transport.map_bar(0)
        wrong = []

        def work(offset: int) -> None:
            for i in range(300):
                bar.write32(offset, i)
                if bar.read32(offset) != i:
                    wrong.append(offset)

        threads = [threading.Thread(target=work, args=(0x40 + 4 * i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


# ---- configuration space, reset ----


def test_the_configuration_space_is_read_and_written_in_its_sizes(path: Path) -> None:
    with driven(path) as (transport, toy, _):
        transport.config.write(0x50, 4, 0x12345678)
        assert toy.space[0x50:0x54] == b"\x78\x56\x34\x12"
        assert [transport.config.read(0x50, size) for size in (1, 2, 4)] == [0x78, 0x5678, 0x12345678]
        with pytest.raises(ValueError, match="1, 2 or 4"):
            transport.config.read(0x50, 3)
        with pytest.raises(TransportError):
            transport.config.read(4096, 1)


def test_the_device_is_a_bus_master_from_the_beginning_through_a_reset_to_the_end(path: Path) -> None:
    with driven(path) as (transport, toy, _):
        assert toy.space[4] & 6 == 6
        transport.map_bar(0).write32(0x40, 1)
        assert transport.reset() is True
        assert transport.map_bar(0).read32(0x40) == 0
        assert toy.space[4] & 6 == 6
        toy.disconnected = lambda: None  # type: ignore[method-assign]
        transport.close()
        assert toy.space[4] & 6 == 0


# ---- memory ----


def test_the_device_reaches_mapped_memory_and_nothing_else(path: Path) -> None:
    memory, other = Memory(), Memory(3 << 20)
    with driven(path) as (transport, toy, _):
        bar = transport.map_bar(0)

        def complement(iova: int) -> None:
            bar.write32(0x08, iova & 0xFFFFFFFF)
            bar.write32(0x0C, iova >> 32)
            bar.write32(0x04, 1)
            bar.read32(0x40)

        first, second = transport.dma_map(memory), transport.dma_map(other)
        assert (first.base, second.base) == (FIRST_IOVA, FIRST_IOVA + IOVA_STEP)
        complement(first.iova(4096))
        complement(second.iova((3 << 20) - 4))
        assert memory.map[4096:4100] == b"\xff" * 4
        assert other.map[-4:] == b"\xff" * 4
        assert toy.faults == 0
        complement(first.base + memory.bytes)
        assert toy.faults == 1
        transport.dma_unmap(memory)
        complement(first.iova(0))
        assert toy.faults == 2
    memory.close()
    other.close()


def test_memory_mapped_twice_is_mapped_once_and_unmapped_with_its_last_user(path: Path) -> None:
    memory, big, small = Memory(), Memory(5 << 20), Memory()
    with driven(path) as (transport, toy, _):
        assert transport.dma_map(memory) == transport.dma_map(memory)
        assert len(toy.dma) == 1
        transport.dma_unmap(memory)
        assert len(toy.dma) == 1
        assert transport.dma_map(big).base == FIRST_IOVA + IOVA_STEP
        transport.dma_unmap(memory)
        assert list(toy.dma) == [FIRST_IOVA + IOVA_STEP]
        assert transport.dma_map(small).base == FIRST_IOVA
        assert transport.dma_map(memory).base == FIRST_IOVA + 4 * IOVA_STEP
        transport.dma_unmap(big)
        with pytest.raises(ValueError, match="not mapped"):
            transport.dma_unmap(big)
    for m in (memory, big, small):
        m.close()


def test_memory_that_the_device_refuses_is_not_mapped(path: Path) -> None:
    memory = Memory()
    with driven(path) as (transport, _, _):
        memory.bytes *= 2
        with pytest.raises(TransportError, match="DMA_MAP"):
            transport.dma_map(memory)
        memory.bytes //= 2
        assert transport.dma_map(memory).base == FIRST_IOVA
    memory.close()


# ---- interrupts ----


def test_each_vector_has_its_eventfd_although_few_descriptors_fit_a_message(path: Path) -> None:
    with driven(path) as (transport, toy, _):
        assert transport.irq.count == VECTORS
        events = transport.irq.start(VECTORS)
        assert len([call for call in toy.calls if call[0] == "set_irqs"]) == -(-VECTORS // p.MAX_MSG_FDS)
        for vector in (0, p.MAX_MSG_FDS, VECTORS - 1):
            transport.map_bar(0).write32(0x10, vector)
            assert readable(events[vector])
            assert os.eventfd_read(events[vector]) == 1
        assert not any(readable(fd, 0) for fd in events)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(events[0])
        with pytest.raises(ValueError, match="already"):
            transport.irq.start(1)
        transport.irq.stop()
        transport.irq.stop()
        assert not toy.vectors
        assert len(transport.irq.start(2)) == 2
        for wrong in (0, VECTORS + 1):
            with pytest.raises(ValueError, match=r"started|vectors"):
                transport.irq.start(wrong)


def test_msix_is_switched_on_and_off_and_on_again_after_a_reset(path: Path) -> None:
    with driven(path) as (transport, toy, _):
        assert not toy.space[MSIX_AT + 3] & 0x80
        transport.irq.start(1)
        assert toy.space[MSIX_AT + 3] & 0xC0 == 0x80
        transport.reset()
        assert toy.space[MSIX_AT + 3] & 0xC0 == 0x80
        transport.irq.stop()
        assert not toy.space[MSIX_AT + 3] & 0x80


# ---- bells ----


def test_a_trapped_bell_is_a_message_that_wants_no_answer(path: Path) -> None:
    with driven(path) as (transport, toy, server):
        bar = transport.map_bar(0)
        bell = bar.bell(DOORBELL)
        before = server.counters.messages
        for i in range(50):
            assert lib.doorbell_ring(bell, i) == 0
        assert bar.read32(DOORBELL) == 49
        assert server.counters.messages == before + 51
        assert (bell.kicks, bell.failed) == (50, 0)
        assert toy.bar[DOORBELL : DOORBELL + 4] == b"\x31\0\0\0"


def test_a_mapped_bell_is_a_store(path: Path) -> None:
    with driven(path, Toy("all")) as (transport, toy, server):
        bell = transport.map_bar(0).bell(DOORBELL)
        before = server.counters.messages
        assert lib.doorbell_ring(bell, 0x01020304) == 0
        assert toy.bar[DOORBELL : DOORBELL + 4] == b"\4\3\2\1"
        assert (bell.kicks, server.counters.messages) == (0, before)


@pytest.mark.parametrize("mapped", ["", "all"])
def test_a_bell_with_an_event_wakes_a_device_that_sleeps_and_no_other(path: Path, mapped: str) -> None:
    with driven(path, Toy(mapped, shadow=True, sleeps=True)) as (transport, toy, _):
        bell = transport.map_bar(0).bell(DOORBELL + 4)
        lib.doorbell_ring(bell, 1)
        assert not readable(toy.event, 0)
        toy.sleep[0] = 1
        lib.doorbell_ring(bell, 2)
        assert readable(toy.event, 0)
        assert toy.bar[DOORBELL + 4] == 2
        assert bell.kicks == 1


def test_a_bell_with_one_value_only_has_a_word_of_its_own(path: Path) -> None:
    with driven(path, Toy(shadow=True)) as (transport, toy, server):
        bar = transport.map_bar(0)
        bells = {value: bar.bell(MATCHED, value) for value in (1, 4)}
        before = server.counters.messages
        for value, bell in bells.items():
            lib.doorbell_ring(bell, value)
        assert list(memoryview(toy.bar[MATCHED : MATCHED + 16]).cast("I")) == [0, 1, 0, 4]
        assert server.counters.messages == before
        for trapped in (bar.bell(MATCHED, 8), bar.bell(MATCHED)):
            lib.doorbell_ring(trapped, 8)
        assert bar.read32(MATCHED) == 8
        assert server.counters.messages == before + 3


def test_a_bell_with_an_event_and_no_word_of_sleep_always_writes_the_event(path: Path) -> None:
    with driven(path, Toy(shadow=True)) as (transport, toy, _):
        bell = transport.map_bar(0).bell(DOORBELL)
        for i in range(3):
            lib.doorbell_ring(bell, i)
        assert os.eventfd_read(toy.event) == 3


def test_bells_and_python_share_a_socket_without_mixing_their_messages(path: Path) -> None:
    """C rings from two threads as fast as it can while Python reads; a single broken message ends the connection."""
    with driven(path) as (transport, _, server):
        bar = transport.map_bar(0)
        stop = threading.Event()
        bells = [bar.bell(0x100 + 4 * i) for i in range(2)]

        def ring(bell: Any) -> None:
            i = 0
            while not stop.is_set():
                i += 1
                lib.doorbell_ring(bell, i)

        threads = [threading.Thread(target=ring, args=(bell,)) for bell in bells]
        for thread in threads:
            thread.start()
        for i in range(300):
            bar.write32(0x40, i)
            assert bar.read32(0x40) == i
        stop.set()
        for thread in threads:
            thread.join()
        bar.read32(0x40)
        assert server.counters.broken == 0
        assert server.counters.refused == 0
        assert all(bell.kicks > bell.failed for bell in bells)


def test_a_full_socket_is_a_refusal_that_is_counted_and_never_a_wait(path: Path) -> None:
    ours, theirs = socket.socketpair()
    with serving(theirs) as (server, _):
        transport = VfioUserTransport(ours)
        bell = transport.map_bar(0).bell(0x40)
        server.stop()
        time.sleep(0.05)
        results = {int(lib.doorbell_ring(bell, i)) for i in range(5000)}
        assert results == {0, -11}
        assert 0 < bell.failed < bell.kicks == 5000
        server.handle()
        assert lib.doorbell_ring(bell, 1) == 0
        for _ in range(1000):
            server.handle()
        transport._client.timeout_s = 0.05
        transport.close()


# ---- servers that are not there, or are gone ----


def test_no_server_is_an_error_that_says_how_to_start_one(tmp_path: Path) -> None:
    missing, dead = str(tmp_path / "no"), str(tmp_path / "dead")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(dead)
    for path in (missing, dead):
        with pytest.raises(TransportError, match="ixroute emulate --wire SPEC --socket") as caught:
            VfioUserTransport(path)
        assert caught.value.device == path
    for path in ("/" + "x" * 200, str(tmp_path)):
        with pytest.raises(TransportError):
            VfioUserTransport(path)


def test_a_server_that_is_busy_or_silent_is_an_error_within_the_time_limit(path: Path) -> None:
    with driven(path) as (transport, _, server):
        with pytest.raises(TransportError, match="another client"):
            VfioUserTransport(str(path), timeout_s=0.1)
        transport.close()
        again = VfioUserTransport(str(path))
        assert again.map_bar(0).read32(0x40) == 0
        again.close()
        assert server.counters.broken == 0


def everything(transport: Transport, memory: Memory) -> list[Callable[[], object]]:
    bar = transport.map_bar(0)
    return [
        lambda: bar.read32(0x40),
        lambda: bar.write32(0x40, 1),
        lambda: bar.bell(0x40),
        lambda: transport.config.read(0, 4),
        lambda: transport.config.write(0, 4, 0),
        lambda: transport.dma_map(memory),
        lambda: transport.irq.start(1),
        lambda: transport.map_bar(1),
        transport.reset,
    ]


def _serve(path: str, mapped: str) -> None:
    Server(path, Toy(mapped)).serve_forever()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("mapped", ["", "all"])
def test_when_the_server_is_killed_every_call_raises_and_bells_only_count(path: Path, mapped: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(str(path), mapped))
    process.start()
    memory = Memory()
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    transport = VfioUserTransport(str(path), timeout_s=600)  # so that a call that waits fails the test
    calls = everything(transport, memory)
    bell = transport.map_bar(0).bell(0x40)
    events = transport.irq.start(2)
    assert transport.alive()
    process.kill()
    process.join()
    assert not transport.alive()
    for call in calls:
        with pytest.raises((TransportError, ValueError), match=r"has gone|already"):
            call()
    if not mapped:
        assert lib.doorbell_ring(bell, 1) == -11
        assert bell.failed == 1
    transport.close()
    transport.close()
    assert lib.doorbell_ring(bell, 1) == -11
    with pytest.raises(OSError, match="Bad file"):
        os.eventfd_read(events[0])
    memory.close()
    process.close()
    os.unlink(path)


@pytest.mark.timeout(30)
def test_a_server_that_hangs_is_waited_for_once(path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(str(path), ""))
    process.start()
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(TransportError):
            transport = VfioUserTransport(str(path), timeout_s=0.3)
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)
    memory = Memory()
    calls = everything(transport, memory)
    os.kill(process.pid or 0, signal.SIGSTOP)
    with pytest.raises(TransportError, match=r"did not answer REGION_READ in 0\.3 s"):
        calls[0]()
    transport._client.timeout_s = 600
    for call in calls:
        with pytest.raises(TransportError, match="did not answer"):
            call()
    transport.close()
    process.kill()
    process.join()
    process.close()
    memory.close()
    os.unlink(path)


# ---- servers that are not ours ----


class Script:
    """A server that answers each command as told: command -> (flags, errno, body, descriptors), or what makes that of
    the request's body."""

    def __init__(self, answers: dict[int, Any]) -> None:
        self.answers: dict[int, Any] = {
            p.VERSION: (p.REPLY, 0, p.Version(0, 0).pack(), []),
            p.GET_INFO: (p.REPLY, 0, p.DeviceInfo(9, 0).pack(), []),
            p.REGION_WRITE: (p.REPLY, 0, bytes(16), []),
            p.REGION_READ: (p.REPLY, 0, bytes(18), []),
            **answers,
        }
        self.ours, self.theirs = socket.socketpair()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        inbox = Inbox()
        self.theirs.setblocking(False)
        try:
            while True:
                select.select([self.theirs], [], [], 10)
                inbox.receive(self.theirs)
                while (got := inbox.next()) is not None:
                    for fd in inbox.take_fds():
                        os.close(fd)
                    answer = self.answers.get(got[1], (p.REPLY | p.ERROR, 95, b"", []))
                    flags, error, body, fds = answer(bytes(got[4])) if callable(answer) else answer
                    # As a foreign server may: a question of its own first, and an answer to nobody.
                    send(self.theirs, p.message(1, p.DMA_READ, bytes(16)))
                    send(self.theirs, p.message(got[0] ^ 0x8000, got[1], b"", p.REPLY), [0])
                    send(self.theirs, p.message(got[0], got[1], body, flags, error), fds)
        except Exception:
            self.theirs.close()

    def close(self) -> None:
        self.ours.close()
        self.thread.join(5)
        self.theirs.close()


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({p.VERSION: (p.REPLY, 0, p.Version(1, 0).pack(), [])}, "version 1.0"),
        ({p.VERSION: (p.REPLY, 0, p.Version(0, 9).pack(), [])}, "version 0.9"),
        ({p.VERSION: (p.REPLY, 0, b"\0", [])}, "VERSION"),
        ({p.VERSION: (p.REPLY | p.ERROR, 22, b"", [])}, "refuses VERSION: Invalid argument"),
        ({p.VERSION: (p.REPLY, 0, p.Version(0, 0).pack(), [0, 0])}, "strange reply"),
        ({p.GET_INFO: (p.REPLY, 0, bytes(15), [])}, "makes no sense"),
        ({p.GET_INFO: (p.REPLY, 0, bytes(1 << 16) + bytes(100), [])}, "does not speak the protocol"),
        ({p.REGION_READ: (p.REPLY, 0, bytes(17), [])}, "read 1 bytes of 2"),
        ({p.REGION_READ: (p.REPLY | p.ERROR, 0, b"", [])}, "Input/output error"),
    ],
)
def test_a_server_that_answers_nonsense_is_an_error(
    path: Path, answers: dict[int, tuple[int, int, bytes, list[int]]], why: str
) -> None:
    script = Script(answers)
    with pytest.raises(TransportError, match=why):
        VfioUserTransport(script.ours, timeout_s=2)
    script.close()


def region(info: p.RegionInfo) -> tuple[int, int, bytes, list[int]]:
    return p.REPLY, 0, info.pack(), []


@pytest.mark.parametrize(("size", "areas"), [(1 << 20, ()), (8192, ((0, 8192),))])
def test_memory_that_is_smaller_than_the_server_says_is_not_touched(
    path: Path, size: int, areas: tuple[tuple[int, int], ...]
) -> None:
    memory = Memory(4096)
    info = p.RegionInfo(0, size, 7, 0, areas)
    script = Script({p.GET_REGION_INFO: (p.REPLY, 0, info.pack(), [memory.fd])})
    transport = VfioUserTransport(script.ours, timeout_s=2)
    with pytest.raises(TransportError, match="cannot be mapped"):
        transport.map_bar(0)
    transport.close()
    script.close()
    memory.close()


def test_areas_that_are_not_pages_of_the_region_stay_trapped(path: Path) -> None:
    memory = Memory(8192)
    info = p.RegionInfo(0, 8192, 7, 0, ((4096, 8192), (0, 1 << 62), (4, 4096), (0, 0)))
    answer = bytes(16) + (0x1234).to_bytes(4, "little")
    script = Script({p.GET_REGION_INFO: (p.REPLY, 0, info.pack(), [memory.fd])})
    transport = VfioUserTransport(script.ours, timeout_s=2)
    script.answers[p.REGION_READ] = (p.REPLY, 0, answer, [])
    bar = transport.map_bar(0)
    assert [bar.read32(offset) for offset in (0, 4, 4096, 8188)] == [0x1234] * 4
    transport.close()
    script.close()
    memory.close()


def test_a_short_reply_without_a_word_of_capabilities_is_asked_for_again(path: Path) -> None:
    """libvfio-user's: only argsz says that there is more."""
    memory = Memory(8192)
    whole = p.RegionInfo(0, 8192, 7, 0, ((4096, 4096),)).pack()

    def answer(request: bytes) -> tuple[int, int, bytes, list[int]]:
        if p.RegionInfo.unpack(request).argsz >= len(whole):
            return p.REPLY, 0, whole, [memory.fd]
        return p.REPLY, 0, whole[:4] + (7).to_bytes(4, "little") + whole[8:12] + bytes(4) + whole[16:32], []

    script = Script({p.GET_REGION_INFO: answer})
    transport = VfioUserTransport(script.ours, timeout_s=2)
    bar = transport.map_bar(0)
    bar.write32(4096, 5)
    assert memory.map[4096] == 5
    transport.close()
    script.close()
    memory.close()


def test_a_server_that_does_not_tell_which_parts_may_be_mapped_is_an_error(path: Path) -> None:
    memory = Memory(8192)
    whole = p.RegionInfo(0, 8192, 7, 0, ((0, 4096),)).pack()
    endless = (1 << 20).to_bytes(4, "little") + whole[4:32]
    for body in (whole[:32], endless):
        script = Script({p.GET_REGION_INFO: (p.REPLY, 0, body, [memory.fd])})
        transport = VfioUserTransport(script.ours, timeout_s=2)
        with pytest.raises(TransportError, match="does not describe region 0"):
            transport.map_bar(0)
        transport.close()
        script.close()
    memory.close()


@pytest.mark.parametrize(
    "register",
    [
        p.IoFd(0x40, 4, 0, shadow=5),
        p.IoFd(0x40, 4, 7, shadow=1),
        p.IoFd(0x40, 4, 0, shadow=1, shadow_offset=4096),
    ],
)
def test_events_that_lead_nowhere_are_an_error(path: Path, register: p.IoFd) -> None:
    memory = Memory(4096)
    event = os.eventfd(0)
    script = Script(
        {
            p.GET_REGION_INFO: region(p.RegionInfo(0, 4096, 3)),
            p.GET_REGION_IO_FDS: (p.REPLY, 0, p.IoFds(0, (register,)).pack(), [event, memory.fd]),
        }
    )
    transport = VfioUserTransport(script.ours, timeout_s=2)
    with pytest.raises(TransportError, match="events of region 0"):
        transport.map_bar(0)
    transport.close()
    script.close()
    memory.close()
    os.close(event)


def test_events_of_a_kind_without_shadow_memory_are_not_used(path: Path) -> None:
    event = os.eventfd(0)
    plain = p.IoFd(0x40, 4, 0, type=p.IO_FD_EVENT)
    script = Script(
        {
            p.GET_REGION_INFO: region(p.RegionInfo(0, 4096, 3)),
            p.GET_REGION_IO_FDS: (p.REPLY, 0, p.IoFds(0, (plain,)).pack(), [event]),
        }
    )
    transport = VfioUserTransport(script.ours, timeout_s=2)
    bell = transport.map_bar(0).bell(0x40)
    assert bell.reg == ffi.NULL
    assert bell.socket >= 0
    transport.close()
    script.close()
    os.close(event)
