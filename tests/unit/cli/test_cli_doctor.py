"""The doctor on machines made up: a good one, and for each check what spoils it."""

# ruff: noqa: E501 (a table, one row a line)

import argparse
import errno
import json
import os
from dataclasses import dataclass, field

import pytest

from ixroute.cli import main
from ixroute.commands import doctor as command
from ixroute.config import Config, Flags, MemoryConfig, MirrorConfig, PortConfig, WorkersConfig, with_flags
from ixroute.doctor import CHECKS, FAIL, LEVELS, NOTE, OK, WARN, Finding, Machine, examine
from ixroute.doctor.machine import AF_XDP
from ixroute.present import Style

ALL_CAPABILITIES = "000001ffffffffff"
LINK = {"ifname": "eth1", "flags": ["UP", "LOWER_UP"]}
FILES = {
    "proc/self/status": f"Name:\tixroute\nCapEff:\t{ALL_CAPABILITIES}\n",
    "proc/self/uid_map": "         0          0 4294967295\n",
    "proc/1/comm": "systemd\n",
    "proc/sys/net/core/rmem_max": "212992\n",
    "proc/sys/net/ipv4/conf/all/rp_filter": "0\n",
    "proc/sys/net/ipv4/conf/default/rp_filter": "0\n",
    "proc/sys/net/ipv4/conf/default/forwarding": "1\n",
    "proc/sys/net/ipv6/conf/default/forwarding": "1\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "64\n",
    "sys/devices/system/cpu/isolated": "2-3\n",
    "sys/devices/system/cpu/nohz_full": "2-3\n",
    "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/node/node1/cpulist": "2-3\n",
    "sys/class/net/eth1/carrier": "1\n",
    "sys/class/net/eth1/mtu": "1500\n",
    "sys/class/net/eth1/queues/rx-0/rps_cpus": "0\n",
    "sys/class/net/eth1/device/numa_node": "1\n",
    "sys/kernel/iommu_groups/0/type": "DMA\n",
    "dev/net/tun": "",
    "dev/vfio/vfio": "",
    "run/systemd/system/x": "",
    "etc/systemd/system/ixroute.service": "",
}


@dataclass
class Made(Machine):
    """Files in a directory, commands and errors from tables."""

    uname_release: str = "6.1.0-37-amd64"
    cores: frozenset[int] = frozenset({0, 1, 2, 3})
    memlock: int = 8 << 20
    commands: dict[tuple[str, ...], str] = field(default_factory=dict)
    socket_errno: int = 0
    tun_errno: int = 0
    listening: bool = False

    def command(self, *words):
        return self.commands.get(words)

    def socket_error(self, family):
        assert family == AF_XDP
        return OSError(self.socket_errno, os.strerror(self.socket_errno)) if self.socket_errno else None

    def answers(self, path):
        return self.listening

    def open_error(self, path):
        assert path == "dev/net/tun"
        return OSError(self.tun_errno, os.strerror(self.tun_errno)) if self.tun_errno else None


def write(root, files):
    for path, text in files.items():
        place = root / path
        if text is None:
            place.unlink()
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.fixture
def machine(tmp_path):
    write(tmp_path, FILES)
    driver = tmp_path / "sys/class/net/eth1/device/driver"
    driver.symlink_to("../../bus/pci/drivers/ixgbe")
    return Made(
        root=tmp_path,
        commands={
            ("ip", "-d", "-j", "link", "show"): json.dumps([LINK]),
            ("ip", "-j", "addr", "show"): json.dumps([{"ifname": "eth1", "addr_info": []}]),
            ("nft", "-j", "list", "ruleset"): json.dumps({"nftables": [{"metainfo": {}}]}),
            ("ip", "-4", "-j", "rule", "show"): json.dumps([{"priority": 0, "src": "all", "table": "local"}]),
            ("systemctl", "is-enabled", "ixroute.service"): "enabled\n",
        },
    )


