"""The router in the guest, on two cards through vfio-pci and behind the IOMMU, between two hosts that Linux's own ixgbe
connects: cards 01 and 03 are cabled to each other, and 02 and 04.

The router's process is nobody's, with the one capability it needs to make TAP interfaces and routes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ixroute import cli
from ixroute.demo.netns import Namespace
from lab.guest.inside import checking, ok, value

LAN, WAN, CLIENT, SERVER = (f"0000:0{n}:00.0" for n in range(1, 5))
CONTROL = "/run/ixroute/ixroute.sock"
NOBODY = "65534"
MEMLOCK = 1 << 30
CAPABILITIES = (
    "+net_admin,+net_raw,+dac_read_search"  # the last: the tests' own folders may be closed to nobody
)


def run(*argv: str, seconds: float = 40) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.returncode} {done.stdout} {done.stderr}")
    return done.stdout


def ixroute(*argv: str) -> str:
    """The command, in this process: starting Python takes seconds in here."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = cli.main(list(argv))
    print(said.getvalue())
    assert status == 0, f"ixroute {' '.join(argv)}: {status}"
    return said.getvalue()


def wait_for(holds: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


def carrier(name: str) -> bool:
    try:
        return Path(f"/sys/class/net/{name}/carrier").read_text().strip() == "1"
    except OSError:
        return False


def host(name: str, card: str, address: str, gateway: str) -> Namespace:
    interface = next(Path(f"/sys/bus/pci/devices/{card}/net").iterdir()).name
    namespace = Namespace(name)
    namespace.create()
    run("ip", "link", "set", interface, "netns", name)
    for words in (
        f"addr add {address}/24 dev {interface}",
        f"link set {interface} up",
        f"route add default via {gateway}",
    ):
        run("ip", "-n", name, *words.split())
    return namespace


def start_router() -> subprocess.Popen[bytes]:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (MEMLOCK, MEMLOCK))
    for card in (LAN, WAN):
        group = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{card}/iommu_group"))
        os.chown(f"/dev/vfio/{group}", int(NOBODY), int(NOBODY))
    os.mkdir("/run/ixroute")  # as systemd does (RuntimeDirectory)
    os.chown("/run/ixroute", int(NOBODY), int(NOBODY))
    os.chmod("/dev/net/tun", 0o666)  # as udev does (50-udev-default.rules)
    become = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    become += ["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES]
    ports = ["--port", f"lan={LAN}", "--port", f"wan={WAN}"]
    return subprocess.Popen(
        [*become, sys.executable, "-m", "ixroute", "run", *ports, "--workers", "1", "--socket", CONTROL]
    )


def send_file(client: Namespace, server: Namespace, length: int) -> None:
    """TCP through the router, what arrives is the same."""
    data = os.urandom(length)
    listener = server.call(lambda: socket.create_server(("10.2.0.2", 5001)))
    listener.settimeout(30)
    got = hashlib.md5(usedforsecurity=False)

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            while piece := connection.recv(65536):
                got.update(piece)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    with client.call(lambda: socket.create_connection(("10.2.0.2", 5001), timeout=30)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        thread.join(40)
    listener.close()
    assert got.digest() == hashlib.md5(data, usedforsecurity=False).digest(), "not what was sent"


def counters(stats: dict[str, Any]) -> None:
    for port in stats["ports"]:
        for name in ("rx_packets", "tx_packets", "sent_packets", "injected_packets"):
            value(f"{port['name']}_{name}", port[name])
        for kind in ("punted", "dropped"):
            value(f"{port['name']}_{kind}", {k: v for k, v in port[kind].items() if v})


def traffic(client: Namespace, server: Namespace) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for name, address in (("lan", "10.1.0.1/24"), ("wan", "10.2.0.1/24")):
        run("ip", "addr", "add", address, "dev", name)
        run("ip", "link", "set", name, "up")
    with checking("ports_have_a_carrier"):
        wait_for(lambda: carrier("lan") and carrier("wan"), 30, "carrier")
    with checking("the_router_answers"):
        wait_for(lambda: ping("client", "10.1.0.1", 1), 20, "an answer from the router")
    with checking("first_packet_is_forwarded"):
        wait_for(lambda: ping("client", "10.2.0.2", 1), 20, "an answer through the router")
    ok("pings_are_forwarded", ping("client", "10.2.0.2", 30))
    with checking("tcp_is_forwarded"):
        send_file(client, server, 4 << 20)


def ping(namespace: str, address: str, n: int) -> bool:
    argv = ["ip", "netns", "exec", namespace, "ping", "-q", "-c", str(n), "-i", "0.05", "-W", "2", address]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    print(done.stdout)
    return done.returncode == 0 and f"{n} received" in done.stdout


def main() -> None:
    ixroute("devices")
    with checking("cards_are_bound"):
        ixroute("bind", LAN, WAN)
    router = start_router()
    try:
        client = host("client", CLIENT, "10.1.0.2", "10.1.0.1")
        server = host("server", SERVER, "10.2.0.2", "10.2.0.1")
        with checking("the_router_starts"):
            wait_for(lambda: Path(CONTROL).exists() or router.poll() is not None, 90, "the control socket")
            assert router.poll() is None, f"ended with {router.returncode}"
            traffic(client, server)
            counters(json.loads(ixroute("stats", "--json", "--socket", CONTROL)))
    finally:
        router.send_signal(signal.SIGTERM)
        with checking("the_router_ends"):
            status = router.wait(20)
            assert status == 0, status
        router.kill()
    with checking("cards_go_back_to_their_driver"):
        ixroute("unbind", LAN, WAN)
        wait_for(lambda: Path(f"/sys/bus/pci/devices/{LAN}/net").exists(), 10, "an interface")


if __name__ == "__main__":
    main()
