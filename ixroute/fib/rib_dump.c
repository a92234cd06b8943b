/* A dump applied as a difference: mark and sweep over the alternatives (rib.h). Called by the netlink stream.
 *
 * While it runs the told alternatives of an identity come first, in the order told; the others follow in their old
 * order. What packets see must not change for a route that is merely told later, so a prefix that changed is shown
 * at once only when all of its alternatives were told (always, in an empty RIB), else at the end (NODE_DIRTY).
 */
#include <errno.h>

#include "fib/rib_private.h"

void rib_dump_begin(struct rib *rib, uint8_t family)
{
	struct family_state *state = family_of(rib, family);

	if (state->dumping)
		rib_dump_abort(rib, family);
	state->dumping = true;
	state->local_moved = false;
	state->differences = 0;
}

static uint32_t *told_end(struct rib *rib, struct node *node, const struct route *route)
{
	uint32_t *link = group_begin(rib, node, route), *end = link;

	for (; in_group(rib, *link, route); link = &alternative_at(rib, *link)->next)
		if (alternative_at(rib, *link)->flags & ALT_TOLD)
			end = &alternative_at(rib, *link)->next;
	return end;
}

static uint32_t *untold_find(struct rib *rib, struct node *node, const struct route *route,
			     const struct path_use *use)
{
	uint32_t *link = group_begin(rib, node, route);

	for (; in_group(rib, *link, route); link = &alternative_at(rib, *link)->next) {
		const struct alternative *a = alternative_at(rib, *link);

		if (!(a->flags & ALT_TOLD) && alternative_is(a, node->family, route, use))
			return link;
	}
	return NULL;
}

/* Marks what is between as passed: if those are told later they moved, if never they are gone, and count as that. */
static bool tell_known(struct rib *rib, struct node *node, const struct route *route, uint32_t *link)
{
	uint32_t *to = told_end(rib, node, route), *passed;
	uint32_t i = *link;
	struct alternative *a = alternative_at(rib, i);
	bool moved = to != link;

	if (a->flags & ALT_PASSED)
		family_of(rib, node->family)->differences++;
	a->flags = (a->flags & (ALT_GATEWAY | ALT_CHANGED)) | ALT_TOLD;
	if (!moved)
		return false;
	for (passed = to; passed != link; passed = &alternative_at(rib, *passed)->next)
		alternative_at(rib, *passed)->flags |= ALT_PASSED;
	*link = a->next;
	a->next = *to;
	*to = i;
	return true;
}

static bool all_told(const struct rib *rib, const struct node *node)
{
	for (uint32_t i = node->first; i != NONE; i = alternative_at(rib, i)->next)
		if (!(alternative_at(rib, i)->flags & ALT_TOLD))
			return false;
	return true;
}

static void told(struct rib *rib, uint32_t id, uint32_t table, bool changed)
{
	struct node *node = node_at(rib, id);
	struct family_state *state = family_of(rib, node->family);
	unsigned before = node->flags;

	if (changed)
		node_tables_update(rib, node);
	tables_told(rib, id, table, changed);
	if (!changed && !(node->flags & NODE_DIRTY))
		return;
	if (all_told(rib, node)) {
		node->flags &= (uint8_t)~NODE_DIRTY;
		node_changed_merged(rib, id, before);
		return;
	}
	node->flags |= NODE_DIRTY;
	if (((node->flags ^ before) & NODE_LOCAL) && node->len < host_len(node->family))
		state->local_moved = true;
}

int rib_dumped(struct rib *rib, const struct route *route, const struct path *path)
{
	struct path scratch;
	struct path_use use;
	struct node *node;
	uint32_t id, *known;
	bool changed;

	if (path == NULL || rib_route_check(route, path) < 0)
		return -EINVAL;
	if (!family_of(rib, route->prefix.family)->dumping)
		return rib_add(rib, route, path, RIB_APPEND);
	if (rib_path_use(rib, path_canonical(path, &scratch), true, &use) < 0)
		goto no_memory;
	if (pool_reserve(&rib->alternatives) < 0 || (id = node_get(rib, &route->prefix)) == NONE) {
		path_unuse(&rib->paths, use.index);
		goto no_memory;
	}
	node = node_at(rib, id);
	known = untold_find(rib, node, route, &use);
	if (known != NULL) {
		struct alternative *a = alternative_at(rib, *known);
		bool upgraded = alternative_upgrade(a, &use);

		if (!upgraded)
			path_unuse(&rib->paths, use.index);
		changed = tell_known(rib, node, route, known) || upgraded;
	} else {
		alternative_insert(rib, node, told_end(rib, node, route), route, &use);
		family_of(rib, node->family)->differences++;
		changed = true;
	}
	told(rib, id, route->table, changed);
	return 0;
no_memory:
	rib->failed++;
	return -ENOMEM;
}

