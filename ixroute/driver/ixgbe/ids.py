"""The family: which device ids there are, and what is different about each (82599, X540, X550)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

INTEL = 0x8086

SFP = "SFP+"
BACKPLANE = "backplane"
XAUI = "XAUI"
CX4 = "CX4"
COPPER = "copper"
FIRMWARE = "set up by firmware"
"""The port's PHY belongs to the card's firmware; the driver reads the link and does not make it."""


@dataclass(frozen=True)
class Mac:
    """A MAC: what all cards with it have in common."""

    name: str
    rx_buffer_kib: int
    """The receive packet buffer, all of it."""
    rss_queues: int
    """How many queues RSS can spread to."""
    reta_entries: int
    odd_speeds: bool = False
    """LINKS tells 2.5 and 5 Gbit/s by a bit of its own."""
    eerd: bool = True
    """The EEPROM can be read through EERD. Otherwise only the firmware reads it, and it checks it too."""
    semaphore_register_bit: bool = False
    """SW_FW_SYNC is guarded by its own bit 31 beside SWSM.SMBI, not by SWSM.SWESMBI."""
    moved: Mapping[str, int] = field(default_factory=dict)
    """Registers that this MAC has elsewhere."""


_82599 = Mac("82599", 512, 16, 128)
_X540 = Mac("X540", 384, 16, 128, semaphore_register_bit=True)
_X550 = Mac("X550", 384, 64, 512, odd_speeds=True, eerd=False, semaphore_register_bit=True)
_X550EM_X = replace(_X550, name="X550EM_x")
_X550EM_A = replace(
    _X550, name="X550EM_a", moved={"EEC": 0x15FF8, "SWSM": 0x15F70, "FWSM": 0x15F74, "SW_FW_SYNC": 0x15F78}
)


@dataclass(frozen=True)
class Model:
    """One device id."""

    id: int
    name: str
    mac: Mac
    media: str

    @property
    def text(self) -> str:
        return f"{self.mac.name} {self.name} ({self.id:04x})"


_TABLE = (
    (_82599, BACKPLANE, {0x10F7: "KX4", 0x10F8: "combo backplane", 0x1514: "KX4 mezzanine", 0x1517: "KR",
                         0x152A: "backplane FCoE"}),
    (_82599, SFP, {0x10FB: "SFP+", 0x1507: "SFP+ EM", 0x1529: "SFP+ FCoE", 0x154A: "SFP+ quad", 0x154D: "SFP+ SF2",
                   0x154F: "LS", 0x1557: "EN SFP+", 0x1558: "QSFP+ quad"}),
    (_82599, CX4, {0x10F9: "CX4"}),
    (_82599, XAUI, {0x10FC: "XAUI"}),
    (_82599, COPPER, {0x151C: "T3 LOM"}),
    (_X540, COPPER, {0x1528: "T", 0x1560: "T1"}),
    (_X550, COPPER, {0x1563: "T", 0x15D1: "T1"}),
    (_X550EM_X, FIRMWARE, {0x15AA: "KX4", 0x15AB: "KR", 0x15AC: "SFP+", 0x15B0: "XFI"}),
    (_X550EM_X, COPPER, {0x15AD: "10G-T", 0x15AE: "1G-T"}),
    (_X550EM_A, FIRMWARE, {0x15C2: "KR", 0x15C3: "KR L", 0x15C4: "SFP+ N", 0x15C6: "SGMII", 0x15C7: "SGMII L",
                           0x15CA: "QSFP+", 0x15CC: "QSFP+ N", 0x15CE: "SFP+", 0x15E4: "1G-T", 0x15E5: "1G-T L"}),
    (_X550EM_A, COPPER, {0x15C8: "10G-T"}),
)  # fmt: skip

MODELS = {
    number: Model(number, name, mac, media) for mac, media, ids in _TABLE for number, name in ids.items()
}
VIRTUAL = frozenset({0x10ED, 0x152E, 0x1515, 0x1530, 0x1565, 0x1564, 0x15A8, 0x15A9, 0x15C5, 0x15B4})
"""Virtual functions: other registers, and a driver of the physical one to ask."""


class UnknownCard(ValueError):  # noqa: N818
    """Not one of the family; says what to do."""


def check_id(force_id: int) -> int:
    """force_id, which is in the table. Raises UnknownCard."""
    if force_id not in MODELS:
        raise UnknownCard(f"{force_id:04x} is no 82599, X540 or X550: 10fb is the 82599 with SFP+")
    return force_id


def identify(vendor: int, device: int, force_id: int | None = None) -> Model:
    """The model of a card with these ids. force_id: the one to take it for. Raises UnknownCard."""
    if force_id is not None:
        return MODELS[check_id(force_id)]
    if vendor == INTEL and device in VIRTUAL:
        raise UnknownCard(
            f"{vendor:04x}:{device:04x} is a virtual function of an ixgbe card: name the physical one"
        )
    if vendor != INTEL or device not in MODELS:
        raise UnknownCard(
            f"{vendor:04x}:{device:04x} is no 82599, X540 or X550; if it is one all the same, force_id tells as"
            " which of them to drive it"
        )
    return MODELS[device]
