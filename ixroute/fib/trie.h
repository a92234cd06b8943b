/* The trie that packets see: its layout, why it is so, and the lookups.
 *
 * What it must do: a million IPv4 and a quarter million IPv6 prefixes in little more than a core's L2 cache, few dependent
 * loads and no unpredictable branch per lookup, updates of bounded cost, and readers that never wait.
 *
 * THE SHAPE. A key is an address, left-aligned in 128 bits. Three kinds of table, from the top:
 *
 *     top    direct, indexed by the first top_bits.   Prefixes of length 0 .. top_bits.
 *     root   direct, indexed by the first root_bits.  Prefixes of length top_bits+1 .. root_bits.
 *     node   6 bits each, compressed.                 The longer ones: a node at depth d (bits before it) holds
 *                                                     lengths d+1 .. d+6.
 *            IPv4: top 8, root 18, nodes at 18, 24, 30.    IPv6: top 14, root 24, nodes at 24, 30 .. 60, 64, 70 .. 124.
 *     (The node at 60 has but 4 bits, that no index straddles the two halves of an IPv6 address; so has the one at 124, and the one
 *     at 30 of IPv4 has 2. The missing bits read as zeros: slots in between are simply never asked for.)
 *
 * An ENTRY is 32 bits: 0 = no prefix of this table here; a VALUE (adjacency index + 1); or, with bit 31, a NODE: its place
 * in the arena and the width of its entries. `top` is different: it holds plain indexes (0 = ADJ_NO_ROUTE), and for IPv6 bit 31
 * says that the root has something below: so addresses of empty space never touch the 64 MiB of (mostly unmapped) root.
 *
 * A NODE resolves its 64 slots among its own prefixes, and keeps a slot only where it differs from the slot before:
 *
 *     uint64_t starts      bit s: slot s differs from slot s-1 (bit 0 always set)
 *     width    e[0]        INHERITED: the value of the slot of the table above in which this node hangs
 *     width    e[1..k]     the runs' entries, k = popcount(starts); slot s is e[popcount(starts & bits 0..s)]
 *
 * width is 1, 2 or 4 bytes, the smallest that holds all; a node with children has 4. Full tables have a few hundred distinct paths
 * in small numbers, so that a typical IPv4 node, bitmap and all, is 16 bytes of one cache line.
 *
 * A LOOKUP walks down and remembers the last value it met: `inherited` of each node, then the entry where the walk ends. Nothing is
 * ever looked for twice, and a prefix that covers a whole child is told to that child in one store (its e[0]) instead of
 * being pushed into everything below:
 *
 * WHAT AN UPDATE COSTS. It changes one table only. A prefix of a node's length: that node is written anew beside the old one (at
 * most 64 slots), the children it covers get their e[0] stored in place, and one release store, in the entry above, shows
 * the new node. A prefix of the root: at most 2^(root_bits-top_bits-1) = 512 entries, each a store. A prefix of the top, such as
 * the default route: at most 2^top_bits stores, contiguous. With full leaf pushing (poptrie) the default route would rewrite each
 * leaf that shows it, and a reader would still find each address changing at another moment.
 *
 * A reader thus sees, for each address, one place change in one store. What remains is a reader that is held up half way: having
 * read a value above, it sleeps while that changes and then the prefix below it goes, and would then answer with a value that was never
 * right for its address. Stores to top, root ranges and e[0] therefore stand between two increments of `generation`; a
 * burst that saw it move is looked up again (fib.c).
 *
 * WORKED EXAMPLE (IPv4). 10.0.0.0/8 -> 1, 10.1.0.0/16 -> 2, 10.1.2.0/24 -> 3, 10.1.3.128/25 -> 4.
 *
 *     10.0.0.0/8      len <= 8: top[10] = 1.
 *     10.1.0.0/16     8 < len <= 18: root has 4 slots for it, those with the first 18 bits 0x0a01 followed by 00 01 10 11. The last
 *                     three hold the value 3 (index 2 + 1). The first has a child, since longer prefixes follow.
 *     10.1.2.0/24     a node at depth 18 hangs in root[0x0a01 << 2]: A. Bits 18..23 of 10.1.2.0 are 000010: slot 2.
 *     10.1.3.128/25   longer than 24: a node at depth 24, B, hangs in slot 3 of A. Bits 24..29 of 10.1.3.128 are 100000: slots 32..63.
 *
 *     slots of A:     0 1 2 3 4 ... 63          A.starts = bits 0, 2, 3, 4 = 0x1d, k = 4, width 4 (it has a child)
 *                     0 0 4 B 0 ... 0           A.e = [3 | 0, 4, B, 0]        e[0] = 3 is the /16's value
 *     slots of B:     0 ... 31  32 ... 63       B.starts = bits 0, 32, k = 2, width 1
 *                     0 ... 0   5  ... 5        B.e = [0 | 0, 5]              e[0] = 0: A has no prefix for slot 3
 *
 *     10.1.2.9:   top 1; root -> A, e[0]: 3; slot 2: popcount(0x1d & 0x7) = 2, e[2] = 4, a value -> index 3.
 *     10.1.3.7:   top 1; root -> A, e[0]: 3; slot 3: e[3] = B; e[0] of B: 0, so 3 stays; slot 1: e[1] = 0, 3 stays -> index 2.
 *     10.1.9.9:   A, slot 9: popcount(0x1d & 0x3ff) = 4, e[4] = 0, so e[0] = 3 -> index 2.
 *     10.9.9.9:   root 0: nothing; top[10] = 1 -> index 1.      11.0.0.1: root 0, top 0 -> ADJ_NO_ROUTE.
 *
 *     Removing the /16 sets three root slots to 0 and A.e[0] to 0: four stores, however many routes lie below.
 *
 * The slots of a direct table that hold no node are treated as if they held node 0, one run of zeros: a lookup then has
 * no branch that depends on the table. Node 0 lies at the arena's base.
 *
 * ORDER. A node is complete before the release store that shows it; its reader got the entry by a plain load and reaches the node
 * through it (an address dependency, which every machine we run on respects). Freed nodes wait for all readers: retire.h.
 */
