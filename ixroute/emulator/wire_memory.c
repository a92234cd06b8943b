/* A wire in memory (wire_memory.h). wire_ops are called by the engine's thread, put and take by the far end's.
 *
 * Invariants: a ring's `put` is written by its writer, `taken` by its reader; both run freely and their difference is at
 * most the ring's size. A record is a header of eight bytes and the packet, rounded up to eight, never split over the
 * ring's end: a record of length SKIP fills what is left there. What receive gave away is freed by the next receive.
 */
#include "emulator/wire_memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SKIP UINT32_MAX

struct byte_ring {
	uint8_t *bytes;
	uint32_t size;
	_Alignas(64) _Atomic uint32_t put;
	_Alignas(64) _Atomic uint32_t taken;
};

struct record {
	uint32_t len;
	uint32_t step; /* bytes to the next record */
};

struct wire_memory {
	struct wire wire; /* first: wire_ops get a pointer to it */
	struct byte_ring in, out;
	uint32_t next; /* where receive goes on */
	_Atomic uint32_t repeat;
	_Atomic int held;
	_Atomic int armed;
	int event;
};

static bool ring_put(struct byte_ring *ring, const uint8_t *data, uint32_t len)
{
	uint32_t put = atomic_load_explicit(&ring->put, memory_order_relaxed);
	uint32_t taken = atomic_load_explicit(&ring->taken, memory_order_acquire);
	uint32_t at = put & (ring->size - 1), step = (uint32_t)sizeof(struct record) + ((len + 7) & ~7u);
	uint32_t skip = at + step > ring->size ? ring->size - at : 0;
	struct record record = {SKIP, skip};

	if (skip + step > ring->size - (put - taken))
		return false;
	if (skip) {
		memcpy(ring->bytes + at, &record, sizeof(record));
		at = 0;
	}
	record = (struct record){len, step};
	memcpy(ring->bytes + at, &record, sizeof(record));
	memcpy(ring->bytes + at + sizeof(record), data, len);
	/* Sequentially consistent with `armed`: either the reader sees the packet, or this side sees the reader asleep. */
	atomic_store(&ring->put, put + skip + step);
	return true;
}

/* The packet at *at, which moves behind it; NULL at the end. */
static const uint8_t *ring_get(const struct byte_ring *ring, uint32_t *at, uint32_t put, uint32_t *len)
{
	while (*at != put) {
		const uint8_t *bytes = ring->bytes + (*at & (ring->size - 1));
		struct record record;

		memcpy(&record, bytes, sizeof(record));
		*at += record.step;
		if (record.len != SKIP) {
			*len = record.len;
			return bytes + sizeof(record);
		}
	}
	return NULL;
}

static unsigned memory_receive(struct wire *wire, struct wire_packet *packets, unsigned n)
{
	struct wire_memory *m = (struct wire_memory *)wire;
	uint32_t put = atomic_load_explicit(&m->in.put, memory_order_acquire);
	uint32_t repeat = atomic_load_explicit(&m->repeat, memory_order_relaxed);
	unsigned i;

	if (repeat) {
		n = n < repeat ? n : repeat;
		if (m->next == put)
			m->next = atomic_load_explicit(&m->in.taken, memory_order_relaxed);
	} else {
		atomic_store_explicit(&m->in.taken, m->next, memory_order_release);
	}
	for (i = 0; i < n; i++) {
		packets[i].data = ring_get(&m->in, &m->next, put, &packets[i].len);
		if (!packets[i].data)
			break;
		wire->rx_bytes += packets[i].len;
	}
	wire->rx_packets += i;
	return i;
}

static unsigned memory_send(struct wire *wire, const struct wire_packet *packets, unsigned n)
{
	struct wire_memory *m = (struct wire_memory *)wire;
	bool gone = atomic_load_explicit(&m->repeat, memory_order_relaxed) != 0;
	unsigned i;

	if (atomic_load_explicit(&m->held, memory_order_relaxed))
		return 0;
	for (i = 0; i < n; i++) {
		if (!gone && !ring_put(&m->out, packets[i].data, packets[i].len))
			break;
		wire->tx_bytes += packets[i].len;
	}
	wire->tx_packets += i;
	return i;
}

static int memory_arm(struct wire *wire)
{
	struct wire_memory *m = (struct wire_memory *)wire;

	atomic_store(&m->armed, 1);
	if (atomic_load(&m->repeat))
		return m->event < 0 || atomic_load(&m->in.put) != atomic_load(&m->in.taken);
	return m->event < 0 || atomic_load(&m->in.put) != m->next;
}

static void memory_disarm(struct wire *wire)
{
	struct wire_memory *m = (struct wire_memory *)wire;
	uint64_t value;

	atomic_store(&m->armed, 0);
	if (m->event >= 0 && read(m->event, &value, sizeof(value)) < 0) {
		/* Nothing had been put: the engine woke for another reason. */
	}
}

static void wake(struct wire_memory *m)
{
	uint64_t one = 1;

	if (m->event >= 0 && atomic_load(&m->armed) && write(m->event, &one, sizeof(one)) < 0) {
		/* The event is readable already. */
	}
}

int wire_memory_put(struct wire *wire, const uint8_t *data, uint32_t len)
{
	struct wire_memory *m = (struct wire_memory *)wire;

	if (!len || len > m->in.size / 8)
		return -EINVAL;
	if (!ring_put(&m->in, data, len))
		return 0;
	wake(m);
	return 1;
}

uint32_t wire_memory_take(struct wire *wire, uint8_t *data, uint32_t room)
{
	struct wire_memory *m = (struct wire_memory *)wire;
	uint32_t taken = atomic_load_explicit(&m->out.taken, memory_order_relaxed), len = 0;
	const uint8_t *packet =
		ring_get(&m->out, &taken, atomic_load_explicit(&m->out.put, memory_order_acquire), &len);

	if (!packet)
		return 0;
	memcpy(data, packet, len < room ? len : room);
	atomic_store_explicit(&m->out.taken, taken, memory_order_release);
	return len;
}

void wire_memory_repeat(struct wire *wire, uint32_t burst)
{
	struct wire_memory *m = (struct wire_memory *)wire;

	atomic_store(&m->repeat, burst);
	wake(m);
}

void wire_memory_hold(struct wire *wire, int held)
{
	atomic_store(&((struct wire_memory *)wire)->held, held);
}

static const struct wire_ops memory_ops = {
	.receive = memory_receive,
	.send = memory_send,
	.arm = memory_arm,
	.disarm = memory_disarm,
};

struct wire *wire_memory_create(uint32_t room_bytes, int event)
{
	struct wire_memory *m = NULL;

	if (room_bytes < 65536 || room_bytes > (1u << 30) || room_bytes & (room_bytes - 1))
		return NULL;
	if (posix_memalign((void **)&m, 64, sizeof(*m)))
		return NULL;
	memset(m, 0, sizeof(*m));
	m->wire.ops = &memory_ops;
	m->wire.wait_fd = m->event = event;
	m->in.size = m->out.size = room_bytes;
	m->in.bytes = malloc(room_bytes);
	m->out.bytes = malloc(room_bytes);
	if (!m->in.bytes || !m->out.bytes) {
		wire_memory_destroy(&m->wire);
		return NULL;
	}
	return &m->wire;
}

void wire_memory_destroy(struct wire *wire)
{
	struct wire_memory *m = (struct wire_memory *)wire;

	if (!m)
		return;
	free(m->in.bytes);
	free(m->out.bytes);
	free(m);
}
