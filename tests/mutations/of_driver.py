"""Wrong behaviours of the driver."""

from __future__ import annotations

from mutations import Mutation

DRIVER = tuple(
    Mutation(name, sheet, f"driver/{file}", old, new)
    for name, sheet, file, old, new in (
        (
            "driver-one-queue",
            "every live queue is in the redirection table",
            "ixgbe/rss.py",
            "return [live[i % len(live)] for i in range(entries)]",
            "return [live[0] for i in range(entries)]",
        ),
        (
            "driver-key-not-symmetric",
            "both directions of a flow meet on one queue",
            "ixgbe/rss.py",
            "SYMMETRIC_KEY = bytes((0x6D, 0x5A)) * 20",
            "SYMMETRIC_KEY = bytes(range(1, 41))",
        ),
        (
            "driver-no-drop",
            "a queue without descriptors does not stop the others",
            "ixgbe/receive.py",
            "DESCTYPE=_ADVANCED_ONE_BUFFER, DROP_EN=1)",
            "DESCTYPE=_ADVANCED_ONE_BUFFER, DROP_EN=0)",
        ),
        (
            "driver-no-jumbo",
            "MTUs above 1500 are received",
            "ixgbe/receive.py",
            "JUMBOEN=int(limit > SHORTEST_LIMIT)",
            "JUMBOEN=0",
        ),
        (
            "driver-limit-without-crc",
            "a packet of the MTU is received, with header, two tags and frame check sequence",
            "ixgbe/receive.py",
            "mtu + 14 + _TWO_TAGS + FCS)",
            "mtu + 14 + _TWO_TAGS)",
        ),
        (
            "driver-mac-not-valid",
            "packets to the new address are received",
            "ixgbe/reset.py",
            'card.nic.RAH[0].write(RAH=int.from_bytes(mac[4:], "little"), AV=1)',
            'card.nic.RAH[0].write(RAH=int.from_bytes(mac[4:], "little"), AV=0)',
        ),
        (
            "driver-never-promiscuous",
            "promiscuous receives what is sent to others",
            "ixgbe/filters.py",
            "UPE=int(promiscuous)",
            "UPE=0",
        ),
        (
            "driver-vectors-mixed-up",
            "queue q has vector q",
            "ixgbe/interrupts.py",
            "set_vector(card, q, vector)",
            "set_vector(card, q, queues - 1 - vector)",
        ),
        (
            "driver-no-auto-mask",
            "a vector masks itself when it fires",
            "ixgbe/interrupts.py",
            "register.write(_mask(queues, word))",
            "register.write(0 * _mask(queues, word))",
        ),
        (
            "driver-link-not-asked-for",
            "a change of the link is an event",
            "ixgbe/interrupts.py",
            "nic.EIMS.write(LSC=1, ECC=1)",
            "nic.EIMS.write(LSC=0, ECC=1)",
        ),
        (
            "driver-drops-not-counted",
            "packets without a descriptor count as missed",
            "ixgbe/statistics.py",
            'self._add("rx_no_descriptor", dropped)',
            'self._add("rx_no_descriptor", 0 * dropped)',
        ),
        (
            "driver-bytes-of-32-bits",
            "bytes are counted in 64 bits",
            "ixgbe/statistics.py",
            "(getattr(nic, high).read() & 0xF) << 32 | first",
            "(getattr(nic, high).read() & 0) << 32 | first",
        ),
        (
            "driver-ring-goes-on-after-reset",
            "after a reset both rings start at 0",
            "ixgbe/port.py",
            "rings.unpark(reset=True)",
            "rings.unpark(reset=False)",
        ),
        (
            "driver-master-after-close",
            "a closed card cannot reach memory",
            "ixgbe/port.py",
            "reset.bus_master(self._transport.config, False)",
            "reset.bus_master(self._transport.config, True)",
        ),
        (
            "driver-gives-all-descriptors",
            "a full ring has one descriptor that is not the card's",
            "ixgbe/ring.c",
            "room = ring->rx_mask - (before - ring->rx_next), n, put;",
            "room = ring->rx_mask + 1 - (before - ring->rx_next), n, put;",
        ),
        (
            "driver-no-report",
            "the last packet of every burst asks for a report",
            "ixgbe/ring.c",
            "\tring->tx[last & ring->tx_mask].high |= TX_REPORT;\n",
            "\t(void)last;\n",
        ),
        (
            "driver-trusts-the-head",
            "no frame comes back that the card was not given",
            "ixgbe/ring.c",
            "return n <= rung - sent ? sent + n : sent;",
            "return rung == sent ? sent : sent + n;",
        ),
        (
            "driver-trusts-udp-errors",
            "specification update: errors in UDP checksums say nothing",
            "ixgbe/ring.c",
            "else if (high & RX_L4_CHECKED && !udp)",
            "else if (high & RX_L4_CHECKED && (udp || !udp))",
        ),
        (
            "driver-sleeps-without-looking",
            "arm says how many packets are there already",
            "ixgbe/ring_life.c",
            "\treturn rx_there(ring);\n",
            "\treturn rx_there(ring) & 0;\n",
        ),
        (
            "driver-sleeps-masked",
            "arm unmasks the vector",
            "ixgbe/ring_life.c",
            "ring->listening = doorbell_ring(ring->unmask, ring->vector_bit) == 0;",
            "ring->listening = doorbell_ring(ring->unmask, 0) == 0;",
        ),
        (
            "driver-wakes-nobody",
            "a doorbell wakes a card that sleeps",
            "doorbell.c",
            "if (!atomic_load_explicit(bell->asleep, memory_order_relaxed))",
            "if (!atomic_load_explicit(bell->asleep, memory_order_relaxed) || bell->asleep)",
        ),
    )
)
