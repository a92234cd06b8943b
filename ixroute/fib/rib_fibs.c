/* The FIBs of one table each (rib.h), kept equal to the routes. Called by rib_show.c, rib_dump.c and rib_neighbour.c
 * after the routes or neighbours changed; by Python, which makes them.
 *
 * Nothing is remembered beside the FIB: what it shows for a prefix is asked of the FIB itself, and so is which
 * route covers a neighbour. A prefix that a FIB refused is thus simply not in it, nothing depends on it, and putting
 * it there later does what putting it there now would have done.
 *
 * Invariant: unless NODE_BEHIND is set, each of these FIBs holds for the node's prefix what the rules say.
 */
#include <errno.h>
#include <stdlib.h>

#include "fib/rib_private.h"

#define COLLECT_EVERY 64u /* FIB updates: bounds what a long batch leaves waiting for readers */
#define SHORTEST_MAX 129u

static struct table_fib *fibs_of(const struct rib *rib, uint32_t table)
{
	uint16_t first = rib->table_fibs == 0 ? NO_FIB : rib->bucket[table % TABLE_BUCKETS];

	return first == NO_FIB ? NULL : &rib->table_fib[first];
}

static struct table_fib *fib_after(const struct rib *rib, const struct table_fib *to)
{
	return to->next == NO_FIB ? NULL : &rib->table_fib[to->next];
}

/* ---- one prefix in one FIB ---- */

/* True when it shows something else now. */
static bool table_put(struct rib *rib, struct table_fib *to, uint32_t id, const struct prefix *prefix, uint32_t target)
{
	uint32_t before;
	int result;

	if (!fib_get(to->fib, prefix, &before))
		before = NONE;
	if (before == target)
		return false;
	result = target == NONE ? fib_remove(to->fib, prefix) : fib_insert(to->fib, prefix, target);
	if (result < 0) {
		rib->failed++;
		stale_add(rib, id, NODE_BEHIND);
		return false;
	}
	path_show(&rib->paths, target);
	path_unshow(&rib->paths, before); /* last: nothing can look it up any more */
	rib->best_changes++;
	if (++to->since_collect >= COLLECT_EVERY) {
		to->since_collect = 0;
		fib_collect(to->fib);
	}
	return true;
}

/* Rule 3 for the neighbours that have this host's address: a path with one use counted, or NONE. */
static uint32_t host_path(struct rib *rib, const struct table_fib *to, const struct prefix *host, uint32_t own)
{
	const struct neighbours *neighbours = &family_of(rib, host->family)->neighbours;
	uint32_t cover = own;
	struct prefix match;

	if (own == NONE && !fib_match_at_most(to->fib, host->family, host->addr, host->len - 1u, &match, &cover))
		return NONE;
	for (uint32_t i = neighbours_from(rib, host, 0); neighbour_is_under(rib, i, host); i++) {
		const struct neighbour *neighbour = neighbour_at(rib, neighbours->sorted[i]);
		struct path path;
		int64_t id;

		if (!neighbour_is_shown(rib, neighbour, host->family, cover, &path))
			continue;
		id = path_intern(&rib->paths, &path);
		if (id >= 0)
			return (uint32_t)id;
		rib->paths_exhausted++; /* its packets take the connected route: slower, not wrong */
	}
	return NONE;
}

static bool table_refresh(struct rib *rib, struct table_fib *to, uint32_t id)
{
	const struct node *node = node_at(rib, id);
	struct prefix prefix = node_prefix(node);
	uint32_t first = section_begin(rib, node, to->table), target = NONE, path = NONE;
	bool moved;

	if (first != NONE)
		target = section_index(rib, node->family, first, node->len < to->shortest);
	if (node->flags & NODE_NEIGHBOUR)
		path = host_path(rib, to, &prefix, target);
	moved = table_put(rib, to, id, &prefix, path != NONE ? path : target);
	path_unuse(&rib->paths, path); /* what the FIB shows stays without users */
	return moved;
}

/* Neighbours whose longest match may be another since the FIB changed at `prefix`: those matched by something longer
 * are not concerned. */
static void hosts_refresh(struct rib *rib, struct table_fib *to, const struct prefix *prefix)
{
	const struct neighbours *neighbours = &family_of(rib, prefix->family)->neighbours;
	unsigned at_most = host_len(prefix->family) - 1;

	if (neighbours->n == 0 || prefix->len > at_most)
		return;
	for (uint32_t i = neighbours_from(rib, prefix, 0); neighbour_is_under(rib, i, prefix); i++) {
		const struct neighbour *neighbour = neighbour_at(rib, neighbours->sorted[i]);
		struct prefix match;
		uint32_t index;

		if (fib_match_at_most(to->fib, prefix->family, neighbour->addr, at_most, &match, &index) &&
		    match.len > prefix->len)
			continue;
		table_refresh(rib, to, neighbour->node);
	}
}

static void table_changed(struct rib *rib, struct table_fib *to, uint32_t id)
{
	struct prefix prefix = node_prefix(node_at(rib, id));

	if (table_refresh(rib, to, id))
		hosts_refresh(rib, to, &prefix);
}

/* ---- one prefix in several ---- */

void tables_changed(struct rib *rib, uint32_t id, uint32_t table)
{
	for (struct table_fib *to = fibs_of(rib, table); to != NULL; to = fib_after(rib, to))
		if (to->table == table)
			table_changed(rib, to, id);
}

void tables_host_changed(struct rib *rib, uint32_t id)
{
	for (unsigned i = 0; i < rib->table_fibs; i++)
		table_refresh(rib, &rib->table_fib[i], id);
}

