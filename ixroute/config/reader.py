"""From TOML to Config: every fault is found, with its file, line and key."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ixroute.config import checks as check
from ixroute.config.faults import ConfigError, Fault
from ixroute.config.sections import DEFAULT_POLICERS, MAX_PORTS, SECTIONS, Config, PolicerConfig, PortConfig
from ixroute.config.toml_lines import key_lines, line_of
from ixroute.driver.specs import NOIOMMU, VFIO


def load(path: str | os.PathLike[str]) -> Config:
    """Reads a configuration file. ConfigError when it cannot be read or anything in it is wrong."""
    try:
        text = Path(path).read_bytes().decode()
    except OSError as error:
        raise ConfigError([Fault(str(path), 0, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), 0, "", f"not UTF-8 at byte {error.start}")]) from error
    return replace(parse(text, str(path)), path=Path(path))


def parse(text: str, file: str = "<config>") -> Config:
    """The configuration in `text`; `file` is its name in errors. ConfigError with all that is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        message = str(error)[: found.start()] if found else str(error)
        raise ConfigError([Fault(file, line, "", f"not TOML: {message}")]) from error
    except (ValueError, RecursionError) as error:  # what tomllib leaves to int() and to the stack
        message = (
            "a number of too many digits" if isinstance(error, ValueError) else "brackets nested too deeply"
        )
        raise ConfigError([Fault(file, 0, "", f"cannot be read: {message}")]) from error
    return _Reader(file, text).read(document)


class _Reader:
    """Turns a parsed document into a Config and collects errors with their lines."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.lines = key_lines(text)
        self.errors: list[Fault] = []

    def read(self, document: dict[str, object]) -> Config:
        known = ["ports", "policers", *SECTIONS]
        for name in document:
            if name not in known:
                self._unknown((name,), known)
        sections = {
            name: self._section((name,), cls, document.get(name, {})) for name, cls in SECTIONS.items()
        }
        ports = self._ports(document.get("ports", {}))
        policers = self._policers(document.get("policers", {}))
        if self.errors:
            raise ConfigError(sorted(self.errors, key=lambda error: error.line))
        return Config(ports=ports, policers=policers, **sections)

    def _wrong(self, path: tuple[str, ...], message: str) -> None:
        dotted = ".".join(
            part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in path
        )
        self.errors.append(Fault(self.file, line_of(self.lines, path), dotted, message))

    def _unknown(self, path: tuple[str, ...], known: Sequence[str]) -> None:
        self._wrong(
            path, f"unknown key; known here: {', '.join(sorted(known))}{check.did_you_mean(path[-1], known)}"
        )

    def _table(self, path: tuple[str, ...], value: object) -> dict[str, object]:
        if isinstance(value, dict):
            return value
        self._wrong(path, f"must be a table [{'.'.join(path)}], not {check.show_value(value)}")
        return {}

    def _section(
        self, path: tuple[str, ...], cls: Any, value: object, base: Any = None, extra: Sequence[str] = ()
    ) -> Any:
        """One dataclass from one table; keys that are not there keep the value of `base`."""
        base = base if base is not None else cls()
        checks = {f.name: f.metadata["check"] for f in fields(cls) if "check" in f.metadata}
        known = [*checks, *extra]
        values: dict[str, object] = {}
        for name, held in self._table(path, value).items():
            if name not in checks:
                self._unknown((*path, name), known)
                continue
            try:
                values[name] = checks[name](held)
            except ValueError as error:
                self._wrong((*path, name), str(error))
        return replace(base, **values)

    def _policers(self, value: object) -> Mapping[str, PolicerConfig]:
        policers = dict(DEFAULT_POLICERS)
        for reason, table in self._table(("policers",), value).items():
            if reason not in policers:
                self._wrong(
                    ("policers", reason),
                    f"no such punt reason{check.did_you_mean(reason, policers)}; see docs/counters.md",
                )
                continue
            policers[reason] = self._section(("policers", reason), PolicerConfig, table, policers[reason])
        return policers

    def _ports(self, value: object) -> tuple[PortConfig, ...]:
        ports: list[PortConfig] = []
        for name, held in self._table(("ports",), value).items():
            path = ("ports", name)
            if not isinstance(held, dict):
                self._table(path, held)
                continue
            table = dict(held)
            spec = table.pop("spec", None)
            try:
                check.interface_name(name)
            except ValueError as error:
                self._wrong(path, str(error))
            if spec is None:
                self._wrong(
                    path, f"has no spec; say which device it is, for example spec = {_first_example()}"
                )
                spec = ""
            else:
                spec = self._spec((*path, "spec"), spec)
            ports.append(self._section(path, PortConfig, table, PortConfig(name, spec), ["spec"]))
        for number, message in port_conflicts(ports):
            self._wrong(("ports", ports[number].name), message)
        return tuple(ports)

    def _spec(self, path: tuple[str, ...], spec: object) -> str:
        try:
            return check.port_spec(spec)
        except ValueError as error:
            self._wrong(path, str(error))
            return ""


def _first_example() -> str:
    return json.dumps(next(iter(check.KINDS.values())).example)


def port_conflicts(ports: Sequence[PortConfig]) -> list[tuple[int, str]]:
    """(number of the port, what is wrong) for names and devices that cannot go together."""
    wrong: list[tuple[int, str]] = []
    if len(ports) > MAX_PORTS:
        wrong.append((MAX_PORTS, f"{len(ports)} ports; at most {MAX_PORTS}"))
    names = {port.name for port in ports}
    seen: dict[str, str] = {}
    for number, port in enumerate(ports):
        if not port.spec:
            continue
        card = port.device if port.kind in (VFIO, NOIOMMU) else port.spec
        if card in seen:
            wrong.append((number, f"{card} is already the device of port {seen[card]}"))
        if port.device in names:
            wrong.append(
                (number, f"{port.device} is its device and also the name of a port: choose another name")
            )
        seen.setdefault(card, port.name)
    return wrong
