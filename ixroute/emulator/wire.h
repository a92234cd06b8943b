/* A wire: what an emulated card's port is plugged into. Whole Ethernet frames without FCS, at least 60 bytes on their
 * way to a card (a wire pads what is shorter), no offloads: checksums are there and nothing is larger than a frame.
 * Called by the engine's thread only. Never blocks.
 */
#ifndef IXROUTE_EMULATOR_WIRE_H
#define IXROUTE_EMULATOR_WIRE_H

#include <stdint.h>

#define WIRE_BURST 64u
#define WIRE_SHORTEST 60u   /* bytes of a frame without its FCS */
#define WIRE_LONGEST 15868u /* 82599 datasheet, jumbo frames: 15.5 KiB with the FCS */

struct wire_packet {
	const uint8_t *data;
	uint32_t len;
};

struct wire;

struct wire_ops {
	/* Up to n (<= WIRE_BURST) packets that arrived. Their bytes are valid until the next call of receive. */
	unsigned (*receive)(struct wire *wire, struct wire_packet *packets, unsigned n);
	/* Takes the first k packets, copies what it must keep, returns k. What is not taken is offered again later: a wire
	 * that is full for the moment. A wire that nobody listens to takes and drops. */
	unsigned (*send)(struct wire *wire, const struct wire_packet *packets, unsigned n);
	/* About to sleep on wait_fd: returns not 0 when receive would give something now, or when it cannot be waited
	 * for. */
	int (*arm)(struct wire *wire);
	void (*disarm)(struct wire *wire);
	/* When receive should next be called at the latest (CLOCK_MONOTONIC, ns), for a wire with a clock (a pcap file at
	 * a rate); UINT64_MAX: only wait_fd tells. May be NULL. */
	uint64_t (*due_ns)(struct wire *wire);
};

struct wire {
	const struct wire_ops *ops;
	int wait_fd; /* readable after arm when there is something to receive; -1 */
	int waits;   /* not 0: not asked while the card does not receive (a file, which would be played to nobody) */
	/* One writer (the engine), read by Python. */
	uint64_t rx_packets, rx_bytes; /* towards the card */
	uint64_t tx_packets, tx_bytes; /* from the card, taken by the wire */
	uint64_t rx_dropped;	       /* too long for any card, or offloads that the wire cannot undo */
	uint64_t tx_dropped;	       /* taken, and refused by what is behind (an interface that is down) */
	uint64_t syscalls;
};

static inline unsigned wire_receive(struct wire *wire, struct wire_packet *packets, unsigned n)
{
	return wire->ops->receive(wire, packets, n);
}

static inline unsigned wire_send(struct wire *wire, const struct wire_packet *packets, unsigned n)
{
	return wire->ops->send(wire, packets, n);
}

static inline int wire_arm(struct wire *wire)
{
	return wire->ops->arm(wire);
}

static inline void wire_disarm(struct wire *wire)
{
	wire->ops->disarm(wire);
}

static inline uint64_t wire_due_ns(struct wire *wire)
{
	return wire->ops->due_ns ? wire->ops->due_ns(wire) : UINT64_MAX;
}

/* Fills a frame that is shorter than Ethernet allows with zeros: its length then. data: room for WIRE_SHORTEST bytes. */
static inline uint32_t wire_pad(uint8_t *data, uint32_t len)
{
	for (; len < WIRE_SHORTEST; len++)
		data[len] = 0;
	return len;
}

#endif
