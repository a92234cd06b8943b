"""From whatever state somebody left it in to a card that is fresh and ready (datasheet 4.6.3, 5.2.5.3)."""

from __future__ import annotations

from ixroute.driver.ixgbe import eeprom
from ixroute.driver.ixgbe.card import QUEUES, Card, CardError
from ixroute.driver.ixgbe.regfile import Timeout
from ixroute.driver.ixgbe.semaphores import EEPROM, resource
from ixroute.driver.transport import Config

_COMMAND = 4  # PCI configuration space
_MEMORY = 1 << 1
_BUS_MASTER = 1 << 2
_PCIE_CAPABILITY = 0x10
_TRANSACTIONS_PENDING = 1 << 5
_RESET_SECONDS = 0.01


def bus_master(config: Config, on: bool) -> None:
    """9.3.3 Command register: whether the card may reach memory and raise interrupts at all."""
    command = config.read(_COMMAND, 2)
    wanted = command | _BUS_MASTER | _MEMORY if on else command & ~_BUS_MASTER
    if wanted != command:
        config.write(_COMMAND, 2, wanted)


def disable_interrupts(card: Card) -> None:
    """4.6.3.1 Interrupts during initialization: off before the reset, and once more after it."""
    card.nic.EIMC.write(ALL=0x7FFFFFFF)
    for mask in card.nic.EIMC_EX:
        mask.write(0xFFFFFFFF)
    card.nic.EICR.read()


def stop_queues(card: Card) -> None:
    """4.6.7.1 Disabling: no receive queue takes another packet, so that the card's requests come to an end."""
    nic = card.nic
    nic.RXCTRL.set(RXEN=0)
    for q in range(QUEUES):
        if nic.RXDCTL[q].get("ENABLE"):
            nic.RXDCTL[q].set(ENABLE=0)
            try:
                nic.RXDCTL[q].wait(0.01, ENABLE=0)
            except Timeout as error:  # the reset ends it all the same
                card.warn(str(error))
    card.clock.sleep(100e-6)


def disable_master(card: Card) -> None:
    """5.2.5.3.2 Master disable: no reset while a request is under way. Where requests do not end, the transmit path
    is looped back so that it drains, and the buffers are cleared; two resets must follow then."""
    nic = card.nic
    nic.CTRL.set(GIO_DIS=1)
    try:
        nic.STATUS.wait(1.0, GIO_MASTER=0)
    except Timeout:
        card.warn("its requests on PCIe do not end: flushing its buffers")
        nic.HLREG0.set(LPBK=1)
        nic.RXCTRL.set(RXEN=0)
        card.clock.sleep(3e-3)  # a last completion may still come
        nic.GCR_EXT.set(BUFFERS_CLEAR=1)
        nic.flush()
        card.clock.sleep(20e-6)
        nic.GCR_EXT.set(BUFFERS_CLEAR=0)
        nic.HLREG0.set(LPBK=0)
    _wait_for_transactions(card)


def _wait_for_transactions(card: Card) -> None:
    """9.3.10.6 Device status: the bit that PCIe itself has for it."""
    at = _capability(card.config, _PCIE_CAPABILITY)
    if not at:
        return
    end = card.clock.now() + 1.0
    while card.config.read(at + 10, 2) & _TRANSACTIONS_PENDING:
        if card.clock.now() >= end:
            raise CardError(
                "its PCIe transactions do not end (device status bit 5, datasheet 5.2.5.3.2): a reset now could"
                " hang the machine; power it off and on"
            )
        card.clock.sleep(1e-3)


def _capability(config: Config, wanted: int) -> int:
    at = config.read(0x34, 1) & 0xFC
    for _ in range(48):
        if not at:
            return 0
        if config.read(at, 1) == wanted:
            return at
        at = config.read(at + 1, 1) & 0xFC
    return 0


def reset_once(card: Card) -> None:
    """4.6.3.2 Global reset: RST, on the 82599 with LRST, 1 ms, until both have cleared themselves, and 10 ms more.
    LRST on X540 and X550 would take the link from the management controller."""
    nic = card.nic
    with_link = card.model.mac.name == "82599"
    nic.CTRL.set(RST=1, LRST=int(with_link))
    card.clock.sleep(1e-3)
    nic.CTRL.wait(RST=0, **({"LRST": 0} if with_link else {}))
    card.clock.sleep(_RESET_SECONDS)


def reset(card: Card) -> None:
    """4.6.3 Initialization sequence, steps 1 to 3: everything stopped, then two resets, as master disable may have
    failed to end all requests and a single one would keep them."""
    disable_interrupts(card)
    stop_queues(card)
    disable_master(card)
    reset_once(card)
    reset_once(card)
    disable_interrupts(card)
    if card.nic.CTRL.get("GIO_DIS"):
        card.nic.CTRL.set(GIO_DIS=0)


def wait_until_ready(card: Card) -> None:
    """4.6.3 Initialization sequence, steps 4 to 7: EEPROM read and right, firmware well, DMA ready."""
    nic = card.nic
    nic.EEC.wait(ARD=1)
    if not nic.EEC.get("PRES"):
        raise CardError("it finds no EEPROM (EEC.PRES, datasheet 8.2.3.2.1): the card is damaged")
    done = f"CFG_DONE{card.lan_id}"
    try:
        nic.EEMNGCTL.wait(**{done: 1})
    except Timeout as error:
        card.warn(f"{error}; going on")
    if card.model.mac.eerd:
        with resource(card, EEPROM):
            eeprom.check(card)
    check_firmware(card)
    nic.RDRXCTL.wait(DMAIDONE=1)


def check_firmware(card: Card) -> None:
    """8.2.3.4 Firmware semaphore: whether the firmware is there and reports no error."""
    fwsm = card.nic.FWSM.read()
    fields = card.nic.FWSM.spec.fields
    if error := fields["EXT_ERR"].of(fwsm):
        raise CardError(
            f"its firmware reports error {error} (FWSM {fwsm:#010x}): power the machine off and on"
        )
    if not fields["VALID"].of(fwsm):
        card.warn(f"its firmware does not say that it runs (FWSM {fwsm:#010x})")


def read_mac(card: Card) -> bytes:
    """8.2.3.7.8 The first MAC address, which the reset has read from the EEPROM."""
    low, high = card.nic.RAL[0].read(), card.nic.RAH[0].get("RAH")
    mac = low.to_bytes(4, "little") + high.to_bytes(2, "little")
    if mac[0] & 1 or not any(mac):
        raise CardError(f"the MAC address in its EEPROM is {mac.hex(':')}, which is none of a card")
    return mac


def write_mac(card: Card, mac: bytes) -> None:
    """8.2.3.7.9 The first MAC address. Invalid while it is half written."""
    card.nic.RAH[0].write(0)
    card.nic.RAL[0].write(int.from_bytes(mac[:4], "little"))
    card.nic.RAH[0].write(RAH=int.from_bytes(mac[4:], "little"), AV=1)


def take(card: Card, driven: bool) -> None:
    """8.2.3.1.3 DRV_LOAD: the firmware knows whether a driver has the port."""
    card.nic.CTRL_EXT.set(DRV_LOAD=int(driven))


def leave_in_reset(card: Card) -> None:
    """What a failed bring-up ends with, and every close: interrupts off, and a fresh reset."""
    disable_interrupts(card)
    try:
        reset_once(card)
    finally:
        disable_interrupts(card)
