/* The RIB's slow twin in C: everything that is kept is computed again, the simplest way, and compared, the FIBs
 * included. For tests; a million routes take seconds. Shares with the code it checks only the reading of pools and
 * the search of one prefix.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fib/rib_private.h"

struct check {
	const struct rib *rib;
	char *why;
	size_t why_bytes;
	uint32_t *users, *shown; /* per path id, recounted */
	bool behind;		 /* some table FIB refused something */
};

__attribute__((format(printf, 2, 3))) static int wrong(const struct check *check, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(check->why, check->why_bytes, format, arguments);
	va_end(arguments);
	return -EINVAL;
}

static const char *prefix_text(const struct prefix *prefix)
{
	static _Thread_local char text[48];
	char *end = text;

	for (unsigned i = 0; i < host_len(prefix->family) / 8; i++)
		end += snprintf(end, 3, "%02x", prefix->addr[i]);
	snprintf(end, 5, "/%u", prefix->len);
	return text;
}

/* ---- rules 1 to 3 again ---- */

static bool table_is_there(const struct rib *rib, const struct node *node, uint32_t table)
{
	for (uint32_t i = node->first; i != NONE; i = alternative_at(rib, i)->next)
		if (alternative_at(rib, i)->table == table)
			return true;
	return false;
}

/* … in a table that is neither local nor main. */
static bool table_is_there_beside(const struct rib *rib, const struct node *node)
{
	for (uint32_t i = node->first; i != NONE; i = alternative_at(rib, i)->next)
		if (alternative_at(rib, i)->table != RIB_TABLE_LOCAL && alternative_at(rib, i)->table != RIB_TABLE_MAIN)
			return true;
	return false;
}

/* The longest prefix, at most len, with a route in the table. NONE: nothing. */
static uint32_t slow_match(const struct rib *rib, const struct prefix *prefix, int len, uint32_t table)
{
	for (; len >= 0; len--) {
		struct prefix candidate = *prefix;
		uint32_t id;

		prefix_truncate(&candidate, (unsigned)len);
		id = node_find(rib, &candidate);
		if (id != NONE && table_is_there(rib, node_at(rib, id), table))
			return id;
	}
	return NONE;
}

static uint32_t slow_alternative(const struct alternative *a, bool suppressed)
{
	switch (a->type) {
	case ROUTE_BLACKHOLE:
	case ROUTE_UNREACHABLE:
	case ROUTE_PROHIBIT:
		return a->path;
	default:
		return suppressed ? ADJ_NO_ROUTE : a->path;
	}
}

static uint32_t slow_table_index(const struct rib *rib, const struct node *node, uint32_t table, bool suppressed)
{
	const struct alternative *best = NULL;
	bool odd = false;

	for (uint32_t i = node->first; i != NONE; i = alternative_at(rib, i)->next) {
		const struct alternative *a = alternative_at(rib, i);

		if (a->table != table)
			continue;
		odd |= a->tos != 0 || a->source_len != 0;
		if (best == NULL || a->metric < best->metric)
			best = a;
		else if (node->family == FAMILY_IP6 && a->metric == best->metric &&
			 slow_alternative(a, suppressed) != slow_alternative(best, suppressed))
			odd = true;
	}
	return odd ? ADJ_KERNEL : slow_alternative(best, suppressed);
}

static uint32_t slow_base(const struct rib *rib, const struct node *node)
{
	struct prefix prefix = node_prefix(node);

	if (table_is_there(rib, node, RIB_TABLE_LOCAL)) {
		uint32_t index = slow_table_index(rib, node, RIB_TABLE_LOCAL, false);

		return index == ADJ_NO_ROUTE ? ADJ_KERNEL : index; /* throw */
	}
	if (!table_is_there(rib, node, RIB_TABLE_MAIN))
		return NONE;
	if (slow_match(rib, &prefix, node->len - 1, RIB_TABLE_LOCAL) != NONE)
		return node->family == FAMILY_IP4 ? ADJ_KERNEL : NONE; /* one trie still, or two: who knows */
	return slow_table_index(rib, node, RIB_TABLE_MAIN, false);
}

