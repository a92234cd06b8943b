"""The demo's steps, in order. Each prints what was seen, and fails the demo when it is not as it should."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator

from ixroute.client import ControlError
from ixroute.demo.cards import READY_SECONDS
from ixroute.demo.daemon import Daemon, DaemonError
from ixroute.demo.netns import CommandError
from ixroute.demo.probes import Transfer, ping, tcp_transfer, traceroute, udp_flow
from ixroute.demo.readings import Stats, dropped_total, punted_total, unbalanced
from ixroute.demo.topology import CARDS, Lab, Link

CONFIG = """\
# Ports, workers, memory: what the kernel cannot hold. Addresses and routes are set with `ip`.
[ports.lan]
spec = "{lan}"

[ports.wan]
spec = "{wan}"

[workers]
cores = "{core}"

[control]
socket = "{socket}"
"""


class StepError(Exception):
    """A step of the demo was not as it should be."""


class Teller:
    """Prints what happens: headings, commands with a `$`, results."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def head(self, text: str) -> None:
        if not self.quiet:
            print(f"\n{self._paint('1', text)}", flush=True)

    def command(self, text: str) -> None:
        if not self.quiet:
            print(f"  {self._paint('36', '$ ' + text)}", flush=True)

    def text(self, text: str) -> None:
        if not self.quiet:
            print("\n".join(f"  {line}" for line in text.rstrip().splitlines()), flush=True)

    def check(self, holds: bool, text: str) -> None:
        """The verdict of a step: every claim the demo makes passes here."""
        print(f"  {self._paint('32', 'ok  ') if holds else self._paint('31', 'FAIL')} {text}", flush=True)
        if not holds:
            raise StepError(text)


def run(keep: bool = False, quiet: bool = False, ports: str = CARDS) -> int:
    """See ixroute.demo.run."""
    if reason := _missing():
        print(f"ixroute demo: {reason}", file=sys.stderr)
        return 1
    teller = Teller(quiet)
    began = time.monotonic()
    try:
        with _signals_end_the_demo(), Lab(keep=keep, ports=ports) as lab, Daemon(lab.router, []) as daemon:
            _tell(teller, lab, daemon, keep)
    except (StepError, CommandError, DaemonError, ControlError, OSError) as error:
        print(f"ixroute demo: {error}", file=sys.stderr)
        return 1
    if keep:
        return 0
    left = [namespace.name for namespace in lab.namespaces() if namespace.exists()]
    if left:
        print(f"ixroute demo: left behind: {', '.join(left)}", file=sys.stderr)
        return 1
    print(f"\nAll of it held, in {time.monotonic() - began:.1f} s. Nothing is left behind.")
    return 0


def _tell(teller: Teller, lab: Lab, daemon: Daemon, keep: bool) -> None:
    """All steps; when one fails, the end of the daemon's log is shown before everything is removed."""
    try:
        _steps(teller, lab, daemon)
    except (StepError, CommandError, ControlError, OSError):
        print(f"the end of the daemon's log:\n{daemon.log_tail()}", file=sys.stderr)
        if lab.cards:
            print(f"the end of the emulator's log:\n{lab.cards.log_tail()}", file=sys.stderr)
        raise
    if keep:
        lab.release()
        daemon.release()
        _what_next(lab, daemon)
    else:
        _end(teller, lab, daemon)


