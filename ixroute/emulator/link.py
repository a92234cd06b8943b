"""The MAC's link: AUTOC, LINKS, the laser and the pins of ESDP (datasheet 3.7, 8.2.3.22).

The link is up when the driver has chosen a 10G mode and restarted it, the cage holds a module whose laser is on, and
the wire has a carrier. AUTOC's fields take effect with its restart bit, as on silicon.
"""

from __future__ import annotations

from collections.abc import Callable

from ixroute.emulator.faults import Faults, Settling
from ixroute.emulator.register_file import RegisterFile

AUTOC_FORCE_UP = 1 << 0
AUTOC_RESTART = 1 << 12
LMS_SHIFT, LMS_BITS = 13, 7
LMS_10G_SERIAL = 3
LMS_10G = frozenset((1, 3, 4, 6, 7))
"""Link modes that give 10G: XAUI/KX4 parallel, SFI/KR serial, and backplane negotiation, which finds a 10G partner."""
LMS_NEGOTIATED = frozenset((4, 6, 7))
AUTOC2_SERIAL_SHIFT = 16
SERIAL_SFI = 2

LINKS_UP = 1 << 30
LINKS_10G = 3 << 28
LINKS_NEGOTIATED = 1 << 31
LINKS_LATCHED = 1 << 7
STATUS_LINK = 1 << 7
ANLP1_STATE = 6 << 16
EICR_SDP2, EICR_LSC = 1 << 26, 1 << 20
GPIE_SDP2 = 1 << 2
PIN_FULL, PIN_LASER_OFF, PIN_RATE = 2, 3, 5


class Link:
    """can_be_dark: the module has a laser to turn off. moved is told whenever the link has changed; it asks `up`."""

    def __init__(
        self,
        registers: RegisterFile,
        faults: Faults,
        settling: Settling,
        backplane: bool,
        can_be_dark: bool,
        module: Callable[[], bool],
        moved: Callable[[], None],
    ) -> None:
        self._registers = registers
        self._faults = faults
        self._settling = settling
        self._backplane = backplane
        self._can_be_dark = can_be_dark
        self._module = module
        self._moved = moved
        self.carrier = False
        """Of the wire."""
        self.up = False
        self.changes = 0
        self._applied = 0
        self._latched = False
        registers.on_read("LINKS", self._read_links)
        registers.on_write("AUTOC", self._write_autoc)
        registers.on_write("AUTOC2", self._write_autoc2)
        registers.on_read("ESDP", self._read_pins)
        registers.on_write("ESDP", self._write_pins)

    def reset(self) -> None:
        """After any reset of the card: what the EEPROM says. Up again at once if nothing is in the way."""
        if self._backplane:
            self._registers.put("AUTOC", (0xC09C_6004 & ~(LMS_BITS << LMS_SHIFT)) | 4 << LMS_SHIFT)
            self._registers.put("AUTOC2", 0)
        # SDP3 (laser off) and SDP5 (rate) are outputs, low: the laser is on.
        self._registers.put("ESDP", 0 if self._backplane else 1 << (8 + PIN_LASER_OFF) | 1 << (8 + PIN_RATE))
        self._registers.put("ANLP1", ANLP1_STATE)
        self._applied = self._registers.get("AUTOC")
        self.up = False
        self._latched = True
        self._settling.start("link")
        self.refresh()

    @property
    def laser(self) -> bool:
        """TX_DISABLE has a pull-up: the laser is on only while SDP3 is an output and low."""
        pins = self._registers.get("ESDP")
        steady = self._backplane or not self._can_be_dark
        return steady or bool(pins >> (8 + PIN_LASER_OFF) & 1 and not pins >> PIN_LASER_OFF & 1)

    def set_carrier(self, up: bool) -> None:
        if up != self.carrier:
            self.carrier = up
            self.refresh()

    def module_moved(self) -> None:
        """The cage was filled or emptied: SDP2 interrupts if asked to."""
        if self._registers.engine_value("GPIE") & GPIE_SDP2:
            self._registers.engine.cause(EICR_SDP2)
        self.refresh()

    def refresh(self) -> None:
        """Something the link depends on may have changed."""
        up = self._possible() and not self._settling.pending("link")
        if up != self.up:
            self.up = up
            self.changes += 1
            if not up:
                self._latched = True
            self._registers.change("STATUS", set_bits=STATUS_LINK if up else 0, clear=STATUS_LINK)
            self._registers.engine.cause(EICR_LSC)
            self._moved()

    def _possible(self) -> bool:
        if self._faults.link_never:
            return False
        if self._applied & AUTOC_FORCE_UP:
            return True
        mode = self._applied >> LMS_SHIFT & LMS_BITS
        if not self.carrier or mode not in LMS_10G:
            return False
        if self._backplane:
            return True
        serial = self._registers.get("AUTOC2") >> AUTOC2_SERIAL_SHIFT & 3
        return mode == LMS_10G_SERIAL and serial == SERIAL_SFI and self._module() and self.laser

    def _read_links(self, _: int) -> int:
        """Bit 7 says whether the link was up all the time since the last read."""
        if self._settling.pending("link"):
            self._settling.ready("link")
        self.refresh()
        value = 0
        if self.up:
            value = LINKS_UP | LINKS_10G
            if (self._applied >> LMS_SHIFT & LMS_BITS) in LMS_NEGOTIATED:
                value |= LINKS_NEGOTIATED
            if not self._latched:
                value |= LINKS_LATCHED
            self._latched = False
        return value

    def _write_autoc(self, _: int, value: int) -> None:
        self._registers.store_named("AUTOC", value & ~AUTOC_RESTART)
        # Forcing the link is no negotiation: it counts at once.
        self._applied = (self._applied & ~AUTOC_FORCE_UP) | (value & AUTOC_FORCE_UP)
        if value & AUTOC_RESTART:
            self._restart(value)
        self.refresh()

    def _restart(self, value: int) -> None:
        """The link goes down, and comes back by the new settings."""
        self._applied = 0
        self.refresh()
        self._applied = value
        self._settling.start("link")

    def _write_autoc2(self, _: int, value: int) -> None:
        self._registers.store_named("AUTOC2", value)
        self.refresh()

    def _read_pins(self, _: int) -> int:
        """Outputs as written; of the inputs only SDP2 is wired: the cage is full."""
        stored = self._registers.get("ESDP")
        outputs = stored >> 8 & 0xFF
        inputs = 0 if self._backplane else int(self._module()) << PIN_FULL
        return (stored & ~0xFF) | (stored & outputs) | (inputs & ~outputs & 0xFF)

    def _write_pins(self, _: int, value: int) -> None:
        self._registers.store_named("ESDP", value)
        self.refresh()
