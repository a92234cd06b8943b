/* Adjacencies: what a FIB lookup yields an index of. One array for all workers; one writer (the mirror).
 *
 * The part that changes while packets flow is one aligned 64-bit word, stored and loaded whole: a reader sees the
 * adjacency before or after a change, never half of it, with no lock, no epoch, no retry.
 *
 *     bits  0..47   destination MAC, first byte of the wire in bits 0..7
 *     bits 48..57   egress interface: a port, or a VLAN sub-interface of one (forward/worker.h numbers them)
 *     bits 58..63   action: 0 = forward; anything else is a reason number that forward/ gives its meaning
 *
 * The source MAC is the egress interface's. `mtu` is the smaller of the interface's and the route's (RTAX_MTU): the
 * largest IP packet, in bytes, that may leave by it. An adjacency with an action keeps its interface (source
 * validation asks).
 *
 * Index = path id (rib.h): each distinct set of next hops has an index of its own, so that a route's entry in the
 * FIB changes only when the route does, and a neighbour's change is one store however many routes use it.
 * The first indexes are reserved; they are the same in every router.
 *
 * Several legs. When the action is ADJ_ACTION_GROUP the rest of the word says nothing and the legs are in
 * table->group[index]: an object that does not change once it is there (but for its used marks). A change of any leg
 * is a new object put in its place by one store; the old one is freed when every worker has passed a quiescent point
 * (epoch.h). A flow's leg is a function of its 31-bit hash (forward/multipath.h) and of the group alone, in one of the
 * two ways that Linux knows (net/ipv4/nexthop.c):
 *
 *     hash-threshold   each leg has a stretch of the hash's range, as long as its share of the weights
 *     resilient        hash % n_buckets is a bucket, and a bucket names a leg; who moves buckets is netlink/resilient.py
 */
#ifndef IXROUTE_FIB_ADJACENCY_H
#define IXROUTE_FIB_ADJACENCY_H

#include <stdatomic.h>
#include <stdint.h>

#include "fib/epoch.h"

#define ADJ_NO_ROUTE 0u	 /* nothing matched (also a throw route): what an empty FIB answers */
#define ADJ_LOCAL 1u	 /* an address of the router, subnet-router anycast included */
#define ADJ_BROADCAST 2u /* directed or limited broadcast, of the local table */
#define ADJ_MULTICAST 3u
#define ADJ_BLACKHOLE 4u
#define ADJ_REJECT 5u	/* unreachable, prohibit: the kernel answers */
#define ADJ_KERNEL 6u	/* only the kernel can do this right (tos routes, source routes, encap …) */
#define ADJ_POLICY 7u	/* no FIB shows it: what a rule says that only the kernel can follow (forward/view.h) */
#define ADJ_RESERVED 8u /* paths are numbered from here */

struct adjacency {
	_Atomic uint64_t word;
	_Atomic uint32_t mtu;
	uint32_t unused;
};
_Static_assert(sizeof(struct adjacency) == 16, "four to a cache line");

#define ADJ_LEGS_MAX 512u      /* of a group; 64 is what a multipath route can have, nexthop objects have no limit */
#define ADJ_WEIGHT_MAX 65536u  /* a nexthop group's; a multipath route's are at most 256 */
#define ADJ_BUCKETS_MAX 65535u /* of a resilient group */
#define ADJ_HASH_BITS 31u

struct adjacency_leg {
	uint64_t word; /* as an adjacency's; never itself a group */
	uint32_t mtu;
	uint32_t upper; /* hashes below this, and not below the leg's before, are its: 0 .. 2^31 */
	uint32_t weight;
	_Atomic uint8_t used; /* a worker chose it; set only when clear, so that the line stays shared */
};

struct adjacency_group {
	uint32_t n_legs;
	uint32_t n_buckets; /* 0: hash-threshold */
	const uint16_t *bucket; /* leg of each */
	_Atomic uint8_t *bucket_used; /* as a leg's; both arrays lie behind the legs */
	struct adjacency_group *next; /* the writer's, once it is retired: a later one */
	uint64_t retired_at;
	struct adjacency_leg leg[];
};

