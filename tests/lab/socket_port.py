"""Our driver's port on a card that another process emulates, over its socket."""

from __future__ import annotations

import contextlib

from ixroute.driver.ixgbe.port import IxgbePort
from ixroute.driver.port import PortOptions
from ixroute.driver.umem import Umem
from ixroute.driver.vfio_user import VfioUserTransport
from lab.emulated_port import Hands

SPARE_FRAMES = 256


class SocketPort(Hands):
    """socket: where `ixroute emulate` listens. The card's engine runs in its own process and its own time."""

    def __init__(
        self, socket: str, queues: int = 1, options: PortOptions | None = None, frame_bytes: int = 4096
    ) -> None:
        super().__init__()
        options = options or PortOptions(rx_slots=256, tx_slots=256)
        with contextlib.ExitStack() as undo:
            each = sum(options.slots(1)) + SPARE_FRAMES
            self.umem = Umem(each * queues, frame_bytes, "off")
            undo.callback(self.umem.close)
            self.pools = [self.umem.pool(each) for _ in range(queues)]
            transport = VfioUserTransport(socket)
            self.port = IxgbePort("p", 0, f"vfio-user:{socket}", self.umem, queues, options, transport)
            undo.callback(self.port.close)
            self.queues = self.port.queues()
            self._undo = undo.pop_all()
        self.refill()

    def __enter__(self) -> SocketPort:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()
