/* What all workers share, written by Python's thread while they read: every change is a store of one word,
 * so that they see the state before or after it. Views (view.h) are shared, swapped and freed here. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "forward/worker.h"

#define MAX_VLAN 4094u

/* What a packet meets that is sent to one of the reserved adjacencies (fib/adjacency.h). */
static const uint8_t reserved_action[ADJ_RESERVED] = {
	[ADJ_NO_ROUTE] = REASON_no_route,
	[ADJ_LOCAL] = REASON_local_route,
	[ADJ_BROADCAST] = REASON_ipv4_broadcast,
	[ADJ_MULTICAST] = REASON_ipv4_multicast, /* of IPv6 none is looked up */
	[ADJ_BLACKHOLE] = REASON_blackhole_route,
	[ADJ_REJECT] = REASON_reject_route,
	[ADJ_KERNEL] = REASON_external_route,
	[ADJ_POLICY] = REASON_policy_rule,
};

/* ---- Views ---- */

/* An equal view that there is already, or `view`, which joins the list. A retired one is revived: nobody freed it. */
static struct view *view_share(struct dataplane *dataplane, struct view *view)
{
	for (struct view *known = dataplane->views; known; known = known->next) {
		if (view_equal(known, view)) {
			view_destroy(view);
			return known;
		}
	}
	view->next = dataplane->views;
	dataplane->views = view;
	return view;
}

uint32_t dataplane_collect_views(struct dataplane *dataplane)
{
	uint64_t safe = epoch_safe(fib_epoch(dataplane->fib));
	struct view **at = &dataplane->views;
	uint32_t kept = 0;

	while (*at) {
		struct view *view = *at;

		if (view->users == 0 && view->tag < safe) {
			*at = view->next;
			view_destroy(view);
			continue;
		}
		kept += view->users == 0;
		at = &view->next;
	}
	return kept;
}

/* The view that was there has one user less; without any it is retired. The epoch moves on even if others still have
 * it: collecting is left to the caller. */
static void view_show(struct dataplane *dataplane, struct view *_Atomic *place, struct view *view)
{
	struct view *before = atomic_load_explicit(place, memory_order_relaxed);
	struct epoch *epoch = fib_epoch(dataplane->fib);

	view->users++;
	/* release: whoever finds the view finds its rules. */
	atomic_store_explicit(place, view, memory_order_release);
	if (before && --before->users == 0) {
		before->tag = atomic_load_explicit(&epoch->now, memory_order_relaxed);
		epoch_advance(epoch);
	}
}

static unsigned place_of(uint32_t family)
{
	return family == 4 ? VIEW_OF_IP4 : VIEW_OF_IP6;
}

const struct view *dataplane_view(const struct dataplane *dataplane, uint32_t interface, uint32_t family)
{
	return atomic_load_explicit(&dataplane->interface[interface].view[place_of(family)], memory_order_relaxed);
}

int dataplane_set_view(struct dataplane *dataplane, uint32_t interface, uint32_t family, const struct view_step *steps,
		       uint32_t n, uint32_t flags)
{
	struct view *view;
	int error;

	if (interface >= MAX_INTERFACES)
		return -EINVAL;
	error = view_create(&view, family, steps, n, flags);
	if (error)
		return error;
	view = view_share(dataplane, view);
	view_show(dataplane, &dataplane->interface[interface].view[place_of(family)], view);
	dataplane_collect_views(dataplane);
	return 0;
}

/* Everybody looks up the one FIB that there is at first. */
static int views_begin(struct dataplane *dataplane)
{
	const struct view_step step = { .fib = dataplane->fib, .kind = VIEW_LOOKUP };

	for (uint32_t i = 0; i < 2; i++) {
		struct view *view;
		int error = view_create(&view, i == VIEW_OF_IP4 ? 4 : 6, &step, 1, VIEW_SAME_SOURCE);

		if (error)
			return error;
		view = view_share(dataplane, view);
		for (uint32_t interface = 0; interface < MAX_INTERFACES; interface++)
			view_show(dataplane, &dataplane->interface[interface].view[i], view);
	}
	return 0;
}

