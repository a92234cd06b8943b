/* What is done once in a while with a queue of an ixgbe card: made and unmade by Python, put to sleep by its worker,
 * started again after a reset of the card. The packets' way is ring.c.
 *
 * No wake-up is lost: arm unmasks the queue's vector and then looks at the ring. A packet that came before the vector
 * was unmasked is seen in the ring; one that comes after raises it. The card remembers a cause that comes while it is
 * masked (EICR, datasheet 7.3.1.4) and raises it when the unmasking arrives.
 *
 * The vector masks itself when it fires (EIAM), so the driver never masks it, and unmasks it only when it may be masked:
 * after an event, and when packets came since it was unmasked, an event of which may be on its way or lost. A queue on
 * which nothing comes costs nothing, however often its worker sleeps. That matters where the register is trapped: a
 * message, and the other side's turn to read it. The price: a vector fires once while its worker is awake.
 */
#include "driver/ixgbe/ring_state.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "vfio_user/shared_event.h"

#define FEWEST_SLOTS 64u
#define MOST_SLOTS 4096u
#define RING_ALIGNMENT 128u /* RDBAL, TDBAL */
#define LARGEST_BUFFER 16384u
#define LARGEST_FRAME 32768u /* DTALEN has 16 bits */
#define MOST_COLOURS 64u
#define MOST_REFUSALS 1000u

/* ---- sleeping ---- */

/* How many packets (or parts of such) are there. */
static unsigned rx_there(const struct ixgbe_ring *ring)
{
	unsigned n = 0;

	for (uint32_t at = ring->rx_next; at != ring->rx_put; at++, n++)
		if (!(descriptor_load(&ring->rx[at & ring->rx_mask].high) & RX_DONE))
			break;
	return n;
}

/* Whether there was an event. Whoever finds none sees a later one. */
static bool drain(const struct queue *queue)
{
	return queue->wait_fd >= 0 && shared_event_take(queue->wait_fd) != 0;
}

/* 0, or -EAGAIN when the bell was refused. The event of packets that polling found is taken first, or it would end the
 * sleep at once. */
static int listen_again(struct ixgbe_ring *ring)
{
	if (!ring->unmask)
		return 0;
	if (ring->listening && ring->rx_next == ring->unmasked_at)
		return 0;
	if (ring->listening)
		drain(&ring->queue);
	ring->listening = doorbell_ring(ring->unmask, ring->vector_bit) == 0;
	ring->unmasked_at = ring->rx_next;
	return ring->listening ? 0 : -EAGAIN;
}

/* When a bell is refused (a server that is busy, or gone), nothing would wake us for what it was to say. So the worker
 * does not sleep, but for a server that stays away: then it comes by when it has slept. */
unsigned ixgbe_ring_arm(struct queue *queue)
{
	struct ixgbe_ring *ring = ring_of(queue);
	bool refused = ixgbe_ring_tell_rx(ring) != 0;

	refused |= ixgbe_ring_tell_tx(ring) != 0;
	refused |= listen_again(ring) != 0;
	ring->refusals = refused ? ring->refusals + 1 : 0;
	/* The look comes after the store of the unmasking, also for a card in shared memory. */
	atomic_thread_fence(memory_order_seq_cst);
	if (refused && ring->refusals < MOST_REFUSALS)
		return 1;
	return rx_there(ring);
}

void ixgbe_ring_disarm(struct queue *queue)
{
	if (drain(queue))
		ring_of(queue)->listening = 0;
}

/* ---- life, from Python ---- */

static int slots_are_valid(uint32_t slots)
{
	return slots >= FEWEST_SLOTS && slots <= MOST_SLOTS && (slots & (slots - 1)) == 0;
}

static int config_is_valid(const struct ixgbe_ring_config *config)
{
	const struct umem *umem = config->umem;
	const uint64_t longest = (uint64_t)config->headroom + config->buffer_bytes;

	if (!umem || umem->frame_bytes > LARGEST_FRAME || umem->bytes > (uint64_t)UINT32_MAX << RING_UNIT)
		return 0;
	if (!slots_are_valid(config->rx_slots) || !slots_are_valid(config->tx_slots))
		return 0;
	if (!config->rx_ring || (uintptr_t)config->rx_ring % RING_ALIGNMENT || !config->tx_ring ||
	    (uintptr_t)config->tx_ring % RING_ALIGNMENT)
		return 0;
	if (config->headroom % (1u << RING_UNIT) || config->buffer_bytes == 0 || config->buffer_bytes > LARGEST_BUFFER)
		return 0;
	return longest <= umem->frame_bytes && config->rx_tail && config->tx_tail;
}

/* A mask for as many places, a line apart, as there is room for. */
static uint32_t colours_that_fit(const struct ixgbe_ring_config *config)
{
	uint32_t spare_lines = (config->umem->frame_bytes - config->headroom - config->buffer_bytes) >> RING_UNIT;
	uint32_t n = 1;

	while (n * 2 <= spare_lines + 1 && n < MOST_COLOURS)
		n *= 2;
	return n - 1;
}

