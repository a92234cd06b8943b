/* A queue made of memory. The worker calls it through queue_ops; tests and benchmarks play the wire.
 *
 * Receive: the worker puts free frames on `fill`, the wire takes one per packet and puts it on `rx`, the worker
 * takes it from there. Transmit: the worker puts packets on `tx`; those before the last doorbell are the wire's to
 * send; those sent are the worker's to reclaim. Each index has one writer, so the wire may be another thread.
 *
 * Invariants: fill and rx together hold at most ring_slots frames, tx too, so no ring can overflow.
 * Indexes run freely and wrap at 2^32; they start just below that, so that every user passes the wrap.
 */
#include "driver/memport.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADROOM 256u	  /* before a received packet, as AF_XDP leaves it (XDP_PACKET_HEADROOM) */
#define FIRST_INDEX (-8u) /* eight packets before the wrap */

struct memport {
	struct queue queue; /* first: queue_ops get a pointer to it */
	uint32_t slots;
	uint64_t *fill;
	struct frame *rx;
	struct frame *tx;
	/* The worker's. */
	_Alignas(64) _Atomic uint32_t fill_put;
	_Atomic uint32_t tx_bell;
	_Atomic int armed;
	uint32_t rx_taken;
	uint32_t tx_put;
	uint32_t tx_reclaimed;
	/* The wire's. */
	_Alignas(64) _Atomic uint32_t rx_put;
	_Atomic uint32_t tx_sent;
	uint32_t fill_taken;
};

static struct memport *memport_of(struct queue *queue)
{
	return (struct memport *)queue;
}

static unsigned at_most(uint32_t n, unsigned limit)
{
	return n < limit ? n : limit;
}

static unsigned memport_rx_burst(struct queue *queue, struct frame *frames, unsigned n)
{
	struct memport *m = memport_of(queue);

	n = at_most(atomic_load_explicit(&m->rx_put, memory_order_acquire) - m->rx_taken, n);
	for (unsigned i = 0; i < n; i++)
		frames[i] = m->rx[m->rx_taken++ & (m->slots - 1)];
	return n;
}

static unsigned memport_tx_burst(struct queue *queue, const struct frame *frames, unsigned n)
{
	struct memport *m = memport_of(queue);

	n = at_most(m->slots - (m->tx_put - m->tx_reclaimed), n);
	for (unsigned i = 0; i < n; i++)
		m->tx[m->tx_put++ & (m->slots - 1)] = frames[i];
	return n;
}

static void memport_tx_doorbell(struct queue *queue)
{
	struct memport *m = memport_of(queue);

	if (atomic_load_explicit(&m->tx_bell, memory_order_relaxed) == m->tx_put)
		return;
	atomic_store_explicit(&m->tx_bell, m->tx_put, memory_order_release);
	queue->tx_kicks++;
}

static unsigned memport_reclaim(struct queue *queue, struct frame_pool *pool)
{
	struct memport *m = memport_of(queue);
	uint32_t n = atomic_load_explicit(&m->tx_sent, memory_order_acquire) - m->tx_reclaimed;

	for (uint32_t i = 0; i < n; i++)
		frame_pool_put(pool, queue->umem, m->tx[m->tx_reclaimed++ & (m->slots - 1)].addr);
	return n;
}

static unsigned memport_refill(struct queue *queue, struct frame_pool *pool)
{
	struct memport *m = memport_of(queue);
	uint32_t put = atomic_load_explicit(&m->fill_put, memory_order_relaxed);
	uint32_t room = m->slots - (put - m->rx_taken);
	uint32_t n = 0;

	while (n < room && frame_pool_get(pool, &m->fill[(put + n) & (m->slots - 1)], 1))
		n++;
	if (n < room)
		queue->rx_no_frame++;
	atomic_store_explicit(&m->fill_put, put + n, memory_order_release);
	return n;
}

/* armed is stored before rx_put is read, and the wire stores rx_put before it reads armed (both sequentially
 * consistent): either the worker sees the packet here or the wire sees the worker sleeping. */
static unsigned memport_arm(struct queue *queue)
{
	struct memport *m = memport_of(queue);

	memport_tx_doorbell(queue);
	atomic_store(&m->armed, 1);
	return atomic_load(&m->rx_put) - m->rx_taken;
}

