"""The unit and the udev rules: by their own verifiers where the machine has them, and by reading."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ixroute.driver.ixgbe.ids import MODELS

EXTRA = Path(__file__).parents[3] / "extra"
UNIT = EXTRA / "systemd/ixroute.service"
RULES = EXTRA / "udev/70-ixroute.rules"
DOCS = Path(__file__).parents[3] / "docs"


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="NO systemd-analyze: the unit was not verified"
)
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    unit = tmp_path / "ixroute.service"
    unit.write_text(UNIT.read_text().replace("/opt/ixroute/bin/ixroute", shutil.which("true")))
    done = run("systemd-analyze", "verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def settings():
    found = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_gives_the_capabilities_that_are_needed_and_no_others():
    needed = {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_IPC_LOCK"}
    [ambient], [bounding] = settings()["AmbientCapabilities"], settings()["CapabilityBoundingSet"]
    assert set(ambient.split()) == set(bounding.split()) == needed


def test_the_unit_fits_the_daemon():
    found = settings()
    assert found["Type"] == ["notify"]
    assert found["RestartPreventExitStatus"] == ["2"]  # a faulty configuration
    assert found["RuntimeDirectory"] == ["ixroute"]  # /run/ixroute/ixroute.sock
    assert found["RuntimeDirectoryPreserve"] == ["yes"]  # the driver's notes outlive a crash
    assert "AF_XDP" in found["RestrictAddressFamilies"][0].split()
    assert "bpf" in found["SystemCallFilter"][0].split()
    for never in ("PrivateNetwork", "PrivateUsers", "PrivateDevices", "ProtectKernelTunables"):
        assert never not in found


MATCH = {"==", "!="}
ASSIGN = {"=", "+=", "-=", ":="}
KEYS = {
    # of udev(7): those that are only compared, only set, or both
    **dict.fromkeys(("ACTION", "KERNEL", "SUBSYSTEM", "TEST"), MATCH),
    **dict.fromkeys(("GROUP", "MODE", "OPTIONS", "LABEL", "GOTO", "RUN"), ASSIGN),
    "ATTR": MATCH | ASSIGN,
}


def rules():
    """[(key, attribute, operator, value), ...] of each line."""
    text = re.sub(r"\\\n", "", RULES.read_text())
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        tokens = []
        rest = line
        while rest:
            found = re.match(r'([A-Z]+)(?:\{([^}]*)\})?(==|!=|\+=|-=|:=|=)"([^"]*)"(?:,\s*|\s*$)', rest)
            assert found, f"cannot be read: {rest}"
            tokens.append(found.groups())
            rest = rest[found.end() :]
        yield tokens


def test_the_rules_are_well_formed():
    labels, gotos = [], []
    for tokens in rules():
        for key, _, operator, value in tokens:
            assert operator in KEYS[key], (key, operator)
            if key == "LABEL":
                labels.append(value)
            if key == "GOTO":
                assert value not in labels, "GOTO only goes forward"
                gotos.append(value)
    assert len(labels) == len(set(labels))
    assert set(gotos) == set(labels)


def verifier():
    done = run("udevadm", "verify", "--help") if shutil.which("udevadm") else None
    return done is not None and done.returncode == 0 and "verify" in done.stdout


@pytest.mark.skipif(
    not verifier(), reason="NO udevadm verify (systemd 254): the rules were read by this test only"
)
def test_udev_finds_nothing_wrong_with_the_rules():
    done = run("udevadm", "verify", "--resolve-names=never", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def outcome(device, opted_in):
    """What the rules do to a PCI device: the attributes they set. A slow reading of udev(7)."""
    written, skip_to = {}, None
    for tokens in rules():
        if skip_to is not None:
            if ("LABEL", None, "=", skip_to) not in tokens:
                continue
            skip_to = None
        for key, attribute, operator, value in tokens:
            if operator in MATCH:
                held = (
                    opted_in if key == "TEST" else device.get(f"{key}{{{attribute}}}" if attribute else key)
                )
                equal = held if key == "TEST" else held in value.split("|")
                if bool(equal) != (operator == "=="):
                    break
            elif key == "GOTO":
                skip_to = value
            elif key == "ATTR":
                written[attribute] = value
    return written


def card(device="0x10fb", vendor="0x8086", action="add"):
    return {
        "ACTION": action,
        "SUBSYSTEM": "pci",
        "KERNEL": "0000:01:00.0",
        "ATTR{vendor}": vendor,
        "ATTR{device}": device,
    }


@pytest.mark.parametrize("number", MODELS)
def test_a_named_card_that_the_driver_knows_gets_vfio(number):
    assert outcome(card(f"{number:#06x}"), opted_in=True) == {"driver_override": "vfio-pci"}


@pytest.mark.parametrize(
    ("device", "opted_in"),
    [
        (card(), False),
        (card(device="0x1572"), True),  # an X710
        (card(vendor="0x15b3"), True),
        (card(action="remove"), True),
        (card() | {"SUBSYSTEM": "net"}, True),
    ],
)
def test_any_other_device_is_left_alone(device, opted_in):
    assert outcome(device, opted_in) == {}


def test_the_opt_in_is_the_cards_own_file():
    assert ("TEST", None, "!=", "/etc/ixroute/vfio/%k") in [token for tokens in rules() for token in tokens]


@pytest.mark.parametrize("path", [UNIT, RULES, EXTRA / "ixroute.toml"])
def test_every_file_is_named_where_installing_is_explained(path):
    assert str(path.relative_to(EXTRA.parent)) in (DOCS / "operations.md").read_text()
