/* The four rings of an AF_XDP socket (kernel: Documentation/networking/af_xdp.rst, net/xdp/xsk.c). The worker calls
 * it through queue_ops; Python sets it up.
 *
 *	fill:       free frames, us -> kernel          rx: packets, kernel -> us
 *	tx:         packets, us -> kernel      completion: sent frames, kernel -> us
 *
 * Invariants:
 *  - held[i] says whether frame i is this queue's, and for which way. A descriptor from the kernel counts only if
 *    it names a frame that was given to it: whatever the kernel writes, a frame never gets two owners.
 *  - fill and rx together hold at most rx_slots frames, tx and completion at most tx_slots. So no ring ever
 *    overflows, on either side, and the kernel always has room for what it must give back.
 */
#include "driver/xsk.h"

#include <errno.h>
#include <linux/if_xdp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>

_Static_assert(offsetof(struct frame, len) == offsetof(struct xdp_desc, len), "struct frame begins as xdp_desc");

enum held { NOT_HELD, HELD_RX, HELD_TX, HELD_BAD };

struct ring {
	uint32_t *producer; /* shared with the kernel */
	uint32_t *consumer;
	const uint32_t *flags;
	void *desc;
	uint32_t slots; /* 0: there is no such ring */
	uint32_t own;	/* the index that we write, ahead of what the kernel may see */
	uint32_t seen;	/* the kernel's index when last looked at */
};

struct xsk_queue {
	struct queue queue; /* first: queue_ops get a pointer to it */
	struct ring ring[4];
	uint32_t rx_held; /* frames in fill and rx and between */
	uint32_t tx_held; /* in tx and completion and between */
	uint32_t n_bad;
	uint32_t bad_sent; /* of those, how many were handed over to be sent */
	uint32_t bad_room;
	uint32_t budget;
	unsigned frame_shift; /* log2(frame_bytes): no division per packet */
	int tx_errno; /* of the last kick; 0: it sent everything */
	uint8_t *held;
	uint64_t *bad; /* frames of packets that could not be used: back to the pool at the next reclaim */
};

static struct xsk_queue *xsk_of(struct queue *queue)
{
	return (struct xsk_queue *)queue;
}

/* ---- rings ---- */

/* Entries to consume, up to `want`; looks at the shared index only when the last look does not suffice. */
static unsigned ring_filled(struct ring *ring, unsigned want)
{
	uint32_t n = ring->seen - ring->own;

	if (n < want) {
		ring->seen = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
		n = ring->seen - ring->own;
		if (n > ring->slots) { /* no kernel does this; reading past the ring is what it would cost */
			ring->seen = ring->own;
			n = 0;
		}
	}
	return n < want ? n : want;
}

static void ring_consumed(struct ring *ring, uint32_t n)
{
	ring->own += n;
	__atomic_store_n(ring->consumer, ring->own, __ATOMIC_RELEASE);
}

static void ring_produced(struct ring *ring, uint32_t n)
{
	ring->own += n;
	__atomic_store_n(ring->producer, ring->own, __ATOMIC_RELEASE);
}

