"""`--wire` specs: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixroute.emulator.wires import WireError, close_wires, open_wire, open_wires, parse


@pytest.mark.parametrize(
    ("text", "kind", "name", "options"),
    [
        ("tap:ixe0", "tap", "ixe0", {}),
        ("if:eth0.100", "if", "eth0.100", {}),
        ("pair:a b", "pair", "a b", {}),
        ("none", "none", "", {}),
        ("discard", "discard", "", {}),
        ("pcap:in=a.pcap", "pcap", "", {"in": "a.pcap"}),
        ("pcap:out=x=y:z", "pcap", "", {"out": "x=y:z"}),
        ("pcap:in=a,out=b,loop,rate=5", "pcap", "", {"in": "a", "out": "b", "loop": "", "rate": "5"}),
        ("pcap:rate=1000000000,once,in=a", "pcap", "", {"rate": "1000000000", "once": "", "in": "a"}),
    ],
)
def test_a_spec_says_kind_name_and_options(text: str, kind: str, name: str, options: dict[str, str]) -> None:
    spec = parse(text)
    assert (spec.kind, spec.name, dict(spec.options), spec.text) == (kind, name, options, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no such kind"),
        ("veth0", "no such kind"),
        ("TAP:x", "no such kind"),
        ("tap", "cannot name an interface"),
        ("tap:", "1 to 15 characters"),
        ("tap:sixteen-letters!", "1 to 15 characters"),
        ("if:a/b", "cannot name an interface"),
        ("if:a b", "cannot name an interface"),
        ("tap:%d", "cannot name an interface"),
        ("pair:", "--wire pair:a --wire pair:a"),
        ("none:x", "takes nothing"),
        ("discard:", "takes nothing"),
        ("pcap", "name a file"),
        ("pcap:", "name a file"),
        ("pcap:loop", "name a file"),
        ("pcap:out=a,loop", "add it"),
        ("pcap:out=a,rate=1", "add it"),
        ("pcap:in=", "wants a value"),
        ("pcap:in", "wants a value"),
        ("pcap:in=a,loop=1", "takes none"),
        ("pcap:in=a,in=b", "twice"),
        ("pcap:in=a,,", "no option ''"),
        ("pcap:in=a,speed=1", "no option 'speed'"),
        ("pcap:in=a,loop,once", "contradict"),
        ("pcap:in=a,rate=0", "rate=100000"),
        ("pcap:in=a,rate=-1", "rate=100000"),
        ("pcap:in=a,rate=1e6", "rate=100000"),
        ("pcap:in=a,rate=²", "rate=100000"),
        ("pcap:in=a,rate=1000000001", "rate=100000"),
    ],
)
def test_a_spec_that_means_nothing_is_refused_in_one_line_that_says_what_to_write(
    text: str, says: str
) -> None:
    with pytest.raises(WireError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.one_of(
        st.text(),
        st.builds(
            lambda kind, rest: f"{kind}:{rest}",
            st.sampled_from(["tap", "if", "pcap", "pair", "none"]),
            st.text(),
        ),
    )
)
def test_any_text_is_a_spec_or_an_error_of_one_line(text: str) -> None:
    said = ""
    try:
        parse(text)
    except WireError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


def test_no_cable_means_no_link_and_nothing_in_c() -> None:
    wire = open_wire("none")
    assert not wire.carrier()
    assert not wire.stats()
    wire.close()


def test_a_cable_wants_exactly_two_ends() -> None:
    with pytest.raises(WireError, match="nobody at the other end: give --wire pair:a twice"):
        open_wires(["pair:a", "pair:b", "pair:b"])
    with pytest.raises(WireError, match="two ends"):
        open_wires(["pair:a", "pair:a", "pair:a"])
    wires = open_wires(["pair:a", "pair:b", "pair:a", "pair:b"])
    assert all(wire.carrier() for wire in wires)
    wires[0].close()
    assert [wire.carrier() for wire in wires] == [False, True, False, True]
    close_wires(wires)


def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(WireError, match=r"if:no-such-if0: (no such interface: `ip link`|no permission)"):
        open_wire("if:no-such-if0")
