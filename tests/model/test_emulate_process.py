"""`ixroute emulate` as users run it: clients, clients that vanish, signals, and what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ixroute.driver.transport import TransportError
from ixroute.driver.vfio_user import VfioUserTransport
from lab.emulated import Emulated, emulated
from lab.packets import ethernet
from lab.support import wait_until

STATUS, CTRL, EERD, RAL0, RAH0 = 0x8, 0x0, 0x10014, 0xA200, 0xA204
DMATXCTL, TDBAL, TDLEN, TDT, TXDCTL, ENABLE = 0x4A80, 0x6000, 0x6008, 0x6018, 0x6028, 1 << 25
EERD_START, EERD_DONE = 1, 2
MAC = "02:00:00:00:77:10"


def eeprom_word(transport: VfioUserTransport, word: int) -> int:
    bar = transport.map_bar(0)
    bar.write32(EERD, word << 2 | EERD_START)
    for _ in range(1000):
        value = bar.read32(EERD)
        if value & EERD_DONE:
            return value >> 16
    raise AssertionError("EERD never completes")


def eeprom_sum(transport: VfioUserTransport) -> int:
    """Words 0 to 3F, and the sections that words 03 to 0E point to (datasheet 6.3: the checksum)."""
    words = [eeprom_word(transport, word) for word in range(0x40)]
    total = sum(words)
    for pointer in words[3:15]:
        if pointer not in (0, 0xFFFF):
            length = eeprom_word(transport, pointer)
            total += sum(eeprom_word(transport, pointer + 1 + i) for i in range(length))
    return total & 0xFFFF


def test_a_client_reads_what_a_driver_reads_first(tmp_path: Path) -> None:
    with emulated(tmp_path, ["none"], "--mac", MAC) as cards:
        assert cards.sockets == [f"{tmp_path}/card0.sock"]
        transport = cards.transport()
        assert transport.config.read(0, 4) == 0x10FB8086
        assert transport.map_bar(0).size == 0x80000
        assert eeprom_sum(transport) == 0xBABA
        bar = transport.map_bar(0)
        address = bar.read32(RAL0).to_bytes(4, "little") + bar.read32(RAH0).to_bytes(4, "little")
        assert address[:6] == bytes.fromhex(MAC.replace(":", ""))
        assert transport.irq.count == 64
        transport.close()
    assert not Path(cards.sockets[0]).exists()


def test_cards_have_ids_addresses_and_sockets_of_their_own(tmp_path: Path) -> None:
    with emulated(tmp_path, ["pair:a", "pair:a", "discard"], "--device-id", "10f8", "--mac", MAC) as cards:
        transports = [cards.transport(number) for number in range(3)]
        assert {transport.config.read(2, 2) for transport in transports} == {0x10F8}
        assert [transport.map_bar(0).read32(RAH0) >> 8 & 0xFF for transport in transports] == [
            0x10,
            0x11,
            0x12,
        ]
        for transport in transports:
            transport.close()


def test_clients_come_one_after_another_and_each_finds_a_fresh_card(tmp_path: Path) -> None:
    with emulated(tmp_path, ["discard"]) as cards:
        for _ in range(5):
            transport = cards.transport()
            bar = transport.map_bar(0)
            fresh = bar.read32(RAL0)
            bar.write32(RAL0, 0x11223344)
            assert bar.read32(RAL0) == 0x11223344
            assert fresh != 0x11223344
            transport.close()


CLIENT = """
import os, sys, time
from ixroute.driver.vfio_user import VfioUserTransport
transport = VfioUserTransport(sys.argv[1])
transport.map_bar(0).write32(0xA200, 0x11223344)
transport.irq.start(4)
print("there", flush=True)
while True:
    transport.map_bar(0).read32(8)
