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
#include <stddef.h>
#include <string.h>

#define RX_WATCHED (RX_DONE | RX_END | RX_ERROR | RX_IP_ERROR | RX_L4_ERROR)
#define RX_PLAIN (RX_DONE | RX_END)

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- receiving ---- */

/* The 82599 reports UDP without a checksum (zero: RFC 768) as an error of it (specification update), so an L4 error in
 * UDP says nothing. A checksum that was not looked at has no error. */
static uint16_t rx_flags(uint64_t low, uint64_t high)
{
	bool udp = low & RX_LOW_UDP && !(low & RX_LOW_FILTERED);
	unsigned flags = 0;

	if (high & RX_IP_CHECKED)
		flags |= high & RX_IP_ERROR ? FRAME_IP_BAD : FRAME_IP_GOOD;
	if (high & RX_L4_CHECKED && !(high & RX_L4_ERROR))
		flags |= FRAME_L4_GOOD;
	else if (high & RX_L4_CHECKED && !udp)
		flags |= FRAME_L4_BAD;
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

/* A descriptor of any kind that is done: a packet, a part of one, one with an error, one that no card writes. The first
 * frame of a packet collects what follows. Returns whether a packet came of it. */
static unsigned rx_one(struct ixgbe_ring *ring, uint32_t slot, uint64_t high, struct frame *out)
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
			       .flags = rx_flags(ring->rx[slot].low, high) };
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

/* The rest of a burst in which there is something odd: one descriptor at a time. `good` packets of it are in frames. */
static __attribute__((noinline, cold)) unsigned rx_rest(struct ixgbe_ring *ring, struct frame *frames, uint32_t end,
							unsigned good)
{
	for (; ring->rx_next != end; ring->rx_next++) {
		uint32_t slot = ring->rx_next & ring->rx_mask;
		uint64_t high = descriptor_load(&ring->rx[slot].high);

		if (!(high & RX_DONE))
			break;
		good += rx_one(ring, slot, high, &frames[good]);
	}
	rx_fence(ring->queue.umem, frames, good);
	return good;
}

/* len, port and flags of a frame whose packet has no error, as one word. */
static inline uint64_t rx_word(uint64_t high, uint64_t port)
{
	_Static_assert(FRAME_IP_GOOD == RX_IP_CHECKED && FRAME_L4_GOOD == RX_L4_CHECKED, "no error: looked at is good");
	_Static_assert(offsetof(struct frame, port) == 12 && offsetof(struct frame, flags) == 14, "bits 32 and 48");
	return rx_length(high) | port << 32 | (high & (RX_IP_CHECKED | RX_L4_CHECKED)) << 48;
}

static inline void frame_write(struct frame *frame, uint64_t addr, uint64_t word)
{
	memcpy(&frame->addr, &addr, sizeof(addr));
	memcpy((uint8_t *)frame + sizeof(addr), &word, sizeof(word));
}

/* Fields of the ring are read where they are needed, here and in tx_burst: copies of all of them cost more registers,
 * and their saving and restoring, than a burst of one packet takes. */
static unsigned ring_rx_burst(struct queue *queue, struct frame *frames, unsigned n)
{
	struct ixgbe_ring *const ring = ring_of(queue);
	const uint64_t port = queue->port;
	uint32_t at = ring->rx_next, end = ring->rx_put;
	struct frame *out = frames;

	if (end - at > n)
		end = at + n;
	if (unlikely(ring->rx_parts != PARTS_NONE))
		return rx_rest(ring, frames, end, 0);
	for (; at != end; at++) {
		const uint32_t slot = at & ring->rx_mask;
		const uint64_t high = descriptor_load(&ring->rx[slot].high);
		const uint64_t addr = from_units(ring->rx_held[slot]);

		if (unlikely((high & RX_WATCHED) != RX_PLAIN || rx_length(high) - 1 >= ring->buffer_bytes)) {
			if (!(high & RX_DONE))
				break;
			ring->rx_next = at;
			return rx_rest(ring, frames, end, (unsigned)(out - frames));
		}
		frame_write(out++, addr, rx_word(high, port));
		__builtin_prefetch(ring->base + addr);
	}
	ring->rx_next = at;
	rx_fence(queue->umem, frames, (unsigned)(out - frames));
	return (unsigned)(out - frames);
}

/* Frames begin at multiples of 2048 or more, so that packets at the same place in each would share a few sets of the
 * caches. They begin `colours` lines apart, as far as there is room: by bits 12 and up for L1, mixed with the next
 * four for L2, whose sets bits 12 to 15 choose too. */
static inline uint64_t rx_place(const struct ixgbe_ring *ring, uint64_t start)
{
	return start + ring->headroom + (((start >> 12 ^ start >> 16) & ring->colours) << 6);
}

static inline void rx_post(const struct ixgbe_ring *ring, uint32_t at, uint64_t start)
{
	uint32_t slot = at & ring->rx_mask;
	uint64_t addr = rx_place(ring, start);

	ring->rx_held[slot] = to_units(addr);
	ring->rx[slot].low = dma_iova(&ring->frames, addr);
	ring->rx[slot].high = 0;
}

static __attribute__((noinline, cold)) void rx_post_spare(struct ixgbe_ring *ring, uint32_t room)
{
	while (ring->n_spare && room--)
		rx_post(ring, ring->rx_put++, frame_start(ring->queue.umem, from_units(ring->spare[--ring->n_spare])));
}