static void memport_disarm(struct queue *queue)
{
	struct memport *m = memport_of(queue);
	uint64_t events;

	atomic_store(&m->armed, 0);
	/* Non-blocking: an event that comes after this read makes the next sleep short, no more. */
	if (queue->wait_fd >= 0 && read(queue->wait_fd, &events, sizeof(events)) < 0)
		return;
}

static const struct queue_ops memport_ops = {
	.rx_burst = memport_rx_burst,
	.tx_burst = memport_tx_burst,
	.tx_doorbell = memport_tx_doorbell,
	.reclaim = memport_reclaim,
	.refill = memport_refill,
	.arm = memport_arm,
	.disarm = memport_disarm,
};

int memport_deliver(struct memport *m, const uint8_t *packet, uint32_t len)
{
	const struct umem *umem = m->queue.umem;
	uint32_t put = atomic_load_explicit(&m->rx_put, memory_order_relaxed);
	uint64_t one = 1;
	uint64_t addr;

	if (len == 0 || len > umem->frame_bytes - HEADROOM)
		return -EMSGSIZE;
	if (m->fill_taken == atomic_load_explicit(&m->fill_put, memory_order_acquire))
		return -ENOBUFS;
	addr = m->fill[m->fill_taken++ & (m->slots - 1)] + HEADROOM;
	memcpy(frame_data(umem, addr), packet, len);
	fence_raise(frame_data(umem, addr - HEADROOM), umem->frame_bytes, frame_data(umem, addr), len);
	m->rx[put & (m->slots - 1)] = (struct frame){.addr = addr, .len = len, .port = m->queue.port};
	atomic_store(&m->rx_put, put + 1);
	/* A failed write means that the counter is full: the event is already there. */
	if (atomic_exchange(&m->armed, 0) && m->queue.wait_fd >= 0 && write(m->queue.wait_fd, &one, sizeof(one)) < 0)
		return 0;
	return 0;
}

uint32_t memport_collect(struct memport *m, uint8_t *packet, uint32_t room)
{
	uint32_t bell = atomic_load_explicit(&m->tx_bell, memory_order_acquire);
	uint32_t sent = atomic_load_explicit(&m->tx_sent, memory_order_relaxed);
	uint32_t len = 0;

	while (sent != bell && len == 0) {
		const struct frame *frame = &m->tx[sent++ & (m->slots - 1)];

		if (!frame_is_whole(m->queue.umem, frame->addr, frame->len) || frame->len > room) {
			m->queue.tx_bad++;
			continue;
		}
		len = frame->len;
		memcpy(packet, frame_data(m->queue.umem, frame->addr), len);
	}
	atomic_store_explicit(&m->tx_sent, sent, memory_order_release);
	return len;
}

void memport_set_event(struct memport *m, int event)
{
	m->queue.wait_fd = event;
}

struct queue *memport_queue(struct memport *m)
{
	return &m->queue;
}

struct memport *memport_create(const struct umem *umem, uint16_t port, uint16_t number, uint32_t ring_slots)
{
	struct memport *m;

	if (ring_slots == 0 || ring_slots & (ring_slots - 1) || posix_memalign((void **)&m, 64, sizeof(*m)))
		return NULL;
	memset(m, 0, sizeof(*m));
	m->queue = (struct queue){.ops = &memport_ops, .umem = umem, .wait_fd = -1, .port = port, .number = number};
	m->slots = ring_slots;
	m->fill = calloc(ring_slots, sizeof(*m->fill));
	m->rx = calloc(ring_slots, sizeof(*m->rx));
	m->tx = calloc(ring_slots, sizeof(*m->tx));
	if (!m->fill || !m->rx || !m->tx) {
		memport_destroy(m);
		return NULL;
	}
	m->fill_put = m->tx_bell = m->rx_put = m->tx_sent = FIRST_INDEX;
	m->rx_taken = m->tx_put = m->tx_reclaimed = m->fill_taken = FIRST_INDEX;
	return m;
}

void memport_destroy(struct memport *m)
{
	if (!m)
		return;
	if (m->queue.umem->base) /* the mapping's addresses may next be somebody else's */
		fence_drop(m->queue.umem->base, m->queue.umem->bytes);
	free(m->fill);
	free(m->rx);
	free(m->tx);
	free(m);
}