RULES4, RULES6 = (("ip", f"-{family}", "-j", "rule", "show") for family in (4, 6))
PORTS = with_flags(Config(), Flags(ports=("wan0=af_xdp:eth1",)))


def found(machine, check, config=PORTS):
    return [(f.level, f.text, f.fix) for f in examine(machine, config) if f.check == check]


def test_a_good_machine_has_nothing_to_mend(machine):
    findings = list(examine(machine, PORTS))
    assert {f.level for f in findings} == {OK}
    assert len(findings) >= len(CHECKS) - 1  # names has nothing to say while there is no TAP
    assert command.render(findings, Style())[-1] == "nothing stands in the way"


def link(**more):
    return {("ip", "-d", "-j", "link", "show"): json.dumps([LINK | more])}


def rules(*entries):
    return {("nft", "-j", "list", "ruleset"): json.dumps({"nftables": list(entries)})}


FORWARD = {
    "chain": {"family": "inet", "table": "filter", "name": "forward", "hook": "forward", "policy": "accept"}
}
INPUT = {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "drop"}}
RULE = {"rule": {"family": "inet", "table": "filter", "chain": "forward", "expr": []}}
VETH = {"linkinfo": {"info_kind": "veth"}}

SPOILED = [
    # what is wrong, {what to change}, check, level, part of the text, part of the fix
    ("an old kernel", {"uname_release": "5.4.0"}, "kernel", FAIL, "need 5.9", "Debian 12"),
    ("a kernel without managed neighbours", {"uname_release": "5.10.0-28"}, "kernel", NOTE, "5.16 can", ""),
    ("a kernel of no known version", {"uname_release": "mine"}, "kernel", FAIL, "Linux mine", ""),
    ("no AF_XDP", {"socket_errno": errno.EAFNOSUPPORT}, "af_xdp", FAIL, "has no", "CONFIG_XDP_SOCKETS=y"),
    ("AF_XDP not allowed", {"socket_errno": errno.EPERM}, "af_xdp", FAIL, "not allowed", "run as root"),
    ("AF_XDP without memory", {"socket_errno": errno.ENOMEM}, "af_xdp", FAIL, "Cannot allocate", "dmesg"),
    ("no tun", {"tun_errno": errno.ENOENT}, "tun", FAIL, "no /dev/net/tun", "modprobe tun"),
    ("tun not allowed", {"tun_errno": errno.EACCES}, "tun", FAIL, "Permission denied", "70-ixroute.rules"),
    ("no capabilities", {"proc/self/status": "CapEff:\t0000000000000000\n"}, "privilege", FAIL, "lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF", "ixroute.service"),
    ("no BPF", {"proc/self/status": "CapEff:\t0000007fffffffff\n"}, "privilege", FAIL, "lacks CAP_BPF", ""),
    ("a user namespace", {"proc/self/uid_map": "0 1000 1\n"}, "privilege", FAIL, "user namespace", ""),
    ("little memory to lock", {"proc/self/status": "CapEff:\t0000008000003000\n"}, "memlock", FAIL, "only 8192 KiB", "LimitMEMLOCK=infinity"),
    ("no huge pages", {"sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "0\n"}, "hugepages", WARN, "no free pages", "vm.nr_hugepages="),
    ("no huge pages at all", {"sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": None}, "hugepages", NOTE, "has no pages", "off"),
    ("a small receive buffer", {"proc/self/status": "CapEff:\t0\n"}, "rcvbuf", WARN, "208 KiB of 64 MiB", "rmem_max=67108864"),
    ("one core", {"cores": frozenset({0})}, "cores", WARN, "one core", "second core"),
    ("shared cores", {"sys/devices/system/cpu/isolated": "\n"}, "cores", NOTE, "other programs run too", "isolcpus=3 nohz_full=3"),
    ("a ticking core", {"sys/devices/system/cpu/nohz_full": "(null)\n"}, "cores", NOTE, "timer still ticks", "nohz_full=2"),
    ("a slow governor", {"sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "powersave\n"}, "governor", WARN, "core 2 runs under governor powersave", "cpupower -c 2"),
    ("irqbalance", {"proc/77/comm": "irqbalance\n"}, "irqbalance", WARN, "interrupts on cores 2", "IRQBALANCE_BANNED_CPULIST=2"),
    ("no IPv4 forwarding", {"proc/sys/net/ipv4/conf/default/forwarding": "0\n"}, "ipv4 forwarding", FAIL, "off for wan0", "sysctl -w net.ipv4.conf.all.forwarding=1"),
    ("no IPv6 forwarding", {"proc/sys/net/ipv6/conf/default/forwarding": "0\n"}, "ipv6 forwarding", WARN, "off for wan0", "net.ipv6.conf.all.forwarding=1"),
    ("no forwarding on the TAP", {"proc/sys/net/ipv4/conf/wan0/forwarding": "0\n"}, "ipv4 forwarding", FAIL, "off for wan0", ""),
    ("strict reverse path", {"proc/sys/net/ipv4/conf/default/rp_filter": "1\n"}, "rp_filter", WARN, "strict on wan0", "net.ipv4.conf.wan0.rp_filter=0"),
    ("loose reverse path", {"proc/sys/net/ipv4/conf/all/rp_filter": "2\n", "proc/sys/net/ipv4/conf/default/rp_filter": "1\n"}, "rp_filter", NOTE, "loose on wan0", ""),
    ("a rule on marks", {"commands": {RULES6: json.dumps([{"priority": 9, "fwmark": "0x1", "table": "7"}])}}, "ip rule", WARN, "IPv6 rule 9 (fwmark)", "ixroute show rules"),
    ("rules not visible", {"commands": {RULES4: "nonsense"}}, "ip rule", NOTE, "cannot see", ""),
    ("an nft rule", {"commands": rules(FORWARD, RULE)}, "firewall", WARN, "nft inet filter forward", "nft list ruleset"),
    ("an nft policy", {"commands": rules({"chain": FORWARD["chain"] | {"policy": "drop"}})}, "firewall", WARN, "nft inet filter forward", ""),
    ("a legacy rule", {"proc/net/ip_tables_names": "filter\n", "commands": {("iptables-legacy-save",): "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"}}, "firewall", WARN, "iptables", ""),
    ("filters not visible", {"commands": {("nft", "-j", "list", "ruleset"): None}}, "firewall", NOTE, "cannot see", ""),
    ("a device that is not there", {"config": with_flags(Config(), Flags(ports=("wan0=af_xdp:eth9",)))}, "ports", FAIL, "no interface eth9", "ip link"),
    ("a driver that copies", {"driver": "tg3"}, "ports", NOTE, "driver tg3: packets are copied once", ""),
    ("zero copy wanted in vain", {"driver": "tg3", "config": Config(ports=(PortConfig("wan0", "af_xdp:eth1", zero_copy="require"),))}, "ports", WARN, "not known", 'zero_copy = "auto"'),
    ("a veth", {"driver": None, "commands": link(**VETH)}, "ports", WARN, "checksums", "ethtool -K PEER tx off"),
    ("a veth with a large MTU", {"driver": None, "commands": link(**VETH), "sys/class/net/eth1/mtu": "9000\n"}, "link", NOTE, "MTU 9000", "mtu 1500"),
    ("a veth with a large MTU, native", {"driver": None, "commands": link(**VETH), "sys/class/net/eth1/mtu": "9000\n", "config": Config(ports=(PortConfig("wan0", "af_xdp:eth1", mode="native"),))}, "link", FAIL, "MTU 9000", ""),
    ("too many queues", {"sys/class/net/eth1/queues/rx-1/rps_cpus": "0\n"}, "queues", WARN, "2 receive queues for 1 worker: only as many", "ethtool -L eth1 combined 1"),
    ("too few queues", {"config": Config(PORTS.ports, WorkersConfig(cores=(2, 3)))}, "queues", WARN, "1 receive queue for 2 workers: some", "ethtool -L eth1 combined 2"),
    ("no link", {"sys/class/net/eth1/carrier": "0\n"}, "link", WARN, "no link", "cable"),
    ("a device that is down", {"commands": link(flags=[])}, "link", NOTE, "is down", ""),
    ("a device in a bridge", {"commands": link(master="br0")}, "link", FAIL, "belongs to br0", "nomaster"),
    ("another XDP program", {"commands": link(xdp={"mode": 1})}, "link", FAIL, "already on eth1", "xdp off"),
    ("an address on the device", {"commands": {("ip", "-j", "addr", "show"): json.dumps([{"ifname": "eth1", "addr_info": [{"local": "192.0.2.2", "prefixlen": 24, "scope": "global"}, {"local": "fe80::1", "prefixlen": 64, "scope": "link"}]}])}}, "addresses", WARN, "192.0.2.2/24, where", "ip addr flush dev eth1; ip addr add 192.0.2.2/24 dev wan0"),
    ("a far core", {"sys/devices/system/node/node1/cpulist": "0-1\n"}, "numa", WARN, "node 1, core 2 does not", "cores 0-1"),
    ("a name that is taken", {"sys/class/net/wan0/mtu": "1500\n"}, "names", FAIL, "not a TAP", "another name"),
    ("a TUN of that name", {"sys/class/net/wan0/tun_flags": "0x1001\n"}, "names", FAIL, "not a TAP", ""),
    ("a TAP that is not ours", {"sys/class/net/wan0/tun_flags": "0x1002\n"}, "names", FAIL, "single queue", "ip link del wan0"),
    ("no systemd", {"run/systemd/system/x": None, "rmdir": "run/systemd/system"}, "service", NOTE, "in the foreground", ""),
    ("no unit", {"etc/systemd/system/ixroute.service": None}, "service", NOTE, "not installed", "docs/operations.md"),
    ("a unit that is not enabled", {"commands": {("systemctl", "is-enabled", "ixroute.service"): None}}, "service", NOTE, "not enabled", "systemctl enable --now ixroute"),
    ("no VFIO", {"dev/vfio/vfio": None}, "vfio", NOTE, "VFIO is not loaded", "modprobe vfio-pci"),
    ("no IOMMU", {"sys/kernel/iommu_groups/0/type": None, "rmdir": "sys/kernel/iommu_groups/0"}, "vfio", NOTE, "no IOMMU", "iommu=pt"),
]  # fmt: skip


def spoil(machine, changes):
    """Applies a row's changes; returns the configuration."""
    config = changes.get("config", PORTS)
    for name, value in changes.items():
        if name == "commands":
            machine.commands |= value
        elif name == "driver":
            driver = machine.root / "sys/class/net/eth1/device/driver"
            driver.unlink()
            if value:
                driver.symlink_to(f"../drivers/{value}")
        elif "/" in name:
            write(machine.root, {name: value})
        elif name == "rmdir":
            (machine.root / value).rmdir()
        elif name != "config":
            setattr(machine, name, value)
    return config


@pytest.mark.parametrize(
    ("changes", "check", "level", "text", "fix"), [s[1:] for s in SPOILED], ids=[s[0] for s in SPOILED]
)
def test_what_is_wrong_is_found_and_the_fix_is_named(machine, changes, check, level, text, fix):
    config = spoil(machine, changes)
    [(found_level, found_text, found_fix), *others] = [f for f in found(machine, check, config) if f[0] != OK]
    assert not others
    assert found_level == level
    assert text in found_text
    assert fix in found_fix
    assert level in (NOTE,) or found_fix or "mine" in found_text


def test_hugepages_that_are_required_are_a_failure_and_unwanted_ones_are_not(machine):
    write(machine.root, {"sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "0\n"})
    for wanted, level in (("require", FAIL), ("off", OK)):
        config = Config(PORTS.ports, memory=MemoryConfig(hugepages=wanted))
        assert [f[0] for f in found(machine, "hugepages", config)] == [level]


def test_a_small_buffer_is_enough_when_no_more_is_wanted(machine):
    write(machine.root, {"proc/self/status": "CapEff:\t0\n"})
    config = Config(PORTS.ports, mirror=MirrorConfig(rcvbuf_bytes=1 << 16))
    assert [f[0] for f in found(machine, "rcvbuf", config)] == [OK]


def test_irqbalance_that_leaves_the_cores_alone_is_no_trouble(machine):
    write(
        machine.root,
        {"proc/77/comm": "irqbalance\n", "etc/default/irqbalance": "IRQBALANCE_BANNED_CPULIST=2-3\n"},
    )
    assert [f[0] for f in found(machine, "irqbalance")] == [OK]


def test_rules_for_the_machine_itself_are_no_trouble(machine):
    machine.commands |= rules(FORWARD, INPUT, {"rule": RULE["rule"] | {"chain": "input"}})
    assert [f[0] for f in found(machine, "firewall")] == [OK]


def test_ixroutes_own_program_and_tap_are_no_trouble_while_it_runs(machine):
    machine.commands |= link(xdp={"mode": 1})
    machine.listening = True
    write(machine.root, {"sys/class/net/wan0/tun_flags": "0x1902\n"})
    assert not [f for f in examine(machine, PORTS) if f.level != OK]


def test_without_ports_the_doctor_looks_at_new_interfaces(machine):
    write(machine.root, {"proc/sys/net/ipv4/conf/default/forwarding": "0\n"})
    assert found(machine, "ports", Config())[0][0] == NOTE
    assert found(machine, "ipv4 forwarding", Config())[0][:2] == (
        FAIL,
        "off for new interfaces: IPv4 packets are not forwarded",
    )


@pytest.mark.parametrize(
    "check", CHECKS, ids=lambda check: f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
)
def test_each_check_copes_with_a_machine_that_tells_nothing(tmp_path, check):
    blind = Made(root=tmp_path, socket_errno=errno.EPERM, tun_errno=errno.EACCES, memlock=0)
    for config in (Config(), PORTS):
        for finding in check(blind, config):
            assert finding.level in LEVELS
            assert finding.text
            assert "\n" not in finding.text + finding.fix


@pytest.mark.parametrize(
    "junk", ["", "junk", "[]", "{}", "[3]", '{"nftables": 3}', "null", '[{"ifname": "eth1"}]']
)
def test_commands_that_answer_junk_are_coped_with(machine, junk):
    machine.commands = dict.fromkeys(machine.commands, junk)
    assert list(examine(machine, PORTS))


def arguments(*ports, config=None):
    return argparse.Namespace(config=config, port=list(ports), workers=None)


def test_a_faulty_file_is_a_finding_and_the_rest_is_still_looked_at(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("[memry]\n")
    config, findings = command.configuration(arguments("wan0=af_xdp:eth1", config=path))
    assert [port.name for port in config.ports] == ["wan0"]
    [finding] = findings
    assert finding.level == FAIL
    assert f"{path}:1: memry" in finding.text


def test_no_file_is_a_note(tmp_path):
    _, [finding] = command.configuration(arguments(), tmp_path / "none.toml")
    assert finding.level == NOTE


def test_the_table_has_a_line_for_each_and_the_fix_below():
    findings = [
        Finding("a", OK, "fine"),
        Finding("long name", FAIL, "broken", "mend it"),
        Finding("b", WARN, "slow"),
    ]
    assert command.render(findings, Style()) == [
        "OK    a          fine",
        "FAIL  long name  broken",
        "                 -> mend it",
        "WARN  b          slow",
        "",
        "ixroute would not run, or not route: mend what is marked FAIL",
    ]


def test_the_real_machine_can_be_examined_and_the_exit_code_is_that_of_its_findings(capsys):
    code = main(["doctor", "-j", "--port", "wan0=af_xdp:no-such-if"])
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == 1
    assert "no interface no-such-if" in str(report)
    assert code == 1
    assert main(["doctor", "--port", "wan0"]) == 2
