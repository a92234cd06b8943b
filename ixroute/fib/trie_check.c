/* Recomputes the readers' tables from the writer's store, slowly, and compares every slot. For tests and debugging; the
 * writer's thread. Knows the structure only by its invariants, listed as the messages below. */
#include <errno.h>
#include <stdio.h>

#include "fib/prefix_store.h"
#include "fib/trie.h"

struct check {
	const struct trie *trie;
	char *why;
	size_t why_bytes;
	uint64_t prefixes;	/* met so far */
	uint64_t nodes;		/* blocks of the node arena that are accounted for */
	uint64_t record_blocks; /* of the record arena */
};

static int wrong(struct check *check, const char *what, unsigned depth, uint64_t at)
{
	snprintf(check->why, check->why_bytes, "IPv%d, depth %u, slot %#llx: %s", check->trie->max_len == 32 ? 4 : 6, depth,
		 (unsigned long long)at, what);
	return -EINVAL;
}

static uint32_t short_value(const struct trie *trie, unsigned len, uint64_t bits)
{
	return ((const uint32_t *)trie->short_values.base)[1ull << len | bits];
}

/* The longest of the prefixes of length from .. to that covers slot (`to` bits). */
static uint32_t longest(const struct trie *trie, unsigned from, unsigned to, uint64_t slot)
{
	for (unsigned len = to + 1; len-- > from;) {
		uint32_t value = short_value(trie, len, slot >> (to - len));

		if (value != 0)
			return value;
	}
	return 0;
}

static int check_arrays(struct check *check, const struct record *record, unsigned depth)
{
	const struct arena *arena = &check->trie->record_arena;
	unsigned values = (unsigned)(__builtin_popcountll(record->inner[0]) + __builtin_popcountll(record->inner[1]));
	unsigned kids = (unsigned)__builtin_popcountll(record->kids);

	if (values + kids == 0)
		return wrong(check, "a record without prefix or kid", depth, 0);
	if ((record->inner[0] & 3) != 0)
		return wrong(check, "a prefix of no bits in a record", depth, 0);
	if (values != 0 && (record->values == 0 || arena_room(arena, record->values) < values * 4))
		return wrong(check, "values without room", depth, 0);
	if (kids != 0 && (record->children == 0 || arena_room(arena, record->children) < kids * 4))
		return wrong(check, "children without room", depth, 0);
	check->prefixes += values;
	check->record_blocks += 1u + (record->values != 0) + (record->children != 0);
	check->nodes++;
	return 0;
}

static int check_node(struct check *check, const struct record *record, unsigned depth, const uint32_t want[NODE_SLOTS])
{
	const uint8_t *node = check->trie->nodes + entry_offset(record->entry);
	uint32_t width = entry_width(record->entry), before = 0;
	uint64_t starts = node_starts(node);
	uint32_t runs = node_rank(starts, NODE_SLOTS - 1);

	if ((record->entry & ENTRY_NODE) == 0 || width == 3)
		return wrong(check, "a record's entry is not a node", depth, record->entry);
	if (arena_room(&check->trie->node_arena, record->entry & ENTRY_REF) !=
	    (NODE_ENTRIES + width * (1 + runs) + ARENA_UNIT - 1) / ARENA_UNIT * ARENA_UNIT)
		return wrong(check, "a node of the wrong size", depth, record->entry);
	if ((starts & 1) == 0 || node_entry(node, width, 0) != record->inherited)
		return wrong(check, "starts or inherited", depth, record->entry);
	for (unsigned slot = 0; slot < NODE_SLOTS; slot++) {
		uint32_t found = node_entry(node, width, node_rank(starts, slot));

		if (found != want[slot])
			return wrong(check, "the node's slot is not what the record says", depth, slot);
		if (slot > 0 && ((starts >> slot & 1) != 0) != (found != before))
			return wrong(check, "a run begins where nothing changes", depth, slot);
		before = found;
	}
	return 0;
}

