/* The RIB's front: how a told route changes the list of alternatives of its prefix. Called by the netlink stream
 * (a million times a second while a table loads) and by the mirror. rib_private.h shows how it is kept.
 *
 * A change is done in two steps: first the list, which either succeeds or leaves everything as it was; then what the
 * FIB shows (rib_show.c), which may be refused and is then tried again later.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fib/rib_private.h"

struct rib *rib_create(struct fib *fib, struct adjacency_table *adjacencies, uint8_t new_path_action)
{
	uint32_t limit = adjacencies->capacity;
	struct rib *rib = calloc(1, sizeof(*rib));

	if (rib == NULL)
		return NULL;
	if (limit > fib_max_index()) /* no id that the FIB could not hold */
		limit = fib_max_index() + 1;
	rib->fib = fib;
	if (rib_table_init(rib) < 0 ||
	    path_table_init(&rib->paths, fib_epoch(fib), adjacencies, new_path_action, limit) < 0) {
		rib_table_close(rib);
		free(rib);
		return NULL;
	}
	return rib;
}

void rib_destroy(struct rib *rib)
{
	if (rib == NULL)
		return;
	rib_table_close(rib);
	path_table_close(&rib->paths);
	free(rib->family[0].neighbours.sorted);
	free(rib->family[1].neighbours.sorted);
	free(rib->stale.node);
	free(rib->table_fib);
	free(rib);
}

/* ---- a route's path as the RIB sees it ---- */

int rib_route_check(const struct route *route, const struct path *path)
{
	if (!prefix_is_valid(&route->prefix))
		return -EINVAL;
	if (path == NULL)
		return 0;
	if (path->family != route->prefix.family || path->n_legs > PATH_MAX_LEGS)
		return -EINVAL;
	return path->type < ROUTE_UNICAST || path->type > ROUTE_THROW ? -EINVAL : 0;
}

static uint32_t unicast_index(const struct path *path)
{
	if (path->nhid != 0)
		return NONE;
	for (unsigned i = 0; i < path->n_legs; i++)
		if (path->leg[i].ifindex == 0)
			return ADJ_KERNEL;
	return path->n_legs == 0 ? ADJ_KERNEL : NONE;
}

/* The reserved index of a route that needs no path of its own, or NONE. */
static uint32_t reserved_index(const struct path *path)
{
	if (path->flags & PATH_KERNEL_ONLY)
		return ADJ_KERNEL;
	switch (path->type) {
	case ROUTE_UNICAST:
		return unicast_index(path);
	case ROUTE_BLACKHOLE: /* of a nexthop object: what it is may change without a word about the route */
		return path->nhid != 0 ? NONE : ADJ_BLACKHOLE;
	case ROUTE_LOCAL:
	case ROUTE_ANYCAST:
		return ADJ_LOCAL;
	case ROUTE_BROADCAST:
		return ADJ_BROADCAST;
	case ROUTE_MULTICAST:
		return ADJ_MULTICAST;
	case ROUTE_UNREACHABLE:
	case ROUTE_PROHIBIT:
		return ADJ_REJECT;
	case ROUTE_THROW: /* ask the next rule */
		return ADJ_NO_ROUTE;
	default:
		return ADJ_KERNEL;
	}
}

/* hold: an id is made where there is none and a use of it counted; -ENOMEM. path must be canonical. */
int rib_path_use(struct rib *rib, const struct path *path, bool hold, struct path_use *use)
{
	int64_t id;

	use->path = path;
	use->content = path_hash(path) & 0xffffff;
	use->index = reserved_index(path);
	if (use->index != NONE)
		return 0;
	if (!hold) {
		use->index = path_find(&rib->paths, path);
		return 0;
	}
	id = path_intern(&rib->paths, path);
	if (id == -ENOMEM)
		return -ENOMEM;
	if (id < 0)
		rib->paths_exhausted++;
	use->index = id < 0 ? ADJ_KERNEL : (uint32_t)id;
	return 0;
}

