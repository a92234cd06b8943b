/* The kernel's door: a thread that writes punted packets to the TAPs and reads from them what the kernel sends,
 * so that no worker makes those system calls. Worker and door share nothing but four rings per worker (a lane).
 *
 *     worker --- punt --------> door    packets for the kernel (frame.port: the TAP)
 *     worker <-- punt_done ---- door    their frames, free again
 *     worker <-- inject ------- door    packets from the kernel (frame.port: the port, FRAME_INJECTED)
 *     worker --- inject_free -> door    free frames for those
 *
 * Each ring has one producer and one consumer. A full punt ring is a counted drop (punt_ring_full), and it is full
 * sooner for what the router does not live on (PUNT_RESERVE). A full inject ring stops the reading of the TAP, whose
 * own queue then fills and drops, as with any slow network card.
 */
#ifndef IXROUTE_TAP_DOOR_H
#define IXROUTE_TAP_DOOR_H

#include <stdatomic.h>
#include <stdint.h>

#include "driver/frame.h"

#define LANE_SLOTS 1024u /* per ring, a power of two */
#define PUNT_RESERVE 256u /* slots of punt that only neighbour and routing protocols may fill */
#define DOOR_LANES 64u	 /* workers */
#define DOOR_PORTS 64u

struct frame_ring {
	_Alignas(64) _Atomic uint32_t head; /* producer's: next slot to fill */
	_Alignas(64) _Atomic uint32_t tail; /* consumer's: next slot to take */
	_Alignas(64) struct frame slot[LANE_SLOTS];
};

struct tap_lane {
	struct frame_ring punt, punt_done, inject, inject_free;
	_Alignas(64) _Atomic uint32_t worker_asleep; /* the worker waits on worker_event: write it after inject */
	_Atomic uint32_t door_asleep;		     /* the door waits on door_event: write it after punt */
	int worker_event;			     /* eventfds; Python's */
	int door_event;				     /* the same one for all lanes of a door */
};

/* All of n or as many as fit; returns how many. Producer's thread only. */
static inline unsigned frame_ring_put(struct frame_ring *ring, const struct frame *frames, unsigned n)
{
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint32_t room = LANE_SLOTS - (head - atomic_load_explicit(&ring->tail, memory_order_acquire));

	if (n > room)
		n = room;
	for (unsigned i = 0; i < n; i++)
		ring->slot[(head + i) % LANE_SLOTS] = frames[i];
	atomic_store_explicit(&ring->head, head + n, memory_order_release);
	return n;
}

/* Consumer's thread only. */
static inline unsigned frame_ring_get(struct frame_ring *ring, struct frame *frames, unsigned n)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	uint32_t there = atomic_load_explicit(&ring->head, memory_order_acquire) - tail;

	if (n > there)
		n = there;
	for (unsigned i = 0; i < n; i++)
		frames[i] = ring->slot[(tail + i) % LANE_SLOTS];
	atomic_store_explicit(&ring->tail, tail + n, memory_order_release);
	return n;
}

static inline unsigned frame_ring_count(const struct frame_ring *ring)
{
	return atomic_load_explicit(&ring->head, memory_order_acquire) -
	       atomic_load_explicit(&ring->tail, memory_order_acquire);
}

/* Per port; one writer, the door. */
struct door_counters {
	_Alignas(64) uint64_t written_packets, written_bytes; /* punted packets the kernel took */
	uint64_t write_failed;				  /* and did not take (interface down, no memory) */
	uint64_t read_packets, read_bytes;		  /* packets from the kernel */
	uint64_t read_failed;
	uint64_t read_too_long; /* did not fit a frame behind its headroom of 256 bytes */
	uint64_t reserved;
};

struct tap_door;

struct tap_lane *tap_lane_create(int worker_event, int door_event);
void tap_lane_destroy(struct tap_lane *lane);

struct tap_door *tap_door_create(const struct umem *umem, int door_event);
void tap_door_destroy(struct tap_door *door);
/* Before running, lanes first. fds[lane]: the TAP's queue for each lane, non-blocking. 0 or -EINVAL: numbers out of
 * range, a port added before, not one fd per lane. */
int tap_door_add_lane(struct tap_door *door, struct tap_lane *lane);
int tap_door_add_port(struct tap_door *door, uint32_t port, const int *fds, uint32_t n_fds);
/* One bounded pass; returns how many packets it moved. timeout_ms: how long to wait when there was nothing. */
int tap_door_poll_once(struct tap_door *door, int timeout_ms);
int tap_door_run(struct tap_door *door);
void tap_door_stop(struct tap_door *door);
const struct door_counters *tap_door_counters(const struct tap_door *door, uint32_t port);
uint64_t tap_door_passes(const struct tap_door *door); /* moves as long as the door lives: its heartbeat */

#endif
