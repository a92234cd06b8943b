"""`ixroute emulate` with wires into the kernel: what it makes and removes, links that follow, packets end to end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ixroute.demo.netns import CommandError, Namespace
from lab.emulated import Emulated, emulated
from lab.support import wait_until

pytestmark = pytest.mark.netns

LINKS, LINK_UP = 0x42A4, 1 << 30


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"wires-emulate-{os.getpid()}")
    try:
        made.create()
        made.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        yield made
    finally:
        made.destroy()


def exists(space: Namespace, name: str) -> bool:
    try:
        space.ip(f"link show dev {name}")
    except CommandError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_tap_is_left_however_it_ends(space: Namespace, tmp_path: Path, number: int) -> None:
    cards = Emulated(tmp_path, ["tap:t{n}"], "--count", "2", prefix=space.command([]))
    cards.wait_ready()
    assert exists(space, "t0")
    assert exists(space, "t1")
    cards.end(number)
    wait_until(lambda: not exists(space, "t0") and not exists(space, "t1"), 5, cards.said)


def test_a_wire_that_cannot_be_had_leaves_no_other_behind(space: Namespace, tmp_path: Path) -> None:
    cards = Emulated(tmp_path, ["tap:t0", "if:none0"], prefix=space.command([]))
    assert cards.process.wait(30) == 1
    cards.end()
    assert "if:none0: no such interface" in cards.said()
    assert not exists(space, "t0")
    assert [path.name for path in tmp_path.iterdir()] == ["emulate.log"]


def test_a_cards_link_follows_its_wire(space: Namespace, tmp_path: Path) -> None:
    with emulated(tmp_path, ["tap:t0"], prefix=space.command([])) as cards:
        transport = cards.transport()
        bar = transport.map_bar(0)

        def up() -> bool:
            return bool(bar.read32(LINKS) & LINK_UP)

        def down() -> bool:
            return not up()

        wait_until(up, 5, cards.said)
        for state, wanted in (("down", False), ("up", True), ("down", False)):
            space.ip(f"link set t0 {state}")
            wait_until(up if wanted else down, 5, cards.said)
        space.ip("link del t0")
        time.sleep(0.2)
        before = cards.cpu_seconds()
        time.sleep(1.0)
        assert cards.cpu_seconds() - before < 0.2, "a wire that is gone costs nothing"
        assert not up()
        transport.close()
    assert "was deleted" in cards.said()


def test_numbered_packets_leave_by_an_interface(space: Namespace, tmp_path: Path) -> None:
    space.ip("link add w0 type veth peer name w1")
    space.ip("link set w0 up")
    space.ip("link set w1 up")
    with (
        space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as far,
        emulated(tmp_path, ["if:w0"], prefix=space.command([])) as cards,
    ):
        far.bind(("w1", 3))
        far.settimeout(10)
        generator = cards.tool("pktgen", "--packets", "200", "--rate", "2000", "--size", "100,1514")
        frames = [far.recv(65536) for _ in range(200)]
        said, _ = generator.communicate(timeout=30)
        assert generator.returncode == 0, said
        assert {len(frame) for frame in frames} == {100, 1514}
        assert len(set(frames)) == 200
    assert "dma_faults 0" in cards.said()
