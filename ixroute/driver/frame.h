/* A frame: one fixed-size piece of umem that holds one packet, and the pool of those that hold none.
 *
 * Invariant: a frame has one owner at a time: an rx ring, the worker's burst, a tx ring, the kernel's door
 * (tap/), or a frame_pool. Frames travel between ports by changing owner; their bytes never move.
 */
#ifndef IXROUTE_DRIVER_FRAME_H
#define IXROUTE_DRIVER_FRAME_H

#include <stdint.h>

#include "driver/fence.h"

/* The memory that all ports share (docs: design of one umem for all ports). Python maps it and owns it. */
struct umem {
	uint8_t *base;
	uint64_t bytes;
	uint32_t frame_bytes; /* a power of two: the frame of an address is the address with the low bits cleared */
	uint32_t n_frames;
};

/* What a burst is made of. Laid out so that the first 12 bytes are struct xdp_desc's. */
struct frame {
	uint64_t addr;	/* of the packet's first byte, as an offset into umem */
	uint32_t len;	/* bytes of the packet, Ethernet header included, FCS not */
	uint16_t port;	/* the port it came in by (rx, or the TAP of that port) */
	uint16_t flags; /* FRAME_* */
};
_Static_assert(sizeof(struct frame) == 16, "two frames to a 32-byte store");

/* Every received packet, and every one from the kernel, begins at least this far into its frame: two VLAN tags that
 * it did not come with can be put in front (drivers leave 256 bytes, as XDP does). */
#define FRAME_HEADROOM 8u

#define FRAME_INJECTED 1u /* came from the kernel through the TAP: goes out of `port` unrouted */
/* What the card says of a received packet's checksums; neither of a pair: it did not look. The good ones are where an
 * 82599 says that it looked (ixgbe/ring.c moves both at once). */
#define FRAME_IP_BAD 4u
#define FRAME_L4_BAD 16u
#define FRAME_L4_GOOD 32u
#define FRAME_IP_GOOD 64u

static inline uint8_t *frame_data(const struct umem *umem, uint64_t addr)
{
	return umem->base + addr;
}

/* Whether addr, len is a packet that lies in one frame of umem: asked of everything that comes from outside. */
static inline int frame_is_whole(const struct umem *umem, uint64_t addr, uint32_t len)
{
	uint64_t into = addr & ((uint64_t)umem->frame_bytes - 1);

	return addr < umem->bytes && len > 0 && into + len <= umem->frame_bytes;
}

static inline uint64_t frame_start(const struct umem *umem, uint64_t addr)
{
	return addr & ~((uint64_t)umem->frame_bytes - 1);
}

/* Free frames of one worker: a stack, so that the frame last used (still in cache) is used first.
 * Not shared between threads. Holds the start address of each frame. Frames do not move between workers: what
 * was carved for a worker goes round its own queues and its own lane to the kernel, and comes back here. So
 * the pool's capacity is the number of frames carved for it, and putting one back never overflows. */
struct frame_pool {
	uint32_t n;
	uint32_t capacity;
	uint64_t addr[];
};

/* Empty, with room for `capacity` frames; NULL: no memory. */
struct frame_pool *frame_pool_create(uint32_t capacity);
void frame_pool_destroy(struct frame_pool *pool);
/* The pool with room for capacity frames (not fewer than it has room for), and what was in it; the old pointer is no
 * longer valid. NULL: no memory, nothing changed. No worker uses the pool meanwhile. */
struct frame_pool *frame_pool_resize(struct frame_pool *pool, uint32_t capacity);

/* Up to `want` free frames into `out`; returns how many there were. */
static inline unsigned frame_pool_get(struct frame_pool *pool, uint64_t *out, unsigned want)
{
	unsigned n = want < pool->n ? want : pool->n;

	for (unsigned i = 0; i < n; i++)
		out[i] = pool->addr[--pool->n];
	return n;
}

/* Gives a frame back; `addr` may point anywhere into it. */
static inline void frame_pool_put(struct frame_pool *pool, const struct umem *umem, uint64_t addr)
{
	uint64_t start = frame_start(umem, addr);

	fence_drop(umem->base + start, umem->frame_bytes);
	pool->addr[pool->n++] = start;
}

#endif
