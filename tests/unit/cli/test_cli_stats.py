"""`ixroute stats` as text and as metrics."""

import copy
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cli_canned import stats, stats_later
from prometheus_client.parser import text_string_to_metric_families

from ixroute import present, prometheus
from ixroute.errors import UserError
from ixroute.present import Style
from ixroute.prometheus_listener import Listener
from ixroute.stats_view import render

GOLDEN = Path(__file__).with_name("golden")


def test_the_table_with_rates_looks_like_this():
    assert "\n".join(render(stats_later(), stats(), Style())) + "\n" == (GOLDEN / "rates.txt").read_text()


def test_the_table_of_totals_looks_like_this():
    assert "\n".join(render(stats(), None, Style())) + "\n" == (GOLDEN / "totals.txt").read_text()


def test_a_cards_queues_have_a_table_and_are_no_trouble():
    now, before = stats_later(), stats()
    now["ports"][0]["driver"] = {
        "rx_queue_0_packets": 1200, "rx_queue_0_bytes": 72_000, "rx_queue_0_dropped": 3,
        "tx_queue_0_packets": 9, "tx_queue_0_bytes": 540,
        "rx_queue_1_packets": 800, "rx_queue_1_bytes": 48_000, "rx_queue_1_dropped": 0,
        "tx_queue_1_packets": 0, "tx_queue_1_bytes": 0,
        "rx_missed": 3, "rx_crc_errors": 0,
    }  # fmt: skip
    before["ports"][0]["driver"] = now["ports"][0]["driver"] | {"rx_queue_0_packets": 200}
    lines = [line.split() for line in render(now, before, Style())]
    assert ["wan0", "0", "2.00k", "0", "1,200", "70.3", "KiB", "3", "9", "540", "B"] in lines
    assert ["wan0", "1", "0", "0", "800", "46.9", "KiB", "0", "0", "0", "B"] in lines
    trouble = [line[1] for line in lines if line[:1] == ["driver"]]
    assert trouble == ["rx_missed"]


def test_after_a_restart_of_the_daemon_there_are_totals_only():
    restarted = copy.deepcopy(stats_later())
    restarted["uptime_s"] = 0.2
    assert render(restarted, stats(), Style()) == render(restarted, None, Style())
    assert render(stats(), stats(), Style()) == render(stats(), None, Style())  # no time in between


def test_a_port_that_is_new_since_the_last_reading_has_no_rates_yet():
    before = stats()
    del before["ports"][0], before["workers"][0]
    wan = next(line for line in render(stats_later(), before, Style()) if line.startswith("wan0"))
    assert wan.split()[2:6] == ["0", "0", "0", "0"]


def test_packets_under_way_are_named():
    flying = stats()
    flying["totals"]["in_flight"] = 32
    assert render(flying, None, Style())[-1].endswith("+ in flight 32")


def test_a_daemon_without_ports_or_packets_is_shown_too():
    empty = stats()
    empty["ports"], empty["workers"], empty["mirror"]["synced"] = [], [], False
    empty["mirror"]["state"] = "starting"
    text = "\n".join(render(empty, None, Style()))
    assert "0 ports, 0 workers" in text
    assert "VERDICT" not in text


def test_colour_changes_no_words():
    plain = "\n".join(render(stats_later(), stats(), Style()))
    colour = "\n".join(render(stats_later(), stats(), Style(True)))
    assert colour != plain
    for code in ("1", "2", "31", "32", "33", "0"):
        colour = colour.replace(f"\x1b[{code}m", "")
    assert colour == plain


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.5, "0.5"), (12.4, "12"), (999, "999"), (999.6, "1.00k"), (1000, "1.00k"), (9_995, "10.0k"),
     (99_949, "99.9k"), (99_950, "100k"), (999_499, "999k"), (999_500, "1.00M"), (1_234_567, "1.23M"),
     (14_880_952, "14.9M"), (10e9, "10.0G"), (2.5e15, "2500T")],
)  # fmt: skip
def test_rates_have_three_figures(number, text):
    assert present.rate(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (4_404_019, "4.2 MiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_sizes_have_binary_prefixes(number, text):
    assert present.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0s"), (59, "59s"), (60, "1m 0s"), (7980.5, "2h 13m"), (90_000, "1d 1h")]
)
def test_durations_have_their_two_largest_units(seconds, text):
    assert present.duration(seconds) == text


@pytest.mark.parametrize(
    ("mbps", "text"),
    [(0, "up"), (-1, "up"), (100, "100M"), (1000, "1G"), (2500, "2.5G"), (10_000, "10G"), (40_000, "40G")],
)
def test_speeds_are_short(mbps, text):
    assert present.speed(mbps) == text


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_the_same_numbers():
    found = samples(prometheus.render(stats()))
    assert found["ixroute_info", ("version", "9.8.7")] == 1
    assert found["ixroute_port_receive_packets_total", ("port", "wan0")] == 1_000_000
    assert found["ixroute_port_link_bits_per_second", ("port", "wan0")] == 10e9
    assert found["ixroute_port_dropped_packets_total", ("port", "wan0"), ("reason", "blackhole_route")] == 490
    assert found["ixroute_port_punted_packets_total", ("port", "lan0"), ("reason", "no_route")] == 0
    assert found["ixroute_port_driver_total", ("counter", "tx_kicks"), ("port", "wan0")] == 77
    assert found["ixroute_worker_busy_seconds_total", ("core", "1"), ("worker", "0")] == pytest.approx(
        0.100001
    )
    assert found["ixroute_fib_prefixes", ("family", "ipv6")] == 223_456
    assert found["ixroute_mirror_synced",] == 1
    assert found["ixroute_packets_in_flight",] == 0


def test_prometheus_gets_every_number_of_the_json_that_counts_packets():
    given = stats()
    found = samples(prometheus.render(given))
    for port in given["ports"]:
        for table in ("punted", "policed", "dropped"):
            for reason, n in port[table].items():
                assert (
                    found[f"ixroute_port_{table}_packets_total", ("port", port["name"]), ("reason", reason)]
                    == n
                )


def test_each_metric_has_help_and_type_once_and_its_samples_together():
    families = list(text_string_to_metric_families(prometheus.render(stats())))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(family.documentation for family in families)
    assert {family.type for family in families} == {"counter", "gauge"}


def test_odd_names_survive_the_way_through_prometheus():
    odd = stats()
    odd["ports"][0]["spec"] = 'a"b\\c\nd'
    found = samples(prometheus.render(odd))
    assert (
        found["ixroute_port_info", ("mac", "02:00:00:00:00:01"), ("port", "wan0"), ("spec", 'a"b\\c\nd')] == 1
    )


def test_a_daemon_without_ports_is_still_a_scrape():
    empty = stats()
    empty["ports"], empty["workers"] = [], []
    assert samples(prometheus.render(empty))["ixroute_mirror_synced",] == 1


def get(listener, path):
    host, port = listener.address
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{host}:{port}{path}", timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_the_listener_serves_metrics_and_nothing_else():
    listener = Listener(("127.0.0.1", 0), stats)
    listener.start()
    try:
        kind, text = get(listener, "/metrics")
        assert kind == prometheus.CONTENT_TYPE
        assert text == prometheus.render(stats())
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            get(listener, "/")
        caught.value.close()
    finally:
        listener.close()
        listener.close()


def test_a_listener_whose_address_is_taken_says_so():
    first = Listener(("127.0.0.1", 0), stats)
    first.start()
    try:
        with pytest.raises(UserError, match=r"prometheus\.listen 127\.0\.0\.1:\d+: .* choose another"):
            Listener(first.address, stats).start()
    finally:
        first.close()
