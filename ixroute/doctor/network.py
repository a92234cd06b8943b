"""The kernel's network settings, which ixroute follows, and its packet filters, which it does not see."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ixroute.config import Config
from ixroute.doctor.machine import FAIL, NOTE, OK, WARN, Finding, Machine

_KEEP = "(and in /etc/sysctl.d/ixroute.conf to keep it)"


def forwarding(machine: Machine, config: Config) -> Iterator[Finding]:
    """The sysctls without which neither Linux nor ixroute forwards anything."""
    for family, title, level in (("ipv4", "IPv4", FAIL), ("ipv6", "IPv6", WARN)):
        check = f"{family} forwarding"
        if not machine.exists(f"proc/sys/net/{family}"):
            yield Finding(check, NOTE, f"this kernel has no {title}")
            continue
        # An interface that is yet to be made starts with the default's value.
        off = [port.name for port in config.ports if not _forwards(machine, family, port.name)]
        if not config.ports and not _forwards(machine, family, "default"):
            off = ["new interfaces"]
        if off:
            text = f"off for {', '.join(off)}: {title} packets are not forwarded"
            yield Finding(check, level, text, f"sysctl -w net.{family}.conf.all.forwarding=1 {_KEEP}")
        else:
            yield Finding(check, OK, "on")


def _forwards(machine: Machine, family: str, interface: str) -> bool:
    there = machine.exists(f"proc/sys/net/{family}/conf/{interface}")
    return machine.number(f"proc/sys/net/{family}/conf/{interface if there else 'default'}/forwarding") != 0


def reverse_path(machine: Machine, config: Config) -> Iterator[Finding]:
    """rp_filter, of which the larger of all's and the interface's counts."""
    everywhere = machine.number("proc/sys/net/ipv4/conf/all/rp_filter") or 0
    strict: list[str] = []
    loose: list[str] = []
    for name in [port.name for port in config.ports] or ["default"]:
        there = machine.exists(f"proc/sys/net/ipv4/conf/{name}")
        own = machine.number(f"proc/sys/net/ipv4/conf/{name if there else 'default'}/rp_filter") or 0
        mode = max(everywhere, own)
        (strict if mode == 1 else loose if mode == 2 else []).append(name)
    names = " ".join(f"net.ipv4.conf.{name}.rp_filter=0" for name in ["all", *strict, *loose])
    fix = f"if that is not wanted: sysctl -w {names} {_KEEP}"
    if strict:
        text = f"strict on {', '.join(strict)}: asymmetric traffic is dropped, as Linux does"
        yield Finding("rp_filter", WARN, text, fix)
    elif loose:
        yield Finding("rp_filter", NOTE, f"loose on {', '.join(loose)}: every source is looked up too", fix)
    else:
        yield Finding("rp_filter", OK, "off: sources are not checked")


# Keys of `ip -j rule`, and ip's words for them.
_UNSEEN = {
    "fwmark": "fwmark",
    "uid_start": "uidrange",
    "flowlabel": "flowlabel",
    "suppress_ifgroup": "suppress_ifgroup",
}


def policy_rules(machine: Machine, config: Config) -> Iterator[Finding]:
    """Rules by what no packet shows: those it may match take the kernel's way."""
    unseen: list[str] = []
    known = False
    for family in (4, 6):
        try:
            rules = list(json.loads(machine.command("ip", f"-{family}", "-j", "rule", "show") or ""))
        except (ValueError, TypeError):
            continue
        known = True
        for rule in rules:
            keys = [word for key, word in _UNSEEN.items() if isinstance(rule, dict) and key in rule]
            unseen += [f"IPv{family} rule {rule.get('priority')} ({', '.join(keys)})"] if keys else []
    if unseen:
        text = f"{', '.join(unseen)}: only the kernel can follow it, and gets the packets that it may match"
        yield Finding("ip rule", WARN, text, "see what becomes of each: ixroute show rules")
    elif known:
        yield Finding("ip rule", OK, "none that only the kernel can follow")
    else:
        yield Finding("ip rule", NOTE, "cannot see policy rules (no ip command)")


def firewall(machine: Machine, config: Config) -> Iterator[Finding]:
    """Rules that forwarded packets would meet in Linux; ixroute's fast path does not pass them."""
    hooks = _nft_hooks(machine)
    rules = _iptables_rules(machine)
    if hooks or rules:
        where = [*(f"nft {hook}" for hook in hooks or []), *(rules or [])]
        text = f"rules in {', '.join(where)}: packets that ixroute forwards do not pass them"
        fix = "look at them: nft list ruleset; filter on other machines (only punted packets pass them here)"
        yield Finding("firewall", WARN, text, fix)
    elif hooks is None and rules is None:
        yield Finding("firewall", NOTE, "cannot see packet filters (no nft or iptables, or not root)")
    else:
        yield Finding("firewall", OK, "no rules for forwarded packets")


def _nft_hooks(machine: Machine) -> list[str] | None:
    """Base chains on the way of forwarded packets that hold rules or drop by policy; None: cannot tell."""
    text = machine.command("nft", "-j", "list", "ruleset")
    try:
        entries = list(json.loads(text or "")["nftables"])
    except (ValueError, KeyError, TypeError):
        return None
    with_rules = {_chain(entry["rule"], "chain") for entry in entries if "rule" in entry}
    found = []
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        if chain.get("hook") not in ("ingress", "prerouting", "forward", "postrouting"):
            continue
        if _chain(chain, "name") in with_rules or chain.get("policy") == "drop":
            found.append(" ".join(_chain(chain, "name")))
    return found


def _chain(entry: dict[str, str], name: str) -> tuple[str, str, str]:
    return entry.get("family", ""), entry.get("table", ""), entry.get(name, "")


def _iptables_rules(machine: Machine) -> list[str] | None:
    """The legacy tables, which nft does not list. Asking iptables would load their modules, so first look
    whether they are there."""
    tables = [machine.read(f"proc/net/{family}_tables_names") for family in ("ip", "ip6")]
    if tables == [None, None]:
        return None
    found = []
    for command, names in zip(("iptables-legacy-save", "ip6tables-legacy-save"), tables, strict=True):
        saved = (machine.command(command) or "") if names else ""
        lines = saved.splitlines()
        if any(
            line.startswith(("-A FORWARD", ":FORWARD DROP", "-A PREROUTING", "-A POSTROUTING"))
            for line in lines
        ):
            found.append(command.removesuffix("-legacy-save"))
    return found
