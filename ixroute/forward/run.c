/* A worker's life: created and given its queues by Python, run in a Python thread, put to sleep when there is
 * nothing to do, stopped from outside. The packet's way is worker.c.
 *
 * No wake-up is lost: before it sleeps a worker arms every queue (which says what is already there), says that it
 * sleeps, and then looks once more at what the door has for it; the door puts packets first and looks afterwards.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forward/worker.h"
#include "forward/worker_state.h"

#define HEARTBEAT_MS 500 /* the longest sleep: whoever watches `polls` sees it move */
#define POLLS_PER_CLOCK 16u

struct worker *worker_create(struct dataplane *dataplane, uint32_t number, struct frame_pool *pool, struct tap_lane *lane)
{
	struct worker *worker;

	if (number >= dataplane->n_workers)
		return NULL;
	worker = aligned_alloc(64, sizeof(*worker));
	if (!worker)
		return NULL;
	memset(worker, 0, sizeof(*worker));
	worker->used = calloc(dataplane->adjacencies->capacity, sizeof(*worker->used));
	if (!worker->used) {
		free(worker);
		return NULL;
	}
	worker->dataplane = dataplane;
	worker->umem = dataplane->umem;
	worker->epoch = fib_epoch(dataplane->fib);
	worker->pool = pool;
	worker->lane = lane;
	worker->number = number;
	return worker;
}

static void ring_empty(struct worker *worker, struct frame_ring *ring)
{
	struct frame frame;

	while (frame_ring_get(ring, &frame, 1))
		frame_pool_put(worker->pool, worker->umem, frame.addr);
}

void worker_destroy(struct worker *worker)
{
	epoch_idle(worker->epoch, worker->number);
	ring_empty(worker, &worker->lane->punt);
	ring_empty(worker, &worker->lane->punt_done);
	ring_empty(worker, &worker->lane->inject);
	ring_empty(worker, &worker->lane->inject_free);
	free((void *)worker->used);
	free(worker);
}

int worker_add_queue(struct worker *worker, struct queue *queue)
{
	if (queue->port >= worker->dataplane->n_ports || worker->n_queues == WORKER_QUEUES)
		return -EINVAL;
	worker->queue[worker->n_queues++] = queue;
	if (!worker->egress[queue->port].queue)
		worker->egress[queue->port].queue = queue;
	return 0;
}

/* How long a sleep may last at most, given what no event will tell us of. tries: sleeps since a packet moved. */
static int sleep_limit_ms(const struct worker *worker, unsigned tries)
{
	for (unsigned i = 0; i < worker->n_queues; i++)
		if (worker->queue[i]->wait_fd < 0)
			return 1; /* nothing will wake us for this queue */
	if (worker->pool->n == 0)
		return 1; /* receive rings may be empty until the door gives frames back */
	if (worker->tx_in_flight && tries < 9)
		return 1 << tries; /* sent but perhaps not yet seen: the next pass rings the doorbell again */
	return HEARTBEAT_MS;
}

static void wait_for_event(const struct worker *worker, int limit_ms)
{
	struct pollfd wait[WORKER_QUEUES + 1];
	nfds_t n = 0;
	uint64_t count;
	bool broken = false;

	wait[n++] = (struct pollfd){ .fd = worker->lane->worker_event, .events = POLLIN };
	for (unsigned i = 0; i < worker->n_queues; i++) /* poll passes over an fd of -1 */
		wait[n++] = (struct pollfd){ .fd = worker->queue[i]->wait_fd, .events = POLLIN };
	if (poll(wait, n, limit_ms) <= 0)
		return;
	if (wait[0].revents & POLLIN && read(wait[0].fd, &count, sizeof(count)) < 0)
		broken = errno != EAGAIN;
	for (nfds_t i = 0; i < n; i++)
		broken |= wait[i].revents && !(wait[i].revents & POLLIN);
	if (broken) /* an interface that is gone says so for ever: do not spin on it */
		poll(NULL, 0, 1);
}

static void worker_sleep(struct worker *worker, unsigned tries)
{
	struct tap_lane *lane = worker->lane;
	unsigned there = 0;

	for (unsigned i = 0; i < worker->n_queues; i++)
		there += worker->queue[i]->ops->arm(worker->queue[i]);
	atomic_store_explicit(&lane->worker_asleep, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (there == 0 && frame_ring_count(&lane->inject) == 0 &&
	    !atomic_load_explicit(&worker->stop, memory_order_acquire)) {
		epoch_idle(worker->epoch, worker->number);
		wait_for_event(worker, sleep_limit_ms(worker, tries));
		epoch_quiesce(worker->epoch, worker->number);
		worker->counters.sleeps++;
	}
	atomic_store_explicit(&lane->worker_asleep, 0, memory_order_relaxed);
	for (unsigned i = 0; i < worker->n_queues; i++)
		worker->queue[i]->ops->disarm(worker->queue[i]);
	worker->counters.heartbeat_ns = clock_ns(CLOCK_MONOTONIC);
}

int worker_run(struct worker *worker, uint64_t idle_ns)
{
	uint64_t idle_since_ns = 0, now_ns;
	unsigned in_vain = 0, tries = 0;

	worker->counters.heartbeat_ns = clock_ns(CLOCK_MONOTONIC);
	while (!atomic_load_explicit(&worker->stop, memory_order_acquire)) {
		if (worker_poll_once(worker)) {
			in_vain = 0;
			tries = 0;
			idle_since_ns = 0;
			continue;
		}
		if (idle_ns == UINT64_MAX)
			continue;
		if (idle_ns && ++in_vain % POLLS_PER_CLOCK)
			continue;
		now_ns = idle_ns ? clock_ns(CLOCK_MONOTONIC) : 0;
		if (idle_since_ns == 0)
			idle_since_ns = now_ns;
		/* Whoever wakes us has put the packet there first. A wake without one (a cause that was pending when its
		 * vector was unmasked) is no sign of more. */
		if (tries == 0 && now_ns - idle_since_ns < idle_ns)
			continue;
		worker_sleep(worker, tries++);
		idle_since_ns = 0;
	}
	worker_poll_once(worker); /* what came while we were told to stop still gets its verdict */
	epoch_idle(worker->epoch, worker->number);
	/* Cleared here and not at the start: a stop that comes before the thread has begun must count. */
	atomic_store_explicit(&worker->stop, 0, memory_order_relaxed);
	return 0;
}

void worker_stop(struct worker *worker)
{
	uint64_t one = 1;

	atomic_store_explicit(&worker->stop, 1, memory_order_seq_cst);
	if (write(worker->lane->worker_event, &one, sizeof(one)) < 0)
		return; /* a full eventfd is readable: it wakes all the same */
}

const struct worker_counters *worker_counters(const struct worker *worker)
{
	return &worker->counters;
}

const struct port_counters *worker_port_counters(const struct worker *worker, uint32_t port)
{
	return &worker->port[port];
}

const struct sub_counters *worker_sub_counters(const struct worker *worker, uint32_t number)
{
	return &worker->sub[number - MAX_PORTS];
}

void worker_take_used(struct worker *worker, uint8_t *used, uint32_t capacity)
{
	uint32_t n = worker->dataplane->adjacencies->capacity;

	for (uint32_t i = 0; i < n && i < capacity; i++) {
		if (!atomic_load_explicit(&worker->used[i], memory_order_relaxed))
			continue;
		atomic_store_explicit(&worker->used[i], 0, memory_order_relaxed);
		used[i / 8] = (uint8_t)(used[i / 8] | 1u << i % 8);
	}
}

uint64_t worker_cycles_now(void)
{
	return cycles();
}
