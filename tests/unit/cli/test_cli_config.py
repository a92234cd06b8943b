"""The configuration: what it refuses, and how; what it makes of the rest."""

import os
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ixroute import config
from ixroute.config import (
    Config,
    ConfigError,
    Flags,
    PolicerConfig,
    PortConfig,
    choose_cores,
    parse,
    with_flags,
)
from ixroute.config.sections import SECTIONS
from ixroute.config.text import example, show
from ixroute.forward.policers import Policer
from ixroute.forward.reasons import REASONS, Kind

EXTRA = Path(__file__).parents[3] / "extra"
RSS_KEY = "6d5a" * 20
PORT = '[ports.wan0]\nspec = "af_xdp:eth1"\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = " + "9" * 5000, "a number of too many digits"),
        ("a = " + "[" * 5000, "brackets nested too deeply"),
    ],
    ids=["digits", "brackets"],
)
def test_what_the_toml_parser_chokes_on_is_a_fault_too(text, why):
    with pytest.raises(ConfigError, match=why):
        parse(text)


FAULTS = [
    # name, text, (line, key, part of the message)
    ("not TOML", "a = \n", (1, "", "not TOML: Invalid value")),
    ("not TOML at the end", "[ports\n", (1, "", "not TOML")),
    ("a key twice", "[log]\nlevel = 'info'\nlevel = 'info'\n", (3, "", "not TOML")),
    ("a port twice", PORT + PORT, (3, "", "not TOML")),
    ("an unknown section", "\n[memry]\n", (2, "memry", 'did you mean "memory"?')),
    ("an unknown key", "[memory]\n\nframe = 1\n", (3, "memory.frame", 'did you mean "frames"?')),
    ("an unknown key at the top", "frames = 1\n", (1, "frames", "unknown key; known here: control,")),
    ("a section that is no table", "memory = 3\n", (1, "memory", "must be a table [memory], not 3")),
    ("ports that are no table", "ports = []\n", (1, "ports", "must be a table")),
    ("a port that is no table", "[ports]\nwan0 = 'af_xdp:eth1'\n", (2, "ports.wan0", "must be a table")),
    (
        "a port without spec",
        "[ports.wan0]\nup = true\n",
        (1, "ports.wan0", 'for example spec = "af_xdp:eth1"'),
    ),
    ("a spec without kind", "[ports.wan0]\nspec = 'eth1'\n", (2, "ports.wan0.spec", 'must be "KIND:DEVICE"')),
    ("a spec that is no text", "[ports.wan0]\nspec = 1\n", (2, "ports.wan0.spec", "not 1")),
    (
        "an unknown kind",
        "[ports.wan0]\nspec = 'afxdp:eth1'\n",
        (2, "ports.wan0.spec", 'did you mean "af_xdp"?'),
    ),
    ("no device", "[ports.wan0]\nspec = 'af_xdp:'\n", (2, "ports.wan0.spec", "an interface's name")),
    ("a long device", f"[ports.wan0]\nspec = 'af_xdp:{'e' * 16}'\n", (2, "ports.wan0.spec", "at most 15")),
    ("a long name", f"[ports.{'w' * 16}]\nspec = 'af_xdp:eth1'\n", (1, f"ports.{'w' * 16}", "at most 15")),
    ("a name with a slash", "[ports.'a/b']\nspec = 'af_xdp:eth1'\n", (1, 'ports."a/b"', "cannot be")),
    ("a name with a blank", "[ports.'a b']\nspec = 'af_xdp:eth1'\n", (1, 'ports."a b"', "cannot be")),
    (
        "a name that is a pattern",
        "[ports.'tap%d']\nspec = 'af_xdp:eth1'\n",
        (1, 'ports."tap%d"', "cannot be"),
    ),
    ("a name that sysctl uses", "[ports.all]\nspec = 'af_xdp:eth1'\n", (1, "ports.all", "cannot be")),
    ("a name in long UTF-8", "[ports.'ääääääää']\nspec = 'af_xdp:eth1'\n", (1, 'ports."', "16 bytes long")),
    (
        "one device twice",
        PORT + "[ports.b]\nspec = 'af_xdp:eth1'\n",
        (3, "ports.b", "already the device of port wan0"),
    ),
    (
        "a port named as a device",
        PORT + "[ports.eth1]\nspec = 'af_xdp:x'\n",
        (1, "ports.wan0", "choose another name"),
    ),
    (
        "a PCI address that is none",
        "[ports.wan0]\nspec = 'noiommu:0000:03:00'\n",
        (
            2,
            "ports.wan0.spec",
            'a PCI address like 0000:03:00.0 (`ixroute devices` lists them), not "0000:03:00"',
        ),
    ),
    (
        "half a PCI address",
        "[ports.wan0]\nspec = '03:00'\n",
        (2, "ports.wan0.spec", "a PCI address is written like 0000:03:00.0"),
    ),
    (
        "a card's socket with a relative path",
        "[ports.wan0]\nspec = 'vfio-user:x.sock'\n",
        (2, "ports.wan0.spec", "an absolute path"),
    ),
    (
        "one card twice, in two ways",
        "[ports.a]\nspec = '03:00.0'\n[ports.b]\nspec = 'noiommu:0000:03:00.0'\n",
        (3, "ports.b", "0000:03:00.0 is already the device of port a"),
    ),
    ("a device id of words", PORT + "force_id = 'x540'\n", (3, "ports.wan0.force_id", 'digits like "10fb"')),
    (
        "a device id of another card",
        PORT + "force_id = '1572'\n",
        (3, "ports.wan0.force_id", "is no 82599, X540 or X550: 10fb is"),
    ),
    ("a device id in numbers", PORT + "force_id = 0x10fb\n", (3, "ports.wan0.force_id", "not 4347")),
    ("a short key", PORT + "rss_key = 'abcd'\n", (3, "ports.wan0.rss_key", "80 hexadecimal digits")),
    ("no time", PORT + "interrupt_us = 0\n", (3, "ports.wan0.interrupt_us", "from 2 to 1022")),
    (
        "a number for a word",
        PORT + "mode = 1\n",
        (3, "ports.wan0.mode", 'one of "auto", "native", "generic", not 1'),
    ),
    ("a word for a flag", PORT + "up = 'yes'\n", (3, "ports.wan0.up", 'must be true or false, not "yes"')),
    ("a number for a flag", PORT + "up = 1\n", (3, "ports.wan0.up", "must be true or false")),
    (
        "a flag for a number",
        "[mirror]\naudit_seconds = true\n",
        (2, "mirror.audit_seconds", "a whole number"),
    ),
    ("a fraction", "[mirror]\naudit_seconds = 1.5\n", (2, "mirror.audit_seconds", "not 1.5")),
    (
        "a number below",
        "[mirror]\nrcvbuf_bytes = 1\n",
        (2, "mirror.rcvbuf_bytes", "from 65536 to 1073741824"),
    ),
    ("a number above", "[memory]\nframes = 99999999\n", (2, "memory.frames", 'or "auto", not 99999999')),
    (
        "a frame size between",
        "[memory]\nframe_bytes = 3000\n",
        (2, "memory.frame_bytes", "one of 2048, 4096, 8192, 16384"),
    ),
    ("another word for auto", "[memory]\nframes = 'all'\n", (2, "memory.frames", 'or "auto", not "all"')),
    (
        "a core that is not there",
        "[workers]\ncores = '4095'\n",
        (2, "workers.cores", "core 4095 is not there"),
    ),
    ("a core twice", "[workers]\ncores = '0,0'\n", (2, "workers.cores", "core 0 is named twice")),
    ("cores backwards", "[workers]\ncores = '3-1'\n", (2, "workers.cores", "3-1: the range runs backwards")),
    (
        "cores as a list",
        "[workers]\ncores = [0]\n",
        (2, "workers.cores", 'like "2" or "1,2-3", or "auto", not [0]'),
    ),
    ("no cores", "[workers]\ncores = ''\n", (2, "workers.cores", "must be cores like")),
    ("a relative socket", "[control]\nsocket = 'x.sock'\n", (2, "control.socket", "an absolute path")),
    ("a long socket", f"[control]\nsocket = '/{'x' * 107}'\n", (2, "control.socket", "at most 107")),
    ("a mode too wide", "[control]\nmode = 0o1777\n", (2, "control.mode", "from 0 to 511")),
    (
        "no such group",
        "[control]\ngroup = 'no-such-group'\n",
        (2, "control.group", "groupadd --system no-such-group"),
    ),
    ("a port alone", "[prometheus]\nlisten = '9111'\n", (2, "prometheus.listen", '"ADDRESS:PORT"')),
    ("a port too high", "[prometheus]\nlisten = '[::1]:70000'\n", (2, "prometheus.listen", '"ADDRESS:PORT"')),
    ("a log level", "[log]\nlevel = 'loud'\n", (2, "log.level", '"debug", "info", "warning", "error"')),
    (
        "an unknown reason",
        "[policers.no_rout]\nrate = 1\n",
        (1, "policers.no_rout", 'did you mean "no_route"?'),
    ),
    (
        "a drop reason",
        "[policers.tx_ring_full]\nrate = 1\n",
        (1, "policers.tx_ring_full", "no such punt reason"),
    ),
    ("a burst of none", "[policers.no_route]\nburst = 0\n", (2, "policers.no_route.burst", "from 1 to")),
    (
        "a key of a reason",
        "[policers.no_route]\npps = 1\n",
        (2, "policers.no_route.pps", "known here: burst, rate"),
    ),
]


