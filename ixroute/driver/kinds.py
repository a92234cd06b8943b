"""The kinds of port there are, chosen by a spec: "af_xdp:eth1"."""

from __future__ import annotations

from ixroute.driver import af_xdp
from ixroute.driver.mem import MemPort
from ixroute.driver.port import Port, PortError, PortOptions
from ixroute.driver.umem import Umem


def parse_spec(spec: str, port: str = "") -> tuple[str, str]:
    """ "af_xdp:eth1" -> ("af_xdp", "eth1")."""
    kind, colon, device = spec.partition(":")
    if not colon or not kind or not device:
        raise PortError(spec, f"{spec!r} is no port: write KIND:DEVICE, as in af_xdp:eth1", port)
    return kind, device


def open_port(
    name: str, index: int, spec: str, umem: Umem, workers: int, options: PortOptions | None = None
) -> Port:
    """Brings up the port that spec names, with at least one queue per worker. Raises PortError."""
    kind, device = parse_spec(spec, name)
    if kind == "af_xdp":
        return af_xdp.AfXdpPort(name, index, device, umem, workers, options or PortOptions())
    if kind == "mem":
        return MemPort(name, index, umem, workers, options or PortOptions(), device=device)
    raise PortError(spec, f"no kind of port is called {kind!r}: there are af_xdp and mem", name)


def frames_wanted(spec: str, workers: int, options: PortOptions | None = None) -> int:
    """How many frames of umem one worker needs for this port: what the rings of its queues can hold.

    Asks the device how many queues it has, since a worker may have to serve several. Raises PortError.
    """
    kind, device = parse_spec(spec)
    queues = workers
    if kind == "af_xdp":
        queues = max(workers, af_xdp.queues_of(device))
    each = -(-queues // workers)
    return each * sum((options or PortOptions()).slots(each))


def mtu_of(spec: str) -> int:
    """The MTU of what spec names, before it is opened: umem.frame_bytes_for tells the frame it needs."""
    kind, device = parse_spec(spec)
    if kind == "af_xdp":
        return af_xdp.mtu_of(device)
    return 1500