static int check_record(struct check *check, uint32_t ref, uint32_t entry, uint32_t inherited, unsigned depth)
{
	const struct arena *arena = &check->trie->record_arena;
	const struct record *record = arena_at(arena, ref);
	uint32_t value[NODE_SLOTS], want[NODE_SLOTS];
	int code = 0;

	if (entry != record->entry)
		return wrong(check, "the entry above is not this record's node", depth, entry);
	if (inherited != record->inherited)
		return wrong(check, "inherits something else than the slot above has", depth, inherited);
	if (depth >= check->trie->max_len)
		return wrong(check, "a record deeper than any prefix", depth, 0);
	code = check_arrays(check, record, depth);
	for (unsigned slot = 0; slot < NODE_SLOTS && code == 0; slot++) {
		unsigned cover = record_cover(record, slot);

		value[slot] = cover != 0 ? *record_value(arena, record, cover) : 0;
		want[slot] = value[slot];
		if (record_has_kid(record, slot)) {
			const struct record *kid = arena_at(arena, record_kid(arena, record, slot));

			want[slot] = kid->entry;
		}
	}
	if (code == 0)
		code = check_node(check, record, depth, want);
	for (uint64_t left = record->kids; left != 0 && code == 0; left &= left - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(left);

		code = check_record(check, record_kid(arena, record, slot), want[slot], value[slot], depth_below(depth));
	}
	return code;
}

static int check_root_slot(struct check *check, uint64_t slot)
{
	const struct trie *trie = check->trie;
	uint32_t want = longest(trie, trie->top_bits + 1, trie->root_bits, slot), entry = trie->root[slot];
	uint32_t ref = ((const uint32_t *)trie->root_records.base)[slot];

	check->prefixes += short_value(trie, trie->root_bits, slot) != 0;
	if (ref != 0)
		return check_record(check, ref, entry, want, trie->root_bits);
	return entry == want ? 0 : wrong(check, "root", trie->root_bits, slot);
}

/* The root slots under one top slot, and the prefixes of the lengths between. */
static int check_below(struct check *check, uint64_t top_slot)
{
	const struct trie *trie = check->trie;
	unsigned bits = trie->root_bits - trie->top_bits;
	uint64_t before = check->prefixes, marked = trie->top[top_slot] & TOP_BELOW;
	uint32_t count = ((const uint32_t *)trie->below_count.base)[top_slot];
	int code = 0;

	for (unsigned more = 1; more < bits; more++)
		for (uint64_t at = top_slot << more; at < (top_slot + 1) << more; at++)
			check->prefixes += short_value(trie, trie->top_bits + more, at) != 0;
	for (uint64_t slot = top_slot << bits; slot < (top_slot + 1) << bits && code == 0; slot++)
		code = check_root_slot(check, slot);
	if (code == 0 && check->prefixes - before != count)
		return wrong(check, "the count of longer prefixes", trie->top_bits, top_slot);
	if (code == 0 && marked != (count != 0 ? trie->below_flag : 0))
		return wrong(check, "the mark for longer prefixes", trie->top_bits, top_slot);
	return code;
}

static int check_top(struct check *check)
{
	const struct trie *trie = check->trie;

	for (uint64_t slot = 0; slot < 1ull << trie->top_bits; slot++) {
		/* Root slots under this one fill whole pages: one never written holds nothing, and stays unmapped. */
		uint64_t page = (slot << (trie->root_bits - trie->top_bits)) * 4 / ARENA_PAGE;
		uint32_t value = longest(trie, 0, trie->top_bits, slot);
		int below = ((const uint32_t *)trie->below_count.base)[slot] != 0;
		int code = 0;

		if ((trie->top[slot] & TOP_INDEX) != (value != 0 ? value - 1 : 0))
			return wrong(check, "top", trie->top_bits, slot);
		check->prefixes += short_value(trie, trie->top_bits, slot) != 0;
		if (below || lazy_array_written(&trie->root_array, page))
			code = check_below(check, slot);
		else if (trie->top[slot] & TOP_BELOW)
			code = wrong(check, "the mark for longer prefixes", trie->top_bits, slot);
		if (code != 0)
			return code;
	}
	for (unsigned len = 0; len < trie->top_bits; len++)
		for (uint64_t bits = 0; bits < 1ull << len; bits++)
			check->prefixes += short_value(trie, len, bits) != 0;
	return 0;
}

int trie_check(const struct trie *trie, char *why, size_t why_bytes)
{
	struct check check = {.trie = trie, .why = why, .why_bytes = why_bytes};
	int code = check_top(&check);

	if (code != 0)
		return code;
	if (check.prefixes != trie->prefixes)
		return wrong(&check, "the number of prefixes", 0, check.prefixes);
	if (check.nodes + (trie->retire.head - trie->retire.tail) != trie->node_arena.blocks)
		return wrong(&check, "nodes that are neither in the trie nor retired", 0, trie->node_arena.blocks);
	if (check.record_blocks != trie->record_arena.blocks)
		return wrong(&check, "record blocks that nobody holds", 0, trie->record_arena.blocks);
	if (trie->generation % 2 != 0)
		return wrong(&check, "an update that never ended", 0, trie->generation);
	return 0;
}
