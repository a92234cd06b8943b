"""fwd, pktgen and dump as commands, on AF_XDP ports of veth pairs: generator - forwarder - generator, and a dump."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ixroute.demo.netns import Namespace
from lab.support import wait_until

pytestmark = pytest.mark.netns


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """left0 - left1 and right0 - right1: two wires."""
    made = Namespace("ixroute-tools").create()
    try:
        for side in ("left", "right"):
            made.ip(f"link add {side}0 type veth peer name {side}1")
            for end in (0, 1):
                made.ip(f"link set {side}{end} up")
        yield made
    finally:
        made.destroy()


def start(namespace: Namespace, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        namespace.command([sys.executable, "-m", "ixroute", *arguments]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, out + err
    return out + err


def has_xdp(namespace: Namespace, interface: str) -> bool:
    return "xdp" in namespace.run(["ip", "link", "show", interface])


def test_every_packet_of_pktgen_comes_back_through_fwd(namespace: Namespace) -> None:
    forwarder = start(namespace, "fwd", "af_xdp:left1", "af_xdp:right1")
    try:
        wait_until(lambda: has_xdp(namespace, "right1"), 20, "fwd does not take its ports")
        generator = start(
            namespace, "pktgen", "af_xdp:left0", "af_xdp:right0",
            "--packets", "3000", "--rate", "10k", "--flows", "16", "--size", "60,590,1514",
        )  # fmt: skip
        out, err = generator.communicate(timeout=60)
        assert generator.returncode == 0, out + err
        assert "sent 3,000 packets" in out
        assert "received 3,000, lost 0, late 0" in out
    finally:
        said = end(forwarder)
    assert re.search(r"af_xdp:left1 -> af_xdp:right1: 3,\d\d\d in .* 3,\d\d\d out, 0 dropped", said)
    assert not has_xdp(namespace, "left1")


def test_dump_saves_and_shows_what_pktgen_sends(namespace: Namespace, tmp_path: Path) -> None:
    file = tmp_path / "packets.pcap"
    saver = start(namespace, "dump", "af_xdp:left1", "-w", str(file))
    shower = start(namespace, "dump", "af_xdp:right1", "-c", "5")
    try:
        for interface in ("left1", "right1"):
            wait_until(lambda: has_xdp(namespace, interface), 20, "dump does not take its port")  # noqa: B023
        for interface in ("left0", "right0"):
            generator = start(
                namespace, "pktgen", f"af_xdp:{interface}", "--packets", "50", "--rate", "1k",
                "--source", "2001:db8::1", "--destination", "2001:db8::2", "--size", "100",
            )  # fmt: skip
            out, err = generator.communicate(timeout=30)
            assert generator.returncode == 0, out + err
        shown, _ = shower.communicate(timeout=20)
    finally:
        end(saver)
    assert len(shown.splitlines()) == 5
    read = namespace.run(["tcpdump", "-nr", str(file), "udp", "and", "port", "9"])
    assert read.count("IP6 2001:db8::1.1024 > 2001:db8::2.9: UDP, length 38") == 50


def test_a_port_that_is_not_there_ends_in_one_line(namespace: Namespace) -> None:
    process = start(namespace, "fwd", "af_xdp:left1", "af_xdp:none")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert out == ""
    assert err.count("\n") == 1
    assert "none" in err
    assert not has_xdp(namespace, "left1")
