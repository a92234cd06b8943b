"""The sections of the configuration, each a frozen dataclass.

A field's default, its check and its explanation stand together, and everything else (parsing, errors,
`ixroute config show`, `ixroute config example`, extra/ixroute.toml) is made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ixroute.config import checks as check
from ixroute.config.checks import Check
from ixroute.driver.specs import split_spec
from ixroute.forward import policers

DEFAULT_PATH = Path("/etc/ixroute/ixroute.toml")
DEFAULT_SOCKET = "/run/ixroute/ixroute.sock"
MAX_PORTS = 64  # forward/worker.h
NEVER_NS = 2**64 - 1  # worker_run: never sleep
LOG_LEVELS = ("debug", "info", "warning", "error")

T = TypeVar("T")


def key(default: T, check: Check, text: str, show: Callable[[T], object] = lambda value: value) -> T:
    """A field of a section. `show` turns the field back into what the file would hold."""
    made: T = field(default=default, metadata={"check": check, "text": text, "show": show})
    return made


class RawToml(str):
    """TOML as it is to be written."""

    __slots__ = ()


def _or(word: str) -> Callable[[Any], object]:
    return lambda value: word if value is None else value


@dataclass(frozen=True)
class PortConfig:
    """A port: a device of the machine, and the name of the TAP interface by which the kernel sees it."""

    name: str
    spec: str
    up: bool = key(True, check.flag, "set the TAP up at start; false: leave that to `ip link set NAME up`")
    mode: str = key(
        "auto",
        check.one_of("auto", "native", "generic"),
        "XDP mode: native (in the driver), generic (in the stack, slower); auto: native, else generic",
    )
    zero_copy: str = key(
        "auto",
        check.one_of("auto", "require", "off"),
        "frames shared with the driver; auto: when it can; require: refuse to start without",
    )
    restore_driver: bool = key(
        False, check.flag, "PCI cards: give the card back to its kernel driver when ixroute ends"
    )
    force_id: int | None = key(
        None,
        check.device_id,
        'PCI cards: drive the card as if this were its device id, like "10fb"; "": its own',
        lambda number: "" if number is None else f"{number:04x}",
    )
    interrupt_us: int = key(
        10,
        check.whole(2, 1022),
        "PCI cards: shortest time between two interrupts of a queue, in microseconds",
    )
    rss_key: bytes = key(
        b"",
        check.rss_key,
        'PCI cards: key of the hash that spreads flows to workers, 80 hexadecimal digits; "": both directions alike',
        lambda value: value.hex(),
    )
    unsupported_module: bool = key(
        False, check.flag, "PCI cards: use SFP+ modules that the card's EEPROM has no settings for"
    )

    @property
    def kind(self) -> str:
        """Key of KINDS: `af_xdp`, or `vfio` for a PCI address alone; "" without a spec."""
        return split_spec(self.spec)[0] if self.spec else ""

    @property
    def device(self) -> str:
        """What follows the kind: an interface's name for af_xdp, a whole PCI address, a socket's path."""
        return split_spec(self.spec)[1] if self.spec else ""


@dataclass(frozen=True)
class WorkersConfig:
    """The worker threads: one per core, pinned to it."""

    cores: tuple[int, ...] = key(
        (),
        check.parse_cores,
        'cores that carry a worker each, like "2" or "1,2-3"; auto: one, isolated if there is such a core',
        lambda cores: check.core_ranges(cores) if cores else "auto",
    )
    idle_us: int | None = key(
        100,
        check.whole(0, 1_000_000_000, "never"),
        "microseconds to poll without a packet before sleeping; 0: sleep at once; never: always poll",
        _or("never"),
    )

    @property
    def idle_ns(self) -> int:
        """For worker_run: nanoseconds; NEVER_NS for a worker that never sleeps."""
        return NEVER_NS if self.idle_us is None else self.idle_us * 1000


@dataclass(frozen=True)
class MemoryConfig:
    """The one memory that all ports share."""

    frames: int | None = key(
        None,
        check.whole(1024, 1 << 24, "auto"),
        "packets that fit; auto: enough for every ring to be full",
        _or("auto"),
    )
    frame_bytes: int | None = key(
        None,
        check.one_of(2048, 4096, 8192, 16384, word="auto"),
        "bytes per packet; auto: the least that holds every port's MTU (cards: 4096 at least; af_xdp: 4096 at most)",
        _or("auto"),
    )
    hugepages: str = key(
        "auto",
        check.one_of("auto", "require", "off"),
        "2 MiB pages; auto: when enough are free; require: refuse to start without",
    )


@dataclass(frozen=True)
class ControlConfig:
    """The control socket, by which `ixroute stats` and the other commands ask."""

    socket: str = key(DEFAULT_SOCKET, check.socket_path, "path of the UNIX socket; one for each daemon")
    mode: int = key(0o660, check.whole(0, 0o777), "its permissions", lambda mode: RawToml(f"0o{mode:03o}"))
    group: str | None = key(None, check.group, 'its group; "": the daemon\'s own', lambda group: group or "")


@dataclass(frozen=True)
class MirrorConfig:
    """The copy of the kernel's tables."""

    audit_seconds: int = key(
        60,
        check.whole(0, 86_400),
        "how often to compare all routes with the kernel's, besides following it; 0: never",
    )
    rcvbuf_bytes: int = key(
        64 << 20,
        check.whole(1 << 16, 1 << 30),
        "receive buffer of the netlink socket; a full table's changes must fit",
    )


