"""The configuration as text: the whole of it, and the example file with every key explained."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

from ixroute.config.sections import DEFAULT_POLICERS, SECTIONS, Config, PolicerConfig, PortConfig, RawToml


def _toml(value: object) -> str:
    return value if isinstance(value, RawToml) else json.dumps(value, ensure_ascii=False)


def _lines(section: Any, mark: str, comments: bool) -> list[str]:
    out = []
    for f in fields(section):
        if "check" not in f.metadata:
            continue
        if comments:
            out.append(f"# {f.metadata['text']}")
        out.append(f"{mark}{f.name} = {_toml(f.metadata['show'](getattr(section, f.name)))}")
    return out


def show(config: Config) -> str:
    """The whole configuration as TOML, defaults included: `parse` of it gives an equal Config."""
    out: list[str] = []
    for port in config.ports:
        out += [f"[ports.{_toml_key(port.name)}]", f"spec = {_toml(port.spec)}", *_lines(port, "", False), ""]
    for name in SECTIONS:
        out += [f"[{name}]", *_lines(getattr(config, name), "", False), ""]
    for reason, policer in config.policers.items():
        out += [f"[policers.{reason}]", *_lines(policer, "", False), ""]
    return "\n".join(out)


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


_EXAMPLE_HEAD = """\
# Configuration of ixroute: /etc/ixroute/ixroute.toml
#
# Only what the kernel cannot hold stands here. Addresses, routes and neighbours are the kernel's: set them on
# the ports' interfaces with `ip`, ifupdown, systemd-networkd, FRR or BIRD.
# Every key is shown with its default, behind a '#'. Unknown keys are errors: `ixroute config check FILE`.

# A port: the name is the interface that the kernel will see, the spec says which device it is:
#   af_xdp:eth1                an interface of Linux
#   0000:03:00.0               an Intel 82599, X540 or X550 by its PCI address (ixroute devices, ixroute bind)
#   vfio-user:/run/card.sock   such a card, emulated (ixroute emulate)
#   noiommu:0000:03:00.0       a card on a machine without an IOMMU: dangerous (docs/operations.md)
#[ports.wan0]
#spec = "af_xdp:eth1"
"""


def example() -> str:
    """extra/ixroute.toml: every key, explained, commented out, at its default."""
    out = [_EXAMPLE_HEAD + "\n".join(_lines(PortConfig("wan0", "af_xdp:eth1"), "#", True)), ""]
    for name, cls in SECTIONS.items():
        out += [f"# {_first_line(cls)}", f"#[{name}]", *_lines(cls(), "#", True), ""]
    out += [
        "# Token buckets before the kernel's door, per port and reason (docs/counters.md says what each is).",
        *(f"# {f.name}: {f.metadata['text']}" for f in fields(PolicerConfig)),
    ]
    for reason, policer in DEFAULT_POLICERS.items():
        out += [f"#[policers.{reason}]", *_lines(policer, "#", False)]
    return "\n".join(out) + "\n"


def _first_line(cls: Any) -> str:
    return str(cls.__doc__).partition("\n")[0]
