"""A router for a test: a lab, and in it either the real daemon or Linux forwarding by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ixroute.demo.daemon import Daemon
from ixroute.demo.readings import unbalanced
from ixroute.demo.topology import AF_XDP, CARDS, Lab
from lab.support import port_arguments, wait_until


@dataclass
class Router:
    """`daemon` is None where Linux forwards: the same test then shows that its own premises hold."""

    lab: Lab
    daemon: Daemon | None

    @property
    def ixroute(self) -> Daemon:
        assert self.daemon is not None, "this router is Linux itself"
        return self.daemon

    def ip(self, arguments: str) -> str:
        """`ip ARGUMENTS` on the router; {lan}, {wan}, {dmz} stand for the interfaces with its addresses."""
        return self.lab.router.ip(arguments.format(**self.lab.interfaces))

    def check_balance(self) -> None:
        """received + injected = sent + punted + dropped + policed, on every port and in total."""
        wait_until(
            lambda: not unbalanced(self.ixroute.stats()),
            3,
            lambda: "; ".join(unbalanced(self.ixroute.stats())),
        )

    def close(self) -> None:
        try:
            if self.daemon and self.daemon.process and self.daemon.process.poll() is None:
                self.check_balance()
        finally:
            if self.daemon:
                self.daemon.close()
                print(f"the end of the daemon's log:\n{self.daemon.log_tail(40)}")
            if self.lab.cards and self.lab.cards.process:
                check_cards(self.lab)
            self.lab.close()


def check_cards(lab: Lab) -> None:
    """Ends the lab's emulated cards: none saw an access to memory that it was not given, or a bad descriptor."""
    assert lab.cards is not None
    lab.cards.end()
    report = lab.cards.report()
    assert len(report) == len(lab.links), lab.cards.log_tail()
    wrong = [card for card in report if card["dma_faults"] or card.get("bad_descriptors")]
    assert not wrong, lab.cards.log_tail()


def start_router(
    kind: str = "ixroute", *, hosts: int = 2, watchdog_s: float = 0, workers: str = "", **lab_options: Any
) -> Router:
    """kind: `ixroute` on veth pairs, `cards`: ixroute on emulated 82599s, or `linux`. Addresses are set, forwarding
    is on. workers: cores, as `ixroute run` takes them."""
    ports = CARDS if kind == "cards" else AF_XDP
    router = Router(Lab(hosts, kernel=kind == "linux", ports=ports, **lab_options).create(), None)
    try:
        if kind != "linux":
            router.daemon = Daemon(
                router.lab.router, port_arguments(router.lab, workers), watchdog_s=watchdog_s
            )
            router.daemon.start()
        router.lab.address_router()
    except BaseException:
        router.close()
        raise
    return router
