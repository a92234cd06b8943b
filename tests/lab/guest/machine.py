"""One boot of the guest: QEMU with its devices, one scenario in it, what it found.

Emulated by QEMU itself (TCG): no privilege, no KVM, the same everywhere. A boot takes two to ten seconds, and a
program in it runs some thirty times slower than on the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.guest import initramfs
from lab.guest.packages import Packages

TOP = Path(__file__).resolve().parents[3]
TIMER_PANIC = "timer doesn't work through Interrupt-remapped IO-APIC"
"""A kernel under TCG on a loaded host checks its timer and may find it slow. Nothing of ours: boot again, once."""

# What the kernel prints when something is wrong with itself, and what when something is wrong with a card.
ALARM = re.compile(r"WARNING:|BUG:|Oops|Call Trace|Kernel panic|UBSAN|blocked for more than|DMAR:.*[Ff]ault")
ABOUT_A_CARD = re.compile(r"\bixgbe\b|\bvfio|\bDMAR\b|\beth\d|0000:0[1-9]:00\.\d")
COMPLAINT = re.compile(
    r"[Ww]arning|[Ee]rror|[Ff]ail|timed out|not valid|[Ii]nvalid|[Uu]nsupported|[Uu]nable|Hang|Reset adapter|[Bb]ad "
    r"|pre-production|not supported|can't|cannot|not enough|unexpected|No compatible"
)
HARMLESS = re.compile(
    r"AER: (enabled|disabled)|error recovery|DMAR: (IOMMU|Host|DRHD|No ATSR|dmar)|BAR \d.*: (can't assign; no space"
    r"|failed to assign)|bridge window .*(can't|failed)"
)


@dataclass(frozen=True)
class Emulated:
    """A card that a vfio-user server serves at this socket."""

    socket: Path | str


@dataclass(frozen=True)
class Model:
    """A card of QEMU's own: "igb", "e1000e". All of them are plugged into one hub."""

    name: str


Device = Emulated | Model


@dataclass
class Result:
    ok: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    """What the scenario ended with; None when it did not end."""
    log: str = ""
    """The console: kernel messages and the scenario's output."""
    seconds: float = 0.0

    def kernel(self, pattern: str = "") -> list[str]:
        """Lines of the kernel log that match."""
        lines = re.findall(r"^\[ *\d+\.\d+\] .*$", self.log, re.MULTILINE)
        return [line.strip() for line in lines if re.search(pattern, line)]

    def complaints(self) -> list[str]:
        return [
            line
            for line in self.kernel()
            if ALARM.search(line)
            or (ABOUT_A_CARD.search(line) and COMPLAINT.search(line) and not HARMLESS.search(line))
        ]

    def check(self) -> None:
        """Fails with what did not hold, and the log."""
        if self.failed or self.status != 0:
            wrong = "\n".join(f"  {name}: {text}" for name, text in self.failed.items())
            end = "did not end" if self.status is None else f"ended with {self.status}"
            raise AssertionError(
                f"the scenario {end} after {self.seconds:.0f} s\n{wrong}\n{self.log[-12000:]}"
            )