/* What the merged FIB shows for the route that covers a host. */
static uint32_t slow_cover(const struct rib *rib, const struct prefix *host)
{
	uint32_t cover = slow_match(rib, host, host->len, RIB_TABLE_LOCAL);
	uint32_t main = slow_match(rib, host, host->len, RIB_TABLE_MAIN);

	if (cover == NONE || (host->family == FAMILY_IP4 && main != NONE &&
			      node_at(rib, main)->len > node_at(rib, cover)->len))
		cover = main;
	return cover == NONE ? NONE : slow_base(rib, node_at(rib, cover));
}

static uint32_t slow_table_cover(const struct rib *rib, const struct table_fib *to, const struct prefix *host)
{
	uint32_t cover = slow_match(rib, host, host->len, to->table);

	if (cover == NONE)
		return NONE;
	return slow_table_index(rib, node_at(rib, cover), to->table, node_at(rib, cover)->len < to->shortest);
}

/* The path that rule 3 asks for under what `cover` shows, written into `want`; false: none. */
static bool slow_neighbour(const struct rib *rib, const struct neighbour *neighbour, uint8_t family, uint32_t cover,
			   struct path *want)
{
	const struct path *link = path_get(&rib->paths, cover);

	if (link == NULL || link->nhid != 0 || link->type != ROUTE_UNICAST || link->n_legs != 1)
		return false;
	if (link->leg[0].gateway_family != 0 || link->leg[0].ifindex != neighbour->ifindex)
		return false;
	memset(want, 0, sizeof(*want));
	want->family = family;
	want->type = ROUTE_UNICAST;
	want->n_legs = 1;
	want->mtu = link->mtu;
	want->leg[0].ifindex = neighbour->ifindex;
	want->leg[0].gateway_family = family;
	want->leg[0].weight = 1;
	memcpy(want->leg[0].gateway, neighbour->addr, 16);
	return true;
}

/* ---- one prefix ---- */

static int check_order(const struct check *check, const struct node *node)
{
	const struct rib *rib = check->rib;

	for (uint32_t i = node->first; i != NONE; i = alternative_at(rib, i)->next) {
		const struct alternative *a = alternative_at(rib, i);
		struct route next;

		if (a->path >= ADJ_RESERVED) {
			if (path_get(&rib->paths, a->path) == NULL)
				return wrong(check, "an alternative uses path %u, which is not there", a->path);
			check->users[a->path]++;
		}
		if (!family_of_const(rib, node->family)->dumping && (a->flags & (ALT_TOLD | ALT_PASSED | ALT_CHANGED)))
			return wrong(check, "marks of a dump that is over");
		if (a->next == NONE)
			continue;
		next.table = alternative_at(rib, a->next)->table;
		next.metric = alternative_at(rib, a->next)->metric;
		next.tos = alternative_at(rib, a->next)->tos;
		if (alternative_compare(a, &next) > 0)
			return wrong(check, "alternatives are not sorted");
	}
	return 0;
}

/* May the node show something else than the rules say? The FIB refused it, or a dump that runs shows it at its end:
 * with a prefix that moved to or from table local, all that main has under that. */
static bool may_lag(const struct check *check, const struct node *node)
{
	const struct family_state *state = family_of_const(check->rib, node->family);

	return (node->flags & (NODE_STALE | NODE_DIRTY)) || (state->dumping && state->local_moved);
}

