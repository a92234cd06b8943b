/* What the merged FIB shows: rules 1 to 3 of rib.h, and keeping it equal to them. Called by rib.c, rib_dump.c and
 * rib_neighbour.c after the routes changed. The table FIBs have rule 2 from here, and their own file, rib_fibs.c.
 *
 * Invariant: unless NODE_STALE or NODE_DIRTY is set, node->shown is what the rules say, and the FIB holds exactly
 * that. Rules are always computed from the routes, never from what is shown elsewhere, so the order in which
 * prefixes are refreshed does not matter.
 */
#include <errno.h>
#include <stdlib.h>

#include "fib/rib_private.h"

#define COLLECT_EVERY 64u /* FIB updates: bounds what a long batch leaves waiting for readers */

uint32_t section_begin(const struct rib *rib, const struct node *node, uint32_t table)
{
	const struct route first = {.table = table};
	uint32_t i = node->first;

	while (i != NONE && alternative_compare(alternative_at(rib, i), &first) < 0)
		i = alternative_at(rib, i)->next;
	return i != NONE && alternative_at(rib, i)->table == table ? i : NONE;
}

/* fib_rules_lookup suppresses what a lookup found, not its refusals (fib_props[].error, dst.error). */
static uint32_t alternative_index(const struct alternative *a, bool suppressed)
{
	if (suppressed && a->type != ROUTE_BLACKHOLE && a->type != ROUTE_UNREACHABLE && a->type != ROUTE_PROHIBIT)
		return ADJ_NO_ROUTE;
	return a->path;
}

uint32_t section_index(const struct rib *rib, uint8_t family, uint32_t alternative, bool suppressed)
{
	const struct alternative *first = alternative_at(rib, alternative);
	uint32_t shown = alternative_index(first, suppressed), index = shown;

	for (uint32_t i = alternative; i != NONE; i = alternative_at(rib, i)->next) {
		const struct alternative *a = alternative_at(rib, i);

		if (a->table != first->table)
			break;
		if (a->tos != 0 || a->source_len != 0)
			return ADJ_KERNEL;
		/* fib6_select_path: among equal ones that are no siblings the kernel chooses by reachability. */
		if (family == FAMILY_IP6 && a->metric == first->metric &&
		    alternative_index(a, suppressed) != shown)
			index = ADJ_KERNEL;
	}
	return index;
}

static uint32_t longest_match(const struct rib *rib, const struct lengths *lengths, unsigned flag,
			      const struct prefix *prefix, int len)
{
	struct prefix candidate = *prefix;

	for (len = lengths_at_most(lengths, len); len >= 0; len = lengths_at_most(lengths, len - 1)) {
		uint32_t id;

		prefix_truncate(&candidate, (unsigned)len);
		id = node_find(rib, &candidate);
		if (id != NONE && (node_at(rib, id)->flags & flag))
			return id;
	}
	return NONE;
}

/* Is there a shorter prefix of local? */
bool node_is_below_local(const struct rib *rib, const struct node *node)
{
	struct prefix prefix = node_prefix(node);
	const struct lengths *local = &family_of_const(rib, node->family)->local;

	return longest_match(rib, local, NODE_LOCAL, &prefix, node->len - 1) != NONE;
}

uint32_t node_decider(const struct rib *rib, const struct node *node)
{
	if (node->flags & NODE_LOCAL)
		return node->first;
	if (!(node->flags & NODE_MAIN) || (node->family == FAMILY_IP6 && node_is_below_local(rib, node)))
		return NONE;
	return node->first; /* without local, main is what the list begins with */
}

uint32_t node_base(const struct rib *rib, const struct node *node)
{
	uint32_t decider = node_decider(rib, node), index;

	if (decider == NONE)
		return NONE;
	/* Only the kernel knows whether its IPv4 tables are one trie still (fib_unmerge). IPv6 was decided above. */
	if (!(node->flags & NODE_LOCAL) && node_is_below_local(rib, node))
		return ADJ_KERNEL;
	index = section_index(rib, node->family, decider, false);
	/* Out of local a throw falls into main: ask who knows both. Out of main, into the next rule. */
	return index == ADJ_NO_ROUTE && (node->flags & NODE_LOCAL) ? ADJ_KERNEL : index;
}

uint32_t rib_cover(const struct rib *rib, const struct prefix *host)
{
	const struct family_state *state = family_of_const(rib, host->family);
	uint32_t local = longest_match(rib, &state->local, NODE_LOCAL, host, host->len), main;

	if (local != NONE && host->family == FAMILY_IP6)
		return local;
	main = longest_match(rib, &state->main, NODE_MAIN, host, host->len);
	if (local != NONE && (main == NONE || node_at(rib, main)->len <= node_at(rib, local)->len))
		return local;
	return main;
}

/* ---- the FIB kept equal ---- */

/* The list is for the next try soon; should it find no memory, a dump's end still finds the flag. */
void stale_add(struct rib *rib, uint32_t id, unsigned flag)
{
	struct stale_list *stale = &rib->stale;
	struct node *node = node_at(rib, id);
	bool listed = (node->flags & (NODE_STALE | NODE_BEHIND)) != 0;

	node->flags |= (uint8_t)flag;
	if (listed)
		return;
	if (stale->n == stale->room) {
		uint32_t room = stale->room ? 2 * stale->room : 64;
		uint32_t *more = realloc(stale->node, room * sizeof(*more));

		if (more == NULL) {
			stale->lost = true;
			return;
		}
		stale->node = more;
		stale->room = room;
	}
	stale->node[stale->n++] = id;
}

