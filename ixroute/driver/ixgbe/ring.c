/* A packet's way through one queue of an ixgbe card. The worker that owns the queue calls it through queue_ops; what is
 * done once in a while (create, sleep, restart) is in ring_life.c.
 *
 * Invariants:
 *  - A frame is in one place: posted to the card (rx_held), being gathered (rx_packet), spare, handed over to be sent
 *    (tx_held), bad, or not here. The lists decide which, never what the card writes: a descriptor from the card says
 *    how long a packet is and no more.
 *  - The card is given at most slots - 1 descriptors a ring. With all of them, tail would equal head, which means none.
 *  - Only slots between rx_next and rx_put are looked at. Others still say DD from the round before.
 *  - The last packet of every tx_burst carries RS, and so does that of every block of 32 slots. So whether all packets
 *    are sent, or a block of them, is asked of one descriptor; no packet waits for later ones to be given back.
 */
#include "driver/ixgbe/ring_state.h"

#include <stdbool.h>
#include <string.h>

#define RX_WATCHED (RX_DONE | RX_END | RX_ERROR | RX_IP_ERROR | RX_L4_ERROR)
#define RX_PLAIN (RX_DONE | RX_END)
#define NO_WORD (~0ull) /* what no watched word equals */

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- receiving ---- */

static inline uint16_t rx_flags(uint64_t high)
{
	_Static_assert(FRAME_IP_GOOD == 2 && FRAME_L4_GOOD == 8, "shifted from bits 6 and 5");
	return (uint16_t)((high >> 5 & FRAME_IP_GOOD) | (high >> 2 & FRAME_L4_GOOD));
}

/* With errors. The 82599 reports UDP without a checksum (zero: RFC 768) as an error of it (specification update), so
 * that it says nothing of UDP then. A checksum that was not looked at has no error. */
static uint16_t rx_bad_flags(uint64_t low, uint64_t high)
{
	bool udp = low & RX_LOW_UDP && !(low & RX_LOW_FILTERED);
	unsigned flags = rx_flags(high);

	if (high & RX_IP_ERROR && flags & FRAME_IP_GOOD)
		flags ^= FRAME_IP_GOOD | FRAME_IP_BAD;
	if (high & RX_L4_ERROR && flags & FRAME_L4_GOOD)
		flags ^= FRAME_L4_GOOD | (udp ? 0 : FRAME_L4_BAD);
	return (uint16_t)flags;
}

/* The next part of a packet, if it is one and fits behind those before. */
static bool rx_append(struct ixgbe_ring *ring, uint64_t addr, uint32_t len)
{
	const struct umem *umem = ring->queue.umem;
	uint32_t into = (uint32_t)(ring->rx_packet - frame_start(umem, ring->rx_packet));

	if (len > umem->frame_bytes - into - ring->rx_packet_len)
		return false;
	memcpy(frame_data(umem, ring->rx_packet + ring->rx_packet_len), frame_data(umem, addr), len);
	ring->rx_packet_len += len;
	return true;
}

/* A descriptor that is done and not just one sound packet: a part of one, one with an error, one that no card writes.
 * The first frame collects what follows it. Returns whether a packet came of it. */
static __attribute__((noinline, cold)) unsigned rx_odd(struct ixgbe_ring *ring, uint32_t slot, uint64_t high,
						       struct frame *out)
{
	uint64_t addr = from_units(ring->rx_held[slot]);
	uint32_t len = rx_length(high);
	bool end = high & RX_END;
	bool sound = len > 0 && len <= ring->buffer_bytes && !(end && high & RX_ERROR);
	uint32_t before = ring->rx_parts;

	if (before == PARTS_NONE) {
		ring->rx_packet = addr;
		ring->rx_packet_len = len;
		ring->rx_parts = sound ? PARTS_GOOD : PARTS_BAD;
	} else {
		if (before == PARTS_GOOD && !(sound && rx_append(ring, addr, len)))
			ring->rx_parts = PARTS_BAD;
		ring->spare[ring->n_spare++] = ring->rx_held[slot];
	}
	ring->queue.rx_bad += ring->rx_parts == PARTS_BAD && before != PARTS_BAD;
	if (!end)
		return 0;
	before = ring->rx_parts;
	ring->rx_parts = PARTS_NONE;
	if (before == PARTS_BAD) {
		ring->spare[ring->n_spare++] = to_units(ring->rx_packet);
		return 0;
	}
	*out = (struct frame){ .addr = ring->rx_packet,
			       .len = ring->rx_packet_len,
			       .port = ring->queue.port,
			       .flags = rx_bad_flags(ring->rx[slot].low, high) };
	return 1;
}

static inline void rx_fence(const struct umem *umem, const struct frame *frames, unsigned n)
{
#ifdef FRAME_FENCES
	for (unsigned i = 0; i < n; i++)
		fence_raise(frame_data(umem, frame_start(umem, frames[i].addr)), umem->frame_bytes,
			    frame_data(umem, frames[i].addr), frames[i].len);
#else
	(void)umem, (void)frames, (void)n;
#endif
}

