"""PCI devices and who has them, on a machine made up."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from vfio_fakes import DEVICE, SIBLING, Machine

from ixroute.cli import main
from ixroute.commands import bind as bind_command
from ixroute.commands import devices as devices_command
from ixroute.driver.pci import PciBus, card_name
from ixroute.driver.pci_bind import PciBinder
from ixroute.driver.specs import join_spec, pci_address, split_spec
from ixroute.driver.transport import TransportError


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_device_is_what_sysfs_says(machine: Machine) -> None:
    base = machine.add(driver="ixgbe")
    (base / "net/enp03f0").joinpath("flags").write_text("0x1003\n")
    (base / "net/enp03f0").joinpath("carrier").write_text("1\n")
    (base / "net/enp03f0").joinpath("speed").write_text("10000\n")
    device = machine.bus.device("03:00.0")
    assert (device.address, device.vendor, device.device, device.class_code) == (
        DEVICE,
        0x8086,
        0x10FB,
        0x0200,
    )
    assert (device.driver, device.override, device.iommu_group, device.numa_node) == ("ixgbe", None, 12, 0)
    assert device.bars == ((0, 0x20000),)
    assert (device.is_ethernet, device.is_bridge, device.has_vfio, device.noiommu) == (
        True,
        False,
        False,
        False,
    )
    [interface] = device.interfaces
    assert (interface.name, interface.up, interface.carrier, interface.speed_mbps) == (
        "enp03f0",
        True,
        True,
        10_000,
    )


def test_a_virtio_card_has_its_interface_one_level_deeper(machine: Machine) -> None:
    base = machine.add(driver="virtio-pci", native="virtio-pci")
    (base / "net").rename(base / "virtio2")
    (base / "virtio2/net").mkdir()
    (base / "virtio2/enp03f0").rename(base / "virtio2/net/enp03f0")
    assert [interface.name for interface in machine.bus.device(DEVICE).interfaces] == ["enp03f0"]


def test_a_device_without_group_node_or_interface_has_none_of_them(machine: Machine) -> None:
    base = machine.add(driver=None, group=None)
    (base / "numa_node").write_text("-1\n")
    device = machine.bus.device(DEVICE)
    assert (device.driver, device.iommu_group, device.numa_node, device.interfaces) == (None, None, None, ())
    assert device.group_file is None
    assert not machine.bus.has_iommu()


def test_only_network_cards_are_listed_by_address(machine: Machine) -> None:
    machine.add(SIBLING)
    machine.add()
    machine.add("0000:01:00.0", class_code=0x010802, driver="nvme", native="nvme")
    assert [device.address for device in machine.bus.ethernet_devices()] == [DEVICE, SIBLING]
    assert machine.bus.has_iommu()


def test_groups_made_up_for_cards_without_an_iommu_are_none(machine: Machine) -> None:
    machine.add(noiommu=True)
    device = machine.bus.device(DEVICE)
    assert device.noiommu
    assert device.group_file == "dev/vfio/noiommu-12"
    assert not machine.bus.has_iommu()


ADDRESSES = {
    "0000:03:00.0": "0000:03:00.0",
    "03:00.0": "0000:03:00.0",
    "0001:AF:1f.7": "0001:af:1f.7",
    "10000:01:00.0": "10000:01:00.0",
    "3:0.0": None,
    "0000:03:00.8": None,
    "0000:03:20.0": None,
    "0000:03:00.0 ": None,
    "eth0": None,
}


@pytest.mark.parametrize(("text", "address"), ADDRESSES.items())
def test_an_address_is_completed_or_is_none(text: str, address: str | None) -> None:
    assert pci_address(text) == address


SPECS = {
    "0000:03:00.0": ("vfio", "0000:03:00.0"),
    "03:00.0": ("vfio", "0000:03:00.0"),
    "vfio:03:00.0": ("vfio", "0000:03:00.0"),
    "noiommu:03:00.0": ("noiommu", "0000:03:00.0"),
    "vfio-user:/run/a:b.sock": ("vfio-user", "/run/a:b.sock"),
    "af_xdp:eth1": ("af_xdp", "eth1"),
    "mem:x": ("mem", "x"),
}


@pytest.mark.parametrize(("spec", "parts"), SPECS.items())
def test_a_spec_has_one_way_to_be_written(spec: str, parts: tuple[str, str]) -> None:
    assert split_spec(spec) == parts
    assert split_spec(join_spec(*parts)) == parts
    assert join_spec("vfio", DEVICE) == DEVICE


def test_names_come_from_the_systems_list(tmp_path: Path) -> None:
    assert card_name(0x8086, 0x10FB, tmp_path) == "8086:10fb"
    ids = tmp_path / "usr/share/misc/pci.ids"
    ids.parent.mkdir(parents=True)
    ids.write_text(
        "# comment\n1af4  Red Hat\n\t10fb  Not this\n8086  Intel\n\t10fb  82599ES\n\t\t8086 7a11  X520\n9000  Other\n"
    )
    assert card_name(0x8086, 0x10FB, tmp_path) == "82599ES"
    assert card_name(0x8086, 0x9999, tmp_path) == "8086:9999"
    assert card_name(0xFFFF, 0x10FB, tmp_path) == "ffff:10fb"


# ---- bind


def test_a_card_goes_to_vfio_pci_and_back(machine: Machine) -> None:
    machine.add(driver="ixgbe")
    now = machine.binder().bind("03:00.0")
    assert (now.driver, now.override, now.interfaces) == ("vfio-pci", "vfio-pci", ())
    place = f"sys/bus/pci/devices/{DEVICE}"
    assert machine.written == [
        (f"{place}/driver_override", "vfio-pci\n"),
        (f"{place}/driver/unbind", DEVICE),
        ("sys/bus/pci/drivers_probe", DEVICE),
    ]
    machine.written.clear()
    assert machine.binder().bind(DEVICE).driver == "vfio-pci"
    assert not machine.written
    now = machine.binder().unbind(DEVICE)
    assert (now.driver, now.override) == ("ixgbe", None)
    assert [interface.name for interface in now.interfaces] == ["enp03f0"]
    machine.written.clear()
    assert machine.binder().unbind(DEVICE).driver == "ixgbe"
    assert not machine.written


def test_a_card_without_a_driver_can_be_bound_and_its_module_is_loaded_when_given_back(
    machine: Machine,
) -> None:
    machine.add(driver=None)
    (machine.root / "sys/bus/pci/drivers/ixgbe").rmdir()
    machine.loadable = {"vfio-pci", "ixgbe"}
    assert machine.binder().bind(DEVICE).driver == "vfio-pci"
    assert machine.binder().unbind(DEVICE).driver == "ixgbe"
    machine.loadable.clear()
    machine.add(SIBLING, native="unknown")
    assert machine.binder().unbind(SIBLING).driver is None


IN_USE = {
    "up": ({"flags": "0x1003"}, "interface eth9 is up. `ip link set eth9 down`"),
    "a bridge's": ({"master": "br0"}, "eth9 belongs to br0. `ip link set eth9 nomaster`"),
    "below a VLAN": ({"upper_vlan7": ""}, "vlan7 lies on eth9. `ip link del vlan7`"),
}


@pytest.mark.parametrize(("files", "message"), IN_USE.values(), ids=list(IN_USE))
def test_an_interface_in_use_is_refused_unless_forced(
    machine: Machine, files: dict[str, str], message: str
) -> None:
    machine.add(driver="ixgbe", native="ixgbe")
    (machine.root / f"sys/bus/pci/devices/{DEVICE}/net/enp03f0").rename(
        machine.root / f"sys/bus/pci/devices/{DEVICE}/net/eth9"
    )
    place = machine.root / f"sys/bus/pci/devices/{DEVICE}/net/eth9"
    for name, text in files.items():
        if name == "master":
            (place / name).symlink_to(f"../{text}")
        else:
            (place / name).write_text(text)
    with pytest.raises(TransportError, match=f"is in use: {message}; or --force") as caught:
        machine.binder().bind(DEVICE)
    assert caught.value.device == DEVICE
    assert not machine.written
    assert machine.binder().bind(DEVICE, force=True).driver == "vfio-pci"


def test_addresses_and_routes_of_both_families_are_uses(machine: Machine) -> None:
    machine.add(driver="ixgbe")
    net = machine.root / "proc/net"
    net.mkdir(parents=True)
    (net / "if_inet6").write_text(
        "fe800000000000000000000000000001 02 40 20 80 enp03f0\n"
        "20010db8000000000000000000000001 02 40 00 80 eth7\n"
    )
    (net / "route").write_text("Iface\tDestination\neth7\t00000000\n")
    (net / "ipv6_route").write_text(
        "fe800000000000000000000000000000 40 0 0 0 00000100 1 0 00000001 enp03f0\n"
        "ff000000000000000000000000000000 08 0 0 0 00000100 1 0 00000001 enp03f0\n"
    )
    binder = machine.binder()
    assert binder.uses(machine.bus.device(DEVICE)) == []
    machine.addresses["enp03f0"] = "192.0.2.1"
    (net / "route").write_text("Iface\tDestination\nenp03f0\t00000000\nenp03f0\t000200C0\n")
    assert binder.uses(machine.bus.device(DEVICE)) == [
        ("enp03f0 has the address 192.0.2.1", "ip addr flush dev enp03f0"),
        ("2 routes go by enp03f0", "ip route show dev enp03f0"),
    ]
    machine.addresses.clear()
    (net / "route").unlink()
    (net / "if_inet6").write_text("20010db8000000000000000000000001 02 40 00 80 enp03f0\n")
    assert binder.uses(machine.bus.device(DEVICE)) == [
        ("enp03f0 has the address 2001:0db8:0000:0000:0000:0000:0000:0001", "ip addr flush dev enp03f0")
    ]


def test_a_driver_without_a_visible_interface_may_have_it_in_another_namespace(machine: Machine) -> None:
    machine.add(driver="ixgbe")
    (machine.root / f"sys/bus/pci/devices/{DEVICE}/net").rename(machine.root / "elsewhere")
    with pytest.raises(TransportError, match=r"driver ixgbe has it, and no interface is seen.*ip netns"):
        machine.binder().bind(DEVICE)


def test_what_is_no_network_card_is_refused(machine: Machine) -> None:
    machine.add(driver="nvme", native="nvme", class_code=0x010802)
    with pytest.raises(TransportError, match=r"is not a network card \(class 0108\)"):
        machine.binder().bind(DEVICE)


def test_without_an_iommu_a_card_is_not_taken_from_the_kernel_unless_unsafe_mode_is_on(
    machine: Machine,
) -> None:
    machine.add(driver="ixgbe", group=None)
    with pytest.raises(TransportError, match=r"has no IOMMU group.*intel_iommu=on"):
        machine.binder().bind(DEVICE)
    assert not machine.written
    mode = machine.root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    mode.parent.mkdir(parents=True)
    mode.write_text("Y\n")
    assert machine.binder().bind(DEVICE).driver == "vfio-pci"


def test_a_driver_that_is_not_there_leaves_the_card_where_it_was(machine: Machine) -> None:
    machine.add(driver="ixgbe")
    machine.loadable.clear()
    with pytest.raises(TransportError, match="has no driver vfio-pci: `modprobe vfio-pci`"):
        machine.binder().bind(DEVICE)
    assert not machine.written


def test_a_card_that_vfio_does_not_take_goes_back_to_its_driver(machine: Machine) -> None:
    machine.add(driver="ixgbe")
    machine.refusing.add("vfio-pci")
    with pytest.raises(TransportError, match="vfio-pci does not take it; see `dmesg`"):
        machine.binder().bind(DEVICE)
    device = machine.bus.device(DEVICE)
    assert (device.driver, device.override) == ("ixgbe", None)


def test_a_driver_that_does_not_let_go_is_told_and_nothing_else_changes(machine: Machine) -> None:
    machine.add(driver="ixgbe")
    machine.stuck.add(DEVICE)
    with pytest.raises(TransportError, match="driver ixgbe does not let go"):
        machine.binder().bind(DEVICE)
    device = machine.bus.device(DEVICE)
    assert (device.driver, device.override) == ("ixgbe", None)


def test_a_write_that_never_returns_has_an_end(machine: Machine) -> None:
    machine.add(driver="ixgbe")
    read, write = os.pipe()
    binder = PciBinder(machine.bus, load=machine.load, write=lambda *_: os.read(read, 1), wait_seconds=0.05)
    with pytest.raises(TransportError, match="driver_override: the kernel does not answer"):
        binder.bind(DEVICE)
    os.close(write)  # ends the threads that wait
    os.close(read)


def test_without_privilege_the_advice_is_root(machine: Machine) -> None:
    machine.add(driver="ixgbe")

    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    binder = PciBinder(machine.bus, load=machine.load, write=refuse, wait_seconds=0.05)
    with pytest.raises(TransportError, match="Permission denied: run as root"):
        binder.bind(DEVICE)


def test_a_card_that_a_program_drives_is_not_given_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add()
    real = os.open

    def busy(path: object, flags: int, *rest: int) -> int:
        if str(path).endswith("dev/vfio/12"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(TransportError, match=r"a program drives a card of group 12 \(/dev/vfio/12\)"):
        machine.binder().unbind(DEVICE)
    assert not machine.written


# ---- the commands


@pytest.fixture
def commands(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(devices_command, "ROOT", machine.root)
    monkeypatch.setattr(bind_command, "binder", machine.binder)
    return machine


def test_devices_are_shown_with_how_to_write_them_as_a_port(
    commands: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.add()
    commands.add(SIBLING, driver="ixgbe")
    commands.add("0000:04:00.0", driver="e1000e", native="e1000e", device=0x1533, group=14)
    assert main(["devices"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == list(devices_command.HEAD)
    assert [line.split() for line in lines] == [
        [DEVICE, "8086:10fb", "vfio-pci", "12", "0", "-", "-", DEVICE],
        [SIBLING, "8086:10fb", "ixgbe", "12", "0", "enp03f1", "off", "af_xdp:enp03f1"],
        ["0000:04:00.0", "8086:1533", "e1000e", "14", "0", "enp04f0", "off", "af_xdp:enp04f0"],
    ]
    assert main(["devices", "-j"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["iommu"]) == (1, True)
    assert [device["drivable"] for device in answer["devices"]] == [True, True, False]
    assert answer["devices"][0]["in_the_way"] == [SIBLING]
    assert answer["devices"][0]["group_file"] == "/dev/vfio/12"


def test_a_machine_without_cards_or_iommu_says_what_remains(
    commands: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["devices"]) == 0
    assert "af_xdp:eth1" in capsys.readouterr().out
    commands.add(driver="ixgbe", group=None)
    assert main(["devices"]) == 0
    assert "intel_iommu=on" in capsys.readouterr().out


def test_bind_does_what_it_can_and_tells_the_rest(
    commands: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.add(driver="ixgbe")
    base = commands.add(SIBLING, driver="ixgbe")
    (base / "net/enp03f1/flags").write_text("0x1003\n")
    assert main(["bind", SIBLING, "03:00.0"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{DEVICE}: vfio-pci has it now (before: ixgbe)",
        f"{DEVICE}: its IOMMU group 12 can be used when these are bound too: {SIBLING}",
    ]
    assert err.startswith(f"ixroute: {SIBLING}: is in use: interface enp03f1 is up")
    assert main(["bind", "--force", DEVICE, SIBLING]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{DEVICE}: vfio-pci has it already",
        f"{SIBLING}: vfio-pci has it now (before: ixgbe)",
    ]
    assert main(["unbind", DEVICE, "0000:09:00.0", SIBLING]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{DEVICE}: ixgbe has it, as enp03f0", f"{SIBLING}: ixgbe has it, as enp03f1"]
    assert "0000:09:00.0: no PCI device has this address" in err


def test_a_bus_that_is_not_there_has_no_cards(tmp_path: Path) -> None:
    assert PciBus(tmp_path).ethernet_devices() == []