"""


def descriptors(cards: Emulated) -> Counter[str]:
    """What the emulator's open descriptors lead to, without the numbers of sockets and pipes, and how many do.

    To be looked at with `after - before`: what a just started process has open for a moment only
    (a module that it imports) may be missing later.
    """
    directory = f"/proc/{cards.process.pid}/fd"
    found = []
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # closed since the directory was read
            found.append(re.sub(r"\d+", "N", os.readlink(f"{directory}/{name}")))
    return Counter(found)


def test_a_client_that_is_killed_in_the_midst_of_something_leaves_a_card_for_the_next(tmp_path: Path) -> None:
    with emulated(tmp_path, ["discard"]) as cards:
        before = descriptors(cards)
        for _ in range(3):
            client = subprocess.Popen(
                [sys.executable, "-c", CLIENT, cards.sockets[0]], stdout=subprocess.PIPE
            )
            assert client.stdout is not None
            assert client.stdout.readline() == b"there\n"
            client.send_signal(signal.SIGKILL)
            client.wait()
            client.stdout.close()
            transport = cards.transport()
            assert transport.map_bar(0).read32(RAL0) != 0x11223344
            transport.close()
        wait_until(
            lambda: not descriptors(cards) - before,
            5,
            lambda: f"descriptors of clients that have gone stay open: {descriptors(cards) - before}",
        )


def test_a_client_that_stays_keeps_others_waiting_and_a_client_of_rubbish_keeps_nobody(
    tmp_path: Path,
) -> None:
    with emulated(tmp_path, ["discard"]) as cards:
        for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\xff" * 5000):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(cards.sockets[0])
                client.sendall(rubbish)
        first = cards.transport()
        with pytest.raises(TransportError, match="another client"):
            VfioUserTransport(cards.sockets[0], timeout_s=0.3)
        assert first.map_bar(0).read32(STATUS) != 0xFFFFFFFF
        first.close()
        cards.transport().close()


def test_a_dma_fault_is_shown_as_it_happens(tmp_path: Path) -> None:
    with emulated(tmp_path, ["discard"]) as cards:
        transport = cards.transport()
        bar = transport.map_bar(0)
        bar.write32(DMATXCTL, 1)
        bar.write32(TDBAL, 0xDEAD0000)
        bar.write32(TDLEN, 4096)
        bar.write32(TXDCTL, ENABLE)
        bar.write32(TDT, 1)
        wait_until(lambda: "DMA FAULT" in cards.said(), 10, cards.said)
        (line,) = [line for line in cards.said().splitlines() if "DMA FAULT" in line]
        assert "0xdead0000" in line
        assert cards.sockets[0] in line
        transport.close()


def test_packets_pass_between_two_cards_and_their_drivers(tmp_path: Path) -> None:
    """pktgen drives both: numbered packets out by one card, counted as they come in by the other."""
    with emulated(tmp_path, ["pair:a", "pair:a"]) as cards:
        ports = [f"vfio-user:{path}" for path in cards.sockets]
        argv = [sys.executable, "-m", "ixroute", "pktgen", *ports, "--packets", "3000", "--rate", "5000"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "late 0" in done.stdout
    one, other = re.findall(r"packets  .*dma_faults 0.*\n  wire     (.*)", cards.said())
    assert "tx_packets 3000," in one
    assert "rx_packets 3000," in other


def test_a_file_is_played_when_a_driver_listens_and_not_before(tmp_path: Path) -> None:
    frames = [ethernet("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", 0x88B5, bytes([i]) * 50) for i in range(100)]
    header = struct.pack("=IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    records = (struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames)
    (tmp_path / "in.pcap").write_bytes(header + b"".join(records))
    with emulated(tmp_path, [f"pcap:in={tmp_path}/in.pcap,rate=1000"]) as cards:
        time.sleep(0.5)
        dump = cards.tool("dump", "--write", f"{tmp_path}/got.pcap", "--count", "100")
        said, _ = dump.communicate(timeout=30)
        assert dump.returncode == 0, said
    got = (tmp_path / "got.pcap").read_bytes()
    assert all(frame in got for frame in frames), said


@pytest.mark.parametrize("command", ["dump", "pktgen"])
def test_a_tool_whose_emulator_is_killed_ends_and_says_so(tmp_path: Path, command: str) -> None:
    with emulated(tmp_path, ["discard"]) as cards:
        tool = cards.tool(command)

        def has_its_card() -> bool:
            cards.process.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
            return "dma_maps 2" in cards.said()

        wait_until(has_its_card, 20, cards.said)
        cards.process.kill()
        said, _ = tool.communicate(timeout=30)
    assert tool.returncode == 1, said
    assert "Traceback" not in said
    assert "the server has gone" in said


@pytest.mark.parametrize("connected", [False, True])
def test_nobody_asks_and_no_cpu_is_used(tmp_path: Path, connected: bool) -> None:
    with emulated(tmp_path, ["pair:a", "pair:a"]) as cards:
        transport = cards.transport() if connected else None
        time.sleep(0.3)
        before = cards.cpu_seconds()
        time.sleep(1.0)
        used = cards.cpu_seconds() - before
        assert used < 0.2, f"{used:.2f} s of CPU in a second in which nothing happened"
        if transport is not None:
            transport.close()


def answers(path: str) -> bool:
    try:
        VfioUserTransport(path).close()
    except TransportError:
        return False
    return True


def test_whoever_started_it_may_stop_listening(tmp_path: Path) -> None:
    cards = Emulated(tmp_path, ["discard"])
    assert cards.process.stdout is not None
    cards.process.stdout.close()
    wait_until(lambda: answers(f"{tmp_path}/card0.sock"), 30, cards.said)
    assert cards.end() == 0
    assert "clients 1" in cards.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_under_a_connected_client_and_nothing_is_left(tmp_path: Path, number: int) -> None:
    cards = Emulated(tmp_path, ["pair:a", "pair:a", f"pcap:out={tmp_path}/out.pcap"])
    cards.wait_ready()
    transport = cards.transport()
    assert cards.end(number) == 0, cards.said()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emulate.log", "out.pcap"]
    assert (tmp_path / "out.pcap").stat().st_size == 24
    with pytest.raises(TransportError):
        transport.map_bar(0).read32(STATUS)
    transport.close()
    assert "clients" in cards.said()
    assert "Traceback" not in cards.said()


def test_sigusr1_prints_the_counters_and_it_goes_on(tmp_path: Path) -> None:
    with emulated(tmp_path, ["discard"]) as cards:
        cards.transport().close()
        cards.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "engine" in cards.said(), 5, cards.said)
        assert "clients 1" in cards.said()
        assert "rx_packets 0" in cards.said()
        cards.transport().close()


def test_a_socket_that_a_killed_process_left_is_taken_over_and_one_in_use_is_not(tmp_path: Path) -> None:
    first = Emulated(tmp_path, ["discard"])
    first.wait_ready()
    second = Emulated(tmp_path, ["discard"])
    assert second.process.wait(30) == 1
    second.end()
    assert "another process listens there" in second.said()
    first.transport().close()
    first.end(signal.SIGKILL)
    assert Path(first.sockets[0]).exists()
    with emulated(tmp_path, ["discard"]) as third:
        third.transport().close()


@pytest.mark.parametrize(
    ("wires", "options", "code", "says"),
    [
        (["pair:a"], [], 1, "nobody at the other end"),
        (["veth0"], [], 1, "no such kind"),
        (["pcap:in=/dev/null/x"], [], 1, "cannot be read"),
        (["discard"], ["--count", "2"], 2, "1 --wire for 2 cards"),
        (["discard"], ["--device-id", "1234"], 2, "no model of device id 1234"),
        (["discard"], ["--socket", "/proc/none/x.sock"], 1, "no such directory: run `mkdir -p /proc/none`"),
        (["discard"], ["--socket", "/tmp/" + "x" * 200], 1, "choose a shorter --socket"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    tmp_path: Path, wires: list[str], options: list[str], code: int, says: str
) -> None:
    cards = Emulated(tmp_path, wires, *options)
    assert cards.process.wait(30) == code
    cards.end()
    assert says in cards.said()
    assert len(cards.said().splitlines()) == 1, cards.said()
    assert [path.name for path in tmp_path.iterdir()] == ["emulate.log"]
