"""The kinds of port there are, chosen by a spec: "af_xdp:eth1", "0000:03:00.0" (specs.py)."""

from __future__ import annotations

import contextlib
import logging

from ixroute.driver import af_xdp
from ixroute.driver.mem import MemPort
from ixroute.driver.netdev import NetDevice
from ixroute.driver.port import Port, PortError, PortOptions
from ixroute.driver.specs import NOIOMMU, PCI_KINDS, VFIO, VFIO_USER, join_spec, split_spec
from ixroute.driver.transport import Transport, TransportError
from ixroute.driver.umem import Umem, frame_bytes_for

log = logging.getLogger(__name__)


def parse_spec(spec: str, port: str = "") -> tuple[str, str]:
    """ "af_xdp:eth1" -> ("af_xdp", "eth1"); "03:00.0" -> ("vfio", "0000:03:00.0")."""
    try:
        return split_spec(spec)
    except ValueError as e:
        raise PortError(spec, str(e), port) from e


def open_port(
    name: str, index: int, spec: str, umem: Umem, workers: int, options: PortOptions | None = None
) -> Port:
    """Brings up the port that spec names, with at least one queue per worker. Raises PortError.

    A card's port gets the MTU of the persistent TAP of its name, which a restart so keeps.
    """
    kind, device = parse_spec(spec, name)
    options = options or PortOptions()
    if kind == "af_xdp":
        return af_xdp.AfXdpPort(name, index, device, umem, workers, options)
    if kind == "mem":
        return MemPort(name, index, umem, workers, options, device=device)
    if kind in PCI_KINDS:
        return _open_card(name, index, kind, device, umem, workers, options)
    known = f"af_xdp, {', '.join(PCI_KINDS)} and mem"
    raise PortError(spec, f"no kind of port is called {kind!r}: there are {known}", name)


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


def mtu_of(spec: str, port: str = "") -> int:
    """The MTU that the port will have: the interface's, or for a card that of the TAP named `port`, if it is there
    from an earlier run. Raises PortError."""
    kind, device = parse_spec(spec, port)
    if kind == "af_xdp":
        return af_xdp.mtu_of(device)
    if kind in PCI_KINDS and port:
        return _interface_mtu(port) or 1500
    return 1500


def frame_bytes_wanted(spec: str, mtu: int) -> int:
    """The smallest frame of umem in which this port can receive packets of `mtu`; the largest that it can use when
    none is large enough. The router takes the largest of what its ports want. Raises PortError."""
    kind, _ = parse_spec(spec)
    if kind in PCI_KINDS:
        from ixroute.driver.ixgbe import port

        return port.frame_bytes_for(mtu)
    if kind == "af_xdp":
        return min(frame_bytes_for(mtu), af_xdp.FRAME_BYTES[-1])
    return frame_bytes_for(mtu)


def _interface_mtu(name: str) -> int | None:
    """Of an interface of the calling thread's network namespace; None when there is none."""
    with contextlib.suppress(OSError), contextlib.closing(NetDevice(name)) as device:
        return device.mtu()
    return None


def _open_card(
    name: str, index: int, kind: str, device: str, umem: Umem, workers: int, options: PortOptions
) -> Port:
    from ixroute.driver.ixgbe.port import IxgbePort

    spec = join_spec(kind, device)
    try:
        transport = open_transport(kind, device, options)
    except TransportError as e:
        raise PortError(spec, str(e), name) from e
    port = IxgbePort(
        name, index, spec, umem, workers, options, transport
    )  # owns the transport from the call on
    _take_over_mtu(port)
    return port


def open_transport(kind: str, device: str, options: PortOptions | None = None) -> Transport:
    """What lies between us and the card. Raises TransportError."""
    restore_driver = (options or PortOptions()).restore_driver
    if kind == VFIO:
        from ixroute.driver.vfio import VfioTransport

        return VfioTransport(device, restore_driver=restore_driver)
    if kind == NOIOMMU:
        from ixroute.driver.noiommu import NoIommuTransport

        return NoIommuTransport(device, restore_driver=restore_driver)
    assert kind == VFIO_USER
    from ixroute.driver.vfio_user import VfioUserTransport

    return VfioUserTransport(device)


def _take_over_mtu(port: Port) -> None:
    mtu = _interface_mtu(port.name)
    if mtu is None or mtu == port.mtu:
        return
    try:
        port.set_mtu(mtu)
    except PortError as e:
        log.warning("%s; its interface will have MTU %d", e, port.mtu)
