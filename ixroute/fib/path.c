/* The interned paths (path.h says what they are for). Called by the RIB only, by one thread.
 *
 * Invariants: a slot with a path is in the hash exactly once; a slot is in one of three states: live (path, users or
 * shown > 0, or just interned), retired (no path, in the retired list, oldest first), free (no path, in the free list).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fib/path.h"

static size_t path_bytes(const struct path *path)
{
	return offsetof(struct path, leg) + path->n_legs * sizeof(path->leg[0]);
}

int path_table_init(struct path_table *table, struct epoch *epoch, struct adjacency_table *adjacencies,
		    uint8_t new_action, uint32_t limit)
{
	const uint32_t buckets = 64;

	*table = (struct path_table){
		.epoch = epoch,
		.adjacencies = adjacencies,
		.new_action = new_action,
		.limit = limit,
		.used = ADJ_RESERVED,
		.bucket_mask = buckets - 1,
		.retired_first = NO_PATH,
		.retired_last = NO_PATH,
		.free_first = NO_PATH,
		.new_first = NO_PATH,
		.new_last = NO_PATH,
	};
	table->bucket = malloc(buckets * sizeof(*table->bucket));
	if (table->bucket == NULL)
		return -ENOMEM;
	memset(table->bucket, 0xff, buckets * sizeof(*table->bucket));
	return 0;
}

void path_table_close(struct path_table *table)
{
	for (uint32_t id = ADJ_RESERVED; id < table->used; id++)
		free(table->slot[id].path);
	free(table->slot);
	free(table->bucket);
}

static int leg_compare(const struct next_hop *a, const struct next_hop *b)
{
	return memcmp(a, b, sizeof(*a)); /* any order will do; the struct has no padding */
}
_Static_assert(sizeof(struct next_hop) == 24, "compared and hashed as bytes");

static void legs_sort(struct next_hop *leg, unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		struct next_hop key = leg[i];
		unsigned j = i;

		for (; j > 0 && leg_compare(&leg[j - 1], &key) > 0; j--)
			leg[j] = leg[j - 1];
		leg[j] = key;
	}
}

const struct path *path_canonical(const struct path *path, struct path *scratch)
{
	int siblings = path->family == FAMILY_IP6 && path->n_legs > 1 && path->nhid == 0;

	if (!siblings && !(path->n_legs == 1 && path->leg[0].weight != 1))
		return path;
	memcpy(scratch, path, path_bytes(path));
	if (siblings)
		/* The kernel tells siblings beginning with the one it just added, a dump with the oldest. */
		legs_sort(scratch->leg, scratch->n_legs);
	else
		scratch->leg[0].weight = 1;
	return scratch;
}

static uint64_t mix(uint64_t h, uint64_t word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 32;
}

uint32_t path_hash(const struct path *path)
{
	uint64_t h = mix((uint64_t)path->family << 32 | (uint64_t)path->type << 16 | path->flags,
			 (uint64_t)path->nhid << 32 | path->mtu);

	if (path->nhid == 0)
		for (unsigned i = 0; i < path->n_legs; i++) {
			uint64_t words[3];

			memcpy(words, &path->leg[i], sizeof(words));
			h = mix(mix(mix(h, words[0]), words[1]), words[2]);
		}
	return (uint32_t)h;
}

static int path_legs_equal(const struct path *a, const struct path *b)
{
	return a->n_legs == b->n_legs && memcmp(a->leg, b->leg, a->n_legs * sizeof(a->leg[0])) == 0;
}

static int path_equal(const struct path *a, const struct path *b)
{
	if (a->family != b->family || a->type != b->type || a->flags != b->flags || a->nhid != b->nhid ||
	    a->mtu != b->mtu)
		return 0;
	return a->nhid != 0 || path_legs_equal(a, b);
}

uint32_t path_find(const struct path_table *table, const struct path *path)
{
	uint32_t hash = path_hash(path);
	uint32_t i = hash & table->bucket_mask;

	for (; table->bucket[i] != NO_PATH; i = (i + 1) & table->bucket_mask) {
		const struct path_slot *slot = &table->slot[table->bucket[i]];

		if (slot->hash == hash && path_equal(slot->path, path))
			return table->bucket[i];
	}
	return NO_PATH;
}

