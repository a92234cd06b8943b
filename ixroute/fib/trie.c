/* The writer's side of the trie (layout and reasons: trie.h; the prefixes themselves: prefix_store.h).
 *
 * Called by fib.c, one thread. In file order: nodes are written; a prefix of the top or the root is spread over its slots; a longer
 * one goes into a record, whose node is written anew (`refresh`) and shown.
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

static uint8_t *node_at(const struct trie *trie, uint32_t entry)
{
	return trie->node_arena.base + entry_offset(entry);
}

static struct record *record_at(const struct trie *trie, uint32_t ref)
{
	return arena_at(&trie->record_arena, ref);
}

static uint32_t width_for(uint32_t values_ored)
{
	return values_ored < 1u << 8 ? 1 : values_ored < 1u << 16 ? 2 : 4;
}

/* Also in place, where readers are: one store of the entry's width. */
static void node_entry_store(uint8_t *node, uint32_t width, uint32_t rank, uint32_t value)
{
	uint8_t *at = node + NODE_ENTRIES + (uint64_t)(rank * width);

	if (width == 1)
		atomic_store_explicit((_Atomic uint8_t *)at, (uint8_t)value, memory_order_relaxed);
	else if (width == 2)
		atomic_store_explicit((_Atomic uint16_t *)at, (uint16_t)value, memory_order_relaxed);
	else
		atomic_store_explicit((_Atomic uint32_t *)at, value, memory_order_release);
}

static uint32_t node_write(struct trie *trie, uint64_t starts, const uint32_t *entry, uint32_t n, uint32_t width)
{
	uint32_t ref = arena_alloc(&trie->node_arena, NODE_ENTRIES + width * n);
	uint8_t *node = arena_at(&trie->node_arena, ref);

	if (ref == 0)
		return 0;
	*(aliased_u64 *)node = starts;
	for (uint32_t i = 0; i < n; i++)
		node_entry_store(node, width, i, entry[i]);
	return ENTRY_NODE | (width - 1) << ENTRY_WIDTH_SHIFT | ref;
}

/* A new node from its 64 slots; 0: no memory. */
static uint32_t node_build(struct trie *trie, const uint32_t slot[NODE_SLOTS], uint32_t inherited)
{
	uint32_t entry[NODE_SLOTS + 1] = {inherited, slot[0]};
	uint32_t n = 1, ored = inherited | slot[0];
	uint64_t starts = 1;

	for (unsigned s = 1; s < NODE_SLOTS; s++) {
		uint32_t differs = slot[s] != slot[s - 1];

		n += differs;
		entry[n] = slot[s];
		starts |= (uint64_t)differs << s;
		ored |= slot[s];
	}
	return node_write(trie, starts, entry, n + 1, width_for(ored));
}

static void node_retire(struct trie *trie, uint32_t entry, uint64_t tag)
{
	retire_put(&trie->retire, &trie->node_arena, entry & ENTRY_REF, tag);
}

/* Before `value` may be stored into a node's e[0]: shows a copy with wider entries if need be, which changes no answer. */
static int node_make_room(struct trie *trie, struct record *record, _Atomic uint32_t *above, uint32_t value, uint64_t tag)
{
	const uint8_t *old = node_at(trie, record->entry);
	uint32_t width = entry_width(record->entry), entry[NODE_SLOTS + 1], wider, n;

	if (width_for(value) <= width)
		return 0;
	n = node_rank(node_starts(old), NODE_SLOTS - 1) + 1;
	for (uint32_t i = 0; i < n; i++)
		entry[i] = node_entry(old, width, i);
	wider = node_write(trie, node_starts(old), entry, n, width_for(value));
	if (wider == 0)
		return -ENOMEM;
	atomic_store_explicit(above, wider, memory_order_release);
	node_retire(trie, record->entry, tag);
	record->entry = wider;
	return 0;
}

