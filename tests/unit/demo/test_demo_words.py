"""What the demo says and sums without any network."""

from __future__ import annotations

import os

import pytest

from ixroute import demo
from ixroute.demo.netns import CommandError, run_command
from ixroute.demo.probes import internet_checksum
from ixroute.demo.readings import by_reason, punted_total, unbalanced


def test_without_root_it_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert demo.run() == 1
    assert demo.stop() == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("sudo" in line for line in said)


def test_without_iproute2_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")
    assert demo.run() == 1
    assert "apt install iproute2" in capsys.readouterr().err


def test_a_program_that_is_missing_or_fails_is_an_error_that_names_it() -> None:
    with pytest.raises(CommandError, match="no-such-program is not installed"):
        run_command(["no-such-program"])
    with pytest.raises(CommandError, match="false"):
        run_command(["false"])


def port(rx: int, sent: int, tx: int, **verdicts: int) -> dict[str, object]:
    kinds: dict[str, object] = {
        kind: {"reason": verdicts.get(kind, 0)} for kind in ("punted", "dropped", "policed")
    }
    return {
        "name": "p",
        "rx_packets": rx,
        "injected_packets": 2,
        "sent_packets": sent,
        "tx_packets": tx,
        **kinds,
    }


def test_books_balance_only_when_every_packet_has_an_end() -> None:
    assert unbalanced({"ports": [port(8, 4, 4, punted=3, dropped=2, policed=1)]}) == []
    assert unbalanced({"ports": [port(9, 4, 4, punted=3, dropped=2, policed=1)]}) == [
        "p: 11 packets came, 10 went"
    ]
    assert unbalanced({"ports": [port(2, 4, 3)]}) == ["sent 4 packets, transmitted 3"]


def test_reasons_are_summed_over_ports() -> None:
    stats = {"ports": [port(8, 4, 4, punted=3), port(8, 4, 4, punted=4)]}
    assert by_reason(stats, "punted", "reason") == 7
    assert punted_total(stats) == 7
    assert punted_total(stats, "another") == 0


def test_the_checksum_is_that_of_rfc_1071() -> None:
    # the example of RFC 1071, section 3
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
    assert internet_checksum(b"\x01") == ~0x0100 & 0xFFFF