bool path_has_gateways(const struct path *path)
{
	if (path->type != ROUTE_UNICAST || path->nhid != 0)
		return false;
	for (unsigned i = 0; i < path->n_legs; i++)
		if (path->leg[i].gateway_family != 0)
			return true;
	return false;
}

/* ---- alternatives ---- */

/* Paths with an id are equal by it; others, and those that got none when ids were short, by content. */
static bool same_path(const struct alternative *a, const struct path_use *use)
{
	if (a->path == use->index && a->path >= ADJ_RESERVED)
		return true;
	return a->content == use->content && (a->path == use->index || a->path == ADJ_KERNEL);
}

/* A route whose path got no id is told again when there is one. True when it changed (and took over the use). */
bool alternative_upgrade(struct alternative *a, const struct path_use *use)
{
	if (a->path == use->index)
		return false;
	a->path = use->index; /* was ADJ_KERNEL: nothing to give back */
	return true;
}

/* IPv6 source routes of one destination lie in different subtrees of the kernel's tree. */
static bool same_source(const struct alternative *a, const struct route *route)
{
	return a->source_len == route->source_len && a->other == route->other;
}

/* Would the kernel call this the same route? fib_find_info compares protocol, scope and preferred source too;
 * rt6_duplicate_nexthop only the next hop. */
bool alternative_is(const struct alternative *a, uint8_t family, const struct route *route, const struct path_use *use)
{
	if (!same_path(a, use) || !same_source(a, route))
		return false;
	return family == FAMILY_IP6 || (a->protocol == route->protocol && a->scope == route->scope);
}

static void alternative_fill(struct alternative *a, const struct route *route, const struct path_use *use)
{
	a->table = route->table;
	a->metric = route->metric;
	a->path = use->index;
	a->content = use->content & 0xffffff;
	a->other = route->other;
	a->tos = route->tos;
	a->protocol = route->protocol;
	a->scope = route->scope;
	a->source_len = route->source_len;
	a->type = (unsigned)use->path->type & 0xf;
	a->flags = path_has_gateways(use->path) ? ALT_GATEWAY : 0;
}

/* The use counted in `use` is now the alternative's. pool_reserve must have succeeded. */
uint32_t alternative_insert(struct rib *rib, struct node *node, uint32_t *link, const struct route *route,
			    const struct path_use *use)
{
	struct family_state *state = family_of(rib, node->family);
	uint32_t i = pool_take(&rib->alternatives);
	struct alternative *a = alternative_at(rib, i);

	alternative_fill(a, route, use);
	if (state->dumping)
		a->flags |= ALT_TOLD; /* newer than the dump: not for its end to remove */
	a->next = *link;
	*link = i;
	state->routes++;
	return i;
}

void alternative_remove(struct rib *rib, struct node *node, uint32_t *link)
{
	uint32_t i = *link;
	uint32_t path = alternative_at(rib, i)->path;

	*link = alternative_at(rib, i)->next;
	pool_give(&rib->alternatives, i);
	path_unuse(&rib->paths, path);
	family_of(rib, node->family)->routes--;
}

static void alternative_replace(struct rib *rib, struct node *node, uint32_t i, const struct route *route,
				const struct path_use *use)
{
	struct alternative *a = alternative_at(rib, i);
	uint32_t path = a->path;

	alternative_fill(a, route, use);
	if (family_of(rib, node->family)->dumping)
		a->flags |= ALT_TOLD;
	path_unuse(&rib->paths, path);
}

static uint32_t *group_find(struct rib *rib, struct node *node, const struct route *route, const struct path_use *use)
{
	uint32_t *link = group_begin(rib, node, route);

	for (; in_group(rib, *link, route); link = &alternative_at(rib, *link)->next)
		if (alternative_is(alternative_at(rib, *link), node->family, route, use))
			return link;
	return NULL;
}