static int check_shown(const struct check *check, const struct node *node, uint32_t target)
{
	struct prefix prefix = node_prefix(node), match;
	uint32_t index = 0;
	bool there;

	if (node->shown != NONE && node->shown >= ADJ_RESERVED) {
		if (path_get(&check->rib->paths, node->shown) == NULL)
			return wrong(check, "%s shows a path that is not there", prefix_text(&prefix));
		check->shown[node->shown]++;
	}
	there = fib_match(check->rib->fib, prefix.family, prefix.addr, &match, &index) && match.len >= prefix.len;
	if (there && match.len > prefix.len) /* a longer one begins at the same address: the FIB cannot say */
		return node->shown == target || may_lag(check, node) ?
			       0 :
			       wrong(check, "%s shows %u instead of %u", prefix_text(&prefix), node->shown, target);
	if (there != (node->shown != NONE) || (there && index != node->shown))
		return wrong(check, "%s: the FIB has %u, the RIB thinks %u", prefix_text(&prefix), there ? index : NONE,
			     node->shown);
	if (node->shown != target && !may_lag(check, node))
		return wrong(check, "%s shows %u instead of %u", prefix_text(&prefix), node->shown, target);
	return 0;
}

/* A prefix's neighbours: at most one is shown, with the path of rule 3. Gives what the prefix should show. */
static int check_neighbours(const struct check *check, const struct node *node, uint32_t *target)
{
	const struct rib *rib = check->rib;
	const struct neighbours *all = &family_of_const(rib, node->family)->neighbours;
	struct prefix host = node_prefix(node);
	bool known = false;

	for (uint32_t i = 0; i < all->n && node->len == host_len(node->family); i++) {
		const struct neighbour *neighbour = neighbour_at(rib, all->sorted[i]);
		uint32_t want = NO_PATH;
		struct path path;

		if (memcmp(neighbour->addr, node->addr, 16) != 0)
			continue;
		known = true;
		if (node_at(rib, neighbour->node) != node)
			return wrong(check, "a neighbour belongs to another prefix");
		if (slow_neighbour(rib, neighbour, node->family, slow_cover(rib, &host), &path))
			want = path_find(&rib->paths, &path);
		if (neighbour->path != want && rib->paths_exhausted == 0 && !may_lag(check, node) &&
		    !family_of_const(rib, node->family)->dumping) /* its cover may be the one that lags */
			return wrong(check, "neighbour with path %u instead of %u", neighbour->path, want);
		if (neighbour->path != NONE) {
			check->users[neighbour->path]++;
			*target = neighbour->path;
		}
	}
	if (known != ((node->flags & NODE_NEIGHBOUR) != 0))
		return wrong(check, "NODE_NEIGHBOUR is wrong");
	return 0;
}

static int check_node(const struct check *check, uint32_t id)
{
	const struct node *node = node_at(check->rib, id);
	struct prefix prefix = node_prefix(node);
	uint32_t target = slow_base(check->rib, node);
	int result;

	if (!prefix_is_valid(&prefix) || node_find(check->rib, &prefix) != id)
		return wrong(check, "%s is not found", prefix_text(&prefix));
	if (table_is_there(check->rib, node, RIB_TABLE_LOCAL) != ((node->flags & NODE_LOCAL) != 0) ||
	    table_is_there(check->rib, node, RIB_TABLE_MAIN) != ((node->flags & NODE_MAIN) != 0))
		return wrong(check, "%s: wrong flags", prefix_text(&prefix));
	if (table_is_there_beside(check->rib, node) != ((node->flags & NODE_OTHER) != 0))
		return wrong(check, "%s: NODE_OTHER is wrong", prefix_text(&prefix));
	if (node->first == NONE && node->shown == NONE && !(node->flags & (NODE_NEIGHBOUR | NODE_BEHIND)))
		return wrong(check, "%s is empty and still there", prefix_text(&prefix));
	result = check_order(check, node);
	if (result == 0)
		result = check_neighbours(check, node, &target);
	return result < 0 ? result : check_shown(check, node, target);
}

/* ---- the table FIBs ---- */