static void set_inherited(struct trie *trie, struct record *record, uint32_t value)
{
	record->inherited = value;
	node_entry_store(node_at(trie, record->entry), entry_width(record->entry), 0, value);
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

static void root_store(struct trie *trie, uint64_t slot, uint32_t entry)
{
	lazy_array_touch(&trie->root_array, slot * 4);
	atomic_store_explicit(&trie->root[slot], entry, memory_order_release);
}

static void top_store(struct trie *trie, uint64_t slot, uint32_t value)
{
	uint32_t below = atomic_load_explicit(&trie->top[slot], memory_order_relaxed) & trie->below_flag;

	lazy_array_touch(&trie->top_array, slot * 4);
	atomic_store_explicit(&trie->top[slot], (value != 0 ? value - 1 : 0) | below, memory_order_relaxed);
}

enum spread { SPREAD_TOP, SPREAD_MAKE_ROOM, SPREAD_ROOT };

static int spread_slot(struct trie *trie, uint64_t slot, uint32_t value, enum spread what, uint64_t tag)
{
	uint32_t ref;

	if (what == SPREAD_TOP) {
		top_store(trie, slot, value);
		return 0;
	}
	ref = *root_record(trie, slot);
	if (what == SPREAD_MAKE_ROOM)
		return ref != 0 ? node_make_room(trie, record_at(trie, ref), &trie->root[slot], value, tag) : 0;
	if (ref != 0)
		set_inherited(trie, record_at(trie, ref), value);
	else
		root_store(trie, slot, value);
	return 0;
}

/* Does `what` to the slots below `place` that no longer prefix covers. `bits`: how many are left to the slots; recursion is as
 * deep. At most 2^14 slots (trie.h: what an update costs). */
static int spread(struct trie *trie, uint64_t place, unsigned bits, uint32_t value, enum spread what, uint64_t tag)
{
	if (bits == 0) {
		uint64_t n = 1ull << (what == SPREAD_TOP ? trie->top_bits : trie->root_bits);

		return spread_slot(trie, place - n, value, what, tag);
	}
	for (uint64_t half = 2 * place; half <= 2 * place + 1; half++) {
		int code = *short_value(trie, half) == 0 ? spread(trie, half, bits - 1, value, what, tag) : 0;

		if (code != 0)
			return code;
	}
	return 0;
}

/* Sets (or removes: 0) the value of a prefix of length <= root_bits. `shown`: what its slots then show. */
static int short_set(struct trie *trie, uint64_t place, unsigned len, uint32_t value, uint32_t shown, uint64_t tag)
{
	int top = len <= trie->top_bits;
	unsigned bits = (top ? trie->top_bits : trie->root_bits) - len;

	if (!top) {
		int code = retire_reserve(&trie->retire, 1ull << bits);

		if (code == 0)
			code = spread(trie, place, bits, shown, SPREAD_MAKE_ROOM, tag);
		if (code != 0)
			return code;
	}
	lazy_array_touch(&trie->short_values, place * 4);
	*short_value(trie, place) = value;
	inheritance_begin(trie);
	spread(trie, place, bits, shown, top ? SPREAD_TOP : SPREAD_ROOT, tag);
	inheritance_end(trie);
	return 0;
}

static int short_insert(struct trie *trie, struct key key, unsigned len, uint32_t value, uint64_t tag)
{
	uint64_t place = 1ull << len | first_bits(key, len);
	uint32_t old = *short_value(trie, place);
	int code = old == value ? 0 : short_set(trie, place, len, value, value, tag);

	if (code == 0 && old == 0)
		trie->prefixes++;
	return code;
}

static int short_remove(struct trie *trie, struct key key, unsigned len, uint64_t tag)
{
	uint64_t place = 1ull << len | first_bits(key, len);
	uint64_t first = len <= trie->top_bits ? 1 : 2ull << trie->top_bits; /* of the same table */
	uint32_t shown = 0;
	int code;

	if (*short_value(trie, place) == 0)
		return -ENOENT;
	for (uint64_t cover = place >> 1; cover >= first && shown == 0; cover >>= 1)
		shown = *short_value(trie, cover);
	code = short_set(trie, place, len, 0, shown, tag);
	if (code == 0)
		trie->prefixes--;
	return code;
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

/* The entry in which the node of this level hangs. */
static _Atomic uint32_t *entry_above(const struct trie *trie, const struct walk *walk, unsigned level)
{
	uint8_t *node;

	if (level == 0)
		return &trie->root[walk->root_slot];
	node = node_at(trie, record_at(trie, walk->ref[level - 1])->entry);
	return (_Atomic uint32_t *)(node + NODE_ENTRIES) + node_rank(node_starts(node), walk->slot[level - 1]);
}

static _Atomic uint32_t *entry_of_kid(uint8_t *node, unsigned slot)
{
	return (_Atomic uint32_t *)(node + NODE_ENTRIES) + node_rank(node_starts(node), slot);
}

/* The slots that the prefix at `place` covers. */
static uint64_t slots_of(unsigned place)
{
	unsigned bits = 31u - (unsigned)__builtin_clz(place);

	return ((bits == 0 ? 0 : 1ull << (64u >> bits)) - 1) << ((place << (6 - bits)) & 63);
}

/* Which kids among `slots` inherit something else now, with room made for it. -ENOMEM, or 0 and a bit per kid. */
static int changed_kids(struct trie *trie, const struct record *record, uint64_t slots, const uint32_t value[NODE_SLOTS],
			uint64_t tag, uint64_t *changed)
{
	*changed = 0;
	for (uint64_t left = record->kids & slots; left != 0; left &= left - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(left);
		struct record *kid = record_at(trie, record_kid(&trie->record_arena, record, slot));
		_Atomic uint32_t *above = entry_of_kid(node_at(trie, record->entry), slot);

		if (kid->inherited == value[slot])
			continue;
		if (node_make_room(trie, kid, above, value[slot], tag) != 0)
			return -ENOMEM;
		*changed |= 1ull << slot;
	}
	return 0;
}

/* Writes the node of a level anew from its record, tells kids among `slots` what they inherit, shows it. The kid at new_slot, if any,
 * is not in the old node: its entry is new_entry. -ENOMEM: nothing changed. The caller reserved room to retire. */
static int refresh(struct trie *trie, const struct walk *walk, unsigned level, uint64_t slots, unsigned new_slot,
		   uint32_t new_entry, uint64_t tag)
{
	struct record *record = record_at(trie, walk->ref[level]);
	uint8_t *old = node_at(trie, record->entry);
	uint32_t value[NODE_SLOTS], slot_entry[NODE_SLOTS], entry;
	uint64_t changed;

	record_resolve(&trie->record_arena, record, value);
	if (changed_kids(trie, record, slots, value, tag, &changed) != 0)
		return -ENOMEM;
	memcpy(slot_entry, value, sizeof(value));
	for (uint64_t left = record->kids; left != 0; left &= left - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(left);

		slot_entry[slot] = slot == new_slot ? new_entry : *entry_of_kid(old, slot);
	}
	entry = node_build(trie, slot_entry, record->inherited);
	if (entry == 0)
		return -ENOMEM;
	if (changed != 0) {
		inheritance_begin(trie);
		for (uint64_t left = changed; left != 0; left &= left - 1) {
			unsigned slot = (unsigned)__builtin_ctzll(left);

			set_inherited(trie, record_at(trie, record_kid(&trie->record_arena, record, slot)), value[slot]);
		}
		inheritance_end(trie);
	}
	atomic_store_explicit(entry_above(trie, walk, level), entry, memory_order_release);
	node_retire(trie, record->entry, tag);
	record->entry = entry;
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

/* What the record that will hang at level `found` inherits. */
static uint32_t inherited_there(const struct trie *trie, const struct walk *walk)
{
	const struct record *above;
	unsigned cover;

	if (walk->found == 0)
		return trie->root[walk->root_slot];
	above = record_at(trie, walk->ref[walk->found - 1]);
	cover = record_cover(above, walk->slot[walk->found - 1]);
	return cover != 0 ? *record_value(&trie->record_arena, above, cover) : 0;
}

/* A record and its node that nobody sees yet; 0: no memory. kid: of the level below, 0 at the target. */
static uint32_t link_create(struct trie *trie, unsigned slot, unsigned place, uint32_t value, uint32_t kid, uint32_t inherited)
{
	struct arena *arena = &trie->record_arena;
	uint32_t ref = record_create(arena), entry[NODE_SLOTS];
	struct record *record = record_at(trie, ref);
	int code;

	if (ref == 0)
		return 0;
	code = kid != 0 ? record_kid_insert(arena, record, slot, kid) : record_insert(arena, record, place, value);
	if (code == 0) {
		record_resolve(arena, record, entry);
		if (kid != 0)
			entry[slot] = record_at(trie, kid)->entry;
		record->inherited = inherited;
		record->entry = node_build(trie, entry, inherited);
	}
	if (code != 0 || record->entry == 0) {
		record_destroy(arena, ref);
		return 0;
	}
	return ref;
}

/* The records that are missing on the way, from the target up, then one store shows them all. */
static int chain_insert(struct trie *trie, struct walk *walk, unsigned len, uint32_t value, uint64_t tag)
{
	unsigned place = record_place(walk->slot[walk->target], len - walk->depth[walk->target]);
	unsigned first = walk->found, level = walk->target + 1;
	struct record *above = NULL;
	uint32_t ref = 0;
	int code = 0;

	while (level-- > first) {
		uint32_t inherited = level == first ? inherited_there(trie, walk) : 0;

		ref = link_create(trie, walk->slot[level], place, value, ref, inherited);
		if (ref == 0) {
			code = -ENOMEM;
			break;
		}
		walk->ref[level] = ref;
	}
	level = code == 0 ? first : level + 1;
	if (code == 0 && first == 0) {
		lazy_array_touch(&trie->root_records, walk->root_slot * 4);
		*root_record(trie, walk->root_slot) = ref;
		root_store(trie, walk->root_slot, record_at(trie, ref)->entry);
	} else if (code == 0) {
		above = record_at(trie, walk->ref[first - 1]);
		code = record_kid_insert(&trie->record_arena, above, walk->slot[first - 1], ref);
		if (code == 0) {
			code = refresh(trie, walk, first - 1, 0, walk->slot[first - 1], record_at(trie, ref)->entry, tag);
			if (code != 0)
				record_kid_take(&trie->record_arena, above, walk->slot[first - 1]);
		}
	}
	if (code == 0) {
		trie->prefixes++;
		return 0;
	}
	for (; level <= walk->target; level++) {
		arena_free(&trie->node_arena, record_at(trie, walk->ref[level])->entry & ENTRY_REF);
		record_destroy(&trie->record_arena, walk->ref[level]);
	}
	return code;
}

static int long_insert(struct trie *trie, struct key key, unsigned len, uint32_t value, uint64_t tag)
{
	struct walk walk;

	if (retire_reserve(&trie->retire, NODE_SLOTS + 1) != 0)
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
		root_store(trie, walk->root_slot, record_at(trie, walk->ref[0])->inherited);
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
		node_retire(trie, record_at(trie, walk->ref[level])->entry, tag);
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

	if (retire_reserve(&trie->retire, NODE_SLOTS + 1 + LEVELS_MAX) != 0)
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
		record_insert(&trie->record_arena, record_at(trie, walk.ref[walk.target]), place, value); /* there is room */
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

	if (len <= trie->top_bits)
		return short_insert(trie, key, len, value, tag);
	if (*below == 0)
		mark_below(trie, slot, 1);
	code = len <= trie->root_bits ? short_insert(trie, key, len, value, tag) : long_insert(trie, key, len, value, tag);
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
	int code = len <= trie->root_bits ? short_remove(trie, key, len, tag) : long_remove(trie, key, len, tag);

	if (code == 0 && len > trie->top_bits && --*below == 0)
		mark_below(trie, slot, 0);
	return code;
}

uint32_t trie_match(const struct trie *trie, struct key key, unsigned *len)
{
	uint32_t ref = *root_record(trie, first_bits(key, trie->root_bits)), value = 0;
	unsigned depth = trie->root_bits;

	while (ref != 0) {
		const struct record *record = record_at(trie, ref);
		unsigned slot = key_slot(key, depth), cover = record_cover(record, slot);

		if (cover != 0) {
			value = *record_value(&trie->record_arena, record, cover);
			*len = depth + 31u - (unsigned)__builtin_clz(cover);
		}
		ref = record_has_kid(record, slot) ? record_kid(&trie->record_arena, record, slot) : 0;
		depth = depth_below(depth);
	}
	for (unsigned bits = trie->root_bits + 1; value == 0 && bits-- > 0;) {
		value = *short_value(trie, 1ull << bits | first_bits(key, bits));
		*len = bits;
	}
	return value;
}

int trie_create(struct trie *trie, unsigned family, struct arena_fault *fault)
{
	int ip4 = family == 4, code;

	memset(trie, 0, sizeof(*trie));
	trie->top_bits = ip4 ? 8 : 14;
	trie->root_bits = ip4 ? 18 : 24;
	trie->max_len = ip4 ? 32 : 128;
	trie->below_flag = ip4 ? 0 : TOP_BELOW;
	code = lazy_array_create(&trie->top_array, ip4 ? ARENA_PAGE : 4ull << trie->top_bits, 0);
	if (code == 0)
		code = lazy_array_create(&trie->below_count, ip4 ? ARENA_PAGE : 4ull << trie->top_bits, 0);
	if (code == 0)
		code = lazy_array_create(&trie->root_array, 4ull << trie->root_bits, 0);
	if (code == 0)
		code = lazy_array_create(&trie->root_records, 4ull << trie->root_bits, 0);
	if (code == 0)
		code = lazy_array_create(&trie->short_values, 8ull << trie->root_bits, 0);
	if (code == 0)
		code = arena_create(&trie->node_arena, NODE_ARENA_BYTES, 1, fault);
	if (code == 0)
		code = arena_create(&trie->record_arena, RECORD_ARENA_BYTES, 0, fault);
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
	lazy_array_destroy(&trie->root_array);
	lazy_array_destroy(&trie->below_count);
	lazy_array_destroy(&trie->top_array);
}
