/* Packets of every kind of nonsense, each in a buffer of exactly its length, hashed by all policies; and groups that
 * change while a reader chooses by them. Built with the address and undefined behaviour sanitizers by
 * test_multipath_memory.py: what must not happen is theirs to find. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fib/adjacency.h"
#include "forward/multipath.h"

#define INDEX 9u

static struct epoch epoch;
static struct adjacency_table *table;
static struct multipath multipath;
static _Atomic int over;

static uint32_t noise(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

/* Bytes that lead deeper are likelier than others. */
static uint8_t likely(void)
{
	static const uint8_t bytes[] = {0, 1, 3, 4, 5, 6, 17, 41, 43, 44, 45, 46, 47, 50, 51, 58, 60, 8, 0x45, 0x60,
					0x65, 0x58, 0x88, 0x0b, 0x86, 0xdd, 0x81, 0x20, 0x30, 0x40, 0xb0, 255};

	return noise() % 3 ? bytes[noise() % sizeof(bytes)] : (uint8_t)noise();
}

static void hash_nonsense(unsigned rounds)
{
	unsigned long long sum = 0;

	for (unsigned i = 0; i < rounds; i++) {
		enum version version = noise() % 2 ? VERSION_4 : VERSION_6;
		uint32_t words = 5 + noise() % 11, least = version == VERSION_4 ? 4 * words : 40;
		uint32_t length = least + noise() % 120;
		uint8_t *packet = malloc(length);

		for (uint32_t at = 0; at < length; at++)
			packet[at] = likely();
		packet[0] = version == VERSION_4 ? (uint8_t)(0x40 | words) : 0x60;
		if (noise() % 2 && version == VERSION_4)
			memset(packet + 6, 0, 2);
		for (unsigned policy = 0; policy < 4; policy++) {
			atomic_store(&multipath.how[version == VERSION_6], policy | (1 + noise() % HASH_ALL_FIELDS) << 8);
			sum += multipath_hash(&multipath, packet, length, version);
		}
		free(packet);
	}
	printf("hashed %u sum %llu\n", rounds, sum);
}

/* As a worker does: a pass, and nothing held between two. */
static void *reader(void *number)
{
	uint8_t packet[40] = {0x45};
	unsigned long long *chosen = number;

	while (!atomic_load(&over)) {
		epoch_quiesce(&epoch, 0);
		for (unsigned i = 0; i < 64; i++) {
			struct packet p = {.ip = packet, .index = INDEX, .length = 40, .version = VERSION_4};
			uint64_t word = atomic_load_explicit(&table->entry[INDEX].word, memory_order_acquire);

			packet[19] = (uint8_t)i;
			if (adjacency_action(word) == ADJ_ACTION_GROUP) {
				if (multipath_choose(&multipath, table, &p, &word) != 1500)
					abort();
				++*chosen;
			}
			/* What is in the place of a group that went is as good as it. */
			if (adjacency_action(word) != ADJ_ACTION_FORWARD || adjacency_interface(word) != 1)
				abort();
			word = multipath_source(table, INDEX, 1);
			if (adjacency_action(word) != ADJ_ACTION_FORWARD)
				abort();
		}
	}
	epoch_idle(&epoch, 0);
	return NULL;
}

static void change_groups(unsigned rounds)
{
	struct group_leg legs[8] = {{.weight = 0}};
	uint16_t buckets[40];
	uint8_t used[40];

	for (unsigned i = 0; i < 8; i++)
		legs[i] = (struct group_leg){.interface = 1, .mtu = 1500, .weight = 1 + i};
	for (unsigned i = 0; i < rounds; i++) {
		uint32_t n_legs = 1 + noise() % 8, n_buckets = noise() % 2 ? noise() % 40 : 0;

		for (unsigned b = 0; b < n_buckets; b++)
			buckets[b] = (uint16_t)(noise() % n_legs);
		if (noise() % 4 == 0)
			adjacency_set(table, INDEX, NULL, 1, 0, 1500);
		else if (adjacency_set_group(table, INDEX, legs, n_legs, buckets, n_buckets) != 0)
			abort();
		adjacency_take_buckets_used(table, INDEX, used);
		adjacency_take_legs_used(table, INDEX, used);
		adjacency_collect(table);
	}
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
	unsigned long long chosen = 0;
	pthread_t thread;

	atomic_store(&epoch.now, 1);
	for (unsigned i = 0; i < EPOCH_READERS; i++)
		epoch_idle(&epoch, i);
	multipath_seed(&multipath, 1);
	hash_nonsense(rounds);
	table = adjacency_table_create(16, 1, &epoch);
	if (table == NULL || adjacency_set(table, INDEX, NULL, 1, 0, 1500) != 0)
		return 1;
	if (pthread_create(&thread, NULL, reader, &chosen) != 0)
		return 1;
	change_groups(rounds);
	atomic_store(&over, 1);
	pthread_join(thread, NULL);
	adjacency_collect(table);
	printf("chosen %llu retired %u\n", chosen, adjacency_retired(table));
	adjacency_table_destroy(table);
	return 0;
}
