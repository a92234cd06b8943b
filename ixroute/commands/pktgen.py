"""`ixroute pktgen`: a packet generator and its counter."""

from __future__ import annotations

import argparse
import ipaddress
import re
from typing import TYPE_CHECKING

from ixroute.commands import parsing, tooling
from ixroute.present import count, rate

if TYPE_CHECKING:
    from ixroute.tools.pktgen import Counts, Plan

_DESCRIPTION = f"""\
Sends numbered UDP packets by the first port, and counts those that come back by
any of its ports: lost, late (overtaken within their flow), foreign.

{tooling.PORTS_HELP}
A rate is packets a second, with k or M if you like. Sizes are bytes of the
frame without FCS (60 is the least Ethernet sends); imix is 7:4:1 of 60, 590
and 1514. Flows differ by their UDP source port.
"""

_EXAMPLES = """\
  ixroute pktgen 0000:03:00.0 --destination-mac 02:00:00:00:00:01
  ixroute pktgen af_xdp:eth1 af_xdp:eth2 --rate 100k --packets 1000000 --flows 64
  ixroute pktgen vfio-user:/run/card.sock --size imix --source 2001:db8::1 --destination 2001:db8:1::1
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands, "pktgen", run, help="send numbered packets", description=_DESCRIPTION, examples=_EXAMPLES
    )
    parser.add_argument(
        "port", nargs="+", type=tooling.port, metavar="PORT", help="sends by the first; one or two"
    )
    parser.add_argument(
        "--rate", type=_rate, default=0, metavar="PPS", help="packets a second (as fast as it goes)"
    )
    parser.add_argument("--packets", type=parsing.positive, default=0, metavar="N", help="end after so many")
    parser.add_argument("--size", default="60", metavar="BYTES", help="60, 60,590,1514, or imix")
    parser.add_argument("--flows", type=parsing.positive, default=1, metavar="N", help="how many (1)")
    parser.add_argument("--source", type=_address, default="192.0.2.1", metavar="ADDRESS")
    parser.add_argument("--destination", type=_address, default="198.51.100.1", metavar="ADDRESS")
    parser.add_argument("--source-mac", type=parsing.mac, metavar="MAC", help="(the port's own)")
    parser.add_argument(
        "--destination-mac", type=parsing.mac, default="ff:ff:ff:ff:ff:ff", metavar="MAC", help="(broadcast)"
    )
    parser.add_argument("--core", type=tooling.cores, default=(), metavar="CORE", help="where it runs")
    tooling.add_loop(parser)


def _rate(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kM]?)", text)
    value = float(match[1]) * {"": 1, "k": 1000, "M": 1_000_000}[match[2]] if match else 0
    if not 1 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"packets a second like 5000, 10k or 1.5M, not {text!r}")
    return int(value)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"an IPv4 or IPv6 address, not {text!r}") from None


def _plan(args: argparse.Namespace) -> Plan:
    from ixroute.tools.pktgen import IMIX, Plan

    sizes = IMIX if args.size == "imix" else tuple(int(s) if s.isdigit() else 0 for s in args.size.split(","))
    return Plan(
        source=args.source,
        destination=args.destination,
        source_mac=args.source_mac,
        destination_mac=args.destination_mac,
        sizes=sizes,
        flows=args.flows,
        rate_pps=args.rate,
        packets=args.packets,
    )


def run(args: argparse.Namespace) -> int:
    """Sends until told to stop."""
    from ixroute.driver.port import PortError
    from ixroute.errors import UsageError, UserError
    from ixroute.tools import pktgen

    if len(args.port) > 2:
        raise UsageError(f"{len(args.port)} ports: one to send by, and one more at most")
    before = pktgen.Counts()

    def report(counts: Counts, elapsed: float) -> None:
        nonlocal before
        print(
            f"{elapsed:6.0f} s  sent {rate(counts.tx_packets - before.tx_packets)} packets/s,"
            f" received {rate(counts.rx_packets - before.rx_packets)}",
            flush=True,
        )
        before = counts

    try:
        counts = pktgen.run(
            _plan(args), args.port, cores=args.core, burst=args.burst, wait=tooling.wait_of(args),
            seconds=args.seconds, report=report,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error
    except (PortError, MemoryError) as error:
        raise UserError(str(error)) from error
    print(f"sent {count(counts.tx_packets)} packets, {count(counts.tx_bytes)} bytes")
    if counts.rx_packets:
        print(f"received {count(counts.rx_packets)}, lost {count(counts.lost)}, late {count(counts.rx_late)}")
    if counts.rx_foreign:
        print(f"foreign packets: {count(counts.rx_foreign)}")
    return 0
