"""The flags of `ixroute run`, laid over the configuration file."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from ixroute.config import checks as check
from ixroute.config.checks import Check
from ixroute.config.faults import ConfigError, Fault
from ixroute.config.reader import load, port_conflicts
from ixroute.config.sections import DEFAULT_SOCKET, Config, Flags, LogConfig, PortConfig
from ixroute.driver.specs import PCI_KINDS


def with_flags(config: Config, flags: Flags) -> Config:
    """The configuration with the flags laid over it. ConfigError: its faults name the flag."""
    errors: list[Fault] = []
    by_name = {port.name: port for port in config.ports}

    def checked(flag: str, value: str, reader: Check) -> Any:
        try:
            return reader(value)
        except ValueError as error:
            errors.append(Fault(f"{flag} {value}", 0, "", str(error)))
            return None

    given: set[str] = set()
    for flag in flags.ports:
        found = checked("--port", flag, _port_flag)
        if found is not None and found[0] in given:
            errors.append(Fault(f"--port {flag}", 0, "", f"port {found[0]} is given twice"))
        if found is not None:
            name, spec = found
            given.add(name)
            by_name[name] = replace(by_name[name], spec=spec) if name in by_name else PortConfig(name, spec)
    for flag in flags.force_ids:
        found = checked("--force-id", flag, _force_id_flag)
        if found is None:
            continue
        names = [found[0]] if found[0] else [port.name for port in by_name.values() if port.kind in PCI_KINDS]
        unknown = [name for name in names if name not in by_name or by_name[name].kind not in PCI_KINDS]
        if unknown or not names:
            errors.append(Fault(f"--force-id {flag}", 0, "", f"no port {found[0] or 'at all'} is a PCI card"))
            continue
        for name in names:
            by_name[name] = replace(by_name[name], force_id=found[1])
    if flags.workers is not None:
        cores = checked("--workers", flags.workers, check.parse_cores)
        config = replace(config, workers=replace(config.workers, cores=cores or ()))
    if flags.socket is not None:
        path = checked("--socket", os.path.abspath(flags.socket), check.socket_path)
        config = replace(config, control=replace(config.control, socket=path or DEFAULT_SOCKET))
    if flags.log_level is not None:
        config = replace(config, log=LogConfig(level=flags.log_level))
    every = tuple(by_name.values())
    if not errors:
        errors += [Fault(f"--port {every[number].name}", 0, "", why) for number, why in port_conflicts(every)]
    if errors:
        raise ConfigError(errors)
    return replace(config, ports=every, flags=flags)


def _port_flag(value: object) -> tuple[str, str]:
    name, equals, spec = str(value).partition("=")
    example = next(iter(check.KINDS.values())).example
    if not equals:
        raise check.WantedError(f"NAME=SPEC, for example wan0={example}", value)
    return check.interface_name(name), check.port_spec(spec)


def _force_id_flag(value: object) -> tuple[str, int | None]:
    """`ID`, or `PORT=ID`."""
    name, _, number = str(value).rpartition("=")
    if not number:
        raise check.WantedError("a device id like 10fb, or PORT=ID", value)
    return name, check.device_id(number)


def reread(config: Config) -> Config:
    """The same file and flags again, as the file is now. ConfigError when it has become wrong."""
    return with_flags(load(config.path) if config.path is not None else Config(), config.flags)