def _missing() -> str:
    """What stops the demo on this machine, and what mends it; empty when nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it with sudo"
    if not shutil.which("ip"):
        return "needs the `ip` command: apt install iproute2"
    return ""


@contextlib.contextmanager
def _signals_end_the_demo() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that everything is cleaned up."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _steps(teller: Teller, lab: Lab, daemon: Daemon) -> None:
    teller.text("client (10.0.1.2, fd00:1::2) -- lan [router] wan -- server (10.0.2.2, fd00:2::2)")
    if lab.cards:
        _cards(teller, lab)
    _start(teller, lab, daemon)
    _address(teller, lab)
    _ping_and_trace(teller, lab)
    _tcp(teller, lab)
    _udp(teller, lab)
    _blackhole(teller, lab, daemon)
    _account(teller, lab, daemon)


def _cards(teller: Teller, lab: Lab) -> None:
    teller.head("Two Intel 82599 cards, emulated register by register; a host's interface is each one's wire")
    assert lab.cards is not None
    teller.command(" ".join(["ixroute", *lab.cards.arguments]))


def _start(teller: Teller, lab: Lab, daemon: Daemon) -> None:
    teller.head("The daemon")
    core = max(os.sched_getaffinity(0))
    config = lab.router.directory / "ixroute.toml"
    config.write_text(
        CONFIG.format(core=core, socket=daemon.control, lan=lab.links[0].spec, wan=lab.links[1].spec)
    )
    daemon.arguments = ["--config", os.fspath(config)]
    teller.text(config.read_text())
    teller.command(f"ip netns exec {lab.router.name} ixroute run --config {config}")
    began = time.monotonic()
    daemon.start()
    taps = [link.port for link in lab.links]
    there = lab.router.ip("-br link show")
    teller.check(
        all(f"\n{tap} " in f"\n{there}" for tap in taps),
        f"ready in {time.monotonic() - began:.1f} s: interfaces {', '.join(taps)}, one worker on core {core}",
    )
    if lab.cards:
        _driver(teller, daemon)


def _driver(teller: Teller, daemon: Daemon) -> None:
    """What the driver core made of the cards, which it knows by their registers only."""
    linked = _within(READY_SECONDS, lambda: all(port["link"]["up"] for port in daemon.stats()["ports"]))
    teller.command(f"ixroute show ports -s {daemon.control}")
    teller.text(daemon.ask("show", "ports"))
    speeds = {port["link"]["speed_mbps"] for port in daemon.stats()["ports"]}
    teller.check(
        linked and speeds == {10_000}, "brought up by ixroute's own driver; each link is up with 10 Gbit/s"
    )


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether it holds before the time is over."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _address(teller: Teller, lab: Lab) -> None:
    teller.head("Configured like any Linux router")
    lab.address_router(lambda command: teller.command(f"ip -n {lab.router.name} {command}"))
    teller.command("sysctl net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")


def _targets(link: Link) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("IPv4", link.host4), ("IPv6", link.host6)


def _ping_and_trace(teller: Teller, lab: Lab) -> None:
    teller.head("Ping and traceroute, client to server")
    near, far = lab.links[0], lab.links[1]
    for name, target in _targets(far):
        ping(lab.client, target, 1)  # neighbours are resolved by the first
        result = ping(lab.client, target, 5)
        teller.check(
            result.all_back,
            f"{name} ping {target}: {result.received} of {len(result.rtts_ms)} back, "
            f"median {result.median_ms:.2f} ms",
        )
    for router, (name, target) in zip((near.router4, near.router6), _targets(far), strict=True):
        hops = traceroute(lab.client, target)
        teller.check(
            hops == [router, target], f"{name} traceroute: {' -> '.join(hop or '*' for hop in hops)}"
        )


def _tcp(teller: Teller, lab: Lab) -> None:
    teller.head("TCP and UDP through the router")
    for name, target in _targets(lab.links[1]):
        transfer: Transfer = tcp_transfer(lab.client, lab.server, target, seconds=1.5)
        teller.check(
            transfer.whole,
            f"{name} TCP: {transfer.received_bytes / 1e6:.0f} MB, every byte arrived, "
            f"{transfer.bits_per_second / 1e9:.2f} Gbit/s",
        )


def _udp(teller: Teller, lab: Lab) -> None:
    for name, target in _targets(lab.links[1]):
        flow = udp_flow(lab.client, lab.server, target, rate=3000, seconds=1.0)
        teller.check(
            flow.lost == 0 and flow.reordered == 0,
            f"{name} UDP: {flow.sent} datagrams at {flow.sent / flow.seconds:.0f}/s, "
            f"{flow.lost} lost, {flow.reordered} out of order",
        )


def _blackhole(teller: Teller, lab: Lab, daemon: Daemon) -> None:
    teller.head("A route changes, and traffic follows")
    target = lab.links[1].host4
    before = dropped_total(daemon.stats(), "blackhole_route")
    command = f"route add blackhole {target}/32"
    teller.command(f"ip -n {lab.router.name} {command}")
    lab.router.ip(command)
    _follows(lab, target, False)
    result = ping(lab.client, target, 4, patience=0.1)
    teller.check(result.none_back, f"ping {target}: {result.received} of {len(result.rtts_ms)} back")
    dropped = dropped_total(daemon.stats(), "blackhole_route") - before
    teller.check(dropped >= len(result.rtts_ms), f"counted: blackhole_route {dropped}")
    teller.command(f"ixroute lookup {target}")
    teller.text(daemon.ask("lookup", target))
    command = f"route del blackhole {target}/32"
    teller.command(f"ip -n {lab.router.name} {command}")
    lab.router.ip(command)
    _follows(lab, target, True)
    result = ping(lab.client, target, 4)
    teller.check(result.all_back, f"ping {target}: {result.received} of {len(result.rtts_ms)} back")
    teller.command(f"ixroute lookup {target}")
    teller.text(daemon.ask("lookup", target))


def _follows(lab: Lab, target: str, reachable: bool) -> None:
    """Waits, at most a second, until an echo comes back or does not: the change has reached the packets."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if ping(lab.client, target, 1, interval=0, patience=0.1).all_back == reachable:
            return


