/* The adjacency table (adjacency.h): made and written by Python's side (the mirror) and the RIB, read by all workers.
 * Invariants: word and mtu are each stored and loaded whole, mtu before word, so that a reader of a new word never
 * meets an older mtu than the one that was set with it. A group is whole before its pointer is stored; it is freed only
 * when it is in no entry and every reader has passed a quiescent point since. The retired list is oldest first. */
#include "fib/adjacency.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LINE 64u

struct adjacency_table *adjacency_table_create(uint32_t capacity, uint8_t action, struct epoch *epoch)
{
	size_t bytes = sizeof(struct adjacency_table) + (size_t)capacity * sizeof(struct adjacency);
	struct adjacency_table *table = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);

	if (table == NULL)
		return NULL;
	memset(table, 0, sizeof(*table));
	table->group = calloc(capacity, sizeof(*table->group));
	if (table->group == NULL) {
		free(table);
		return NULL;
	}
	table->epoch = epoch;
	table->capacity = capacity;
	for (uint32_t i = 0; i < capacity; i++) {
		atomic_init(&table->entry[i].word, adjacency_word((const uint8_t[6]){0}, 0, action));
		atomic_init(&table->entry[i].mtu, 0);
		table->entry[i].unused = 0;
	}
	return table;
}

void adjacency_table_destroy(struct adjacency_table *table)
{
	struct adjacency_group *next;

	if (table == NULL)
		return;
	for (uint32_t i = 0; i < table->capacity; i++)
		free(atomic_load_explicit(&table->group[i], memory_order_relaxed));
	for (struct adjacency_group *group = table->retired_first; group != NULL; group = next) {
		next = group->next;
		free(group);
	}
	free((void *)table->group);
	free(table);
}

/* ---- Groups that were replaced ---- */

static void group_retire(struct adjacency_table *table, struct adjacency_group *group)
{
	group->next = NULL;
	if (table->retired_last == NULL)
		table->retired_first = group;
	else
		table->retired_last->next = group;
	table->retired_last = group;
	if (table->epoch == NULL)
		return;
	group->retired_at = atomic_load_explicit(&table->epoch->now, memory_order_relaxed);
	epoch_advance(table->epoch);
}

void adjacency_collect(struct adjacency_table *table)
{
	uint64_t safe;

	if (table->retired_first == NULL || table->epoch == NULL)
		return;
	safe = epoch_safe(table->epoch);
	while (table->retired_first != NULL && table->retired_first->retired_at < safe) {
		struct adjacency_group *group = table->retired_first;

		table->retired_first = group->next;
		free(group);
	}
	if (table->retired_first == NULL)
		table->retired_last = NULL;
}

uint32_t adjacency_retired(const struct adjacency_table *table)
{
	uint32_t n = 0;

	for (const struct adjacency_group *group = table->retired_first; group != NULL; group = group->next)
		n++;
	return n;
}

/* The writer's own look at it. */
static struct adjacency_group *group_at(const struct adjacency_table *table, uint32_t index)
{
	return index < table->capacity ? atomic_load_explicit(&table->group[index], memory_order_relaxed) : NULL;
}

/* ---- Entries ---- */

int adjacency_set(struct adjacency_table *table, uint32_t index, const uint8_t *mac, uint16_t interface, uint8_t action,
		  uint32_t mtu)
{
	static const uint8_t no_mac[6];
	struct adjacency_group *group;

	if (index >= table->capacity || interface > ADJ_INTERFACE_MAX || action > ADJ_ACTION_MAX)
		return -EINVAL;
	/* The mtu first: whoever sees the new word and forwards by it also sees its mtu. */
	atomic_store_explicit(&table->entry[index].mtu, mtu, memory_order_relaxed);
	atomic_store_explicit(&table->entry[index].word, adjacency_word(mac != NULL ? mac : no_mac, interface, action),
			      memory_order_release);
	group = group_at(table, index);
	if (group == NULL)
		return 0;
	/* After the word: who has loaded the old one and finds no group any more finds the new one (multipath.c). */
	atomic_store_explicit(&table->group[index], NULL, memory_order_release);
	group_retire(table, group);
	adjacency_collect(table);
	return 0;
}

int adjacency_get(const struct adjacency_table *table, uint32_t index, uint64_t *word, uint32_t *mtu)
{
	if (index >= table->capacity)
		return -EINVAL;
	*word = atomic_load_explicit(&table->entry[index].word, memory_order_acquire);
	*mtu = atomic_load_explicit(&table->entry[index].mtu, memory_order_relaxed);
	return 0;
}

/* ---- Groups ---- */

static int legs_fit(const struct group_leg *legs, uint32_t n_legs, const uint16_t *buckets, uint32_t n_buckets)
{
	if (n_legs == 0 || n_legs > ADJ_LEGS_MAX || n_buckets > ADJ_BUCKETS_MAX)
		return 0;
	for (uint32_t i = 0; i < n_legs; i++)
		if (legs[i].interface > ADJ_INTERFACE_MAX || legs[i].action >= ADJ_ACTION_GROUP ||
		    legs[i].weight == 0 || legs[i].weight > ADJ_WEIGHT_MAX)
			return 0;
	for (uint32_t i = 0; i < n_buckets; i++)
		if (buckets[i] >= n_legs)
			return 0;
	return 1;
}