/* fib_table_insert. True when the list changed (and took over the use). */
static bool ip4_add(struct rib *rib, struct node *node, const struct route *route, const struct path_use *use,
		    enum rib_how how)
{
	uint32_t *link = group_begin(rib, node, route), *equal = group_find(rib, node, route, use);

	/* Nor does the kernel replace a route by what is there already (EEXIST). It says "replaced" of every route of a
	 * nexthop object that changed, though (nexthop_compat_mode), wherever the route stands among its equals. */
	if (equal != NULL)
		return alternative_upgrade(alternative_at(rib, *equal), use);
	if (how == RIB_REPLACE && in_group(rib, *link, route)) {
		alternative_replace(rib, node, *link, route, use);
		return true;
	}
	if (how == RIB_APPEND)
		link = group_end(rib, link, route);
	alternative_insert(rib, node, link, route, use);
	return true;
}

/* ---- IPv6: siblings ---- */

static bool legs_meet(const struct path *a, const struct path *b)
{
	for (unsigned i = 0; i < a->n_legs; i++)
		for (unsigned j = 0; j < b->n_legs; j++)
			if (a->leg[i].ifindex == b->leg[j].ifindex &&
			    memcmp(a->leg[i].gateway, b->leg[j].gateway, sizeof(a->leg[i].gateway)) == 0)
				return true;
	return false;
}

#define PROTOCOL_RA 9 /* RTPROT_RA */

/* A message tells the whole set of siblings, so it takes the place of what the RIB holds of that set. All equal
 * routes with gateways are siblings, but for those the kernel learnt from router advertisements
 * (rt6_qualify_for_ecmp), which are only recognised by sharing a leg. */
static bool is_told_by(const struct rib *rib, const struct alternative *a, const struct route *route,
		       const struct path *path)
{
	const struct path *known = path_get(&rib->paths, a->path);

	if (!(a->flags & ALT_GATEWAY) || !same_source(a, route) || !path_has_gateways(path))
		return false;
	if (a->protocol != PROTOCOL_RA && route->protocol != PROTOCOL_RA)
		return true;
	return known != NULL && legs_meet(known, path);
}

bool alternatives_are_siblings(const struct rib *rib, const struct alternative *a, const struct alternative *b)
{
	const struct path *path_a = path_get(&rib->paths, a->path), *path_b = path_get(&rib->paths, b->path);

	if (!(a->flags & b->flags & ALT_GATEWAY))
		return false;
	if (a->protocol != PROTOCOL_RA && b->protocol != PROTOCOL_RA)
		return true;
	return path_a != NULL && path_b != NULL && legs_meet(path_a, path_b);
}

/* fib6_add_rt2node with NLM_F_REPLACE: the first of the same kind (with gateway or not), else the first. */
static uint32_t *ip6_replaced(struct rib *rib, struct node *node, const struct route *route, const struct path *path)
{
	unsigned kind = path_has_gateways(path) ? ALT_GATEWAY : 0;
	uint32_t *link = group_begin(rib, node, route), *first = NULL;

	for (; in_group(rib, *link, route); link = &alternative_at(rib, *link)->next) {
		const struct alternative *a = alternative_at(rib, *link);

		if (!same_source(a, route))
			continue;
		if ((a->flags & ALT_GATEWAY) == kind)
			return link;
		if (first == NULL)
			first = link;
	}
	return first;
}

static uint32_t *ip6_told(struct rib *rib, struct node *node, const struct route *route, const struct path *path)
{
	uint32_t *link = group_begin(rib, node, route);

	for (; in_group(rib, *link, route); link = &alternative_at(rib, *link)->next)
		if (is_told_by(rib, alternative_at(rib, *link), route, path))
			return link;
	return NULL;
}

/* Removes what the route at `keep` stands for as well: its equals, and the rest of its set of siblings. */
static void ip6_collapse(struct rib *rib, struct node *node, uint32_t keep, const struct route *route,
			 const struct path_use *use)
{
	uint32_t *link = group_begin(rib, node, route);

	while (in_group(rib, *link, route)) {
		const struct alternative *a = alternative_at(rib, *link);

		if (*link != keep && (alternative_is(a, FAMILY_IP6, route, use) ||
				      is_told_by(rib, a, route, use->path)))
			alternative_remove(rib, node, link);
		else
			link = &alternative_at(rib, *link)->next;
	}
}