/* Did `told` perhaps make the kernel pass over `a`? Of several siblings it dumps the first, with the others as legs,
 * and goes on behind the last of them, wherever that stands (fib6_dump_node): routes between that are equal in prefix
 * and metric, but are no siblings (no gateway, a nexthop object, another type), are in no dump and serve packets all the
 * same. If `a` is one of them, removing it would hide what only the kernel can decide; if it is gone and its
 * RTM_DELROUTE was lost, keeping it punts the prefix until the siblings are gone. What has no path of its own may have
 * had several legs. */
static bool passed_over(const struct rib *rib, const struct alternative *a, const struct alternative *told)
{
	const struct path *path = path_get(&rib->paths, told->path);
	bool several = path != NULL ? path->nhid == 0 && path->n_legs > 1 :
				      told->path == ADJ_KERNEL && (told->flags & ALT_GATEWAY);

	return several && !alternatives_are_siblings(rib, a, told);
}

static bool is_kept(const struct rib *rib, const struct node *node, const struct alternative *a)
{
	if (node->family != FAMILY_IP6)
		return false;
	for (uint32_t i = node->first; i != NONE; i = alternative_at(rib, i)->next) {
		const struct alternative *told = alternative_at(rib, i);

		if (told->table == a->table && told->metric == a->metric && told->source_len == a->source_len &&
		    told->other == a->other && (told->flags & ALT_TOLD) && passed_over(rib, a, told))
			return true;
	}
	return false;
}

/* Removes what was not told, if `remove`, and forgets the marks. True when something was removed. Table FIBs are
 * shown each section as soon as it is right; nothing in them depends on the other prefixes' lists. */
static bool node_sweep(struct rib *rib, uint32_t id, bool remove)
{
	struct node *node = node_at(rib, id);
	struct family_state *state = family_of(rib, node->family);
	bool removed = false, changed = false; /* anything; the section */

	for (uint32_t *link = &node->first; *link != NONE;) {
		struct alternative *a = alternative_at(rib, *link);
		uint32_t table = a->table;

		changed |= (a->flags & ALT_CHANGED) != 0;
		if (remove && !(a->flags & ALT_TOLD) && !is_kept(rib, node, a)) {
			alternative_remove(rib, node, link);
			state->differences++;
			removed = changed = true;
		} else {
			link = &a->next; /* with its marks: they decide who behind it is kept */
		}
		if (changed && (*link == NONE || alternative_at(rib, *link)->table != table)) {
			changed = false;
			tables_changed(rib, id, table);
		}
	}
	for (uint32_t i = node->first; i != NONE; i = alternative_at(rib, i)->next)
		alternative_at(rib, i)->flags &= ALT_GATEWAY;
	return removed;
}

static void sweep(struct rib *rib, uint8_t family, bool remove)
{
	struct family_state *state = family_of(rib, family);

	for (uint32_t i = 0; i < rib->nodes.used; i++) {
		struct node *node = node_at(rib, i);
		unsigned before = node->flags;

		if (node->family != family || !node_sweep(rib, i, remove))
			continue;
		node_tables_update(rib, node);
		node->flags |= NODE_DIRTY;
		if (((node->flags ^ before) & NODE_LOCAL) && node->len < host_len(family))
			state->local_moved = true;
	}
}

/* All lists are right now: show them. */
static void show_changed(struct rib *rib, uint8_t family)
{
	bool all = family_of(rib, family)->local_moved;
	bool stale = rib->stale.lost;

	rib->stale.lost = false;
	for (uint32_t i = 0; i < rib->nodes.used; i++) {
		struct node *node = node_at(rib, i);
		struct prefix prefix = node_prefix(node);
		bool dirty = (node->flags & NODE_DIRTY) != 0;
		bool refused = (node->flags & (NODE_STALE | NODE_BEHIND)) != 0;

		if (node->family != family || !(dirty || all || (stale && refused)))
			continue;
		node->flags &= (uint8_t)~NODE_DIRTY;
		if (stale && refused) {
			node->flags &= (uint8_t)~NODE_STALE; /* the list may not have it: as if it were new there */
			tables_mend(rib, i);
		}
		node_refresh(rib, i);
		if (dirty && !all)
			neighbours_refresh(rib, &prefix, false);
	}
	if (all) {
		const struct prefix everything = {.family = family};

		neighbours_refresh(rib, &everything, true);
	}
}

static void dump_close(struct rib *rib, uint8_t family, bool remove)
{
	struct family_state *state = family_of(rib, family);

	if (!state->dumping)
		return;
	state->dumping = false;
	sweep(rib, family, remove);
	show_changed(rib, family);
	rib_settle(rib);
}

uint64_t rib_dump_end(struct rib *rib, uint8_t family)
{
	struct family_state *state = family_of(rib, family);

	if (!state->dumping)
		return 0;
	dump_close(rib, family, true);
	return state->differences;
}

void rib_dump_abort(struct rib *rib, uint8_t family)
{
	dump_close(rib, family, false);
}
