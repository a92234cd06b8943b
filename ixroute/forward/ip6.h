/* IPv6: is the packet sound (RFC 8200, RFC 4291 2.5-2.7; linux: ip6_rcv_core), and what becomes of it given its
 * adjacency (ip6_forward). There is no checksum, no reverse path check, and own addresses may be sources: so linux
 * has it. The functions are worker.c's alone; flow.c and multipath.c know the header by this too. */
#ifndef IXROUTE_FORWARD_IP6_H
#define IXROUTE_FORWARD_IP6_H

#include <stdbool.h>

#include "forward/control.h"
#include "forward/packet.h"
#include "forward/worker.h"

#define IP6_HEADER_BYTES 40u
#define IP6_NEXT_HEADER 6
#define IP6_HOP_LIMIT 7
#define IP6_SOURCE 8
#define IP6_DESTINATION 24
#define IP6_HOP_BY_HOP 0
#define IP6_ROUTING 43
#define IP6_FRAGMENT 44
#define IP6_FRAGMENT_BYTES 8u
#define IP6_DESTINATION_OPTIONS 60

static inline bool ip6_is_unspecified(const uint8_t *address)
{
	return (load64(address) | load64(address + 8)) == 0;
}

static inline bool ip6_is_loopback(const uint8_t *address)
{
	return load64(address) == 0 && load64(address + 8) == 1ull << 56; /* the last byte on the wire */
}

static inline bool ip6_is_link_local(const uint8_t *address)
{
	return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

/* ICMPv6 types: RFC 4861 (133..137); RFC 2710 and 3810 (listeners, who keep multicast routing alive). */
static inline unsigned ip6_icmp_reason(unsigned type, unsigned other)
{
	if (type >= 133 && type <= 137)
		return REASON_ipv6_neighbour_discovery;
	if ((type >= 130 && type <= 132) || type == 143)
		return REASON_routing_protocol;
	return other;
}

/* As ip4_to_router. One hop-by-hop header is looked past, since MLD always has one (RFC 3810 5). */
static inline unsigned ip6_to_router(const struct packet *packet, unsigned other)
{
	const uint8_t *payload = packet->ip + IP6_HEADER_BYTES;
	unsigned bytes = packet->length - IP6_HEADER_BYTES, next = packet->ip[IP6_NEXT_HEADER];

	if (next == IP6_HOP_BY_HOP && bytes >= 8) {
		unsigned option_bytes = (payload[1] + 1u) * 8;

		if (option_bytes > bytes)
			return other;
		next = payload[0];
		payload += option_bytes;
		bytes -= option_bytes;
	}
	if (next == PROTOCOL_ICMP6)
		return bytes >= 1 ? ip6_icmp_reason(payload[0], other) : other;
	return control_protocol(next, payload, bytes) ? REASON_routing_protocol : other;
}

/* Addresses that end a packet whatever the rest of it says. */
static inline unsigned ip6_judge_addresses(const uint8_t *source, const uint8_t *destination)
{
	if (ip6_is_loopback(source))
		return REASON_sip_is_loopback_address;
	if (ip6_is_loopback(destination))
		return REASON_dip_is_loopback_address;
	if (destination[0] == 0xff && (destination[1] & 15) == 1) /* RFC 4291 erratum 3480 */
		return REASON_ipv6_mc_dip_interface_local_scope;
	if (destination[0] == 0xff && (destination[1] & 15) == 0) /* RFC 4291 2.7 */
		return REASON_ipv6_mc_dip_reserved_scope;
	if (source[0] == 0xff)
		return REASON_sip_is_mc;
	return REASON_FORWARD;
}

/* room: bytes of the frame from the network header on. */
static inline unsigned ip6_validate(struct packet *packet, uint32_t room)
{
	const uint8_t *ip = packet->ip, *source = ip + IP6_SOURCE, *destination = ip + IP6_DESTINATION;
	unsigned payload_bytes, reason;

	if (room < IP6_HEADER_BYTES || ip[0] >> 4 != 6)
		return REASON_ip_header_corrupted;
	reason = ip6_judge_addresses(source, destination);
	if (reason != REASON_FORWARD)
		return reason;
	/* A jumbogram (RFC 2675) says 0 here and its length in a hop-by-hop option: the kernel reads those. */
	payload_bytes = load16_be(ip + 4);
	if (IP6_HEADER_BYTES + payload_bytes > room)
		return REASON_ip_truncated;
	packet->length = (uint16_t)(IP6_HEADER_BYTES + payload_bytes);
	if (destination[0] == 0xff)
		return ip6_to_router(packet, REASON_ipv6_multicast);
	if (ip[IP6_NEXT_HEADER] == IP6_HOP_BY_HOP)
		packet->marks |= MARK_OPTIONS;
	if (ip6_is_unspecified(source))
		packet->marks |= MARK_FROM_UNSPECIFIED; /* sound only when it is for us: duplicate address detection */
	if (ip6_is_link_local(source) || ip6_is_link_local(destination))
		packet->marks |= MARK_LINK_LOCAL;
	return REASON_FORWARD;
}

/* Is a packet from :: to be ended? Not when it leaves by the port it came in by: there linux looks at redirects instead
 * of the source (ip6_forward). Where no way out is known yet the kernel judges. */
static inline bool ip6_ends_from_unspecified(const struct ingress *in, uint64_t word)
{
	unsigned action = adjacency_action(word);

	return action == REASON_FORWARD ? adjacency_interface(word) != in->interface : !action_is_path(action);
}

/* The verdict, but for what the egress says (worker.c). word, mtu: the destination's adjacency. */
static inline unsigned ip6_decide(const struct ingress *in, const struct packet *packet, uint64_t word, uint32_t mtu)
{
	unsigned action = adjacency_action(word);

	if (action == REASON_local_route)
		return ip6_to_router(packet, action);
	if (action == REASON_policy_rule) /* before what drops: it may be for us */
		return packet->marks & MARK_LINK_LOCAL ? ip6_to_router(packet, REASON_ipv6_link_local) : action;
	if (packet->marks & MARK_GROUP) /* of ICMPv6 errors only those about options are sent, RFC 4443 2.4 (e.3) */
		return packet->marks & MARK_OPTIONS ? REASON_ipv6_hop_by_hop : REASON_uc_dip_over_mc_dmac;
	if (packet->marks & MARK_FROM_UNSPECIFIED && ip6_ends_from_unspecified(in, word))
		return REASON_sip_is_unspecified;
	if (packet->marks & MARK_LINK_LOCAL)
		return ip6_to_router(packet, REASON_ipv6_link_local);
	if (in->flags & PORT_RULES6)
		return REASON_policy_rule;
	if (!(in->flags & PORT_IP6_FORWARD))
		return REASON_forwarding_disabled;
	if (packet->marks & MARK_OPTIONS)
		return REASON_ipv6_hop_by_hop;
	if (!action_is_path(action))
		return action;
	if (packet->ip[IP6_HOP_LIMIT] <= 1)
		return REASON_ttl_value_is_too_small;
	if (action == REASON_FORWARD && packet->length > mtu)
		return REASON_mtu_value_is_too_small;
	return action;
}

#endif
