/* What one thread of a tool works with: its queues of up to two ports and its frames. Python fills it (session.py). */
#ifndef IXROUTE_TOOLS_LANE_H
#define IXROUTE_TOOLS_LANE_H

#include <stdatomic.h>
#include <time.h>

#include "driver/wait.h"

#define LANE_QUEUES 16u /* of one port */
#define LANE_BURST 64u

struct side {
	struct queue *queue[LANE_QUEUES]; /* queue[0] is the one it sends by */
	uint32_t n;
};

struct lane {
	struct side side[2]; /* of the tool's first port, and of its second if there is one */
	struct frame_pool *pool;
	uint32_t burst;	 /* packets at a time, 1 to LANE_BURST */
	_Atomic int stop;
	uint64_t idle_ns; /* polls in vain for so long before it sleeps; UINT64_MAX: never sleeps */
};

static inline uint64_t lane_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What every pass begins and ends with: sent frames come back, receive rings are filled, doorbells are rung. */
void lane_tidy(struct lane *lane);
/* Nothing moved in the last pass: spins on, or sleeps, at most until until_ns. *idle_since_ns is 0 after a busy pass. */
void lane_idle(struct lane *lane, uint64_t *idle_since_ns, uint64_t until_ns);
/* From another thread, which then wakes this one by its queues' wait_fd: for users who sleep without a limit. */
void lane_stop(struct lane *lane);
/* n frames back to the pool. */
void lane_free(struct lane *lane, const struct umem *umem, const struct frame *frames, unsigned n);

#endif
