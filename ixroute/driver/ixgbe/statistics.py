"""The card's counters (datasheet 8.2.3.23): reading clears them, so one reader sums them in 64 bits.

They stop at their largest value: 32-bit packet counters fill in 4 min 48 s at 10 Gbit/s, so collect() is to be called
more often than that.
"""

from __future__ import annotations

from ixroute.driver.ixgbe.card import Card

_SINGLE = {
    "rx_packets_mac": "GPRC",
    "rx_broadcast": "BPRC",
    "rx_multicast": "MPRC",
    "rx_total_packets": "TPR",
    "tx_packets_mac": "GPTC",
    "tx_broadcast": "BPTC",
    "tx_multicast": "MPTC",
    "tx_total_packets": "TPT",
    "rx_crc_errors": "CRCERRS",
    "rx_illegal_byte_errors": "ILLERRC",
    "rx_byte_errors": "ERRBC",
    "rx_short_discards": "MSPDC",
    "rx_length_errors": "RLEC",
    "rx_undersize": "RUC",
    "rx_fragments": "RFC",
    "rx_oversize": "ROC",
    "rx_jabber": "RJC",
    "rx_l3_l4_errors": "XEC",
    "mac_local_faults": "MLFC",
    "mac_remote_faults": "MRFC",
    "rx_size_64": "PRC64",
    "rx_size_65_127": "PRC127",
    "rx_size_128_255": "PRC255",
    "rx_size_256_511": "PRC511",
    "rx_size_512_1023": "PRC1023",
    "rx_size_1024_max": "PRC1522",
    "tx_size_64": "PTC64",
    "tx_size_65_127": "PTC127",
    "tx_size_128_255": "PTC255",
    "tx_size_256_511": "PTC511",
    "tx_size_512_1023": "PTC1023",
    "tx_size_1024_max": "PTC1522",
    "rx_pause_xon": "LXONRXCNT",
    "rx_pause_xoff": "LXOFFRXCNT",
    "tx_pause_xon": "LXONTXC",
    "tx_pause_xoff": "LXOFFTXC",
    "rx_management": "MNGPRC",
    "rx_management_dropped": "MNGPDC",
    "tx_management": "MNGPTC",
}
_WIDE = {  # bytes, 36 bits: the low register must be read first
    "rx_bytes_mac": ("GORCL", "GORCH"),
    "rx_total_bytes": ("TORL", "TORH"),
    "tx_bytes_mac": ("GOTCL", "GOTCH"),
}
_COUNTERS = 16  # sets of per-queue counters
_MAPS = ("MAP0", "MAP1", "MAP2", "MAP3")


def set_up(card: Card) -> None:
    """4.6.5 Initialization of statistics: queue q counts in set q mod 16, and all start at 0."""
    for registers in (card.nic.RQSMR, card.nic.TQSM):
        for i, register in enumerate(registers):
            register.write(**{name: (4 * i + j) % _COUNTERS for j, name in enumerate(_MAPS)})
    Statistics(card, _COUNTERS).collect()


class Statistics:
    """The sums since it was made.

    Per queue (rx_queue_3_packets, …) only while there are no more than 16: beyond, queues share counters.
    rx_missed: packets that were lost for want of room, in the card's buffer (MPC) or in a queue's ring (QPRDC).
    """

    def __init__(self, card: Card, queues: int) -> None:
        self._card = card
        self._sets = min(queues, _COUNTERS)
        self._per_queue = queues <= _COUNTERS
        names = [*_SINGLE, *_WIDE, "rx_no_buffer", "rx_no_descriptor", "rx_missed"]
        if self._per_queue:
            for q in range(self._sets):
                names += [f"rx_queue_{q}_{what}" for what in ("packets", "bytes", "dropped")]
                names += [f"tx_queue_{q}_{what}" for what in ("packets", "bytes")]
        self._sums: dict[str, int] = dict.fromkeys(names, 0)

    def collect(self) -> None:
        """Reads, and so clears, every counter."""
        nic = self._card.nic
        add = self._add
        for name, register in _SINGLE.items():
            add(name, getattr(nic, register).read())
        for name, (low, high) in _WIDE.items():
            first = getattr(nic, low).read()
            add(name, (getattr(nic, high).read() & 0xF) << 32 | first)
        add("rx_no_buffer", sum(register.read() for register in nic.MPC))
        for q in range(self._sets):
            self._collect_queue(q)
        self._sums["rx_missed"] = self._sums["rx_no_buffer"] + self._sums["rx_no_descriptor"]

    def _collect_queue(self, q: int) -> None:
        nic = self._card.nic
        rx_packets = nic.QPRC[q].read()
        rx_bytes = nic.QBRC_L[q].read()
        rx_bytes |= (nic.QBRC_H[q].read() & 0xF) << 32
        dropped = nic.QPRDC[q].read()
        tx_packets = nic.QPTC[q].read()
        tx_bytes = nic.QBTC_L[q].read()
        tx_bytes |= (nic.QBTC_H[q].read() & 0xF) << 32
        self._add("rx_no_descriptor", dropped)
        if self._per_queue:
            self._add(f"rx_queue_{q}_packets", rx_packets)
            self._add(f"rx_queue_{q}_bytes", rx_bytes)
            self._add(f"rx_queue_{q}_dropped", dropped)
            self._add(f"tx_queue_{q}_packets", tx_packets)
            self._add(f"tx_queue_{q}_bytes", tx_bytes)

    def _add(self, name: str, value: int) -> None:
        self._sums[name] += value

    def read(self) -> dict[str, int]:
        """The sums as of the last collect()."""
        return dict(self._sums)