static bool ip6_add(struct rib *rib, struct node *node, const struct route *route, const struct path_use *use,
		    enum rib_how how)
{
	uint32_t *equal = group_find(rib, node, route, use);
	uint32_t *instead = how == RIB_REPLACE ? ip6_replaced(rib, node, route, use->path) :
						 ip6_told(rib, node, route, use->path);
	uint32_t keep;

	if (equal != NULL && (how != RIB_REPLACE || equal == instead))
		return alternative_upgrade(alternative_at(rib, *equal), use);
	if (instead == NULL) {
		alternative_insert(rib, node, group_end(rib, group_begin(rib, node, route), route), route, use);
		return true;
	}
	keep = *instead;
	alternative_replace(rib, node, keep, route, use);
	ip6_collapse(rib, node, keep, route, use);
	return true;
}

static bool leg_is_in(const struct next_hop *leg, const struct path *path)
{
	for (unsigned i = 0; i < path->n_legs; i++)
		if (path->leg[i].ifindex == leg->ifindex &&
		    memcmp(path->leg[i].gateway, leg->gateway, sizeof(leg->gateway)) == 0)
			return true;
	return false;
}

/* Weights do not count: RTM_DELROUTE of one leg has none. */
static bool legs_are_in(const struct path *legs, const struct path *path)
{
	for (unsigned i = 0; i < legs->n_legs; i++)
		if (!leg_is_in(&legs->leg[i], path))
			return false;
	return legs->n_legs > 0;
}

/* Takes legs out of a set of siblings. 1: changed; -ENOMEM. */
static int ip6_shrink(struct rib *rib, struct node *node, uint32_t *link, const struct path *gone)
{
	struct alternative *a = alternative_at(rib, *link);
	const struct path *known = path_get(&rib->paths, a->path);
	struct path rest, scratch;
	struct path_use use;
	uint32_t before = a->path;
	int result;

	memcpy(&rest, known, offsetof(struct path, leg));
	rest.n_legs = 0;
	for (unsigned i = 0; i < known->n_legs; i++)
		if (!leg_is_in(&known->leg[i], gone))
			rest.leg[rest.n_legs++] = known->leg[i];
	if (rest.n_legs == 0) {
		alternative_remove(rib, node, link);
		return 1;
	}
	result = rib_path_use(rib, path_canonical(&rest, &scratch), true, &use);
	if (result < 0)
		return result;
	a->path = use.index;
	a->content = use.content & 0xffffff;
	path_unuse(&rib->paths, before);
	return 1;
}

static bool alternative_holds_legs(const struct rib *rib, const struct alternative *a, const struct route *route,
				   const struct path *legs)
{
	const struct path *known = path_get(&rib->paths, a->path);

	return known != NULL && known->nhid == 0 && known->type == ROUTE_UNICAST && legs->type == ROUTE_UNICAST &&
	       same_source(a, route) && legs_are_in(legs, known);
}

/* 1: changed, 0: not, -errno. */
static int ip6_remove(struct rib *rib, struct node *node, const struct route *route, const struct path_use *use)
{
	uint32_t *first = group_begin(rib, node, route), *link;
	bool opaque = false;

	for (link = first; in_group(rib, *link, route); link = &alternative_at(rib, *link)->next) {
		const struct alternative *a = alternative_at(rib, *link);

		if (alternative_holds_legs(rib, a, route, use->path))
			return ip6_shrink(rib, node, link, use->path);
		opaque |= a->path == ADJ_KERNEL;
	}
	/* Perhaps a leg of a set too large or odd to be held: it stays the kernel's until a dump tells what is left. */
	if (opaque)
		return 0;
	alternative_remove(rib, node, first);
	return 1;
}