class Guest:
    """scenario: a file of tests/guest/scenarios. A .sh runs in Debian's tree with busybox; a .py runs with this
    Python in the host's own files, which the guest sees read-only.

    devices: each behind a root port of its own, at 0000:01:00.0, 0000:02:00.0, …
    modules: loaded before the scenario. iommu: Intel's, emulated, in use (needed for vfio-pci).
    """

    def __init__(
        self,
        packages: Packages,
        scenario: str,
        *,
        devices: Sequence[Device] = (),
        modules: Sequence[str] = (),
        arguments: Sequence[str] = (),
        iommu: bool = False,
        vcpus: int = 2,
        megabytes: int = 768,
        hugepages: int = 0,
    ) -> None:
        self.packages = packages
        self.scenario = Path("tests/guest/scenarios") / scenario
        self.devices = devices
        self.modules = ["9p", "9pnet_virtio", *modules]
        self.arguments = arguments
        self.iommu = iommu
        self.vcpus = vcpus
        self.megabytes = megabytes
        self.hugepages = hugepages

    def run(self, timeout: float = 90.0) -> Result:
        """Boots, waits for the scenario's end (timeout: seconds; QEMU is killed then), returns what was said."""
        with tempfile.TemporaryDirectory(prefix="ixroute-guest-") as folder:
            result = self._boot(Path(folder), timeout)
            if result.status is None and TIMER_PANIC in result.log:
                result = self._boot(Path(folder), timeout)
        return result

    def _boot(self, folder: Path, timeout: float) -> Result:
        (folder / "initrd").write_bytes(self._initrd())
        console, results, errors = (folder / name for name in ("console", "results", "errors"))
        for path in (console, results):
            path.write_bytes(b"")
        began = time.monotonic()
        with open(errors, "wb") as stderr:
            process = subprocess.Popen(
                self._command(folder), stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, cwd=folder
            )
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout)
            finally:
                process.kill()
                process.wait()
        log = console.read_text(errors="replace").replace("\r", "")
        if said := errors.read_text(errors="replace").strip():
            log += f"\nQEMU: {said}\n"
        result = Result(log=log, seconds=time.monotonic() - began)
        _parse(results.read_text(errors="replace"), result)
        return result

    def _initrd(self) -> bytes:
        python = self.scenario.suffix == ".py"
        settings = {
            "python": sys.executable if python else "",
            "repository": str(TOP),
            "scenario": str(self.scenario),
            "arguments": " ".join(self.arguments),
            **_package(),
        }
        script = None if python else (TOP / self.scenario).read_bytes()
        return initramfs.build(self.packages, self.modules, settings, script)

    def _command(self, folder: Path) -> list[str]:
        root = self.packages.root
        append = "console=ttyS0 panic=-1 loglevel=7 no_timer_check random.trust_cpu=on mitigations=off"
        machine = "q35,memory-backend=mem"
        argv = [
            *self.packages.program("usr/bin/qemu-system-x86_64"),
            *(word for path in ("qemu", "seabios") for word in ("-L", str(root / "usr/share" / path))),
            *("-L", str(root / "usr/lib/ipxe/qemu")),
            *(
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                str(self.vcpus),
                "-m",
                str(self.megabytes),
            ),
            # A card in another process reaches the guest's memory by this file.
            *("-object", f"memory-backend-memfd,id=mem,size={self.megabytes}M,share=on"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-serial", f"file:{folder}/console", "-serial", f"file:{folder}/results"),
            *("-kernel", str(self.packages.kernel), "-initrd", str(folder / "initrd")),
        ]
        if self.iommu:
            machine += ",kernel-irqchip=split"
            append += " intel_iommu=on iommu=nopt"
            # caching-mode: the emulated IOMMU must tell the card's process what is mapped. Before all devices.
            argv += ["-device", "intel-iommu,intremap=on,caching-mode=on"]
        if self.hugepages:
            append += f" hugepages={self.hugepages}"
        for number, device in enumerate(self.devices, 1):
            argv += ["-device", f"pcie-root-port,id=rp{number},chassis={number},slot={number}"]
            argv += _device(device, number)
        tag, path = ("host", Path("/")) if self.scenario.suffix == ".py" else ("root", root)
        argv += [
            "-virtfs",
            f"local,path={path},mount_tag={tag},security_model=none,readonly=on,multidevs=remap",
        ]
        return [*argv, "-machine", machine, "-append", append]


def _device(device: Device, number: int) -> list[str]:
    if isinstance(device, Model):
        mac = f"52:54:00:00:00:{number:02x}"
        return [
            *("-netdev", f"hubport,id=hub{number},hubid=0"),
            *("-device", f"{device.name},bus=rp{number},netdev=hub{number},mac={mac}"),
        ]
    address = {"type": "unix", "path": os.path.abspath(device.socket)}
    return ["-device", json.dumps({"driver": "vfio-user-pci", "bus": f"rp{number}", "socket": address})]


def _package() -> dict[str, str]:
    """Where the package under test lies. One that is installed editable finds its own parts by running the build,
    which cannot be done inside: the guest puts them together."""
    import ixroute
    import ixroute._dataplane

    extension = Path(ixroute._dataplane.__file__).resolve()
    package = Path(ixroute.__file__).resolve().parent
    return {
        "package": str(package),
        "extension": str(extension),
        "build": str(extension.parent.parent),
    }


def _parse(text: str, result: Result) -> None:
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        name, _, said = rest.partition(" ")
        if kind == "ok":
            result.ok.append(name)
        elif kind == "fail":
            result.failed[name.rstrip(":")] = said
        elif kind == "value":
            result.values[name] = said
        elif kind == "end":
            result.status = int(name)
