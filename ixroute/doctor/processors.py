"""The cores that carry the workers."""

from __future__ import annotations

from collections.abc import Iterator

from ixroute.config import Config
from ixroute.config.checks import core_ranges
from ixroute.config.cores import choose_cores, core_list
from ixroute.doctor.machine import NOTE, OK, WARN, Finding, Machine


def _workers(machine: Machine, config: Config) -> tuple[int, ...]:
    return choose_cores(config, machine.path("sys"), machine.cores)


def cores(machine: Machine, config: Config) -> Iterator[Finding]:
    """Whether the workers have their cores for themselves."""
    workers = _workers(machine, config)
    names = core_ranges(workers)
    if len(machine.cores) < 2:
        text = "one core: workers, kernel and everything else share it"
        yield Finding("cores", WARN, text, "give the machine a second core")
        return
    isolated = core_list(machine.read("sys/devices/system/cpu/isolated") or "")
    tickless = core_list((machine.read("sys/devices/system/cpu/nohz_full") or "").replace("(null)", ""))
    shared = [core for core in workers if core not in isolated]
    if shared:
        text = f"workers on cores {names}, where other programs run too: bursts may wait for them"
        fix = f"kernel command line: isolcpus={names} nohz_full={names} rcu_nocbs={names}"
        yield Finding("cores", NOTE, text, fix)
    elif [core for core in workers if core not in tickless]:
        text = f"cores {names} are isolated, but the timer still ticks there"
        yield Finding("cores", NOTE, text, f"kernel command line: nohz_full={names} rcu_nocbs={names}")
    else:
        yield Finding("cores", OK, f"cores {names} are isolated and tickless")


def governor(machine: Machine, config: Config) -> Iterator[Finding]:
    """The frequency governor of the workers' cores."""
    slow = {}
    for core in _workers(machine, config):
        name = machine.read(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")
        if name not in (None, "performance"):
            slow[core] = name
    if slow:
        core, name = next(iter(slow.items()))
        text = f"core {core} runs under governor {name}: the first packets after a pause are slow"
        fix = f"cpupower -c {core_ranges(slow)} frequency-set -g performance"
        yield Finding("governor", WARN, text, fix)
    else:
        yield Finding("governor", OK, "the workers' cores run at full frequency, or cannot be asked")


def irqbalance(machine: Machine, config: Config) -> Iterator[Finding]:
    """irqbalance moves interrupts onto any core, also onto a worker's."""
    if "irqbalance" not in machine.processes():
        yield Finding("irqbalance", OK, "not running")
        return
    names = core_ranges(_workers(machine, config))
    held = machine.read("etc/default/irqbalance") or ""
    banned = [line for line in held.splitlines() if line.strip().startswith("IRQBALANCE_BANNED_CPULIST=")]
    if banned:
        yield Finding("irqbalance", OK, f"runs, and leaves cores alone: {banned[-1].partition('=')[2]}")
    else:
        text = f"runs, and may put interrupts on cores {names}"
        fix = f"IRQBALANCE_BANNED_CPULIST={names} in /etc/default/irqbalance; systemctl restart irqbalance"
        yield Finding("irqbalance", WARN, text, fix)
