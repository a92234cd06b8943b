/* VLAN tags: which interface is a tagged packet on (linux: __netif_receive_skb_core, vlan_do_receive, skb_vlan_untag),
 * and the tags of one that leaves by a sub-interface. Included by worker.c alone.
 *
 * Each tag is looked up on the interface that the tags before it led to; id 0 without a sub-interface only carries a
 * priority and is passed over. Priority and DEI bits are read by nobody: Linux keeps them from the routing too, and
 * sends priority 0 unless a sub-interface has an egress-qos-map (those are left to the kernel).
 */
#ifndef IXROUTE_FORWARD_VLAN_H
#define IXROUTE_FORWARD_VLAN_H

#include <stdbool.h>

#include "forward/packet.h"
#include "forward/worker.h"

#define ETHERTYPE_VLAN 0x8100u
#define ETHERTYPE_VLAN_SERVICE 0x88a8u /* 802.1ad */
#define VLAN_ID_MASK 0xfffu
#define VLAN_TAGS_READ 4u /* of deeper stacks the kernel decides */

/* The sub-interfaces that packets of a burst came in by, each read once. at: where each may stand; what it says of one
 * that is not there is checked and found wrong, so that nobody has to clear it. */
struct sub_ingress {
	const struct dataplane *dataplane;
	uint8_t *at; /* MAX_INTERFACES, the worker's */
	unsigned n;
	struct ingress in[INTERFACE_TAGS * BURST];
};

static inline bool vlan_is_tag(unsigned type)
{
	return type == ETHERTYPE_VLAN || type == ETHERTYPE_VLAN_SERVICE;
}

/* Which of an interface's two tables. */
static inline unsigned vlan_kind(unsigned type)
{
	return type == ETHERTYPE_VLAN_SERVICE;
}

static inline void ingress_read(struct ingress *in, const struct dataplane *dataplane, uint32_t number)
{
	const struct interface *from = &dataplane->interface[number];

	in->mac = atomic_load_explicit(&from->mac, memory_order_relaxed);
	in->flags = atomic_load_explicit(&from->flags, memory_order_relaxed);
	/* acquire: a table is seen with its zeros. */
	in->above[0] = atomic_load_explicit(&from->above[0], memory_order_acquire);
	in->above[1] = atomic_load_explicit(&from->above[1], memory_order_acquire);
	in->vlan = dataplane->vlan[number];
	in->local_filter = dataplane->local_filter;
	in->interface = number;
	/* acquire: with a view come its rules (views.c). */
	in->view[VIEW_OF_IP4] = atomic_load_explicit(&from->view[VIEW_OF_IP4], memory_order_acquire);
	in->view[VIEW_OF_IP6] = atomic_load_explicit(&from->view[VIEW_OF_IP6], memory_order_acquire);
}

static inline const struct ingress *sub_ingress_of(struct sub_ingress *subs, unsigned number)
{
	unsigned at = subs->at[number];

	if (at >= subs->n || subs->in[at].interface != number) {
		at = subs->n++; /* there is room: a packet asks INTERFACE_TAGS times at most, an interface having no more tags */
		subs->at[number] = (uint8_t)at;
		ingress_read(&subs->in[at], subs->dataplane, number);
	}
	return &subs->in[at];
}

static inline unsigned vlan_number(const struct ingress *in, unsigned type, unsigned vid)
{
	const struct vlan_table *table = in->above[vlan_kind(type)];

	/* acquire: port and tags of the number, stored before it. */
	return table ? atomic_load_explicit(&table->number[vid], memory_order_acquire) : 0;
}

static inline bool vlan_is_kernels(const struct ingress *in, unsigned vid)
{
	return atomic_load_explicit(&in->vlan[vid / 64], memory_order_relaxed) >> (vid % 64) & 1;
}

/* packet->in goes from the port to the interface that the tags name, *offset to the EtherType behind the tags. *ours:
 * the destination MAC is that of an interface on the way. Only for frames with a tag. */
static inline unsigned vlan_enter(struct sub_ingress *subs, const uint8_t *eth, uint32_t len, struct packet *packet,
				  unsigned *offset, bool *ours)
{
	for (unsigned read = 0, type, vid, number; read < VLAN_TAGS_READ; read++, *offset += VLAN_TAG_BYTES) {
		type = load16_be(eth + *offset);
		if (!vlan_is_tag(type))
			return REASON_FORWARD;
		if (len < *offset + 2 + VLAN_TAG_BYTES)
			return REASON_frame_too_short;
		vid = load16_be(eth + *offset + 2) & VLAN_ID_MASK;
		number = vlan_number(packet->in, type, vid);
		if (number) {
			packet->in = sub_ingress_of(subs, number);
			/* The same reason as for a port: an operator asks "which one?", and the counters of each answer. */
			if (!(packet->in->flags & PORT_UP))
				return REASON_port_down;
			if (packet->in->flags & PORT_KERNEL_ALL)
				return REASON_kernel_interface;
			/* Its own MAC or that of what it is on: linux marks a packet as ours at the first that knows it. */
			*ours |= (load64(eth) & MAC_MASK) == packet->in->mac;
		} else if (vlan_is_kernels(packet->in, vid)) {
			return REASON_vlan_sub_interface;
		} else if (vid != 0) {
			return REASON_vlan_tag_mismatch;
		}
	}
	return vlan_is_tag(load16_be(eth + *offset)) ? REASON_vlan_sub_interface : REASON_FORWARD;
}

/* Writes an interface's tags in front of the EtherType; returns where the MACs begin. Frames have room for that
 * (driver/frame.h, FRAME_HEADROOM). */
static inline uint8_t *vlan_push(uint8_t *ip, uint64_t tags)
{
	uint8_t *eth = ip - ETH_HEADER_BYTES - (tags >> 32 ? 2 : 1) * VLAN_TAG_BYTES;

	fence_drop(eth, (uint64_t)(ip - eth));
	if (tags >> 32)
		store64(eth + 12, tags);
	else
		store32(eth + 12, (uint32_t)tags);
	return eth;
}

#endif
