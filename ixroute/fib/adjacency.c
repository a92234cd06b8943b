/* The adjacency table (adjacency.h): made and written by Python's side (the mirror), read by all workers.
 * Invariant: word and mtu are each stored and loaded whole, mtu before word, so that a reader of a new word never
 * meets an older mtu than the one that was set with it. */
#include "fib/adjacency.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

/* entry[] must begin a cache line, so the struct begins where capacity just precedes it. */
#define LINE 64u

static void *block_of(struct adjacency_table *table)
{
	return (uint8_t *)table->entry - LINE;
}

struct adjacency_table *adjacency_table_create(uint32_t capacity, uint8_t action)
{
	size_t bytes = LINE + (size_t)capacity * sizeof(struct adjacency);
	uint8_t *block = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
	struct adjacency_table *table;

	if (block == NULL)
		return NULL;
	table = (struct adjacency_table *)(block + LINE - offsetof(struct adjacency_table, entry));
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
	if (table != NULL)
		free(block_of(table));
}

int adjacency_set(struct adjacency_table *table, uint32_t index, const uint8_t *mac, uint16_t interface, uint8_t action,
		  uint32_t mtu)
{
	static const uint8_t no_mac[6];

	if (index >= table->capacity || interface > ADJ_INTERFACE_MAX || action > ADJ_ACTION_MAX)
		return -EINVAL;
	/* The mtu first: whoever sees the new word and forwards by it also sees its mtu. */
	atomic_store_explicit(&table->entry[index].mtu, mtu, memory_order_relaxed);
	atomic_store_explicit(&table->entry[index].word, adjacency_word(mac != NULL ? mac : no_mac, interface, action),
			      memory_order_release);
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
