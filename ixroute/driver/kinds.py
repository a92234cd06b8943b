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
from ixroute.driver.umem import FRAME_BYTES, HEADROOM, Umem, frame_bytes_for

log = logging.getLogger(__name__)

_BUFFER_STEP = 1024
"""Receive buffers of PCI cards are programmed in KiB (82599: SRRCTL.BSIZEPACKET)."""
_NOT_MTU = 14 + 4 + 4
"""Of a received packet: Ethernet header, one VLAN tag, and the checksum while the card has it."""
_PCI_FRAME_BYTES = tuple(size for size in FRAME_BYTES if size >= 4096)
"""Of 2048 bytes the headroom would leave a buffer of 1 KiB."""


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
        fitting = (size for size in _PCI_FRAME_BYTES if card_max_mtu(size) >= mtu)
        return next(fitting, _PCI_FRAME_BYTES[-1])
    if kind == "af_xdp":
        return min(frame_bytes_for(mtu), af_xdp.FRAME_BYTES[-1])
    return frame_bytes_for(mtu)


def card_max_mtu(frame_bytes: int) -> int:
    """The largest MTU of a PCI card's port with frames of this size."""
    return (frame_bytes - HEADROOM) // _BUFFER_STEP * _BUFFER_STEP - _NOT_MTU


def _interface_mtu(name: str) -> int | None:
    """Of an interface of the calling thread's network namespace; None when there is none."""
    with contextlib.suppress(OSError), contextlib.closing(NetDevice(name)) as device:
        return device.mtu()
    return None


def _open_card(
    name: str, index: int, kind: str, device: str, umem: Umem, workers: int, options: PortOptions
) -> Port:
    spec = join_spec(kind, device)
    if umem.frame_bytes not in _PCI_FRAME_BYTES:
        raise PortError(
            spec,
            f"frames of {umem.frame_bytes} bytes leave a card no room for a packet: memory.frame_bytes must be 4096"
            " or more",
            name,
        )
    try:
        transport = open_transport(kind, device, options)
    except TransportError as e:
        raise PortError(spec, e.message if e.device == device else str(e), name) from e
    try:
        port = _drive(name, index, spec, umem, workers, options, transport)
    except TransportError as e:
        transport.close()
        raise PortError(spec, e.message, name) from e
    except BaseException:
        transport.close()
        raise
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


def _drive(
    name: str, index: int, spec: str, umem: Umem, workers: int, options: PortOptions, transport: Transport
) -> Port:
    """The port of the driver that knows the card; it owns the transport from then on."""
    from ixroute.driver.ixgbe.ids import UnknownCard, identify
    from ixroute.driver.ixgbe.port import IxgbePort

    vendor, number = transport.config.read(0, 2), transport.config.read(2, 2)
    try:
        identify(vendor, number, options.force_id)
    except UnknownCard as e:
        raise PortError(spec, str(e), name) from e
    return IxgbePort(name, index, spec, umem, workers, options, transport)


def _take_over_mtu(port: Port) -> None:
    mtu = _interface_mtu(port.name)
    if mtu is None or mtu == port.mtu:
        return
    try:
        port.set_mtu(mtu)
    except PortError as e:
        log.warning("%s; its interface will have MTU %d", e, port.mtu)
