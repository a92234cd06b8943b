/* A queue: one receive ring and one transmit ring of a port, owned by exactly one worker.
 *
 * This is all that forward/ knows of a port. Every kind of port (AF_XDP, memory, ixgbe) fills in queue_ops and
 * puts struct queue first in its own queue structure. Calls are per burst, never per packet.
 */
#ifndef IXROUTE_DRIVER_QUEUE_H
#define IXROUTE_DRIVER_QUEUE_H

#include "driver/frame.h"

struct queue;

struct queue_ops {
	/* Takes up to n received packets; the caller owns their frames from then on. Sets addr, len; port is
	 * queue->port, flags what the card says of its checksums (FRAME_IP_GOOD, …), 0 when it says nothing. */
	unsigned (*rx_burst)(struct queue *queue, struct frame *frames, unsigned n);
	/* Hands over n packets; returns how many were taken (the first k). The rest stay the caller's. */
	unsigned (*tx_burst)(struct queue *queue, const struct frame *frames, unsigned n);
	/* Makes the hardware (or the kernel) look at what tx_burst handed over: the doorbell, once per pass.
	 * Must be cheap when there is nothing outstanding. */
	void (*tx_doorbell)(struct queue *queue);
	/* Takes back the frames of packets that are sent. Returns how many. While tx_burst goes on between calls, the last
	 * few may be left for a larger batch; never when it does not. */
	unsigned (*reclaim)(struct queue *queue, struct frame_pool *pool);
	/* Gives the receive ring as many free frames as it has room for, but that it may wait for room for a batch (32).
	 * Returns how many. */
	unsigned (*refill)(struct queue *queue, struct frame_pool *pool);
	/* About to sleep: asks for an event on wait_fd when a packet comes. Returns the number of packets that
	 * are already there: if not 0, do not sleep. Called with the rings refilled. */
	unsigned (*arm)(struct queue *queue);
	/* Awake again. */
	void (*disarm)(struct queue *queue);
};

struct queue {
	const struct queue_ops *ops;
	const struct umem *umem;
	int wait_fd;	 /* readable when there is something to receive (after arm); -1: cannot be waited for */
	uint16_t port;	 /* index of the port in the router */
	uint16_t number; /* index of the queue in the port */
	/* One writer (the worker); read by Python. What only the driver can know. */
	uint64_t rx_no_frame; /* times the receive ring could not be filled: the pool was empty */
	uint64_t rx_kicks;    /* system calls or doorbells made to show the receive ring's new frames */
	uint64_t rx_bad;      /* descriptors received that name no packet in a frame of this queue */
	uint64_t tx_kicks;    /* system calls or doorbells made */
	uint64_t tx_refused;  /* kicks that sent less than was outstanding: tried again at the next doorbell */
	uint64_t tx_bad;      /* packets handed over, or completions, that lie in no frame of this queue */
};

/* The same calls by name. */
static inline unsigned queue_rx_burst(struct queue *queue, struct frame *frames, unsigned n)
{
	return queue->ops->rx_burst(queue, frames, n);
}

static inline unsigned queue_tx_burst(struct queue *queue, const struct frame *frames, unsigned n)
{
	return queue->ops->tx_burst(queue, frames, n);
}

static inline void queue_tx_doorbell(struct queue *queue)
{
	queue->ops->tx_doorbell(queue);
}

static inline unsigned queue_reclaim(struct queue *queue, struct frame_pool *pool)
{
	return queue->ops->reclaim(queue, pool);
}

static inline unsigned queue_refill(struct queue *queue, struct frame_pool *pool)
{
	return queue->ops->refill(queue, pool);
}

static inline unsigned queue_arm(struct queue *queue)
{
	return queue->ops->arm(queue);
}

static inline void queue_disarm(struct queue *queue)
{
	queue->ops->disarm(queue);
}

#endif
