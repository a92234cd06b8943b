/* IPv4: is the packet sound (RFC 1812 5.2.2, 5.3.7; linux: ip_rcv_core, ip_route_input_slow), what becomes of it
 * given its adjacency (ip_forward), and the one change made to it (RFC 1624). The functions are worker.c's
 * alone; flow.c and multipath.c know the header by this too. */
#ifndef IXROUTE_FORWARD_IP4_H
#define IXROUTE_FORWARD_IP4_H

#include <stdbool.h>

#include "forward/control.h"
#include "forward/packet.h"
#include "forward/worker.h"

#define IP4_HEADER_BYTES 20u
#define IP4_TTL 8
#define IP4_PROTOCOL 9
#define IP4_CHECKSUM 10
#define IP4_SOURCE 12
#define IP4_DESTINATION 16
#define IP4_LIMITED_BROADCAST 0xffffffffu
#define IP4_FRAGMENT_OFFSET 0x1fffu
#define IP4_MORE_FRAGMENTS 0x2000u

/* The sum of a sound header, its checksum included, is 0xffff (RFC 1071). */
static inline bool ip4_checksum_holds(const uint8_t *ip, unsigned header_bytes)
{
	uint64_t sum = (uint64_t)load32(ip) + load32(ip + 4) + load32(ip + 8) + load32(ip + 12) + load32(ip + 16);

	for (unsigned at = IP4_HEADER_BYTES; at < header_bytes; at += 4)
		sum += load32(ip + at);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* RFC 1624 with m' = m - 0x0100, in wire order: the same arithmetic as linux's ip_decrease_ttl, so also the same
 * choice between the two zeros of ones' complement. */
static inline void ip4_decrement_ttl(uint8_t *ip)
{
	uint32_t sum = load16(ip + IP4_CHECKSUM) + 0x0001u; /* the bytes 01 00 */

	store16(ip + IP4_CHECKSUM, (uint16_t)(sum + (sum >= 0xffff)));
	ip[IP4_TTL]--;
}

/* To the router or to a group: is it what a routing protocol needs (then it has a bucket of its own), or `other`? */
static inline unsigned ip4_to_router(const struct packet *packet, unsigned other)
{
	const uint8_t *ip = packet->ip;
	unsigned header_bytes = (ip[0] & 15u) * 4;

	if (load16_be(ip + 6) & IP4_FRAGMENT_OFFSET)
		return other; /* no ports in it */
	return control_protocol(ip[IP4_PROTOCOL], ip + header_bytes, packet->length - header_bytes) ?
		       REASON_routing_protocol :
		       other;
}

/* First byte of an address that needs a closer look: 0, 127, 224 and up. */
static inline bool ip4_is_odd(uint8_t first)
{
	return first == 0 || first == 127 || first >= 224;
}

static inline bool ip4_is_multicast(const uint8_t *address)
{
	return (address[0] & 0xf0) == 0xe0;
}

/* The order is linux's (ip_route_input_slow, ip_route_input_mc), since a packet can be odd twice. */
static inline unsigned ip4_judge_odd(const struct ingress *in, struct packet *packet)
{
	const uint8_t *source = packet->ip + IP4_SOURCE, *destination = packet->ip + IP4_DESTINATION;
	bool localnet = in->flags & PORT_ROUTE_LOCALNET;
	bool from_nowhere = load32(source) == 0;

	if (ip4_is_multicast(source))
		return REASON_sip_is_mc;
	if (load32(source) == IP4_LIMITED_BROADCAST)
		return REASON_ipv4_sip_is_limited_bc;
	if (ip4_is_multicast(destination)) {
		if (source[0] == 127 && !localnet)
			return REASON_sip_is_loopback_address;
		/* 224.0.0/24 and IGMP (RFC 3376 4.2.13) may come from a host that has no address yet. */
		if (from_nowhere && (load32(destination) & 0xffffff) != 0x0000e0 && packet->ip[IP4_PROTOCOL] != PROTOCOL_IGMP)
			return REASON_sip_is_unspecified;
		return ip4_to_router(packet, REASON_ipv4_multicast);
	}
	if (load32(destination) == IP4_LIMITED_BROADCAST || (from_nowhere && load32(destination) == 0))
		return ip4_to_router(packet, REASON_ipv4_broadcast);
	if (from_nowhere)
		return REASON_sip_is_unspecified;
	if (load32(destination) == 0)
		return REASON_dip_is_unspecified;
	if (destination[0] == 127)
		return localnet ? REASON_FORWARD : REASON_dip_is_loopback_address;
	if (source[0] == 127) {
		packet->marks |= MARK_FROM_LOOPBACK;
		return localnet ? REASON_FORWARD : REASON_sip_is_loopback_address;
	}
	return REASON_FORWARD;
}

/* room: bytes of the frame from the network header on. flags: of the frame. A header that the card found right is not
 * summed again; one that it found wrong is, since it drops nothing for us. */
static inline unsigned ip4_validate(const struct ingress *in, struct packet *packet, uint32_t room, unsigned flags)
{
	const uint8_t *ip = packet->ip;
	unsigned header_bytes, length, reason, bit;

	if (room < IP4_HEADER_BYTES || ip[0] >> 4 != 4)
		return REASON_ip_header_corrupted;
	header_bytes = (ip[0] & 15u) * 4;
	if (header_bytes < IP4_HEADER_BYTES || header_bytes > room)
		return REASON_ip_header_corrupted;
	if (!(flags & FRAME_IP_GOOD) && !ip4_checksum_holds(ip, header_bytes))
		return REASON_ip_header_corrupted;
	length = load16_be(ip + 2);
	if (length > room)
		return REASON_ip_truncated;
	if (length < header_bytes)
		return REASON_ip_header_corrupted;
	packet->length = (uint16_t)length;
	if (header_bytes != IP4_HEADER_BYTES)
		packet->marks |= MARK_OPTIONS;
	if (ip4_is_odd(ip[IP4_SOURCE]) || ip4_is_odd(ip[IP4_DESTINATION])) {
		reason = ip4_judge_odd(in, packet);
		if (reason != REASON_FORWARD)
			return reason;
	}
	bit = local_filter_bit(load32(ip + IP4_SOURCE));
	if (in->flags & (PORT_RPF_STRICT | PORT_RPF_LOOSE) ||
	    atomic_load_explicit(&in->local_filter[bit / 64], memory_order_relaxed) >> (bit % 64) & 1)
		packet->marks |= MARK_SOURCE;
	return REASON_FORWARD;
}

/* Does the source's route vouch for the packet? (RFC 3704; linux: __fib_validate_source.) When in doubt no: the
 * packet is then punted and linux decides. A connected network's adjacency is an unresolved one that keeps its port. */
static inline bool ip4_source_is_valid(const struct ingress *in, uint32_t index, uint64_t word)
{
	unsigned action = adjacency_action(word);

	/* It may even be ours; a broadcast address linux refuses as soon as there are rules, but not without. */
	if (action == REASON_policy_rule || action == REASON_ipv4_broadcast)
		return false;
	if (in->flags & PORT_RPF_STRICT)
		return (action == REASON_FORWARD || action == REASON_unresolved_neigh) &&
		       adjacency_interface(word) == in->interface;
	if (in->flags & PORT_RPF_LOOSE) /* any unicast path; the reserved ADJ_KERNEL may stand for other things */
		return action == REASON_FORWARD || action == REASON_unresolved_neigh ||
		       action == REASON_multipath_route ||
		       (action == REASON_external_route && index >= ADJ_RESERVED);
	return true;
}

static inline bool ip4_source_is_own(const struct packet *packet, uint64_t source_word)
{
	return packet->marks & MARK_SOURCE && adjacency_action(source_word) == REASON_local_route;
}

/* The verdict, but for what the egress says (worker.c). word, mtu: the destination's adjacency; source_word: the
 * source's, with MARK_SOURCE. */
static inline unsigned ip4_decide(const struct ingress *in, const struct packet *packet, uint64_t word, uint32_t mtu,
				  uint64_t source_word)
{
	unsigned action = adjacency_action(word);
	bool own = ip4_source_is_own(packet, source_word);

	/* With accept_local, or as long as the tables are not read, the kernel says whether it may come from outside. */
	if (own && !(in->flags & (PORT_ACCEPT_LOCAL | PORT_RULES4)))
		return REASON_sip_is_own;
	if (action == REASON_local_route || action == REASON_ipv4_broadcast || action == REASON_ipv4_multicast)
		return ip4_to_router(packet, action);
	if (action == REASON_policy_rule) /* before what drops: it may be for us */
		return action;
	if (packet->marks & MARK_GROUP) /* RFC 1812 5.3.4; nor is an ICMP error sent */
		return REASON_uc_dip_over_mc_dmac;
	if (in->flags & PORT_RULES4)
		return REASON_policy_rule;
	if (!(in->flags & PORT_IP4_FORWARD))
		return REASON_forwarding_disabled;
	if (own || packet->marks & MARK_FROM_LOOPBACK)
		return REASON_source_validation;
	if (packet->marks & MARK_OPTIONS)
		return REASON_ipv4_options;
	if (!action_is_path(action))
		return action;
	if (packet->ip[IP4_TTL] <= 1) /* before the length, RFC 1812 5.3.1 */
		return REASON_ttl_value_is_too_small;
	if (action == REASON_FORWARD && packet->length > mtu)
		return REASON_mtu_value_is_too_small;
	if (action == REASON_FORWARD && packet->marks & MARK_SOURCE &&
	    !ip4_source_is_valid(in, packet->source_index, source_word))
		return REASON_source_validation;
	return action;
}

#endif
