/* The trie that packets see: its layout, why it is so, and the lookups' building blocks.
 *
 * What it must do: a million IPv4 and a quarter million IPv6 prefixes in a few MiB, few dependent loads and no
 * unpredictable branch per lookup, updates of bounded cost, and readers that never wait.
 *
 * THE SHAPE. A key is an address, left-aligned in 128 bits. Three kinds of table, from the top:
 *
 *     top    direct, by the first 14 bits (IPv4: one slot). Prefixes of length 0 .. 14 (IPv4: 0).
 *     root   direct, by the first 18 (IPv6: 24) bits.       Prefixes of length 1 .. 18 (IPv6: 15 .. 24).
 *     node   6 bits each, compressed. The node at depth d (bits before it) holds lengths d+1 .. d+6.
 *            IPv4: nodes at 18, 24, 30.    IPv6: at 24, 30 .. 60, 64, 70 .. 124.
 *
 * (The node at 60 has but 4 bits, so that no node straddles the halves of an IPv6 address; so has the one at 124,
 * and the one at 30 of IPv4 has 2. The missing bits read as zeros: the slots in between are never asked for.)
 *
 * A SLOT, of the root as of a node, is a pair of 32-bit halves, loaded at once:
 *
 *     value   the index + 1, or 0: no prefix of this table here, the value found further up holds
 *     node    the node below: its place in the arena and the width of its entries; 0: none
 *
 * top holds indexes; its bit 31 says, for IPv6, that the root has something below this slot, so that addresses of
 * empty space never touch the 128 MiB (of which hardly any are mapped) of the IPv6 root. For IPv4 it holds the default
 * route alone, which would otherwise fill the 2 MiB of the root: there may be hundreds of tables that have little else.
 *
 * A NODE resolves its 64 slots among its own prefixes, and keeps a slot only where it differs from the slot before:
 *
 *     uint64_t starts     bit s: slot s differs from slot s-1 (bit 0 always set)
 *     entry[1..k]         the runs, k = popcount(starts); slot s is in entry[popcount(starts & bits 0..s)]
 *
 * An entry is 8 bytes (the pair) in a node with children, else it is the value alone, in the 1, 2 or 4 bytes that
 * the largest needs: full tables have a few hundred distinct paths, with small numbers, so that most IPv4 nodes are
 * 16 bytes of one cache line. An entry of any width is loaded as the 8 bytes that END with it and shifted right:
 * what is shifted out are entries before it or `starts`, never bytes beyond the node, and what comes in above are
 * zeros: no child.
 *
 * A LOOKUP walks down and remembers the last value it met. Nothing is looked for twice, and nothing is pushed down:
 *
 * WHAT AN UPDATE COSTS. It changes one table only. A prefix of a node's length: the node is written anew beside the
 * old one (at most 64 slots) and one release store, into the slot above, shows it; nodes below it stay as they are,
 * since what they inherit stands in the slots above them. A prefix of the root or the top: one 4-byte store per
 * slot it covers and no longer prefix covers; an IPv4 /1 is the worst, 2^17 stores in a row, a fraction of a
 * millisecond. With full leaf pushing (poptrie) it would mean to write most nodes anew, and for IPv6 there
 * would be no bound at all.
 *
 * So for each address an update is one store, and a reader sees it or does not. What remains is a reader that is
 * held up half way: it has read a value far up, sleeps while that changes and then a prefix below it goes, and
 * would answer with a value that was never right for this address. Updates that change what others inherit
 * therefore stand between two increments of `generation`; a block of lookups that saw it move is looked up again,
 * address by address (fib.c).
 *
 * WORKED EXAMPLE (IPv4). 10.0.0.0/8 -> 1, 10.1.0.0/16 -> 2, 10.1.2.0/24 -> 3, 10.1.3.128/25 -> 4.
 *
 *     10.0.0.0/8      1024 root slots get value 1 + 1: those whose first 8 bits are 10.
 *     10.1.0.0/16     4 of these get value 3: first 16 bits 0x0a01, then 00, 01, 10, 11. Call the first one R.
 *     10.1.2.0/24     longer than 18: a node at depth 18, A, hangs in R. Bits 18..23 of 10.1.2.0 are 000010: slot 2.
 *     10.1.3.128/25   longer than 24: a node at depth 24, B, hangs in slot 3 of A. Bits 24..29 of 10.1.3.128 are
 *                     100000, and one of these six is fixed: slots 32..63.
 *
 *     R  = {3, A}
 *     slots of A:     0 1  2   3    4 ... 63     A.starts = bits 0, 2, 3, 4 = 0x1d: k = 4, width 8 (it has a child)
 *                     0 0  4  {0,B} 0 ... 0      A.entry[1..4] = {0,0} {4,0} {0,B} {0,0}
 *     slots of B:     0 ... 31   32 ... 63       B.starts = bits 0, 32: k = 2, width 1
 *                     0 ... 0     5 ... 5        B.entry[1..2] = 0 5
 *
 *     10.1.2.9:   R: index 2, go to A; slot 2: popcount(0x1d & 0x7) = 2, entry[2] = {4,0}: index 3, no child, done.
 *     10.1.3.7:   R: 2; slot 3: popcount(0x1d & 0xf) = 3, {0,B}: 2 stays, go to B; slot 1: entry[1] = 0: 2 stays.
 *     10.1.9.9:   R: 2; slot 9: popcount(0x1d & 0x3ff) = 4, {0,0}: 2 stays.
 *     10.9.9.9:   its root slot is {2, 0}: 1.        11.0.0.1:   {0, 0}: the top's 0, ADJ_NO_ROUTE.
 *
 *     Removing the /16 stores value 2 into its four root slots, however many routes lie below.
 *
 * Node 0 lies at the arena's base and is one run of {0,0}. A slot without a child thus leads to a node that changes
 * nothing, and a lookup needs no branch that depends on the table.
 *
 * ORDER. A node is complete before the release store that shows it; its reader reaches it through the slot it
 * loaded (an address dependency, which every machine we run on respects). Freed nodes wait for all readers:
 * retire.h.
 */