/* What a table FIB should show for a host that is a neighbour's: the path of rule 3, else `base`. */
static uint32_t slow_host(const struct check *check, const struct table_fib *to, const struct node *node, uint32_t base)
{
	const struct rib *rib = check->rib;
	const struct neighbours *all = &family_of_const(rib, node->family)->neighbours;
	struct prefix host = node_prefix(node);
	uint32_t cover = slow_table_cover(rib, to, &host);

	for (uint32_t i = 0; i < all->n && node->len == host_len(node->family); i++) {
		const struct neighbour *neighbour = neighbour_at(rib, all->sorted[i]);
		struct path path;

		if (memcmp(neighbour->addr, node->addr, 16) == 0 &&
		    slow_neighbour(rib, neighbour, node->family, cover, &path))
			return path_find(&rib->paths, &path);
	}
	return base;
}

/* May a table FIB hold something else than the rules say? It refused that or, for a neighbour, what covers it; or a
 * dump that runs shows it at its end. */
static bool table_may_lag(const struct check *check, const struct table_fib *to, const struct node *node)
{
	bool host = (node->flags & NODE_NEIGHBOUR) != 0;

	if ((node->flags & NODE_BEHIND) || (host && (check->behind || check->rib->paths_exhausted != 0)))
		return true;
	if (host && family_of_const(check->rib, node->family)->dumping)
		return true;
	for (uint32_t i = node->first; i != NONE; i = alternative_at(check->rib, i)->next)
		if (alternative_at(check->rib, i)->table == to->table &&
		    (alternative_at(check->rib, i)->flags & ALT_CHANGED))
			return true;
	return false;
}

static int check_table_node(const struct check *check, const struct table_fib *to, const struct node *node,
			    uint64_t held[2])
{
	struct prefix prefix = node_prefix(node);
	uint32_t shown = NONE, target = NONE;

	if (table_is_there(check->rib, node, to->table))
		target = slow_table_index(check->rib, node, to->table, node->len < to->shortest);
	target = slow_host(check, to, node, target);
	if (fib_get(to->fib, &prefix, &shown)) {
		held[node->family == FAMILY_IP6]++;
		if (shown >= ADJ_RESERVED && path_get(&check->rib->paths, shown) == NULL)
			return wrong(check, "table %u: %s shows a path that is not there", to->table,
				     prefix_text(&prefix));
		if (shown >= ADJ_RESERVED)
			check->shown[shown]++;
	}
	if (shown != target && !table_may_lag(check, to, node))
		return wrong(check, "table %u, shortest %u: %s shows %u instead of %u", to->table, to->shortest,
			     prefix_text(&prefix), shown, target);
	return 0;
}

static int check_table_fib(const struct check *check, const struct table_fib *to)
{
	uint64_t held[2] = {0, 0};
	struct fib_stats stats;

	for (uint32_t i = 0; i < check->rib->nodes.used; i++) {
		const struct node *node = node_at(check->rib, i);
		int result = node->family == 0 ? 0 : check_table_node(check, to, node, held);

		if (result < 0)
			return result;
	}
	fib_stats_read(to->fib, &stats);
	if (stats.prefixes4 != held[0] || stats.prefixes6 != held[1])
		return wrong(check, "table %u: the FIB has prefixes that the RIB does not know", to->table);
	return 0;
}

static int check_table_fibs(struct check *check)
{
	int result = 0;

	for (uint32_t i = 0; i < check->rib->nodes.used; i++)
		check->behind |= node_at(check->rib, i)->family != 0 && (node_at(check->rib, i)->flags & NODE_BEHIND);
	for (unsigned i = 0; i < check->rib->table_fibs && result == 0; i++)
		result = check_table_fib(check, &check->rib->table_fib[i]);
	return result;
}

/* ---- the counts ---- */

static int check_lengths(const struct check *check, const struct lengths *lengths, uint8_t family, unsigned flag)
{
	uint32_t count[129] = {0};

	for (uint32_t i = 0; i < check->rib->nodes.used; i++) {
		const struct node *node = node_at(check->rib, i);

		if (node->family == family && (node->flags & flag))
			count[node->len]++;
	}
	for (unsigned len = 0; len <= 128; len++)
		if (count[len] != lengths->count[len] ||
		    (count[len] != 0) != ((lengths->bits[len / 64] >> (len % 64) & 1) != 0))
			return wrong(check, "prefixes of length %u are miscounted", len);
	return 0;
}

