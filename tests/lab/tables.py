"""The real tables of tests/data/ris in a lab: as `ip -batch` files, with 94 gateways behind two of its cables.

A gateway's number is odd for those at the server's cable, even for those at the third host's. The hosts have
the gateways' addresses, so that each resolves; what is sent to a prefix of the table ends at that host.
"""

from __future__ import annotations

import ipaddress
import lzma
import random
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ixroute.client import request
from ixroute.demo.daemon import Daemon
from ixroute.demo.topology import Lab, Link

RIS = Path(__file__).resolve().parents[1] / "data" / "ris"
DAY = "ris20260511"
GATEWAYS = 94


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a route of the table, or an update of it (`gateway` 0: withdrawn)."""

    prefix: str
    gateway: int


def _lines(name: str) -> Iterator[str]:
    with lzma.open(RIS / f"{name}-{DAY}.txt.xz", "rt") as file:
        yield from file


def load_table(version: int, most: int | None = None) -> list[Row]:
    """The table of a family, sorted by prefix. most: that many of it, evenly spread."""
    rows = [Row(prefix, int(gateway)) for prefix, gateway in map(str.split, _lines(f"v{version}"))]
    return rows if most is None else rows[:: max(1, len(rows) // most)]


def load_updates(version: int, most: int) -> list[Row]:
    """The first updates of a day, in order of arrival."""
    rows = []
    for line in _lines(f"v{version}-updates"):
        words = line.split()
        rows.append(Row(words[1], int(words[2]) if words[0] == "A" else 0))
        if len(rows) == most:
            break
    return rows


def link_of(lab: Lab, gateway: int) -> Link:
    return lab.links[1 if gateway % 2 else 2]


def address_of(lab: Lab, version: int, gateway: int) -> str:
    number = link_of(lab, gateway).number
    return f"10.0.{number}.{100 + gateway}" if version == 4 else f"fd00:{number}::{100 + gateway:x}"


def make_gateways(lab: Lab) -> None:
    """Gives the hosts the gateways' addresses."""
    for gateway in range(1, GATEWAYS + 1):
        host = lab.hosts[link_of(lab, gateway).host]
        host.ip(f"addr add {address_of(lab, 4, gateway)}/24 dev eth0")
        host.ip(f"addr add {address_of(lab, 6, gateway)}/64 dev eth0 nodad")


def write_batch(
    lab: Lab, version: int, rows: Iterable[Row], path: Path, *, verb: str = "add", mark: int | None = None
) -> Path:
    """What `ip -VERSION -batch` reads. verb: `add` for a table, `replace` for updates. mark: number of the
    mark that ends it."""
    via = [
        f" via {address_of(lab, version, n)} dev {link_of(lab, n).interface} proto bgp\n" if n else ""
        for n in range(GATEWAYS + 1)
    ]
    with path.open("w") as file:
        file.writelines(
            f"route {verb} {row.prefix}{via[row.gateway]}" if row.gateway else f"route del {row.prefix}\n"
            for row in rows
        )
        if mark is not None:
            file.write(f"route add {mark_prefix(version, mark)}{via[1]}")
    return path


def mark_prefix(version: int, number: int) -> str:
    """A prefix that no table has (RFC 2544, RFC 5180). Routes are announced in order: when the daemon has this
    one it has all before it."""
    return f"198.18.{number}.0/24" if version == 4 else f"2001:2:0:{number:x}::/64"


def has_mark(daemon: Daemon, version: int, number: int) -> bool:
    prefix = mark_prefix(version, number)
    found = request(str(daemon.control), "lookup", timeout=30.0, address=prefix.partition("/")[0])
    return bool(found["prefix"] == prefix)


def start_batch(lab: Lab, version: int, path: Path, *, force: bool = False) -> subprocess.Popen[bytes]:
    """`ip -batch` on the router. force: goes on after a line the kernel refuses (a withdrawal of nothing)."""
    argv = ["ip", f"-{version}", "-n", lab.router.name, *(["-force"] if force else []), "-batch", str(path)]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_batch(lab: Lab, version: int, path: Path, *, force: bool = False, patience: float = 90) -> None:
    code = start_batch(lab, version, path, force=force).wait(patience)
    assert force or code == 0, f"ip -{version} -batch {path}: exit code {code}"


def after(table: Iterable[Row], updates: Iterable[Row]) -> dict[str, int]:
    """The table when all updates have been applied: gateway by prefix."""
    state = {row.prefix: row.gateway for row in table}
    for row in updates:
        if row.gateway:
            state[row.prefix] = row.gateway
        else:
            state.pop(row.prefix, None)
    return state


def random_addresses(rows: Sequence[Row], version: int, count: int, seed: int = 1) -> list[str]:
    """A third anywhere, a third in a prefix of `rows`, a third at the first or last address of one or just
    outside it."""
    source = random.Random(seed)
    bits = 32 if version == 4 else 128
    af = socket.AF_INET if version == 4 else socket.AF_INET6
    out = []
    for i in range(count):
        if i % 3 == 0:
            value = source.getrandbits(bits)
            if version == 6 and i % 2:
                value = (value >> 3) | 1 << 125  # 2000::/3, where the prefixes are
        else:
            text, _, length = source.choice(rows).prefix.partition("/")
            first = int.from_bytes(socket.inet_pton(af, text), "big")
            size = 1 << (bits - int(length))
            inside = first + source.randrange(size)
            value = inside if i % 3 == 1 else first + source.choice((-1, 0, size - 1, size))
        value = max(1, min(value, (1 << bits) - 2))  # to 0.0.0.0 and :: a socket means itself
        out.append(socket.inet_ntop(af, value.to_bytes(bits // 8, "big")))
    return out


def stable_destinations(
    table: Sequence[Row], updates: Iterable[Row], version: int, count: int, seed: int = 2
) -> dict[str, int]:
    """Addresses whose route no update touches, neither by itself nor by a longer prefix; with their gateways."""
    networks = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    gateway = {row.prefix: row.gateway for row in table}
    touched = {row.prefix for row in updates}
    lengths = sorted({int(p.partition("/")[2]) for p in (*gateway, *touched)}, reverse=True)
    source = random.Random(seed)
    found: dict[str, int] = {}
    while len(found) < count:
        first = networks(source.choice(table).prefix)
        address = first[source.randrange(1, min(first.num_addresses - 1, 1 << 16))]
        covers = (str(networks((address, length), strict=False)) for length in lengths)
        best = next(prefix for prefix in covers if prefix in gateway or prefix in touched)
        if best not in touched:
            found[str(address)] = gateway[best]
    return found
