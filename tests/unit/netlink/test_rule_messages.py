"""RTM_NEWRULE read: messages of a real kernel, and such as none sends."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netlink_fakes import attribute, message, rule_message, u32

from ixroute.netlink import rules
from ixroute.netlink.rules import Rule, RuleTable, parse, text
from ixroute.netlink.sockets import Message

RECORDED = Path(__file__).parents[2] / "data" / "netlink" / "rules.txt"
LINES = [line.split("; ") for line in RECORDED.read_text().splitlines() if not line.startswith("#")]


def recorded(data: str) -> Message:
    return Message(32, 0, 0, bytes.fromhex(data))


@pytest.mark.parametrize(("data", "words"), LINES, ids=lambda word: word if " " in word else "")
def test_what_the_kernel_says_is_what_it_was_told(data: str, words: str) -> None:
    rule = parse(recorded(data))
    assert text(rule) == words
    assert not rule.strange


def test_the_record_has_rules_of_every_kind_of_both_families() -> None:
    found = [parse(recorded(data)) for data, _ in LINES]
    assert Counter(rule.family for rule in found) == {4: 23, 6: 23}
    assert {rule.action for rule in found} == {1, 2, 3, 6, 7, 8}
    plain = Rule(4, 0)
    for name in Rule.__dataclass_fields__:
        if name not in ("strange", "source_port_mask"):
            assert any(getattr(rule, name) != getattr(plain, name) for rule in found), name


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (rule_message(9, 1000), Rule(4, 9, table=1000)),
        (rule_message(9, 5, extra=attribute(10, u32(7))), Rule(4, 9, table=5, mark=7, mark_mask=0xFFFFFFFF)),
        (rule_message(9, 5, extra=attribute(99, b"")), Rule(4, 9, table=5, strange=(99,))),
        (rule_message(9, 5, extra=attribute(24, struct.pack("=HH", 0, 9))), Rule(4, 9, table=5)),
        (rule_message(9, 5, extra=attribute(20, struct.pack("=II", 0, 0xFFFFFFFF))), Rule(4, 9, table=5)),
        (rule_message(9, 5, extra=attribute(25, b"\0")), Rule(4, 9, table=5, tos=0, tos_mask=0xFC)),
        (rule_message(9, 5, flags=2 | 8, extra=attribute(3, b"x\0")),
         Rule(4, 9, table=5, iif="x", iif_detached=True, inverted=True)),
        (rule_message(9, 5, extra=attribute(23, struct.pack("=HH", 16, 16)) + attribute(28, struct.pack("=H", 240))),
         Rule(4, 9, table=5, source_ports=(16, 16), source_port_mask=240)),
    ],
    ids=["table", "mark", "newer attribute", "no ports", "all uids", "DSCP 0", "not iif", "masked port"],
)  # fmt: skip
def test_what_is_left_out_has_its_meaning(made: Message, rule: Rule) -> None:
    assert parse(made) == rule


@pytest.mark.parametrize(
    "damaged",
    [
        message(32, b"\2"),
        rule_message(9, 5, family=7),
        rule_message(9, 5, extra=attribute(10, b"abc")),
        rule_message(9, 5, extra=attribute(24, b"\0\1\2")),
        message(32, struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 0, 0, 0, 1, 0) + attribute(1, b"\1\2\3")),
        message(32, struct.pack("=BBBBBBBBI", 2, 33, 0, 0, 0, 0, 0, 1, 0) + attribute(1, b"\1\2\3\4")),
        message(32, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 0, 0, 0, 1, 0) + struct.pack("=HH", 9, 1)),
    ],
)
def test_a_damaged_rule_is_refused(damaged: Message) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever it says)
        parse(damaged)


@given(st.sampled_from(LINES), st.data())
def test_no_bytes_surprise_the_reader(line: list[str], data: st.DataObject) -> None:
    raw = bytearray(bytes.fromhex(line[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(16, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        text(parse(Message(32, 0, 0, bytes(raw))))


def test_rules_have_the_order_of_their_priorities() -> None:
    table = RuleTable()
    first, second, third = Rule(4, 5, table=1), Rule(4, 5, table=2), Rule(4, 7, table=3)
    assert table.replace(4, (third, first, second))
    assert table.get(4) == (first, second, third)
    assert not table.replace(4, (first, second, third))
    assert table.get(6) is None


@pytest.mark.parametrize(
    ("dumps", "custom"),
    [
        ([[(0, 255), (32766, 254), (32767, 253)]], False),
        ([[(0, 255), (32766, 254), (32767, 253)], [(0, 255)], [(0, 255), (32766, 254), (32767, 253)]], True),
        ([[(0, 255), (9, 100), (32766, 254), (32767, 253)]], True),
    ],
    ids=["default", "once others", "others"],
)
def test_that_there_were_ipv4_rules_is_not_forgotten(
    dumps: list[list[tuple[int, int]]], custom: bool
) -> None:
    table = RuleTable()
    table.replace(6, (Rule(6, 1, rules.BLACKHOLE),))
    for dumped in dumps:
        table.replace(4, tuple(Rule(4, priority, table=number) for priority, number in dumped))
    assert table.custom_ip4 is custom
