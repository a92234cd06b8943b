/* Ethernet: whose frame is it, what is in it (linux: eth_type_trans, __netif_receive_skb_core, vlan_do_receive).
 * Included by worker.c, and by flow.c for the EtherTypes; the functions are small and called once each, so they are
 * inline. */
#ifndef IXROUTE_FORWARD_ETH_H
#define IXROUTE_FORWARD_ETH_H

#include <stdbool.h>

#include "forward/packet.h"
#include "forward/vlan.h"
#include "forward/worker.h"

#define ETHERTYPE_IP4 0x0800u
#define ETHERTYPE_ARP 0x0806u
#define ETHERTYPE_IP6 0x86ddu

#define MAC_GROUP_BIT 1ull /* of the first byte on the wire */

static inline unsigned arp_classify(const uint8_t *arp, uint32_t room, uint8_t marks)
{
	/* RFC 826: operation 2 is a reply. One sent to everybody is an announcement, like a request. */
	if (room >= 8 && load16_be(arp + 6) == 2 && !(marks & MARK_GROUP))
		return REASON_arp_response;
	return REASON_arp_request;
}

/* port: what the packet came in by as long as no tag says otherwise. Sets packet->in. */
static inline unsigned eth_classify(const struct ingress *port, struct sub_ingress *subs, uint8_t *eth, uint32_t len,
				    struct packet *packet)
{
	uint64_t destination;
	unsigned offset = 12, reason, type;
	bool ours;

	packet->in = port;
	if (len < ETH_HEADER_BYTES)
		return REASON_frame_too_short;
	if (!(port->flags & PORT_UP))
		return REASON_port_down;
	if (port->flags & PORT_KERNEL_ALL)
		return REASON_kernel_interface;
	destination = load64(eth) & MAC_MASK;
	ours = destination == port->mac;
	type = load16_be(eth + 12);
	if (destination & MAC_GROUP_BIT) {
		packet->marks |= MARK_GROUP;
		if ((destination & 0xffffff) == 0xc28001) /* 01:80:c2 */
			return REASON_link_local_frame;
		/* ISO 9542: 09:00:2b:00:00:04, all end systems, and :05, all intermediate systems: where IS-IS speaks
		 * on a point-to-point circuit (RFC 5309). */
		if ((destination & ~(UINT64_C(1) << 40)) == UINT64_C(0x0400002b0009))
			return REASON_link_local_frame;
	}
	if (vlan_is_tag(type)) {
		/* Before the MAC is judged: a sub-interface may have a MAC of its own. */
		reason = vlan_enter(subs, eth, len, packet, &offset, &ours);
		if (reason != REASON_FORWARD)
			return reason;
		type = load16_be(eth + offset);
	}
	if (!ours && !(destination & MAC_GROUP_BIT))
		return REASON_other_host;
	packet->ip = eth + offset + 2;
	if (type == ETHERTYPE_IP4)
		packet->version = VERSION_4;
	else if (type == ETHERTYPE_IP6)
		packet->version = VERSION_6;
	else if (type == ETHERTYPE_ARP)
		return arp_classify(packet->ip, len - offset - 2, packet->marks);
	else
		return REASON_non_ip;
	return REASON_FORWARD;
}

/* Writes what stands before the network header, over whatever tags the packet came with; returns where it begins.
 * tags: of the interface it leaves by, 0 for none. */
static inline uint8_t *eth_rewrite(uint8_t *ip, uint64_t destination, uint64_t source, uint64_t tags, enum version version)
{
	uint8_t *eth = __builtin_expect(tags == 0, 1) ? ip - ETH_HEADER_BYTES : vlan_push(ip, tags);

	store64(eth, (destination & MAC_MASK) | source << 48);
	store32(eth + 8, (uint32_t)(source >> 16));
	store16(ip - 2, version == VERSION_4 ? 0x0008 : 0xdd86); /* as bytes on the wire: 08 00, 86 dd */
	return eth;
}

#endif