@pytest.mark.parametrize(("text", "expected"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_is_told_with_file_line_key_and_what_to_write_instead(text, expected):
    line, key, message = expected
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.toml")
    fault, *others = caught.value.faults
    assert not others
    assert (fault.file, fault.line) == ("x.toml", line)
    assert fault.key.startswith(key)
    assert (fault.key == key) or key.endswith('"')
    assert message in fault.message
    assert str(fault).startswith(f"x.toml:{line}: ")
    assert "\n" not in str(fault)


def test_all_faults_are_told_at_once_in_the_order_of_the_file():
    text = PORT + "mod = 'x'\n[log]\nlevel = 3\n[zzz]\n[aaa]\n[memory]\nframes = 0\n"
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert [fault.line for fault in caught.value.faults] == [3, 5, 6, 7, 9]


def test_too_many_ports_are_refused():
    with pytest.raises(ConfigError, match="65 ports; at most 64"):
        parse("\n".join(f'[ports.p{n}]\nspec = "af_xdp:e{n}"' for n in range(65)))


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 2"):
        config.load(tmp_path / "latin.toml")


def test_an_empty_file_is_the_default():
    assert parse("") == Config()


def test_a_full_file_is_read():
    core = min(os.sched_getaffinity(0))
    text = f"""
    [ports.wan0]
    spec = "af_xdp:eth1"
    up = false
    mode = "generic"
    zero_copy = "off"
    [ports."lan.7"]
    spec = "af_xdp:eth2"
    [ports.card]
    spec = "03:00.0"
    restore_driver = true
    force_id = "10FB"
    interrupt_us = 50
    rss_key = "{RSS_KEY}"
    unsupported_module = true
    [ports.made]
    spec = "vfio-user:/run/card.sock"
    [workers]
    cores = "{core}"
    idle_us = "never"
    [memory]
    frames = 4096
    frame_bytes = 4096
    hugepages = "require"
    [control]
    socket = "/run/x.sock"
    mode = 0o600
    [mirror]
    audit_seconds = 0
    [prometheus]
    listen = "[::1]:9111"
    [log]
    level = "debug"
    [policers]
    arp_request = {{ rate = 7 }}
    """
    read = parse(text)
    assert read.ports == (
        PortConfig("wan0", "af_xdp:eth1", up=False, mode="generic", zero_copy="off"),
        PortConfig("lan.7", "af_xdp:eth2"),
        PortConfig(
            "card",
            "0000:03:00.0",
            restore_driver=True,
            force_id=0x10FB,
            interrupt_us=50,
            rss_key=bytes.fromhex(RSS_KEY),
            unsupported_module=True,
        ),
        PortConfig("made", "vfio-user:/run/card.sock"),
    )
    assert [(port.kind, port.device) for port in read.ports[2:]] == [
        ("vfio", "0000:03:00.0"),
        ("vfio-user", "/run/card.sock"),
    ]
    assert (read.ports[0].kind, read.ports[0].device) == ("af_xdp", "eth1")
    assert read.workers.cores == (core,)
    assert read.workers.idle_ns == config.NEVER_NS
    assert (read.memory.frames, read.memory.frame_bytes, read.memory.hugepages) == (4096, 4096, "require")
    assert (read.control.socket, read.control.mode, read.control.group) == ("/run/x.sock", 0o600, None)
    assert read.mirror.audit_seconds == 0
    assert read.prometheus.listen == ("::1", 9111)
    assert read.log.level == "debug"
    assert read.policers["arp_request"] == PolicerConfig(7, config.DEFAULT_POLICERS["arp_request"].burst)
    assert read.policers["no_route"] == config.DEFAULT_POLICERS["no_route"]
    assert parse(show(read)) == read


def test_there_is_a_policer_for_every_punt_reason_and_no_other():
    assert set(config.DEFAULT_POLICERS) == {reason.name for reason in REASONS if reason.kind is Kind.PUNT}


def test_the_router_takes_every_policer_that_the_file_may_hold():
    for number in (0, 1_000_000_000):
        read = parse(f"[policers.no_route]\nrate = {number}\nburst = {max(1, number)}\n").policers["no_route"]
        Policer(read.rate, read.burst)
    for key in ("rate", "burst"):
        with pytest.raises(ConfigError, match=r"from \d to 1000000000"):
            parse(f"[policers.no_route]\n{key} = 1000000001\n")


def test_what_show_prints_of_the_default_is_the_default():
    assert parse(show(Config())) == Config()


def test_the_example_file_is_what_config_example_prints():
    assert (EXTRA / "ixroute.toml").read_text() == example()


def test_the_example_has_every_key_commented_out_at_its_default():
    keys = [line for line in example().splitlines() if not line.startswith("# ") and line not in ("", "#")]
    assert all(line.startswith("#") for line in keys)
    every = "\n".join(line[1:] for line in keys)
    assert parse(every) == replace(Config(), ports=(PortConfig("wan0", "af_xdp:eth1"),))
    for cls in (PortConfig, PolicerConfig, *SECTIONS.values()):
        for field in fields(cls):
            if "check" in field.metadata:
                assert re.search(rf"^{field.name} = ", every, re.M), field.name
                assert field.metadata["text"] in example()


def test_flags_are_laid_over_the_file():
    base = parse(PORT + 'mode = "generic"\n[log]\nlevel = "error"\n')
    core = max(os.sched_getaffinity(0))
    flags = Flags(("wan0=af_xdp:eth9", "lan0=af_xdp:eth2"), str(core), "/run/y.sock", "debug")
    laid = with_flags(base, flags)
    assert laid.ports == (
        PortConfig("wan0", "af_xdp:eth9", mode="generic"),
        PortConfig("lan0", "af_xdp:eth2"),
    )
    assert laid.workers.cores == (core,)
    assert laid.control.socket == "/run/y.sock"
    assert laid.log.level == "debug"
    assert laid.flags == flags
    assert with_flags(base, Flags()) == base


def test_an_id_is_forced_on_the_port_named_or_on_every_card():
    base = parse(
        "[ports.a]\nspec = '03:00.0'\n[ports.b]\nspec = 'noiommu:04:00.0'\n[ports.c]\nspec = 'af_xdp:x'\n"
    )
    assert [p.force_id for p in with_flags(base, Flags(force_ids=("1563",))).ports] == [0x1563, 0x1563, None]
    laid = with_flags(base, Flags(force_ids=("1563", "b=10fb")))
    assert [port.force_id for port in laid.ports] == [0x1563, 0x10FB, None]


def test_a_relative_socket_flag_means_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_flags(Config(), Flags(socket="x.sock")).control.socket == f"{tmp_path}/x.sock"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Flags(("wan0",)), "--port wan0: must be NAME=SPEC, for example wan0=af_xdp:eth1"),
        (Flags(("wan0=eth1",)), '--port wan0=eth1: must be "KIND:DEVICE"'),
        (Flags(("a/b=af_xdp:eth1",)), "--port a/b=af_xdp:eth1: 'a/b' cannot be"),
        (Flags(("a=af_xdp:x", "a=af_xdp:y")), "--port a=af_xdp:y: port a is given twice"),
        (Flags(("a=af_xdp:x", "b=af_xdp:x")), "--port b: af_xdp:x is already the device of port a"),
        (Flags(force_ids=("10fb",)), "--force-id 10fb: no port at all is a PCI card"),
        (Flags(("a=af_xdp:x",), force_ids=("a=10fb",)), "--force-id a=10fb: no port a is a PCI card"),
        (
            Flags(("a=03:00.0",), force_ids=("a=",)),
            "--force-id a=: must be a device id like 10fb, or PORT=ID",
        ),
        (
            Flags(("a=03:00.0",), force_ids=("xyz",)),
            "--force-id xyz: must be a device id of four hexadecimal",
        ),
        (Flags(workers="x"), "--workers x: must be cores like"),
        (Flags(workers="4095"), "--workers 4095: core 4095 is not there"),
    ],
)
def test_a_faulty_flag_is_told_by_its_name(flags, message):
    with pytest.raises(ConfigError) as caught:
        with_flags(Config(), flags)
    assert str(caught.value.faults[0]).startswith(message)


def test_reread_takes_the_file_as_it_is_now_and_the_same_flags(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('[log]\nlevel = "error"\n')
    first = with_flags(config.load(path), Flags(("wan0=af_xdp:eth1",)))
    path.write_text('[log]\nlevel = "debug"\n')
    again = config.reread(first)
    assert again.log.level == "debug"
    assert again.ports == first.ports
    path.write_text("[lag]\n")
    with pytest.raises(ConfigError):
        config.reread(first)


def test_the_worker_goes_to_an_isolated_core_else_to_the_last(tmp_path):
    cpu = tmp_path / "devices/system/cpu"
    cpu.mkdir(parents=True)
    assert choose_cores(Config(), tmp_path, {0, 1, 5}) == (5,)
    (cpu / "isolated").write_text("2-3,7\n")
    assert choose_cores(Config(), tmp_path, {0, 1, 3, 7, 8}) == (3,)
    assert choose_cores(Config(), tmp_path, {0, 1}) == (1,)
    (cpu / "isolated").write_text("\n")
    assert choose_cores(Config(), tmp_path, {0, 1}) == (1,)
