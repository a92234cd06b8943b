"""Ports on PCI cards: from the spec to the driver's class, and the frames they want."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from vfio_fakes import DEVICE, FakeKernel, Machine

from ixroute.config import Config, Flags, with_flags
from ixroute.doctor import FAIL, OK, WARN
from ixroute.doctor import Machine as DoctorsMachine
from ixroute.doctor.cards import cards
from ixroute.driver import kinds, vfio
from ixroute.driver.ixgbe import port as ixgbe_port
from ixroute.driver.kinds import frame_bytes_wanted, frames_wanted, mtu_of, open_port
from ixroute.driver.noiommu import NoIommuContainer
from ixroute.driver.port import PortError, PortOptions
from ixroute.driver.transport import Transport
from ixroute.driver.umem import Umem
from ixroute.driver.vfio_group import VfioContainer


class Recorder:
    """In place of the driver: what it was given."""

    made: Sequence[Any] = ()

    def __init__(self, *given: Any) -> None:
        self.name, self.index, self.spec, self.umem, self.workers, self.options, self.transport = given
        self.mtu = 1500
        self.mtus: list[int] = []
        Recorder.made = (*Recorder.made, self)

    def set_mtu(self, mtu: int) -> None:
        if mtu > 3000:
            raise PortError(self.spec, "too large", self.name)
        self.mtu = mtu

    def close(self) -> None:
        self.transport.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    kernel = FakeKernel(machine)
    containers = {"vfio": VfioContainer(kernel), "noiommu": NoIommuContainer(kernel)}
    for container in containers.values():
        container.binder = machine.binder()
    monkeypatch.setattr(vfio, "_containers", containers)
    monkeypatch.setattr(ixgbe_port, "IxgbePort", Recorder)
    monkeypatch.setattr(Recorder, "made", ())
    return machine


@pytest.fixture
def umem() -> Iterator[Umem]:
    umem = Umem(64, 4096, "off")
    yield umem
    umem.close()


def test_a_card_is_given_to_its_driver_with_its_transport(machine: Machine, umem: Umem) -> None:
    machine.add()
    options = PortOptions(force_id=0x1563)
    port: Any = open_port("lan", 3, "03:00.0", umem, 2, options)
    assert (port.name, port.index, port.spec, port.umem, port.workers) == ("lan", 3, DEVICE, umem, 2)
    assert port.options is options
    transport: Transport = port.transport
    assert (transport.kind, transport.device) == ("vfio", DEVICE)
    assert transport.config.read(2, 2) == 0x10FB
    port.close()


def test_a_card_without_an_iommu_keeps_its_word_in_the_spec(machine: Machine, umem: Umem) -> None:
    machine.add(noiommu=True)
    mode = machine.root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    mode.parent.mkdir(parents=True)
    mode.write_text("Y\n")
    port: Any = open_port("lan", 0, "noiommu:03:00.0", umem, 1)
    assert (port.spec, port.transport.kind) == (f"noiommu:{DEVICE}", "noiommu")
    port.close()


def test_the_kernel_gets_the_card_back_when_the_options_say_so(machine: Machine, umem: Umem) -> None:
    machine.add()
    open_port("lan", 0, DEVICE, umem, 1).close()
    assert machine.bus.device(DEVICE).driver == "vfio-pci"
    open_port("lan", 0, DEVICE, umem, 1, PortOptions(restore_driver=True)).close()
    assert machine.bus.device(DEVICE).driver == "ixgbe"


def test_what_the_transport_lacks_is_the_ports_error(machine: Machine, umem: Umem) -> None:
    machine.add(driver="ixgbe")
    with pytest.raises(PortError, match=r"port lan: 0000:03:00.0: .*`ixroute bind 0000:03:00.0`") as caught:
        open_port("lan", 0, "03:00.0", umem, 1)
    assert caught.value.spec == DEVICE
    assert not Recorder.made
    with pytest.raises(PortError, match=r"port lan: /nowhere/card.sock: "):
        open_port("lan", 0, "vfio-user:/nowhere/card.sock", umem, 1)


def test_an_unknown_kind_names_those_there_are(umem: Umem) -> None:
    with pytest.raises(PortError, match="there are af_xdp, vfio, vfio-user, noiommu and mem"):
        open_port("lan", 0, "dpdk:0", umem, 1)


def test_the_mtu_of_the_tap_that_is_there_is_taken_over(
    machine: Machine, umem: Umem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine.add()
    mtus = {"lan": 2500, "wan": 9000}
    monkeypatch.setattr(kinds, "_interface_mtu", mtus.get)
    assert [mtu_of(DEVICE, name) for name in ("lan", "wan", "dmz", "")] == [2500, 9000, 1500, 1500]
    assert mtu_of("vfio-user:/x.sock", "wan") == 9000
    for name, mtu in (("lan", 2500), ("wan", 1500), ("dmz", 1500)):
        port = open_port(name, 0, DEVICE, umem, 1)
        assert port.mtu == mtu
        port.close()
    assert "port wan: too large; its interface will have MTU 1500" in caplog.text


def test_an_interface_that_is_not_there_has_no_mtu() -> None:
    assert kinds._interface_mtu("no-such-one") is None
    assert kinds._interface_mtu("lo") == int(Path("/sys/class/net/lo/mtu").read_text())


FRAMES = [
    # spec, MTU, bytes of a frame
    (DEVICE, 68, 4096),
    (DEVICE, 1500, 4096),
    (DEVICE, 3000, 4096),
    (DEVICE, 3500, 8192),
    ("vfio-user:/x.sock", 7000, 8192),
    ("noiommu:03:00.0", 9000, 16384),
    (DEVICE, 60_000, 16384),
    ("af_xdp:x", 1500, 2048),
    ("af_xdp:x", 3500, 4096),
    ("af_xdp:x", 9000, 4096),
    ("mem:x", 9000, 16384),
]


@pytest.mark.parametrize(("spec", "mtu", "frame_bytes"), FRAMES)
def test_a_port_wants_the_smallest_frame_in_which_it_can_receive(
    spec: str, mtu: int, frame_bytes: int
) -> None:
    assert frame_bytes_wanted(spec, mtu) == frame_bytes


def test_a_card_has_as_many_queues_as_workers() -> None:
    options = PortOptions(rx_slots=1024, tx_slots=512)
    assert [frames_wanted(DEVICE, workers, options) for workers in (1, 4)] == [1536, 1536]


# ---- the doctor


class Looked(DoctorsMachine):
    """The made-up machine, with a group that cannot be opened for `refused`."""

    refused = 0

    def open_error(self, path: str) -> OSError | None:
        assert path.startswith("dev/vfio/")
        return OSError(self.refused, os.strerror(self.refused)) if self.refused else None

    def answers(self, path: str) -> bool:
        return False


def findings(machine: Machine, *ports: str, refused: int = 0) -> list[tuple[str, str, str]]:
    looked = Looked(root=machine.root, cores=frozenset({0}))
    looked.refused = refused
    config = with_flags(Config(), Flags(ports=ports))
    return [(found.level, found.text, found.fix) for found in cards(looked, config)]


def test_the_doctor_finds_nothing_wrong_with_a_bound_card(machine: Machine) -> None:
    machine.add()
    assert findings(machine, "lan=03:00.0", "wan=af_xdp:eth1") == [
        (OK, f"lan: {DEVICE}, group 12, /dev/vfio/12", "")
    ]


SICK: list[tuple[str, dict[str, Any], str, int, str, str]] = [
    ("not bound", {"driver": "ixgbe"}, DEVICE, 0, "has the driver ixgbe", f"ixroute bind {DEVICE}"),
    ("no driver", {"driver": None}, DEVICE, 0, "has the driver none", f"ixroute bind {DEVICE}"),
    ("no IOMMU", {"group": None}, DEVICE, 0, "behind no IOMMU", "intel_iommu=on"),
    ("no permission", {}, DEVICE, errno.EACCES, "/dev/vfio/12: Permission denied", "70-ixroute.rules"),
    ("in use", {}, DEVICE, errno.EBUSY, "/dev/vfio/12 is in use", "fuser -v /dev/vfio/12"),
    ("another card", {"device": 0x1533}, DEVICE, 0, "8086:1533 is no 82599", "af_xdp:INTERFACE"),
    ("not there", {}, "04:00.0", 0, "no PCI device has this address", "ixroute devices"),
    ("unsafe mode off", {"noiommu": True}, f"noiommu:{DEVICE}", 0, "without an IOMMU is off", "CONFIG_VFIO_NOIOMMU"),
    ("no emulator", {}, "vfio-user:/run/x.sock", 0, "no socket /run/x.sock", "ixroute emulate"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("card", "spec", "refused", "text", "fix"), [s[1:] for s in SICK], ids=[s[0] for s in SICK]
)
def test_the_doctor_names_what_stands_in_a_cards_way(
    machine: Machine, card: dict[str, Any], spec: str, refused: int, text: str, fix: str
) -> None:
    machine.add(**card)
    failed = [found for found in findings(machine, f"lan={spec}", refused=refused) if found[0] == FAIL]
    assert len(failed) == 1
    assert text in failed[0][1]
    assert fix in failed[0][2]


def test_the_doctor_names_cards_of_the_same_group_and_far_nodes(machine: Machine) -> None:
    machine.add()
    machine.add("0000:03:00.1", driver="ixgbe")
    node = machine.root / "sys/devices/system/node/node0"
    node.mkdir(parents=True)
    (node / "cpulist").write_text("8-9\n")
    assert findings(machine, "lan=03:00.0") == [
        (FAIL, "lan: IOMMU group 12 also holds 0000:03:00.1 (ixgbe)", "ixroute bind 0000:03:00.1"),
        (WARN, f"lan: {DEVICE} hangs on node 0, core 0 does not", "put the workers on cores 8-9"),
    ]


def test_the_doctor_warns_of_a_card_without_an_iommu(machine: Machine) -> None:
    machine.add(noiommu=True)
    mode = machine.root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    mode.parent.mkdir(parents=True)
    mode.write_text("Y\n")
    levels = [found[0] for found in findings(machine, f"lan=noiommu:{DEVICE}")]
    assert levels == [WARN, OK]
