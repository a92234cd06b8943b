/* ixroute pktgen: sends numbered UDP packets by its first port, counts those that come back by its second. */
#ifndef IXROUTE_TOOLS_PKTGEN_H
#define IXROUTE_TOOLS_PKTGEN_H

#include "tools/lane.h"

#define PKTGEN_SIZES 16u
#define PKTGEN_MARK 0x69787274672e3031ull /* "ixrtg.01", big-endian, before the sequence number */
#define PKTGEN_TAIL 16u			  /* bytes of mark and sequence number at the start of UDP's payload */

/* A packet of one size with sequence number 0 and flow 0; its checksum is right. */
struct pktgen_shape {
	uint8_t *bytes;
	uint32_t len;
	uint16_t sum; /* UDP's checksum before the last complement, in wire order as a number */
};

struct pktgen {
	struct lane lane;
	struct pktgen_shape shape[PKTGEN_SIZES]; /* taken in turn */
	uint32_t n_shapes;
	uint32_t udp_at; /* 34 (IPv4) or 54 (IPv6) */
	uint16_t first_port; /* source ports first_port … first_port + flows - 1 */
	uint32_t flows;
	uint64_t rate_pps; /* 0: as fast as it goes */
	uint64_t limit;	   /* packets in all; 0: no limit */
	uint64_t started_ns;
	/* One writer: the lane's thread. */
	uint64_t tx_packets, tx_bytes;
	uint64_t tx_full; /* bursts that the transmit ring had no room for */
	uint64_t rx_packets, rx_bytes;
	uint64_t rx_foreign; /* packets not of ours */
	uint64_t rx_late;    /* a number below one seen before in the same flow */
	uint64_t *seen;	     /* next number expected, by flow */
};

void pktgen_run(struct pktgen *gen, uint64_t until_ns);

#endif
