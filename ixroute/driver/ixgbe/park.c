/* Queues out of service (park.h): another table of operations in the queue, put there by Python's thread and taken away
 * by it, or by the worker once it has begun the ring anew. Called by the worker through queue_ops.
 *
 * The pointer to the table is stored whole. A worker that still uses the old one is in a call that it has not ended; it
 * has seen the new one when it has made a call of it.
 */
#include "driver/ixgbe/park.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "driver/ixgbe/ring_state.h"

/* RUNNING -> PARKED -> SEEN -> RUNNING, or RESTARTING -> BEGINNING -> RUNNING: the worker's steps are PARKED to SEEN and
 * those from RESTARTING on. PARKED may also follow RESTARTING, when the next reset comes before the worker. */
enum state { RUNNING, PARKED, SEEN, RESTARTING, BEGINNING };

struct ixgbe_park {
	struct queue_ops ops; /* first: a parked queue's ops are these, which is how its calls find the rest */
	const struct queue_ops *real;
	struct ixgbe_ring *ring;
	_Atomic int state;
	_Atomic int owes_restart;
};

static unsigned parked_rx_burst(struct queue *queue, struct frame *frames, unsigned n);

static void use_ops(struct queue *queue, const struct queue_ops *ops)
{
	__atomic_store_n(&queue->ops, ops, __ATOMIC_RELEASE);
}

/* NULL when the queue went back to service between the caller's look at its ops and ours. */
static struct ixgbe_park *park_of(const struct queue *queue)
{
	const struct queue_ops *ops = __atomic_load_n(&queue->ops, __ATOMIC_ACQUIRE);

	return ops->rx_burst == parked_rx_burst ? (struct ixgbe_park *)(uintptr_t)ops : NULL;
}

static void see(const struct queue *queue)
{
	struct ixgbe_park *park = park_of(queue);
	int parked = PARKED;

	if (park)
		atomic_compare_exchange_strong(&park->state, &parked, SEEN);
}

static unsigned parked_rx_burst(struct queue *queue, struct frame *frames, unsigned n)
{
	(void)frames;
	(void)n;
	see(queue);
	return 0;
}

static unsigned parked_tx_burst(struct queue *queue, const struct frame *frames, unsigned n)
{
	(void)frames;
	(void)n;
	see(queue);
	return 0;
}

static void parked_tx_doorbell(struct queue *queue)
{
	see(queue);
}

/* The worker's way back: its pool is at hand, and nobody else touches the ring. NULL: not yet. */
static const struct queue_ops *begin_anew(struct queue *queue, struct frame_pool *pool)
{
	struct ixgbe_park *park = park_of(queue);
	int restarting = RESTARTING;

	if (!park || !atomic_compare_exchange_strong(&park->state, &restarting, BEGINNING)) {
		see(queue);
		return NULL;
	}
	ixgbe_ring_restart(park->ring, pool);
	atomic_store(&park->owes_restart, 0);
	use_ops(queue, park->real);
	atomic_store(&park->state, RUNNING);
	return park->real;
}

static unsigned parked_reclaim(struct queue *queue, struct frame_pool *pool)
{
	const struct queue_ops *real = begin_anew(queue, pool);

	return real ? real->reclaim(queue, pool) : 0;
}

static unsigned parked_refill(struct queue *queue, struct frame_pool *pool)
{
	const struct queue_ops *real = begin_anew(queue, pool);

	return real ? real->refill(queue, pool) : 0;
}

static unsigned parked_arm(struct queue *queue)
{
	see(queue);
	return 0;
}

/* Python wakes workers by the queue's event, which is drained here or it would wake them for ever. One of the card's
 * may be among them, so the ring is to know: in its worker, and nothing else of it is touched. */
static void parked_disarm(struct queue *queue)
{
	see(queue);
	ixgbe_ring_disarm(queue);
}

struct ixgbe_park *ixgbe_park_create(struct ixgbe_ring *ring)
{
	struct ixgbe_park *park = calloc(1, sizeof(*park));

	if (!park)
		return NULL;
	park->ops = (struct queue_ops){
		.rx_burst = parked_rx_burst,
		.tx_burst = parked_tx_burst,
		.tx_doorbell = parked_tx_doorbell,
		.reclaim = parked_reclaim,
		.refill = parked_refill,
		.arm = parked_arm,
		.disarm = parked_disarm,
	};
	park->ring = ring;
	park->real = ixgbe_ring_queue(ring)->ops;
	return park;
}

void ixgbe_park_destroy(struct ixgbe_park *park)
{
	free(park);
}

void ixgbe_park_begin(struct ixgbe_park *park)
{
	int state = atomic_load(&park->state);

	/* A worker that is just beginning the ring anew ends that first: a few microseconds. */
	while (state == BEGINNING || !atomic_compare_exchange_weak(&park->state, &state, PARKED))
		state = atomic_load(&park->state);
	use_ops(ixgbe_ring_queue(park->ring), &park->ops);
}

int ixgbe_park_seen(const struct ixgbe_park *park)
{
	return atomic_load(&park->state) == SEEN;
}

void ixgbe_park_end(struct ixgbe_park *park, int reset)
{
	if (reset)
		atomic_store(&park->owes_restart, 1);
	if (atomic_load(&park->owes_restart)) {
		atomic_store(&park->state, RESTARTING);
		return;
	}
	use_ops(ixgbe_ring_queue(park->ring), park->real);
	atomic_store(&park->state, RUNNING);
}
