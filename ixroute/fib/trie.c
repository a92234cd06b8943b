/* The writer's side of the trie (layout and reasons: trie.h; the prefixes themselves: prefix_store.h).
 *
 * Called by fib.c, one thread. In file order: nodes are written; a prefix of the top or the root is spread over its
 * slots; a longer one goes into a record, whose node is written anew (`refresh`) and shown.
 *
 * Invariants: after every call, successful or not, readers' tables are exactly what the store says (trie_check
 * recomputes them); all that can fail is done before anything a reader or a later update could see.
 */
#include "fib/trie.h"

#include <errno.h>

#include "fib/prefix_store.h"

#define LEVELS_MAX 20u /* nodes on a path: 18 for IPv6 */
#define NO_SLOT 64u
#define NODE_ARENA_BYTES (2ull << 30)
#define RECORD_ARENA_BYTES (4ull << 30)

/* The way to a prefix longer than root_bits. */
struct walk {
	uint64_t root_slot;
	unsigned target; /* the level that holds the prefix */
	unsigned found;	 /* records 0 .. found-1 exist */
	uint32_t ref[LEVELS_MAX];
	uint8_t slot[LEVELS_MAX], depth[LEVELS_MAX];
};

/* ---- nodes ---- */

static struct record *record_at(const struct trie *trie, uint32_t ref)
{
	return arena_at(&trie->record_arena, ref);
}

/* A new node from its 64 slots; 0: no memory. */
static uint32_t node_build(struct trie *trie, const uint64_t slot[NODE_SLOTS])
{
	uint64_t entry[NODE_SLOTS], starts = 1, ored = slot[0];
	uint32_t n = 0, width, ref;
	uint8_t *at;

	entry[0] = slot[0];
	for (unsigned s = 1; s < NODE_SLOTS; s++) {
		uint32_t differs = slot[s] != slot[s - 1];

		n += differs;
		entry[n] = slot[s];
		starts |= (uint64_t)differs << s;
		ored |= slot[s];
	}
	width = ored < 1ull << 8 ? 0 : ored < 1ull << 16 ? 1 : ored < 1ull << 32 ? 2 : 3;
	ref = arena_alloc(&trie->node_arena, (uint32_t)sizeof(starts) + ((n + 1) << width));
	if (ref == 0)
		return 0;
	at = arena_at(&trie->node_arena, ref);
	memcpy(at, &starts, sizeof(starts));
	at += sizeof(starts);
	for (uint32_t i = 0; i <= n; i++, at += 1u << width)
		memcpy(at, &entry[i], 1u << width); /* little-endian: the low bytes */
	return ref << 2 | width;
}

static void node_retire(struct trie *trie, uint32_t node, uint64_t tag)
{
	retire_put(&trie->retire, &trie->node_arena, node >> 2, tag);
}

