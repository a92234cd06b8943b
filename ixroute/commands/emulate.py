"""`ixroute emulate`: Intel 82599 cards for whoever has none."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ixroute.commands import parsing, tooling

if TYPE_CHECKING:
    from ixroute.emulator.plan import Plan

_DESCRIPTION = """\
Emulates Intel 82599 cards, register by register, and serves them over the
vfio-user protocol: to ixroute itself (--port lan=vfio-user:PATH), and to QEMU
(-device vfio-user-pci), in which Linux's own ixgbe driver takes them as real.

Each card's port is plugged into a wire:
  tap:NAME               a TAP interface, made when it is not there
  if:NAME                an existing interface, through AF_PACKET
  pcap:in=FILE,out=FILE  files: what comes, what was sent; either may be missing.
       ,loop ,rate=PPS   again from the start; at so many packets a second
  pair:LABEL             back to back with the other card of the same label
  discard                a link, and nobody there
  none                   no cable

{n} in a wire or in --socket is the number of the card, from 0. Prints `ready`
when the sockets listen; SIGUSR1 makes it print its counters; SIGTERM and Ctrl-C
end it, and remove its sockets and the TAPs it made.
"""

_EXAMPLES = """\
  ixroute emulate --wire tap:host0 --socket /run/card.sock
  ixroute emulate --count 2 --wire tap:host{n} --socket /run/card{n}.sock
  ixroute emulate --wire pair:a --wire pair:a --socket ./card{n}.sock
  ixroute emulate --wire pcap:in=trace.pcap,loop,rate=100000,out=sent.pcap --socket ./card.sock
"""

MOST_CARDS = 64
_PLACE = re.compile(r"\{n\}|%d")


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands, "emulate", run, help="emulate 82599 cards", description=_DESCRIPTION, examples=_EXAMPLES
    )
    parser.add_argument(
        "--wire",
        metavar="SPEC",
        action="append",
        required=True,
        help="a card's wire; given again for each card",
    )
    parser.add_argument(
        "-s",
        "--socket",
        metavar="PATH",
        required=True,
        help="where the card listens; with several cards PATH-0, PATH-1, … unless it has {n}",
    )
    parser.add_argument(
        "-n", "--count", type=parsing.positive, metavar="N", help="how many cards (as many as --wire)"
    )
    parser.add_argument(
        "--device-id",
        type=_device_id,
        default=0x10FB,
        metavar="ID",
        help="PCI device id: 10fb (SFP+), 10f8 (backplane), …",
    )
    parser.add_argument(
        "--mac",
        type=parsing.mac,
        action="append",
        default=[],
        metavar="MAC",
        help="a card's address; given again for each card, or once: the others count on from it",
    )
    parser.add_argument(
        "--map-bar",
        action="store_true",
        help="let clients map the registers of queues (the engine then looks at them once a millisecond)",
    )
    parser.add_argument(
        "--cores",
        type=tooling.cores,
        default=(),
        metavar="CORES",
        help="where packets are moved, like 1 or 2-3",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice: everything")


def run(args: argparse.Namespace) -> int:
    """Emulates until told to stop."""
    from ixroute import log

    plan = plan_of(args)
    log.setup(("warning", "info", "debug")[min(args.verbose, 2)])
    from ixroute.emulator.service import Service

    service = Service(plan)
    try:
        return service.run(lambda: _say_ready([card.socket for card in plan.cards]))
    finally:
        service.close()


def _say_ready(sockets: Sequence[str]) -> None:
    """Absolute paths, as a router takes them. In one write: whoever waits for the word may close the pipe behind it,
    and that ends nothing here."""
    with contextlib.suppress(OSError):
        sys.stdout.write(" ".join(["ready", *map(os.path.abspath, sockets)]) + "\n")
        sys.stdout.flush()


def plan_of(args: argparse.Namespace) -> Plan:
    """What the command line asks for. UsageError when that does not go together."""
    from ixroute.emulator.card import CardOptions
    from ixroute.emulator.plan import CardPlan, Plan
    from ixroute.errors import UsageError

    count = args.count or len(args.wire)
    if count > MOST_CARDS:
        raise UsageError(f"{count} cards: {MOST_CARDS} in one process at most")
    wires = _for_each("--wire", args.wire, count)
    sockets = _sockets(args.socket, count)
    macs = _macs(args.mac, count, CardOptions.mac)
    try:
        CardOptions(args.device_id)
        for mac in macs:
            CardOptions(mac=mac)
    except ValueError as error:
        raise UsageError(str(error)) from error
    cards = [CardPlan(*card) for card in zip(wires, sockets, macs, strict=True)]
    return Plan(cards, args.device_id, args.map_bar, args.cores)


def _numbered(text: str, number: int) -> str:
    return _PLACE.sub(str(number), text)


def _for_each(option: str, given: Sequence[str], count: int) -> list[str]:
    if len(given) == 1 and count > 1 and _PLACE.search(given[0]):
        given = list(given) * count
    if len(given) != count:
        from ixroute.errors import UsageError

        raise UsageError(
            f"{len(given)} {option} for {count} cards: give one for each card, or one with {{n}} in it"
        )
    return [_numbered(text, number) for number, text in enumerate(given)]


def _sockets(path: str, count: int) -> list[str]:
    if count > 1 and not _PLACE.search(path):
        path += "-{n}"
    return [_numbered(path, number) for number in range(count)]


def _macs(given: Sequence[bytes], count: int, default: bytes) -> list[bytes]:
    """One for each card; from one, or none, the others count on."""
    if len(given) in (0, 1):
        first = int.from_bytes(given[0] if given else default, "big")
        return [((first + number) % (1 << 48)).to_bytes(6, "big") for number in range(count)]
    if len(given) != count:
        from ixroute.errors import UsageError

        raise UsageError(
            f"{len(given)} --mac for {count} cards: give one for each card, or one to count on from"
        )
    return list(given)


def _device_id(text: str) -> int:
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{4}", text):
        raise argparse.ArgumentTypeError(f"a PCI device id like 10fb, not {text!r}")
    return int(text, 16)
