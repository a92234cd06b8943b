"""`ixroute dump`: packets of a port, as text or as a pcap file."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

from ixroute.commands import parsing, tooling
from ixroute.present import count

if TYPE_CHECKING:
    from ixroute.tools.dump import Dump

_DESCRIPTION = f"""\
Shows what arrives at a port, a line a packet, or writes it to a pcap file that
tcpdump and Wireshark read.

{tooling.PORTS_HELP}"""

_EXAMPLES = """\
  ixroute dump 0000:03:00.0
  ixroute dump af_xdp:eth1 -c 100 -w packets.pcap
  ixroute dump vfio-user:/run/card.sock -w - | tcpdump -nr -
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands, "dump", run, help="show or save packets", description=_DESCRIPTION, examples=_EXAMPLES
    )
    parser.add_argument("port", type=tooling.port, metavar="PORT", help="like af_xdp:eth1")
    parser.add_argument("-c", "--count", type=parsing.positive, metavar="N", help="end after so many packets")
    parser.add_argument("-w", "--write", metavar="FILE", help="a pcap file (-: standard output)")
    parser.add_argument("-x", "--hex", action="store_true", help="the packets' bytes too")
    parser.add_argument(
        "--snap", type=parsing.positive, default=65535, metavar="BYTES", help="keep so much of each"
    )
    parser.add_argument("--seconds", type=parsing.seconds, metavar="SEC", help="end after so long (Ctrl-C)")


def run(args: argparse.Namespace) -> int:
    """Dumps until told to stop."""
    from ixroute.driver.port import PortError
    from ixroute.errors import UserError
    from ixroute.tools.dump import Dump

    with contextlib.ExitStack() as stack:
        file = None
        if args.write == "-":
            file = sys.stdout.buffer
        elif args.write:
            file = stack.enter_context(open(args.write, "wb"))
        try:
            dump = stack.enter_context(Dump(args.port, args.snap))
            with contextlib.suppress(KeyboardInterrupt):
                _take_all(dump, args, file)
        except (PortError, MemoryError) as error:
            raise UserError(str(error)) from error
    print(f"{count(dump.seen.packets)} packets, {count(dump.seen.bytes)} bytes", file=sys.stderr)
    return 0


def _take_all(dump: Dump, args: argparse.Namespace, file: BinaryIO | None) -> None:
    use = dump.write(file) if file else dump.show(lambda *packet: _print(args.hex, *packet))
    end = time.monotonic() + args.seconds if args.seconds else float("inf")
    while (left := (args.count or 2**62) - dump.seen.packets) > 0 and time.monotonic() < end:
        dump.take(use, min(left, 64), 100)
        if file:
            file.flush()


def _print(with_hex: bool, packet: bytes, length: int, time_ns: int) -> None:
    from ixroute.tools.describe import describe

    clock = time.strftime("%H:%M:%S", time.localtime(time_ns // 1_000_000_000))
    print(f"{clock}.{time_ns % 1_000_000_000 // 1000:06d} {describe(packet)} ({length})", flush=True)
    if with_hex:
        for at in range(0, len(packet), 16):
            print(f"    {at:04x}  {packet[at : at + 16].hex(' ')}")
