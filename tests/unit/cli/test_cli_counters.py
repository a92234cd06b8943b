"""Summing counter blocks; and the documents beside what they document."""

import random
import re
import struct
import typing
from pathlib import Path

import cli_canned
import pytest

from ixroute import counters, prometheus, schema

ROOT = Path(__file__).parents[3]


def c_fields(header, name):
    """Field names of a struct of uint64_t in a C header, arrays as (name, size macro)."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "ixroute" / header).read_text(), flags=re.S)
    body = re.search(rf"struct {name} {{(.*?)}};", text, re.S)[1]
    fields = []
    for declaration in re.findall(r"(?:_Alignas\(64\) )?uint64_t ([^;]*);", body):
        fields += [field.strip() for field in declaration.split(",")]
    return fields


@pytest.mark.parametrize(
    ("header", "struct_name", "expected"),
    [
        (
            "forward/counters.h",
            "port_counters",
            (
                *counters.PORT_FIELDS,
                *(f"{table}[COUNTER_REASONS]" for table in ("punted", "dropped", "policed")),
            ),
        ),
        ("forward/counters.h", "worker_counters", counters.WORKER_FIELDS),
        ("tap/door.h", "door_counters", counters.DOOR_FIELDS),
    ],
)
def test_the_words_are_those_of_the_c_struct(header, struct_name, expected):
    assert tuple(c_fields(header, struct_name)) == expected


def test_the_number_of_cells_is_that_of_the_c_struct():
    assert (
        f"#define COUNTER_REASONS {counters.REASON_CELLS}u"
        in (ROOT / "ixroute/forward/counters.h").read_text()
    )


def test_blocks_of_all_workers_are_summed_cell_by_cell():
    rng = random.Random(1)
    words = [[rng.randrange(2**62) for _ in range(counters.PORT_BYTES // 8)] for _ in range(3)]
    total = counters.sum_port(struct.pack(f"={len(w)}Q", *w) for w in words)
    expected = [sum(cells) for cells in zip(*words, strict=True)]
    assert [total.rx_packets, total.rx_bytes, total.injected_packets, total.injected_bytes] == expected[:4]
    assert [total.sent_packets, total.tx_packets, total.tx_bytes] == expected[4:7]
    assert total.punted + total.dropped + total.policed == expected[8:]


def test_no_workers_have_counted_nothing():
    assert counters.sum_port([]) == counters.PortCounters()


def test_a_block_of_another_size_is_refused():
    with pytest.raises(ValueError, match="7 bytes; expected 1600"):
        counters.sum_port([bytes(7)])


def test_worker_and_door_blocks_have_their_names():
    assert counters.read_worker(struct.pack("=8Q", *range(8))) == dict(
        zip(counters.WORKER_FIELDS, range(8), strict=True)
    )
    door = counters.read_door(struct.pack("=8Q", *range(8)))
    assert door["read_too_long"] == 6
    assert "reserved" not in door


def test_every_reason_of_a_kind_is_there_and_no_count_is_lost():
    cells = [0] * counters.REASON_CELLS
    drop = next(r for r in counters.reasons() if r.kind == "drop")
    punt = next(r for r in counters.reasons() if r.kind == "punt")
    cells[drop.number] = 5
    punted = counters.by_reason(cells, "punt")
    assert {r.name for r in counters.reasons() if r.kind == "punt"} | {drop.name} == set(punted)
    assert punted[drop.name] == 5  # wrong, but not hidden
    assert punted[punt.name] == 0


def test_totals_are_the_sums_and_in_flight_what_is_missing():
    stats = cli_canned.stats()
    assert counters.totals(stats["ports"]) == stats["totals"]
    stats["ports"][0]["rx_packets"] += 32
    assert counters.totals(stats["ports"])["in_flight"] == 32


# ---- documents


def test_the_reasons_in_the_document_are_those_of_the_c_list():
    text = (ROOT / "docs/counters.md").read_text().partition("## Reasons")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", text, re.M)
    assert rows == [(r.name, r.kind, r.text) for r in counters.reasons()]


def test_every_counter_is_in_the_document():
    text = (ROOT / "docs/counters.md").read_text()
    for name in (*counters.PORT_FIELDS, *counters.WORKER_FIELDS, *counters.DOOR_FIELDS):
        assert name == "reserved" or f"`{name}`" in text, name


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
        (stats["workers"][0], schema.WorkerStats),
        (stats["fib"], schema.FibStats),
        (stats["mirror"], schema.MirrorStats),
        (stats["totals"], schema.Totals),
        (cli_canned.route(), schema.Route),
        (cli_canned.lookup()["adjacency"], schema.Adjacency),
    ):
        assert set(value) == set(shape.__annotations__), shape.__name__
