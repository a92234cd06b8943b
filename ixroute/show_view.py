"""`ixroute show` as text: a table for each kind of thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ixroute.present import Style, count, plain_table
from ixroute.schema import Adjacency, GroupLeg, Leg, Neighbor, Port, Program, Route, Rules, WorkerStats
from ixroute.stats_view import link_word


def legs_text(legs: Iterable[Leg]) -> str:
    """Next hops in one line, in ip's words."""
    words = []
    for leg in legs:
        via = f"via {leg['gateway']} " if leg["gateway"] else ""
        weight = f" weight {leg['weight']}" if leg["weight"] > 1 else ""
        words.append(f"{via}dev {leg['dev']}{weight}")
    return ", ".join(words) or "-"


TABLE_NAMES = {253: "default", 254: "main", 255: "local"}
_PROTOCOLS = {  # rtnetlink.h, RTPROT_*
    1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp",
    186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp", 196: "zstatic",
}  # fmt: skip


def table_name(number: int) -> str:
    """As ip names it."""
    return TABLE_NAMES.get(number, str(number))


def protocol_name(number: int) -> str:
    """As ip names it."""
    return _PROTOCOLS.get(number, str(number))


def _route_lines(routes: Iterable[Route], style: Style) -> list[str]:
    head = ["", "PREFIX", "TYPE", "NEXT HOP", "TABLE", "METRIC", "PROTOCOL", "ADJACENCY"]
    return plain_table(head, [_route_row(route) for route in routes], style)


def _route_row(route: Route) -> list[str]:
    tos = f" tos {route['tos']:#x}" if route["tos"] else ""
    nhid = f"nhid {route['nhid']} " if route["nhid"] else ""
    return [
        "*" if route["best"] else " ",
        route["prefix"] + tos,
        route["type"],
        nhid + legs_text(route["legs"]),
        table_name(route["table"]),
        str(route["metric"]),
        protocol_name(route["protocol"]),
        str(route["adjacency"]),
    ]


def _port_lines(ports: Sequence[Port], style: Style) -> list[str]:
    head = ["PORT", "INDEX", "DEVICE", "LINK", "MTU", "MAC", "QUEUES", "MODE"]
    rows = []
    for port in ports:
        mode = port["mode"] + (", zero copy" if port["zero_copy"] else "")
        words = [
            port["name"],
            port["index"],
            port["spec"],
            link_word(port),
            port["mtu"],
            port["mac"],
            port["queues"],
            mode,
        ]
        rows.append([str(word) for word in words])
    lines = plain_table(head, rows, style)
    cards = [port for port in ports if port.get("features", {}).get("card")]
    return [*lines, "", *_card_lines(cards, style)] if cards else lines


def _card_lines(ports: Iterable[Port], style: Style) -> list[str]:
    """Of cards driven by their registers: what the driver found and switched on."""
    head = ["PORT", "CARD", "MODULE", "RECEIVE QUEUES", "SLOTS", "INTERRUPTS", "OFFLOADS"]
    rows = []
    for port in ports:
        f = port["features"]
        interrupts = f"{f['interrupts']}, {f['interrupt_us']} us apart" if f["interrupts"] else "none"
        offloads = {
            "rx_checksum": "receive checksums",
            "tx_head_write_back": "head write-back",
            "drop_when_full": "drop when full",
        }
        words = [
            port["name"],
            f["card"],
            f["module"] or "-",
            f"RSS {f['rss']}, {f['queues']} of {f['queues_max']}",
            f"{f['rx_slots']} rx, {f['tx_slots']} tx",
            interrupts,
            ", ".join(text for key, text in offloads.items() if f.get(key)),
        ]
        rows.append([str(word) for word in words])
    return plain_table(head, rows, style)


def _neighbor_lines(neighbors: Iterable[Neighbor], style: Style) -> list[str]:
    head = ["ADDRESS", "PORT", "MAC", "STATE", "KEPT BY"]
    rows = [
        [n["address"], n["dev"], n["mac"] or "-", n["state"], "kernel (managed)" if n["managed"] else "-"]
        for n in neighbors
    ]
    return plain_table(head, rows, style)


