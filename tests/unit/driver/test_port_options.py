"""What can be said of ports without any device."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from ixroute.driver import bpf, ethtool
from ixroute.driver.changes import Changes
from ixroute.driver.kinds import frames_wanted, mtu_of, open_port, parse_spec
from ixroute.driver.port import PortError, PortOptions
from ixroute.driver.umem import Umem


def test_a_spec_is_a_kind_and_a_device() -> None:
    assert parse_spec("af_xdp:eth1") == ("af_xdp", "eth1")
    assert parse_spec("vfio:0000:03:00.0") == ("vfio", "0000:03:00.0")


@pytest.mark.parametrize("spec", ["eth1", "af_xdp:", ":eth1", ""])
def test_a_spec_without_kind_or_device_is_an_error_that_shows_how(spec: str) -> None:
    with pytest.raises(PortError, match=r"port lan: .*af_xdp:eth1"):
        parse_spec(spec, "lan")


def test_an_unknown_kind_is_an_error_that_names_the_kinds() -> None:
    umem = Umem(16, 2048, "off")
    with pytest.raises(PortError, match=r"there are af_xdp, .* and mem"):
        open_port("lan", 0, "dpdk:0", umem, 1)
    umem.close()


def test_an_error_says_the_port_and_keeps_the_spec() -> None:
    error = PortError("af_xdp:eth1", "is gone", "lan")
    assert (str(error), error.spec, error.port, error.message) == (
        "port lan: is gone",
        "af_xdp:eth1",
        "lan",
        "is gone",
    )
    assert str(PortError("af_xdp:eth1", "is gone")) == "port af_xdp:eth1: is gone"


@pytest.mark.parametrize("slots", [0, 32, 100, 65536])
def test_ring_sizes_out_of_range_are_refused(slots: int) -> None:
    with pytest.raises(ValueError, match="rx_slots"):
        PortOptions(rx_slots=slots)
    with pytest.raises(ValueError, match="tx_slots"):
        PortOptions(tx_slots=slots)


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="mode"):
        PortOptions(mode="offload")
    with pytest.raises(ValueError, match="zero_copy"):
        PortOptions(zero_copy="yes")


@pytest.mark.parametrize(("queues", "each"), [(1, 2048), (2, 1024), (3, 512), (4, 512), (32, 64), (100, 64)])
def test_a_workers_queues_share_its_slots(queues: int, each: int) -> None:
    assert PortOptions().slots(queues) == (each, each)


def test_a_memory_port_needs_frames_for_both_rings() -> None:
    assert frames_wanted("mem:x", 2, PortOptions(rx_slots=1024, tx_slots=512)) == 1536
    assert frames_wanted("mem:x", 1) == 4096
    assert mtu_of("mem:x") == 1500


@pytest.mark.parametrize("ask", [lambda: frames_wanted("af_xdp:nonesuch0", 1), lambda: mtu_of("af_xdp:no")])
def test_asking_for_an_interface_that_is_not_there_is_an_error_that_says_so(ask: object) -> None:
    with pytest.raises(PortError, match="there is no interface"):
        ask()  # type: ignore[operator]


def test_combined_channels_are_resized_as_such() -> None:
    now = ethtool.Channels(rx=0, tx=0, combined=8, max_rx=0, max_tx=0, max_combined=63, other=1)
    assert (now.rx_queues, now.tx_queues) == (8, 8)
    assert now.resized(8) is None
    assert now.resized(64) is None
    wanted = now.resized(2)
    assert wanted is not None
    assert (wanted.rx, wanted.tx, wanted.combined, wanted.other) == (0, 0, 2, 1)


def test_separate_channels_are_resized_both_ways() -> None:
    now = ethtool.Channels(rx=1, tx=1, combined=0, max_rx=4, max_tx=4, max_combined=0)
    wanted = now.resized(4)
    assert wanted is not None
    assert (wanted.rx_queues, wanted.tx_queues) == (4, 4)
    assert now.resized(5) is None
    assert now.resized(1) is None


def test_the_program_redirects_by_queue_and_drops_what_no_socket_takes() -> None:
    code = bpf.redirect_program(map_fd=9)
    instructions = [struct.unpack_from("=BBhi", code, at) for at in range(0, len(code), 8)]
    assert instructions == [
        (0x61, 0x12, 16, 0),  # r2 = *(u32 *)(r1 + 16)
        (0x18, 0x11, 0, 9),  # r1 = map 9
        (0x00, 0x00, 0, 0),
        (0xB7, 0x03, 0, 1),  # r3 = XDP_DROP
        (0x85, 0x00, 0, 51),  # call bpf_redirect_map
        (0x95, 0x00, 0, 0),  # exit
    ]


class FakeDevice:
    ifindex = 7

    def __init__(self, name: str = "eth1", mac: str = "02:00:00:00:00:01") -> None:
        self._name, self._mac = name, mac

    def name(self) -> str:
        return self._name

    def mac(self) -> bytes:
        return bytes.fromhex(self._mac.replace(":", ""))


def changes(directory: Path, device: FakeDevice | None = None) -> Changes:
    return Changes(str(directory), device or FakeDevice())  # type: ignore[arg-type]


def test_a_second_start_after_a_kill_puts_back_what_the_first_found(tmp_path: Path) -> None:
    assert changes(tmp_path).note("disable_ipv6", "0") == "0"
    second = changes(tmp_path)
    assert second.note("disable_ipv6", "1") == "0"
    assert second.note("channels", [1, 1, 0]) == [1, 1, 0]
    second.undone()
    assert changes(tmp_path).note("disable_ipv6", "1") == "1"


def test_a_note_of_another_interface_with_the_same_number_does_not_count(tmp_path: Path) -> None:
    changes(tmp_path).note("disable_ipv6", "0")
    other = changes(tmp_path, FakeDevice(mac="02:00:00:00:00:02"))
    assert other.note("disable_ipv6", "1") == "1"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", json.dumps({"identity": 3})])
def test_a_spoilt_note_is_as_none(tmp_path: Path, text: str) -> None:
    changes(tmp_path).note("disable_ipv6", "0")
    (note,) = tmp_path.iterdir()
    note.write_text(text)
    assert changes(tmp_path).note("disable_ipv6", "1") == "1"


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    unwritable = changes(tmp_path / "file" / "state")
    assert unwritable.note("disable_ipv6", "0") == "0"
    unwritable.undone()
