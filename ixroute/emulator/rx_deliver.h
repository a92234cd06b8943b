/* One packet into the descriptors of one queue (7.1.4-7.1.6, 7.1.10). Used by card_rx.c. */
#ifndef IXROUTE_EMULATOR_RX_DELIVER_H
#define IXROUTE_EMULATOR_RX_DELIVER_H

#include "emulator/card_state.h"
#include "emulator/parse.h"

/* Bits of the advanced write-back descriptor's status and error word (7.1.6.2); the legacy one has some of them in
 * other places. */
#define RX_DD (1u << 0)
#define RX_EOP (1u << 1)
#define RX_VP (1u << 3)
#define RX_UDPCS (1u << 4)
#define RX_L4CS (1u << 5)
#define RX_IPCS (1u << 6)
#define RX_UDPV (1u << 10)
#define RX_HBO (1u << 23)
#define RX_TCPE (1u << 30)
#define RX_IPE (1u << 31)

struct rx_verdict {
	struct parsed parsed;
	uint64_t low;	 /* the first quadword: hash, RSS type, packet type */
	uint32_t status; /* RX_…, without DD and EOP */
	unsigned queue;
};

enum rx_outcome {
	RX_DELIVERED,
	RX_FULL, /* not enough descriptors */
	RX_LOST, /* the queue is off, or it has been stopped by this */
};

/* The queue, ready for packets of this burst: its registers are read, once. */
struct rx_queue *rx_touch(struct card *card, unsigned queue);
enum rx_outcome rx_deliver(struct card *card, struct rx_queue *q, const uint8_t *packet, uint32_t len,
			   const struct rx_verdict *v);

#endif