/* Around stores that change what others inherit (trie.h). Odd while it lasts. */
static void inheritance_begin(struct trie *trie)
{
	uint64_t generation = atomic_load_explicit(&trie->generation, memory_order_relaxed);

	atomic_store_explicit(&trie->generation, generation + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
}

static void inheritance_end(struct trie *trie)
{
	uint64_t generation = atomic_load_explicit(&trie->generation, memory_order_relaxed);

	atomic_store_explicit(&trie->generation, generation + 1, memory_order_release);
}

/* ---- top and root ---- */

static uint64_t first_bits(struct key key, unsigned bits)
{
	return bits == 0 ? 0 : key.hi >> (64 - bits);
}

static uint32_t *short_value(const struct trie *trie, uint64_t place)
{
	return (uint32_t *)trie->short_values.base + place;
}

static uint32_t *root_record(const struct trie *trie, uint64_t slot)
{
	return (uint32_t *)trie->root_records.base + slot;
}

/* The halves of a root slot. */
static _Atomic uint32_t *root_half(const struct trie *trie, uint64_t slot, unsigned half)
{
	return (_Atomic uint32_t *)&trie->root[slot] + half;
}

static uint32_t plain(uint32_t value)
{
	return value != 0 ? value - 1 : 0;
}

static void spread_top(struct trie *trie, uint64_t first, uint64_t n, uint32_t value, uint8_t owner, uint8_t new_owner)
{
	uint8_t *owners = trie->top_owner.base;

	for (uint64_t slot = first; slot < first + n; slot++) {
		uint32_t below = atomic_load_explicit(&trie->top[slot], memory_order_relaxed) & trie->below_flag;

		if (owners[slot] > owner)
			continue;
		lazy_array_touch(&trie->top_owner, slot);
		lazy_array_touch(&trie->top_array, slot * 4);
		owners[slot] = new_owner;
		atomic_store_explicit(&trie->top[slot], plain(value) | below, memory_order_relaxed);
	}
}

static void spread_root(struct trie *trie, uint64_t first, uint64_t n, uint32_t value, uint8_t owner, uint8_t new_owner)
{
	uint8_t *owners = trie->root_owner.base;
	uint64_t end = first + n, page_end;

	for (uint64_t slot = first; slot < end; slot = page_end) {
		page_end = (slot | (ARENA_PAGE / sizeof(uint64_t) - 1)) + 1;
		page_end = page_end < end ? page_end : end;
		lazy_array_touch(&trie->root_array, slot * sizeof(uint64_t));
		lazy_array_touch(&trie->root_owner, slot);
		for (uint64_t s = slot; s < page_end; s++) {
			if (owners[s] > owner)
				continue;
			owners[s] = new_owner;
			atomic_store_explicit(root_half(trie, s, 0), value, memory_order_relaxed);
		}
	}
}

/* Sets (0: removes) the value of a prefix of length <= root_bits, and in the slots that no longer prefix covers
 * the value `shown`, which is of a prefix of length shown_owner - 1. */
static void short_set(struct trie *trie, struct key key, unsigned len, uint32_t value, uint32_t shown,
		      uint8_t shown_owner)
{
	int top = len < trie->top_lens;
	unsigned bits = (top ? trie->top_bits : trie->root_bits) - len;
	uint64_t place = 1ull << len | first_bits(key, len), first = first_bits(key, len) << bits;

	lazy_array_touch(&trie->short_values, place * 4);
	*short_value(trie, place) = value;
	inheritance_begin(trie);
	(top ? spread_top : spread_root)(trie, first, 1ull << bits, shown, (uint8_t)(len + 1), shown_owner);
	inheritance_end(trie);
}

/* Cannot fail: the arrays are there. */
static int short_insert(struct trie *trie, struct key key, unsigned len, uint32_t value)
{
	uint32_t old = *short_value(trie, 1ull << len | first_bits(key, len));

	if (old != value)
		short_set(trie, key, len, value, value, (uint8_t)(len + 1));
	if (old == 0)
		trie->prefixes++;
	return 0;
}

static int short_remove(struct trie *trie, struct key key, unsigned len)
{
	unsigned shortest = len < trie->top_lens ? 0 : trie->top_lens, cover = len;
	uint32_t shown = 0;

	if (*short_value(trie, 1ull << len | first_bits(key, len)) == 0)
		return -ENOENT;
	while (shown == 0 && cover > shortest) {
		cover--;
		shown = *short_value(trie, 1ull << cover | first_bits(key, cover));
	}
	short_set(trie, key, len, 0, shown, (uint8_t)(shown != 0 ? cover + 1 : 0));
	trie->prefixes--;
	return 0;
}

/* ---- nodes' prefixes ---- */

static void walk_to(const struct trie *trie, struct key key, unsigned len, struct walk *walk)
{
	unsigned depth = trie->root_bits, level = 0;
	uint32_t ref;

	walk->root_slot = first_bits(key, depth);
	walk->found = 0;
	ref = *root_record(trie, walk->root_slot);
	for (;; level++) {
		const struct record *record = record_at(trie, ref);

		walk->depth[level] = (uint8_t)depth;
		walk->slot[level] = (uint8_t)key_slot(key, depth);
		walk->ref[level] = ref;
		if (ref != 0) {
			walk->found++;
			ref = record_has_kid(record, walk->slot[level])
				      ? record_kid(&trie->record_arena, record, walk->slot[level])
				      : 0;
		}
		if (len <= depth_below(depth))
			break;
		depth = depth_below(depth);
	}
	walk->target = level;
}

/* Where the node that hangs in this slot of a node with children is named. */
static _Atomic uint32_t *node_half(const struct trie *trie, uint32_t node, unsigned slot)
{
	uint8_t *at = arena_at(&trie->node_arena, node >> 2);

	return (_Atomic uint32_t *)(at + 8u * node_rank(node_starts(at), slot)) + 1;
}

/* The one store that shows a node: into the slot above. */
static void show(struct trie *trie, const struct walk *walk, unsigned level, uint32_t node)
{
	_Atomic uint32_t *above;

	if (level == 0) {
		lazy_array_touch(&trie->root_array, walk->root_slot * 8);
		above = root_half(trie, walk->root_slot, 1);
	} else {
		above = node_half(trie, record_at(trie, walk->ref[level - 1])->node, walk->slot[level - 1]);
	}
	atomic_store_explicit(above, node, memory_order_release);
}

/* The slots that the prefix at `place` covers. */
static uint64_t slots_of(unsigned place)
{
	unsigned bits = 31u - (unsigned)__builtin_clz(place);

	return ((1ull << (64u >> bits)) - 1) << ((place << (6 - bits)) & 63);
}

/* Writes the node of a level anew from its record, of which the slots `changed` have another value, and shows
 * it. The kid at new_slot, if any, is not in the old node: it is new_node. -ENOMEM: nothing changed. There is
 * room to retire one. */
static int refresh(struct trie *trie, const struct walk *walk, unsigned level, uint64_t changed, unsigned new_slot,
		   uint32_t new_node, uint64_t tag)
{
	struct record *record = record_at(trie, walk->ref[level]);
	int inherited = (record->kids & changed) != 0;
	uint64_t slot[NODE_SLOTS];
	uint32_t node;

	record_resolve(&trie->record_arena, record, slot);
	for (uint64_t left = record->kids; left != 0; left &= left - 1) {
		unsigned kid = (unsigned)__builtin_ctzll(left);

		slot[kid] |= slot_pair(0, kid == new_slot ? new_node : *node_half(trie, record->node, kid));
	}
	node = node_build(trie, slot);
	if (node == 0)
		return -ENOMEM;
	if (inherited)
		inheritance_begin(trie);
	show(trie, walk, level, node);
	if (inherited)
		inheritance_end(trie);
	node_retire(trie, record->node, tag);
	record->node = node;
	return 0;
}

/* Inserts into a record that exists, or changes the value. */
static int record_set(struct trie *trie, const struct walk *walk, unsigned len, uint32_t value, uint64_t tag)
{
	unsigned level = walk->target;
	struct record *record = record_at(trie, walk->ref[level]);
	unsigned place = record_place(walk->slot[level], len - walk->depth[level]);
	uint32_t *there, old;
	int code;

	if (!record_has(record, place)) {
		if (record_insert(&trie->record_arena, record, place, value) != 0)
			return -ENOMEM;
		code = refresh(trie, walk, level, slots_of(place), NO_SLOT, 0, tag);
		if (code != 0)
			record_take(&trie->record_arena, record, place);
		else
			trie->prefixes++;
		return code;
	}
	there = record_value(&trie->record_arena, record, place);
	if (*there == value)
		return 0;
	old = *there;
	*there = value;
	code = refresh(trie, walk, level, slots_of(place), NO_SLOT, 0, tag);
	if (code != 0)
		*there = old;
	return code;
}

/* A record and its node that nobody sees yet; 0: no memory. kid: of the level below, 0 at the target. */
static uint32_t link_create(struct trie *trie, unsigned slot, unsigned place, uint32_t value, uint32_t kid)
{
	struct arena *arena = &trie->record_arena;
	uint32_t ref = record_create(arena);
	struct record *record = record_at(trie, ref);
	uint64_t pair[NODE_SLOTS];
	int code;

	if (ref == 0)
		return 0;
	code = kid != 0 ? record_kid_insert(arena, record, slot, kid) : record_insert(arena, record, place, value);
	if (code == 0) {
		record_resolve(arena, record, pair);
		if (kid != 0)
			pair[slot] = slot_pair(0, record_at(trie, kid)->node);
		record->node = node_build(trie, pair);
	}
	if (code != 0 || record->node == 0) {
		record_destroy(arena, ref);
		return 0;
	}
	return ref;
}

/* Hangs a chain of new records, the first of which is `ref`, in what is there. */
static int chain_link(struct trie *trie, const struct walk *walk, uint32_t ref, uint64_t tag)
{
	unsigned first = walk->found, slot;
	struct record *above;
	int code;

	if (first == 0) {
		lazy_array_touch(&trie->root_records, walk->root_slot * 4);
		*root_record(trie, walk->root_slot) = ref;
		show(trie, walk, 0, record_at(trie, ref)->node);
		return 0;
	}
	above = record_at(trie, walk->ref[first - 1]);
	slot = walk->slot[first - 1];
	if (record_kid_insert(&trie->record_arena, above, slot, ref) != 0)
		return -ENOMEM;
	code = refresh(trie, walk, first - 1, 0, slot, record_at(trie, ref)->node, tag);
	if (code != 0)
		record_kid_take(&trie->record_arena, above, slot);
	return code;
}

/* Makes the records that are missing on the way, from the target up; then one store shows them all. */
static int chain_insert(struct trie *trie, struct walk *walk, unsigned len, uint32_t value, uint64_t tag)
{
	unsigned place = record_place(walk->slot[walk->target], len - walk->depth[walk->target]);
	unsigned level = walk->target + 1; /* levels from here on are made */
	uint32_t ref = 0;
	int code = 0;

	while (level > walk->found && code == 0) {
		ref = link_create(trie, walk->slot[level - 1], place, value, ref);
		if (ref != 0)
			walk->ref[--level] = ref;
		else
			code = -ENOMEM;
	}
	if (code == 0)
		code = chain_link(trie, walk, ref, tag);
	if (code == 0) {
		trie->prefixes++;
		return 0;
	}
	for (; level <= walk->target; level++) {
		arena_free(&trie->node_arena, record_at(trie, walk->ref[level])->node >> 2);
		record_destroy(&trie->record_arena, walk->ref[level]);
	}
	return code;
}

static int long_insert(struct trie *trie, struct key key, unsigned len, uint32_t value, uint64_t tag)
{
	struct walk walk;

	if (retire_reserve(&trie->retire, 1) != 0)
		return -ENOMEM;
	walk_to(trie, key, len, &walk);
	if (walk.found > walk.target)
		return record_set(trie, &walk, len, value, tag);
	return chain_insert(trie, &walk, len, value, tag);
}

/* Unlinks levels first .. target, whose records hold nothing any more. */
static int chain_remove(struct trie *trie, const struct walk *walk, unsigned first, uint64_t tag)
{
	if (first == 0) {
		show(trie, walk, 0, 0);
		*root_record(trie, walk->root_slot) = 0;
	} else {
		struct record *above = record_at(trie, walk->ref[first - 1]);
		unsigned slot = walk->slot[first - 1];
		uint32_t kid = record_kid_take(&trie->record_arena, above, slot);

		if (refresh(trie, walk, first - 1, 0, NO_SLOT, 0, tag) != 0) {
			record_kid_insert(&trie->record_arena, above, slot, kid); /* there is room */
			return -ENOMEM;
		}
		record_shrink(&trie->record_arena, above);
	}
	for (unsigned level = first; level <= walk->target; level++) {
		node_retire(trie, record_at(trie, walk->ref[level])->node, tag);
		record_destroy(&trie->record_arena, walk->ref[level]);
	}
	return 0;
}

static int long_remove(struct trie *trie, struct key key, unsigned len, uint64_t tag)
{
	struct record *record;
	struct walk walk;
	unsigned place, first;
	uint32_t value;
	int code;

	if (retire_reserve(&trie->retire, 1 + LEVELS_MAX) != 0)
		return -ENOMEM;
	walk_to(trie, key, len, &walk);
	if (walk.found <= walk.target)
		return -ENOENT;
	record = record_at(trie, walk.ref[walk.target]);
	place = record_place(walk.slot[walk.target], len - walk.depth[walk.target]);
	if (!record_has(record, place))
		return -ENOENT;
	value = record_take(&trie->record_arena, record, place);
	if (!record_is_empty(record)) {
		code = refresh(trie, &walk, walk.target, slots_of(place), NO_SLOT, 0, tag);
	} else {
		for (first = walk.target; first > 0; first--) {
			const struct record *above = record_at(trie, walk.ref[first - 1]);

			if ((above->inner[0] | above->inner[1]) != 0 || (above->kids & (above->kids - 1)) != 0)
				break;
		}
		code = chain_remove(trie, &walk, first, tag);
		record = NULL;
	}
	if (code != 0) {
		/* There is room where it was taken from. */
		record_insert(&trie->record_arena, record_at(trie, walk.ref[walk.target]), place, value);
		return code;
	}
	if (record != NULL)
		record_shrink(&trie->record_arena, record);
	trie->prefixes--;
	return 0;
}

/* ---- the whole ---- */

static void mark_below(struct trie *trie, uint64_t slot, int below)
{
	uint32_t old = atomic_load_explicit(&trie->top[slot], memory_order_relaxed) & ~trie->below_flag;

	lazy_array_touch(&trie->top_array, slot * 4);
	atomic_store_explicit(&trie->top[slot], old | (below ? trie->below_flag : 0), memory_order_release);
}

int trie_insert(struct trie *trie, struct key key, unsigned len, uint32_t value, uint64_t tag)
{
	uint64_t slot = first_bits(key, trie->top_bits), before = trie->prefixes;
	uint32_t *below = (uint32_t *)trie->below_count.base + slot;
	int code;

	if (len < trie->top_lens)
		return short_insert(trie, key, len, value);
	if (*below == 0)
		mark_below(trie, slot, 1);
	code = len <= trie->root_bits ? short_insert(trie, key, len, value) : long_insert(trie, key, len, value, tag);
	if (trie->prefixes != before) {
		lazy_array_touch(&trie->below_count, slot * 4);
		++*below;
	}
	if (*below == 0)
		mark_below(trie, slot, 0);
	return code;
}

int trie_remove(struct trie *trie, struct key key, unsigned len, uint64_t tag)
{
	uint64_t slot = first_bits(key, trie->top_bits);
	uint32_t *below = (uint32_t *)trie->below_count.base + slot;
	int code = len <= trie->root_bits ? short_remove(trie, key, len) : long_remove(trie, key, len, tag);

	if (code == 0 && len >= trie->top_lens && --*below == 0)
		mark_below(trie, slot, 0);
	return code;
}

/* Reading a page that was never written would map it: a table that holds little must not grow by being asked. */
static uint32_t short_read(const struct trie *trie, unsigned len, struct key key)
{
	uint64_t place = 1ull << len | first_bits(key, len);

	return lazy_array_written(&trie->short_values, place * 4 / ARENA_PAGE) ? *short_value(trie, place) : 0;
}

static uint32_t first_record(const struct trie *trie, struct key key)
{
	uint64_t slot = first_bits(key, trie->root_bits);

	return lazy_array_written(&trie->root_records, slot * 4 / ARENA_PAGE) ? *root_record(trie, slot) : 0;
}

uint32_t trie_match(const struct trie *trie, struct key key, unsigned at_most, unsigned *len)
{
	unsigned depth = trie->root_bits, bits = at_most < depth ? at_most : depth;
	uint32_t ref = first_record(trie, key), value = 0;

	while (ref != 0 && depth < at_most) {
		const struct record *record = record_at(trie, ref);
		unsigned slot = key_slot(key, depth), most = at_most - depth < NODE_BITS ? at_most - depth : NODE_BITS;
		unsigned cover = record_cover(record, slot, most);

		if (cover != 0) {
			value = *record_value(&trie->record_arena, record, cover);
			*len = depth + 31u - (unsigned)__builtin_clz(cover);
		}
		ref = record_has_kid(record, slot) ? record_kid(&trie->record_arena, record, slot) : 0;
		depth = depth_below(depth);
	}
	for (bits++; value == 0 && bits-- > 0;) {
		value = short_read(trie, bits, key);
		*len = bits;
	}
	return value;
}

uint32_t trie_get(const struct trie *trie, struct key key, unsigned len)
{
	unsigned depth = trie->root_bits, place;
	const struct record *record;
	uint32_t ref;

	if (len <= depth)
		return short_read(trie, len, key);
	for (ref = first_record(trie, key); ref != 0 && len > depth_below(depth); depth = depth_below(depth)) {
		unsigned slot = key_slot(key, depth);

		record = record_at(trie, ref);
		ref = record_has_kid(record, slot) ? record_kid(&trie->record_arena, record, slot) : 0;
	}
	if (ref == 0)
		return 0;
	record = record_at(trie, ref);
	place = record_place(key_slot(key, depth), len - depth);
	return record_has(record, place) ? *record_value(&trie->record_arena, record, place) : 0;
}

static int arrays_create(struct trie *trie, int small)
{
	uint64_t top = 1ull << trie->top_bits, root = 1ull << trie->root_bits;
	struct {
		struct lazy_array *array;
		uint64_t bytes;
	} all[] = {
		{&trie->top_array, 4 * top},	     {&trie->top_owner, top},	{&trie->below_count, 4 * top},
		{&trie->root_array, 8 * root},	     {&trie->root_owner, root}, {&trie->root_records, 4 * root},
		{&trie->short_values, 2 * 4 * root},
	};

	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (lazy_array_create(all[i].array, all[i].bytes, small) != 0)
			return -ENOMEM;
	return 0;
}

int trie_create(struct trie *trie, unsigned family, int small, struct arena_fault *fault)
{
	int ip4 = family == 4, code;

	memset(trie, 0, sizeof(*trie));
	trie->top_bits = ip4 ? 0 : 14;
	trie->top_lens = ip4 ? 1 : 15;
	trie->root_bits = ip4 ? 18 : 24;
	trie->max_len = ip4 ? 32 : 128;
	trie->below_flag = ip4 ? 0 : TOP_BELOW;
	code = arrays_create(trie, small);
	if (code == 0)
		code = arena_create(&trie->node_arena, NODE_ARENA_BYTES, 1, small, fault);
	if (code == 0)
		code = arena_create(&trie->record_arena, RECORD_ARENA_BYTES, 0, small, fault);
	if (code != 0) {
		trie_destroy(trie);
		return code;
	}
	*(aliased_u64 *)trie->node_arena.base = 1; /* node 0: one run, of nothing */
	trie->nodes = trie->node_arena.base;
	trie->root = trie->root_array.base;
	trie->top = trie->top_array.base;
	return 0;
}

void trie_destroy(struct trie *trie)
{
	retire_destroy(&trie->retire);
	arena_destroy(&trie->record_arena);
	arena_destroy(&trie->node_arena);
	lazy_array_destroy(&trie->short_values);
	lazy_array_destroy(&trie->root_records);
	lazy_array_destroy(&trie->root_owner);
	lazy_array_destroy(&trie->top_owner);
	lazy_array_destroy(&trie->root_array);
	lazy_array_destroy(&trie->below_count);
	lazy_array_destroy(&trie->top_array);
}
