/* Records of the writer's prefix store (prefix_store.h). Called by trie.c. Invariants: an array holds exactly as
 * many elements as its bitmap has bits, in the order of the bits; the reference is 0 exactly when it never held
 * any or was shrunk. */
#include "fib/prefix_store.h"

#include <errno.h>
#include <string.h>

uint32_t record_create(struct arena *arena)
{
	uint32_t ref = arena_alloc(arena, sizeof(struct record));

	if (ref != 0)
		memset(arena_at(arena, ref), 0, sizeof(struct record));
	return ref;
}

void record_destroy(struct arena *arena, uint32_t ref)
{
	const struct record *record = arena_at(arena, ref);

	if (record->values != 0)
		arena_free(arena, record->values);
	if (record->children != 0)
		arena_free(arena, record->children);
	arena_free(arena, ref);
}

static uint32_t count_below(uint64_t bits, unsigned bit)
{
	return (uint32_t)__builtin_popcountll(bits & ((1ull << bit) - 1));
}

static uint32_t count_values(const struct record *record)
{
	return (uint32_t)(__builtin_popcountll(record->inner[0]) + __builtin_popcountll(record->inner[1]));
}

static uint32_t value_rank(const struct record *record, unsigned place)
{
	if (place < 64)
		return count_below(record->inner[0], place);
	return (uint32_t)__builtin_popcountll(record->inner[0]) + count_below(record->inner[1], place - 64);
}

/* An array of n in *ref becomes one with room for `want`. */
static int set_room(struct arena *arena, uint32_t *ref, uint32_t n, uint32_t want)
{
	uint32_t bigger = arena_alloc(arena, want * 4);

	if (bigger == 0)
		return -ENOMEM;
	if (*ref != 0) {
		memcpy(arena_at(arena, bigger), arena_at(arena, *ref), n * 4);
		arena_free(arena, *ref);
	}
	*ref = bigger;
	return 0;
}

static int array_insert(struct arena *arena, uint32_t *ref, uint32_t n, uint32_t rank, uint32_t element)
{
	uint32_t *array;

	if ((*ref == 0 || (n + 1) * 4 > arena_room(arena, *ref)) && set_room(arena, ref, n, n + 1) != 0)
		return -ENOMEM;
	array = arena_at(arena, *ref);
	memmove(array + rank + 1, array + rank, (n - rank) * 4);
	array[rank] = element;
	return 0;
}

static uint32_t array_take(struct arena *arena, uint32_t ref, uint32_t n, uint32_t rank)
{
	uint32_t *array = arena_at(arena, ref);
	uint32_t element = array[rank];

	memmove(array + rank, array + rank + 1, (n - rank - 1) * 4);
	return element;
}

static void array_shrink(struct arena *arena, uint32_t *ref, uint32_t n)
{
	if (*ref == 0 || arena_room(arena, *ref) - n * 4 < ARENA_UNIT)
		return;
	if (n != 0) {
		set_room(arena, ref, n, n);
	} else {
		arena_free(arena, *ref);
		*ref = 0;
	}
}

uint32_t *record_value(const struct arena *arena, const struct record *record, unsigned place)
{
	return (uint32_t *)arena_at(arena, record->values) + value_rank(record, place);
}

int record_insert(struct arena *arena, struct record *record, unsigned place, uint32_t value)
{
	int code = array_insert(arena, &record->values, count_values(record), value_rank(record, place), value);

	if (code == 0)
		record->inner[place / 64] |= 1ull << (place % 64);
	return code;
}

uint32_t record_take(struct arena *arena, struct record *record, unsigned place)
{
	uint32_t value = array_take(arena, record->values, count_values(record), value_rank(record, place));

	record->inner[place / 64] &= ~(1ull << (place % 64));
	return value;
}

unsigned record_cover(const struct record *record, unsigned slot, unsigned bits)
{
	for (unsigned place = record_place(slot, bits); place > 1; place >>= 1)
		if (record_has(record, place))
			return place;
	return 0;
}

uint32_t record_kid(const struct arena *arena, const struct record *record, unsigned slot)
{
	return ((const uint32_t *)arena_at(arena, record->children))[count_below(record->kids, slot)];
}

int record_kid_insert(struct arena *arena, struct record *record, unsigned slot, uint32_t kid)
{
	uint32_t n = (uint32_t)__builtin_popcountll(record->kids);
	int code = array_insert(arena, &record->children, n, count_below(record->kids, slot), kid);

	if (code == 0)
		record->kids |= 1ull << slot;
	return code;
}

uint32_t record_kid_take(struct arena *arena, struct record *record, unsigned slot)
{
	uint32_t n = (uint32_t)__builtin_popcountll(record->kids);
	uint32_t kid = array_take(arena, record->children, n, count_below(record->kids, slot));

	record->kids &= ~(1ull << slot);
	return kid;
}

void record_shrink(struct arena *arena, struct record *record)
{
	array_shrink(arena, &record->values, count_values(record));
	array_shrink(arena, &record->children, (uint32_t)__builtin_popcountll(record->kids));
}

void record_resolve(const struct arena *arena, const struct record *record, uint64_t value[64])
{
	const uint32_t *next = arena_at(arena, record->values);

	memset(value, 0, 64 * sizeof(*value));
	for (uint64_t left = record->inner[0]; left != 0; left &= left - 1) {
		unsigned place = (unsigned)__builtin_ctzll(left);
		unsigned bits = 31u - (unsigned)__builtin_clz(place);
		unsigned first = (place << (6 - bits)) & 63;

		for (unsigned slot = first; slot < first + (64u >> bits); slot++)
			value[slot] = *next;
		next++;
	}
	for (uint64_t left = record->inner[1]; left != 0; left &= left - 1)
		value[__builtin_ctzll(left)] = *next++;
}
