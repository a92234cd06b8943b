"""The daemon starts, stops, dies and stalls: what stays in the kernel, and that it forwards again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ixroute.demo.probes import UdpFlow, ping
from lab.routers import Router
from lab.support import wait_until

pytestmark = pytest.mark.netns

SERVER4, SERVER6 = "10.0.2.2", "fd00:2::2"
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17  # <linux/ptrace.h>
WAIT_ALL_CHILDREN = 0x40000000  # __WALL


def forwards(router: Router) -> bool:
    return all(ping(router.lab.client, target, 3, patience=0.3).all_back for target in (SERVER4, SERVER6))


def has_xdp(router: Router) -> bool:
    return "xdp" in router.ip("link show")


def addresses(router: Router) -> str:
    return router.ip("-br addr show dev lan") + router.ip("-br addr show dev wan")


def assert_configured(router: Router) -> None:
    there = addresses(router)
    for address in ("10.0.1.1/24", "10.0.2.1/24", "fd00:1::1/64", "fd00:2::1/64"):
        assert address in there, there


def test_sigterm_detaches_and_leaves_the_interfaces_with_their_addresses(router: Router) -> None:
    assert forwards(router)
    assert has_xdp(router)
    router.check_balance()
    assert router.ixroute.stop() == 0
    assert not has_xdp(router)
    assert_configured(router)
    assert not router.ixroute.control.exists()


def test_a_restart_forwards_without_any_configuration(router: Router) -> None:
    router.ip("route add 10.8.0.0/16 via 10.0.2.2 dev wan")
    router.ixroute.stop()
    router.ixroute.start()
    wait_until(lambda: forwards(router), 10, "no forwarding after a restart")
    assert_configured(router)


def test_after_kill_the_next_one_forwards_again(router: Router) -> None:
    assert forwards(router)
    flow = UdpFlow(router.lab.client, router.lab.server, SERVER4, rate=2000).start()
    try:
        wait_until(lambda: flow.result.received > 100, 5, "no traffic")
        router.ixroute.kill()
        wait_until(lambda: not has_xdp(router), 5, "its XDP programs are still there")
        assert_configured(router)
        router.ixroute.start()
        died = flow.result.received
        wait_until(lambda: flow.result.received > died + 100, 10, "the stream did not come back")
    finally:
        flow.stop()
    assert forwards(router)


def test_sighup_reads_the_kernel_again_and_forwarding_goes_on(router: Router) -> None:
    assert forwards(router)
    before = router.ixroute.stats()["mirror"]["resyncs"]
    flow = UdpFlow(router.lab.client, router.lab.server, SERVER4, rate=1000).start()
    router.ixroute.signal(signal.SIGHUP)
    wait_until(lambda: router.ixroute.stats()["mirror"]["resyncs"] > before, 5, "no new dump")
    assert flow.stop().lost == 0


def test_a_second_daemon_does_not_take_the_first_ones_ports(router: Router) -> None:
    from ixroute.demo.daemon import Daemon, DaemonError
    from lab.support import port_arguments

    second = Daemon(router.lab.router, port_arguments(router.lab))
    second.control = router.lab.router.directory / "second.sock"
    second.log = router.lab.router.directory / "second.log"
    with pytest.raises(DaemonError, match="ended with code 1"):
        second.start()
    second.close()
    assert forwards(router)


@contextlib.contextmanager
def stopped_thread(tid: int) -> Iterator[None]:
    """One thread of the daemon does not run inside the block; the others do."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def ptrace(request: int) -> None:
        if libc.ptrace(request, tid, None, None) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")

    ptrace(PTRACE_SEIZE)
    ptrace(PTRACE_INTERRUPT)
    os.waitpid(tid, WAIT_ALL_CHILDREN)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH)


def threads(pid: int) -> dict[str, int]:
    """The daemon's threads by name."""
    return {
        (path / "comm").read_text().strip(): int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()
    }


def test_no_other_thread_that_works_for_packets_runs_on_a_workers_core(router: Router) -> None:
    ours = threads(router.ixroute.pid)
    [core] = os.sched_getaffinity(ours["ixroute-w0"])
    others = os.sched_getaffinity(0) - {core}
    if not others:
        pytest.skip("one core: there is no other to run on")
    assert os.sched_getaffinity(ours["ixroute-door"]) == others
    assert os.sched_getaffinity(router.ixroute.pid) == os.sched_getaffinity(0)


def test_a_stalled_worker_misses_the_watchdog(make_router: Callable[..., Router]) -> None:
    watchdog_s = 4.5
    router = make_router(watchdog_s=watchdog_s)
    daemon = router.ixroute
    assert "WATCHDOG=1" in daemon.notified("WATCHDOG=1", 2 * watchdog_s)
    with stopped_thread(threads(daemon.pid)["ixroute-w0"]):
        time.sleep(watchdog_s / 2)  # a ping is due every third of it: the last from before the stall is out
        daemon.drain_notifications()
        assert "WATCHDOG=1" not in daemon.notified("WATCHDOG=1", watchdog_s)
    assert "WATCHDOG=1" in daemon.notified("WATCHDOG=1", 2 * watchdog_s)
    wait_until(lambda: forwards(router), 5, "no forwarding after the stall")


def test_nothing_is_left_behind_in_the_namespace(router: Router) -> None:
    """Only the TAPs stay: no XDP program, no socket, no process."""
    router.ixroute.stop()
    assert router.lab.router.pids() == []
    listing = subprocess.run(
        router.lab.router.command(["cat", "/proc/net/unix"]), capture_output=True, text=True, check=True
    ).stdout
    assert str(router.ixroute.control) not in listing
