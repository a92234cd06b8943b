/* The inside of the RIB, shared by rib.c (the routes' policy), rib_table.c (where they are kept), rib_show.c (what the
 * merged FIB shows), rib_fibs.c (the FIBs of one table each), rib_dump.c (mark and sweep), rib_neighbour.c and
 * rib_check.c (the slow twin of them all). Nobody else includes it.
 *
 * A node stands for one prefix, whatever the table: its alternatives of all tables hang on one list, sorted so that
 * what matters comes first:
 *
 *     10.0.0.0/8  ->  local, metric 0  ->  main, metric 0 (best)  ->  main, metric 0 (appended)  ->  main, metric 20
 *
 * Nodes and alternatives live in chunked pools and refer to each other by 32-bit index: a million routes are some
 * hundred allocations, and growing never moves one. Nodes are found by a hash of (family, length, address).
 */
#ifndef IXROUTE_FIB_RIB_PRIVATE_H
#define IXROUTE_FIB_RIB_PRIVATE_H

#include <stdbool.h>

#include "fib/path.h"
#include "fib/rib.h"

#define NONE UINT32_MAX

#define NODE_LOCAL 1u	  /* has alternatives of table local */
#define NODE_MAIN 2u	  /* … of main */
#define NODE_NEIGHBOUR 4u /* a neighbour has this address */
#define NODE_STALE 8u	  /* the merged FIB refused the last change: shown is not what should be */
#define NODE_DIRTY 16u	  /* changed by a dump that has not come to all of its alternatives yet */
#define NODE_BEHIND 32u	  /* a table FIB refused a change */
#define NODE_OTHER 64u	  /* has alternatives of tables that are neither local nor main */

struct node {
	uint8_t addr[16];
	uint32_t shown; /* index in the merged FIB, NONE: not there */
	uint32_t first; /* alternative */
	uint8_t family; /* 0: free, `first` links the free ones */
	uint8_t len;
	uint8_t flags;
	uint8_t unused;
};

#define ALT_GATEWAY 1u /* IPv6 siblings can be of this kind: unicast, gateways, no nexthop object */
#define ALT_TOLD 2u    /* by the dump that runs */
#define ALT_PASSED 4u  /* not told when one behind it was */
#define ALT_CHANGED 8u /* the table FIBs do not show yet what the dump changed here (NODE_DIRTY of a section) */

struct alternative {
	uint32_t next;
	uint32_t table;
	uint32_t metric;
	uint32_t path;	/* a use of this path is counted; or a reserved index */
	uint32_t other; /* struct route */
	uint8_t tos;
	uint8_t protocol;
	uint8_t scope;
	uint8_t source_len;
	uint32_t content : 24; /* part of the path's hash: tells two paths without an id apart */
	uint32_t type : 4; /* enum route_type, for people: a reserved path does not tell */
	uint32_t flags : 4;
};
_Static_assert(sizeof(struct node) == 28 && sizeof(struct alternative) == 28, "a million of each");

struct pool {
	uint8_t **chunk;
	uint32_t chunks, room; /* allocated; places in `chunk` */
	uint32_t used;	       /* indexes ever given are below this */
	uint32_t free_first;
	size_t item;
};

struct slot {
	uint32_t hash;
	uint32_t node; /* NONE: empty */
};

/* How many prefixes of each length there are: a longest match only tries lengths that exist. */
struct lengths {
	uint32_t count[129];
	uint64_t bits[3];
};

struct neighbour {
	uint8_t addr[16];
	uint32_t ifindex;
	uint32_t node;
	uint32_t path;	   /* shown with this path, NONE: not shown */
	int32_t cover_len; /* of the longest match when last looked at, -1: none */
};

struct neighbours {
	uint32_t *sorted; /* by address, then ifindex: those under a prefix are a range */
	uint32_t n, room;
};

