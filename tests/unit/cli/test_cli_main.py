"""The command as its users meet it: exit codes, one-line errors, help, and what it does when cut off."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import types

import pytest

from ixroute import __version__
from ixroute.cli import build_parser, main

COMMANDS = (
    "run", "stats", "show", "lookup", "doctor", "config", "reload", "resync", "devices", "bind", "unbind", "demo",
)  # fmt: skip


def ixroute(*words, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 60} | options
    return subprocess.run([sys.executable, "-m", "ixroute", *words], check=False, **options)


def one_line(capsys):
    """Standard error, which has one line, and standard output, which has none."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("ixroute: ")
    return err


# ---- help


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ixroute {__version__}\n"


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_explains_with_examples_and_fits_the_terminal(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"] if command is None else [command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:\n  ixroute" in text or "first steps:\n  ixroute" in text
    assert len(text.split("\n\n")[1]) > 25  # what it does, before the options
    assert max(map(len, text.splitlines())) <= 80
    assert "(default: None)" not in text


def test_help_lists_every_command(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^    {command} +\w", text, re.M), command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_for(command):
    [commands] = [a for a in build_parser()._actions if isinstance(a.choices, dict)]
    for action in commands.choices[command]._actions:
        assert action.help, f"{command} {action.option_strings or action.dest}"


# ---- exit codes


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["stats", "--nonsense"],
        ["stats", "-w", "0"],
        ["stats", "-w", "nan"],
        ["stats", "-w", "soon"],
        ["stats", "-j", "--prometheus"],
        ["show"],
        ["show", "nonsense"],
        ["show", "routes", "--prefix", "10.0.0.1/8"],
        ["show", "routes", "--limit", "0"],
        ["show", "routes", "-4", "-6"],
        ["lookup"],
        ["lookup", "10.0.0.0/8"],
        ["lookup", "localhost"],
        ["lookup", "10.0.0.1", "--iif", "lan0", "--table", "7"],
        ["lookup", "10.0.0.1", "--table", "nonsense"],
        ["lookup", "10.0.0.1", "--tos", "256"],
        ["lookup", "10.0.0.1", "--dport", "-1"],
        ["config", "nonsense"],
        ["run", "--log-level", "loud"],
        ["demo", "--nonsense"],
        ["stats", "--js"],
    ],
)
def test_a_mistake_on_the_command_line_is_2(words, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: ixroute" in err


def test_no_daemon_is_3(tmp_path, capsys):
    for words in (["stats"], ["show", "ports"], ["show", "routes"], ["lookup", "10.0.0.1"], ["reload"]):
        assert main([*words, "-s", str(tmp_path / "none.sock")]) == 3
        assert "start it, or name its socket with -s" in one_line(capsys)


def test_a_daemon_that_says_no_is_1(daemon, capsys):
    assert main(["reload", "-s", daemon]) == 1
    assert one_line(capsys) == "ixroute: x.toml:3: log.level: must be loud\n"


def test_a_socket_that_may_not_be_used_is_1(tmp_path, capsys, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert main(["stats", "-s", str(tmp_path / "x.sock")]) == 1
    assert "as root or as a member of the socket's group" in one_line(capsys)


def test_a_faulty_file_is_2_and_a_line_for_each_fault(tmp_path, capsys):
    path = tmp_path / "x.toml"
    path.write_text("[memry]\n[log]\nlevel = 1\n")
    for words in (
        ["config", "check", str(path)],
        ["config", "show", str(path)],
        ["run", "--config", str(path)],
    ):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        first, second = err.splitlines()
        assert first.startswith(f"ixroute: {path}:1: memry: ")
        assert second.startswith(f"ixroute: {path}:3: log.level: ")


def test_a_good_file_is_0_and_its_summary(tmp_path, capsys):
    path = tmp_path / "x.toml"
    path.write_text('[ports.wan0]\nspec = "af_xdp:eth1"\n[memory]\nframes = 4096\n')
    assert main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok: wan0 = af_xdp:eth1; one worker; 4,096 frames\n"
    assert main(["config", "show", str(path)]) == 0
    assert "frames = 4096\n" in capsys.readouterr().out


def test_run_without_ports_says_how_to_name_one(tmp_path, capsys):
    path = tmp_path / "x.toml"
    path.write_text("")
    assert main(["run", "--config", str(path)]) == 2
    assert "--port wan0=af_xdp:eth1" in one_line(capsys)


@pytest.fixture
def router(monkeypatch):
    """What ixroute.router is to look like from here; `seen` are the configurations it was given."""
    seen = []

    class Router:
        result = 0

        def __init__(self, config):
            seen.append(config)

        def run(self):
            if isinstance(self.result, BaseException):
                raise self.result
            return self.result

    module = types.ModuleType("ixroute.router")
    module.Router, module.seen = Router, seen
    monkeypatch.setitem(sys.modules, "ixroute.router", module)
    monkeypatch.setattr("ixroute.log.setup", seen.append)
    return module


def test_run_gives_the_router_file_and_flags(router, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('[ports.wan0]\nspec = "af_xdp:eth1"\n')
    words = ["run", "-c", str(path), "-p", "lan0=af_xdp:eth2", "--log-level", "error", "-s", "/run/y.sock"]
    router.Router.result = 7
    assert main(words) == 7
    level, config = router.seen
    assert level == "error"
    assert [port.spec for port in config.ports] == ["af_xdp:eth1", "af_xdp:eth2"]
    assert config.control.socket == "/run/y.sock"
    assert config.path == path


def test_what_goes_wrong_in_run_is_one_line_and_1(router, capsys):
    from ixroute.errors import UserError

    for error, text in (
        (UserError("wan0: no such device: look at ip link"), "wan0: no such device: look at ip link"),
        (OSError(1, "Operation not permitted", "/dev/net/tun"), "/dev/net/tun: Operation not permitted"),
    ):
        router.Router.result = error
        assert main(["run", "-p", "wan0=af_xdp:eth1"]) == 1
        assert one_line(capsys) == f"ixroute: {text}\n"


def test_demo_is_given_its_flags(monkeypatch):
    import ixroute

    module = types.ModuleType("ixroute.demo")
    module.run = lambda keep, quiet, ports: 10 * keep + quiet + 100 * (ports == "af_xdp:")
    monkeypatch.setitem(sys.modules, "ixroute.demo", module)
    monkeypatch.setattr(ixroute, "demo", module, raising=False)
    assert [main(["demo", *words]) for words in ([], ["--keep"], ["-q"])] == [0, 10, 1]
    assert main(["demo", "--port", "af_xdp:"]) == 100  # veth pairs are one flag away


# ---- what is asked of the daemon


def test_stats_shows_totals_at_once_or_rates(daemon, capsys):
    assert main(["stats", "-r", "-s", daemon]) == 0
    assert "RX PPS" not in capsys.readouterr().out
    assert main(["stats", "-j", "-s", daemon]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1
    assert main(["stats", "--prometheus", "-s", daemon]) == 0
    assert capsys.readouterr().out.startswith("# HELP ixroute_info ")


def test_show_prints_each_kind_and_its_json(daemon, capsys):
    for what, word in (
        ("ports", "native, zero copy"),
        ("workers", "BUSY PASSES"),
        ("neighbors", "kernel (managed)"),
        ("adjacencies", "02:00:00:00:00:09"),
    ):
        assert main(["show", what, "-s", daemon]) == 0
        assert word in capsys.readouterr().out
        assert main(["show", what, "-j", "-s", daemon]) == 0
        assert isinstance(json.loads(capsys.readouterr().out), list)


def test_show_rules_tells_what_becomes_of_each(daemon, capsys):
    assert main(["show", "rules", "-s", daemon]) == 0
    cells = [
        [cell.strip() for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()
    ]
    assert cells == [
        ["FAMILY", "PRIORITY", "RULE", "STATE", "ON"],
        ["IPv4", "0", "from all lookup local", "honoured", "all"],
        ["IPv4", "9", "from 10.0.0.0/8 fwmark 0x1 lookup 7", "punts: fwmark", "all"],
        ["IPv4", "10", "from all iif lan0 lookup 7", "honoured", "lan0"],
        ["IPv4", "11", "from all oif lan0 lookup 7", "never", "-"],
        [],
        ["INTERFACE", "FAMILY", "STEP", "PACKETS LOOK UP", "SOURCES BY"],
        ["lan0, wan0", "IPv4", "0", "lookup local", "the kernel"],
        ["1", "from 10.0.0.0/8: kernel (policy rule)"],
        ["2", "lookup main"],
        ["wan0", "IPv6", "0", "no route", "the same steps"],
    ]
    assert main(["show", "rules", "-j", "-s", daemon]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"rules", "programs"}


def test_show_ports_tells_what_was_obtained_of_a_card():
    from ixroute.present import Style
    from ixroute.show_view import TABLES

    link = {"up": True, "speed_mbps": 10_000}
    plain = {"name": "lan", "index": 0, "ifindex": 3, "spec": "vfio-user:/c", "up": True, "link": link, "mtu": 1500,
             "mac": "02:00:00:00:00:01", "queues": 2, "mode": "vfio-user", "zero_copy": True}  # fmt: skip
    features = {
        "card": "82599 SFP+ (10fb)", "module": "10GBASE-SR", "rss": "symmetric", "queues": 2, "queues_max": 16,
        "rx_slots": 2048, "tx_slots": 512, "interrupts": 2, "interrupt_us": 10, "rx_checksum": True,
        "tx_head_write_back": True, "drop_when_full": False,
    }  # fmt: skip
    before = TABLES["ports"]([plain], Style())
    assert len(before) == 2  # an answer of a daemon that does not tell
    lines = TABLES["ports"]([{**plain, "features": features}], Style())
    assert lines[:2] == before
    assert [cell.strip() for cell in lines[-1].split("  ") if cell] == [
        "lan", "82599 SFP+ (10fb)", "10GBASE-SR", "RSS symmetric, 2 of 16", "2048 rx, 512 tx",
        "2, 10 us apart", "receive checksums, head write-back",
    ]  # fmt: skip


def test_show_routes_stops_at_the_limit_and_says_so(daemon, capsys):
    assert main(["show", "routes", "--limit", "3", "-s", daemon]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == [
        f"*  10.0.{n}.0/24  unicast  via 198.51.100.1 dev wan0  main   20      bgp       9" for n in range(3)
    ]
    assert err == "ixroute: the first 3 only; --all shows every one\n"


@pytest.mark.parametrize(
    ("words", "number"), [([], 1000), (["--all"], 2500), (["--limit", "2500"], 2500), (["--limit", "1"], 1)]
)
def test_show_routes_prints_every_route_once(daemon, capsys, words, number):
    expected = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(number)]
    assert main(["show", "routes", "-s", daemon, *words]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines() if line.startswith("*")] == expected
    assert main(["show", "routes", "-j", "-s", daemon, *words]) == 0
    out, again = capsys.readouterr()
    assert [route["prefix"] for route in json.loads(out)] == expected
    assert err == again
    assert ("--all shows every one" in err) == (number < 2500)


def test_show_routes_passes_its_filters_on(daemon, capsys):
    assert main(["show", "routes", "-6", "-j", "-s", daemon]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["show", "routes", "-6", "-s", daemon]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["show", "routes", "--prefix", "2001:DB8::/32", "-s", daemon]) == 0
    assert "2001:db8::/32" in capsys.readouterr().out


def test_filters_of_routes_are_refused_elsewhere(daemon, capsys):
    assert main(["show", "ports", "--all", "-s", daemon]) == 2
    assert "for routes, not ports" in one_line(capsys)


def test_lookup_tells_prefix_next_hop_and_port(daemon, capsys):
    assert main(["lookup", "192.0.2.7", "-s", daemon]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "192.0.2.7  forward",
        "  route      192.0.2.0/24 (table main, metric 20, by bgp)",
        "  next hop   via 198.51.100.1 dev wan0",
        "  adjacency  9: port wan0, to 02:00:00:00:00:09, MTU 1500",
    ]
    assert main(["lookup", "2001:DB8::0:7", "-j", "-s", daemon]) == 0
    assert json.loads(capsys.readouterr().out)["address"] == "2001:db8::7"


def test_lookup_tells_why_the_kernel_gets_a_packet():
    import cli_canned

    from ixroute.commands.lookup import render
    from ixroute.present import Style

    found = cli_canned.lookup() | {
        "verdict": "punt", "reason": "no_route", "text": "nothing matches", "route": None, "prefix": "",
        "adjacency": {"index": 0, "action": "no_route", "port": "", "mac": "", "mtu": 0,
                      "routes": 0, "legs": [], "group": [], "buckets": 0},
    }  # fmt: skip
    assert render(found, Style()) == [
        "192.0.2.7  punt: no_route",
        "  because    nothing matches",
        "  route      none",
        "  adjacency  0: no_route",
    ]


def test_lookup_names_all_next_hops_and_their_shares():
    import cli_canned

    from ixroute.commands.lookup import render
    from ixroute.present import Style

    found = cli_canned.lookup() | {"adjacency": cli_canned.group()}
    assert render(found, Style())[-3:] == [
        "  adjacency  9: 2 next hops",
        "    via 198.51.100.1 dev wan0 (weight 3, 75.0%): port wan0, to 02:00:00:00:00:09, MTU 1500",
        "    via 198.51.100.2 dev wan0 (weight 1, 25.0%): unresolved_neigh",
    ]


def test_adjacencies_of_several_next_hops_have_a_line_for_each():
    import cli_canned

    from ixroute.present import Style
    from ixroute.show_view import TABLES

    lines = TABLES["adjacencies"]([cli_canned.group(buckets=16)], Style())
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "9 group - - - 1 2 next hops, 16 buckets",
        "forward wan0 02:00:00:00:00:09 1500 via 198.51.100.1 dev wan0 weight 3, 75.0%, 12 buckets",
        "unresolved_neigh - - 1500 via 198.51.100.2 dev wan0 weight 1, 25.0%, 4 buckets",
    ]


def test_lookup_passes_on_what_rules_ask_of_a_packet(daemon, capsys):
    place = ["--iif", "lan0", "--from", "10.0.0.9"]
    asked = [*place, "--tos", "0x10", "--protocol", "tcp", "--sport", "9", "--dport", "80"]
    assert main(["lookup", "192.0.2.7", "-j", "-s", daemon, *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = {"iif": "lan0", "from": "10.0.0.9", "tos": 16, "protocol": 6, "sport": 9, "dport": 80}
    assert {key: found[key] for key in wanted} == wanted
    tables = (("--table local", "table", 255), ("--table 77", "table", 77), ("--vrf red", "vrf", "red"))
    for words, key, value in tables:
        assert main(["lookup", "192.0.2.7", "-j", "-s", daemon, *words.split()]) == 0
        assert json.loads(capsys.readouterr().out)[key] == value


def test_lookup_tells_which_rule_decided():
    import cli_canned

    from ixroute.commands.lookup import render
    from ixroute.present import Style

    program = ["lookup local", "from 10.0.0.0/8: lookup 7", "lookup main"]
    found = cli_canned.lookup() | {"program": program, "step": 1, "table": "7"}
    assert render(found, Style())[1] == "  rules      from 10.0.0.0/8: lookup 7 (step 2 of 3)"
    assert render(found | {"step": -1}, Style())[1] == "  rules      none has a route"
    assert "rules" not in "".join(render(found | {"program": program[:1], "step": 0}, Style()))


def test_resync_prints_what_came_of_it(daemon, capsys):
    assert main(["resync", "-s", daemon]) == 0
    assert capsys.readouterr().out == "12 routes repaired\n"


# ---- as a process


def test_quick_commands_load_nothing_of_the_daemon(daemon):
    code = (
        "import sys; from ixroute.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'numpy', 'pyroute2', '_cffi_backend', 'ixroute._dataplane', 'asyncio', 'http.server'};"
        "found = heavy & set(sys.modules); sys.exit(str(sorted(found)) if found else code)"
    )
    for words in (["stats", "-r"], ["stats", "--prometheus"], ["show", "routes"], ["lookup", "10.0.0.1"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words, "-s", daemon],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (
            done.returncode,
            done.stderr.replace("ixroute: the first 1,000 only; --all shows every one\n", ""),
        ) == (0, "")


def test_a_reader_that_goes_away_is_no_error(daemon):
    with subprocess.Popen(
        [sys.executable, "-m", "ixroute", "show", "routes", "--all", "-s", daemon],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_output_that_nobody_wants_from_the_start_is_no_error(daemon):
    read, write = os.pipe()
    os.close(read)
    done = ixroute("stats", "-r", "-s", daemon, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_a_watch_without_a_word(daemon):
    with subprocess.Popen(
        [sys.executable, "-m", "ixroute", "stats", "-w", "0.1", "-s", daemon],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        text = b""
        while text.count(b"Packets  rx") < 2:  # it goes on by itself
            text += process.stdout.read1(65536)
        assert b"\x1b" not in text  # not a terminal
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")


def test_ctrl_c_elsewhere_is_130_without_a_word(monkeypatch, capsys, daemon):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("ixroute.commands.stats.request", interrupt)
    assert main(["stats", "-s", daemon]) == 130
    assert capsys.readouterr() == ("", "")


def test_json_can_be_watched_line_by_line(daemon):
    with subprocess.Popen(
        [sys.executable, "-m", "ixroute", "stats", "-j", "-w", "0.1", "-s", daemon], stdout=subprocess.PIPE
    ) as process:
        for _ in range(2):
            assert json.loads(process.stdout.readline())["version"] == "9.8.7"
        process.terminate()


def on_a_terminal(words, environ, until, send):
    """Runs a command on a pseudo-terminal; returns what it wrote and its exit status."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "ixroute", *words], os.environ | environ)
    text, sent, end = b"", False, time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if not select.select([fd], [], [], 1)[0]:
                continue
            try:
                chunk = os.read(fd, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            text += chunk
            if until in text and not sent:
                os.write(fd, send)
                sent = True
        return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(fd)


@pytest.mark.filterwarnings("ignore:.*use of forkpty:DeprecationWarning")
def test_on_a_terminal_a_watch_repaints_in_place_until_q(daemon):
    environ = {"TERM": "xterm", "NO_COLOR": "", "LINES": "60", "COLUMNS": "200"}
    text, code = on_a_terminal(["stats", "-w", "-s", daemon], environ, b"Packets  rx", b"q")
    assert code == 0
    assert b"\x1b[H" in text
    assert b"\x1b[1mPORT" in text


@pytest.mark.filterwarnings("ignore:.*use of forkpty:DeprecationWarning")
def test_no_color_is_heeded_and_a_small_terminal_is_not_overrun(daemon):
    environ = {"TERM": "xterm", "NO_COLOR": "1", "LINES": "5", "COLUMNS": "80"}
    text, code = on_a_terminal(["stats", "-w", "-s", daemon], environ, b"does not fit", b"q")
    assert code == 0
    assert b"\x1b[1m" not in text
    assert b"Packets  rx" not in text


def test_a_watch_waits_for_a_daemon_that_went_away(monkeypatch, capsys, daemon):
    from ixroute.client import NotRunningError, request

    answers = iter([None, None, NotRunningError("no ixroute answers"), None, KeyboardInterrupt()])

    def ask(path, command):
        answer = next(answers)
        if answer is not None:
            raise answer
        return request(path, command)

    monkeypatch.setattr("ixroute.commands.stats.request", ask)
    assert main(["stats", "-w", "0.1", "-s", daemon]) == 0
    out = capsys.readouterr().out
    assert out.count("Packets  rx") == 2
    assert "waiting for it to come back" in out