@dataclass(frozen=True)
class PrometheusConfig:
    """Metrics over HTTP, for Prometheus to fetch."""

    listen: tuple[str, int] | None = key(
        None,
        check.listen,
        'address and port, like "127.0.0.1:9111", path /metrics; "": none',
        lambda listen: f"[{listen[0]}]:{listen[1]}" if listen and ":" in listen[0] else _joined(listen),
    )


def _joined(listen: tuple[str, int] | None) -> str:
    return f"{listen[0]}:{listen[1]}" if listen else ""


@dataclass(frozen=True)
class LogConfig:
    """The log, on standard error; the journal's priorities are set when systemd listens there."""

    level: str = key("info", check.one_of(*LOG_LEVELS), "least important line that is written")


@dataclass(frozen=True)
class PolicerConfig:
    """Token bucket of one punt reason: for each port, `rate` packets per second, `burst` at once."""

    rate: int = key(
        1000, check.whole(0, policers.MAX_RATE), "packets per second that the kernel is given; 0: none"
    )
    burst: int = key(1000, check.whole(1, policers.MAX_RATE), "packets that may come at once")


# What each number is for: forward/policers.py.
DEFAULT_POLICERS: Mapping[str, PolicerConfig] = {
    reason: PolicerConfig(policer.rate, policer.burst)
    for reason, policer in policers.DEFAULT_POLICERS.items()
}


@dataclass(frozen=True)
class Flags:
    """The flags of `ixroute run`, as given. A --port of a name that the file has replaces its device and
    keeps its other keys."""

    ports: tuple[str, ...] = ()
    workers: str | None = None
    socket: str | None = None
    log_level: str | None = None
    force_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """Everything. `policers` has every punt reason; `path` is the file it was read from, if any; `flags` have
    been laid over it already."""

    ports: tuple[PortConfig, ...] = ()
    workers: WorkersConfig = WorkersConfig()
    memory: MemoryConfig = MemoryConfig()
    control: ControlConfig = ControlConfig()
    mirror: MirrorConfig = MirrorConfig()
    prometheus: PrometheusConfig = PrometheusConfig()
    log: LogConfig = LogConfig()
    policers: Mapping[str, PolicerConfig] = field(default_factory=lambda: dict(DEFAULT_POLICERS))
    path: Path | None = None
    flags: Flags = Flags()


# The sections that are one table each; ports and policers are tables of tables.
SECTIONS: Mapping[str, Any] = {
    "workers": WorkersConfig,
    "memory": MemoryConfig,
    "control": ControlConfig,
    "mirror": MirrorConfig,
    "prometheus": PrometheusConfig,
    "log": LogConfig,
}
