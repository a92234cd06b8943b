/* The door's thread (door.h): punted packets to the TAPs, packets from the kernel to the workers. One write(2) or
 * read(2) per packet, since nothing batches on a TAP; all per pass bounded. Called from Python's door thread.
 *
 * A TAP that cannot be read now (no free frame, a full ring, an interface that is gone) is left alone for a while
 * instead of being asked over and over: its own queue holds, then drops, as with any slow card.
 */
#include "tap/door.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64u
#define HEADROOM_BYTES 256u /* in front of the packet, as in received frames */
#define HEARTBEAT_MS 500
#define NO_ROOM_NS 1000000u    /* a worker makes room within a pass */
#define BROKEN_NS 100000000u   /* an interface that is gone may come back; nothing hurries */
#define FOR_EVER UINT64_MAX

struct tap_queue {
	int fd;
	uint32_t port;
	uint32_t lane;
	uint64_t rest_until_ns;
};

struct tap_door {
	const struct umem *umem;
	int event;
	uint32_t n_lanes;
	uint32_t n_queues;
	struct tap_lane *lane[DOOR_LANES];
	int fd[DOOR_PORTS][DOOR_LANES]; /* -1: none */
	struct tap_queue queue[DOOR_PORTS * DOOR_LANES];
	struct pollfd wait[1 + DOOR_PORTS * DOOR_LANES]; /* 0: the event; then one for each of queue[] */
	_Atomic uint32_t stop;
	_Atomic uint64_t passes;
	struct door_counters counters[DOOR_PORTS];
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void event_write(int event)
{
	uint64_t one = 1;

	if (write(event, &one, sizeof(one)) < 0)
		return; /* a full eventfd is readable: it wakes all the same */
}

/* ---- Worker to kernel ---- */

static void packet_write(struct tap_door *door, const struct frame *frame, uint32_t lane)
{
	struct door_counters *counters = &door->counters[frame->port % DOOR_PORTS];
	int fd = door->fd[frame->port % DOOR_PORTS][lane];
	ssize_t written;

	do
		written = write(fd, frame_data(door->umem, frame->addr), frame->len);
	while (written < 0 && errno == EINTR);
	if (written < 0) { /* EIO: the TAP is down; EBADF: no such port; ENOMEM */
		counters->write_failed++;
		return;
	}
	counters->written_packets++;
	counters->written_bytes += frame->len;
}

static unsigned lane_write(struct tap_door *door, uint32_t number)
{
	struct tap_lane *lane = door->lane[number];
	struct frame frame[BATCH];
	unsigned room = LANE_SLOTS - frame_ring_count(&lane->punt_done);
	unsigned n = frame_ring_get(&lane->punt, frame, room < BATCH ? room : BATCH);

	for (unsigned i = 0; i < n; i++)
		packet_write(door, &frame[i], number);
	frame_ring_put(&lane->punt_done, frame, n);
	return n;
}

/* ---- Kernel to worker ---- */

enum answer { ANSWER_PACKET, ANSWER_LOST, ANSWER_EMPTY, ANSWER_BROKEN };

/* One packet into `frame`, which stays free unless the answer is a packet. */
static enum answer packet_read(struct tap_door *door, const struct tap_queue *queue, struct frame *frame)
{
	struct door_counters *counters = &door->counters[queue->port];
	uint64_t addr = frame_start(door->umem, frame->addr) + HEADROOM_BYTES;
	size_t room = door->umem->frame_bytes - HEADROOM_BYTES;
	ssize_t got;

	do
		got = read(queue->fd, frame_data(door->umem, addr), room);
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return ANSWER_EMPTY;
	if (got <= 0) {
		counters->read_failed++;
		return ANSWER_BROKEN;
	}
	if ((size_t)got == room) { /* it was longer, or we could not tell */
		counters->read_too_long++;
		return ANSWER_LOST;
	}
	counters->read_packets++;
	counters->read_bytes += (uint64_t)got;
	*frame = (struct frame){
		.addr = addr, .len = (uint32_t)got, .port = (uint16_t)queue->port, .flags = FRAME_INJECTED
	};
	return ANSWER_PACKET;
}

static struct frame *frame_ring_peek(struct frame_ring *ring)
{
	return &ring->slot[atomic_load_explicit(&ring->tail, memory_order_relaxed) % LANE_SLOTS];
}

static void frame_ring_skip(struct frame_ring *ring)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
}

