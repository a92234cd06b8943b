/* Looks up a block of addresses at a time (at most LOOKUP_BLOCK), level by level: each level first asks for the cache lines of all addresses, then
 * reads them. Called by fib.c, which also repeats a block during which inherited values changed (trie.h).
 *
 * Invariant: no branch depends on what the table holds but the number of addresses left on a level. An address whose walk goes on is moved
 * to the front of the arrays by storing always and counting conditionally.
 */
#include "fib/lookup.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Addresses whose walk goes on. */
struct active {
	uint64_t bits[LOOKUP_BLOCK];	/* of the address, the next 6 in front */
	uint32_t entry[LOOKUP_BLOCK];	/* the node it comes to */
	uint8_t number[LOOKUP_BLOCK]; /* in the block */
};

static ALWAYS_INLINE void prefetch_node(const struct trie *trie, uint32_t entry)
{
	__builtin_prefetch(trie->nodes + entry_offset(entry));
}

/* All ones when the entry is a node. */
static ALWAYS_INLINE uint32_t node_mask(uint32_t entry)
{
	return 0u - (entry >> 31);
}

static ALWAYS_INLINE int is_value(uint32_t entry)
{
	return entry - 1 < VALUE_MAX;
}

/* One node for n addresses; returns how many go on. index[]: the last value met, as an adjacency index. */
static ALWAYS_INLINE unsigned step(const struct trie *trie, struct active *active, uint32_t *index, unsigned n)
{
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t entry = active->entry[i], width = entry_width(entry), found, inherited;
		const uint8_t *node = trie->nodes + entry_offset(entry);
		uint64_t bits = active->bits[i];
		uint8_t number = active->number[i];

		found = node_entry(node, width, node_rank(node_starts(node), (unsigned)(bits >> (64 - NODE_BITS))));
		inherited = node_entry(node, width, 0);
		inherited = is_value(found) ? found : inherited;
		index[number] = inherited != 0 ? inherited - 1 : index[number];
		active->bits[left] = bits << NODE_BITS;
		active->entry[left] = found;
		active->number[left] = number;
		prefetch_node(trie, found & node_mask(found));
		left += found >> 31;
	}
	return left;
}

/* The first node is most often the last, so it has a step of its own: all addresses of the block take it, those without one
 * through node 0. */
static ALWAYS_INLINE void lookup4(const struct trie *trie, const uint32_t *addr_be, uint32_t *index, unsigned n)
{
	uint32_t root[LOOKUP_BLOCK];
	struct active active;
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t entry = atomic_load_explicit(&trie->root[be32toh(addr_be[i]) >> 14], memory_order_relaxed);

		root[i] = entry;
		prefetch_node(trie, entry & node_mask(entry));
	}
	for (unsigned i = 0; i < n; i++) {
		uint32_t addr = be32toh(addr_be[i]), mask = node_mask(root[i]), entry = root[i] & mask;
		uint32_t width = entry_width(entry), found, value;
		const uint8_t *node = trie->nodes + entry_offset(entry);
		uint32_t top = atomic_load_explicit(&trie->top[addr >> 24], memory_order_relaxed);

		found = node_entry(node, width, node_rank(node_starts(node), addr >> 8 & 63));
		value = node_entry(node, width, 0);
		value = value != 0 ? value : root[i] & ~mask;
		value = is_value(found) ? found : value;
		index[i] = value != 0 ? value - 1 : top;
		active.bits[left] = (uint64_t)addr << 56;
		active.entry[left] = found;
		active.number[left] = (uint8_t)i;
		left += found >> 31;
	}
	while (left != 0)
		left = step(trie, &active, index, left);
}

static ALWAYS_INLINE uint64_t load_half(const uint8_t *half)
{
	uint64_t bits;

	memcpy(&bits, half, sizeof(bits));
	return be64toh(bits);
}

/* The nodes below the root; addr: for those that reach the second half of the address. */
static ALWAYS_INLINE void walk6(const struct trie *trie, struct active *active, const uint8_t *const *addr, uint32_t *index,
				unsigned left)
{
	for (unsigned depth = 24; left != 0 && depth < 64; depth += NODE_BITS)
		left = step(trie, active, index, left);
	for (unsigned i = 0; i < left; i++)
		active->bits[i] = load_half(addr[active->number[i]] + 8);
	while (left != 0)
		left = step(trie, active, index, left);
}

static ALWAYS_INLINE void lookup6(const struct trie *trie, const uint8_t *const *addr, uint32_t *index, unsigned n)
{
	struct active active;
	unsigned below = 0, left = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t bits = load_half(addr[i]);
		uint32_t top = atomic_load_explicit(&trie->top[bits >> 50], memory_order_relaxed);

		index[i] = top & TOP_INDEX;
		active.bits[below] = bits;
		active.number[below] = (uint8_t)i;
		below += top >> 31;
	}
	for (unsigned i = 0; i < below; i++) {
		uint64_t bits = active.bits[i];
		uint32_t entry = atomic_load_explicit(&trie->root[bits >> 40], memory_order_relaxed);
		uint8_t number = active.number[i];

		index[number] = is_value(entry) ? entry - 1 : index[number];
		active.bits[left] = bits << 24;
		active.entry[left] = entry;
		active.number[left] = number;
		prefetch_node(trie, entry & node_mask(entry));
		left += entry >> 31;
	}
	walk6(trie, &active, addr, index, left);
}

static void lookup4_portable(const struct trie *trie, const uint32_t *addr_be, uint32_t *index, unsigned n)
{
	lookup4(trie, addr_be, index, n);
}

static void lookup6_portable(const struct trie *trie, const uint8_t *const *addr, uint32_t *index, unsigned n)
{
	lookup6(trie, addr, index, n);
}

static int always_usable(void)
{
	return 1;
}

#if defined(__x86_64__)
/* popcnt and the shifts of BMI2: any x86-64 of the last ten years. */
#define TARGET_POPCNT __attribute__((target("popcnt,bmi,bmi2")))

TARGET_POPCNT static void lookup4_popcnt(const struct trie *trie, const uint32_t *addr_be, uint32_t *index, unsigned n)
{
	lookup4(trie, addr_be, index, n);
}

TARGET_POPCNT static void lookup6_popcnt(const struct trie *trie, const uint8_t *const *addr, uint32_t *index, unsigned n)
{
	lookup6(trie, addr, index, n);
}

static int popcnt_usable(void)
{
	return __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#endif

const struct lookup_variant lookup_variants[] = {
	{"portable", always_usable, lookup4_portable, lookup6_portable},
#if defined(__x86_64__)
	{"popcnt", popcnt_usable, lookup4_popcnt, lookup6_popcnt},
#endif
	{NULL, NULL, NULL, NULL},
};
