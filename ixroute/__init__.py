"""ixroute: a userspace router whose control plane is the Linux kernel."""

__version__ = "0.1.0"
