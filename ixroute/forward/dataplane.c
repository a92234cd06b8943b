/* What all workers share, written by Python's thread while they read: every change is a store of one word,
 * so that they see the state before or after it. Interfaces are set in interfaces.c, their views in views.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "forward/worker.h"

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
		atomic_store_explicit(&dataplane->interface[i].port, i < n_ports ? i : MAX_PORTS, memory_order_relaxed);
	for (uint32_t i = 0; i < ADJ_RESERVED; i++)
		adjacency_set(adjacencies, i, NULL, 0, reserved_action[i], 0);
	if (views_begin(dataplane)) {
		dataplane_destroy(dataplane);
		return NULL;
	}
	dataplane_set_multipath(dataplane, 4, HASH_POLICY_L3, HASH_DEFAULT_FIELDS);
	dataplane_set_multipath(dataplane, 6, HASH_POLICY_L3, HASH_DEFAULT_FIELDS);
	dataplane_set_seed(dataplane, 0);
	return dataplane;
}

void dataplane_destroy(struct dataplane *dataplane)
{
	if (!dataplane)
		return;
	for (uint32_t i = 0; i < MAX_INTERFACES; i++)
		for (unsigned kind = 0; kind < 2; kind++)
			free(atomic_load_explicit(&dataplane->interface[i].above[kind], memory_order_relaxed));
	views_end(dataplane);
	free(dataplane);
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

int dataplane_set_multipath(struct dataplane *dataplane, unsigned family, uint32_t policy, uint32_t fields)
{
	if ((family != 4 && family != 6) || policy > HASH_POLICY_CUSTOM || fields == 0 || fields > HASH_ALL_FIELDS)
		return -EINVAL;
	atomic_store_explicit(&dataplane->multipath.how[family == 6], policy | fields << 8, memory_order_relaxed);
	return 0;
}

void dataplane_set_seed(struct dataplane *dataplane, uint64_t seed)
{
	multipath_seed(&dataplane->multipath, seed);
}

uint32_t dataplane_hash(const struct dataplane *dataplane, const uint8_t *ip, uint32_t length, unsigned family)
{
	return multipath_hash(&dataplane->multipath, ip, length, family == 6 ? VERSION_6 : VERSION_4);
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
