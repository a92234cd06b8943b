/* What is behind struct ixgbe_ring: shared by its hot path (ring.c), its life (ring_life.c) and its time out of service
 * (park.c), and by nobody else. */
#ifndef IXROUTE_DRIVER_IXGBE_RING_STATE_H
#define IXROUTE_DRIVER_IXGBE_RING_STATE_H

#include <stdint.h>

#include "driver/ixgbe/descriptor.h"
#include "driver/ixgbe/ring.h"

#define RING_BATCH 32u /* slots filled at once, packets that one RS speaks for */
#define RING_UNIT 6u   /* log2 of what addresses in the ring's own lists are counted in: they fit 32 bits */

enum rx_parts { PARTS_NONE, PARTS_GOOD, PARTS_BAD };

/* Indexes run freely and wrap at 2^32; a slot is the index's low bits. */
struct ixgbe_ring {
	struct queue queue; /* first: queue_ops get a pointer to it */

	/* Receiving. rx_next <= the card's head <= rx_put; never more than slots - 1 between the outer two. */
	_Alignas(64) struct ixgbe_descriptor *rx;
	uint32_t *rx_held; /* by slot: where its packet goes, in units */
	uint32_t rx_mask;
	uint32_t rx_next;
	uint32_t rx_put;
	uint32_t rx_rung; /* the index that the card was told last */
	uint32_t buffer_bytes;
	uint32_t headroom;
	uint32_t colours;  /* a mask: see rx_place */
	uint32_t rx_parts; /* enum rx_parts: of the packet that rx_packet is the first frame of */
	const uint8_t *base; /* umem's */
	struct doorbell *rx_tail;

	/* Sending. tx_clean <= the card's head <= tx_rung <= tx_put. */
	_Alignas(64) struct ixgbe_descriptor *tx;
	uint32_t *tx_held; /* by slot: an address in its frame, in units */
	uint64_t bytes;	    /* umem's */
	uint64_t frame_mask; /* what is into a frame, of an address */
	int64_t last_start; /* in a frame: where a packet of the least length may begin at the latest */
	volatile uint32_t *tx_head;
	struct doorbell *tx_tail;
	uint32_t tx_mask;
	uint32_t tx_clean;
	uint32_t tx_put;
	uint32_t tx_rung;
	uint32_t tx_looked; /* tx_put when reclaim last came by */
	uint32_t n_bad;	    /* of bad */
	uint32_t owed;	    /* packets taken by tx_burst that reclaim is still to count, without a frame in the ring */

	struct dma_map frames;

	/* Rarely needed. */
	uint64_t rx_packet; /* address of a packet whose end has not come */
	uint32_t rx_packet_len;
	uint32_t n_spare;
	uint32_t *spare; /* frames (in units) of what could not be used: posted first. rx_slots of them */
	uint32_t *bad;	 /* frames of what could not be sent: to the pool at the next reclaim. tx_slots of them */
	struct doorbell *unmask;
	uint32_t vector_bit;
	uint32_t refusals; /* times in a row that a bell was refused before a sleep */
	uint32_t listening;  /* the vector is unmasked, as far as we have heard */
	uint32_t unmasked_at; /* rx_next then */
};

extern const struct queue_ops ixgbe_ring_ops;

/* Tell the card what was put there, if it was not told. 0 or -EAGAIN: then the next call tries again. */
int ixgbe_ring_tell_rx(struct ixgbe_ring *ring);
int ixgbe_ring_tell_tx(struct ixgbe_ring *ring);
unsigned ixgbe_ring_arm(struct queue *queue);
void ixgbe_ring_disarm(struct queue *queue);

static inline struct ixgbe_ring *ring_of(struct queue *queue)
{
	return (struct ixgbe_ring *)queue;
}

static inline uint32_t to_units(uint64_t addr)
{
	return (uint32_t)(addr >> RING_UNIT);
}

static inline uint64_t from_units(uint32_t units)
{
	return (uint64_t)units << RING_UNIT;
}

#endif
