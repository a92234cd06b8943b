/* ixroute fwd: what comes in by one port goes out by the other, unchanged. */
#ifndef IXROUTE_TOOLS_FWD_H
#define IXROUTE_TOOLS_FWD_H

#include "tools/lane.h"

struct fwd_way { /* one writer: the lane's thread */
	uint64_t rx_packets, rx_bytes;
	uint64_t tx_packets;
	uint64_t dropped; /* the transmit ring was full */
};

struct fwd {
	struct lane lane;
	struct fwd_way way[2]; /* way[0]: in by side 0, out by side 1 */
};

/* Until the clock (CLOCK_MONOTONIC) shows until_ns, or lane_stop; it is woken to see that. */
void fwd_run(struct fwd *fwd, uint64_t until_ns);

#endif
