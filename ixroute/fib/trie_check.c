/* Recomputes the readers' tables from the writer's store, slowly, and compares every slot. For tests and
 * debugging; the writer's thread. Knows the structure only by its invariants, listed as the messages below. */
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
	snprintf(check->why, check->why_bytes, "IPv%d, depth %u, at %#llx: %s", check->trie->max_len == 32 ? 4 : 6,
		 depth, (unsigned long long)at, what);
	return -EINVAL;
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

static int check_node(struct check *check, const struct record *record, unsigned depth, const uint64_t want[NODE_SLOTS])
{
	const uint8_t *at = node_of(check->trie->nodes, record->node);
	uint64_t starts = node_starts(at), before = 0, ored = 0;
	uint32_t runs = node_rank(starts, NODE_SLOTS - 1), width = record->node & NODE_WIDTH;

	if (arena_room(&check->trie->node_arena, record->node >> 2) !=
	    (8 + (runs << width) + ARENA_UNIT - 1) / ARENA_UNIT * ARENA_UNIT)
		return wrong(check, "a node of the wrong size", depth, record->node);
	if ((starts & 1) == 0)
		return wrong(check, "a node whose first run is missing", depth, record->node);
	for (unsigned slot = 0; slot < NODE_SLOTS; slot++) {
		uint64_t found = node_entry(at, record->node, node_rank(starts, slot));

		if (found != want[slot])
			return wrong(check, "the node's slot is not what the record says", depth, slot);
		if (slot > 0 && ((starts >> slot & 1) != 0) != (found != before))
			return wrong(check, "a run begins where nothing changes", depth, slot);
		before = found;
		ored |= found;
	}
	if (width > 0 && ored < 1ull << (4u << width))
		return wrong(check, "a node wider than it needs", depth, record->node);
	return 0;
}

static int check_record(struct check *check, uint32_t ref, uint32_t node, unsigned depth)
{
	const struct arena *arena = &check->trie->record_arena;
	const struct record *record = arena_at(arena, ref);
	uint64_t want[NODE_SLOTS];
	int code = 0;

	if (node != record->node)
		return wrong(check, "the slot above does not name this record's node", depth, node);
	if (depth >= check->trie->max_len)
		return wrong(check, "a record deeper than any prefix", depth, 0);
	code = check_arrays(check, record, depth);
	for (unsigned slot = 0; slot < NODE_SLOTS && code == 0; slot++) {
		unsigned cover = record_cover(record, slot, NODE_BITS);

		want[slot] = cover != 0 ? *record_value(arena, record, cover) : 0;
		if (record_has_kid(record, slot)) {
			const struct record *kid = arena_at(arena, record_kid(arena, record, slot));

			want[slot] = slot_pair((uint32_t)want[slot], kid->node);
		}
	}
	if (code == 0)
		code = check_node(check, record, depth, want);
	for (uint64_t left = record->kids; left != 0 && code == 0; left &= left - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(left);
		uint32_t kid = record_kid(arena, record, slot);

		code = check_record(check, kid, (uint32_t)(want[slot] >> 32), depth_below(depth));
	}
	return code;
}

static int check_root_slot(struct check *check, uint64_t slot, uint32_t value, unsigned owner)
{
	const struct trie *trie = check->trie;
	uint32_t ref = ((const uint32_t *)trie->root_records.base)[slot], node = (uint32_t)(trie->root[slot] >> 32);

	if ((uint32_t)trie->root[slot] != value)
		return wrong(check, "value in the root", trie->root_bits, slot);
	if (((const uint8_t *)trie->root_owner.base)[slot] != owner)
		return wrong(check, "owner in the root", trie->root_bits, slot);
	if (ref != 0)
		return check_record(check, ref, node, trie->root_bits);
	return node == 0 ? 0 : wrong(check, "a node without a record", trie->root_bits, slot);
}

static int check_short(struct check *check, unsigned len, uint64_t bits, uint32_t value, unsigned owner);

static int check_top_slot(struct check *check, uint64_t slot, uint32_t value, unsigned owner)
{
	const struct trie *trie = check->trie;
	/* IPv6: root slots under this one fill two whole pages: those never written hold nothing, and stay unmapped. */
	uint64_t page = (slot << (trie->root_bits - trie->top_bits)) * 8 / ARENA_PAGE, before = check->prefixes;
	uint32_t count = ((const uint32_t *)trie->below_count.base)[slot];
	int code = 0;

	if ((trie->top[slot] & TOP_INDEX) != (value != 0 ? value - 1 : 0))
		return wrong(check, "top", trie->top_bits, slot);
	if (((const uint8_t *)trie->top_owner.base)[slot] != owner)
		return wrong(check, "owner in the top", trie->top_bits, slot);
	if (count != 0 || trie->top_bits == 0 || lazy_array_written(&trie->root_array, page) ||
	    lazy_array_written(&trie->root_array, page + 1)) {
		code = check_short(check, trie->top_lens, 2 * slot, 0, 0);
		if (code == 0)
			code = check_short(check, trie->top_lens, 2 * slot + 1, 0, 0);
	}
	if (code == 0 && check->prefixes - before != count)
		return wrong(check, "the count of longer prefixes", trie->top_bits, slot);
	if (code == 0 && (trie->top[slot] & TOP_BELOW) != (count != 0 ? trie->below_flag : 0))
		return wrong(check, "the mark for longer prefixes", trie->top_bits, slot);
	return code;
}

/* All below a prefix of length <= root_bits. value, owner: of the longest prefix of the same table above it. */
static int check_short(struct check *check, unsigned len, uint64_t bits, uint32_t value, unsigned owner)
{
	const struct trie *trie = check->trie;
	uint32_t mine = ((const uint32_t *)trie->short_values.base)[1ull << len | bits];
	int code;

	if (mine != 0) {
		check->prefixes++;
		value = mine;
		owner = len + 1;
	}
	if (len == trie->root_bits)
		return check_root_slot(check, bits, value, owner);
	if (len == trie->top_bits)
		return check_top_slot(check, bits, value, owner);
	code = check_short(check, len + 1, 2 * bits, value, owner);
	return code != 0 ? code : check_short(check, len + 1, 2 * bits + 1, value, owner);
}

int trie_check(const struct trie *trie, char *why, size_t why_bytes)
{
	struct check check = {.trie = trie, .why = why, .why_bytes = why_bytes};
	int code = check_short(&check, 0, 0, 0, 0);

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