static unsigned ring_rx_burst(struct queue *queue, struct frame *frames, unsigned n)
{
	struct ixgbe_ring *ring = ring_of(queue);
	const uint32_t mask = ring->rx_mask, longest = ring->buffer_bytes;
	const uint8_t *base = queue->umem->base;
	const uint16_t port = queue->port;
	uint64_t plain = ring->rx_parts == PARTS_NONE ? RX_PLAIN : NO_WORD;
	uint32_t at = ring->rx_next, end;
	unsigned good = 0;

	end = at + (n < ring->rx_put - at ? n : ring->rx_put - at);
	for (; at != end; at++) {
		uint32_t slot = at & mask;
		uint64_t high = descriptor_load(&ring->rx[slot].high);
		uint32_t len = rx_length(high);

		if (unlikely((high & RX_WATCHED) != plain || len - 1 >= longest)) {
			if (!(high & RX_DONE))
				break;
			good += rx_odd(ring, slot, high, &frames[good]);
			plain = ring->rx_parts == PARTS_NONE ? RX_PLAIN : NO_WORD;
			continue;
		}
		frames[good] = (struct frame){
			.addr = from_units(ring->rx_held[slot]), .len = len, .port = port, .flags = rx_flags(high)
		};
		__builtin_prefetch(base + frames[good].addr);
		good++;
	}
	ring->rx_next = at;
	rx_fence(queue->umem, frames, good);
	return good;
}

/* Frames begin at multiples of 2048 or more, so that packets at the same place in each would share a few sets of the
 * caches. They begin `colours` lines apart, as far as there is room: by bits 12 and up for L1, mixed with the next
 * four for L2, whose sets bits 12 to 15 choose too. */
static inline uint64_t rx_place(const struct ixgbe_ring *ring, uint64_t start)
{
	return start + ring->headroom + (((start >> 12 ^ start >> 16) & ring->colours) << 6);
}

static inline void rx_post(struct ixgbe_ring *ring, uint32_t at, uint64_t addr, const struct dma_map *map)
{
	uint32_t slot = at & ring->rx_mask;

	ring->rx_held[slot] = to_units(addr);
	ring->rx[slot].low = dma_iova(map, addr);
	ring->rx[slot].high = 0;
}

static __attribute__((noinline, cold)) void rx_post_spare(struct ixgbe_ring *ring, uint32_t room)
{
	const struct umem *umem = ring->queue.umem;

	while (ring->n_spare && room--) {
		uint64_t start = frame_start(umem, from_units(ring->spare[--ring->n_spare]));

		rx_post(ring, ring->rx_put++, rx_place(ring, start), &ring->frames);
	}
}

/* The map is a value of the caller's, so that the compiler knows whether it has pages once for all frames. */
static inline __attribute__((always_inline)) void rx_post_all(struct ixgbe_ring *ring, const uint64_t *top, uint32_t n,
							      const struct dma_map map)
{
	uint32_t put = ring->rx_put;

	for (uint32_t i = 0; i < n; i++)
		rx_post(ring, put + i, rx_place(ring, *--top), &map);
	ring->rx_put = put + n;
}

int ixgbe_ring_tell_rx(struct ixgbe_ring *ring)
{
	if (ring->rx_put == ring->rx_rung)
		return 0;
	ring->queue.rx_kicks++;
	if (doorbell_ring(ring->rx_tail, ring->rx_put & ring->rx_mask))
		return -1;
	ring->rx_rung = ring->rx_put;
	return 0;
}

static unsigned ring_refill(struct queue *queue, struct frame_pool *pool)
{
	struct ixgbe_ring *ring = ring_of(queue);
	uint32_t before = ring->rx_put, room = ring->rx_mask - (before - ring->rx_next), n;

	if (room < RING_BATCH && likely(before == ring->rx_rung))
		return 0;
	if (unlikely(ring->n_spare)) {
		rx_post_spare(ring, room);
		room = ring->rx_mask - (ring->rx_put - ring->rx_next);
	}
	n = room < pool->n ? room : pool->n;
	queue->rx_no_frame += n < room;
	if (ring->frames.pages)
		rx_post_all(ring, pool->addr + pool->n, n, ring->frames);
	else
		rx_post_all(ring, pool->addr + pool->n, n, (struct dma_map){ .base = ring->frames.base });
	pool->n -= n;
	ixgbe_ring_tell_rx(ring);
	return ring->rx_put - before;
}

/* ---- sending ---- */

/* Too short for the card: lengthened with zeros. Or no packet in a frame: put aside. Returns its length, 0: not sent. */
static __attribute__((noinline, cold)) uint32_t tx_odd(struct ixgbe_ring *ring, const struct frame *frame)
{
	const struct umem *umem = ring->queue.umem;

	if (frame_is_whole(umem, frame->addr, frame->len) && frame_is_whole(umem, frame->addr, TX_SHORTEST)) {
		fence_drop(frame_data(umem, frame_start(umem, frame->addr)), umem->frame_bytes);
		memset(frame_data(umem, frame->addr + frame->len), 0, TX_SHORTEST - frame->len);
		return TX_SHORTEST;
	}
	ring->queue.tx_bad++;
	if (frame->addr < umem->bytes)
		ring->bad[ring->n_bad++] = to_units(frame_start(umem, frame->addr));
	else
		ring->owed++;
	return 0;
}

