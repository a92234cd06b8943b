/* One queue of an ixgbe port: a ring of advanced receive descriptors and one of transmit descriptors.
 * A queue (driver/queue.h): rx_burst, tx_burst and so on are called by the worker that owns it. Registers other than
 * the tails and the interrupt mask are Python's business.
 */
#ifndef IXROUTE_DRIVER_IXGBE_RING_H
#define IXROUTE_DRIVER_IXGBE_RING_H

#include "driver/dma.h"
#include "driver/doorbell.h"
#include "driver/queue.h"

struct ixgbe_ring_config {
	const struct umem *umem;
	struct dma_map frames; /* umem as the card sees it */
	uint8_t *rx_ring;      /* rx_slots descriptors of 16 bytes, 128-byte aligned; the caller's, mapped for the card */
	uint8_t *tx_ring;
	/* Where the card writes the transmit head (TDWBAL, datasheet 7.2.3.5.2), on a cache line of its own; NULL: DD in
	 * the descriptors that carry RS, which is set alike. With a stand-in card on another core the head costs up to
	 * 4 cycles a packet less, on the same core they are equal (bench ixgbe --layouts). */
	volatile uint32_t *tx_head;
	uint32_t rx_slots; /* powers of two, 64 to 4096 */
	uint32_t tx_slots;
	/* The most that the card writes at the address of one descriptor: SRRCTL.BSIZEPKT, or less when MAXFRS stops it
	 * earlier (a length beyond it is counted as bad). At most 16384. A packet of more descriptors is gathered in its
	 * first frame if it fits there. */
	uint32_t buffer_bytes;
	/* Multiple of 64; headroom + buffer_bytes <= umem->frame_bytes. What is left of a frame is used to begin packets at
	 * different cache lines (rx_place): with 768 bytes of 4096 left, bursts of 32 cost two thirds of what they do
	 * with none. */
	uint32_t headroom;
	uint16_t port;
	uint16_t number;
	struct doorbell *rx_tail; /* RDT */
	struct doorbell *tx_tail; /* TDT */
	struct doorbell *unmask;  /* EIMS_EX of the queue's vector; NULL: the queue cannot be waited for */
	uint32_t vector_bit;	  /* what is written there */
	int event;		  /* the vector's eventfd; -1 */
};

struct ixgbe_ring;

/* Rings are cleared; nothing is posted to the card until refill. NULL: no memory, or a config out of its bounds. */
struct ixgbe_ring *ixgbe_ring_create(const struct ixgbe_ring_config *config);
/* The card does not touch the rings any more (queue disabled, device reset). Frames in them go to pool, if not NULL. */
void ixgbe_ring_destroy(struct ixgbe_ring *ring, struct frame_pool *pool);
struct queue *ixgbe_ring_queue(struct ixgbe_ring *ring);
/* The card was reset and its registers set anew: both rings start at 0, frames in the receive ring stay and are posted
 * again by the next refill; those in the transmit ring go to pool, and the next reclaim counts them. No worker runs the
 * queue meanwhile. */
void ixgbe_ring_restart(struct ixgbe_ring *ring, struct frame_pool *pool);
/* Packets handed over and not yet marked as sent by the card: 0 when transmit has drained, whether or not reclaim was
 * called. Any thread. */
uint32_t ixgbe_ring_in_flight(const struct ixgbe_ring *ring);

#endif