def _account(teller: Teller, lab: Lab, daemon: Daemon) -> None:
    teller.head("Where every packet went")
    teller.command(f"ixroute stats -s {daemon.control}")
    teller.text(daemon.ask("stats"))
    stats = daemon.stats()
    wrong = unbalanced(stats)
    teller.check(
        not wrong,
        "; ".join(wrong)
        or "received + from the kernel = sent + to the kernel + dropped, exactly, on every port",
    )
    teller.check(
        punted_total(stats) > 0, f"the kernel itself answered what is its own: {punted_total(stats)} packets"
    )
    if lab.cards:
        _card_counters(teller, stats)


def _card_counters(teller: Teller, stats: Stats) -> None:
    """The hardware's counters beside the workers'."""
    ports = stats["ports"]
    taken = all(port["driver"]["rx_packets_mac"] >= port["rx_packets"] for port in ports)
    missed = sum(port["driver"]["rx_missed"] for port in ports)
    counted = ", ".join(f"{port['name']} {port['driver']['rx_packets_mac']}" for port in ports)
    teller.check(
        taken, f"the cards' own counters: {counted} packets received, {missed} missed for want of room"
    )


def _end(teller: Teller, lab: Lab, daemon: Daemon) -> None:
    teller.head("The end")
    code = daemon.stop()
    daemon.close()
    if lab.cards:
        teller.check(code == 0, f"SIGTERM: the daemon ended with code {code}, the cards are given back")
        ended = lab.cards.end()
        faults = [card["dma_faults"] for card in lab.cards.report()]
        bad = [card.get("bad_descriptors", 0) for card in lab.cards.report()]
        clean = [0] * len(lab.links)
        teller.check(
            ended == 0 and faults == bad == clean,
            f"the emulator, which checks every access of a card to memory: {sum(faults)} DMA faults,"
            f" {sum(bad)} bad descriptors",
        )
        return
    xdp = "xdp" in lab.router.ip("link show")
    teller.check(
        code == 0 and not xdp, f"SIGTERM: the daemon ended with code {code}, its XDP programs are gone"
    )


def _this_command() -> str:
    """How this very ixroute is called by a shell that may not know it."""
    return shutil.which("ixroute", path=os.path.dirname(sys.executable)) or f"{sys.executable} -m ixroute"


def _what_next(lab: Lab, daemon: Daemon) -> None:
    router, client = lab.router.name, lab.client.name
    print(f"""
It is still running. Try, as root:

  alias ixroute={_this_command()}
  export S={daemon.control}
  ixroute stats -w -s $S                  # what each port does, every second
  ixroute show ports -s $S                # what is driven, and how
  ixroute lookup fd00:2::2 -s $S          # which route, next hop and port, or why not
  ip netns exec {client} ping 10.0.2.2
  ip -n {router} route add unreachable 10.0.2.2    # and watch the ping; `route del` mends it
  ip -n {router} link set wan down        # and up again
  ip netns exec {router} {_this_command()} doctor
  tail -f {daemon.log}

Stop and remove it:
  {_this_command()} demo --stop""")
