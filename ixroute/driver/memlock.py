"""RLIMIT_MEMLOCK: how much memory a process may keep in place, as devices need it."""

from __future__ import annotations

import resource


def raise_memlock() -> None:
    """As far as we may: kernels before 5.11 charge BPF maps to it, all charge what AF_XDP and VFIO pin without
    CAP_IPC_LOCK."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def memlock_text() -> str:
    """The limit, in words."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return "unlimited" if soft == resource.RLIM_INFINITY else f"{soft >> 10} KiB"
