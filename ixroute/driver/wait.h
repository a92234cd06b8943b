/* Waiting for packets. A program that owns queues has five ways:
 *
 *   poll:      it never waits; rx_burst again and again.
 *   limit:     queues_wait with a limit in ms, when a burst was empty.
 *   forever:   queues_wait with -1.
 *   external:  it waits elsewhere (poll, epoll, an event loop): queue->ops->arm, which says what is there already;
 *              wait_fd becomes readable; disarm.
 *   adaptive:  polls for a while in vain, then queues_wait. What the router's workers do (forward/run.c).
 */
#ifndef IXROUTE_DRIVER_WAIT_H
#define IXROUTE_DRIVER_WAIT_H

#include "driver/queue.h"

#define WAIT_QUEUES 64u

/* Sleeps until one of n (<= WAIT_QUEUES) queues has a packet, limit_ms have passed (-1: no limit) or a signal came.
 * Returns not 0 when there may be a packet. Call it with the receive rings refilled and the doorbells rung. Queues that
 * cannot be waited for are looked at every millisecond. */
int queues_wait(struct queue *const *queues, unsigned n, int limit_ms);

#endif
