"""The link: asked for at once, never waited for, tried again while it does not come (datasheet 4.6.4).

An 82599's link sometimes does not come at the first try, above all with traffic on the wire. So whoever owns the port
calls service() now and then: while the link is down and something is plugged in it is asked for anew after a while,
and after several times in vain service() says that only a reset of the card is left to try.
"""

from __future__ import annotations

from ixroute.driver.ixgbe import ids, mdio, sfp
from ixroute.driver.ixgbe.card import Card
from ixroute.driver.ixgbe.regfile import Timeout
from ixroute.driver.ixgbe.semaphores import MAC_CSR, resource
from ixroute.driver.port import Link

# AUTOC.LMS and AUTOC.PMA_10G
_LMS_10G_PARALLEL = 1
_LMS_1G_NEGOTIATED = 2
_LMS_10G_SERIAL = 3
_PMA_XAUI, _PMA_CX4 = 0, 2
_SERIAL_SFI = 2  # AUTOC2.SERIAL_10G

_SPEEDS = {3: 10_000, 2: 1_000, 1: 100}
_ODD_SPEEDS = {3: 2_500, 1: 5_000}

_RETRY_SECONDS = {ids.SFP: 2.0, ids.COPPER: 15.0}
"""Negotiation over copper takes up to ten seconds, and asking again begins it anew."""
_RETRY_OTHERS = 4.0
_FIRST_RESET = 5
_MOST_RETRIES = 320


def decode(card: Card, links: int) -> Link:
    """8.2.3.22.20 Link status."""
    fields = card.nic.LINKS.spec.fields
    if not fields["UP"].of(links):
        return Link(up=False)
    code = fields["SPEED"].of(links)
    odd = card.model.mac.odd_speeds and fields["NON_STD"].of(links)
    speeds = _ODD_SPEEDS if odd else _SPEEDS
    return Link(up=True, speed_mbps=speeds.get(code), duplex="full")


