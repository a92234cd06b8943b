/* The interned paths: equal content, one id; id = index into the adjacency table. The RIB's own room inside.
 *
 * A path lives while a route or neighbour uses it, or the FIB shows it (two counts, since a FIB that refused an
 * update may go on showing what no route uses any more). Its id is given again only after every worker has passed a
 * quiescent point: a burst in flight may still hold the index.
 */
#ifndef IXROUTE_FIB_PATH_H
#define IXROUTE_FIB_PATH_H

#include "fib/rib.h"

#define NO_PATH UINT32_MAX /* also: nothing shown, end of a list */

struct path_slot {
	struct path *path;   /* NULL: unused, or retired and waiting for readers */
	uint64_t retired_at; /* epoch */
	uint32_t hash;
	uint32_t users;	       /* alternatives and neighbours */
	uint32_t shown;	       /* FIB entries */
	uint32_t next_retired; /* also links the free ids */
	uint32_t next_new;
	uint32_t queued; /* 1: in the list of new paths; may outlive the path */
};

struct path_table {
	struct epoch *epoch;
	struct adjacency_table *adjacencies;
	uint8_t new_action;
	uint32_t limit; /* ids are below this */
	uint32_t used;	/* ids ever given are below this */
	uint32_t live;
	uint32_t capacity; /* of slot */
	struct path_slot *slot;
	uint32_t *bucket; /* open addressing: ids, NO_PATH is empty */
	uint32_t bucket_mask;
	uint32_t retired_first, retired_last, free_first;
	uint32_t new_first, new_last;
	uint64_t path_bytes;
};

int path_table_init(struct path_table *table, struct epoch *epoch, struct adjacency_table *adjacencies,
		    uint8_t new_action, uint32_t limit);
void path_table_close(struct path_table *table);

/* The form in which equal paths have equal bytes: `path` itself, or a copy in `scratch`. */
const struct path *path_canonical(const struct path *path, struct path *scratch);
uint32_t path_hash(const struct path *path);

/* All take canonical paths. intern: the id, with one use counted, or -ENOMEM, or -ENOSPC: no id is left. */
int64_t path_intern(struct path_table *table, const struct path *path);
uint32_t path_find(const struct path_table *table, const struct path *path);

/* Reserved indexes and NO_PATH are not counted: all four may be called with any index. */
void path_use(struct path_table *table, uint32_t id);
void path_unuse(struct path_table *table, uint32_t id);
void path_show(struct path_table *table, uint32_t id);
void path_unshow(struct path_table *table, uint32_t id);

const struct path *path_get(const struct path_table *table, uint32_t id);
unsigned path_take_new(struct path_table *table, uint32_t *ids, unsigned n);
uint64_t path_table_bytes(const struct path_table *table);

#endif
