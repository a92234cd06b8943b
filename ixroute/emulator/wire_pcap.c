/* A wire made of files: a pcap file plays what comes to the card, another records what it sends. Called by the engine
 * through wire_ops; wire_pcap_write runs in a thread of Python's.
 *
 * The engine never waits for a disk: what the card sends goes, as the bytes of the file, into a ring that the writer's
 * thread empties. A full ring holds the card, so that nothing is missing in the file.
 *
 * Invariants: `put` has one writer, the engine; `written` one, the writer's thread; written <= put <= written +
 * RING_BYTES. A record is in the ring whole when put says so. After `failed` is set the ring is not read again.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "emulator/pcap.h"
#include "emulator/wire_kinds.h"

#define SECOND_NS 1000000000u
/* A card that did not look for this long is not given all it missed at once, nor more than its client's ring can take: on
 * a machine that gave the engine's core to others for a while all of that would be lost. */
#define BACKLOG_NS 10000000u
#define BACKLOG_PACKETS 256u
#define RING_BYTES (4u << 20)
#define SNAPLEN 65535u

struct player {
	struct pcap_file file;
	bool loop, ended;
	uint64_t pps; /* 0: no clock */
	uint64_t backlog_ns;
	uint64_t next_ns, fraction; /* when the next packet is due: next_ns + fraction/pps; 0: not begun */
	uint8_t padded[WIRE_BURST][WIRE_SHORTEST];
};

struct recorder {
	int fd; /* -1: nothing is recorded */
	int event;
	uint8_t *ring;
	_Alignas(64) _Atomic uint64_t put;
	_Alignas(64) _Atomic uint64_t written;
	_Atomic bool asleep, stop, failed;
};