def _adjacency_lines(adjacencies: Iterable[Adjacency], style: Style) -> list[str]:
    head = ["INDEX", "ACTION", "PORT", "MAC", "MTU", "ROUTES", "NEXT HOP"]
    rows = []
    for a in adjacencies:
        words = [
            a["index"],
            a["action"],
            a["port"] or "-",
            a["mac"] or "-",
            a["mtu"] or "-",
            a["routes"],
            group_title(a) if a["group"] else legs_text(a["legs"]),
        ]
        rows.append([str(word) for word in words])
        rows += [_leg_row(a, leg) for leg in a["group"]]
    return plain_table(head, rows, style)


def group_title(adjacency: Adjacency) -> str:
    """How many next hops, and their buckets: 3 next hops, 64 buckets."""
    buckets = f", {adjacency['buckets']} buckets" if adjacency["buckets"] else ""
    return f"{len(adjacency['group'])} next hops{buckets}"


def _leg_row(adjacency: Adjacency, leg: GroupLeg) -> list[str]:
    """Under its group: the columns say of the leg what they say of others."""
    where = f"via {leg['gateway']} dev {leg['dev']} {share_text(adjacency, leg)}"
    return ["", leg["action"], leg["port"] or "-", leg["mac"] or "-", str(leg["mtu"] or "-"), "", where]


def share_text(adjacency: Adjacency, leg: GroupLeg) -> str:
    """What part of the flows is a leg's."""
    weight = f"weight {leg['weight']}, {leg['share']:.1%}"
    return f"{weight}, {leg['buckets']} buckets" if adjacency["buckets"] else weight


def _worker_lines(workers: Iterable[WorkerStats], style: Style) -> list[str]:
    head = ["WORKER", "CORE", "PACKETS", "PASSES", "BUSY PASSES", "SLEEPS", "FREE FRAMES", "NO FRAME"]
    rows = []
    for w in workers:
        numbers = [w["packets"], w["polls"], w["busy_polls"], w["sleeps"], w["free_frames"], w["rx_no_frame"]]
        core = str(w["core"]) if w["core"] >= 0 else "any"
        rows.append([str(w["number"]), core, *map(count, numbers)])
    return plain_table(head, rows, style)


def _rule_lines(rules: Rules, style: Style) -> list[str]:
    head = ["FAMILY", "PRIORITY", "RULE", "STATE", "ON"]
    rows = []
    for rule in rules["rules"]:
        why = f": {rule['why']}" if rule["why"] else ""
        on = ", ".join(rule["interfaces"]) or ("-" if rule["state"] == "never" else "all")
        rows.append([f"IPv{rule['family']}", str(rule["priority"]), rule["text"], rule["state"] + why, on])
    return [*plain_table(head, rows, style), "", *_program_lines(rules["programs"], style)]


def _program_lines(programs: Sequence[Program], style: Style) -> list[str]:
    """A line a step; interfaces with equal programs share them."""
    shared: dict[tuple[int, bool, tuple[str, ...]], list[str]] = {}
    for program in programs:
        key = (program["family"], program["same_source"], tuple(program["steps"]))
        shared.setdefault(key, []).append(program["interface"])
    rows = []
    for (family, same, steps), interfaces in shared.items():
        sources = "the same steps" if same else "the kernel"
        first = [", ".join(interfaces), f"IPv{family}"]
        for number, step in enumerate(steps or ("no route",)):
            rows.append([*(first if number == 0 else ["", ""]), str(number), step, "" if number else sources])
    return plain_table(["INTERFACE", "FAMILY", "STEP", "PACKETS LOOK UP", "SOURCES BY"], rows, style)


TABLES: dict[str, Callable[..., list[str]]] = {
    "ports": _port_lines,
    "routes": _route_lines,
    "neighbors": _neighbor_lines,
    "adjacencies": _adjacency_lines,
    "workers": _worker_lines,
    "rules": _rule_lines,
}