#ifndef IXROUTE_FIB_TRIE_H
#define IXROUTE_FIB_TRIE_H

#include <endian.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "fib/arena.h"
#include "fib/retire.h"

/* What refers to a node: its place (8-byte units) above, log2 of its entries' width in the low two bits. 0: node 0. */
#define NODE_WIDTH 3u
#define NODE_PLACE (~NODE_WIDTH)
#define TOP_BELOW 0x80000000u /* the root has slots in use under this one */
#define TOP_INDEX 0x7fffffffu

#define NODE_SLOTS 64u
#define NODE_BITS 6u

/* The most addresses a variant looks up at a time. */
#define LOOKUP_BLOCK 64u

struct trie {
	/* What lookups read: one cache line. */
	_Alignas(64) const uint8_t *nodes;
	_Atomic uint64_t *root; /* slots: value below, node above */
	_Atomic uint32_t *top;
	_Atomic uint64_t generation;

	/* The writer's. */
	_Alignas(64) unsigned top_bits, root_bits, max_len;
	unsigned top_lens;   /* prefixes shorter than this are in the top: 15, IPv4: 1 */
	uint32_t below_flag; /* TOP_BELOW or 0 */
	struct lazy_array root_array, top_array;
	/* uint32_t, index + 1, per prefix of length 0 .. root_bits, at (1 << len | bits) */
	struct lazy_array short_values;
	struct lazy_array root_owner, top_owner; /* uint8_t per slot: 1 + length of the prefix it shows, 0: none */
	struct lazy_array root_records;		 /* uint32_t per root slot: its node's record (prefix_store.h) */
	struct lazy_array below_count;		 /* uint32_t per top slot: how many longer prefixes it covers */
	struct arena node_arena;
	struct arena record_arena;
	struct retire retire;
	uint64_t prefixes;
};
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "halves of a slot are stored one by one and loaded as one");

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

typedef uint64_t __attribute__((aligned(1), may_alias)) unaligned_u64;
typedef uint64_t __attribute__((may_alias)) aliased_u64;

static inline uint64_t slot_pair(uint32_t value, uint32_t node)
{
	return (uint64_t)node << 32 | value;
}

static inline const uint8_t *node_of(const uint8_t *nodes, uint32_t node)
{
	return nodes + 2 * (uint64_t)(node & NODE_PLACE);
}

static inline uint64_t node_starts(const uint8_t *at)
{
	return *(const aliased_u64 *)at;
}

/* In which entry (1..k) a slot is. */
static inline uint32_t node_rank(uint64_t starts, unsigned slot)
{
	return (uint32_t)__builtin_popcountll(starts << (NODE_SLOTS - 1 - slot));
}

/* An entry as a pair. volatile: a writer may store its upper half meanwhile, so it must be loaded once. */
static inline uint64_t node_entry(const uint8_t *at, uint32_t node, uint32_t rank)
{
	uint32_t width = node & NODE_WIDTH;

	return *(const volatile unaligned_u64 *)(at + ((uint64_t)rank << width)) >> (-(8u << width) & 63);
}

/* ---- trie.c, the writer ---- */

/* 0 or -ENOMEM. family 4 or 6. small: one of many, perhaps with little in it (arena.h). */
int trie_create(struct trie *trie, unsigned family, int small, struct arena_fault *fault);
void trie_destroy(struct trie *trie);
/* value = index + 1. What is retired gets `tag`. 0 or -ENOMEM; remove: also -ENOENT. */
int trie_insert(struct trie *trie, struct key key, unsigned len, uint32_t value, uint64_t tag);
int trie_remove(struct trie *trie, struct key key, unsigned len, uint64_t tag);
/* Longest match of at most that many bits: its value, and its length in *len; 0: none. */
uint32_t trie_match(const struct trie *trie, struct key key, unsigned at_most, unsigned *len);
/* The value of exactly this prefix, 0: not there. */
uint32_t trie_get(const struct trie *trie, struct key key, unsigned len);
/* 0, or -EINVAL and the reason in why. */
int trie_check(const struct trie *trie, char *why, size_t why_bytes);

#endif
