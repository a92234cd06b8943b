"""The configuration space: 4096 bytes, written byte by byte under masks.

Capabilities lie where the silicon has them (datasheet 9.3), since drivers read some of them by fixed offset: power
management 0x40, MSI 0x50, MSI-X 0x70, PCIe 0xA0; extended: AER 0x100, device serial number 0x140.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

CONFIG_BYTES = 4096
BAR0_BYTES = 512 * 1024
BAR2_BYTES = 32
BAR4_BYTES = 16 * 1024
MSIX_VECTORS = 64
MSIX_PBA = 0x2000

COMMAND, STATUS = 0x04, 0x06
PM_CONTROL = 0x44
MSI = 0x50
MSIX = 0x70
PCIE = 0xA0
DEVICE_CONTROL = PCIE + 8
AER = 0x100
SERIAL = 0x140

COMMAND_MASTER = 1 << 2
INITIATE_FLR = 1 << 15


@dataclass(frozen=True)
class DeviceKind:
    name: str
    sfp: bool
    """A cage with I2C and a laser; else a backplane (KX4/KR/XAUI)."""


KINDS = {
    0x10FB: DeviceKind("82599ES SFP+", True),
    0x1557: DeviceKind("82599EN SFP+", True),
    0x154D: DeviceKind("82599 SFP+ SF2", True),
    0x10F7: DeviceKind("82599 KX4", False),
    0x10F8: DeviceKind("82599 combined backplane", False),
    0x10FC: DeviceKind("82599 XAUI/BX4", False),
    0x1514: DeviceKind("82599 KX4 mezzanine", False),
}
"""Device ids that this model answers for."""


class ConfigSpace:
    """Little-endian bytes, which of their bits software can write, and which clear when a 1 is written."""

    def __init__(self, device_id: int, mac: bytes) -> None:
        self._device_id = device_id
        self._mac = mac
        self.reset()

    def reset(self) -> None:
        self.data = bytearray(CONFIG_BYTES)
        self.mask = bytearray(CONFIG_BYTES)
        self.clears = bytearray(CONFIG_BYTES)
        self._header()
        self._power_management()
        self._msi()
        self._msix()
        self._express()
        self._errors()
        self._serial()

    def _put(self, offset: int, size: int, value: int, writable: int = 0, clears: int = 0) -> None:
        self.data[offset : offset + size] = value.to_bytes(size, "little")
        self.mask[offset : offset + size] = writable.to_bytes(size, "little")
        self.clears[offset : offset + size] = clears.to_bytes(size, "little")

    def _header(self) -> None:
        self._put(0x00, 2, 0x8086)
        self._put(0x02, 2, self._device_id)
        self._put(COMMAND, 2, 0, writable=0x0547)
        self._put(STATUS, 2, 0x0010, clears=0xF900)
        self._put(0x08, 4, 0x0200_0001)  # Ethernet controller, revision 1
        self._put(0x0C, 1, 0, writable=0xFF)
        # A BAR holds its flags; the address bits below its size read as 0, which is how its size is found.
        self._put(0x10, 4, 0x0000_000C, writable=-BAR0_BYTES & 0xFFFF_FFFF)
        self._put(0x14, 4, 0, writable=0xFFFF_FFFF)
        self._put(0x18, 4, 0x0000_0001, writable=-BAR2_BYTES & 0xFFFF_FFFF)
        self._put(0x20, 4, 0x0000_000C, writable=-BAR4_BYTES & 0xFFFF_FFFF)
        self._put(0x24, 4, 0, writable=0xFFFF_FFFF)
        self._put(0x2C, 2, 0x8086)
        self._put(0x2E, 2, 0x0003)
        self._put(0x34, 1, 0x40)
        self._put(0x3C, 1, 0, writable=0xFF)  # interrupt line; the pin is 0: there is no INTx

    def _power_management(self) -> None:
        """Version 3, PME from D0 and D3hot; D3hot to D0 resets (no soft reset bit clear)."""
        self._put(0x40, 2, 0x5001)
        self._put(0x42, 2, 0x4823)
        self._put(PM_CONTROL, 2, 0x2000, writable=0x1F03, clears=0x8000)

    def _msi(self) -> None:
        """One vector, 64-bit addresses, per-vector mask."""
        self._put(MSI, 2, 0x7005)
        self._put(MSI + 2, 2, 0x0180, writable=0x0071)
        self._put(MSI + 4, 4, 0, writable=0xFFFF_FFFC)
        self._put(MSI + 8, 4, 0, writable=0xFFFF_FFFF)
        self._put(MSI + 12, 2, 0, writable=0xFFFF)
        self._put(MSI + 16, 4, 0, writable=0x0000_0001)

    def _msix(self) -> None:
        """Table at 0 and pending bits at 0x2000 of BAR 4."""
        self._put(MSIX, 2, 0xA011)
        self._put(MSIX + 2, 2, MSIX_VECTORS - 1, writable=0xC000)
        self._put(MSIX + 4, 4, 0 | 4)
        self._put(MSIX + 8, 4, MSIX_PBA | 4)

    def _express(self) -> None:
        """Version 2 endpoint with function level reset; payload up to 512 bytes; 8 lanes at 5 GT/s, and so trained."""
        self._put(PCIE, 2, 0x0010)
        self._put(PCIE + 2, 2, 0x0002)
        self._put(PCIE + 4, 4, 0x1000_8CC2)
        self._put(DEVICE_CONTROL, 2, 0x2810, writable=0x7FFF)
        self._put(PCIE + 0x0A, 2, 0x0000, clears=0x000F)
        self._put(PCIE + 0x0C, 4, 0x0003_9C82)
        self._put(PCIE + 0x10, 2, 0x0000, writable=0x00C3)
        self._put(PCIE + 0x12, 2, 0x1082)
        self._put(PCIE + 0x24, 4, 0x0000_001F)
        self._put(PCIE + 0x28, 2, 0x0000, writable=0x001F)
        self._put(PCIE + 0x30, 2, 0x0002, writable=0x0FDF)

    def _errors(self) -> None:
        self._put(AER, 4, 0x1401_0001 | (0x140 << 20))
        self._put(AER + 4, 4, 0, clears=0x0011_F010)
        self._put(AER + 8, 4, 0x0018_0000, writable=0x001F_F010)
        self._put(AER + 12, 4, 0x0006_2010, writable=0x001F_F010)
        self._put(AER + 16, 4, 0, clears=0x0000_31C1)
        self._put(AER + 20, 4, 0x0000_2000, writable=0x0000_31C1)
        self._put(AER + 24, 4, 0x0000_00A0, writable=0x0000_0140)

    def _serial(self) -> None:
        """The MAC address with FF FF in its middle."""
        self._put(SERIAL, 4, 0x0001_0003)
        eui = self._mac[:3] + b"\xff\xff" + self._mac[3:]
        self.data[SERIAL + 4 : SERIAL + 12] = eui[::-1]

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """What a write changes; what it sets off (bus mastering, reset) is the card's business."""
        for i, byte in enumerate(data, offset):
            kept = self.data[i] & ~self.mask[i] & ~(byte & self.clears[i])
            self.data[i] = kept | (byte & self.mask[i])

    def word(self, offset: int) -> int:
        value: int = struct.unpack_from("<H", self.data, offset)[0]
        return value

    @property
    def bus_master(self) -> bool:
        return bool(self.word(COMMAND) & COMMAND_MASTER)

    @property
    def asleep(self) -> bool:
        """In a power state other than D0."""
        return bool(self.word(PM_CONTROL) & 3)

    def keep_over_reset(self) -> dict[int, bytes]:
        """What VFIO saves before it resets a device and restores afterwards: command, BARs, interrupt line."""
        return {
            offset: bytes(self.data[offset : offset + n])
            for offset, n in ((COMMAND, 2), (0x10, 24), (0x3C, 1))
        }

    def restore(self, kept: dict[int, bytes]) -> None:
        for offset, data in kept.items():
            self.write(offset, data)
