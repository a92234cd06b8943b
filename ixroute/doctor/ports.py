"""The devices and interfaces of the configured ports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ixroute.config import Config, PortConfig
from ixroute.config.cores import choose_cores, core_list
from ixroute.doctor.machine import FAIL, NOTE, OK, WARN, Finding, Machine

# Drivers whose AF_XDP has done without a copy for long (those with XDP_SETUP_XSK_POOL).
_ZERO_COPY = {"ixgbe", "i40e", "ice", "igc", "mlx5_core"}
_IFF_TAP, _IFF_MULTI_QUEUE = 0x0002, 0x0100  # linux/if_tun.h, as in sysfs tun_flags
_VETH_MTU = 3498  # the largest with which veth takes a native XDP program


def devices(machine: Machine, config: Config) -> Iterator[Finding]:
    """The interface of each port over AF_XDP: there, free, with as many queues as workers, without addresses of its
    own."""
    if not config.ports:
        yield Finding(
            "ports", NOTE, "no ports configured", "ixroute doctor --config FILE, or --port wan0=af_xdp:eth1"
        )
    links = _by_name(machine.command("ip", "-d", "-j", "link", "show"))
    addresses = _by_name(machine.command("ip", "-j", "addr", "show"))
    workers = choose_cores(config, machine.path("sys"), machine.cores)
    running = machine.answers(config.control.socket)  # then an XDP program on a device is its own
    for port in config.ports:
        if port.kind != "af_xdp":
            continue
        if not machine.exists(f"sys/class/net/{port.device}"):
            text = f"{port.name}: no interface {port.device} in this network namespace"
            yield Finding(
                "ports", FAIL, text, "ip link (is it spelt so, bound to a kernel driver, moved elsewhere?)"
            )
            continue
        link = links.get(port.device, {})
        yield _driver(machine, port, link)
        yield from _queues(machine, port, len(workers))
        yield from _link(machine, port, link, running)
        yield from _addresses(port, addresses.get(port.device, {}))
        yield from _numa(machine, port, workers)


def _by_name(text: str | None) -> dict[str, dict[str, Any]]:
    try:
        return {entry["ifname"]: entry for entry in json.loads(text or "") if "ifname" in entry}
    except (ValueError, TypeError):
        return {}


def _kind(link: dict[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", ""))


def _driver(machine: Machine, port: PortConfig, link: dict[str, Any]) -> Finding:
    driver = machine.link_name(f"sys/class/net/{port.device}/device/driver") or _kind(link)
    name = f"{port.name}: {port.device}"
    if driver in _ZERO_COPY:
        return Finding("ports", OK, f"{name}, driver {driver}, can share frames with ixroute")
    if driver == "veth":
        text = f"{name} is a veth: its peer must fill in checksums itself, or TCP will not connect"
        return Finding("ports", WARN, text, "on the other end: ethtool -K PEER tx off")
    if port.zero_copy == "require":
        text = f"{name}, driver {driver or 'unknown'}: not known to do without copies, as is required"
        return Finding("ports", WARN, text, f'ports.{port.name}.zero_copy = "auto"')
    return Finding("ports", NOTE, f"{name}, driver {driver or 'unknown'}: packets are copied once")


def _queues(machine: Machine, port: PortConfig, workers: int) -> Iterator[Finding]:
    queues = sum(name.startswith("rx-") for name in machine.list(f"sys/class/net/{port.device}/queues"))
    have = f"{port.name}: {port.device} has {queues} receive queue{'s' * (queues != 1)}"
    text = f"{have} for {workers} worker{'s' * (workers != 1)}"
    fix = f"ethtool -L {port.device} combined {workers}"
    if 0 < queues < workers:
        yield Finding("queues", WARN, f"{text}: some workers get nothing from it", f"{fix}, or fewer workers")
    elif queues > workers:
        yield Finding("queues", WARN, f"{text}: only as many queues as workers are read", fix)


def _link(machine: Machine, port: PortConfig, link: dict[str, Any], running: bool) -> Iterator[Finding]:
    base = f"sys/class/net/{port.device}"
    if "UP" not in link.get("flags", ["UP"]):
        yield Finding("link", NOTE, f"{port.name}: {port.device} is down; ixroute sets it up")
    elif machine.read(f"{base}/carrier") == "0":
        yield Finding(
            "link", WARN, f"{port.name}: {port.device} has no link", "look at the cable and the other end"
        )
    if link.get("master"):
        text = (
            f"{port.name}: {port.device} belongs to {link['master']}, which will not see its packets any more"
        )
        yield Finding("link", FAIL, text, f"ip link set {port.device} nomaster")
    mtu = machine.number(f"{base}/mtu") or 0
    if _kind(link) == "veth" and mtu > _VETH_MTU and port.mode != "generic":
        level = FAIL if port.mode == "native" else NOTE
        text = f"{port.name}: MTU {mtu} of a veth is too large for native XDP (at most {_VETH_MTU})"
        yield Finding("link", level, text, f"ip link set {port.device} mtu 1500 (both ends)")
    if link.get("xdp") and not running:
        text = f"{port.name}: an XDP program is already on {port.device}"
        yield Finding(
            "link", FAIL, text, f"ip link set {port.device} xdp off, or stop the program that put it there"
        )


def _addresses(port: PortConfig, entry: dict[str, Any]) -> Iterator[Finding]:
    """The device's packets go to ixroute: an address there cannot be reached and its route points nowhere."""
    found = [
        f"{info['local']}/{info['prefixlen']}"
        for info in entry.get("addr_info", [])
        if info.get("scope") != "link" and "local" in info
    ]
    if found:
        text = f"{port.name}: {port.device} itself has {', '.join(found)}, where no packet arrives any more"
        fix = f"ip addr flush dev {port.device}; ip addr add {found[0]} dev {port.name}"
        yield Finding("addresses", WARN, text, fix)


def _numa(machine: Machine, port: PortConfig, workers: tuple[int, ...]) -> Iterator[Finding]:
    node = machine.number(f"sys/class/net/{port.device}/device/numa_node")
    if node is None or node < 0:
        return
    near = machine.read(f"sys/devices/system/node/node{node}/cpulist") or ""
    far = [core for core in workers if near and core not in core_list(near)]
    if far:
        text = f"{port.name}: {port.device} hangs on node {node}, core {far[0]} does not"
        yield Finding("numa", WARN, text, f"put the workers on cores {near}")


def names(machine: Machine, config: Config) -> Iterator[Finding]:
    """The names that the ports' interfaces are to have."""
    for port in config.ports:
        base = f"sys/class/net/{port.name}"
        if not machine.exists(base):
            continue
        flags = machine.read(f"{base}/tun_flags")
        if flags is None or not int(flags, 16) & _IFF_TAP:
            text = f"{port.name}: an interface of this name exists and is not a TAP"
            yield Finding("names", FAIL, text, f"choose another name, or: ip link set {port.name} name OTHER")
        elif not int(flags, 16) & _IFF_MULTI_QUEUE:
            text = f"{port.name}: a TAP of this name exists, with a single queue; it is not ixroute's"
            yield Finding("names", FAIL, text, f"choose another name, or: ip link del {port.name}")
        else:
            yield Finding("names", OK, f"{port.name}: its TAP is there, with what was set on it")