struct wire_pcap {
	struct wire wire; /* first: the ops get a pointer to it */
	struct player player;
	struct recorder recorder;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* ---- In ---- */

/* The next packet of the file, from the start again when it loops. false: it has ended. */
static bool player_next(struct player *p, const uint8_t **data, uint32_t *len)
{
	uint32_t missing;

	if (p->file.at >= p->file.n && p->loop)
		p->file.at = PCAP_HEADER_BYTES;
	p->ended = p->file.at >= p->file.n || pcap_next(&p->file, data, len, &missing) != PCAP_FINE;
	return !p->ended;
}

static void player_tick(struct player *p)
{
	if (!p->pps)
		return;
	p->next_ns += SECOND_NS / p->pps;
	p->fraction += SECOND_NS % p->pps;
	if (p->fraction >= p->pps) {
		p->fraction -= p->pps;
		p->next_ns++;
	}
}

static uint64_t player_now(struct player *p)
{
	uint64_t now;

	if (!p->pps)
		return UINT64_MAX;
	now = clock_ns(CLOCK_MONOTONIC);
	if (!p->next_ns)
		p->next_ns = now;
	else if (now > p->backlog_ns && p->next_ns < now - p->backlog_ns)
		p->next_ns = now - p->backlog_ns;
	return now;
}

static unsigned pcap_receive(struct wire *wire, struct wire_packet *packets, unsigned n)
{
	struct player *p = &((struct wire_pcap *)wire)->player;
	uint64_t now = p->ended ? 0 : player_now(p);
	unsigned done = 0;

	/* Bounded by looks into the file: one full of packets that no card takes must not hold the engine. */
	for (unsigned looks = 0; looks < n && looks < WIRE_BURST && !p->ended && p->next_ns <= now; looks++) {
		const uint8_t *data;
		uint32_t len;

		if (!player_next(p, &data, &len))
			break;
		player_tick(p);
		if (!pcap_fits(len)) {
			wire->rx_dropped++;
			continue;
		}
		if (len < WIRE_SHORTEST) {
			memcpy(p->padded[done], data, len);
			len = wire_pad(p->padded[done], len);
			data = p->padded[done];
		}
		packets[done++] = (struct wire_packet){ .data = data, .len = len };
		wire->rx_bytes += len;
	}
	wire->rx_packets += done;
	return done;
}

static uint64_t pcap_due_ns(struct wire *wire)
{
	const struct player *p = &((struct wire_pcap *)wire)->player;

	return p->ended ? UINT64_MAX : p->next_ns;
}

static int pcap_arm(struct wire *wire)
{
	const struct player *p = &((struct wire_pcap *)wire)->player;

	return !p->ended && (!p->pps || p->next_ns <= clock_ns(CLOCK_MONOTONIC));
}

static void pcap_disarm(struct wire *wire)
{
	(void)wire;
}

/* ---- Out ---- */

static void ring_put(struct recorder *r, uint64_t at, const void *bytes, uint32_t n)
{
	uint32_t start = (uint32_t)(at % RING_BYTES);
	uint32_t first = n < RING_BYTES - start ? n : RING_BYTES - start;

	memcpy(r->ring + start, bytes, first);
	memcpy(r->ring, (const uint8_t *)bytes + first, n - first);
}

static void recorder_wake(struct recorder *r)
{
	uint64_t one = 1;

	atomic_thread_fence(memory_order_seq_cst); /* put is stored before asleep is read; the writer: the other way */
	if (atomic_load_explicit(&r->asleep, memory_order_relaxed) && atomic_exchange(&r->asleep, false) &&
	    write(r->event, &one, sizeof(one)) < 0)
		return; /* a full eventfd is readable: it wakes all the same */
}

static unsigned recorder_take(struct recorder *r, const struct wire_packet *packets, unsigned n)
{
	uint64_t now = clock_ns(CLOCK_REALTIME);
	uint64_t put = atomic_load_explicit(&r->put, memory_order_relaxed);
	uint64_t end = atomic_load_explicit(&r->written, memory_order_acquire) + RING_BYTES;
	unsigned i;

	for (i = 0; i < n; i++) {
		uint32_t len = packets[i].len;
		uint32_t record[4] = { (uint32_t)(now / SECOND_NS), (uint32_t)(now % SECOND_NS), len, len };

		if (put + sizeof(record) + len > end)
			break;
		ring_put(r, put, record, sizeof(record));
		ring_put(r, put + sizeof(record), packets[i].data, len);
		put += sizeof(record) + len;
	}
	atomic_store_explicit(&r->put, put, memory_order_release);
	recorder_wake(r);
	return i;
}

static unsigned pcap_send(struct wire *wire, const struct wire_packet *packets, unsigned n)
{
	struct recorder *r = &((struct wire_pcap *)wire)->recorder;

	if (r->fd >= 0 && atomic_load_explicit(&r->failed, memory_order_relaxed))
		wire->tx_dropped += n;
	else if (r->fd >= 0)
		n = recorder_take(r, packets, n);
	for (unsigned i = 0; i < n; i++)
		wire->tx_bytes += packets[i].len;
	wire->tx_packets += n;
	return n;
}

static bool recorder_is_empty(struct recorder *r)
{
	return atomic_load_explicit(&r->put, memory_order_acquire) ==
	       atomic_load_explicit(&r->written, memory_order_relaxed);
}

/* One piece of the ring into the file. 0, or -errno. */
static int recorder_write(struct recorder *r)
{
	uint64_t written = atomic_load_explicit(&r->written, memory_order_relaxed);
	uint64_t there = atomic_load_explicit(&r->put, memory_order_acquire) - written;
	uint64_t start = written % RING_BYTES;
	ssize_t done = write(r->fd, r->ring + start, there < RING_BYTES - start ? there : RING_BYTES - start);

	if (done < 0)
		return errno == EINTR ? 0 : -errno;
	atomic_store_explicit(&r->written, written + (uint64_t)done, memory_order_release);
	return 0;
}

static void recorder_sleep(struct recorder *r)
{
	struct pollfd event = { .fd = r->event, .events = POLLIN };
	uint64_t count;

	atomic_store(&r->asleep, true);
	atomic_thread_fence(memory_order_seq_cst);
	if (recorder_is_empty(r) && !atomic_load(&r->stop))
		poll(&event, 1, -1);
	atomic_store(&r->asleep, false);
	if (read(r->event, &count, sizeof(count)) < 0)
		return; /* EAGAIN: there was no event */
}

int wire_pcap_write(struct wire *wire)
{
	struct recorder *r = &((struct wire_pcap *)wire)->recorder;

	for (;;) {
		bool stop = atomic_load(&r->stop);

		while (!recorder_is_empty(r)) {
			int error = recorder_write(r);

			if (error) {
				atomic_store(&r->failed, true);
				return error;
			}
		}
		if (stop)
			return 0;
		recorder_sleep(r);
	}
}

void wire_pcap_stop(struct wire *wire)
{
	struct recorder *r = &((struct wire_pcap *)wire)->recorder;
	uint64_t one = 1;

	atomic_store(&r->stop, true);
	if (write(r->event, &one, sizeof(one)) < 0)
		return;
}

/* ---- Set-up ---- */

static const struct wire_ops pcap_ops = {
	.receive = pcap_receive,
	.send = pcap_send,
	.arm = pcap_arm,
	.disarm = pcap_disarm,
	.due_ns = pcap_due_ns,
};

static int recorder_begin(struct recorder *r, int fd, int event)
{
	/* magic (nanoseconds), version 2.4, time zone, accuracy, snaplen, Ethernet; in this machine's byte order */
	const uint32_t header[6] = { 0xa1b23c4d, 0, 0, 0, SNAPLEN, 1 };
	const uint16_t version[2] = { 2, 4 };

	r->fd = fd;
	r->event = event;
	if (fd < 0)
		return 0;
	r->ring = malloc(RING_BYTES);
	if (!r->ring)
		return -ENOMEM;
	ring_put(r, 0, header, sizeof(header));
	ring_put(r, 4, version, sizeof(version));
	r->put = sizeof(header);
	return 0;
}

struct wire *wire_pcap_create(const uint8_t *bytes, size_t n, int loop, uint64_t pps, int out_fd, int event)
{
	struct wire_pcap *pcap = aligned_alloc(64, sizeof(*pcap));
	uint32_t value;

	if (!pcap)
		return NULL;
	memset(pcap, 0, sizeof(*pcap));
	pcap->wire = (struct wire){ .ops = &pcap_ops, .wait_fd = -1, .waits = 1 };
	pcap->player.loop = loop != 0;
	pcap->player.pps = pps;
	pcap->player.backlog_ns = pps ? (uint64_t)BACKLOG_PACKETS * SECOND_NS / pps : 0;
	if (pcap->player.backlog_ns > BACKLOG_NS)
		pcap->player.backlog_ns = BACKLOG_NS;
	pcap->player.ended = !bytes || pcap_open(&pcap->player.file, bytes, n, &value) != PCAP_FINE;
	if (recorder_begin(&pcap->recorder, out_fd, event)) {
		free(pcap);
		return NULL;
	}
	return &pcap->wire;
}

void wire_pcap_destroy(struct wire *wire)
{
	free(((struct wire_pcap *)wire)->recorder.ring);
	free(wire);
}