static int ip4_remove(struct rib *rib, struct node *node, const struct route *route, const struct path_use *use)
{
	uint32_t *first = group_begin(rib, node, route), *link;

	for (link = first; in_group(rib, *link, route); link = &alternative_at(rib, *link)->next)
		if (same_path(alternative_at(rib, *link), use)) {
			first = link;
			break;
		}
	alternative_remove(rib, node, first);
	return 1;
}

static int group_remove(struct rib *rib, struct node *node, const struct route *route, const struct path *path)
{
	uint32_t *first = group_begin(rib, node, route), *equal;
	struct path_use use;
	struct path scratch;

	if (!in_group(rib, *first, route))
		return -ENOENT;
	if (path == NULL) {
		alternative_remove(rib, node, first);
		return 1;
	}
	rib_path_use(rib, path_canonical(path, &scratch), false, &use);
	equal = group_find(rib, node, route, &use);
	if (equal != NULL) {
		alternative_remove(rib, node, equal);
		return 1;
	}
	return node->family == FAMILY_IP6 ? ip6_remove(rib, node, route, &use) : ip4_remove(rib, node, route, &use);
}

/* ---- the two entries ---- */

int rib_add(struct rib *rib, const struct route *route, const struct path *path, enum rib_how how)
{
	struct path scratch;
	struct path_use use;
	struct node *node;
	unsigned before;
	uint32_t id;
	bool changed;

	if (path == NULL || rib_route_check(route, path) < 0 || (unsigned)how > RIB_REPLACE)
		return -EINVAL;
	if (rib_path_use(rib, path_canonical(path, &scratch), true, &use) < 0)
		goto no_memory;
	if (pool_reserve(&rib->alternatives) < 0 || (id = node_get(rib, &route->prefix)) == NONE) {
		path_unuse(&rib->paths, use.index);
		goto no_memory;
	}
	node = node_at(rib, id);
	before = node->flags;
	changed = node->family == FAMILY_IP6 ? ip6_add(rib, node, route, &use, how) :
					       ip4_add(rib, node, route, &use, how);
	if (changed) {
		node_tables_update(rib, node);
		node_changed(rib, id, route->table, before);
	} else {
		path_unuse(&rib->paths, use.index);
	}
	rib_retry(rib, 2);
	return 0;
no_memory:
	rib->failed++;
	return -ENOMEM;
}

int rib_remove(struct rib *rib, const struct route *route, const struct path *path)
{
	struct node *node;
	unsigned before;
	uint32_t id;
	int result;

	if (rib_route_check(route, path) < 0)
		return -EINVAL;
	id = node_find(rib, &route->prefix);
	if (id == NONE)
		return -ENOENT;
	node = node_at(rib, id);
	before = node->flags;
	result = group_remove(rib, node, route, path);
	if (result > 0) {
		node_tables_update(rib, node);
		node_changed(rib, id, route->table, before);
	} else if (result == -ENOMEM) {
		rib->failed++;
	}
	rib_retry(rib, 2);
	return result < 0 ? result : 0;
}

void rib_settle(struct rib *rib)
{
	rib_retry(rib, rib->stale.n);
	rib->since_collect = 0;
	fib_collect(rib->fib);
	tables_collect(rib);
}

/* ---- for those who read ---- */

unsigned rib_take_new_paths(struct rib *rib, uint32_t *ids, unsigned n)
{
	return path_take_new(&rib->paths, ids, n);
}

const struct path *rib_path(const struct rib *rib, uint32_t id)
{
	return path_get(&rib->paths, id);
}

uint32_t rib_path_routes(const struct rib *rib, uint32_t id)
{
	return path_get(&rib->paths, id) == NULL ? 0 : rib->paths.slot[id].users + neighbour_is_uncounted(rib, id);
}

uint32_t rib_path_limit(const struct rib *rib)
{
	return rib->paths.used;
}

