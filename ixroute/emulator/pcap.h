/* pcap files in memory: see pcap.c.
 */
#ifndef IXROUTE_EMULATOR_PCAP_H
#define IXROUTE_EMULATOR_PCAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "emulator/wire.h"

#define PCAP_HEADER_BYTES 24u
#define PCAP_RECORD_BYTES 16u

enum pcap_fault {
	PCAP_FINE,
	PCAP_NO_HEADER, /* shorter than a file header, or another magic */
	PCAP_NG,	/* the newer format */
	PCAP_VERSION,	/* not 2.x; value: which */
	PCAP_NOT_ETHERNET, /* value: the link type */
	PCAP_WITH_FCS,
	PCAP_CUT,    /* the file ends within a packet or its header; value: bytes that are missing */
	PCAP_SLICED, /* a packet was longer on the wire than in the file; value: bytes that are missing */
};

struct pcap_check {
	enum pcap_fault fault;
	uint64_t packets; /* good ones; with a fault: those before it */
	uint64_t offset;  /* of the last packet, the faulty one if any, in the file */
	uint64_t misfits; /* packets that no card receives, too short or too long: counted as rx_dropped each time */
	uint32_t value;
};

/* Looks at a whole file; never reads beyond n bytes. */
void pcap_check(const uint8_t *bytes, size_t n, struct pcap_check *out);

struct pcap_file {
	const uint8_t *bytes;
	size_t n, at; /* at: of the next packet's header; PCAP_HEADER_BYTES: the first */
	bool swap;
};

enum pcap_fault pcap_open(struct pcap_file *file, const uint8_t *bytes, size_t n, uint32_t *value);
/* While at < n. Moves on only when it returns PCAP_FINE. */
enum pcap_fault pcap_next(struct pcap_file *file, const uint8_t **data, uint32_t *len, uint32_t *missing);

/* Whether a packet of a file can be a frame: an Ethernet header at least, and no longer than a card takes. */
static inline bool pcap_fits(uint32_t len)
{
	return len >= 14 && len <= WIRE_LONGEST;
}

#endif
