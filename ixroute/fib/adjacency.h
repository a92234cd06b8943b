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
 */
#ifndef IXROUTE_FIB_ADJACENCY_H
#define IXROUTE_FIB_ADJACENCY_H

#include <stdatomic.h>
#include <stdint.h>

#define ADJ_NO_ROUTE 0u	 /* nothing matched (also a throw route): what an empty FIB answers */
#define ADJ_LOCAL 1u	 /* an address of the router, subnet-router anycast included */
#define ADJ_BROADCAST 2u /* directed or limited broadcast, of the local table */
#define ADJ_MULTICAST 3u
#define ADJ_BLACKHOLE 4u
#define ADJ_REJECT 5u	/* unreachable, prohibit: the kernel answers */
#define ADJ_KERNEL 6u	/* only the kernel can do this right (tos routes, source routes, several legs, encap …) */
#define ADJ_POLICY 7u	/* no FIB shows it: what a rule says that only the kernel can follow (forward/view.h) */
#define ADJ_RESERVED 8u /* paths are numbered from here */

struct adjacency {
	_Atomic uint64_t word;
	_Atomic uint32_t mtu;
	uint32_t unused;
};
_Static_assert(sizeof(struct adjacency) == 16, "four to a cache line");

struct adjacency_table {
	uint32_t capacity;
	struct adjacency entry[]; /* aligned to 64 */
};

#define ADJ_ACTION_FORWARD 0u
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

/* All entries get `action`. NULL when there is no memory. Index 0 .. capacity-1. */
struct adjacency_table *adjacency_table_create(uint32_t capacity, uint8_t action);
void adjacency_table_destroy(struct adjacency_table *table);
/* 0, or -EINVAL for an index outside the table, an interface or action that does not fit. mac may be NULL (all zero). */
int adjacency_set(struct adjacency_table *table, uint32_t index, const uint8_t *mac, uint16_t interface, uint8_t action,
		  uint32_t mtu);
int adjacency_get(const struct adjacency_table *table, uint32_t index, uint64_t *word, uint32_t *mtu);

#endif
