/* VLAN sub-interfaces of the dataplane: set and cleared by Python's mirror (the FIB's writer) while workers read.
 *
 * Invariants. Port and tags of a number are stored before it is published in the table of the interface below it, and
 * do not change until it was cleared and every worker has since passed a point where it holds nothing of this (the
 * FIB's epoch). A number is in one table at most. Tables are never freed before the dataplane.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "fib/epoch.h"
#include "forward/vlan.h"
#include "forward/worker.h"

#define MAX_VID 4094u
#define VLAN_WORDS (VLAN_IDS / 64)

static uint32_t port_of(const struct interface *interface)
{
	return atomic_load_explicit(&interface->port, memory_order_relaxed);
}

static uint64_t tag_word(const struct vlan_tag *tag)
{
	const uint8_t wire[8] = { (uint8_t)(tag->type >> 8), (uint8_t)tag->type, (uint8_t)(tag->vid >> 8),
				  (uint8_t)tag->vid };

	return load64(wire);
}

static uint32_t innermost(uint64_t tags)
{
	return (uint32_t)(tags >> 32 ? tags >> 32 : tags);
}

/* Where interface numbers of this tag stand on `below`; NULL when it has no table yet. */
static _Atomic uint16_t *cell_of(struct interface *below, uint32_t tag)
{
	struct vlan_table *table;
	uint8_t wire[4];

	store32(wire, tag);
	table = atomic_load_explicit(&below->above[vlan_kind(load16_be(wire))], memory_order_relaxed);
	return table ? &table->number[load16_be(wire + 2)] : NULL;
}

static int table_make(struct interface *below, unsigned type)
{
	struct vlan_table *table;

	if (atomic_load_explicit(&below->above[vlan_kind(type)], memory_order_relaxed))
		return 0;
	table = calloc(1, sizeof(*table));
	if (!table)
		return -ENOMEM;
	atomic_store_explicit(&below->above[vlan_kind(type)], table, memory_order_release);
	return 0;
}

/* The interface that one with these tags is stacked on; NULL: there is none with the outer tag. */
static struct interface *below_of(struct dataplane *dataplane, uint32_t port, uint64_t tags)
{
	struct interface *below = &dataplane->interface[port];
	_Atomic uint16_t *cell;
	uint32_t number;

	if (tags >> 32 == 0)
		return below;
	cell = cell_of(below, (uint32_t)tags);
	number = cell ? atomic_load_explicit(cell, memory_order_relaxed) : 0;
	return number ? &dataplane->interface[number] : NULL;
}

static bool tags_are_sound(const struct vlan_tag *tags, uint32_t n_tags)
{
	if (n_tags == 0 || n_tags > INTERFACE_TAGS)
		return false;
	for (uint32_t i = 0; i < n_tags; i++)
		if (!vlan_is_tag(tags[i].type) || tags[i].vid > MAX_VID)
			return false;
	return true;
}

static void interface_store(struct interface *to, const uint8_t mac[6], uint32_t mtu, uint32_t flags)
{
	atomic_store_explicit(&to->mac, adjacency_word(mac, 0, 0), memory_order_relaxed);
	atomic_store_explicit(&to->mtu, mtu, memory_order_relaxed);
	atomic_store_explicit(&to->flags, flags, memory_order_relaxed);
}

int dataplane_set_port(struct dataplane *dataplane, uint32_t port, const uint8_t mac[6], uint32_t mtu, uint32_t flags)
{
	if (port >= dataplane->n_ports || mtu > UINT16_MAX)
		return -EINVAL;
	interface_store(&dataplane->interface[port], mac, mtu, flags);
	return 0;
}

/* The number is free and nobody remembers it: gives it a place. */
static int interface_place(struct dataplane *dataplane, uint32_t number, uint32_t port, uint64_t tags, unsigned type)
{
	struct interface *to = &dataplane->interface[number], *below = below_of(dataplane, port, tags);
	_Atomic uint16_t *cell;

	if (!below)
		return -ENOENT;
	if (table_make(below, type))
		return -ENOMEM;
	cell = cell_of(below, innermost(tags));
	if (atomic_load_explicit(cell, memory_order_relaxed))
		return -EEXIST;
	atomic_store_explicit(&to->tags, tags, memory_order_relaxed);
	atomic_store_explicit(&to->port, port, memory_order_relaxed);
	atomic_store_explicit(cell, (uint16_t)number, memory_order_release);
	return 0;
}