void tables_mend(struct rib *rib, uint32_t id)
{
	struct node *node = node_at(rib, id);

	if (!(node->flags & NODE_BEHIND))
		return;
	node->flags &= (uint8_t)~NODE_BEHIND;
	for (unsigned i = 0; i < rib->table_fibs; i++)
		table_changed(rib, &rib->table_fib[i], id);
}

static bool table_has_fib(const struct rib *rib, uint32_t table)
{
	for (const struct table_fib *to = fibs_of(rib, table); to != NULL; to = fib_after(rib, to))
		if (to->table == table)
			return true;
	return false;
}

/* As for the merged FIB: packets must not see a change where a route is merely told later than another. So a section
 * is shown when all of it was told, else at the dump's end. */
void tables_told(struct rib *rib, uint32_t id, uint32_t table, bool changed)
{
	struct node *node = node_at(rib, id);
	uint32_t first, i;
	bool all = true;

	if (!table_has_fib(rib, table))
		return;
	first = section_begin(rib, node, table);
	for (i = first; i != NONE && alternative_at(rib, i)->table == table; i = alternative_at(rib, i)->next) {
		all &= (alternative_at(rib, i)->flags & ALT_TOLD) != 0;
		changed |= (alternative_at(rib, i)->flags & ALT_CHANGED) != 0;
	}
	if (!changed || first == NONE)
		return;
	if (!all) {
		alternative_at(rib, first)->flags |= ALT_CHANGED;
		return;
	}
	for (i = first; i != NONE && alternative_at(rib, i)->table == table; i = alternative_at(rib, i)->next)
		alternative_at(rib, i)->flags &= ~ALT_CHANGED & 0xfu;
	tables_changed(rib, id, table);
}

void tables_collect(struct rib *rib)
{
	for (unsigned i = 0; i < rib->table_fibs; i++) {
		rib->table_fib[i].since_collect = 0;
		fib_collect(rib->table_fib[i].fib);
	}
}

/* ---- making and asking ---- */

static struct table_fib *table_fib_find(const struct rib *rib, uint32_t table, unsigned shortest)
{
	for (struct table_fib *to = fibs_of(rib, table); to != NULL; to = fib_after(rib, to))
		if (to->table == table && to->shortest == shortest)
			return to;
	return NULL;
}

/* Prefixes that may have routes of the table, without a look at their lists: a million of main are no matter to the
 * FIB of a small table. */
static unsigned table_flag(uint32_t table)
{
	if (table == RIB_TABLE_LOCAL)
		return NODE_LOCAL;
	return table == RIB_TABLE_MAIN ? NODE_MAIN | NODE_LOCAL : NODE_OTHER;
}

int rib_show_table(struct rib *rib, uint32_t table, unsigned shortest, struct fib *fib)
{
	unsigned flag = table_flag(table);
	struct fib_stats stats;
	struct table_fib *to;

	fib_stats_read(fib, &stats);
	if (shortest > SHORTEST_MAX || fib_epoch(fib) != fib_epoch(rib->fib) || stats.prefixes4 + stats.prefixes6 != 0)
		return -EINVAL;
	if (table_fib_find(rib, table, shortest) != NULL)
		return -EEXIST;
	if (rib->table_fibs == RIB_FIBS_MAX - 1)
		return -ENOSPC;
	if (rib->table_fib == NULL) {
		rib->table_fib = calloc(RIB_FIBS_MAX - 1, sizeof(*rib->table_fib));
		if (rib->table_fib == NULL)
			return -ENOMEM;
		for (unsigned i = 0; i < TABLE_BUCKETS; i++)
			rib->bucket[i] = NO_FIB;
	}
	to = &rib->table_fib[rib->table_fibs];
	*to = (struct table_fib){.fib = fib, .table = table, .shortest = (uint8_t)shortest,
				 .next = rib->bucket[table % TABLE_BUCKETS]};
	rib->bucket[table % TABLE_BUCKETS] = (uint16_t)rib->table_fibs++;
	for (uint32_t i = 0; i < rib->nodes.used; i++) {
		const struct node *node = node_at(rib, i);

		if (node->family != 0 && (node->flags & flag))
			table_changed(rib, to, i); /* and the neighbours under it */
	}
	tables_collect(rib);
	return 0;
}

static bool is_a_neighbours(const struct node *node, uint32_t base, uint32_t index)
{
	return (node->flags & NODE_NEIGHBOUR) && index >= ADJ_RESERVED && index != base;
}

int rib_lookup_table(const struct rib *rib, uint32_t table, unsigned shortest, uint8_t family, const uint8_t *addr,
		     struct rib_answer *out)
{
	const struct table_fib *to = table_fib_find(rib, table, shortest);
	struct prefix prefix;
	uint32_t id, first, base = NONE, index;

	*out = (struct rib_answer){.index = ADJ_NO_ROUTE};
	if (to == NULL)
		return -ENOENT;
	if (!fib_match(to->fib, family, addr, &out->prefix, &out->index))
		return 0;
	out->found = 1;
	id = node_find(rib, &out->prefix);
	if (id == NONE)
		return 0;
	first = section_begin(rib, node_at(rib, id), table);
	if (first != NONE)
		base = section_index(rib, family, first, out->prefix.len < shortest);
	out->neighbour = is_a_neighbours(node_at(rib, id), base, out->index);
	if (out->neighbour && first == NONE &&
	    fib_match_at_most(to->fib, family, addr, out->prefix.len - 1u, &prefix, &index)) {
		id = node_find(rib, &prefix);
		first = id == NONE ? NONE : section_begin(rib, node_at(rib, id), table);
	}
	if (id == NONE)
		return 0;
	rib_route_of(rib, node_at(rib, id), first, &out->route);
	out->type = first == NONE ? 0 : (uint8_t)alternative_at(rib, first)->type;
	return 0;
}