/* One block: the group, its legs, leg of each bucket, mark of each bucket. */
static struct adjacency_group *group_create(uint32_t n_legs, const uint16_t *buckets, uint32_t n_buckets)
{
	size_t legs_end = sizeof(struct adjacency_group) + n_legs * sizeof(struct adjacency_leg);
	struct adjacency_group *group = calloc(1, legs_end + n_buckets * (sizeof(*buckets) + 1));
	uint16_t *bucket;

	if (group == NULL)
		return NULL;
	bucket = (uint16_t *)((uint8_t *)group + legs_end);
	if (n_buckets)
		memcpy(bucket, buckets, n_buckets * sizeof(*buckets));
	group->n_legs = n_legs;
	group->n_buckets = n_buckets;
	group->bucket = bucket;
	group->bucket_used = (_Atomic uint8_t *)(bucket + n_buckets);
	return group;
}

/* Each leg's stretch of the hash's range ends where its share of the weights does, to the nearest whole number, so that
 * no rounding adds up (linux: fib_rebalance, nh_hthr_group_rebalance). */
static void legs_write(struct adjacency_group *group, const struct group_leg *legs)
{
	uint64_t total = 0, sum = 0;

	for (uint32_t i = 0; i < group->n_legs; i++)
		total += legs[i].weight;
	for (uint32_t i = 0; i < group->n_legs; i++) {
		struct adjacency_leg *leg = &group->leg[i];

		sum += legs[i].weight;
		leg->word = adjacency_word(legs[i].mac, legs[i].interface, legs[i].action);
		leg->mtu = legs[i].mtu;
		leg->weight = legs[i].weight;
		leg->upper = (uint32_t)(((sum << ADJ_HASH_BITS) + total / 2) / total);
	}
}

static void bucket_marks_keep(struct adjacency_group *group, const struct adjacency_group *old)
{
	if (old->n_buckets != group->n_buckets)
		return;
	for (uint32_t i = 0; i < group->n_buckets; i++)
		atomic_init(&group->bucket_used[i], atomic_load_explicit(&old->bucket_used[i], memory_order_relaxed));
}

int adjacency_set_group(struct adjacency_table *table, uint32_t index, const struct group_leg *legs, uint32_t n_legs,
			const uint16_t *buckets, uint32_t n_buckets)
{
	struct adjacency_group *group, *old = group_at(table, index);

	if (index >= table->capacity || !legs_fit(legs, n_legs, buckets, n_buckets))
		return -EINVAL;
	group = group_create(n_legs, buckets, n_buckets);
	if (group == NULL)
		return -ENOMEM;
	legs_write(group, legs);
	if (old != NULL)
		bucket_marks_keep(group, old);
	/* Before the word, and released: who is sent here by the word finds it, and finds it whole. */
	atomic_store_explicit(&table->group[index], group, memory_order_release);
	atomic_store_explicit(&table->entry[index].word, adjacency_word((const uint8_t[6]){0}, 0, ADJ_ACTION_GROUP),
			      memory_order_release);
	if (old != NULL)
		group_retire(table, old);
	adjacency_collect(table);
	return 0;
}

uint32_t adjacency_group_size(const struct adjacency_table *table, uint32_t index, uint32_t *n_buckets)
{
	const struct adjacency_group *group = group_at(table, index);

	*n_buckets = group != NULL ? group->n_buckets : 0;
	return group != NULL ? group->n_legs : 0;
}

void adjacency_get_group(const struct adjacency_table *table, uint32_t index, struct group_leg *legs, uint16_t *buckets)
{
	const struct adjacency_group *group = group_at(table, index);

	if (group == NULL)
		return;
	for (uint32_t i = 0; i < group->n_legs; i++) {
		const struct adjacency_leg *leg = &group->leg[i];

		legs[i] = (struct group_leg){
			.interface = (uint16_t)adjacency_interface(leg->word),
			.action = (uint8_t)adjacency_action(leg->word),
			.mtu = leg->mtu,
			.weight = leg->weight,
		};
		for (unsigned byte = 0; byte < 6; byte++)
			legs[i].mac[byte] = (uint8_t)(leg->word >> (8 * byte));
	}
	if (group->n_buckets)
		memcpy(buckets, group->bucket, group->n_buckets * sizeof(*buckets));
}

/* A mark set between the load and the store is not lost: it says what this one already says. */
static uint8_t mark_take(_Atomic uint8_t *mark)
{
	if (!atomic_load_explicit(mark, memory_order_relaxed))
		return 0;
	atomic_store_explicit(mark, 0, memory_order_relaxed);
	return 1;
}

void adjacency_take_legs_used(struct adjacency_table *table, uint32_t index, uint8_t *used)
{
	struct adjacency_group *group = group_at(table, index);

	for (uint32_t i = 0; group != NULL && i < group->n_legs; i++)
		used[i] = mark_take(&group->leg[i].used);
}

void adjacency_take_buckets_used(struct adjacency_table *table, uint32_t index, uint8_t *used)
{
	struct adjacency_group *group = group_at(table, index);

	for (uint32_t i = 0; group != NULL && i < group->n_buckets; i++)
		used[i] = mark_take(&group->bucket_used[i]);
}
