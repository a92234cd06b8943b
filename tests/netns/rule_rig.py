"""Policy rules at random, for tests that compare what is made of them with the kernel."""

from __future__ import annotations

import random

TABLES = (100, 101, 102)
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58}
PLACES = {
    4: ["10.0.0.0/24", "10.0.0.1", "198.51.100.0/24", "198.51.100.7", "203.0.0.0/8", "0.0.0.0/1",
        "20.1.0.0/16"],
    6: ["2001:db8:a::/64", "2001:db8:a::1", "2001:db8:5::/48", "2001:db8:5::7", "2001::/16", "8000::/1",
        "2001:db8:20::/48"],
}  # fmt: skip

DEFAULTS = {
    4: "rule add pref 32766 lookup main\nrule add pref 32767 lookup default\n",
    6: "rule add pref 32766 lookup main\n",
}
"""What `ip rule flush` leaves out: all but the first."""


def random_rule(rng: random.Random, family: int) -> str:
    """The words behind `ip rule add`."""

    def perhaps(words: str, chance: float = 0.25) -> str:
        return words if rng.random() < chance else ""

    priority = rng.randrange(1, 40)
    to_table = f"lookup {rng.choice((*TABLES, 'main', 'local', 'default'))}"
    suppress = perhaps(f" suppress_prefixlength {rng.choice((0, 24, 48))}", 0.3)
    actions = [to_table + suppress] * 5 + [
        f"goto {rng.randrange(priority + 1, 42)}",
        "blackhole",
        "unreachable",
        "prohibit",
        "nop",
    ]
    port = perhaps(f"{rng.choice(('sport', 'dport'))} {rng.choice(('53', '50-100'))}", 0.5)
    words = [
        f"pref {priority}",
        perhaps("not", 0.15),
        perhaps(f"from {rng.choice(PLACES[family])}", 0.4),
        perhaps(f"to {rng.choice(PLACES[family])}", 0.4),
        perhaps(f"iif {rng.choice(('lan', 'wan', 'lo', 'none'))}"),
        perhaps("oif wan", 0.05),
        perhaps(f"tos {rng.choice(('0x10', '0x08'))}", 0.2),
        perhaps(f"ipproto {rng.choice(('tcp', 'udp'))} {port}"),
        perhaps(f"fwmark {rng.choice(('1', '0/1'))}", 0.05),
        rng.choice(actions),
    ]
    return " ".join(word for word in words if word)