struct adjacency_table {
	_Atomic(struct adjacency_group *) *group; /* one per entry */
	struct epoch *epoch; /* of the workers that read it; NULL: groups are kept until the table ends */
	struct adjacency_group *retired_first, *retired_last;
	uint32_t capacity;
	_Alignas(64) struct adjacency entry[];
};

#define ADJ_ACTION_FORWARD 0u
#define ADJ_ACTION_GROUP 63u
#define ADJ_ACTION_MAX 63u
#define ADJ_INTERFACE_MAX 1023u

static inline uint64_t adjacency_word(const uint8_t mac[6], unsigned interface, unsigned action)
{
	uint64_t word = (uint64_t)interface << 48 | (uint64_t)action << 58;

	for (unsigned i = 0; i < 6; i++)
		word |= (uint64_t)mac[i] << (8 * i);
	return word;
}

static inline unsigned adjacency_interface(uint64_t word)
{
	return (unsigned)(word >> 48) & ADJ_INTERFACE_MAX;
}

static inline unsigned adjacency_action(uint64_t word)
{
	return (unsigned)(word >> 58);
}

/* A leg as the writer says it. */
struct group_leg {
	uint8_t mac[6];
	uint16_t interface;
	uint8_t action;
	uint32_t mtu;
	uint32_t weight; /* 1 .. ADJ_WEIGHT_MAX */
};

/* All entries get `action`. NULL when there is no memory. Index 0 .. capacity-1. epoch: that of the readers, whose
 * only writer is also the table's; NULL in tests and tools, where a group's memory is then freed with the table. */
struct adjacency_table *adjacency_table_create(uint32_t capacity, uint8_t action, struct epoch *epoch);
void adjacency_table_destroy(struct adjacency_table *table);
/* 0, or -EINVAL for an index outside the table, an interface or action that does not fit. mac may be NULL (all zero).
 * A group that was there is retired. */
int adjacency_set(struct adjacency_table *table, uint32_t index, const uint8_t *mac, uint16_t interface, uint8_t action,
		  uint32_t mtu);
int adjacency_get(const struct adjacency_table *table, uint32_t index, uint64_t *word, uint32_t *mtu);

/* Puts a group there. n_buckets 0: hash-threshold; else bucket[i] is the leg of bucket i. Marks of buckets that were
 * used and not taken yet go over to the new group when it has as many buckets. 0; -EINVAL: a number out of range,
 * a leg that is itself a group; -ENOMEM: the entry is as it was. */
int adjacency_set_group(struct adjacency_table *table, uint32_t index, const struct group_leg *legs, uint32_t n_legs,
			const uint16_t *buckets, uint32_t n_buckets);
/* The writer's view: number of legs (0: no group there), and of buckets. */
uint32_t adjacency_group_size(const struct adjacency_table *table, uint32_t index, uint32_t *n_buckets);
/* Copies as many legs and buckets as adjacency_group_size says. */
void adjacency_get_group(const struct adjacency_table *table, uint32_t index, struct group_leg *legs, uint16_t *buckets);
/* A byte per leg or per bucket: 1 when a worker chose it since the last call; the marks are cleared. */
void adjacency_take_legs_used(struct adjacency_table *table, uint32_t index, uint8_t *used);
void adjacency_take_buckets_used(struct adjacency_table *table, uint32_t index, uint8_t *used);
/* Frees what no worker can hold any more. Setting groups does it too. */
void adjacency_collect(struct adjacency_table *table);
uint32_t adjacency_retired(const struct adjacency_table *table); /* groups that wait for it */

/* A reader's: NULL when the entry is no group, or is none any more. It may set marks. */
static inline struct adjacency_group *adjacency_group(const struct adjacency_table *table, uint32_t index)
{
	return atomic_load_explicit(&table->group[index], memory_order_acquire);
}

#endif