static int ring_wants_kick(const struct ring *ring)
{
	return (int)(__atomic_load_n(ring->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP);
}

static uint64_t *ring_addr(const struct ring *ring, uint32_t index)
{
	return (uint64_t *)ring->desc + (index & (ring->slots - 1));
}

static struct xdp_desc *ring_desc(const struct ring *ring, uint32_t index)
{
	return (struct xdp_desc *)ring->desc + (index & (ring->slots - 1));
}

/* ---- who has which frame ---- */

static uint8_t *held_at(const struct xsk_queue *q, uint64_t addr)
{
	return &q->held[addr >> q->frame_shift];
}

/* Takes the frame of an address that the kernel gave, if it was given to the kernel for that. */
static int held_take(struct xsk_queue *q, uint64_t addr, enum held way)
{
	if (addr >= q->queue.umem->bytes || *held_at(q, addr) != way)
		return 0;
	*held_at(q, addr) = NOT_HELD;
	return 1;
}

/* Puts the frame of an unusable packet aside. Without room it stays held, for recover. */
static void bad_put(struct xsk_queue *q, uint64_t addr)
{
	*held_at(q, addr) = HELD_BAD;
	if (q->n_bad < q->bad_room)
		q->bad[q->n_bad++] = frame_start(q->queue.umem, addr);
}

/* ---- receiving ---- */

static unsigned xsk_rx_burst(struct queue *queue, struct frame *frames, unsigned n)
{
	struct xsk_queue *q = xsk_of(queue);
	struct ring *rx = &q->ring[XSK_RX];
	unsigned good = 0;

	n = ring_filled(rx, n);
	for (unsigned i = 0; i < n; i++) {
		const struct xdp_desc desc = *ring_desc(rx, rx->own + i);

		if (!held_take(q, desc.addr, HELD_RX)) {
			queue->rx_bad++;
			continue;
		}
		q->rx_held--;
		if (!frame_is_whole(queue->umem, desc.addr, desc.len)) {
			queue->rx_bad++;
			bad_put(q, desc.addr);
			continue;
		}
		frames[good++] = (struct frame){.addr = desc.addr, .len = desc.len, .port = queue->port};
	}
	if (n)
		ring_consumed(rx, n);
	return good;
}

/* The kernel asks for a call when it ran out of frames (only zero-copy drivers do): poll, which wakes both ways. */
static void fill_kick(struct xsk_queue *q)
{
	struct pollfd pollfd = {.fd = q->queue.wait_fd, .events = POLLIN};

	/* What it found is not asked: the rx ring tells. It cannot fail in a way that trying later does not cure. */
	if (poll(&pollfd, 1, 0) >= 0)
		q->queue.rx_kicks++;
}

static unsigned xsk_refill(struct queue *queue, struct frame_pool *pool)
{
	struct xsk_queue *q = xsk_of(queue);
	struct ring *fill = &q->ring[XSK_FILL];
	uint32_t room = fill->slots - q->rx_held;
	uint32_t first = fill->slots - (fill->own & (fill->slots - 1)); /* slots until the end of the array */
	uint32_t n;

	if (room) {
		n = frame_pool_get(pool, ring_addr(fill, fill->own), room < first ? room : first);
		if (n == first && room > first)
			n += frame_pool_get(pool, ring_addr(fill, 0), room - first);
		if (n < room)
			queue->rx_no_frame++;
		for (uint32_t i = 0; i < n; i++)
			*held_at(q, *ring_addr(fill, fill->own + i)) = HELD_RX;
		q->rx_held += n;
		ring_produced(fill, n);
		room = n;
	}
	/* Asked on every pass, not only after adding: the kernel may set the flag after we looked. */
	if (q->rx_held && ring_wants_kick(fill))
		fill_kick(q);
	return room;
}

/* ---- sending ---- */

static unsigned xsk_tx_burst(struct queue *queue, const struct frame *frames, unsigned n)
{
	struct xsk_queue *q = xsk_of(queue);
	struct ring *tx = &q->ring[XSK_TX];
	uint32_t room = tx->slots - q->tx_held;
	uint32_t put = 0;

	if (n > room)
		n = room;
	for (unsigned i = 0; i < n; i++) {
		const struct frame frame = frames[i];

		/* The kernel would skip such a descriptor and never give its frame back (xskq_cons_is_valid_desc). */
		if (!frame_is_whole(queue->umem, frame.addr, frame.len)) {
			queue->tx_bad++;
			if (frame.addr < queue->umem->bytes) {
				bad_put(q, frame.addr);
				q->bad_sent++;
			}
			continue;
		}
		*held_at(q, frame.addr) = HELD_TX;
		*ring_desc(tx, tx->own + put++) = (struct xdp_desc){.addr = frame.addr, .len = frame.len};
	}
	if (put) {
		q->tx_held += put;
		ring_produced(tx, put);
	}
	return n;
}

static uint32_t tx_outstanding(const struct xsk_queue *q)
{
	const struct ring *tx = &q->ring[XSK_TX];

	return tx->slots ? tx->own - __atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE) : 0;
}

/* In copy mode the kernel sends inside sendto, `budget` packets per call, and says EAGAIN when there are more; older
 * kernels move the consumer index only when the ring is empty, so that cannot be the measure of progress. In
 * zero-copy mode one call wakes the driver. EBUSY also says that one packet was dropped, the rest not yet looked at. */
static void xsk_tx_doorbell(struct queue *queue)
{
	struct xsk_queue *q = xsk_of(queue);
	uint32_t outstanding = tx_outstanding(q);

	if (outstanding == 0 || !ring_wants_kick(&q->ring[XSK_TX]))
		return;
	for (uint32_t kicks = outstanding / q->budget + 2; kicks > 0; kicks--) {
		queue->tx_kicks++;
		q->tx_errno = sendto(queue->wait_fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 ? errno : 0;
		if (q->tx_errno != EAGAIN && q->tx_errno != EBUSY)
			break;
	}
	/* ENOBUFS, ENETDOWN and whatever else: the packets stay in the ring for the next doorbell. */
	if (q->tx_errno)
		queue->tx_refused++;
}

static unsigned xsk_reclaim(struct queue *queue, struct frame_pool *pool)
{
	struct xsk_queue *q = xsk_of(queue);
	struct ring *done = &q->ring[XSK_COMPLETION];
	unsigned n = q->tx_held ? ring_filled(done, q->tx_held) : 0;
	unsigned taken = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t addr = *ring_addr(done, done->own + i);

		if (!held_take(q, addr, HELD_TX)) {
			queue->tx_bad++;
			continue;
		}
		frame_pool_put(pool, queue->umem, addr);
		taken++;
	}
	if (n)
		ring_consumed(done, n);
	q->tx_held -= taken;
	while (q->n_bad) {
		uint64_t addr = q->bad[--q->n_bad];

		*held_at(q, addr) = NOT_HELD;
		frame_pool_put(pool, queue->umem, addr);
	}
	/* Received ones come back here too, but the caller counts what it handed over. */
	taken += q->bad_sent;
	q->bad_sent = 0;
	return taken;
}

