/* A queue over an AF_XDP socket (linux/if_xdp.h): the four rings of one queue of one network interface.
 * Python (af_xdp.py) opens, maps, binds and owns; this moves descriptors.
 *
 * Life: create, set_ring for each of the four, then the worker's calls through queue_ops; the worker has left it;
 * recover; destroy; and only then may Python unmap the rings and close the socket... in any order. */
#ifndef IXROUTE_DRIVER_XSK_H
#define IXROUTE_DRIVER_XSK_H

#include "driver/queue.h"

/* Which ring; the order of struct xdp_mmap_offsets. */
#define XSK_RX 0u
#define XSK_TX 1u
#define XSK_FILL 2u
#define XSK_COMPLETION 3u

/* NULL: no memory. */
struct queue *xsk_queue_create(const struct umem *umem, int fd, uint16_t port, uint16_t number);
/* `map` is the ring as mapped, `offsets` its row of XDP_MMAP_OFFSETS (producer, consumer, desc, flags), `slots` what
 * it was sized to; rx and fill must have the same, tx and completion too. A queue without tx and completion receives
 * only. 0 or -EINVAL. */
int xsk_queue_set_ring(struct queue *queue, unsigned which, void *map, const uint64_t offsets[4], uint32_t slots);
/* How many packets one sendto moves in copy mode (XDP_MAX_TX_SKB_BUDGET); 32 if not told. */
void xsk_queue_set_budget(struct queue *queue, uint32_t packets);
/* How many frames it owns: in its rings or in the kernel's hands. Not while the worker runs. */
uint32_t xsk_queue_frames(const struct queue *queue);
/* Takes back every frame it owns, once the socket is closed and the worker gone. Returns how many. */
uint32_t xsk_queue_recover(struct queue *queue, struct frame_pool *pool);
void xsk_queue_destroy(struct queue *queue);

#endif
