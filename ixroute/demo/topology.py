"""Hosts around one router, each on a cable: the network of the demo, the tests and the benchmarks.

    client (eth0) ---- (r0) router (r1) ---- (eth0) server          and more hosts on r2 and r3 when asked for

The router's ends are what `ixroute` drives; the TAPs it makes, `lan` and `wan`, are what is configured. A cable
is a veth pair (`af_xdp:r0`), or an emulated 82599 whose wire is the host's interface (`vfio-user:SOCKET`). With
`kernel=True` Linux itself routes, with the same addresses on r0 and r1: the reference to compare with.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass

from ixroute.demo.cards import Cards
from ixroute.demo.netns import RUN, Namespace, reap_leftovers

PREFIX = "ixr"  # namespaces are ixr<pid>-client …; those of dead processes are removed by the next lab
AF_XDP, CARDS = "af_xdp:", "vfio-user:"
KEPT_PREFIX = "ixdemo"  # what `ixroute demo --keep` leaves, until it is stopped


@dataclass(frozen=True)
class Link:
    """The cable between one host and the router, and the addresses at its ends (host .2, router .1)."""

    number: int
    host: str
    port: str
    """The port's name: the TAP's, which is what people configure."""
    device: str
    """The router's end of the cable: of the veth pair; with emulated cards only a word."""
    interface: str
    """What has the router's addresses: the TAP, or the device itself when Linux forwards."""
    mtu: int
    spec: str
    """What `ixroute run` is told to drive."""

    @property
    def router4(self) -> str:
        return f"10.0.{self.number}.1"

    @property
    def host4(self) -> str:
        return f"10.0.{self.number}.2"

    @property
    def net4(self) -> str:
        return f"10.0.{self.number}.0/24"

    @property
    def router6(self) -> str:
        return f"fd00:{self.number}::1"

    @property
    def host6(self) -> str:
        return f"fd00:{self.number}::2"

    @property
    def router_mac(self) -> str:
        return f"02:00:00:00:{self.number:02x}:01"

    @property
    def host_mac(self) -> str:
        return f"02:00:00:00:{self.number:02x}:02"


HOSTS = ("client", "server", "third", "fourth")
PORTS = ("lan", "wan", "dmz", "spare")