struct family_state {
	struct lengths local, main;
	struct neighbours neighbours;
	uint64_t routes;
	uint64_t nodes;
	uint64_t differences; /* of the dump that runs */
	bool dumping;
	bool local_moved; /* during the dump a prefix shorter than a host came to or left table local */
};

struct stale_list {
	uint32_t *node;
	uint32_t n, room, next;
	bool lost; /* no memory for an entry: the flag is all there is */
};

/* A FIB of one table. It holds no state but itself: what it shows for a prefix is asked of it. */
struct table_fib {
	struct fib *fib;
	uint32_t table;
	uint8_t shortest;
	uint8_t since_collect;
	uint16_t next; /* in its bucket, by table; NO_FIB: the last */
};

#define NO_FIB UINT16_MAX
#define TABLE_BUCKETS 256u

struct rib {
	struct fib *fib; /* the merged one */
	struct table_fib *table_fib; /* room for RIB_FIBS_MAX - 1, NULL until there is one */
	unsigned table_fibs;
	uint16_t bucket[TABLE_BUCKETS];
	struct path_table paths;
	struct pool nodes, alternatives, neighbour_pool;
	struct slot *slot;
	uint32_t slot_mask, slots_used;
	uint64_t seed;
	struct family_state family[2];
	struct stale_list stale;
	uint64_t best_changes, failed, paths_exhausted;
	uint32_t since_collect;
};

/* ---- rib_table.c ---- */

void *pool_at(const struct pool *pool, uint32_t i);
int pool_reserve(struct pool *pool); /* -ENOMEM; after 0 the next take succeeds */
uint32_t pool_take(struct pool *pool);
void pool_give(struct pool *pool, uint32_t i);
uint64_t pool_bytes(const struct pool *pool);

static inline struct node *node_at(const struct rib *rib, uint32_t i)
{
	return pool_at(&rib->nodes, i);
}

static inline struct alternative *alternative_at(const struct rib *rib, uint32_t i)
{
	return pool_at(&rib->alternatives, i);
}

static inline struct neighbour *neighbour_at(const struct rib *rib, uint32_t i)
{
	return pool_at(&rib->neighbour_pool, i);
}

static inline struct family_state *family_of(struct rib *rib, uint8_t family)
{
	return &rib->family[family == FAMILY_IP6];
}

static inline const struct family_state *family_of_const(const struct rib *rib, uint8_t family)
{
	return &rib->family[family == FAMILY_IP6];
}

static inline unsigned host_len(uint8_t family)
{
	return family == FAMILY_IP4 ? 32 : 128;
}

int rib_table_init(struct rib *rib);
void rib_table_close(struct rib *rib);

bool prefix_is_valid(const struct prefix *prefix);
void prefix_truncate(struct prefix *prefix, unsigned len);
bool node_is_under(const struct node *node, const struct prefix *prefix);
struct prefix node_prefix(const struct node *node);
struct prefix prefix_host(uint8_t family, const uint8_t *addr);

uint32_t node_find(const struct rib *rib, const struct prefix *prefix);
uint32_t node_get(struct rib *rib, const struct prefix *prefix); /* finds or makes; NONE: no memory */
void node_free_if_empty(struct rib *rib, uint32_t id);

void lengths_add(struct lengths *lengths, unsigned len);
void lengths_remove(struct lengths *lengths, unsigned len);
int lengths_at_most(const struct lengths *lengths, int len); /* the next one down, -1: none */

/* Sorts alternatives of one prefix: local, main, then the other tables; metric; tos. */
int alternative_compare(const struct alternative *alternative, const struct route *route);
/* The link to the first alternative of the route's identity (in_group tells), or to where it would be. */
uint32_t *group_begin(struct rib *rib, struct node *node, const struct route *route);
bool in_group(const struct rib *rib, uint32_t alternative, const struct route *route);
uint32_t *group_end(struct rib *rib, uint32_t *link, const struct route *route);
/* Recomputes NODE_LOCAL, NODE_MAIN and NODE_OTHER after the list changed, with what counts them. */
void node_tables_update(struct rib *rib, struct node *node);

