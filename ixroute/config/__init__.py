"""The configuration: what the kernel cannot hold. Ports, workers, memory, policers; no address, no route.

sections.py says what there is, reader.py reads a file, flags.py lays the command line over it.
"""

from ixroute.config.cores import choose_cores
from ixroute.config.faults import ConfigError, Fault
from ixroute.config.flags import reread, with_flags
from ixroute.config.reader import load, parse
from ixroute.config.sections import (
    DEFAULT_PATH,
    DEFAULT_POLICERS,
    DEFAULT_SOCKET,
    LOG_LEVELS,
    MAX_PORTS,
    NEVER_NS,
    Config,
    ControlConfig,
    Flags,
    LogConfig,
    MemoryConfig,
    MirrorConfig,
    PolicerConfig,
    PortConfig,
    PrometheusConfig,
    WorkersConfig,
)

__all__ = [
    "DEFAULT_PATH",
    "DEFAULT_POLICERS",
    "DEFAULT_SOCKET",
    "LOG_LEVELS",
    "MAX_PORTS",
    "NEVER_NS",
    "Config",
    "ConfigError",
    "ControlConfig",
    "Fault",
    "Flags",
    "LogConfig",
    "MemoryConfig",
    "MirrorConfig",
    "PolicerConfig",
    "PortConfig",
    "PrometheusConfig",
    "WorkersConfig",
    "choose_cores",
    "load",
    "parse",
    "reread",
    "with_flags",
]