static void bucket_put(struct path_table *table, uint32_t id)
{
	uint32_t i = table->slot[id].hash & table->bucket_mask;

	while (table->bucket[i] != NO_PATH)
		i = (i + 1) & table->bucket_mask;
	table->bucket[i] = id;
}

static int buckets_grow(struct path_table *table)
{
	uint32_t old = table->bucket_mask + 1;
	uint32_t *bucket;

	if (table->live < old / 2)
		return 0;
	bucket = realloc(table->bucket, 2 * old * sizeof(*bucket));
	if (bucket == NULL)
		return -ENOMEM;
	memset(bucket, 0xff, 2 * old * sizeof(*bucket));
	table->bucket = bucket;
	table->bucket_mask = 2 * old - 1;
	for (uint32_t id = ADJ_RESERVED; id < table->used; id++)
		if (table->slot[id].path != NULL)
			bucket_put(table, id);
	return 0;
}

/* Linear probing without tombstones: whoever follows and may move back, does. */
static void bucket_remove(struct path_table *table, uint32_t id)
{
	uint32_t mask = table->bucket_mask;
	uint32_t hole = table->slot[id].hash & mask;

	while (table->bucket[hole] != id)
		hole = (hole + 1) & mask;
	for (uint32_t i = (hole + 1) & mask; table->bucket[i] != NO_PATH; i = (i + 1) & mask) {
		uint32_t home = table->slot[table->bucket[i]].hash & mask;

		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		table->bucket[hole] = table->bucket[i];
		hole = i;
	}
	table->bucket[hole] = NO_PATH;
}

static void retired_collect(struct path_table *table)
{
	uint64_t safe;

	if (table->retired_first == NO_PATH)
		return;
	safe = epoch_safe(table->epoch);
	while (table->retired_first != NO_PATH) {
		uint32_t id = table->retired_first;
		struct path_slot *slot = &table->slot[id];

		if (slot->retired_at >= safe)
			return;
		table->retired_first = slot->next_retired;
		slot->next_retired = table->free_first;
		table->free_first = id;
	}
	table->retired_last = NO_PATH;
}

static int slots_grow(struct path_table *table)
{
	uint32_t capacity = table->capacity ? 2 * table->capacity : 64;
	struct path_slot *slot;

	if (table->used < table->capacity)
		return 0;
	slot = realloc(table->slot, capacity * sizeof(*slot));
	if (slot == NULL)
		return -ENOMEM;
	memset(slot + table->capacity, 0, (capacity - table->capacity) * sizeof(*slot));
	table->slot = slot;
	table->capacity = capacity;
	return 0;
}

static int64_t id_take(struct path_table *table)
{
	uint32_t id;

	retired_collect(table);
	id = table->free_first;
	if (id != NO_PATH) {
		table->free_first = table->slot[id].next_retired;
		return id;
	}
	if (table->used >= table->limit)
		return -ENOSPC;
	if (slots_grow(table) < 0)
		return -ENOMEM;
	return table->used++;
}

static void id_give_back(struct path_table *table, uint32_t id)
{
	table->slot[id].next_retired = table->free_first;
	table->free_first = id;
}

static void new_path_queue(struct path_table *table, uint32_t id)
{
	struct path_slot *slot = &table->slot[id];

	if (slot->queued)
		return;
	slot->queued = 1;
	slot->next_new = NO_PATH;
	if (table->new_last == NO_PATH)
		table->new_first = id;
	else
		table->slot[table->new_last].next_new = id;
	table->new_last = id;
}

unsigned path_take_new(struct path_table *table, uint32_t *ids, unsigned n)
{
	unsigned taken = 0;

	while (taken < n && table->new_first != NO_PATH) {
		uint32_t id = table->new_first;
		struct path_slot *slot = &table->slot[id];

		table->new_first = slot->next_new;
		if (table->new_first == NO_PATH)
			table->new_last = NO_PATH;
		slot->queued = 0;
		if (slot->path != NULL) /* else it came and went unseen */
			ids[taken++] = id;
	}
	return taken;
}

