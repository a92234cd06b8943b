"""SIOCETHTOOL (linux/ethtool.h): what the driver of an interface knows and can change."""

from __future__ import annotations

import ctypes
import errno
import struct
from dataclasses import dataclass, replace

from ixroute.driver.netdev import NetDevice

SIOCETHTOOL = 0x8946

_GDRVINFO = 0x03
_GRINGPARAM = 0x10
_GTXCSUM = 0x16
_STXCSUM = 0x17
_GPERMADDR = 0x20
_GFLAGS = 0x25
_SFLAGS = 0x26
_GCHANNELS = 0x3C
_SCHANNELS = 0x3D
_GLINKSETTINGS = 0x4C

FLAG_RXVLAN = 1 << 8
FLAG_LRO = 1 << 15

_SPEED_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True)
class Channels:
    """Queues: now, and at most. A combined one counts as one of each."""

    rx: int
    tx: int
    combined: int
    max_rx: int
    max_tx: int
    max_combined: int
    other: int = 0

    @property
    def rx_queues(self) -> int:
        return self.rx + self.combined

    @property
    def tx_queues(self) -> int:
        return self.tx + self.combined

    def with_counts(self, rx: int, tx: int, combined: int) -> Channels:
        return replace(self, rx=rx, tx=tx, combined=combined)

    def resized(self, queues: int) -> Channels | None:
        """With so many receive and send queues; None if it has them or cannot have them."""
        if self.max_combined:
            wanted, possible = self.with_counts(0, 0, queues), queues <= self.max_combined
        else:
            wanted, possible = self.with_counts(queues, queues, 0), queues <= min(self.max_rx, self.max_tx)
        return wanted if possible and wanted != self else None


def _command(device: NetDevice, command: bytes) -> bytes:
    """Runs one ethtool command: the structure as the kernel left it. OSError; EOPNOTSUPP: driver cannot."""
    area = ctypes.create_string_buffer(command, len(command))
    device.ioctl(SIOCETHTOOL, struct.pack("=Q", ctypes.addressof(area)))
    return area.raw


def _value(device: NetDevice, command: int) -> int:
    """struct ethtool_value."""
    return int(struct.unpack_from("=I", _command(device, struct.pack("=II", command, 0)), 4)[0])


def driver_info(device: NetDevice) -> dict[str, str]:
    """driver, version, firmware, bus (as "0000:03:00.0")."""
    info = _command(device, struct.pack("=I192x", _GDRVINFO))

    def text(at: int) -> str:
        return info[at : at + 32].split(b"\0", 1)[0].decode(errors="replace")

    return {"driver": text(4), "version": text(36), "firmware": text(68), "bus": text(100)}


def ring_sizes(device: NetDevice) -> dict[str, int]:
    """Descriptors in the hardware's rings: rx, tx and their maxima."""
    words = struct.unpack("=9I", _command(device, struct.pack("=I32x", _GRINGPARAM)))
    return {"rx": words[5], "tx": words[8], "max_rx": words[1], "max_tx": words[4]}


def tx_checksum(device: NetDevice) -> bool:
    """Whether the kernel leaves checksums of what it sends here to the device. Between a veth end where this
    is on and an AF_XDP port nobody fills them in."""
    return bool(_value(device, _GTXCSUM))


def set_tx_checksum(device: NetDevice, on: bool) -> None:
    _command(device, struct.pack("=II", _STXCSUM, int(on)))


def flags(device: NetDevice) -> int:
    """FLAG_*."""
    return _value(device, _GFLAGS)


def set_flags(device: NetDevice, value: int) -> None:
    _command(device, struct.pack("=II", _SFLAGS, value))


def permanent_mac(device: NetDevice) -> bytes | None:
    """The address in the card's EEPROM; None when it has none (all zero)."""
    answer = _command(device, struct.pack("=II6x2x", _GPERMADDR, 6))
    mac = answer[8:14]
    return mac if any(mac) else None


def channels(device: NetDevice) -> Channels | None:
    """None when the driver knows of no channels."""
    try:
        answer = _command(device, struct.pack("=I32x", _GCHANNELS))
    except OSError as e:
        if e.errno == errno.EOPNOTSUPP:
            return None
        raise
    _, max_rx, max_tx, _, max_combined, rx, tx, other, combined = struct.unpack("=9I", answer)
    return Channels(rx, tx, combined, max_rx, max_tx, max_combined, other)


def set_channels(device: NetDevice, wanted: Channels) -> None:
    """OSError as the driver says: EINVAL, EBUSY, EOPNOTSUPP."""
    _command(
        device,
        struct.pack("=I16x4I", _SCHANNELS, wanted.rx, wanted.tx, wanted.other, wanted.combined),
    )


def link_speed(device: NetDevice) -> tuple[int | None, str | None]:
    """Mb/s and "full" or "half"; None for what the driver does not know."""
    # struct ethtool_link_settings: cmd, speed, duplex, port, phy, autoneg, mdio, eth_tp_mdix, mdix_ctrl,
    # nwords (s8), … The first call is a question: the kernel answers with minus the number of mask words it
    # wants room for.
    head = struct.pack("=IIBBBBBBBb34x", _GLINKSETTINGS, *(0,) * 9)
    (words,) = struct.unpack_from("=b", _command(device, head), 15)
    if words >= 0:
        return None, None
    asked = bytearray(head + bytes(3 * 4 * -words))
    asked[15] = -words
    answer = _command(device, bytes(asked))
    speed, duplex = struct.unpack_from("=IB", answer, 4)
    return (
        None if speed in (0, _SPEED_UNKNOWN) else int(speed),
        {0: "half", 1: "full"}.get(duplex),
    )
