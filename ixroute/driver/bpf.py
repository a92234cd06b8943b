"""The bpf(2) that an AF_XDP port needs: one map, one program of seven instructions, one link. linux/bpf.h,
5.9."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}

# enum bpf_cmd, bpf_map_type, bpf_prog_type, bpf_attach_type, bpf_func_id
_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD, _LINK_CREATE = 0, 2, 5, 28
_MAP_TYPE_XSKMAP = 17
_PROG_TYPE_XDP = 6
_ATTACH_XDP = 37
_FUNC_REDIRECT_MAP = 51
_PSEUDO_MAP_FD = 1
_XDP_DROP = 1
_XDP_MD_RX_QUEUE_INDEX = 16  # offsetof(struct xdp_md, rx_queue_index)

# linux/if_link.h
FLAG_GENERIC = 1 << 1  # XDP_FLAGS_SKB_MODE
FLAG_NATIVE = 1 << 2  # XDP_FLAGS_DRV_MODE

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2): its result, or OSError. `attributes` is the part of union bpf_attr that command reads."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {platform.machine()}")
    attr = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(
        _libc.syscall(ctypes.c_long(number), ctypes.c_long(command), attr, ctypes.c_long(len(attributes)))
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """struct bpf_insn."""
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def redirect_program(map_fd: int) -> bytes:
    """Every packet to the socket of the queue it came by; to nobody when that queue has none.

    Never XDP_PASS: the kernel must not see, and then route once more, what the router takes.
    """
    return b"".join(
        (
            _insn(0x61, dst=2, src=1, off=_XDP_MD_RX_QUEUE_INDEX),  # r2 = ctx->rx_queue_index
            _insn(0x18, dst=1, src=_PSEUDO_MAP_FD, imm=map_fd),  # r1 = map: two instructions wide
            _insn(0),
            _insn(0xB7, dst=3, imm=_XDP_DROP),  # r3 = what to return if map[r2] is empty
            _insn(0x85, imm=_FUNC_REDIRECT_MAP),  # r0 = bpf_redirect_map(r1, r2, r3)
            _insn(0x95),  # return r0
        )
    )


class XdpRedirect:
    """The program and its map of sockets. Closing detaches, and so does the end of the process, however it
    ends: the link is a file descriptor."""

    def __init__(self, queues: int) -> None:
        """For queue numbers below `queues`. OSError: EPERM without CAP_BPF and CAP_NET_ADMIN."""
        with contextlib.ExitStack() as undo:
            # map_type, key_size, value_size, max_entries
            self._map = _bpf(_MAP_CREATE, struct.pack("=IIII", _MAP_TYPE_XSKMAP, 4, 4, queues))
            undo.callback(os.close, self._map)
            self._program = self._load(redirect_program(self._map))
            undo.callback(os.close, self._program)
            self._undo = undo.pop_all()

    @staticmethod
    def _load(program: bytes) -> int:
        code = ctypes.create_string_buffer(program, len(program))
        licence = ctypes.create_string_buffer(b"MIT")
        # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags,
        # prog_name
        return _bpf(
            _PROG_LOAD,
            struct.pack(
                "=IIQQIIQII16s",
                _PROG_TYPE_XDP,
                len(program) // 8,
                ctypes.addressof(code),
                ctypes.addressof(licence),
                *(0, 0, 0, 0, 0),
                b"ixroute",
            ),
        )

    def attach(self, ifindex: int, flags: int) -> None:
        """FLAG_NATIVE or FLAG_GENERIC. OSError as from BPF_LINK_CREATE; EBUSY, EEXIST: another one is
        there."""
        # prog_fd, target_ifindex, attach_type, flags
        link = _bpf(_LINK_CREATE, struct.pack("=IIII", self._program, ifindex, _ATTACH_XDP, flags))
        self._undo.callback(os.close, link)

    def set_socket(self, queue: int, fd: int) -> None:
        """Packets of this queue go to this AF_XDP socket from now on."""
        key = ctypes.create_string_buffer(struct.pack("=I", queue), 4)
        value = ctypes.create_string_buffer(struct.pack("=I", fd), 4)
        # map_fd, (padding), key, value, flags
        _bpf(
            _MAP_UPDATE_ELEM,
            struct.pack("=I4xQQQ", self._map, ctypes.addressof(key), ctypes.addressof(value), 0),
        )

    def close(self) -> None:
        """Detaches, first of all; idempotent."""
        self._undo.close()
