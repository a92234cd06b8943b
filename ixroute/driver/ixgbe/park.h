/* A queue that is out of service for a while, because its card is being reset: workers go on running and find a queue
 * that receives nothing and takes nothing.
 *
 * Python parks the queues, waits until each one's worker has seen it (from then on that worker touches neither the ring
 * nor the card: one thread, so its next call sees what its last one saw), resets the card and sets its registers, and
 * unparks. The ring itself is begun anew by the worker, in its next call of reclaim or refill: only there is its pool
 * of frames at hand, which is nobody else's.
 */
#ifndef IXROUTE_DRIVER_IXGBE_PARK_H
#define IXROUTE_DRIVER_IXGBE_PARK_H

#include "driver/ixgbe/ring.h"

struct ixgbe_park;

/* One for each ring, for as long as the ring; in service at first. NULL: no memory. */
struct ixgbe_park *ixgbe_park_create(struct ixgbe_ring *ring);
void ixgbe_park_destroy(struct ixgbe_park *park);
/* Any thread, all three; one at a time. */
void ixgbe_park_begin(struct ixgbe_park *park);
int ixgbe_park_seen(const struct ixgbe_park *park);
/* reset: the card was, and the ring begins anew; else all goes on as it was. */
void ixgbe_park_end(struct ixgbe_park *park, int reset);

#endif