class Lab:
    """Namespaces for the router and its hosts. Make it with `with Lab() as lab:`; it is gone afterwards,
    whatever happened in between: at the end of the block, of the process, or when the next lab finds its
    process dead.
    """

    def __init__(
        self,
        hosts: int = 2,
        *,
        kernel: bool = False,
        ports: str = AF_XDP,
        queues: int = 1,
        mtu: int | tuple[int, ...] = 1500,
        mute: bool = False,
        label: str = "",
        keep: bool = False,
    ) -> None:
        """ports: what the router's ports are: AF_XDP on veth pairs, or CARDS. mtu: one for all links, or one for
        each. mute: the hosts have no addresses and never answer by themselves, for tests that play frames.
        label: tells several labs of one process apart.
        """
        base = f"{KEPT_PREFIX if keep else PREFIX}{os.getpid()}-{label}"
        mtus = mtu if isinstance(mtu, tuple) else (mtu,) * hosts
        self.kernel = kernel
        self.queues = queues
        self.mute = mute
        self.released = False
        self.router = Namespace(f"{base}router")
        self.links = tuple(self._link(i, mtus[i], ports) for i in range(hosts))
        self.cards: Cards | None = None
        if ports == CARDS and not kernel:
            macs = [link.router_mac for link in self.links]
            self.cards = Cards(self.router, [f"wire{i}" for i in range(hosts)], macs)
        self.hosts = {link.host: Namespace(f"{base}{link.host}") for link in self.links}

    def _link(self, i: int, mtu: int, ports: str) -> Link:
        device = f"r{i}"
        spec = f"{AF_XDP}{device}" if ports == AF_XDP else f"{CARDS}{self.router.directory}/card{i}.sock"
        return Link(i + 1, HOSTS[i], PORTS[i], device, device if self.kernel else PORTS[i], mtu, spec)

    @property
    def client(self) -> Namespace:
        return self.hosts["client"]

    @property
    def server(self) -> Namespace:
        return self.hosts["server"]

    def namespaces(self) -> tuple[Namespace, ...]:
        return (*self.hosts.values(), self.router)

    def __enter__(self) -> Lab:
        return self.create()

    def __exit__(self, *exc: object) -> None:
        if not self.released:
            self.close()

    def create(self) -> Lab:
        """The namespaces and cables, all up; hosts have their addresses, the router has none."""
        reap_leftovers(PREFIX)
        atexit.register(self.close)
        try:
            for namespace in self.namespaces():
                namespace.create()
            if self.cards:
                self.cards.start()
            for link in self.links:
                if self.cards:
                    self._lay_wire(link)
                else:
                    self._lay_cable(link)
                self._set_up_host(link)
                if not self.mute:
                    self._address_host(link)
        except BaseException:
            self.close()
            raise
        return self

    def release(self) -> None:
        """Leaves everything running when this process ends."""
        self.released = True
        if self.cards:
            self.cards.release()
        atexit.unregister(self.close)

    def close(self) -> None:
        """Ends every program inside and removes all; may be called any number of times."""
        atexit.unregister(self.close)
        if self.cards:
            self.cards.close()
        # the router first: its daemon then detaches from cables that still exist
        for namespace in (self.router, *self.hosts.values()):
            namespace.destroy()

    def _lay_cable(self, link: Link) -> None:
        queues = f"numrxqueues {self.queues} numtxqueues {self.queues}"
        host = self.hosts[link.host]
        self.router.ip(
            f"link add {link.device} address {link.router_mac} mtu {link.mtu} {queues} type veth"
            f" peer name eth0 address {link.host_mac} mtu {link.mtu} {queues} netns {host.name}"
        )
        if self.kernel:
            self.router.offloads_off(link.device)
        else:  # the device is the wire of a port: the kernel has nothing to say on it
            self.router.sysctl(f"net.ipv6.conf.{link.device}.disable_ipv6", 1)
        self.router.ip(f"link set {link.device} up")

    def _lay_wire(self, link: Link) -> None:
        """The TAP that is the far end of an emulated card's wire becomes the host's interface."""
        host, wire = self.hosts[link.host], f"wire{link.number - 1}"
        self.router.ip(f"link set {wire} netns {host.name} name eth0")
        # The queue is where frames wait when the emulator's thread does not get a core at once.
        host.ip(f"link set eth0 address {link.host_mac} mtu {link.mtu} txqueuelen 10000")

    def _set_up_host(self, link: Link) -> None:
        host = self.hosts[link.host]
        if self.mute:
            host.sysctl("net.ipv6.conf.eth0.disable_ipv6", 1)
            host.ip("link set eth0 arp off")
        host.ip("link set eth0 up")
        host.offloads_off("eth0")

    def _address_host(self, link: Link) -> None:
        host = self.hosts[link.host]
        host.ip(f"addr add {link.host4}/24 dev eth0")
        host.ip(f"addr add {link.host6}/64 dev eth0 nodad")
        host.ip(f"route add default via {link.router4}")
        host.ip(f"route add default via {link.router6} dev eth0")

    def router_commands(self) -> list[str]:
        """What is typed after `ip` on the router to make it route between the links."""
        commands = []
        for link in self.links:
            commands.append(f"addr add {link.router4}/24 dev {link.interface}")
            commands.append(f"addr add {link.router6}/64 dev {link.interface} nodad")
            mtu = f"mtu {link.mtu} " if self.cards else ""  # of a veth pair ixroute takes it over
            commands.append(f"link set {link.interface} {mtu}up")
        return commands

    @property
    def interfaces(self) -> dict[str, str]:
        """By port name: the interface that has the router's addresses."""
        return {link.port: link.interface for link in self.links}

    def forwarding_on(self) -> None:
        self.router.sysctl("net.ipv4.ip_forward", 1)
        self.router.sysctl("net.ipv6.conf.all.forwarding", 1)

    def address_router(self, ran: Callable[[str], None] | None = None) -> None:
        """Addresses and forwarding for the router; `ran` is told each `ip` command before it runs."""
        for command in self.router_commands():
            if ran:
                ran(command)
            self.router.ip(command)
        self.forwarding_on()


def kept_labs() -> list[str]:
    """The namespaces that earlier `ixroute demo --keep` left behind."""
    return sorted(path.name for path in RUN.glob(f"{KEPT_PREFIX}[0-9]*-*"))


def stop_kept() -> list[str]:
    """Ends and removes what `ixroute demo --keep` left. Returns the names of the namespaces."""
    names = sorted(kept_labs(), key=lambda name: not name.endswith("router"))
    for name in names:
        Namespace(name).destroy()
    return names