#ifndef IXROUTE_FIB_TRIE_H
#define IXROUTE_FIB_TRIE_H

#include <endian.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "fib/arena.h"
#include "fib/retire.h"

#define ENTRY_NODE 0x80000000u
#define ENTRY_WIDTH_SHIFT 29
#define ENTRY_REF 0x1fffffffu
#define VALUE_MAX 0x7fffffffu
#define TOP_BELOW 0x80000000u /* the root has entries under this slot */
#define TOP_INDEX 0x7fffffffu

#define NODE_SLOTS 64u
#define NODE_BITS 6u
#define NODE_ENTRIES 8u /* offset of e[0] */

/* The most addresses a variant looks up at a time. */
#define LOOKUP_BLOCK 64u

struct trie {
	/* What lookups read: one cache line. */
	_Alignas(64) const uint8_t *nodes;
	_Atomic uint32_t *root;
	_Atomic uint32_t *top;
	_Atomic uint64_t generation;

	/* The writer's. */
	_Alignas(64) unsigned top_bits, root_bits, max_len;
	uint32_t below_flag; /* TOP_BELOW for IPv6, 0 for IPv4, whose lookups always read the root */
	struct lazy_array root_array, top_array;
	struct lazy_array short_values; /* uint32_t per prefix of length 0 .. root_bits, at (1 << len | bits) */
	struct lazy_array root_records; /* uint32_t per root slot: its node's record (store.h) */
	struct lazy_array below_count;  /* uint32_t per top slot: how many longer prefixes it covers */
	struct arena node_arena;
	struct arena record_arena;
	struct retire retire;
	uint64_t prefixes;
};

/* An address, left-aligned. */
struct key {
	uint64_t hi, lo;
};

/* The 6 bits at depth: which slot of the node there. */
static inline unsigned key_slot(struct key key, unsigned depth)
{
	return (unsigned)((depth < 64 ? key.hi << depth : key.lo << (depth - 64)) >> (64 - NODE_BITS));
}

static inline unsigned depth_below(unsigned depth)
{
	return depth < 64 && depth + NODE_BITS > 64 ? 64 : depth + NODE_BITS;
}

/* Loads that a concurrent store of the same width may meet; entries of 1 and 2 bytes are loaded as 4 and cut. */
typedef uint32_t __attribute__((aligned(1), may_alias)) unaligned_u32;
typedef uint64_t __attribute__((may_alias)) aliased_u64;

static inline uint32_t entry_width(uint32_t entry)
{
	return (entry >> ENTRY_WIDTH_SHIFT & 3) + 1;
}

static inline uint64_t entry_offset(uint32_t entry)
{
	return (uint64_t)(entry & ENTRY_REF) * ARENA_UNIT;
}

static inline uint64_t node_starts(const uint8_t *node)
{
	return *(const aliased_u64 *)node;
}

static inline uint32_t node_entry(const uint8_t *node, uint32_t width, uint32_t rank)
{
	uint32_t loaded = *(const volatile unaligned_u32 *)(node + NODE_ENTRIES + (uint64_t)(rank * width));

	return (uint32_t)(loaded & ((1ull << (8 * width)) - 1));
}

static inline uint32_t node_rank(uint64_t starts, unsigned slot)
{
	return (uint32_t)__builtin_popcountll(starts << (NODE_SLOTS - 1 - slot));
}

/* ---- trie.c, the writer ---- */

/* 0 or -ENOMEM. family 4 or 6. */
int trie_create(struct trie *trie, unsigned family, struct arena_fault *fault);
void trie_destroy(struct trie *trie);
/* value = index + 1. What is retired gets `tag`. 0, -ENOMEM, -ENOSPC; remove: -ENOENT. */
int trie_insert(struct trie *trie, struct key key, unsigned len, uint32_t value, uint64_t tag);
int trie_remove(struct trie *trie, struct key key, unsigned len, uint64_t tag);
/* Longest match: its value, and its length in *len; 0: none. */
uint32_t trie_match(const struct trie *trie, struct key key, unsigned *len);
/* 0, or -EINVAL and the reason in why. */
int trie_check(const struct trie *trie, char *why, size_t why_bytes);

#endif