static void views_end(struct dataplane *dataplane)
{
	while (dataplane->views) {
		struct view *view = dataplane->views;

		dataplane->views = view->next;
		view_destroy(view);
	}
}

/* ---- The rest ---- */

struct dataplane *dataplane_create(struct umem *umem, struct fib *fib, struct adjacency_table *adjacencies,
				   uint32_t n_ports, uint32_t n_workers)
{
	struct dataplane *dataplane;

	if (n_ports == 0 || n_ports > MAX_PORTS || n_workers == 0 || n_workers > MAX_WORKERS ||
	    adjacencies->capacity < ADJ_RESERVED)
		return NULL;
	dataplane = aligned_alloc(64, sizeof(*dataplane));
	if (!dataplane)
		return NULL;
	memset(dataplane, 0, sizeof(*dataplane));
	dataplane->umem = umem;
	dataplane->fib = fib;
	dataplane->adjacencies = adjacencies;
	dataplane->n_ports = n_ports;
	dataplane->n_workers = n_workers;
	for (uint32_t i = 0; i < MAX_INTERFACES; i++)
		dataplane->interface[i].port = i < n_ports ? i : MAX_PORTS;
	for (uint32_t i = 0; i < ADJ_RESERVED; i++)
		adjacency_set(adjacencies, i, NULL, 0, reserved_action[i], 0);
	if (views_begin(dataplane)) {
		dataplane_destroy(dataplane);
		return NULL;
	}
	return dataplane;
}

void dataplane_destroy(struct dataplane *dataplane)
{
	if (dataplane)
		views_end(dataplane);
	free(dataplane);
}

int dataplane_set_port(struct dataplane *dataplane, uint32_t port, const uint8_t mac[6], uint32_t mtu, uint32_t flags)
{
	struct interface *to;

	if (port >= dataplane->n_ports || mtu > UINT16_MAX)
		return -EINVAL;
	to = &dataplane->interface[port];
	atomic_store_explicit(&to->mac, adjacency_word(mac, 0, 0), memory_order_relaxed);
	atomic_store_explicit(&to->mtu, mtu, memory_order_relaxed);
	atomic_store_explicit(&to->flags, flags, memory_order_relaxed);
	return 0;
}

int dataplane_set_vlans(struct dataplane *dataplane, uint32_t port, const uint16_t *vids, uint32_t n)
{
	uint64_t wanted[64] = { 0 };

	if (port >= dataplane->n_ports)
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++) {
		if (vids[i] > MAX_VLAN)
			return -EINVAL;
		wanted[vids[i] / 64] |= 1ull << (vids[i] % 64);
	}
	for (unsigned i = 0; i < 64; i++)
		atomic_store_explicit(&dataplane->vlan[port][i], wanted[i], memory_order_relaxed);
	return 0;
}

int dataplane_set_policer(struct dataplane *dataplane, uint32_t reason, uint32_t rate, uint32_t burst)
{
	/* forward/policer.h multiplies these by 10^10 in 64 bits. */
	if (reason_kind(reason) != REASON_KIND_PUNT || rate > 1000000000 || burst == 0 || burst > 1000000000)
		return -EINVAL;
	atomic_store_explicit(&dataplane->policer[reason].rate, rate, memory_order_relaxed);
	atomic_store_explicit(&dataplane->policer[reason].burst, burst, memory_order_relaxed);
	return 0;
}

int dataplane_set_local4(struct dataplane *dataplane, const uint32_t *addr_be, uint32_t n)
{
	uint64_t wanted[LOCAL_FILTER_BITS / 64] = { 0 };

	for (uint32_t i = 0; i < n; i++) {
		uint32_t bit = local_filter_bit(addr_be[i]);

		wanted[bit / 64] |= 1ull << (bit % 64);
	}
	for (unsigned i = 0; i < LOCAL_FILTER_BITS / 64; i++) /* a bit both old and new is in both words */
		atomic_store_explicit(&dataplane->local_filter[i], wanted[i], memory_order_relaxed);
	return 0;
}