class LinkControl:
    """One port's link. start() after every reset, service() about once a second."""

    def __init__(self, card: Card, unsupported_module: bool = False) -> None:
        self._card = card
        self._unsupported_module = unsupported_module
        self._retry_seconds = _RETRY_SECONDS.get(card.model.media, _RETRY_OTHERS)
        self._retry_at = 0.0
        self._retries = 0
        self._reset_at = _FIRST_RESET
        self._phy: int | None = None
        self.module: sfp.Module | None = None
        """What is plugged in, as last read; None: nothing, or no cage."""
        self._applied: int | None = None  # for which kind of module the analog core is set
        self._asked_who = False  # since the link is up
        self._said = ""

    def read(self) -> Link:
        """The wire now."""
        return decode(self._card, self._card.nic.LINKS.read())

    def start(self) -> None:
        """4.6.4 Asks for the link. Whatever the module or the PHY has against it is a line in the log: the port is
        there without a link, which may come later."""
        self._retry_at = self._card.clock.now() + self._retry_seconds
        try:
            self._ask()
        except (sfp.I2cError, mdio.PhyError, Timeout) as error:
            self._say(str(error))

    def service(self) -> bool:
        """Whether the card should be reset for its link's sake: start() is called after it."""
        now = self._card.clock.now()
        if self._card.nic.LINKS.get("UP"):
            self._retries = 0
            self._reset_at = _FIRST_RESET
            self._retry_at = now + self._retry_seconds
            self._know_module()
            return False
        self._asked_who = False
        if now < self._retry_at:
            return False
        self._retry_at = now + self._retry_seconds
        if self._card.model.media == ids.SFP and not self._follow_module():
            return False
        self._retries += 1
        if self._retries >= self._reset_at and self._card.model.media != ids.FIRMWARE:
            self._reset_at = min(2 * self._reset_at, self._retries + _MOST_RETRIES)
            return True
        self._again()
        return False

    # ---- how

    def _ask(self) -> None:
        media = self._card.model.media
        if media == ids.SFP:
            self._ask_sfp()
        elif media == ids.COPPER:
            self._ask_copper()
        elif media == ids.XAUI:
            self._restart(LMS=_LMS_10G_PARALLEL, PMA_10G=_PMA_XAUI)
        elif media == ids.CX4:
            self._restart(LMS=_LMS_10G_PARALLEL, PMA_10G=_PMA_CX4)
        elif media == ids.BACKPLANE:
            self._restart()

    def _again(self) -> None:
        """What may help a link that should have come."""
        try:
            if self._card.model.media == ids.SFP:
                self._flap_laser()
                self._restart()
            else:
                self._ask()
        except (mdio.PhyError, Timeout) as error:
            self._say(str(error))

    def _restart(self, **mode: int) -> None:
        """8.2.3.22.19 Begins the link anew, in another mode perhaps; the mode stays what the EEPROM says else. The
        firmware writes the register too."""
        with resource(self._card, MAC_CSR):
            self._card.nic.AUTOC.set(RESTART_AN=1, FLU=0, **mode)

    def _ask_copper(self) -> None:
        if self._phy is None:
            self._phy, identifier = mdio.find(self._card)
            self._card.info(f"PHY {identifier:08x} at MDIO address {self._phy}")
        mdio.negotiate(self._card, self._phy)

    # ---- SFP+

    def _know_module(self) -> None:
        """A link can come by itself with a module that was plugged in since the last look: what is it? One of another
        kind needs its own settings."""
        if self._card.model.media != ids.SFP or self.module is not None or self._asked_who:
            return
        self._asked_who = True
        try:
            module = sfp.identify(self._card)
        except (sfp.I2cError, Timeout) as error:
            self._say(str(error))
            return
        if module.settings != self._applied:
            self.start()
            return
        self.module = module
        self._say(str(module))

    def _follow_module(self) -> bool:
        """A module that came or went while the link is down. False: there is none, or it was started just now."""
        there = sfp.present(self._card)
        if there and self.module is not None:
            return True
        if there:
            self.start()
        elif self.module is not None:
            self.module = None
            self._say("the module was taken out")
        return False

    def _ask_sfp(self) -> None:
        card = self._card
        self.module = None
        module = sfp.identify(card)
        words = self._settings(module)
        if words is None:
            return
        self.module = module
        sfp.apply_settings(card, words)
        self._applied = module.settings
        self._restart_core()
        if module.both_speeds:  # rate select: 10 Gbit/s
            card.nic.ESDP.set(SDP5=1, DIR5=1)
        card.nic.AUTOC2.set(SERIAL_10G=_SERIAL_SFI)
        self._restart(LMS=_LMS_1G_NEGOTIATED if module.gigabit_only else _LMS_10G_SERIAL, PMA_1G=0)
        self._laser(True)

    def _settings(self, module: sfp.Module) -> list[int] | None:
        """The analog settings for it; None: it is not to be used."""
        kind = module.settings
        words = None if kind is None else sfp.settings_of(self._card, kind + self._card.lan_id)
        if words is not None:
            self._say(str(module))
            return words
        if not self._unsupported_module:
            self._say(
                f"{module} is of a kind that this card has no settings for, and is not used;"
                " unsupported_module = true tries it with those of optical ones",
                warn=True,
            )
            return None
        self._say(
            f"{module} is of a kind that this card has no settings for; trying those of optical ones",
            warn=True,
        )
        return sfp.settings_of(self._card, sfp.OPTICAL + self._card.lan_id) or []

    def _restart_core(self) -> None:
        """8.2.3.22.19 New analog settings count after a change of the link mode: another one, until its state machine
        has seen it, and back."""
        nic = self._card.nic
        with resource(self._card, MAC_CSR):
            mode = nic.AUTOC.get("LMS")
            nic.AUTOC.set(LMS=mode ^ 4, RESTART_AN=1)
            for _ in range(10):
                self._card.clock.sleep(4e-3)
                if nic.ANLP1.get("AN_STATE"):
                    break
            nic.AUTOC.set(LMS=mode, RESTART_AN=1)

    def _laser(self, on: bool) -> None:
        """SDP3 is the laser's switch on SFP+ cards: 0 is on."""
        self._card.nic.ESDP.set(SDP3=int(not on))
        self._card.nic.flush()

    def _flap_laser(self) -> None:
        """The partner's receiver begins anew."""
        self._laser(False)
        self._card.clock.sleep(100e-6)
        self._laser(True)

    def _say(self, what: str, warn: bool = False) -> None:
        """Once, not at every retry."""
        if what == self._said:
            return
        self._said = what
        if warn:
            self._card.warn(what)
        else:
            self._card.info(what)

    def stop(self) -> None:
        """The partner sees the link go."""
        if self._card.model.media == ids.SFP:
            self._laser(False)
