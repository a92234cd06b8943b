"""sd_notify against a socket of our own, and the watchdog that falls silent with a worker."""

import os
import socket

import pytest

from ixroute.notify import Notifier, Watchdog


@pytest.fixture
def systemd(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


@pytest.fixture
def environ(tmp_path):
    return {"NOTIFY_SOCKET": str(tmp_path / "notify")}


def heard(sock):
    sock.setblocking(False)
    messages = []
    try:
        while True:
            messages.append(sock.recv(4096).decode())
    except BlockingIOError:
        return messages


def test_each_state_is_told_in_systemds_words(systemd, environ):
    notifier = Notifier(environ)
    notifier.ready("2 ports\nup")
    notifier.status("fine")
    notifier.watchdog()
    notifier.stopping()
    assert heard(systemd) == ["READY=1\nSTATUS=2 ports up", "STATUS=fine", "WATCHDOG=1", "STOPPING=1"]


def test_a_reload_carries_the_clock_systemd_wants(systemd, environ):
    Notifier(environ).reloading()
    first, second = systemd.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(value) > 0


def test_an_abstract_socket_is_understood():
    name = f"ixroute-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ready()
        assert heard(sock) == ["READY=1"]


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/no/such"}, {"NOTIFY_SOCKET": "x"}]
)
def test_without_systemd_nothing_happens(environ):
    Notifier(environ).ready("x")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_time_is_systemds_and_only_for_this_process(environ, seconds):
    assert Notifier(environ).watchdog_seconds == seconds


def test_a_ping_goes_out_only_while_every_heartbeat_moves(systemd, environ, caplog):
    beats = {"worker 0": 0, "door": 0}
    watchdog = Watchdog(Notifier(environ), {name: lambda name=name: beats[name] for name in beats})
    assert watchdog.check() == []  # the first look has nothing to compare with
    for name in beats:
        beats[name] += 1
    assert watchdog.check() == []
    beats["door"] += 1
    assert watchdog.check() == ["worker 0"]
    beats["door"] += 1
    assert watchdog.check() == ["worker 0"]
    assert heard(systemd) == ["WATCHDOG=1"] * 2
    for name in beats:
        beats[name] += 1
    assert watchdog.check() == []
    assert heard(systemd) == ["WATCHDOG=1"]
    assert [record.getMessage() for record in caplog.records] == [
        "worker 0 has stopped moving: no more watchdog pings until it does",
        "worker 0 moves again",
    ]


def test_the_watchdog_pings_from_its_own_thread_until_stopped(systemd, environ):
    beats = iter(range(10**9))
    watchdog = Watchdog(Notifier(environ | {"WATCHDOG_USEC": "30000"}), {"worker 0": lambda: next(beats)})
    watchdog.start()
    assert [systemd.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    watchdog.stop()
    heard(systemd)
    assert heard(systemd) == []


def test_without_a_watchdog_there_is_no_thread(environ):
    watchdog = Watchdog(Notifier(environ), {})
    watchdog.start()
    assert watchdog.interval is None
    watchdog.stop()