/* RS where reclaim will look: at the ends of blocks, and at the last. */
static inline void tx_report(struct ixgbe_ring *ring, uint32_t first, uint32_t end)
{
	uint32_t last = end - 1;

	for (uint32_t block = first | (RING_BATCH - 1); block - first < last - first; block += RING_BATCH)
		ring->tx[block & ring->tx_mask].high |= TX_REPORT;
	ring->tx[last & ring->tx_mask].high |= TX_REPORT;
}

static inline __attribute__((always_inline)) uint32_t tx_put_all(struct ixgbe_ring *ring, const struct frame *frames,
								 unsigned n, const struct dma_map map)
{
	const struct umem *umem = ring->queue.umem;
	const uint64_t bytes = umem->bytes, frame_bytes = umem->frame_bytes;
	uint32_t put = ring->tx_put;

	for (unsigned i = 0; i < n; i++) {
		const uint64_t addr = frames[i].addr, into = addr & (frame_bytes - 1);
		uint32_t len = frames[i].len, slot = put & ring->tx_mask;

		if (unlikely((addr >= bytes) | (into + len > frame_bytes) | (len < TX_SHORTEST))) {
			len = tx_odd(ring, &frames[i]);
			if (len == 0)
				continue;
		}
		ring->tx_held[slot] = to_units(addr - into);
		ring->tx[slot].low = dma_iova(&map, addr);
		ring->tx[slot].high = tx_data(len);
		put++;
	}
	return put;
}

static unsigned ring_tx_burst(struct queue *queue, const struct frame *frames, unsigned n)
{
	struct ixgbe_ring *ring = ring_of(queue);
	uint32_t first = ring->tx_put, room = ring->tx_mask - (first - ring->tx_clean) - ring->n_bad;

	if (n > room)
		n = room;
	if (ring->frames.pages)
		ring->tx_put = tx_put_all(ring, frames, n, ring->frames);
	else
		ring->tx_put = tx_put_all(ring, frames, n, (struct dma_map){ .base = ring->frames.base });
	if (ring->tx_put != first)
		tx_report(ring, first, ring->tx_put);
	return n;
}

int ixgbe_ring_tell_tx(struct ixgbe_ring *ring)
{
	if (ring->tx_put == ring->tx_rung)
		return 0;
	ring->queue.tx_kicks++;
	if (doorbell_ring(ring->tx_tail, ring->tx_put & ring->tx_mask)) {
		ring->queue.tx_refused++;
		return -1;
	}
	ring->tx_rung = ring->tx_put;
	return 0;
}

static void ring_tx_doorbell(struct queue *queue)
{
	ixgbe_ring_tell_tx(ring_of(queue));
}

/* The index up to which all is sent. Only what the card was told of counts: whatever it writes, no frame comes back
 * that it has not had. */
static inline uint32_t tx_sent(struct ixgbe_ring *ring)
{
	uint32_t sent = ring->tx_clean, rung = ring->tx_rung;

	if (ring->tx_head) {
		uint32_t n = (*ring->tx_head - sent) & ring->tx_mask;

		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		return n <= rung - sent ? sent + n : sent;
	}
	while (sent != rung) {
		uint32_t last = sent | (RING_BATCH - 1);

		if (last - sent >= rung - sent)
			last = rung - 1;
		if (!(descriptor_load(&ring->tx[last & ring->tx_mask].high) & TX_DONE))
			break;
		sent = last + 1;
	}
	return sent;
}

static __attribute__((noinline, cold)) unsigned reclaim_odd(struct ixgbe_ring *ring, struct frame_pool *pool)
{
	unsigned n = ring->owed + ring->n_bad;

	while (ring->n_bad)
		frame_pool_put(pool, ring->queue.umem, from_units(ring->bad[--ring->n_bad]));
	ring->owed = 0;
	return n;
}

/* A few packets of a queue that goes on sending are left for a later, larger batch; those of one that does not are
 * looked for. */
static unsigned ring_reclaim(struct queue *queue, struct frame_pool *pool)
{
	struct ixgbe_ring *ring = ring_of(queue);
	uint32_t at = ring->tx_clean, put = ring->tx_put, sent, n;
	bool resting = put == ring->tx_looked;

	ring->tx_looked = put;
	if (put - at < RING_BATCH && !resting)
		return 0;
	sent = tx_sent(ring);
	n = sent - at;
	for (; at != sent; at++)
		frame_pool_put(pool, queue->umem, from_units(ring->tx_held[at & ring->tx_mask]));
	ring->tx_clean = sent;
	if (unlikely(ring->n_bad | ring->owed))
		n += reclaim_odd(ring, pool);
	return n;
}

const struct queue_ops ixgbe_ring_ops = {
	.rx_burst = ring_rx_burst,
	.tx_burst = ring_tx_burst,
	.tx_doorbell = ring_tx_doorbell,
	.reclaim = ring_reclaim,
	.refill = ring_refill,
	.arm = ixgbe_ring_arm,
	.disarm = ixgbe_ring_disarm,
};
