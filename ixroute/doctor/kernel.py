"""The kernel: what it has, and what it lets this process do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from ixroute.config import Config
from ixroute.doctor.machine import AF_XDP, FAIL, NOTE, OK, WARN, Finding, Machine
from ixroute.driver.specs import NOIOMMU, VFIO_USER

CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK, CAP_BPF = 12, 13, 14, 39
RLIM_INFINITY = -1


def version(machine: Machine, config: Config) -> Iterator[Finding]:
    """XDP links (detached when their owner dies) came with 5.9, managed neighbours with 5.16."""
    found = re.match(r"(\d+)\.(\d+)", machine.uname_release)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    text = f"Linux {machine.uname_release}"
    if number < (5, 9):
        yield Finding("kernel", FAIL, f"{text}: XDP links need 5.9", "install a kernel of Debian 12 or later")
    elif number < (5, 16):
        why = "the kernel cannot keep neighbours resolved by itself (5.16 can); ixroute probes them instead"
        yield Finding("kernel", NOTE, f"{text}: {why}")
    else:
        yield Finding("kernel", OK, text)


def af_xdp(machine: Machine, config: Config) -> Iterator[Finding]:
    """Whether an AF_XDP socket can be made."""
    if not _has_af_xdp(config):
        return
    error = machine.socket_error(AF_XDP)
    if error is None:
        yield Finding("af_xdp", OK, "AF_XDP sockets can be made")
    elif error.errno == errno.EAFNOSUPPORT:
        fix = "use a kernel with CONFIG_XDP_SOCKETS=y (Debian's have it)"
        yield Finding("af_xdp", FAIL, "this kernel has no AF_XDP sockets", fix)
    elif error.errno in (errno.EPERM, errno.EACCES):
        yield Finding("af_xdp", FAIL, "not allowed to make AF_XDP sockets", _AS_ROOT)
    else:
        yield Finding("af_xdp", FAIL, f"AF_XDP socket: {error.strerror}", "see dmesg")


def _has_af_xdp(config: Config) -> bool:
    """Also when there is no port yet."""
    return not config.ports or any(port.kind == "af_xdp" for port in config.ports)


_AS_ROOT = "run as root, or by extra/systemd/ixroute.service"


def tun(machine: Machine, config: Config) -> Iterator[Finding]:
    """/dev/net/tun makes the ports' interfaces."""
    error = machine.open_error("dev/net/tun")
    if error is None:
        yield Finding("tun", OK, "/dev/net/tun can be opened")
    elif error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        yield Finding("tun", FAIL, "no /dev/net/tun", "modprobe tun")
    else:
        fix = "install extra/udev/70-ixroute.rules, or run as root"
        yield Finding("tun", FAIL, f"/dev/net/tun: {error.strerror}", fix)


def capabilities(machine: Machine, config: Config) -> Iterator[Finding]:
    """Those that nothing works without; CAP_IPC_LOCK is memlock's."""
    needed = {"CAP_NET_ADMIN": CAP_NET_ADMIN}
    if _has_af_xdp(config):
        needed |= {"CAP_NET_RAW": CAP_NET_RAW, "CAP_BPF": CAP_BPF}
    missing = [name for name, number in needed.items() if not machine.has_capability(number)]
    if missing:
        yield Finding("privilege", FAIL, f"this process lacks {', '.join(missing)}", _AS_ROOT)
    elif machine.in_user_namespace() and _has_af_xdp(config):
        text = "in a user namespace: the kernel refuses BPF maps to it, whatever its capabilities"
        yield Finding("privilege", FAIL, text, "run outside of the container's user namespace")
    else:
        allowed = "network administration, raw sockets and BPF are allowed"
        yield Finding(
            "privilege", OK, allowed if _has_af_xdp(config) else "network administration is allowed"
        )


def memlock(machine: Machine, config: Config) -> Iterator[Finding]:
    """Packet memory is locked when AF_XDP or VFIO takes it."""
    if config.ports and all(port.kind == VFIO_USER for port in config.ports):
        yield Finding("memlock", OK, "emulated cards need no locked memory")
    elif machine.memlock == RLIM_INFINITY or machine.has_capability(CAP_IPC_LOCK):
        yield Finding("memlock", OK, "packet memory may be locked")
    else:
        text = f"only {machine.memlock >> 10} KiB may be locked, and CAP_IPC_LOCK is missing"
        yield Finding(
            "memlock", FAIL, text, "ulimit -l unlimited (as root), or LimitMEMLOCK=infinity in the unit"
        )


def hugepages(machine: Machine, config: Config) -> Iterator[Finding]:
    """Free pages of 2 MiB."""
    wanted = config.memory.hugepages
    if any(port.kind == NOIOMMU for port in config.ports):  # physical addresses are those of huge pages
        if wanted == "off":
            text = "ports without an IOMMU need pages of 2 MiB"
            yield Finding("hugepages", FAIL, text, 'memory.hugepages = "require"')
            return
        wanted = "require"
    if wanted == "off":
        yield Finding("hugepages", OK, "not wanted by the configuration")
        return
    free = machine.number("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    fix = "sysctl -w vm.nr_hugepages=128 (and in /etc/sysctl.d/ixroute.conf to keep it)"
    if free is None:
        level = FAIL if wanted == "require" else NOTE
        yield Finding("hugepages", level, "this kernel has no pages of 2 MiB", 'memory.hugepages = "off"')
    elif free == 0:
        level = FAIL if wanted == "require" else WARN
        yield Finding(
            "hugepages", level, "no free pages of 2 MiB: lookups and packets cost more TLB misses", fix
        )
    else:
        yield Finding("hugepages", OK, f"{free} pages of 2 MiB are free")


def receive_buffer(machine: Machine, config: Config) -> Iterator[Finding]:
    """Route messages wait in the socket's buffer; too small a buffer means overruns and dumps."""
    wanted = config.mirror.rcvbuf_bytes
    most = machine.number("proc/sys/net/core/rmem_max")
    forced = machine.has_capability(CAP_NET_ADMIN) and not machine.in_user_namespace()
    if forced or most is None or most >= wanted:
        yield Finding("rcvbuf", OK, f"the netlink socket can have {wanted >> 20} MiB")
    else:
        gets = f"the netlink socket gets {most >> 10} KiB of {wanted >> 20} MiB"
        text = f"{gets}: bursts of routes will overrun it"
        yield Finding(
            "rcvbuf", WARN, text, f"sysctl -w net.core.rmem_max={wanted}, or run with CAP_NET_ADMIN"
        )