static int check_family(const struct check *check, uint8_t family)
{
	const struct family_state *state = family_of_const(check->rib, family);
	uint64_t nodes = 0, routes = 0;

	for (uint32_t i = 0; i < check->rib->nodes.used; i++) {
		const struct node *node = node_at(check->rib, i);

		if (node->family != family)
			continue;
		nodes++;
		for (uint32_t a = node->first; a != NONE; a = alternative_at(check->rib, a)->next)
			routes++;
	}
	if (nodes != state->nodes || routes != state->routes)
		return wrong(check, "prefixes or routes are miscounted");
	for (uint32_t i = 1; i < state->neighbours.n; i++) {
		const struct neighbour *a = neighbour_at(check->rib, state->neighbours.sorted[i - 1]);
		const struct neighbour *b = neighbour_at(check->rib, state->neighbours.sorted[i]);
		int order = memcmp(a->addr, b->addr, 16);

		if (order > 0 || (order == 0 && a->ifindex >= b->ifindex))
			return wrong(check, "neighbours are not sorted");
	}
	if (check_lengths(check, &state->local, family, NODE_LOCAL) < 0)
		return -EINVAL;
	return check_lengths(check, &state->main, family, NODE_MAIN);
}

static int check_paths(const struct check *check)
{
	const struct path_table *paths = &check->rib->paths;
	uint32_t live = 0;

	for (uint32_t id = ADJ_RESERVED; id < paths->used; id++) {
		const struct path_slot *slot = &paths->slot[id];

		if (slot->path == NULL) {
			if (check->users[id] != 0 || check->shown[id] != 0)
				return wrong(check, "path %u is used and not there", id);
			continue;
		}
		live++;
		if (slot->users != check->users[id] || slot->shown != check->shown[id])
			return wrong(check, "path %u: %u users and %u shown, counted %u and %u", id, slot->users,
				     slot->shown, check->users[id], check->shown[id]);
		if (slot->users + slot->shown == 0 || path_find(paths, slot->path) != id)
			return wrong(check, "path %u is unused or not found", id);
	}
	return live == paths->live ? 0 : wrong(check, "paths are miscounted");
}

static int check_fib_size(const struct check *check)
{
	struct fib_stats stats;
	uint64_t shown[2] = {0, 0};

	for (uint32_t i = 0; i < check->rib->nodes.used; i++) {
		const struct node *node = node_at(check->rib, i);

		if (node->family != 0 && node->shown != NONE)
			shown[node->family == FAMILY_IP6]++;
	}
	fib_stats_read(check->rib->fib, &stats);
	if (stats.prefixes4 != shown[0] || stats.prefixes6 != shown[1])
		return wrong(check, "the FIB has other prefixes than the RIB's");
	return 0;
}

static int check_all(struct check *check)
{
	int result = 0;

	for (uint32_t i = 0; i < check->rib->nodes.used && result == 0; i++)
		if (node_at(check->rib, i)->family != 0)
			result = check_node(check, i);
	if (result == 0)
		result = check_family(check, FAMILY_IP4);
	if (result == 0)
		result = check_family(check, FAMILY_IP6);
	if (result == 0)
		result = check_table_fibs(check);
	if (result == 0)
		result = check_paths(check);
	return result < 0 ? result : check_fib_size(check);
}

int rib_check(const struct rib *rib, char *why, size_t why_bytes)
{
	struct check check = {.rib = rib, .why = why, .why_bytes = why_bytes};
	int result;

	if (why_bytes > 0)
		why[0] = '\0';
	check.users = calloc(rib->paths.used, sizeof(*check.users));
	check.shown = calloc(rib->paths.used, sizeof(*check.shown));
	if (check.users == NULL || check.shown == NULL)
		result = wrong(&check, "no memory to check with");
	else
		result = check_all(&check);
	free(check.users);
	free(check.shown);
	return result;
}
