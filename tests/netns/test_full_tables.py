"""The Internet's tables in the router: what it answers is what the kernel answers, before, during and after.

Loading takes most of the time, so the tests share one router. Each compares with the kernel as it finds it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ixroute.demo.daemon import Daemon
from lab.generator import Generator
from lab.oracle import daemon_answers, differences, kernel_answers
from lab.routers import Router, start_router
from lab.steady import SteadyStream, frame_to
from lab.support import wait_until
from lab.tables import (
    Row,
    has_mark,
    link_of,
    load_table,
    load_updates,
    make_gateways,
    random_addresses,
    run_batch,
    stable_destinations,
    write_batch,
)

pytestmark = [pytest.mark.netns, pytest.mark.tables, pytest.mark.timeout(300)]

ADDRESSES = 20_000  # per family and comparison
UPDATES = 80_000  # per family, while packets flow
MORE_UPDATES = 20_000  # that nobody reads in time
DESTINATIONS = 100
PATIENCE_S = 20


@dataclass
class Loaded:
    router: Router
    tables: dict[int, list[Row]]
    updates: dict[int, list[Row]]
    files: Path
    marks: int = 0

    @property
    def daemon(self) -> Daemon:
        return self.router.ixroute

    def play(self, version: int, rows: list[Row], verb: str = "replace") -> None:
        """Gives the rows to `ip -batch`."""
        self.marks += 1
        path = self.files / f"batch{version}"
        write_batch(self.router.lab, version, rows, path, verb=verb, mark=self.marks)
        run_batch(self.router.lab, version, path, force=verb == "replace")

    def caught_up(self, version: int) -> None:
        """Waits until the daemon has all that was played."""
        wait_until(
            lambda: has_mark(self.daemon, version, self.marks), PATIENCE_S, "the last route is missing"
        )

    def check(self, seed: int) -> None:
        """Random addresses mean the same to the kernel and the daemon; some of every kind are among them."""
        for version in (4, 6):
            rows = [*self.tables[version], *self.updates[version]]
            addresses = random_addresses(rows, version, ADDRESSES, seed)
            kernel = kernel_answers(self.router.lab.router, addresses)
            assert {"unicast", ""} < {found.type for found in kernel}
            wrong = differences(addresses, kernel, daemon_answers(self.daemon, addresses))
            assert not wrong, f"{len(wrong)} of {len(addresses)} differ:\n" + "\n".join(wrong[:20])

    def stable(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for version in (4, 6):
            found |= stable_destinations(self.tables[version], self.updates[version], version, DESTINATIONS)
        return found


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loaded]:
    tables = {version: load_table(version) for version in (4, 6)}
    updates = {version: load_updates(version, UPDATES + MORE_UPDATES) for version in (4, 6)}
    router = start_router(hosts=3, label="full")
    try:
        make_gateways(router.lab)
        made = Loaded(router, tables, updates, router.lab.router.directory)
        for version in (4, 6):
            made.play(version, tables[version], "add")
            made.caught_up(version)
        yield made
    finally:
        router.close()


def test_the_answers_are_the_kernels_and_nothing_was_missed(loaded: Loaded) -> None:
    mirror = loaded.daemon.stats()["mirror"]
    assert mirror["routes4"] > len(loaded.tables[4])  # and the router's own
    assert mirror["routes6"] > len(loaded.tables[6])
    assert (mirror["overruns"], mirror["failed"], mirror["malformed"], mirror["drift"]) == (0, 0, 0, 0)
    loaded.check(seed=1)


def test_memory_stays_below_400_mib(loaded: Loaded) -> None:
    status = Path(f"/proc/{loaded.daemon.pid}/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak_kib < 400 << 10


def test_updates_lose_and_mislead_no_packet_to_other_prefixes(loaded: Loaded) -> None:
    with SteadyStream(loaded.router.lab, loaded.stable(), rate=2000) as stream:
        wait_until(lambda: stream.heard > 0, 5, "no packet arrives")
        for version in (4, 6):
            loaded.play(version, loaded.updates[version][:UPDATES])
            loaded.caught_up(version)
    outcome = stream.outcome
    assert outcome.unheard == 0, "this test was too slow to listen"
    assert (outcome.lost, outcome.astray) == (0, 0), outcome
    assert outcome.sent > 10 * DESTINATIONS
    loaded.check(seed=2)


def test_an_overrun_of_a_full_table_is_reconciled(loaded: Loaded) -> None:
    small = loaded.files / "small.toml"
    small.write_text("[mirror]\nrcvbuf_bytes = 65536\n")
    daemon = loaded.daemon
    daemon.stop()
    daemon.arguments += ["--config", str(small)]
    try:
        daemon.start()
        daemon.signal(signal.SIGSTOP)
        for version in (4, 6):
            loaded.play(version, loaded.updates[version][UPDATES:])
        daemon.signal(signal.SIGCONT)
        wait_until(
            lambda: daemon.stats()["mirror"]["resyncs_by_reason"].get("overrun", 0) > 0,
            PATIENCE_S,
            "no overrun",
        )
        loaded.check(seed=3)
    finally:
        daemon.signal(signal.SIGCONT)
        daemon.stop()
        del daemon.arguments[-2:]
        daemon.start()


def test_killed_under_load_it_leaves_the_kernels_tables_and_starts_again(loaded: Loaded) -> None:
    lab, daemon = loaded.router.lab, loaded.daemon
    sample = random_addresses(loaded.tables[4], 4, 2000, seed=4)
    before = kernel_answers(lab.router, sample)
    stable = loaded.stable()
    with Generator(lab.client, [frame_to(lab, address, b"load") for address in stable]):
        rx = daemon.stats()["totals"]["rx"]
        wait_until(lambda: daemon.stats()["totals"]["rx"] > rx + 10_000, 10, "the load does not arrive")
        daemon.kill()
        wait_until(lambda: "xdp" not in lab.router.ip("link show"), 5, "its XDP programs are still there")
    assert lab.router.pids() == []
    assert kernel_answers(lab.router, sample) == before
    for link in lab.links:
        assert f"{link.router4}/24" in lab.router.ip(f"-br addr show dev {link.interface}")
    with SteadyStream(lab, stable, rate=2000) as stream:
        daemon.start()
        wait_until(lambda: stream.heard > 1000, 10, "the stream did not come back")
    assert stream.outcome.astray == 0
    loaded.check(seed=5)


def test_a_link_that_goes_down_takes_its_half_of_the_table_along(loaded: Loaded) -> None:
    """The last one: the routes do not come back with the link."""
    router, stable = loaded.router, loaded.stable()
    dead = {address for address, gateway in stable.items() if link_of(router.lab, gateway).port == "wan"}
    assert 0 < len(dead) < len(stable)
    sample = random_addresses(loaded.tables[4], 4, 500, seed=6)

    def follows() -> bool:
        kernel = kernel_answers(router.lab.router, sample)
        return not differences(sample, kernel, daemon_answers(loaded.daemon, sample))

    with SteadyStream(router.lab, stable, rate=2000) as stream:
        wait_until(lambda: stream.heard_at("server") > 100, 5, "no packet arrives")
        router.ip("link set {wan} down")
        time.sleep(1.0)
        heard = stream.heard_at("server")
        time.sleep(0.5)
        assert stream.heard_at("server") == heard, "packets go on to a dead link"
        wait_until(follows, PATIENCE_S, "the daemon has routes that the kernel has not")
    assert stream.outcome.lost_to.keys() <= dead, "packets to the living were lost"
    loaded.check(seed=7)