/* Both rings empty and at slot 0. Indexes begin one round before they wrap, so that every user passes that. */
static void ring_begin(struct ixgbe_ring *ring)
{
	memset(ring->rx, 0, (ring->rx_mask + 1) * sizeof(*ring->rx));
	memset(ring->tx, 0, (ring->tx_mask + 1) * sizeof(*ring->tx));
	if (ring->tx_head)
		*ring->tx_head = 0;
	ring->rx_next = ring->rx_put = ring->rx_rung = 0 - (ring->rx_mask + 1);
	ring->tx_clean = ring->tx_put = ring->tx_rung = ring->tx_looked = 0 - (ring->tx_mask + 1);
}

struct ixgbe_ring *ixgbe_ring_create(const struct ixgbe_ring_config *config)
{
	struct ixgbe_ring *ring;

	if (!config_is_valid(config))
		return NULL;
	ring = aligned_alloc(64, sizeof(*ring));
	if (!ring)
		return NULL;
	memset(ring, 0, sizeof(*ring));
	ring->queue = (struct queue){ .ops = &ixgbe_ring_ops,
				      .umem = config->umem,
				      .wait_fd = config->unmask ? config->event : -1,
				      .port = config->port,
				      .number = config->number };
	ring->rx = (struct ixgbe_descriptor *)(void *)config->rx_ring;
	ring->tx = (struct ixgbe_descriptor *)(void *)config->tx_ring;
	ring->tx_head = config->tx_head;
	ring->rx_mask = config->rx_slots - 1;
	ring->tx_mask = config->tx_slots - 1;
	ring->buffer_bytes = config->buffer_bytes;
	ring->headroom = config->headroom;
	ring->colours = colours_that_fit(config);
	ring->frames = config->frames;
	ring->base = config->umem->base;
	ring->bytes = config->umem->bytes;
	ring->frame_mask = config->umem->frame_bytes - 1;
	ring->last_start = (int64_t)config->umem->frame_bytes - TX_SHORTEST;
	ring->rx_tail = config->rx_tail;
	ring->tx_tail = config->tx_tail;
	ring->unmask = config->unmask;
	ring->vector_bit = config->vector_bit;
	ring->rx_held = calloc(config->rx_slots, sizeof(*ring->rx_held));
	ring->spare = calloc(config->rx_slots, sizeof(*ring->spare));
	ring->tx_held = calloc(config->tx_slots, sizeof(*ring->tx_held));
	ring->bad = calloc(config->tx_slots, sizeof(*ring->bad));
	if (!ring->rx_held || !ring->spare || !ring->tx_held || !ring->bad) {
		ixgbe_ring_destroy(ring, NULL);
		return NULL;
	}
	ring_begin(ring);
	return ring;
}

struct queue *ixgbe_ring_queue(struct ixgbe_ring *ring)
{
	return &ring->queue;
}

/* All that receiving holds becomes spare: never more than rx_slots frames (slots - 1 posted or spare, and the first of
 * a packet whose end has not come). */
static void rx_withdraw(struct ixgbe_ring *ring)
{
	for (; ring->rx_next != ring->rx_put; ring->rx_next++)
		ring->spare[ring->n_spare++] = ring->rx_held[ring->rx_next & ring->rx_mask];
	if (ring->rx_parts != PARTS_NONE)
		ring->spare[ring->n_spare++] = to_units(ring->rx_packet);
	ring->rx_parts = PARTS_NONE;
}

/* All that sending holds goes to the pool. Returns how many. */
static uint32_t tx_withdraw(struct ixgbe_ring *ring, struct frame_pool *pool)
{
	uint32_t n = ring->tx_put - ring->tx_clean + ring->n_bad;

	for (; ring->tx_clean != ring->tx_put; ring->tx_clean++)
		frame_pool_put(pool, ring->queue.umem, from_units(ring->tx_held[ring->tx_clean & ring->tx_mask]));
	while (ring->n_bad)
		frame_pool_put(pool, ring->queue.umem, from_units(ring->bad[--ring->n_bad]));
	return n;
}

void ixgbe_ring_restart(struct ixgbe_ring *ring, struct frame_pool *pool)
{
	rx_withdraw(ring);
	ring->owed += tx_withdraw(ring, pool); /* whoever counts what it handed over counts what reclaim says */
	ring_begin(ring);
	ring->refusals = 0;
	ring->listening = 0; /* a reset masks all */
}

void ixgbe_ring_destroy(struct ixgbe_ring *ring, struct frame_pool *pool)
{
	if (!ring)
		return;
	if (pool) {
		rx_withdraw(ring);
		while (ring->n_spare)
			frame_pool_put(pool, ring->queue.umem, from_units(ring->spare[--ring->n_spare]));
		tx_withdraw(ring, pool);
	}
	free(ring->rx_held);
	free(ring->spare);
	free(ring->tx_held);
	free(ring->bad);
	free(ring);
}

/* Asks the card's marks, not only what reclaim has seen: no worker may be running. One that is makes the answer old,
 * never wild. */
uint32_t ixgbe_ring_in_flight(const struct ixgbe_ring *ring)
{
	uint32_t clean = __atomic_load_n(&ring->tx_clean, __ATOMIC_RELAXED);
	uint32_t put = __atomic_load_n(&ring->tx_put, __ATOMIC_RELAXED);
	uint32_t n = put - clean, done;

	if (n == 0 || n > ring->tx_mask)
		return 0;
	if (!ring->tx_head)
		return descriptor_load(&ring->tx[(put - 1) & ring->tx_mask].high) & TX_DONE ? 0 : n;
	done = (*ring->tx_head - clean) & ring->tx_mask;
	return done > n ? n : n - done;
}