static bool lane_has_room(const struct tap_lane *lane)
{
	return frame_ring_count(&lane->inject_free) && frame_ring_count(&lane->inject) < LANE_SLOTS;
}

/* Up to a batch from one queue of a TAP. A packet is read into the free frame at the ring's tail, which is only
 * taken when there was one. */
static unsigned queue_read(struct tap_door *door, struct tap_queue *queue, uint64_t now)
{
	struct tap_lane *lane = door->lane[queue->lane];
	unsigned moved = 0;

	for (unsigned reads = 0; reads < BATCH; reads++) {
		struct frame frame;
		enum answer answer;

		if (!lane_has_room(lane)) {
			queue->rest_until_ns = now + NO_ROOM_NS;
			break;
		}
		frame = *frame_ring_peek(&lane->inject_free);
		answer = packet_read(door, queue, &frame);
		if (answer == ANSWER_BROKEN)
			queue->rest_until_ns = now + BROKEN_NS;
		if (answer == ANSWER_BROKEN || answer == ANSWER_EMPTY)
			break;
		if (answer == ANSWER_LOST)
			continue;
		frame_ring_skip(&lane->inject_free);
		frame_ring_put(&lane->inject, &frame, 1);
		moved++;
	}
	return moved;
}

/* The worker stores worker_asleep and then looks at its ring; we stored into the ring and look at worker_asleep. */
static void lane_wake(struct tap_lane *lane)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&lane->worker_asleep, memory_order_relaxed) &&
	    atomic_exchange_explicit(&lane->worker_asleep, 0, memory_order_relaxed))
		event_write(lane->worker_event);
}

/* ---- A pass ---- */

/* Which TAPs to listen to; returns when the first of those at rest is due. */
static uint64_t door_choose(struct tap_door *door, uint64_t now)
{
	uint64_t due = FOR_EVER;

	for (uint32_t i = 0; i < door->n_queues; i++) {
		struct tap_queue *queue = &door->queue[i];
		bool rests = queue->rest_until_ns > now;

		if (!rests && !lane_has_room(door->lane[queue->lane])) {
			queue->rest_until_ns = now + NO_ROOM_NS;
			rests = true;
		}
		door->wait[1 + i].fd = rests ? -1 : queue->fd;
		door->wait[1 + i].revents = 0;
		if (rests && queue->rest_until_ns < due)
			due = queue->rest_until_ns;
	}
	return due;
}

