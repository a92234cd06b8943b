/* The RIB: every route the kernel has told us of, which of them is best for each prefix, and the FIBs kept equal to
 * that. The routes' policy lives here; a FIB (fib.h) only knows prefix -> index.
 *
 * One thread uses it (the mirror's). It owns the numbering of paths = adjacency indexes (adjacency.h), which all its
 * FIBs share.
 *
 * A route's identity is (table, prefix, tos, metric). Under one identity there may be several alternatives in an
 * order (`ip route append`, IPv6 device routes of equal metric); which is why entries hold a short list.
 *
 * The *merged* FIB answers what the default rules say about tables local and main. It shows for a prefix, in this
 * order:
 *   1. routes of table local (255), then those of main (254), as the default rules say (0: local, 32766: main,
 *      32767: default). Below a shorter prefix of local, main is not reached in IPv6. In IPv4 it is until the
 *      namespace had its first rule of its own: the two tables are one trie until then, of which the longest match
 *      counts, and are split for good by it (fib_unmerge). Nobody is told, so such a prefix of main shows ADJ_KERNEL,
 *      whatever its routes. Table default (253) is reached only by packets that match nothing here: they get
 *      ADJ_NO_ROUTE, which means: ask the next rule;
 *   2. among the routes of one table and prefix the lowest metric, then the first alternative;
 *   3. a neighbour's host prefix, when the longest match for its address is a route without gateway over the
 *      neighbour's interface (one leg, no nexthop object: what that resolves to is not known here). It takes the
 *      place of a host route of that kind.
 * Anything that only the kernel can decide shows ADJ_KERNEL: a prefix with a route of tos != 0, IPv6 source routes,
 * several equal IPv6 alternatives that do not all show the same reserved index, encapsulations, paths too large to
 * hold, routes of no known kind, throw in table local.
 *
 * A *table FIB* (rib_show_table) shows the routes of one table and nothing else, whatever its number, by rules 2 and 3
 * alone; throw is ADJ_NO_ROUTE in each of them. With `shortest` (`ip rule … suppress_prefixlength N`: N + 1) the routes
 * of shorter prefixes are as if thrown: they show ADJ_NO_ROUTE rather than nothing, since what a still shorter prefix
 * says must not show through (the kernel finds the longest match first and then suppresses it). Blackhole,
 * unreachable and prohibit show as ever: fib_rules_lookup asks for suppression only where a lookup found a way.
 */
#ifndef IXROUTE_FIB_RIB_H
#define IXROUTE_FIB_RIB_H

#include <stddef.h>
#include <stdint.h>

#include "fib/adjacency.h"
#include "fib/fib.h"
#include "fib/prefix.h"

#define RIB_TABLE_MAIN 254u
#define RIB_TABLE_LOCAL 255u

/* Values of linux/rtnetlink.h, repeated because this room does not know netlink. */
enum route_type {
	ROUTE_UNICAST = 1,
	ROUTE_LOCAL = 2,
	ROUTE_BROADCAST = 3,
	ROUTE_ANYCAST = 4,
	ROUTE_MULTICAST = 5,
	ROUTE_BLACKHOLE = 6,
	ROUTE_UNREACHABLE = 7,
	ROUTE_PROHIBIT = 8,
	ROUTE_THROW = 9,
};

#define PATH_MAX_LEGS 64u
#define PATH_KERNEL_ONLY 1u /* flags: encapsulation, more legs than PATH_MAX_LEGS, an attribute we do not know … */

struct next_hop {
	uint32_t ifindex;
	uint8_t gateway_family; /* FAMILY_IP4, FAMILY_IP6 (also under an IPv4 route: RFC 8950), 0: none, on the link */
	uint8_t flags;		/* RTNH_F_ONLINK only: link state (dead, linkdown) is not part of a path's identity */
	uint16_t weight;	/* 1..256 */
	uint8_t gateway[16];	/* wire order */
};

/* A set of next hops with what belongs to it: two routes with equal paths share one path id. When nhid is not 0
 * identity is (family, type, nhid, mtu, flags) alone and the legs are only what the kernel said of them last; type is
 * then ROUTE_UNICAST, or ROUTE_BLACKHOLE when the kernel says the object is a blackhole. IPv6 siblings have no order:
 * their legs are kept sorted. A single leg's weight means nothing and is kept as 1. Unused gateway bytes are 0. */
struct path {
	uint8_t family; /* of the routes that use it */
	uint8_t type;	/* enum route_type */
	uint8_t flags;
	uint8_t n_legs;
	uint32_t nhid; /* id of a nexthop object, 0: none */
	uint32_t mtu;  /* RTAX_MTU, 0: none */
	struct next_hop leg[PATH_MAX_LEGS];
};

struct route {
	struct prefix prefix;
	uint8_t tos;	  /* IPv4 only */
	uint8_t protocol; /* RTPROT_*, for people */
	uint8_t scope;	  /* RT_SCOPE_*, for people */
	uint8_t source_len; /* IPv6 `from`: != 0 makes the prefix ADJ_KERNEL */
	uint32_t table;
	uint32_t metric;
	uint32_t other; /* digest of what else tells two alternatives apart in the kernel (preferred source, metrics,
			 * the source prefix of a source route), 0: nothing else */
};

/* How a new route meets the alternatives that are there under its identity (fib_table_insert, ip6_fib.c). */
enum rib_how {
	RIB_ADD,     /* NLM_F_CREATE: IPv4 puts it first among equals */
	RIB_APPEND,  /* NLM_F_APPEND: last */
	RIB_REPLACE, /* NLM_F_REPLACE: instead of the first */
};

