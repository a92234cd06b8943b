"""What a value of the configuration may be. Each check takes what TOML (or a flag) holds and returns what the
field holds; else it raises WantedError ("must be ...") or ValueError (a whole sentence).
"""

from __future__ import annotations

import difflib
import grp
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ixroute.driver.ixgbe.ids import check_id
from ixroute.driver.specs import NOIOMMU, VFIO, VFIO_USER, join_spec, pci_address, split_spec

Check = Callable[[object], Any]
MAX_WORKERS = 64  # forward/worker.h


class WantedError(ValueError):
    """The value is of the wrong kind or out of range: says what is wanted and what was there."""

    def __init__(self, wanted: str, value: object, hint: str = "") -> None:
        super().__init__(f"must be {wanted}, not {show_value(value)}{hint}")


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WantedError("true or false", value)
    return value


def whole(low: int, high: int, word: str | None = None) -> Check:
    """A whole number; `word` stands for None."""

    def check(value: object) -> int | None:
        if word is not None and value == word:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        instead = f', or "{word}"' if word else ""
        raise WantedError(f"a whole number from {low} to {high}{instead}", value)

    return check


def one_of(*choices: str | int, word: str | None = None) -> Check:
    def check(value: object) -> object:
        if word is not None and value == word:
            return None
        if value in choices and not isinstance(value, bool):
            return value
        wanted = [json.dumps(choice) for choice in choices] + ([f'"{word}"'] if word else [])
        raise WantedError(f"one of {', '.join(wanted)}", value, did_you_mean(value, wanted))

    return check


def socket_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise WantedError("an absolute path", value)
    if len(os.fsencode(value)) > 107:
        raise ValueError(f"{len(os.fsencode(value))} bytes long; a UNIX socket's path has at most 107")
    return value


def group(value: object) -> str | None:
    if value == "":
        return None
    if not isinstance(value, str):
        raise WantedError('the name of a group, or "" for the daemon\'s own', value)
    try:
        grp.getgrnam(value)
    except KeyError:
        raise ValueError(
            f"no group {value!r} on this machine; make it with: groupadd --system {value}"
        ) from None
    return value


def listen(value: object) -> tuple[str, int] | None:
    if value == "":
        return None
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise WantedError('"ADDRESS:PORT" like "127.0.0.1:9111" or "[::1]:9111", or "" for none', value)
    return host.strip("[]"), int(port)


def interface_name(value: object) -> str:
    """A name that Linux takes for an interface (net/core/dev.c, dev_valid_name)."""
    if not isinstance(value, str) or not value:
        raise WantedError("an interface's name", value)
    if len(os.fsencode(value)) > 15:
        raise ValueError(
            f"{value!r} is {len(os.fsencode(value))} bytes long; an interface's name has at most 15"
        )
    if value in (".", "..", "all", "default", "lo") or re.search(r"[/:%\s\0]", value):
        raise ValueError(
            f"{value!r} cannot be an interface's name: no / : % or white space, not . .. all default lo"
        )
    return value


def card_address(value: object) -> str:
    """A PCI address, completed."""
    address = pci_address(value) if isinstance(value, str) else None
    if address is None:
        raise WantedError("a PCI address like 0000:03:00.0 (`ixroute devices` lists them)", value)
    return address


def device_id(value: object) -> int | None:
    """Four hexadecimal digits."""
    if value == "":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"(?:0x)?[0-9a-fA-F]{4}", value):
        raise WantedError(
            'a device id of four hexadecimal digits like "10fb", or "" for the card\'s own', value
        )
    return check_id(int(value, 16))


def rss_key(value: object) -> bytes:
    """40 bytes as hexadecimal digits."""
    if value == "":
        return b""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{80}", value):
        raise WantedError('40 bytes as 80 hexadecimal digits, or "" for a symmetric key', value)
    return bytes.fromhex(value)


@dataclass(frozen=True)
class PortKind:
    """What may follow the colon of a port's spec."""

    device: Callable[[object], str]
    example: str


KINDS: Mapping[str, PortKind] = {
    "af_xdp": PortKind(interface_name, "af_xdp:eth1"),
    VFIO: PortKind(card_address, "0000:03:00.0"),
    VFIO_USER: PortKind(socket_path, "vfio-user:/run/card.sock"),
    NOIOMMU: PortKind(card_address, "noiommu:0000:03:00.0"),
}


def port_spec(value: object) -> str:
    """`KIND:DEVICE`, or a PCI address; as split_spec and join_spec write it."""
    examples = ", ".join(kind.example for kind in KINDS.values())
    if not isinstance(value, str) or ":" not in value:
        raise WantedError(f'"KIND:DEVICE", for example {examples}', value)
    try:
        kind, device = split_spec(value)
    except ValueError:
        kind, _, device = value.partition(":")
    if kind not in KINDS:
        raise ValueError(
            f"unknown kind of port {kind!r}; known: {', '.join(KINDS)}{did_you_mean(kind, KINDS)};"
            " a PCI address is written like 0000:03:00.0"
        )
    return join_spec(kind, KINDS[kind].device(device))


def parse_cores(value: object) -> tuple[int, ...]:
    """`"1,2-3"` -> (1, 2, 3); `"auto"` -> (). The cores are there and allowed to this process."""
    if value == "auto":
        return ()
    if not isinstance(value, str):
        raise WantedError('cores like "2" or "1,2-3", or "auto"', value)
    cores: list[int] = []
    for part in value.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", part)
        if match is None:
            raise WantedError('cores like "2" or "1,2-3", or "auto"', value)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{part.strip()}: the range runs backwards")
        cores.extend(range(first, last + 1))
    _check_cores(cores)
    return tuple(cores)


def _check_cores(cores: Sequence[int]) -> None:
    twice = sorted({core for core in cores if cores.count(core) > 1})
    if twice:
        raise ValueError(f"core {twice[0]} is named twice; a core carries one worker")
    if len(cores) > MAX_WORKERS:
        raise ValueError(f"{len(cores)} cores; at most {MAX_WORKERS} workers")
    allowed = os.sched_getaffinity(0)
    missing = [core for core in cores if core not in allowed]
    if missing:
        raise ValueError(
            f"core {missing[0]} is not there or not allowed to this process; allowed: {core_ranges(allowed)}"
        )


def core_ranges(numbers: Iterable[int]) -> str:
    """{0, 1, 2, 5} -> "0-2,5"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def show_value(value: object) -> str:
    return json.dumps(value) if isinstance(value, (str, int, float, bool, list, dict)) else str(value)


def did_you_mean(value: object, known: Iterable[str]) -> str:
    close = (
        difflib.get_close_matches(value, [k.strip('"') for k in known], 1) if isinstance(value, str) else []
    )
    return f' (did you mean "{close[0]}"?)' if close else ""
