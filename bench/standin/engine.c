/* The card's side of the rings, and the clock. Built by bench/ixgbe.py into one library with one forwarder. */
#define _GNU_SOURCE
#include "standin.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <x86intrin.h>

#define CHUNK 64u /* packets of a queue per measurement */
#define AHEAD 256u /* packets sent but not yet consumed that a measurement may begin with */
#define PATIENCE_TSC 10000000000ull
#define HUGE (2u << 20)

struct descriptor {
	uint64_t low, high;
};

struct side {
	uint8_t *bar;
	struct descriptor *rx, *tx;
	uint32_t rx_mask, tx_mask, rx_head, tx_head;
	volatile uint32_t *head_at;
	_Alignas(64) _Atomic uint64_t received;
	_Atomic uint64_t sent;
	_Alignas(64) uint64_t taken; /* by the forwarder */
};

struct standin {
	struct forwarder forwarder;
	struct side side[MAX_QUEUES];
	unsigned queues;
	int data;
	pthread_t thread;
	_Atomic int stop;
};

void *standin_memory(uint64_t bytes)
{
	uint8_t *at;

	bytes = (bytes + HUGE - 1) & ~(uint64_t)(HUGE - 1);
	at = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return NULL;
	at = (uint8_t *)(((uintptr_t)at + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
	madvise(at, bytes, MADV_HUGEPAGE);
	memset(at, 0, bytes);
	return at;
}

static uint32_t reg(const struct side *side, uint32_t offset)
{
	return atomic_load_explicit((_Atomic uint32_t *)(side->bar + offset), memory_order_acquire);
}

static void *reg_address(const struct side *side, uint32_t offset)
{
	return (void *)((uint64_t)reg(side, offset + 4) << 32 | (reg(side, offset) & ~1u));
}

static void attach(struct side *side, uint8_t *bar)
{
	side->bar = bar;
	side->rx = reg_address(side, RDBAL);
	side->tx = reg_address(side, TDBAL);
	side->rx_mask = reg(side, RDLEN) / 16 - 1;
	side->tx_mask = reg(side, TDLEN) / 16 - 1;
	side->head_at = reg(side, TDWBAL) & 1 ? reg_address(side, TDWBAL) : NULL;
}

/* A packet of 60 bytes each: IPv4 and UDP, both checksums good. */
static unsigned receive(struct side *side, unsigned n, int data)
{
	uint32_t tail = reg(side, RDT), head = side->rx_head;
	unsigned i;

	for (i = 0; i < n && head != tail; i++) {
		struct descriptor *at = &side->rx[head];

		if (data)
			memset((void *)at->low, (int)i, 64);
		at->low = 0x12345678ull << 32 | 0x0217;
		__atomic_store_n(&at->high, 60ull << 32 | 0x63, __ATOMIC_RELEASE);
		head = (head + 1) & side->rx_mask;
	}
	side->rx_head = head;
	if (i)
		atomic_fetch_add_explicit(&side->received, i, memory_order_release);
	return i;
}

static unsigned transmit(struct side *side)
{
	uint32_t tail = reg(side, TDT), head = side->tx_head;
	unsigned i, report = 0;

	for (i = 0; head != tail; i++) {
		struct descriptor *at = &side->tx[head];

		head = (head + 1) & side->tx_mask;
		if (!(at->high >> 27 & 1))
			continue;
		report = 1;
		if (!side->head_at)
			__atomic_store_n(&at->high, 1ull << 32, __ATOMIC_RELEASE);
	}
	if (report && side->head_at)
		*side->head_at = head;
	side->tx_head = head;
	if (i)
		atomic_fetch_add_explicit(&side->sent, i, memory_order_release);
	return i;
}

static void *engine_run(void *context)
{
	struct standin *standin = context;

	while (!atomic_load_explicit(&standin->stop, memory_order_relaxed)) {
		unsigned moved = 0;

		for (unsigned i = 0; i < standin->queues; i++)
			moved += transmit(&standin->side[i]) + receive(&standin->side[i], 32, standin->data);
		if (!moved)
			_mm_pause();
	}
	return NULL;
}

/* Both ends of a measurement: nothing from before or after it is in it. */
static uint64_t tsc(void)
{
	uint64_t now;

	_mm_lfence();
	now = __rdtsc();
	_mm_lfence();
	return now;
}

static uint64_t tsc_cost(void)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		uint64_t began = tsc(), took = tsc() - began;

		best = took < best ? took : best;
	}
	return best;
}

static int wait_for_packets(struct standin *standin)
{
	for (unsigned i = 0; i < standin->queues; i++) {
		struct side *side = &standin->side[i];
		uint64_t began = __rdtsc();

		while (atomic_load_explicit(&side->received, memory_order_acquire) < side->taken + CHUNK ||
		       atomic_load_explicit(&side->sent, memory_order_acquire) + AHEAD < side->taken) {
			if (__rdtsc() - began > PATIENCE_TSC)
				return -1;
			_mm_pause();
		}
	}
	return 0;
}

static unsigned passes(struct standin *standin, unsigned burst)
{
	unsigned n = 0;

	for (unsigned pass = 0; pass < CHUNK / burst; pass++)
		for (unsigned i = 0; i < standin->queues; i++) {
			unsigned moved = standin->forwarder.pass(standin->forwarder.queue[i], burst);

			standin->side[i].taken += moved;
			n += moved;
		}
	return n;
}

static int by_size(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* TSC cycles per packet: the median of `rounds` measurements of CHUNK packets a queue, the queues served in turn. So
 * what interrupts a few of them does not count. Negative: the engine did not keep up, or a packet was lost. */
EXPORTED double standin_run(struct standin *standin, unsigned burst, unsigned rounds, int remote)
{
	uint64_t cost = tsc_cost(), *took = calloc(rounds, sizeof(*took));
	unsigned packets = CHUNK * standin->queues;
	double result = -1;

	for (unsigned round = 0; took && round < rounds; round++) {
		uint64_t began;

		for (unsigned i = 0; !remote && i < standin->queues; i++)
			receive(&standin->side[i], CHUNK, standin->data);
		if (wait_for_packets(standin))
			goto out;
		began = tsc();
		if (passes(standin, burst) != packets)
			goto out;
		took[round] = tsc() - began - cost;
		for (unsigned i = 0; !remote && i < standin->queues; i++)
			transmit(&standin->side[i]);
	}
	if (took) {
		qsort(took, rounds, sizeof(*took), by_size);
		result = (double)took[rounds / 2] / packets;
	}
out:
	free(took);
	return result;
}

EXPORTED int standin_pin(unsigned core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

/* The engine in a thread of its own, on that core. */
EXPORTED int standin_start(struct standin *standin, unsigned core)
{
	pthread_attr_t attr;
	cpu_set_t set;
	int error;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	standin->stop = 0;
	error = pthread_create(&standin->thread, &attr, engine_run, standin);
	pthread_attr_destroy(&attr);
	return error;
}

EXPORTED void standin_stop(struct standin *standin)
{
	standin->stop = 1;
	pthread_join(standin->thread, NULL);
}

EXPORTED struct standin *standin_create(unsigned queues, const struct layout *layout, int data)
{
	struct standin *standin = aligned_alloc(64, sizeof(*standin));

	if (!standin || queues > MAX_QUEUES)
		return NULL;
	memset(standin, 0, sizeof(*standin));
	standin->queues = queues;
	standin->data = data;
	if (FORWARDER(&standin->forwarder, queues, layout))
		return NULL;
	for (unsigned i = 0; i < queues; i++)
		attach(&standin->side[i], standin->forwarder.bar[i]);
	return standin;
}