static void node_put(struct rib *rib, uint32_t id, uint32_t target)
{
	struct node *node = node_at(rib, id);
	struct prefix prefix = node_prefix(node);
	uint32_t before = node->shown;
	int result;

	if (target == before) {
		node->flags &= (uint8_t)~NODE_STALE;
		return;
	}
	result = target == NONE ? fib_remove(rib->fib, &prefix) : fib_insert(rib->fib, &prefix, target);
	if (result < 0 && !(target == NONE && result == -ENOENT)) {
		rib->failed++;
		stale_add(rib, id, NODE_STALE);
		return;
	}
	node->flags &= (uint8_t)~NODE_STALE;
	node->shown = target;
	path_show(&rib->paths, target);
	path_unshow(&rib->paths, before); /* last: nothing can look it up any more */
	rib->best_changes++;
	if (++rib->since_collect >= COLLECT_EVERY) {
		rib->since_collect = 0;
		fib_collect(rib->fib);
	}
}

/* Rule 3 for the one or more neighbours (on different interfaces) that have this node's address. */
static void host_refresh(struct rib *rib, uint32_t id, uint32_t target)
{
	struct prefix host = node_prefix(node_at(rib, id));
	const uint32_t *sorted = family_of(rib, host.family)->neighbours.sorted;
	uint32_t cover = rib_cover(rib, &host);
	uint32_t cover_index = cover == NONE ? NONE : node_base(rib, node_at(rib, cover));
	uint32_t begin = neighbours_from(rib, &host, 0), winner = NONE;

	for (uint32_t i = begin; neighbour_is_under(rib, i, &host); i++) {
		struct neighbour *neighbour = neighbour_at(rib, sorted[i]);
		struct path path;
		int64_t path_id;

		neighbour->cover_len = cover == NONE ? -1 : (int32_t)node_at(rib, cover)->len;
		if (winner != NONE || !neighbour_is_shown(rib, neighbour, host.family, cover_index, &path))
			continue;
		path_id = path_intern(&rib->paths, &path);
		if (path_id < 0) { /* its packets take the connected route: slower, not wrong */
			rib->paths_exhausted++;
			continue;
		}
		winner = i;
		target = (uint32_t)path_id;
	}
	node_put(rib, id, target);
	for (uint32_t i = begin; neighbour_is_under(rib, i, &host); i++) {
		struct neighbour *neighbour = neighbour_at(rib, sorted[i]);
		uint32_t before = neighbour->path;

		neighbour->path = i == winner ? target : NONE;
		path_unuse(&rib->paths, before);
	}
}

void node_refresh(struct rib *rib, uint32_t id)
{
	struct node *node = node_at(rib, id);
	uint32_t base = node_base(rib, node);

	if (node->flags & NODE_NEIGHBOUR)
		host_refresh(rib, id, base);
	else
		node_put(rib, id, base);
	node_free_if_empty(rib, id);
}

/* Neighbours whose longest match may be another since something changed at `prefix`: those matched by something
 * longer are not concerned. */
void neighbours_refresh(struct rib *rib, const struct prefix *prefix, bool all)
{
	const struct neighbours *neighbours = &family_of(rib, prefix->family)->neighbours;

	if (neighbours->n == 0)
		return;
	for (uint32_t i = neighbours_from(rib, prefix, 0); neighbour_is_under(rib, i, prefix); i++) {
		const struct neighbour *neighbour = neighbour_at(rib, neighbours->sorted[i]);

		if (all || neighbour->cover_len <= prefix->len)
			node_refresh(rib, neighbour->node);
	}
}

static void nodes_under_refresh(struct rib *rib, const struct prefix *prefix)
{
	for (uint32_t i = 0; i < rib->nodes.used; i++)
		if (node_is_under(node_at(rib, i), prefix))
			node_refresh(rib, i);
}

void node_changed_merged(struct rib *rib, uint32_t id, unsigned flags_before)
{
	const struct node *node = node_at(rib, id);
	struct prefix prefix = node_prefix(node);
	bool local_moved = ((node->flags ^ flags_before) & NODE_LOCAL) && node->len < host_len(node->family);

	node_refresh(rib, id);
	/* What main has under it appears or hides. Rare (127/8, ff00::/8): a scan, some 10 ms for a million. */
	if (local_moved)
		nodes_under_refresh(rib, &prefix);
	neighbours_refresh(rib, &prefix, local_moved);
}

void node_changed(struct rib *rib, uint32_t id, uint32_t table, unsigned flags_before)
{
	tables_changed(rib, id, table); /* first: the other may free the node */
	node_changed_merged(rib, id, flags_before);
}

/* In turn, so that one prefix that never fits does not keep the others waiting. */
void rib_retry(struct rib *rib, uint32_t at_most)
{
	struct stale_list *stale = &rib->stale;

	for (; at_most > 0 && stale->n > 0; at_most--) {
		uint32_t place = stale->next++ % stale->n;
		uint32_t id = stale->node[place];
		struct node *node = node_at(rib, id);

		stale->node[place] = stale->node[--stale->n];
		if (node->family == 0 || !(node->flags & (NODE_STALE | NODE_BEHIND)))
			continue; /* mended or gone since */
		node->flags &= (uint8_t)~NODE_STALE;
		tables_mend(rib, id);
		node_refresh(rib, id);
	}
}