/* ---- rib.c ---- */

/* What a route's path is to the RIB: an index, with a use counted (when `hold`), and part of its hash.
 * index NONE: no such path (only when not held). */
struct path_use {
	uint32_t index;
	uint32_t content;
	const struct path *path; /* canonical */
};
int rib_path_use(struct rib *rib, const struct path *path, bool hold, struct path_use *use);
int rib_route_check(const struct route *route, const struct path *path);
bool path_has_gateways(const struct path *path);
bool alternative_is(const struct alternative *alternative, uint8_t family, const struct route *route,
		    const struct path_use *use);
/* Two of one identity (IPv6): would one message tell both? */
bool alternatives_are_siblings(const struct rib *rib, const struct alternative *a, const struct alternative *b);
bool alternative_upgrade(struct alternative *alternative, const struct path_use *use);
uint32_t alternative_insert(struct rib *rib, struct node *node, uint32_t *link, const struct route *route,
			    const struct path_use *use);
void alternative_remove(struct rib *rib, struct node *node, uint32_t *link);

void rib_route_of(const struct rib *rib, const struct node *node, uint32_t alternative, struct route *out);

/* ---- rib_show.c ---- */

uint32_t section_begin(const struct rib *rib, const struct node *node, uint32_t table);
/* What the alternatives of one table and prefix come to, `alternative` being the first (rule 2; suppressed: the prefix
 * is shorter than the FIB's shortest). */
uint32_t section_index(const struct rib *rib, uint8_t family, uint32_t alternative, bool suppressed);
bool node_is_below_local(const struct rib *rib, const struct node *node);
/* The alternative that decides what the FIB shows for the prefix (rules 1 and 2), NONE: nothing is shown. */
uint32_t node_decider(const struct rib *rib, const struct node *node);
uint32_t node_base(const struct rib *rib, const struct node *node);
/* The longest match for a host by rules 1 and 2. NONE: nothing. */
uint32_t rib_cover(const struct rib *rib, const struct prefix *host);
/* Rule 3 with what `cover` shows, NONE: nothing. */
bool neighbour_is_shown(const struct rib *rib, const struct neighbour *neighbour, uint8_t family, uint32_t cover_index,
			struct path *path);
/* The path leads to a known neighbour itself, which does not count as its user. */
bool neighbour_is_uncounted(const struct rib *rib, uint32_t path_id);
uint32_t neighbours_from(const struct rib *rib, const struct prefix *prefix, uint32_t ifindex);
bool neighbour_is_under(const struct rib *rib, uint32_t position, const struct prefix *prefix);

/* Brings the FIB up to date for one prefix; may free the node. */
void node_refresh(struct rib *rib, uint32_t id);
/* … for a prefix whose alternatives of `table` changed, and all that depends on it, table FIBs included. */
void node_changed(struct rib *rib, uint32_t id, uint32_t table, unsigned flags_before);
/* … for the merged FIB alone. */
void node_changed_merged(struct rib *rib, uint32_t id, unsigned flags_before);
void stale_add(struct rib *rib, uint32_t id, unsigned flag); /* NODE_STALE or NODE_BEHIND */
void neighbours_refresh(struct rib *rib, const struct prefix *prefix, bool all);
void rib_retry(struct rib *rib, uint32_t at_most);

/* ---- rib_fibs.c ---- */

/* Bring up to date for one prefix: the FIBs of one table, its alternatives having changed; all of them, for a host
 * whose neighbours changed; all of them after a refusal. None frees the node. */
void tables_changed(struct rib *rib, uint32_t id, uint32_t table);
void tables_host_changed(struct rib *rib, uint32_t id);
void tables_mend(struct rib *rib, uint32_t id);
/* A dump told an alternative of the table: shows the change at once, or leaves a mark for node_sweep. */
void tables_told(struct rib *rib, uint32_t id, uint32_t table, bool changed);
void tables_collect(struct rib *rib);

#endif
