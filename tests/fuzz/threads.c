/* A worker, the kernel's door, a writer of the tables, and a wire and a kernel to play with, each in a thread of its
 * own; built with the thread sanitizer by test_fuzz_threads.py. Worker and door sleep whenever they can, and every
 * packet is waited for, so that each one needs its wake-up.
 *
 *     wire --- p0 ---> worker ---> p1 --- wire            forwarded
 *     wire --- p0 ---> worker ---> lane ---> door ---> k0  punted (to the router)
 *     k1 ---> door ---> lane ---> worker ---> p1 --- wire  from the kernel
 *
 * Prints: rounds, how many waited longer than a lost wake-up would make them, sleeps of the worker. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "driver/memport.h"
#include "fib/fib.h"
#include "forward/worker.h"
#include "tap/door.h"

#define FRAMES 4096u
#define FRAME_BYTES 2048u
#define SLOTS 256u
#define VIA_1 8u
#define IDLE_NS 5000u /* as long as a round trip, so that packets come just when somebody falls asleep */
#define LATE_NS 400000000u /* worker and door look by themselves every 500 ms */

#define MUST(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

static const uint8_t mac[2][6] = {{2, 0, 0, 0, 0, 0x10}, {2, 0, 0, 0, 0, 0x11}};
static struct umem umem;
static struct fib *fib, *empty; /* of one epoch */
static struct adjacency_table *adjacencies;
static struct dataplane *dataplane;
static struct worker *worker;
static struct tap_door *door;
static struct memport *port[2];
static int kernel[2]; /* the kernel's side of the TAPs */
static _Atomic int over;
static unsigned extra; /* packets beyond one a round */

static void *run_worker(void *unused)
{
	(void)unused;
	worker_run(worker, IDLE_NS);
	return NULL;
}

static void *run_door(void *unused)
{
	(void)unused;
	tap_door_run(door);
	return NULL;
}

static struct prefix prefix4(uint8_t b, uint8_t c, uint8_t len)
{
	return (struct prefix){.family = FAMILY_IP4, .len = len, .addr = {10, b, c}};
}

/* Three programs in turn that come to the same: one lookup; one that goes on; one with conditions. */
static void view_swap(unsigned i)
{
	const struct view_step steps[] = {
		{.fib = empty},
		{.kind = VIEW_VERDICT, .reason = REASON_policy_rule, .protocol = 6, .destination_first = 1,
		 .destination_last = (uint16_t)(1 + i % 7)},
		{.fib = fib},
	};
	unsigned from = i % 3;

	MUST(dataplane_set_view(dataplane, i / 4 % 2 * 64, 4, steps + from, 3 - from, from == 2 ? VIEW_SAME_SOURCE : 0) == 0);
}

/* One leg, or several; hash-threshold or resilient. All lead to port 1. */
static void adjacency_change(unsigned i, const uint8_t peers[2][6])
{
	const uint16_t buckets[4] = {0, 1, 1, 0};
	struct group_leg legs[2] = {{.interface = 1, .mtu = 1500, .weight = 1}, {.interface = 1, .mtu = 1500, .weight = 2}};
	uint8_t used[4];

	for (unsigned leg = 0; leg < 2; leg++)
		memcpy(legs[leg].mac, peers[leg], 6);
	if (i / 4 % 3 == 0)
		adjacency_set(adjacencies, VIA_1 + i % 2, peers[i / 2 % 2], 1, 0, i % 5 ? 1500 : 9000);
	else
		MUST(adjacency_set_group(adjacencies, VIA_1 + i % 2, legs, 1 + i / 2 % 2, buckets,
					 i / 4 % 3 == 1 && i / 2 % 2 ? 4 : 0) == 0);
	adjacency_take_buckets_used(adjacencies, VIA_1 + i % 2, used);
	adjacency_take_legs_used(adjacencies, VIA_1 + i % 2, used);
	MUST(dataplane_set_multipath(dataplane, 4, i / 16 % 4, 0xfff) == 0);
}

static const struct vlan_tag seven = {0x8100, 7}, nine = {0x8100, 9};

