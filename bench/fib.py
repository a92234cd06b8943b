"""The FIB with the Internet's tables: build, memory, lookups, updates.

Lookups run in C, in bursts, and so do updates; a figure is the median of the runs. Rates are per second of CPU time of
the one thread that works; the worst update is by the clock on the wall, so another program's turn can be in it.
"""

import argparse
import json
import statistics
import time
from typing import Any

from bench.tables import load_table, load_updates, trace
from ixroute._dataplane import ffi, lib
from ixroute.fib.fib import Fib, lookup_variants, use_lookup_variant

TRACES = {"a": "uniform over all addresses", "b": "uniform over prefixes", "c": "Zipf over prefixes"}


def time_lookups(fib: Fib, family: int, addresses: Any, burst: int) -> float:
    """Million lookups per second of one pass over the trace."""
    total = ffi.new("uint64_t *")
    reader = lib.EPOCH_WORKERS
    if family == 4:
        ns = lib.fib4_time(
            fib.c, reader, ffi.from_buffer("uint32_t[]", addresses), len(addresses), burst, total
        )
    else:
        ns = lib.fib6_time(
            fib.c, reader, ffi.from_buffer("uint8_t[]", addresses), len(addresses), burst, total
        )
    return len(addresses) * 1000 / int(ns)


def measure(family: int, runs: int, burst: int, n: int) -> dict[str, Any]:
    table = load_table(family)
    updates = load_updates(family)
    traces = {kind: trace(kind, table, n) for kind in TRACES}
    builds, rates, worst = [], [], []
    result: dict[str, Any] = {"family": family, "prefixes": len(table), "burst": burst, "runs": runs}
    for run in range(runs):
        with Fib() as fib:
            begin = time.thread_time()
            refused, _ = fib.apply(table)
            builds.append(time.thread_time() - begin)
            if refused:
                raise SystemExit(f"bench fib: {refused} prefixes of the table were refused")
            if run == 0:
                stats = fib.stats()
                result["lookup_bytes"] = stats.lookup_bytes4 if family == 4 else stats.lookup_bytes6
                result["update_bytes"] = stats.update_bytes
                result["lookups"] = measure_lookups(fib, family, traces, runs, burst)
            begin = time.thread_time()
            _, slowest = fib.apply(updates)
            rates.append(len(updates) / (time.thread_time() - begin) / 1e6)
            worst.append(slowest / 1e3)
            if run == 0:
                stats = fib.stats()
                result["lookup_bytes_after_updates"] = (
                    stats.lookup_bytes4 if family == 4 else stats.lookup_bytes6
                )
    result["build_s"] = statistics.median(builds)
    result["updates_m_per_s"] = statistics.median(rates)
    result["worst_update_us"] = statistics.median(worst)
    return result


def measure_lookups(
    fib: Fib, family: int, traces: dict[str, Any], runs: int, burst: int
) -> dict[str, dict[str, float]]:
    """{variant: {trace: million lookups per second}}; the variants take turns: they share the machine's mood."""
    figures: dict[str, dict[str, list[float]]] = {v: {t: [] for t in traces} for v in lookup_variants()}
    for _ in range(runs):
        for kind, addresses in traces.items():
            for variant in lookup_variants():
                use_lookup_variant(variant)
                time_lookups(fib, family, addresses, burst)
                figures[variant][kind].append(time_lookups(fib, family, addresses, burst))
    return {v: {t: statistics.median(m) for t, m in by_trace.items()} for v, by_trace in figures.items()}


def print_text(result: dict[str, Any]) -> None:
    mib = 1 << 20
    print(f"IPv{result['family']}: {result['prefixes']:,} prefixes, medians of {result['runs']} runs")
    print(f"  build             {result['build_s']:.2f} s")
    print(
        f"  lookup memory     {result['lookup_bytes'] / mib:.2f} MiB,"
        f" after the day's updates {result['lookup_bytes_after_updates'] / mib:.2f} MiB"
    )
    print(f"  writer's memory   {result['update_bytes'] / mib:.1f} MiB")
    print(
        f"  updates           {result['updates_m_per_s']:.2f} M/s, worst {result['worst_update_us']:.0f} us"
    )
    for variant, by_trace in result["lookups"].items():
        row = "   ".join(f"{kind} {rate:6.0f}" for kind, rate in by_trace.items())
        print(f"  lookups, M/s      {row}   ({variant}, bursts of {result['burst']})")


def main(argv: list[str]) -> int:
    traces = "; ".join(f"{kind}: {text}" for kind, text in TRACES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench fib", description=__doc__, epilog=f"Traces: {traces}."
    )
    parser.add_argument("--family", type=int, choices=(4, 6), action="append", help="4 or 6 (default: both)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--burst", type=int, default=32, help="addresses per lookup call (default 32)")
    parser.add_argument("--addresses", type=int, default=1 << 20, help="length of a trace")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    results = [measure(family, args.runs, args.burst, args.addresses) for family in args.family or (4, 6)]
    if args.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            print_text(result)
    return 0