/* From the top of the pool: the frames used last are the likeliest to be in a cache. */
static __attribute__((noinline)) unsigned rx_post_batch(struct ixgbe_ring *ring, struct frame_pool *pool)
{
	const struct ixgbe_ring fixed = *ring; /* as no store to the lists can change it, it stays in registers */
	const uint32_t before = ring->rx_put;
	uint32_t room = ring->rx_mask - (before - ring->rx_next), n, put;
	const uint64_t *top;

	if (unlikely(ring->n_spare)) {
		rx_post_spare(ring, room);
		room = ring->rx_mask - (ring->rx_put - ring->rx_next);
	}
	n = room < pool->n ? room : pool->n;
	ring->queue.rx_no_frame += n < room;
	top = pool->addr + pool->n;
	put = ring->rx_put;
	for (uint32_t i = 0; i < n; i++)
		rx_post(&fixed, put + i, *--top);
	pool->n -= n;
	ring->rx_put = put + n;
	ixgbe_ring_tell_rx(ring);
	return ring->rx_put - before;
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
	uint32_t put = ring->rx_put, room = ring->rx_mask - (put - ring->rx_next);

	if (room < RING_BATCH && likely(put == ring->rx_rung))
		return 0;
	return rx_post_batch(ring, pool);
}

/* ---- sending ---- */

/* What to send of a frame: too short a packet for the card is lengthened with zeros; what is no packet in a frame is put
 * aside (0). */
static uint32_t tx_length(struct ixgbe_ring *ring, const struct frame *frame)
{
	const struct umem *umem = ring->queue.umem;

	if (frame_is_whole(umem, frame->addr, frame->len)) {
		if (frame->len >= TX_SHORTEST)
			return frame->len;
		if (frame_is_whole(umem, frame->addr, TX_SHORTEST)) {
			fence_drop(frame_data(umem, frame_start(umem, frame->addr)), umem->frame_bytes);
			memset(frame_data(umem, frame->addr + frame->len), 0, TX_SHORTEST - frame->len);
			return TX_SHORTEST;
		}
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

	for (uint32_t block = first | (RING_BATCH - 1); unlikely(block - first < last - first); block += RING_BATCH)
		ring->tx[block & ring->tx_mask].high |= TX_REPORT;
	ring->tx[last & ring->tx_mask].high |= TX_REPORT;
}

static inline void tx_post(struct ixgbe_ring *ring, uint32_t at, uint64_t addr, uint32_t len)
{
	uint32_t slot = at & ring->tx_mask;

	ring->tx_held[slot] = to_units(addr);
	ring->tx[slot].low = dma_iova(&ring->frames, addr);
	ring->tx[slot].high = tx_data(len);
}

/* The rest of a burst in which there is something odd. Returns how many of the n were taken. */
static __attribute__((noinline, cold)) unsigned tx_rest(struct ixgbe_ring *ring, const struct frame *frames, unsigned n,
							uint32_t put)
{
	uint32_t first = ring->tx_put;
	unsigned i;

	for (i = 0; i < n && ring->n_bad <= ring->tx_mask; i++) {
		uint32_t len = tx_length(ring, &frames[i]);

		if (len)
			tx_post(ring, put++, frames[i].addr, len);
	}
	ring->tx_put = put;
	if (put != first)
		tx_report(ring, first, put);
	return i;
}

static unsigned ring_tx_burst(struct queue *queue, const struct frame *frames, unsigned n)
{
	struct ixgbe_ring *const ring = ring_of(queue);
	const uint32_t first = ring->tx_put;
	const uint32_t room = ring->tx_mask - (first - ring->tx_clean);
	const struct frame *frame = frames;
	uint32_t put = first, end;

	end = first + (n < room ? n : room);
	if (unlikely(end == first))
		return 0;
	for (; put != end; put++, frame++) {
		const uint64_t addr = frame->addr;
		const uint32_t len = frame->len, slot = put & ring->tx_mask;

		/* Too short and too long at once: the one is a large number, for the other there is less room. */
		if (unlikely(addr >= ring->bytes ||
			     (int64_t)(len - TX_SHORTEST) > ring->last_start - (int64_t)(addr & ring->frame_mask)))
			return put - first + tx_rest(ring, frame, end - put, put);
		ring->tx_held[slot] = to_units(addr);
		ring->tx[slot].low = dma_iova(&ring->frames, addr);
		ring->tx[slot].high = tx_data(len);
	}
	ring->tx_put = end;
	tx_report(ring, first, end);
	return end - first;
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

static __attribute__((noinline)) unsigned reclaim_batch(struct ixgbe_ring *ring, struct frame_pool *pool)
{
	const uint32_t first = ring->tx_clean, n = tx_sent(ring) - first, mask = ring->tx_mask;
	const uint32_t *const held = ring->tx_held;
	const struct umem umem = *ring->queue.umem;

	for (uint32_t i = 0; i < n; i++)
		frame_pool_put(pool, &umem, from_units(held[(first + i) & mask]));
	ring->tx_clean = first + n;
	return unlikely(ring->n_bad | ring->owed) ? n + reclaim_odd(ring, pool) : n;
}

/* A few packets of a queue that goes on sending are left for a later, larger batch; those of one that does not are
 * looked for. */
static unsigned ring_reclaim(struct queue *queue, struct frame_pool *pool)
{
	struct ixgbe_ring *ring = ring_of(queue);
	uint32_t put = ring->tx_put, looked = ring->tx_looked;

	ring->tx_looked = put;
	if (put - ring->tx_clean < RING_BATCH && put != looked)
		return 0;
	return reclaim_batch(ring, pool);
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
