"""One card, as bring-up knows it: its registers, its configuration space, which of the family it is."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ixroute.driver.ixgbe.ids import Model
from ixroute.driver.ixgbe.regfile import Clock, RegisterError, RegisterFile
from ixroute.driver.transport import Config

log = logging.getLogger(__name__)

QUEUES = 128
"""That the card has, each way; RSS reaches fewer (ids.py)."""


class CardError(RegisterError):
    """The card does not do what the datasheet says, or has a fault; one line, with what helps where anything does."""


@dataclass
class Card:
    nic: RegisterFile
    config: Config
    model: Model
    name: str
    """For the log."""

    @property
    def clock(self) -> Clock:
        return self.nic.clock

    def warn(self, message: str) -> None:
        log.warning("%s: %s", self.name, message)

    def info(self, message: str) -> None:
        log.info("%s: %s", self.name, message)

    @property
    def lan_id(self) -> int:
        """Which of the chip's ports this is, 0 or 1."""
        return self.nic.STATUS.get("LAN_ID") & 1