struct rib;

struct rib_stats {
	uint64_t routes4, routes6;   /* all tables */
	uint64_t paths;
	uint64_t neighbours;	     /* host prefixes known; shown only where rule 3 holds */
	uint64_t best_changes;	     /* updates that reached a FIB */
	uint64_t failed;	     /* a FIB or memory refused: the prefix may be stale until the next resync */
	uint64_t paths_exhausted;    /* routes shown as ADJ_KERNEL since no path id was left */
	uint64_t bytes;
	uint64_t fibs;		     /* the merged one included */
};

/* fib: the merged one. paths get ids ADJ_RESERVED .. adjacencies->capacity-1; a fresh path's adjacency is set to new_path_action (with
 * port 0, no MAC) before any packet can see it. NULL: no memory. */
struct rib *rib_create(struct fib *fib, struct adjacency_table *adjacencies, uint8_t new_path_action);
void rib_destroy(struct rib *rib);

/* At most so many FIBs, the merged one included. */
#define RIB_FIBS_MAX 256u

/* Makes `fib`, an empty one beside the merged (same epoch), the table FIB of (table, shortest) and fills it; from then
 * on it is kept equal until rib_destroy, and must live as long. 0; -EINVAL: not empty, another epoch, shortest above
 * 129; -EEXIST: there is one; -ENOSPC: RIB_FIBS_MAX are there. What the FIB itself refuses is tried again later, as
 * ever. */
int rib_show_table(struct rib *rib, uint32_t table, unsigned shortest, struct fib *fib);

/* 0 or -errno (-ENOMEM; -EINVAL: not a valid prefix or type). Changing nothing is not an error. */
int rib_add(struct rib *rib, const struct route *route, const struct path *path, enum rib_how how);
/* Removes the alternative with an equal path, else (when path is NULL or unknown) the first. IPv6: a path with
 * fewer legs than the alternative's means "these legs are gone" (RTM_DELROUTE per leg). -ENOENT: not there. */
int rib_remove(struct rib *rib, const struct route *route, const struct path *path);

/* Mark and sweep: between begin and end every route of `family` that still exists is told again, in the kernel's
 * order, by rib_dumped; end removes those not told and returns how many routes were added, moved or removed by the
 * whole dump (0: the mirror was right). rib_dump_abort forgets the dump and removes nothing.
 * IPv6 routes that the kernel's dump may have passed over stay without being told: those equal in table, prefix and
 * metric to a told route of several legs that they are not part of (rib_dump.c). */
void rib_dump_begin(struct rib *rib, uint8_t family);
int rib_dumped(struct rib *rib, const struct route *route, const struct path *path);
uint64_t rib_dump_end(struct rib *rib, uint8_t family);
void rib_dump_abort(struct rib *rib, uint8_t family);

/* A resolved neighbour on ifindex (rule 3), its path a single leg with itself as gateway. */
int rib_neighbour_add(struct rib *rib, uint8_t family, const uint8_t *addr, uint32_t ifindex);
int rib_neighbour_remove(struct rib *rib, uint8_t family, const uint8_t *addr, uint32_t ifindex);

/* After a batch of changes: lets the FIBs free what no reader can see any more (fib_collect) and tries again what they
 * refused. Costs nothing when there is nothing; route_stream_receive and rib_dump_end do it by themselves. */
void rib_settle(struct rib *rib);

/* Path ids whose path is new since the last call, or whose legs (under a nhid) were told differently: at most n of
 * them into ids; call until 0. */
unsigned rib_take_new_paths(struct rib *rib, uint32_t *ids, unsigned n);
/* NULL when id is reserved or unused. Valid until the next change; only leg[0 .. n_legs-1] are memory. */
const struct path *rib_path(const struct rib *rib, uint32_t id);
/* How many alternatives use it, and one more when it leads to a neighbour known to the RIB itself. */
uint32_t rib_path_routes(const struct rib *rib, uint32_t id);
uint32_t rib_path_limit(const struct rib *rib);		      /* all ids are below this */

/* What a FIB shows for an address and why. */
struct rib_answer {
	uint32_t index;	   /* adjacency index */
	uint8_t found;	   /* 0: nothing matches */
	uint8_t neighbour; /* 1: a neighbour's host prefix (route is then the covering route) */
	uint8_t type;	      /* enum route_type of the route */
	struct prefix prefix; /* of the FIB entry */
	struct route route;
};
void rib_lookup(const struct rib *rib, uint8_t family, const uint8_t *addr, struct rib_answer *out); /* the merged */
/* 0, or -ENOENT: there is no such table FIB. */
int rib_lookup_table(const struct rib *rib, uint32_t table, unsigned shortest, uint8_t family, const uint8_t *addr,
		     struct rib_answer *out);

/* Walks all alternatives in no particular order: up to n from *cursor (0 at first); 0 when done. */
struct rib_entry {
	struct route route;
	uint32_t path_id; /* may be reserved */
	uint8_t best;	  /* this is what the merged FIB shows for the prefix */
	uint8_t type;	  /* enum route_type */
};
unsigned rib_walk(const struct rib *rib, uint64_t *cursor, struct rib_entry *out, unsigned n);

void rib_stats_read(const struct rib *rib, struct rib_stats *out);
/* Recomputes everything slowly and compares, FIBs included. 0, or -EINVAL and what is wrong in why. For tests. */
int rib_check(const struct rib *rib, char *why, size_t why_bytes);

#endif
