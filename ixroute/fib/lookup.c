/* Looks up a block of addresses at a time (at most LOOKUP_BLOCK), level by level: each level first asks for the
 * cache lines of all addresses, then reads them. Called by fib.c, which also repeats a block during which inherited
 * values changed (trie.h).
 *
 * Invariant: no branch depends on what the table holds but the number of addresses left on a level. An address
 * whose walk goes on is moved to the front of the arrays by storing always and counting conditionally.
 */
#include "fib/lookup.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Addresses whose walk goes on. */
struct active {
	uint64_t bits[LOOKUP_BLOCK];   /* of the address, the next 6 in front */
	uint32_t node[LOOKUP_BLOCK];   /* the one it comes to */
	uint32_t index[LOOKUP_BLOCK];  /* the last found */
	uint32_t number[LOOKUP_BLOCK]; /* in the block */
};

/* A value found in a node or the root is an index + 1 or 0: then what was found before holds. Two
 * instructions that compilers otherwise like to turn into a branch that is mispredicted every third time. */
static ALWAYS_INLINE uint32_t index_or(uint32_t value, uint32_t before)
{
#if defined(__x86_64__)
	__asm__("sub $1, %0\n\tcmovc %1, %0" : "+&r"(value) : "r"(before) : "cc");
	return value;
#else
	return value != 0 ? value - 1 : before;
#endif
}

static ALWAYS_INLINE uint64_t step_pair(const struct trie *trie, uint32_t node, unsigned slot)
{
	const uint8_t *at = node_of(trie->nodes, node);

	return node_entry(at, node, node_rank(node_starts(at), slot));
}

/* One node, at `skip` bits from the front, for each of n addresses, and none falls out: those at their end stay
 * on node 0. Returns whether any goes on. */
static ALWAYS_INLINE uint32_t step_all(const struct trie *trie, struct active *active, unsigned skip, unsigned n)
{
	uint32_t any = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned slot = (unsigned)(active->bits[i] >> (64 - NODE_BITS - skip)) & (NODE_SLOTS - 1);
		uint64_t pair = step_pair(trie, active->node[i], slot);
		uint32_t node = (uint32_t)(pair >> 32);

		active->index[i] = index_or((uint32_t)pair, active->index[i]);
		active->node[i] = node;
		__builtin_prefetch(node_of(trie->nodes, node));
		any |= node;
	}
	return any;
}

/* Writes down the answers so far, and keeps the addresses that go on, `skip` bits further. */
static ALWAYS_INLINE unsigned settle(struct active *active, uint32_t *index, unsigned skip, unsigned n)
{
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t number = active->number[i], node = active->node[i], found = active->index[i];
		uint64_t bits = active->bits[i] << skip;

		index[number] = found;
		active->bits[left] = bits;
		active->index[left] = found;
		active->node[left] = node;
		active->number[left] = number;
		left += node != 0;
	}
	return left;
}

/* The first node is most often the last, so it has a step of its own, which all addresses of the block take: those
 * without one through node 0. */
static ALWAYS_INLINE void lookup4(const struct trie *trie, const uint32_t *addr_be, uint32_t *index, unsigned n)
{
	uint64_t root[LOOKUP_BLOCK];
	uint32_t top = atomic_load_explicit(&trie->top[0], memory_order_relaxed);
	struct active active;
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		root[i] = atomic_load_explicit(&trie->root[be32toh(addr_be[i]) >> 14], memory_order_relaxed);
		__builtin_prefetch(node_of(trie->nodes, (uint32_t)(root[i] >> 32)));
	}
	for (unsigned i = 0; i < n; i++) {
		uint32_t addr = be32toh(addr_be[i]);
		uint64_t pair = step_pair(trie, (uint32_t)(root[i] >> 32), addr >> 8 & (NODE_SLOTS - 1));

		index[i] = index_or((uint32_t)pair, index_or((uint32_t)root[i], top));
		active.node[left] = (uint32_t)(pair >> 32);
		active.number[left] = i;
		left += pair >> 32 != 0;
	}
	for (unsigned i = 0; i < left; i++) {
		active.bits[i] = (uint64_t)be32toh(addr_be[active.number[i]]) << 56;
		active.index[i] = index[active.number[i]];
	}
	while (left != 0) {
		step_all(trie, &active, 0, left);
		left = settle(&active, index, NODE_BITS, left);
	}
}

static ALWAYS_INLINE uint64_t load_half(const uint8_t *half)
{
	uint64_t bits;

	memcpy(&bits, half, sizeof(bits));
	return be64toh(bits);
}

/* The nodes below the root; addr: for those that reach the second half of the address. Most addresses that come
 * here pass three nodes, so these are done without sorting out the few that do not. */
static ALWAYS_INLINE void walk6(const struct trie *trie, struct active *active, const uint8_t *const *addr,
				uint32_t *index, unsigned left)
{
	unsigned skip = 0;

	while (skip < 3 * NODE_BITS && step_all(trie, active, skip, left) != 0)
		skip += NODE_BITS;
	left = settle(active, index, 3 * NODE_BITS, left);
	for (unsigned depth = 24 + 3 * NODE_BITS; left != 0 && depth < 64; depth += NODE_BITS) {
		step_all(trie, active, 0, left);
		left = settle(active, index, NODE_BITS, left);
	}
	for (unsigned i = 0; i < left; i++)
		active->bits[i] = load_half(addr[active->number[i]] + 8);
	while (left != 0) {
		step_all(trie, active, 0, left);
		left = settle(active, index, NODE_BITS, left);
	}
}

static ALWAYS_INLINE void lookup6(const struct trie *trie, const uint8_t *const *addr, uint32_t *index, unsigned n)
{
	struct active active;
	unsigned below = 0, left = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t top = atomic_load_explicit(&trie->top[load_half(addr[i]) >> 50], memory_order_relaxed);

		index[i] = top & TOP_INDEX;
		active.number[below] = i;
		below += top >> 31;
	}
	for (unsigned i = 0; i < below; i++) {
		uint32_t number = active.number[i], node;
		uint64_t bits = load_half(addr[number]);
		uint64_t pair = atomic_load_explicit(&trie->root[bits >> 40], memory_order_relaxed);

		node = (uint32_t)(pair >> 32);
		index[number] = index_or((uint32_t)pair, index[number]);
		__builtin_prefetch(node_of(trie->nodes, node));
		active.bits[left] = bits << 24;
		active.index[left] = index[number];
		active.node[left] = node;
		active.number[left] = number;
		left += node != 0;
	}
	if (left != 0)
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

TARGET_POPCNT
static void lookup4_popcnt(const struct trie *trie, const uint32_t *addr_be, uint32_t *index, unsigned n)
{
	lookup4(trie, addr_be, index, n);
}

TARGET_POPCNT
static void lookup6_popcnt(const struct trie *trie, const uint8_t *const *addr, uint32_t *index, unsigned n)
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
