"""A port over AF_XDP (linux/if_xdp.h): any Linux interface, its packets taken from the kernel."""

from __future__ import annotations

from typing import Any

from ixroute.driver.port import Link, PortOptions
from ixroute.driver.umem import Umem


def queues_expected(interface: str, workers: int) -> int:
    """How many queues the interface will have once it is a port of so many workers."""
    raise NotImplementedError


class AfXdpPort:
    """Implements Port on the interface of the calling thread's network namespace. See Port for what each does."""

    kind = "af_xdp"

    def __init__(
        self, name: str, index: int, interface: str, umem: Umem, workers: int, options: PortOptions
    ) -> None:
        self.name = name
        self.index = index
        self.spec = f"af_xdp:{interface}"
        self.n_queues = 0
        self.max_mtu = 0
        self.wire_ifindex: int | None = None
        raise NotImplementedError

    @property
    def mac(self) -> bytes:
        raise NotImplementedError

    @property
    def mtu(self) -> int:
        raise NotImplementedError

    def queues(self) -> list[Any]:
        raise NotImplementedError

    def link(self) -> Link:
        raise NotImplementedError

    def set_mtu(self, mtu: int) -> None:
        raise NotImplementedError

    def set_mac(self, mac: bytes) -> None:
        raise NotImplementedError

    def set_promiscuous(self, on: bool) -> None:
        raise NotImplementedError

    def set_allmulticast(self, on: bool) -> None:
        raise NotImplementedError

    def stats(self) -> dict[str, int]:
        raise NotImplementedError

    def features(self) -> dict[str, Any]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
