/* Two threads and one doorbell: no ring may be slept through (driver/doorbell.h). Run by test_doorbell.py.
 *
 * The device does what an emulator does before it sleeps: sets the word, fences, looks once more. It sleeps in poll
 * for 10 s at most: a ring that it slept through ends that poll without an event, and the program with 1.
 * The driver rings once the device has seen the last ring. Both first wait a little, each by a sequence of its own, so
 * that rings fall before, into and behind the few nanoseconds in which the device goes to sleep.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "driver/doorbell.h"

static uint32_t sleeps_wanted;
static volatile uint32_t reg;
static _Atomic uint32_t asleep;
static _Atomic uint32_t seen;
static _Atomic int done;
static struct doorbell bell;

/* On the nth of the CPUs that we may use: on one and the same the two would never be between each other's lines. */
static void run_on(int nth)
{
	cpu_set_t allowed, one;

	sched_getaffinity(0, sizeof(allowed), &allowed);
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && nth-- == 0)
			CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one); /* with a single CPU: refused, and nothing lost but sharpness */
}

static void delay(uint32_t n)
{
	for (volatile uint32_t i = 0; i < n; i++)
		;
}

static void *driver(void *unused)
{
	run_on(1);
	for (uint32_t n = 1; !done; n++) {
		while (seen != n - 1 && !done)
			;
		delay(n * 7 % 509);
		doorbell_ring(&bell, n);
	}
	return unused;
}

/* 1 after a sleep that a ring ended, 0 when it was not needed, -1 when a ring was slept through. */
static int sleep_once(int event, uint32_t n)
{
	int got = 0;

	atomic_store_explicit(&asleep, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (reg != n) {
		struct pollfd wait = {.fd = event, .events = POLLIN};
		uint64_t rings;

		got = poll(&wait, 1, 10000) == 1 && read(event, &rings, sizeof(rings)) == sizeof(rings) ? 1 : -1;
	}
	atomic_store_explicit(&asleep, 0, memory_order_relaxed);
	return got;
}

int main(int argc, char **argv)
{
	int event = eventfd(0, EFD_NONBLOCK);
	uint32_t sleeps = 0, rings = 0;
	pthread_t thread;

	sleeps_wanted = argc > 1 ? (uint32_t)atoi(argv[1]) : 10000;
	doorbell_to_register(&bell, &reg, event, &asleep);
	if (event < 0 || pthread_create(&thread, NULL, driver, NULL))
		return 2;
	run_on(0);
	while (sleeps < sleeps_wanted) {
		rings++;
		delay(rings * 11 % 521);
		while (reg != rings) {
			int got = sleep_once(event, rings);

			if (got < 0) {
				printf("slept through ring %u\n", rings);
				return 1;
			}
			sleeps += (uint32_t)got;
		}
		seen = rings;
	}
	done = 1;
	pthread_join(thread, NULL);
	printf("%u rings, %u sleeps, %lu events\n", rings, sleeps, (unsigned long)bell.kicks);
	return bell.failed ? 3 : 0;
}