int dataplane_set_interface(struct dataplane *dataplane, uint32_t number, uint32_t port, const struct vlan_tag *tags,
			    uint32_t n_tags, const uint8_t mac[6], uint32_t mtu, uint32_t flags)
{
	struct interface *to;
	uint64_t wanted;

	if (number < MAX_PORTS || number >= MAX_INTERFACES || port >= dataplane->n_ports || mtu > UINT16_MAX ||
	    !tags_are_sound(tags, n_tags))
		return -EINVAL;
	to = &dataplane->interface[number];
	wanted = tag_word(&tags[0]) | (n_tags > 1 ? tag_word(&tags[1]) << 32 : 0);
	if (port_of(to) != MAX_PORTS) {
		if (port_of(to) != port || atomic_load_explicit(&to->tags, memory_order_relaxed) != wanted)
			return -EBUSY;
		interface_store(to, mac, mtu, flags);
		return 0;
	}
	if (dataplane->cleared[number] && epoch_safe(fib_epoch(dataplane->fib)) <= dataplane->cleared[number])
		return -EBUSY;
	interface_store(to, mac, mtu, flags); /* before it is published */
	return interface_place(dataplane, number, port, wanted, tags[n_tags - 1].type);
}

/* Is some interface stacked on this one? */
static bool interface_carries(struct dataplane *dataplane, uint32_t number)
{
	for (unsigned kind = 0; kind < 2; kind++) {
		struct vlan_table *table =
			atomic_load_explicit(&dataplane->interface[number].above[kind], memory_order_relaxed);

		for (unsigned vid = 0; table && vid < VLAN_IDS; vid++)
			if (atomic_load_explicit(&table->number[vid], memory_order_relaxed))
				return true;
	}
	return false;
}

static void vlans_store(struct dataplane *dataplane, uint32_t interface, const uint64_t wanted[VLAN_WORDS])
{
	for (unsigned i = 0; i < VLAN_WORDS; i++)
		atomic_store_explicit(&dataplane->vlan[interface][i], wanted[i], memory_order_relaxed);
}

int dataplane_clear_interface(struct dataplane *dataplane, uint32_t number)
{
	static const uint64_t no_vlans[VLAN_WORDS];
	struct epoch *epoch = fib_epoch(dataplane->fib);
	struct interface *interface;
	_Atomic uint16_t *cell;
	uint64_t tags;

	if (number < MAX_PORTS || number >= MAX_INTERFACES)
		return -EINVAL;
	interface = &dataplane->interface[number];
	if (port_of(interface) == MAX_PORTS)
		return 0;
	if (interface_carries(dataplane, number))
		return -EBUSY;
	tags = atomic_load_explicit(&interface->tags, memory_order_relaxed);
	cell = cell_of(below_of(dataplane, port_of(interface), tags), innermost(tags));
	atomic_store_explicit(cell, 0, memory_order_relaxed);
	atomic_store_explicit(&interface->flags, 0, memory_order_relaxed);
	atomic_store_explicit(&interface->port, MAX_PORTS, memory_order_relaxed);
	dataplane->cleared[number] = atomic_load_explicit(&epoch->now, memory_order_relaxed);
	epoch_advance(epoch);
	vlans_store(dataplane, number, no_vlans);
	return 0;
}


int dataplane_set_vlans(struct dataplane *dataplane, uint32_t interface, const uint16_t *vids, uint32_t n)
{
	uint64_t wanted[VLAN_WORDS] = { 0 };

	if (interface >= MAX_INTERFACES || port_of(&dataplane->interface[interface]) == MAX_PORTS)
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++) {
		if (vids[i] > MAX_VID)
			return -EINVAL;
		wanted[vids[i] / 64] |= 1ull << (vids[i] % 64);
	}
	vlans_store(dataplane, interface, wanted);
	return 0;
}