/* Sub-interface 64 is always there, with some flags or others; 65 and its number come and go. */
static void write_interfaces(unsigned i)
{
	int result;

	MUST(dataplane_set_interface(dataplane, 64, 0, &seven, 1, mac[0], 1500,
				     PORT_UP | PORT_IP4_FORWARD | (i % 2 ? PORT_SEND_REDIRECTS : 0)) == 0);
	if (i % 3 == 0)
		MUST(dataplane_clear_interface(dataplane, 65) == 0);
	result = dataplane_set_interface(dataplane, 65, i % 2, &nine, 1, mac[i % 2], 1500, 0);
	MUST(result == 0 || result == -EBUSY); /* there with the other port, or the worker has not passed since */
}

/* Whatever it does, 10.0.0.0/8 leads to port 1 and 192.0.2.1 to the router. */
static void *run_writer(void *unused)
{
	static const uint8_t peers[2][6] = {{2, 0, 0, 0, 1, 1}, {2, 0, 0, 0, 1, 2}};
	uint8_t used[8];
	uint32_t own = 0x010200c0;

	(void)unused;
	for (unsigned i = 0; !atomic_load(&over); i++) {
		const uint8_t lengths[] = {16, 20, 24, 26};
		uint8_t len = lengths[i % 4];
		struct prefix longer = prefix4(1, len >= 24 ? 2 : 0, len);
		const uint16_t vid = (uint16_t)(i % 4095);

		MUST(fib_insert(fib, &longer, VIA_1 + i % 2) == 0);
		if (i % 3)
			MUST(fib_remove(fib, &longer) == 0);
		adjacency_change(i, peers);
		MUST(dataplane_set_port(dataplane, 0, mac[0], 1500, PORT_UP | PORT_IP4_FORWARD | (i % 2 ? PORT_SEND_REDIRECTS : 0)) == 0);
		MUST(dataplane_set_vlans(dataplane, 0, &vid, vid != 9) == 0);
		write_interfaces(i);
		MUST(dataplane_set_local4(dataplane, &own, i % 2) == 0);
		MUST(dataplane_set_policer(dataplane, REASON_local_route, 1000000000, 1000 + i % 7) == 0);
		view_swap(i);
		worker_take_used(worker, used, 64);
		fib_collect(fib);
		if (i % 8 == 0)
			usleep(200);
	}
	return NULL;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void packet_write(uint8_t packet[60], const uint8_t destination[4], uint8_t tag)
{
	uint32_t sum = 0;

	memset(packet, 0, 60);
	memcpy(packet, mac[0], 6);
	memcpy(packet + 6, "\6\0\0\0\0\1\x08\0\x45\0\0\x2e", 12);
	packet[22] = 64;
	packet[23] = 17;
	memcpy(packet + 26, "\xac\x10\0\1", 4);
	memcpy(packet + 30, destination, 4);
	packet[59] = tag;
	for (unsigned i = 14; i < 34; i += 2)
		sum += (uint32_t)(packet[i] << 8 | packet[i + 1]);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	packet[24] = (uint8_t)(sum >> 8);
	packet[25] = (uint8_t)sum;
}

static void deliver(const uint8_t *packet, uint32_t len, uint64_t began)
{
	while (memport_deliver(port[0], packet, len) == -ENOBUFS)
		MUST(now_ns() - began < 5000000000u);
}

/* With the tag of VLAN 9, which ends it; and perhaps with that of VLAN 7, which does not. */
static void deliver_tagged(const uint8_t packet[60], unsigned i, uint64_t began)
{
	uint8_t tagged[64];

	memcpy(tagged, packet, 12);
	memcpy(tagged + 12, "\x81\0\0\x09", 4);
	memcpy(tagged + 16, packet + 12, 48);
	deliver(tagged, sizeof(tagged), began);
	extra++;
	tagged[15] = 7;
	if (i % 4 == 0)
		deliver(tagged, sizeof(tagged), began);
	else
		deliver(packet, 60, began);
}

/* One packet in and the same one out, waited for. */
static void round_trip(unsigned i)
{
	uint8_t packet[60], out[FRAME_BYTES];
	uint64_t began = now_ns();
	unsigned way = i / 2 % 3;
	ssize_t got = 0;

	packet_write(packet, way == 1 ? (const uint8_t[]){192, 0, 2, 1} : (const uint8_t[]){10, 1, 2, 3}, (uint8_t)i);
	if (way == 2)
		MUST(send(kernel[1], packet, sizeof(packet), 0) == sizeof(packet));
	else if (way == 1)
		deliver(packet, sizeof(packet), began);
	else
		deliver_tagged(packet, i, began);
	for (;;) {
		got = way == 1 ? recv(kernel[0], out, sizeof(out), MSG_DONTWAIT) :
				 (ssize_t)memport_collect(port[1], out, sizeof(out));
		if (got > 0)
			break;
		MUST(now_ns() - began < 5000000000u);
		sched_yield();
	}
	MUST(got == 60 && out[59] == packet[59] && memcmp(out + 26, packet + 26, 8) == 0);
	MUST(way == 0 ? out[22] == 63 && out[4] == 1 && out[11] == 0x11 : memcmp(out, packet, 60) == 0);
}

static void set_up(void)
{
	int worker_event = eventfd(0, EFD_NONBLOCK), door_event = eventfd(0, EFD_NONBLOCK);
	const struct prefix ten = prefix4(0, 0, 8), us = {.family = FAMILY_IP4, .len = 32, .addr = {192, 0, 2, 1}};
	struct frame_pool *pool = frame_pool_create(FRAMES);
	struct tap_lane *lane = tap_lane_create(worker_event, door_event);

	umem = (struct umem){aligned_alloc(4096, FRAMES * FRAME_BYTES), FRAMES * FRAME_BYTES, FRAME_BYTES, FRAMES};
	fib = fib_create(NULL);
	empty = fib_create(fib_epoch(fib));
	adjacencies = adjacency_table_create(64, REASON_no_route, fib_epoch(fib));
	dataplane = dataplane_create(&umem, fib, adjacencies, 2, 1);
	door = tap_door_create(&umem, door_event);
	MUST(umem.base && fib && empty && adjacencies && dataplane && door && pool && lane);
	for (uint64_t i = 0; i < FRAMES; i++)
		frame_pool_put(pool, &umem, i * FRAME_BYTES);
	worker = worker_create(dataplane, 0, pool, lane);
	MUST(worker && tap_door_add_lane(door, lane) == 0);
	for (uint16_t i = 0; i < 2; i++) {
		int ends[2];

		MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) == 0);
		kernel[i] = ends[0];
		MUST(tap_door_add_port(door, i, &ends[1], 1) == 0);
		port[i] = memport_create(&umem, i, 0, SLOTS);
		MUST(port[i]);
		memport_set_event(port[i], eventfd(0, EFD_NONBLOCK));
		MUST(worker_add_queue(worker, memport_queue(port[i])) == 0);
		MUST(dataplane_set_port(dataplane, i, mac[i], 9000, PORT_UP | PORT_IP4_FORWARD) == 0);
		adjacency_set(adjacencies, VIA_1 + i, (const uint8_t[]){2, 0, 0, 0, 1, 1}, 1, 0, 1500);
	}
	MUST(dataplane_set_interface(dataplane, 64, 0, &seven, 1, mac[0], 1500, PORT_UP | PORT_IP4_FORWARD) == 0);
	MUST(fib_insert(fib, &ten, VIA_1) == 0 && fib_insert(fib, &us, ADJ_LOCAL) == 0);
	MUST(dataplane_set_policer(dataplane, REASON_local_route, 1000000000, 1000) == 0);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 1000, late = 0;
	pthread_t thread[3];
	uint64_t worst = 0;

	set_up();
	MUST(pthread_create(&thread[0], NULL, run_worker, NULL) == 0);
	MUST(pthread_create(&thread[1], NULL, run_door, NULL) == 0);
	MUST(pthread_create(&thread[2], NULL, run_writer, NULL) == 0);
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t began = now_ns(), took;

		round_trip(i);
		took = now_ns() - began;
		late += took > LATE_NS;
		worst = took > worst ? took : worst;
		if (i % 16 == 0)
			usleep(1);
		while (i % 16 < 12 && now_ns() - began - took < i % 97 * 200)
			; /* up to 20 us */
	}
	atomic_store(&over, 1);
	pthread_join(thread[2], NULL);
	worker_stop(worker);
	tap_door_stop(door);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	MUST(worker_counters(worker)->packets == rounds + extra);
	printf("rounds %u late %u sleeps %llu worst_us %llu\n", rounds, late,
	       (unsigned long long)worker_counters(worker)->sleeps, (unsigned long long)worst / 1000);
	return 0;
}