static struct path *path_copy(const struct path *path)
{
	struct path *copy = malloc(path_bytes(path));

	if (copy != NULL)
		memcpy(copy, path, path_bytes(path));
	return copy;
}

/* A nexthop object's route told with other legs: same path, but whoever resolves it wants to know. A failure to
 * copy keeps the old legs, which are only a hint. */
static void path_retold(struct path_table *table, uint32_t id, const struct path *path)
{
	struct path_slot *slot = &table->slot[id];
	struct path *copy;

	if (path->nhid == 0 || path_legs_equal(slot->path, path))
		return;
	copy = path_copy(path);
	if (copy == NULL)
		return;
	table->path_bytes += path_bytes(copy) - path_bytes(slot->path);
	free(slot->path);
	slot->path = copy;
	new_path_queue(table, id);
}

static int64_t path_create(struct path_table *table, const struct path *path)
{
	struct path_slot *slot;
	int64_t id;

	if (buckets_grow(table) < 0)
		return -ENOMEM;
	id = id_take(table);
	if (id < 0)
		return id;
	slot = &table->slot[id];
	slot->path = path_copy(path);
	if (slot->path == NULL) {
		id_give_back(table, (uint32_t)id);
		return -ENOMEM;
	}
	slot->hash = path_hash(path);
	slot->users = 1;
	slot->shown = 0;
	/* Before the FIB can show it: until somebody resolves the path its packets get the action for new paths. */
	adjacency_set(table->adjacencies, (uint32_t)id, NULL, 0, table->new_action, 0);
	bucket_put(table, (uint32_t)id);
	table->live++;
	table->path_bytes += path_bytes(path);
	new_path_queue(table, (uint32_t)id);
	return id;
}

int64_t path_intern(struct path_table *table, const struct path *path)
{
	uint32_t id = path_find(table, path);

	if (id == NO_PATH)
		return path_create(table, path);
	path_retold(table, id, path);
	table->slot[id].users++;
	return id;
}

static void path_retire_if_unused(struct path_table *table, uint32_t id)
{
	struct path_slot *slot = &table->slot[id];

	if (slot->users != 0 || slot->shown != 0)
		return;
	bucket_remove(table, id);
	table->live--;
	table->path_bytes -= path_bytes(slot->path);
	free(slot->path); /* workers read adjacencies, never paths */
	slot->path = NULL;
	slot->retired_at = atomic_load_explicit(&table->epoch->now, memory_order_relaxed);
	epoch_advance(table->epoch);
	slot->next_retired = NO_PATH;
	if (table->retired_first == NO_PATH)
		table->retired_first = id;
	else
		table->slot[table->retired_last].next_retired = id;
	table->retired_last = id;
}

static int is_reserved(uint32_t id)
{
	return id < ADJ_RESERVED || id == NO_PATH;
}

void path_use(struct path_table *table, uint32_t id)
{
	if (!is_reserved(id))
		table->slot[id].users++;
}

void path_unuse(struct path_table *table, uint32_t id)
{
	if (is_reserved(id))
		return;
	table->slot[id].users--;
	path_retire_if_unused(table, id);
}

void path_show(struct path_table *table, uint32_t id)
{
	if (!is_reserved(id))
		table->slot[id].shown++;
}

void path_unshow(struct path_table *table, uint32_t id)
{
	if (is_reserved(id))
		return;
	table->slot[id].shown--;
	path_retire_if_unused(table, id);
}

const struct path *path_get(const struct path_table *table, uint32_t id)
{
	return id < ADJ_RESERVED || id >= table->used ? NULL : table->slot[id].path;
}

uint64_t path_table_bytes(const struct path_table *table)
{
	return table->capacity * sizeof(*table->slot) + (table->bucket_mask + 1) * sizeof(*table->bucket) +
	       table->path_bytes;
}