void rib_route_of(const struct rib *rib, const struct node *node, uint32_t alternative, struct route *out)
{
	*out = (struct route){.prefix = node_prefix(node)};
	if (alternative == NONE)
		return;
	const struct alternative *a = alternative_at(rib, alternative);

	out->tos = a->tos;
	out->protocol = a->protocol;
	out->scope = a->scope;
	out->source_len = a->source_len;
	out->table = a->table;
	out->metric = a->metric;
	out->other = a->other;
}

static bool node_shows_neighbour(const struct rib *rib, const struct node *node)
{
	struct prefix host = node_prefix(node);

	if (!(node->flags & NODE_NEIGHBOUR) || node->shown == NONE)
		return false;
	for (uint32_t i = neighbours_from(rib, &host, 0); neighbour_is_under(rib, i, &host); i++)
		if (neighbour_at(rib, family_of_const(rib, host.family)->neighbours.sorted[i])->path == node->shown)
			return true;
	return false;
}

void rib_lookup(const struct rib *rib, uint8_t family, const uint8_t *addr, struct rib_answer *out)
{
	const struct node *node;
	struct prefix host;
	uint32_t id;

	memset(out, 0, sizeof(*out));
	out->index = ADJ_NO_ROUTE;
	if (!fib_match(rib->fib, family, addr, &out->prefix, &out->index))
		return;
	out->found = 1;
	prefix_truncate(&out->prefix, out->prefix.len); /* an IPv4 address fills four bytes only */
	id = node_find(rib, &out->prefix);
	if (id == NONE)
		return;
	node = node_at(rib, id);
	if (node_shows_neighbour(rib, node)) {
		out->neighbour = 1;
		host = node_prefix(node);
		id = rib_cover(rib, &host);
		if (id != NONE) /* only a stale FIB shows a neighbour that nothing covers */
			node = node_at(rib, id);
	}
	id = node_decider(rib, node);
	rib_route_of(rib, node, id, &out->route);
	out->type = id == NONE ? 0 : (uint8_t)alternative_at(rib, id)->type;
}

/* cursor: node in the upper half, how many of its alternatives were given in the lower. */
unsigned rib_walk(const struct rib *rib, uint64_t *cursor, struct rib_entry *out, unsigned n)
{
	uint32_t id = (uint32_t)(*cursor >> 32), done = (uint32_t)*cursor;
	unsigned given = 0;

	for (; id < rib->nodes.used && given < n; id++, done = 0) {
		const struct node *node = node_at(rib, id);
		uint32_t decider, i, position = 0;

		if (node->family == 0 || node->first == NONE)
			continue;
		decider = node->shown == NONE || node_shows_neighbour(rib, node) ? NONE : node_decider(rib, node);
		for (i = node->first; i != NONE && given < n; i = alternative_at(rib, i)->next) {
			if (position++ < done)
				continue;
			rib_route_of(rib, node, i, &out[given].route);
			out[given].path_id = alternative_at(rib, i)->path;
			out[given].type = (uint8_t)alternative_at(rib, i)->type;
			out[given++].best = i == decider;
		}
		if (i != NONE) {
			done = position;
			break;
		}
	}
	*cursor = (uint64_t)id << 32 | done;
	return given;
}

void rib_stats_read(const struct rib *rib, struct rib_stats *out)
{
	const struct family_state *state = rib->family;

	*out = (struct rib_stats){
		.routes4 = state[0].routes,
		.routes6 = state[1].routes,
		.paths = rib->paths.live,
		.neighbours = (uint64_t)state[0].neighbours.n + state[1].neighbours.n,
		.best_changes = rib->best_changes,
		.failed = rib->failed,
		.paths_exhausted = rib->paths_exhausted,
		.bytes = sizeof(*rib) + pool_bytes(&rib->nodes) + pool_bytes(&rib->alternatives) +
			 pool_bytes(&rib->neighbour_pool) + ((uint64_t)rib->slot_mask + 1) * sizeof(*rib->slot) +
			 path_table_bytes(&rib->paths),
		.fibs = 1 + rib->table_fibs,
	};
}
