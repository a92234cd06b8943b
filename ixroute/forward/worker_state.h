/* A worker's state, shared by worker.c (the packet's way) and run.c (its life: create, run, sleep, stop). */
#ifndef IXROUTE_FORWARD_WORKER_STATE_H
#define IXROUTE_FORWARD_WORKER_STATE_H

#include <stdbool.h>
#include <time.h>

#include "forward/policer.h"
#include "forward/worker.h"

#define WORKER_QUEUES 256u
#define INJECT_FREE_FRAMES 256u /* kept at the door for packets from the kernel: what it may send in one go */

/* Packets that will leave by one port at the end of the pass. */
struct egress {
	struct queue *queue; /* NULL: this worker cannot send there */
	unsigned n;
	bool tagged; /* some way is by a sub-interface */
	struct frame frame[BURST];
	struct way {
		uint16_t in, out; /* interfaces */
	} way[BURST];
};

struct worker {
	struct dataplane *dataplane;
	const struct umem *umem;
	struct frame_pool *pool;
	struct tap_lane *lane;
	struct epoch *epoch;
	uint32_t number;
	uint32_t n_queues;
	struct queue *queue[WORKER_QUEUES];

	/* Of one pass. */
	uint64_t now_ns;  /* 0: nobody has asked for the time yet */
	uint64_t to_send; /* bit per port with packets in egress */
	unsigned n_punts;
	bool door_rings; /* something was put into the punt ring */
	struct frame punt[BURST];
	uint8_t punt_reason[BURST];
	uint16_t punt_in[BURST]; /* interface */
	uint8_t sub_at[MAX_INTERFACES]; /* where an interface may stand among those of the burst (vlan.h) */
	struct egress egress[MAX_PORTS + 1]; /* the last never has a queue: of interfaces that are none */

	uint64_t tx_in_flight; /* handed to tx rings and not reclaimed */
	_Atomic uint8_t *used; /* one per adjacency */
	_Atomic uint32_t stop;
	struct bucket bucket[MAX_PORTS][COUNTER_REASONS];
	struct worker_counters counters;
	struct port_counters port[MAX_PORTS];
	struct sub_counters sub[MAX_INTERFACES - MAX_PORTS];
};

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t cycles(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t count;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(count));
	return count;
#else
#error "a time-stamp counter for this architecture"
#endif
}

#endif
