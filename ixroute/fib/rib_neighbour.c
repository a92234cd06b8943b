/* The neighbours the RIB knows (rule 3 of rib.h), kept sorted so that those under a prefix are a range.
 * Called by the mirror; read by rib_show.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fib/rib_private.h"

static int neighbour_compare(const struct neighbour *a, const uint8_t addr[16], uint32_t ifindex)
{
	int order = memcmp(a->addr, addr, 16);

	if (order != 0)
		return order;
	return (a->ifindex > ifindex) - (a->ifindex < ifindex);
}

/* The place of the first neighbour that is not before (prefix's first address, ifindex). */
uint32_t neighbours_from(const struct rib *rib, const struct prefix *prefix, uint32_t ifindex)
{
	const struct neighbours *neighbours = &family_of_const(rib, prefix->family)->neighbours;
	uint32_t low = 0, high = neighbours->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (neighbour_compare(neighbour_at(rib, neighbours->sorted[middle]), prefix->addr, ifindex) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Rule 3: would this neighbour be shown under what `cover_index` shows, and with which path? */
bool neighbour_is_shown(const struct rib *rib, const struct neighbour *neighbour, uint8_t family, uint32_t cover_index,
			struct path *path)
{
	const struct path *link = path_get(&rib->paths, cover_index);

	if (link == NULL || link->type != ROUTE_UNICAST || link->nhid != 0 || link->n_legs != 1 ||
	    link->leg[0].gateway_family != 0 || link->leg[0].ifindex != neighbour->ifindex)
		return false;
	path->family = family;
	path->type = ROUTE_UNICAST;
	path->flags = 0;
	path->n_legs = 1;
	path->nhid = 0;
	path->mtu = link->mtu; /* `ip route … dev X mtu 1400` holds for the hosts there */
	path->leg[0] = (struct next_hop){
		.ifindex = neighbour->ifindex,
		.gateway_family = family,
		.weight = 1,
	};
	memcpy(path->leg[0].gateway, neighbour->addr, sizeof(neighbour->addr));
	return true;
}

static bool neighbour_is_at(const struct rib *rib, const struct prefix *host, uint32_t ifindex, uint32_t place)
{
	const struct neighbours *neighbours = &family_of_const(rib, host->family)->neighbours;

	return place < neighbours->n &&
	       neighbour_compare(neighbour_at(rib, neighbours->sorted[place]), host->addr, ifindex) == 0;
}

bool neighbour_is_uncounted(const struct rib *rib, uint32_t path_id)
{
	const struct path *path = path_get(&rib->paths, path_id);
	const struct next_hop *leg = &path->leg[0];
	struct prefix host;
	uint32_t place;

	if (path->type != ROUTE_UNICAST || path->nhid != 0 || path->flags != 0 || path->n_legs != 1 ||
	    leg->flags != 0 || leg->gateway_family != path->family)
		return false;
	host = prefix_host(path->family, leg->gateway);
	place = neighbours_from(rib, &host, leg->ifindex);
	if (!neighbour_is_at(rib, &host, leg->ifindex, place))
		return false;
	return neighbour_at(rib, family_of_const(rib, host.family)->neighbours.sorted[place])->path != path_id;
}

static int neighbours_reserve(struct neighbours *neighbours)
{
	uint32_t room = neighbours->room ? 2 * neighbours->room : 64;
	uint32_t *sorted;

	if (neighbours->n < neighbours->room)
		return 0;
	sorted = realloc(neighbours->sorted, room * sizeof(*sorted));
	if (sorted == NULL)
		return -ENOMEM;
	neighbours->sorted = sorted;
	neighbours->room = room;
	return 0;
}

int rib_neighbour_add(struct rib *rib, uint8_t family, const uint8_t *addr, uint32_t ifindex)
{
	struct neighbours *neighbours;
	struct prefix host;
	uint32_t place, id, node;

	if (family != FAMILY_IP4 && family != FAMILY_IP6)
		return -EINVAL;
	host = prefix_host(family, addr);
	neighbours = &family_of(rib, family)->neighbours;
	place = neighbours_from(rib, &host, ifindex);
	if (neighbour_is_at(rib, &host, ifindex, place))
		return 0;
	if (neighbours_reserve(neighbours) < 0 || pool_reserve(&rib->neighbour_pool) < 0 ||
	    (node = node_get(rib, &host)) == NONE) {
		rib->failed++;
		return -ENOMEM;
	}
	id = pool_take(&rib->neighbour_pool);
	*neighbour_at(rib, id) = (struct neighbour){.ifindex = ifindex, .node = node, .path = NONE, .cover_len = -1};
	memcpy(neighbour_at(rib, id)->addr, host.addr, sizeof(host.addr));
	memmove(neighbours->sorted + place + 1, neighbours->sorted + place,
		(neighbours->n - place) * sizeof(*neighbours->sorted));
	neighbours->sorted[place] = id;
	neighbours->n++;
	node_at(rib, node)->flags |= NODE_NEIGHBOUR;
	tables_host_changed(rib, node);
	node_refresh(rib, node);
	rib_retry(rib, 2);
	return 0;
}

int rib_neighbour_remove(struct rib *rib, uint8_t family, const uint8_t *addr, uint32_t ifindex)
{
	struct neighbours *neighbours;
	struct neighbour *neighbour;
	struct prefix host;
	uint32_t place, id;

	if (family != FAMILY_IP4 && family != FAMILY_IP6)
		return -EINVAL;
	host = prefix_host(family, addr);
	neighbours = &family_of(rib, family)->neighbours;
	place = neighbours_from(rib, &host, ifindex);
	if (!neighbour_is_at(rib, &host, ifindex, place))
		return -ENOENT;
	id = neighbours->sorted[place];
	neighbour = neighbour_at(rib, id);
	neighbours->n--;
	memmove(neighbours->sorted + place, neighbours->sorted + place + 1,
		(neighbours->n - place) * sizeof(*neighbours->sorted));
	if (!neighbour_is_under(rib, neighbours_from(rib, &host, 0), &host))
		node_at(rib, neighbour->node)->flags &= (uint8_t)~NODE_NEIGHBOUR;
	tables_host_changed(rib, neighbour->node);
	node_refresh(rib, neighbour->node);
	path_unuse(&rib->paths, neighbour->path); /* after the FIB let go of it */
	pool_give(&rib->neighbour_pool, id);
	rib_retry(rib, 2);
	return 0;
}
