"""Sums of counters; and the documents beside what they document."""

import re
import typing
from pathlib import Path

import cli_canned

from ixroute import counters, prometheus, schema
from ixroute.forward.reasons import REASONS

ROOT = Path(__file__).parents[3]


def c_fields(header, name):
    """Field names of a struct of uint64_t in a C header."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "ixroute" / header).read_text(), flags=re.S)
    body = re.search(rf"struct {name} {{(.*?)}};", text, re.S)[1]
    fields = []
    for declaration in re.findall(r"(?:_Alignas\(64\) )?uint64_t ([^;]*);", body):
        fields += [field.strip().partition("[")[0] for field in declaration.split(",")]
    return fields


def test_zeros_are_filled_in_and_no_count_is_lost():
    assert counters.with_zeros({"b": 5, "odd": 1}, ["a", "b"]) == {"a": 0, "b": 5, "odd": 1}


def test_totals_are_the_sums_and_in_flight_what_is_missing():
    stats = cli_canned.stats()
    assert counters.totals(stats["ports"]) == stats["totals"]
    stats["ports"][0]["rx_packets"] += 32
    assert counters.totals(stats["ports"])["in_flight"] == 32


# ---- documents


def test_the_reasons_in_the_document_are_those_of_the_c_list():
    text = (ROOT / "docs/counters.md").read_text().partition("## Reasons")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", text, re.M)
    assert rows == [(r.name, r.kind.name.lower(), r.text) for r in REASONS]


def test_every_counter_is_in_the_document():
    text = (ROOT / "docs/counters.md").read_text()
    structs = [("forward/counters.h", f"{of}_counters") for of in ("port", "sub", "worker")]
    for header, name in [*structs, ("tap/door.h", "door_counters")]:
        fields = c_fields(header, name)
        assert len(fields) >= 7
        for field in fields:
            assert field == "reserved" or f"`{field}`" in text, field


def test_every_key_of_the_schema_is_in_the_document():
    text = (ROOT / "docs/stats-json.md").read_text()
    for shape in vars(schema).values():
        if typing.is_typeddict(shape):
            for key in shape.__annotations__:
                assert f"`{key}`" in text, f"{shape.__name__}.{key}"
    assert f"`schema` is {schema.SCHEMA}" in text
    assert str(schema.MAX_PAGE) in text


def test_the_metrics_in_the_document_are_those_that_are_printed():
    text = (ROOT / "docs/stats-json.md").read_text()
    documented = set(re.findall(r"`(ixroute_\w+)`", text)) - {"ixroute_"}
    printed = set(re.findall(r"^# TYPE (\w+)", prometheus.render(cli_canned.stats()), re.M))
    assert documented == printed


def test_the_made_up_answers_of_these_tests_have_the_shape_of_the_schema():
    stats = cli_canned.stats()
    for value, shape in (
        (stats, schema.Stats),
        (stats["ports"][0], schema.PortStats),
        (stats["sub_interfaces"][0], schema.SubInterfaceStats),
        (stats["sub_interfaces"][0]["tags"][0], schema.Tag),
        (stats["workers"][0], schema.WorkerStats),
        (stats["fib"], schema.FibStats),
        (stats["mirror"], schema.MirrorStats),
        (stats["totals"], schema.Totals),
        (cli_canned.route(), schema.Route),
        (cli_canned.lookup()["adjacency"], schema.Adjacency),
        (cli_canned.group(), schema.Adjacency),
        (cli_canned.group()["group"][0], schema.GroupLeg),
    ):
        assert set(value) == set(shape.__annotations__), shape.__name__
