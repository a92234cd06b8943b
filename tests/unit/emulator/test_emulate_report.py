"""What `ixroute emulate` makes of its command line, and what it says of faults."""

from __future__ import annotations

from typing import Any

import pytest

from ixroute.cli import build_parser
from ixroute.commands.emulate import plan_of
from ixroute.emulator.plan import Plan
from ixroute.emulator.report import FaultWatch, card_lines
from ixroute.errors import UsageError

MAC = "02:00:00:00:00:09"


def plan(*words: str) -> Plan:
    return plan_of(build_parser().parse_args(["emulate", *words]))


def test_each_wire_is_a_card_and_sockets_are_numbered() -> None:
    made = plan("--wire", "tap:a", "--wire", "none", "--socket", "/run/x.sock")
    assert [(card.wire, card.socket) for card in made.cards] == [
        ("tap:a", "/run/x.sock-0"),
        ("none", "/run/x.sock-1"),
    ]
    assert made.device_id == 0x10FB
    assert not made.map_bar
    assert made.cores == ()
    assert len({card.mac for card in made.cards}) == 2


def test_one_card_listens_at_the_path_itself() -> None:
    assert [card.socket for card in plan("--wire", "none", "-s", "c.sock").cards] == ["c.sock"]
    assert [card.socket for card in plan("--wire", "none", "-s", "c{n}.sock").cards] == ["c0.sock"]


def test_a_number_stands_where_the_place_is() -> None:
    made = plan(
        "--count", "3", "--wire", "tap:t{n}", "--socket", "/r/%d", "--device-id", "0x10F8", "--map-bar"
    )
    assert [(card.wire, card.socket) for card in made.cards] == [(f"tap:t{n}", f"/r/{n}") for n in range(3)]
    assert made.device_id == 0x10F8
    assert made.map_bar


def test_addresses_are_given_or_count_on() -> None:
    two = ("--wire", "none", "--wire", "none", "-s", "s")
    counted = plan(*two, "--mac", "02:00:00:00:00:ff")
    assert [card.mac.hex() for card in counted.cards] == ["0200000000ff", "020000000100"]
    given = plan(*two, "--mac", "02:00:00:00:00:09", "--mac", "02:00:00:00:00:01")
    assert [card.mac.hex() for card in given.cards] == ["020000000009", "020000000001"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--count", "2", "--wire", "none"], "1 --wire for 2 cards"),
        (["--count", "1", "--wire", "none", "--wire", "none"], "2 --wire for 1 cards"),
        (["--count", "3", "--wire", "tap:a{n}", "--mac", MAC, "--mac", MAC], "2 --mac for 3"),
        (["--wire", "none", "--device-id", "1234"], "there are 10fb"),
        (["--wire", "none", "--mac", "01:00:00:00:00:00"], "cannot have the MAC address"),
        (["--wire", "none{n}", "--count", "65"], "64 in one process"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan(*words, "--socket", "x")


@pytest.mark.parametrize(
    "words",
    [
        ["--wire", "none"],
        ["--socket", "x"],
        ["--wire", "none", "-s", "x", "--mac", "02:00"],
        ["--wire", "none", "-s", "x", "--device-id", "ixgbe"],
        ["--wire", "none", "-s", "x", "--count", "0"],
        ["--wire", "none", "-s", "x", "--cores", "x"],
    ],
)
def test_what_is_no_value_is_refused_by_the_parser(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        plan(*words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def counters(faults: int = 0, bad: int = 0, iova: int = 0) -> dict[str, Any]:
    return {"dma_faults": faults, "bad_descriptors": bad, "last_fault_iova": iova}


def test_a_fault_is_said_at_once_and_its_repetition_less_and_less_often() -> None:
    now = [100.0]
    watch = FaultWatch("card 0", lambda: now[0])
    assert list(watch.look(counters())) == []
    (line,) = watch.look(counters(1, iova=0xDEAD000))
    assert line.startswith("card 0: DMA FAULT")
    assert "0xdead000" in line
    said = 0
    for second in range(200):
        now[0] += 1
        said += len(list(watch.look(counters(2 + second))))
    assert 5 <= said <= 10
    now[0] += 1000
    (line,) = watch.look(counters(1000))
    assert "such accesses" in line
    assert list(watch.look(counters(1000))) == []
    now[0] += 1.5
    assert len(list(watch.look(counters(1001)))) == 1, "after a quiet time it is said soon again"


def test_other_faults_are_said_too() -> None:
    (line,) = FaultWatch("card 3").look(counters(bad=2))
    assert "BAD DESCRIPTOR" in line
    assert "(2)" in line


def test_a_report_names_what_moved_and_what_should_be_mended() -> None:
    text = "\n".join(
        card_lines(
            "card 0 (s, tap:a)",
            {"rx_packets": 0, "tx_packets": 7, "dma_faults": 0, "interrupts": 0},
            {"rx_packets": 7, "tx_packets": 0, "rx_dropped": 2},
            {"clients": 1, "refused": 0},
            ["run something"],
        )
    )
    assert "rx_packets 0, tx_packets 7, dma_faults 0\n" in text
    assert "rx_packets 7, tx_packets 0, rx_dropped 2" in text
    assert "clients 1" in text
    assert "interrupts" not in text
    assert "run something" in text
