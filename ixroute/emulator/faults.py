"""Ways in which a card can be broken, for tests of drivers; and how long a healthy one takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Faults:
    """May be changed while the card runs; most show from the next reset or the next access on."""

    eeprom_checksum: bool = False
    """One word of the EEPROM has changed."""
    eeprom_absent: bool = False
    """EEC.EE_PRES stays 0."""
    eeprom_never_ready: bool = False
    """EEC.AUTO_RD stays 0 and EERD never completes."""
    dma_never_ready: bool = False
    """RDRXCTL.DMAIDONE stays 0."""
    reset_never_clears: bool = False
    """CTRL.RST stays 1."""
    master_never_stops: bool = False
    """STATUS.GIO stays 1 after CTRL.GIO_DIS."""
    rx_queue_never_enables: bool = False
    tx_queue_never_enables: bool = False
    rx_path_never_stops: bool = False
    """SECRXSTAT.SECRX_RDY stays 0."""
    link_never: bool = False
    no_module: bool = False
    """Nothing in the cage."""
    module_unsupported: bool = False
    """A module that says of itself that it is none of 10G SR, LR or direct attach."""
    module_foreign: bool = False
    """An SR module of a vendor that the EEPROM does not allow."""
    i2c_stuck: bool = False
    """The module holds SDA low."""
    semaphore_held: bool = False
    """SWSM.SMBI reads 1 for ever: another function has it."""
    firmware_holds_semaphore: bool = False
    """SWSM.SWESMBI cannot be set."""
    firmware_error: bool = False
    """FWSM shows an error of the firmware and no valid mode."""
    mdio_never_ready: bool = False
    """MSCA's command bit stays 1."""
    flow_director_never_ready: bool = False
    """FDIRCTRL.INIT_DONE stays 0."""
    dirty_tables: bool = False
    """Tables that no reset clears hold rubbish after power-on, as silicon may."""
    gone: bool = False
    """Fallen off the bus: every read gives ones, nothing is done."""


class Settling:
    """What takes a while: not ready for the first `reads` reads after its start."""

    def __init__(self, reads: int = 0) -> None:
        self.reads = reads
        self._left: dict[object, int] = {}

    def start(self, what: object) -> None:
        if self.reads:
            self._left[what] = self.reads

    def ready(self, what: object) -> bool:
        """Asked once for each read of the register that shows it."""
        left = self._left.get(what, 0)
        if not left:
            return True
        self._left[what] = left - 1
        return False

    def pending(self, what: object) -> bool:
        """The same without counting."""
        return self._left.get(what, 0) > 0

    def clear(self) -> None:
        self._left.clear()
