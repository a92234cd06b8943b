/* Ethernet: whose frame is it, what is in it (linux: eth_type_trans, __netif_receive_skb_core, vlan_do_receive).
 * Included by worker.c, and by flow.c for the EtherTypes; the functions are small and called once each, so they are
 * inline. */
#ifndef IXROUTE_FORWARD_ETH_H
#define IXROUTE_FORWARD_ETH_H

#include <stdbool.h>

#include "forward/packet.h"
#include "forward/worker.h"

#define ETHERTYPE_IP4 0x0800u
#define ETHERTYPE_ARP 0x0806u
#define ETHERTYPE_VLAN 0x8100u
#define ETHERTYPE_IP6 0x86ddu
#define ETHERTYPE_VLAN_SERVICE 0x88a8u /* 802.1ad */

#define MAC_MASK 0xffffffffffffull
#define MAC_GROUP_BIT 1ull /* of the first byte on the wire */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a MAC is loaded as the low 48 bits of a word");

static inline bool eth_has_sub_interface(const struct ingress *in, unsigned vid)
{
	return atomic_load_explicit(&in->vlan[vid / 64], memory_order_relaxed) >> (vid % 64) & 1;
}

static inline unsigned arp_classify(const uint8_t *arp, uint32_t room, uint8_t marks)
{
	/* RFC 826: operation 2 is a reply. One sent to everybody is an announcement, like a request. */
	if (room >= 8 && load16_be(arp + 6) == 2 && !(marks & MARK_GROUP))
		return REASON_arp_response;
	return REASON_arp_request;
}

/* VLAN id 0 only carries a priority: the frame counts as untagged, as in Linux, unless there is a sub-interface even
 * for that. *offset moves to the EtherType behind the tag. Everything else that is tagged ends here. */
static inline unsigned eth_untag(const struct ingress *in, const uint8_t *eth, uint32_t len, unsigned *offset)
{
	unsigned type = load16_be(eth + 12), vid;

	if (len < ETH_HEADER_BYTES + VLAN_TAG_BYTES)
		return REASON_frame_too_short;
	vid = load16_be(eth + 14) & 0xfff;
	if (vid == 0 && !eth_has_sub_interface(in, 0)) {
		*offset = 16;
		type = load16_be(eth + 16);
		if (type != ETHERTYPE_VLAN && type != ETHERTYPE_VLAN_SERVICE)
			return REASON_FORWARD;
		if (len < ETH_HEADER_BYTES + 2 * VLAN_TAG_BYTES)
			return REASON_frame_too_short;
		vid = load16_be(eth + 18) & 0xfff;
		if (vid == 0)
			return REASON_vlan_sub_interface; /* two priority tags: the kernel knows what to do */
	}
	if (eth_has_sub_interface(in, vid))
		return REASON_vlan_sub_interface;
	return type == ETHERTYPE_VLAN ? REASON_vlan_tag_mismatch : REASON_non_ip;
}

static inline unsigned eth_classify(const struct ingress *in, uint8_t *eth, uint32_t len, struct packet *packet)
{
	uint64_t destination;
	unsigned offset = 12, reason, type;

	if (len < ETH_HEADER_BYTES)
		return REASON_frame_too_short;
	if (!(in->flags & PORT_UP))
		return REASON_port_down;
	if (in->flags & PORT_KERNEL_ALL)
		return REASON_kernel_interface;
	destination = load64(eth) & MAC_MASK;
	type = load16_be(eth + 12);
	if (destination & MAC_GROUP_BIT) {
		packet->marks |= MARK_GROUP;
		if ((destination & 0xffffff) == 0xc28001) /* 01:80:c2 */
			return REASON_link_local_frame;
	}
	if (type == ETHERTYPE_VLAN || type == ETHERTYPE_VLAN_SERVICE) {
		/* Before the MAC is judged: a sub-interface may have a MAC of its own. */
		reason = eth_untag(in, eth, len, &offset);
		if (reason != REASON_FORWARD)
			return reason;
		type = load16_be(eth + offset);
	}
	if (destination != in->mac && !(destination & MAC_GROUP_BIT))
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

/* Writes the 14 bytes before the network header; of a tagged frame the tag is overwritten. */
static inline void eth_rewrite(uint8_t *ip, uint64_t destination, uint64_t source, enum version version)
{
	uint8_t *eth = ip - ETH_HEADER_BYTES;

	store64(eth, (destination & MAC_MASK) | source << 48);
	store32(eth + 8, (uint32_t)(source >> 16));
	store16(eth + 12, version == VERSION_4 ? 0x0008 : 0xdd86); /* as bytes on the wire: 08 00, 86 dd */
}

#endif
