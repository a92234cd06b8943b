"""The lab and the demo clean up after themselves, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ixroute.demo import daemon, story
from ixroute.demo.netns import RUN, CommandError, Namespace, reap_leftovers, run_command
from ixroute.demo.topology import PREFIX, Lab, kept_labs
from lab.support import wait_until

pytestmark = pytest.mark.netns

HOLD_A_LAB = """
    import signal, sys, time
    from ixroute.demo.topology import Lab
    with Lab(label="held") as lab:
        lab.client.popen(["sleep", "60"])
        print(lab.router.name, flush=True)
        time.sleep(60)
"""


def namespaces_of(pid: int) -> list[str]:
    return [path.name for path in RUN.glob(f"{PREFIX}{pid}-*")]


def lab_in_a_process() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD_A_LAB)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"{PREFIX}{process.pid}-")
    return process


def end(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()


def test_a_lab_is_gone_after_an_interrupt() -> None:
    process = lab_in_a_process()
    end(process, signal.SIGINT)
    assert namespaces_of(process.pid) == []


def test_a_lab_whose_process_was_killed_is_removed_by_the_next_one() -> None:
    process = lab_in_a_process()
    end(process, signal.SIGKILL)
    assert len(namespaces_of(process.pid)) == 3
    inside = Namespace(f"{PREFIX}{process.pid}-heldclient").pids()
    assert inside
    reap_leftovers(PREFIX)
    assert namespaces_of(process.pid) == []
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}/ns/net") for pid in inside), 5, "still running")


def test_a_lab_can_be_closed_again_and_again() -> None:
    lab = Lab(label="twice").create()
    lab.close()
    lab.close()
    assert not lab.router.exists()
    assert not lab.router.directory.exists()


def test_a_lab_of_a_living_process_is_left_alone() -> None:
    with Lab(label="one") as lab:
        reap_leftovers(PREFIX)
        assert lab.router.exists()


def test_an_ip_command_that_fails_says_what_and_why() -> None:
    with Lab(label="fails") as lab, pytest.raises(CommandError, match=r"addr add nonsense .*nonsense"):
        lab.router.ip("addr add nonsense dev r0")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ixroute", "demo", *arguments], capture_output=True, text=True, check=False
    )


def left_behind() -> list[str]:
    return [path.name for path in RUN.glob(f"{PREFIX}*")]


CARDS_WORDS = ("82599 SFP+ (10fb)", "10GBASE-SR", "RSS symmetric", "missed for want of room", "0 DMA faults")


@pytest.mark.parametrize(
    ("options", "words"), [((), CARDS_WORDS), (("--port", "af_xdp:"), ("XDP programs are gone",))]
)
def test_the_demo_holds_what_it_claims_and_leaves_nothing_behind(
    options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    before = left_behind()
    done = demo(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    for word in ("IPv4 ping", "IPv6 traceroute", "Gbit/s", "blackhole_route", "ixroute stats", *words):
        assert word in done.stdout
    assert left_behind() == before


def test_a_kept_demo_runs_until_it_is_stopped() -> None:
    before = kept_labs()
    done = demo("--keep", "--quiet")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        kept = [name for name in kept_labs() if name not in before]
        assert len(kept) == 3
        router = next(name for name in kept if name.endswith("router"))
        control = Namespace(router).directory / "ixroute.sock"
        stats = run_command([sys.executable, "-m", "ixroute", "stats", "-j", "-s", os.fspath(control)])
        assert '"ports"' in stats
        running = Namespace(router).pids()
        assert len(running) == 2, "the daemon, and the emulator of its cards"
    finally:
        assert demo("--stop").returncode == 0
    assert not any(os.path.exists(f"/proc/{pid}/ns/net") for pid in running)
    assert not any(name in kept_labs() for name in kept)


def test_a_demo_whose_daemon_fails_says_so_and_cleans_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left_behind()
    monkeypatch.setattr(daemon, "IXROUTE", [sys.executable, "-c", "raise SystemExit('it went wrong')"])
    assert story.run() == 1
    said = capsys.readouterr()
    assert "ended with code 1" in said.err
    assert "it went wrong" in said.err
    assert "All of it held" not in said.out
    assert left_behind() == before
