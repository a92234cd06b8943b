"""QEMU, a Debian kernel and a few tools, from Debian's packages, without root and without installing anything.

The host's QEMU is seldom new enough (vfio-user-pci came with 10.1) and its kernel is not ours to boot, so both are
fetched by the apt client into a cache folder, its state kept private, signatures checked as apt always does. What
the guest needs of them is kept: one tree (`root`) that is also the guest's root for scenarios that need no Python,
the kernel, and a handful of its modules with the order to load them in.

    PYTHONPATH=tests python -m lab.guest.packages      # fetches if needed, says what there is
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"
NEWER = "trixie-backports"  # what the suites below do not have: QEMU >= 10.1
PACKAGES = ("qemu-system-x86", "busybox-static", "ethtool", "iproute2", "iputils-ping")
# Of what testpmd depends on, most is for other cards, or to compile with.
DPDK = "dpdk-dev"
DPDK_LIBRARIES = re.compile(
    r"librte-(?!meta)|lib(bsd|md)0$|lib(jansson|isal|ipsec-mb|xdp|pcap|fdt|dbus-1-|systemd)\d|ibverbs-providers$|dpdk-dev$"
)
KERNEL = "linux-image-amd64"  # a name that only says which image is current
PROGRAMS = (
    "usr/bin/qemu-system-x86_64",
    "usr/bin/busybox",
    "usr/bin/ip",
    "usr/bin/ping",
    "usr/sbin/ethtool",
    "usr/bin/dpdk-testpmd",
)
# Loaded by name at run time, so that no list of libraries shows them.
PLUGINS = tuple(
    f"usr/lib/x86_64-linux-gnu/dpdk/pmds-*/librte_{name}.so.*"
    for name in ("bus_pci", "bus_vdev", "mempool_ring", "net_ixgbe", "net_e1000")
)
DATA = ("usr/share/qemu/*.bin", "usr/share/qemu/*.rom", "usr/share/seabios", "usr/lib/ipxe/qemu")
MODULES = (
    "ixgbe",
    "igb",
    "e1000e",
    "vfio-pci",
    "vfio_iommu_type1",
    "9p",
    "9pnet_virtio",
    "8021q",
    "tun",
    "veth",
    "vrf",
    "bonding",
    "macvlan",
    "dummy",
    "bridge",
)
RECIPE = 8  # of this file: another number makes a new folder
KEEP_DAYS = 30
PATIENCE = 900.0  # seconds for another process to fetch, and for apt


class UnavailableError(Exception):
    """The packages cannot be had here; the reason, and what would help."""


@dataclass(frozen=True)
class Packages:
    """What was fetched. `root` is a tree with usr/, and the links and empty folders that make it a root."""

    folder: Path
    root: Path
    kernel: Path
    modules: Path
    order: dict[str, list[str]]
    """For each module of MODULES: the files (names without .ko) to load before it and itself, in order."""
    versions: dict[str, str]

    def program(self, path: str) -> list[str]:
        """argv to run a program of the tree on the host: by the tree's own loader, with the tree's libraries."""
        return [
            str(self.root / "usr/lib64/ld-linux-x86-64.so.2"),
            "--library-path",
            str(self.root / "usr/lib/x86_64-linux-gnu"),
            str(self.root / path),
        ]


def cache_folder() -> Path:
    if given := os.environ.get("IXROUTE_CACHE"):
        return Path(given) / "guest"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "ixroute" / "guest"


def obtain() -> Packages:
    """From the cache, or fetched into it (about 170 MB). Raises UnavailableError."""
    cache = cache_folder()
    if found := _cached(cache):
        return found
    _check_host()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "lock"):
            if found := _cached(cache):  # by the process that was waited for
                return found
            _fetch(cache)
            _forget_old(cache)
    except OSError as error:
        raise UnavailableError(f"{error} (IXROUTE_CACHE names another folder)") from error
    found = _cached(cache)
    assert found
    return found


def _digest() -> str:
    words = repr((RECIPE, MIRROR, NEWER, PACKAGES, KERNEL, PROGRAMS, PLUGINS, DATA, MODULES))
    return hashlib.sha256(words.encode()).hexdigest()[:10]


def _cached(cache: Path) -> Packages | None:
    for folder in sorted(cache.glob(f"qemu-*-{_digest()}")):
        with contextlib.suppress(OSError, ValueError):
            about = json.loads((folder / "about.json").read_text())
            os.utime(folder)  # so that it is known to be in use
            return Packages(
                folder,
                folder / "root",
                folder / "vmlinuz",
                folder / "modules",
                about["order"],
                about["versions"],
            )
    return None


def _check_host() -> None:
    if platform.machine() != "x86_64":
        raise UnavailableError(f"the guest is x86-64 and so must be the host; this is {platform.machine()}")
    missing = [name for name in ("apt-get", "apt-cache", "dpkg-deb") if not shutil.which(name)]
    if missing:
        raise UnavailableError(f"needs Debian's package tools: {', '.join(missing)} not found")
    if not KEYRING.exists():
        raise UnavailableError(f"needs {KEYRING}: apt install debian-archive-keyring")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w", encoding="ascii") as file:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise UnavailableError(f"another process has held {path} for {PATIENCE:g} s") from error
                time.sleep(0.2)
        yield


# ---- fetching


class _Apt:
    """The apt client with lists, cache and sources of its own, in `folder`. What was downloaded stays there until
    the whole is done, so that a broken transfer goes on where it ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state/lists/partial", "cache/archives/partial", "empty"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        source = f"deb [signed-by={KEYRING} arch=amd64] {MIRROR}"
        (folder / "sources.list").write_text(f"{source} trixie main\n{source} {NEWER} main\n")
        (folder / "apt.conf").write_text(self._settings())

    def _settings(self) -> str:
        """Of the host's settings only how to reach a mirror (proxies, checks of dates); hooks least of all."""
        host = self._text(["apt-config", "dump"], {})
        reach = [
            line
            for line in host.splitlines()
            if re.match(r"Acquire::(https?|Retries|Check-|ForceIPv|Queue)", line)
        ]
        there, nothing = self.folder, self.folder / "empty"
        own = {
            "Dir::State": there / "state",
            "Dir::State::status": there / "status",
            "Dir::Cache": there / "cache",
            "Dir::Etc::sourcelist": there / "sources.list",
            "Dir::Etc::sourceparts": nothing,
            "Dir::Etc::main": nothing / "none",
            "Dir::Etc::parts": nothing,
            "Dir::Etc::preferences": nothing / "none",
            "Dir::Etc::preferencesparts": nothing,
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "",
            "APT::Install-Recommends": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
        }
        return "\n".join([*reach, *(f'{key} "{value}";' for key, value in own.items()), ""])

    def _text(self, argv: list[str], environment: dict[str, str], cwd: Path | None = None) -> str:
        try:
            done = subprocess.run(
                argv,
                env=os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"} | environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"{' '.join(argv[:2])} took more than {PATIENCE:g} s") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-400:]
            raise UnavailableError(f"{' '.join(argv[:2])} failed: {said}")
        return done.stdout

    def __call__(self, *words: str, cwd: Path | None = None) -> str:
        return self._text(list(words), {"APT_CONFIG": str(self.folder / "apt.conf")}, cwd)

    def download(self) -> list[Path]:
        """Every package's file: PACKAGES with all they need, testpmd with some of it, and the kernel alone."""
        self("apt-get", "update", "-q", "--error-on=any")
        self("apt-get", "install", "-y", "-q", "--download-only", "-t", NEWER, *PACKAGES)
        closure = self("apt-get", "install", "-s", "-q", DPDK)
        names = [
            name for name in re.findall(r"^Inst (\S+)", closure, re.MULTILINE) if DPDK_LIBRARIES.match(name)
        ]
        image = re.search(r"linux-image-[\w.+-]+", self("apt-cache", "depends", KERNEL).partition("\n")[2])
        if not image:
            raise UnavailableError(f"{KERNEL} names no kernel image")
        archives = self.folder / "cache/archives"
        self("apt-get", "download", "-q", image[0], *names, cwd=archives)
        return sorted(archives.glob("*.deb"))


def _fetch(cache: Path) -> None:
    apt = _Apt(cache / "apt")
    debs = apt.download()
    part = cache / "part"
    shutil.rmtree(part, ignore_errors=True)
    unpacked = part / "all"
    unpacked.mkdir(parents=True)
    versions: dict[str, str] = {}
    for deb in debs:
        apt("dpkg-deb", "-x", str(deb), str(unpacked))
        name, version, _ = urllib.parse.unquote(deb.name).split("_")
        versions[name] = version
    _make_root(unpacked, part / "root")
    order = _take_kernel(unpacked, part)
    shutil.rmtree(unpacked)
    (part / "about.json").write_text(json.dumps({"versions": versions, "order": order}, indent=1))
    qemu = re.sub(r"^\d+:|[+~].*", "", versions["qemu-system-x86"])
    kernel = next(version for name, version in versions.items() if name.startswith("linux-image"))
    final = cache / f"qemu-{qemu}-linux-{kernel}-{_digest()}"
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    shutil.rmtree(cache / "apt")


def _make_root(unpacked: Path, root: Path) -> None:
    """Moves what is needed: the programs, what they link to, and QEMU's data."""
    libraries = unpacked / "usr/lib/x86_64-linux-gnu"
    loader = unpacked / "usr/lib64/ld-linux-x86-64.so.2"
    plugins = [path for pattern in PLUGINS for path in unpacked.glob(pattern)]
    wanted = {loader}
    for path in [*(unpacked / program for program in PROGRAMS), *plugins]:
        wanted.add(path)
        done = subprocess.run(
            [loader, "--library-path", libraries, "--list", path], capture_output=True, text=True, check=False
        )
        if "error while loading" in done.stderr:
            raise UnavailableError(f"{path.name} does not load: {done.stderr.strip()}")
        linked = [Path(found) for found in re.findall(r"=> (/\S+)", done.stdout)]
        if foreign := [str(found) for found in linked if unpacked not in found.parents]:
            raise UnavailableError(f"{path.name} would be linked to the host's {', '.join(foreign)}")
        wanted.update(linked)
    for pattern in DATA:
        wanted.update(path for path in unpacked.glob(pattern))
    for path in sorted(wanted):
        _copy(path, unpacked, root)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("usr/lib64", "usr/sbin", "proc", "sys", "dev", "tmp", "run", "etc", "mnt", "var"):
        (root / name).mkdir(exist_ok=True, parents=True)
    (root / "var/run").symlink_to("../run")


def _copy(path: Path, unpacked: Path, root: Path) -> None:
    """With what it links to, as links: a library that is there twice would be loaded twice."""
    target = root / path.relative_to(unpacked)
    if target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and not os.path.isabs(to := os.readlink(path)):
        target.symlink_to(to)
        _copy(Path(os.path.normpath(path.parent / to)), unpacked, root)
    elif path.is_dir():
        shutil.copytree(path, target)
    else:
        shutil.copy2(path, target)


def _take_kernel(unpacked: Path, part: Path) -> dict[str, list[str]]:
    """The image and the modules, decompressed; returns the order to load each of MODULES in."""
    kernel = next(unpacked.glob("boot/vmlinuz-*"))
    shutil.copy2(kernel, part / "vmlinuz")
    there = {
        path.name.partition(".ko")[0].replace("-", "_"): path
        for path in unpacked.glob("usr/lib/modules/**/*.ko*")
    }
    (part / "modules").mkdir()
    taken: dict[str, list[str]] = {}  # a module -> what must be there before it, itself last

    def take(name: str) -> list[str]:
        name = name.replace("-", "_")
        if name in taken or name not in there:  # built into the kernel
            return taken.get(name, [])
        data = there[name].read_bytes()
        if there[name].suffix == ".xz":
            data = lzma.decompress(data)
        (part / "modules" / f"{name}.ko").write_bytes(data)
        match = re.search(rb"\0depends=([^\0]*)\0", data)
        order: list[str] = []
        for needed in match[1].decode().split(",") if match and match[1] else []:
            order += [module for module in take(needed) if module not in order]
        taken[name] = [*order, name]
        return taken[name]

    return {name: take(name) for name in MODULES}


def _forget_old(cache: Path) -> None:
    """Folders of other recipes that nobody has used for a while."""
    for folder in cache.glob("qemu-*"):
        if time.time() - folder.stat().st_mtime > KEEP_DAYS * 86400:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    began = time.monotonic()
    try:
        packages = obtain()
    except UnavailableError as reason:
        print(f"guest tier: cannot run here: {reason}", file=sys.stderr)
        return 1
    kernel = next(version for name, version in packages.versions.items() if name.startswith("linux-image"))
    print(f"{packages.folder}: QEMU {packages.versions['qemu-system-x86']}, Linux {kernel}", end="")
    print(f" ({time.monotonic() - began:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