/* ---- sleeping ---- */

/* Nothing to unmask: the socket is readable while its rx ring is not empty (xsk_poll), so no packet can come between
 * looking and sleeping unseen. What could be missed is what the kernel waits for from us. */
static unsigned xsk_arm(struct queue *queue)
{
	struct xsk_queue *q = xsk_of(queue);
	unsigned there;

	/* Our indexes must be visible before the flags are read, or both sides could wait for the other. */
	atomic_thread_fence(memory_order_seq_cst);
	if (q->rx_held && ring_wants_kick(&q->ring[XSK_FILL]))
		fill_kick(q);
	xsk_tx_doorbell(queue);
	there = ring_filled(&q->ring[XSK_RX], q->ring[XSK_RX].slots);
	/* The kernel was busy with what it has, and tells nobody when it no longer is: come back instead of sleeping.
	 * Other errors (interface down) last; then packets wait for the next doorbell. */
	if (there == 0 && tx_outstanding(q) && (q->tx_errno == EAGAIN || q->tx_errno == EBUSY))
		return 1;
	return there;
}

static void xsk_disarm(struct queue *queue)
{
	(void)queue;
}

static const struct queue_ops xsk_ops = {
	.rx_burst = xsk_rx_burst,
	.tx_burst = xsk_tx_burst,
	.tx_doorbell = xsk_tx_doorbell,
	.reclaim = xsk_reclaim,
	.refill = xsk_refill,
	.arm = xsk_arm,
	.disarm = xsk_disarm,
};

/* ---- life, from Python ---- */

struct queue *xsk_queue_create(const struct umem *umem, int fd, uint16_t port, uint16_t number)
{
	struct xsk_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->queue = (struct queue){.ops = &xsk_ops, .umem = umem, .wait_fd = fd, .port = port, .number = number};
	q->budget = 32; /* TX_BATCH_SIZE in net/xdp/xsk.c */
	q->frame_shift = (unsigned)__builtin_ctz(umem->frame_bytes);
	q->bad_room = umem->n_frames;
	q->held = calloc(umem->n_frames, sizeof(*q->held));
	q->bad = calloc(umem->n_frames, sizeof(*q->bad));
	if (!q->held || !q->bad) {
		xsk_queue_destroy(&q->queue);
		return NULL;
	}
	return &q->queue;
}

int xsk_queue_set_ring(struct queue *queue, unsigned which, void *map, const uint64_t offsets[4], uint32_t slots)
{
	struct xsk_queue *q = xsk_of(queue);
	struct ring *ring;

	if (which > XSK_COMPLETION || slots == 0 || slots & (slots - 1))
		return -EINVAL;
	ring = &q->ring[which];
	ring->producer = (uint32_t *)((uint8_t *)map + offsets[0]);
	ring->consumer = (uint32_t *)((uint8_t *)map + offsets[1]);
	ring->desc = (uint8_t *)map + offsets[2];
	ring->flags = (const uint32_t *)((uint8_t *)map + offsets[3]);
	ring->slots = slots;
	/* The kernel's rings start at 0; others may start where they like. */
	ring->own = which == XSK_TX || which == XSK_FILL ? *ring->producer : *ring->consumer;
	ring->seen = ring->own;
	return 0;
}

void xsk_queue_set_budget(struct queue *queue, uint32_t packets)
{
	xsk_of(queue)->budget = packets ? packets : 1;
}

uint32_t xsk_queue_frames(const struct queue *queue)
{
	const struct xsk_queue *q = (const struct xsk_queue *)queue;
	uint32_t n = 0;

	for (uint32_t i = 0; i < queue->umem->n_frames; i++)
		n += q->held[i] != NOT_HELD;
	return n;
}

uint32_t xsk_queue_recover(struct queue *queue, struct frame_pool *pool)
{
	struct xsk_queue *q = xsk_of(queue);
	uint32_t n = 0;

	for (uint32_t i = 0; i < queue->umem->n_frames; i++) {
		if (q->held[i] == NOT_HELD)
			continue;
		q->held[i] = NOT_HELD;
		frame_pool_put(pool, queue->umem, (uint64_t)i * queue->umem->frame_bytes);
		n++;
	}
	q->rx_held = q->tx_held = q->n_bad = q->bad_sent = 0;
	return n;
}

void xsk_queue_destroy(struct queue *queue)
{
	struct xsk_queue *q = xsk_of(queue);

	if (!q)
		return;
	free(q->held);
	free(q->bad);
	free(q);
}