/* Tells the workers that we wait, and looks once more whether one had put something before it could know. */
static bool door_falls_asleep(struct tap_door *door)
{
	unsigned there = 0;

	for (uint32_t i = 0; i < door->n_lanes; i++)
		atomic_store_explicit(&door->lane[i]->door_asleep, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	for (uint32_t i = 0; i < door->n_lanes; i++)
		there += frame_ring_count(&door->lane[i]->punt);
	return there == 0 && !atomic_load_explicit(&door->stop, memory_order_acquire);
}

static int door_wait(struct tap_door *door, int timeout_ms)
{
	uint64_t now = now_ns(), due = door_choose(door, now), count;
	int ready;

	if (due != FOR_EVER && due - now < (uint64_t)timeout_ms * 1000000)
		timeout_ms = (int)((due - now) / 1000000) + 1;
	if (timeout_ms && !door_falls_asleep(door))
		timeout_ms = 0;
	ready = poll(door->wait, 1 + door->n_queues, timeout_ms);
	for (uint32_t i = 0; i < door->n_lanes; i++)
		atomic_store_explicit(&door->lane[i]->door_asleep, 0, memory_order_relaxed);
	if (ready > 0 && door->wait[0].revents && read(door->event, &count, sizeof(count)) > 0)
		ready--;
	return ready;
}

static unsigned door_read(struct tap_door *door)
{
	uint64_t now = now_ns();
	bool woken[DOOR_LANES] = { false };
	unsigned moved = 0;

	for (uint32_t i = 0; i < door->n_queues; i++) {
		unsigned n;

		if (!door->wait[1 + i].revents)
			continue;
		n = queue_read(door, &door->queue[i], now); /* an error shows in the read */
		if (n)
			woken[door->queue[i].lane] = true;
		moved += n;
	}
	for (uint32_t i = 0; i < door->n_lanes; i++)
		if (woken[i])
			lane_wake(door->lane[i]);
	return moved;
}

int tap_door_poll_once(struct tap_door *door, int timeout_ms)
{
	unsigned moved = 0;

	for (uint32_t i = 0; i < door->n_lanes; i++)
		moved += lane_write(door, i);
	if (door_wait(door, moved ? 0 : timeout_ms) > 0)
		moved += door_read(door);
	atomic_fetch_add_explicit(&door->passes, 1, memory_order_relaxed);
	return (int)moved;
}

int tap_door_run(struct tap_door *door)
{
	while (!atomic_load_explicit(&door->stop, memory_order_acquire))
		tap_door_poll_once(door, HEARTBEAT_MS);
	/* Cleared here and not at the start: a stop that comes before the thread has begun must count. */
	atomic_store_explicit(&door->stop, 0, memory_order_relaxed);
	return 0;
}

void tap_door_stop(struct tap_door *door)
{
	atomic_store_explicit(&door->stop, 1, memory_order_seq_cst);
	event_write(door->event);
}

/* ---- Set-up ---- */

struct tap_lane *tap_lane_create(int worker_event, int door_event)
{
	struct tap_lane *lane = aligned_alloc(64, sizeof(*lane));

	if (!lane)
		return NULL;
	memset(lane, 0, sizeof(*lane));
	lane->worker_event = worker_event;
	lane->door_event = door_event;
	return lane;
}

void tap_lane_destroy(struct tap_lane *lane)
{
	free(lane);
}

struct tap_door *tap_door_create(const struct umem *umem, int door_event)
{
	struct tap_door *door = aligned_alloc(64, sizeof(*door));

	if (!door)
		return NULL;
	memset(door, 0, sizeof(*door));
	memset(door->fd, -1, sizeof(door->fd));
	door->umem = umem;
	door->event = door_event;
	door->wait[0] = (struct pollfd){ .fd = door_event, .events = POLLIN };
	return door;
}

void tap_door_destroy(struct tap_door *door)
{
	free(door);
}

int tap_door_add_lane(struct tap_door *door, struct tap_lane *lane)
{
	if (door->n_lanes == DOOR_LANES || door->n_queues)
		return -EINVAL;
	door->lane[door->n_lanes++] = lane;
	return 0;
}

int tap_door_add_port(struct tap_door *door, uint32_t port, const int *fds, uint32_t n_fds)
{
	if (port >= DOOR_PORTS || n_fds != door->n_lanes || n_fds == 0 || door->fd[port][0] >= 0)
		return -EINVAL;
	for (uint32_t lane = 0; lane < n_fds; lane++) {
		uint32_t number = door->n_queues++;

		door->fd[port][lane] = fds[lane];
		door->queue[number] = (struct tap_queue){ .fd = fds[lane], .port = port, .lane = lane };
		door->wait[1 + number] = (struct pollfd){ .fd = -1, .events = POLLIN };
	}
	return 0;
}

const struct door_counters *tap_door_counters(const struct tap_door *door, uint32_t port)
{
	return &door->counters[port % DOOR_PORTS];
}

uint64_t tap_door_passes(const struct tap_door *door)
{
	return atomic_load_explicit(&door->passes, memory_order_relaxed);
}
