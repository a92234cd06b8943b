"""The worker against its twin, over packets nobody thought of: mutated, random, in bursts, in any context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from forward_packets import ip4, ones_sum
from forward_rig import MAC, PEER, SENDER, Context, Outcome, Rig
from forward_twin import twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_forward_packets import TABLE

from ixroute.forward.reasons import BY_NAME, Kind

SETTINGS = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

contexts = st.builds(
    Context,
    flags=st.integers(0, 2047).map(lambda f: f | 7) | st.integers(0, 2047),
    vlans=st.lists(st.integers(0, 4094), max_size=3).map(tuple),
    redirect_tokens=st.booleans(),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A packet of the table with some bytes changed, cut, or lengthened."""
    packet = bytearray(draw(st.sampled_from(TABLE)).packet)
    for _ in range(draw(st.integers(0, 4))):
        packet[draw(st.integers(0, min(len(packet), 60) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        packet = packet[: draw(st.integers(1, len(packet)))]
    packet += bytes(draw(st.integers(0, 70)))
    if draw(st.booleans()):
        packet = repaired(packet)
    return bytes(packet[:1700])


def repaired(packet: bytearray) -> bytearray:
    """With a right checksum, so that mutations get past it."""
    header = (packet[14] & 15) * 4 if len(packet) > 14 else 0
    if packet[12:14] == b"\x08\0" and 20 <= header <= len(packet) - 14:
        packet[24:26] = bytes(2)
        packet[24:26] = (0xFFFF - ones_sum(packet[14 : 14 + header])).to_bytes(2, "big")
    return packet


noise = st.builds(
    lambda head, body: head + body,
    st.sampled_from([b"", MAC[0], MAC[0] + SENDER + b"\x08\0\x45", MAC[0] + SENDER + b"\x86\xdd\x60"]),
    st.binary(min_size=1, max_size=200),
)
packets = mutated() | noise


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.check_conservation()
    made.close()


@SETTINGS
@given(packet=packets, port=st.integers(0, 1), context=contexts)
def test_any_packet_ends_as_the_twin_says(rig: Rig, packet: bytes, port: int, context: Context) -> None:
    rig.set_context(context)
    assert rig.route(packet, port) == twin(packet, port, context)


def ends(outcomes: list[Outcome], kind: Kind | None) -> list[Outcome]:
    return [o for o in outcomes if (BY_NAME[o.reason].kind if o.reason else None) is kind]


@settings(SETTINGS, max_examples=100)
@given(burst=st.lists(packets, min_size=1, max_size=64), context=contexts)
def test_a_burst_ends_as_its_packets_one_by_one_and_in_order(
    rig: Rig, burst: list[bytes], context: Context
) -> None:
    rig.set_context(context)
    before = Counter(rig.dropped())
    for packet in burst:
        rig.deliver(packet)
    assert rig.worker.poll_once() == len(burst)
    expected = [twin(packet, 0, context) for packet in burst]
    sent = [(o.port, o.packet) for o in ends(expected, None)]
    assert rig.sent() == sorted(sent, key=lambda p: p[0] or 0)
    assert rig.punted() == [(o.port, o.packet) for o in ends(expected, Kind.PUNT)]
    assert Counter(rig.dropped()) - before == Counter(o.reason for o in ends(expected, Kind.DROP))
    rig.check_conservation()


def test_every_checksum_is_updated_as_if_computed_anew(rig: Rig) -> None:
    """All 65536 of them: the update depends on nothing else of the header."""
    rig.set_context(Context())
    head = MAC[0] + SENDER + b"\x08\0"
    plain = ip4("192.0.2.77", "10.0.0.1", b"", ident=0)
    have = int.from_bytes(plain[10:12], "big")
    for first in range(0, 65536, 64):
        expected = []
        for checksum in range(first, first + 64):
            ident = have - checksum if have >= checksum else have - checksum + 0xFFFF
            ip = plain[:4] + ident.to_bytes(2, "big") + plain[6:10] + checksum.to_bytes(2, "big") + plain[12:]
            assert ones_sum(ip) == 0xFFFF
            rig.deliver(head + ip)
            out = ip[:8] + b"\x3f\x11\0\0" + ip[12:]
            out = out[:10] + (0xFFFF - ones_sum(out)).to_bytes(2, "big") + out[12:]
            expected.append((1, PEER[1] + MAC[1] + b"\x08\0" + out))
        assert rig.worker.poll_once() == 64
        assert rig.sent() == expected
