/* The fields that tell flows apart (flow.h). Called by multipath.c for packets that have several ways to go.
 *
 * Two kinds of steps take turns, as the headers do: one for what an EtherType names (a network header, a VLAN tag),
 * one for what a protocol number names (extension headers, tunnels, ports). The number of headers is bounded, so a
 * packet costs a bounded time whatever it says. Ports are never taken from fragments, the first included: all fragments
 * of a packet have to go one way.
 *
 * Not looked into, other than by linux: PPPoE, TIPC, B.A.T.M.A.N. and HSR inside of GRE. Such a tunnel is one flow.
 */
#include "forward/flow.h"

#include "forward/control.h"
#include "forward/eth.h"
#include "forward/ip4.h"
#include "forward/ip6.h"

#define MORE_HEADERS 15u /* after the first: MAX_FLOW_DISSECT_HDRS */

#define PROTOCOL_IP_IN_IP 4u
#define PROTOCOL_DCCP 33u
#define PROTOCOL_IP6_IN_IP 41u
#define PROTOCOL_IP6_ROUTING 43u
#define PROTOCOL_IP6_FRAGMENT 44u
#define PROTOCOL_GRE 47u
#define PROTOCOL_ESP 50u
#define PROTOCOL_AH 51u
#define PROTOCOL_IP6_DESTINATION 60u
#define PROTOCOL_SCTP 132u
#define PROTOCOL_UDPLITE 136u

#define IP4_MORE_FRAGMENTS 0x2000u

/* RFC 2784, RFC 2890; version 1: RFC 2637 4.1. */
#define GRE_CHECKSUM 0x8000u
#define GRE_ROUTING 0x4000u
#define GRE_KEY 0x2000u
#define GRE_SEQUENCE 0x1000u
#define GRE_ACKNOWLEDGE 0x0080u
#define GRE_VERSION 0x0007u
#define GRE_PPP 0x880bu
#define ETHERTYPE_BRIDGED 0x6558u /* a whole Ethernet frame */
#define PPP_HEADER_BYTES 4u
#define PPP_IP4 0x0021u
#define PPP_IP6 0x0057u

enum step { STEP_END, STEP_NETWORK, STEP_PROTOCOL };

struct walk {
	const uint8_t *packet;
	uint32_t length;
	uint32_t at;   /* the next header; may lie behind the end */
	uint32_t type; /* EtherType of the next or last network header */
	bool fragment;
	bool outermost;
};

/* NULL when not all of it is in the packet. */
static const uint8_t *walk_see(const struct walk *walk, uint32_t offset, uint32_t bytes)
{
	uint32_t at = walk->at + offset; /* at grows by 2 kB a header at most: no overflow */

	return at <= walk->length && walk->length - at >= bytes ? walk->packet + at : NULL;
}

/* ---- Network headers ---- */

static enum step step_ip4(struct walk *walk, struct flow *flow)
{
	const uint8_t *ip = walk_see(walk, 0, IP4_HEADER_BYTES);
	unsigned header_bytes, fragment;

	if (ip == NULL)
		return STEP_END;
	header_bytes = (ip[0] & 15u) * 4;
	if (header_bytes < IP4_HEADER_BYTES)
		return STEP_END;
	fragment = load16_be(ip + 6);
	walk->at += header_bytes;
	flow->version = VERSION_4;
	flow->protocol = ip[IP4_PROTOCOL];
	flow->source = ip + IP4_SOURCE;
	flow->destination = ip + IP4_DESTINATION;
	return fragment & (IP4_FRAGMENT_OFFSET | IP4_MORE_FRAGMENTS) ? STEP_END : STEP_PROTOCOL;
}

static enum step step_ip6(struct walk *walk, struct flow *flow)
{
	const uint8_t *ip = walk_see(walk, 0, IP6_HEADER_BYTES);
	uint32_t label;

	if (ip == NULL)
		return STEP_END;
	label = (uint32_t)(ip[1] & 15u) << 16 | load16_be(ip + 2);
	if (label != 0)
		flow->label = label; /* else the outer one's stays */
	walk->at += IP6_HEADER_BYTES;
	flow->version = VERSION_6;
	flow->protocol = ip[IP6_NEXT_HEADER];
	flow->source = ip + IP6_SOURCE;
	flow->destination = ip + IP6_DESTINATION;
	return STEP_PROTOCOL;
}

static enum step step_network(struct walk *walk, struct flow *flow)
{
	const uint8_t *tag;

	switch (walk->type) {
	case ETHERTYPE_IP4:
		return step_ip4(walk, flow);
	case ETHERTYPE_IP6:
		return step_ip6(walk, flow);
	case ETHERTYPE_VLAN:
	case ETHERTYPE_VLAN_SERVICE:
		tag = walk_see(walk, 0, VLAN_TAG_BYTES);
		if (tag == NULL)
			return STEP_END;
		walk->type = load16_be(tag + 2);
		walk->at += VLAN_TAG_BYTES;
		return STEP_NETWORK;
	default:
		return STEP_END;
	}
}

/* ---- What they carry ---- */

static enum step step_tunnel(struct walk *walk, struct flow *flow, unsigned type)
{
	walk->type = type;
	flow->encapsulated = true;
	return walk->outermost ? STEP_END : STEP_NETWORK;
}

/* Behind the fields of a GRE header that depend on its flags: what the payload begins with. */
static enum step step_gre_payload(struct walk *walk, struct flow *flow, unsigned flags, unsigned type, unsigned bytes)
{
	const uint8_t *inner;

	if ((flags & GRE_VERSION) == 0 && type == ETHERTYPE_BRIDGED) {
		inner = walk_see(walk, bytes, ETH_HEADER_BYTES);
		if (inner == NULL)
			return STEP_END;
		type = load16_be(inner + 12);
		bytes += ETH_HEADER_BYTES;
	} else if ((flags & GRE_VERSION) == 1) {
		bytes += flags & GRE_ACKNOWLEDGE ? 4 : 0;
		inner = walk_see(walk, bytes, PPP_HEADER_BYTES);
		if (inner == NULL)
			return STEP_END;
		if (load16_be(inner + 2) == PPP_IP4)
			type = ETHERTYPE_IP4;
		else if (load16_be(inner + 2) == PPP_IP6)
			type = ETHERTYPE_IP6;
		bytes += PPP_HEADER_BYTES;
	}
	walk->at += bytes;
	return step_tunnel(walk, flow, type);
}

static enum step step_gre(struct walk *walk, struct flow *flow)
{
	const uint8_t *gre = walk_see(walk, 0, 4);
	unsigned flags, type, bytes = 4;

	if (gre == NULL)
		return STEP_END;
	flags = load16_be(gre);
	type = load16_be(gre + 2);
	if (flags & GRE_ROUTING || (flags & GRE_VERSION) > 1)
		return STEP_END;
	if ((flags & GRE_VERSION) == 1 && (type != GRE_PPP || !(flags & GRE_KEY)))
		return STEP_END;
	bytes += flags & GRE_CHECKSUM ? 4 : 0;
	if (flags & GRE_KEY) {
		if (walk_see(walk, bytes, 4) == NULL)
			return STEP_END;
		bytes += 4;
	}
	bytes += flags & GRE_SEQUENCE ? 4 : 0;
	return step_gre_payload(walk, flow, flags, type, bytes);
}

static enum step step_ip6_extension(struct walk *walk, struct flow *flow)
{
	const uint8_t *header;

	if (walk->type != ETHERTYPE_IP6)
		return STEP_END;
	if (flow->protocol == PROTOCOL_IP6_FRAGMENT) {
		header = walk_see(walk, 0, 8);
		if (header == NULL)
			return STEP_END;
		walk->fragment = true;
		walk->at += 8;
		flow->protocol = header[0];
		return STEP_END;
	}
	header = walk_see(walk, 0, 2);
	if (header == NULL)
		return STEP_END;
	flow->protocol = header[0];
	walk->at += (header[1] + 1u) * 8;
	return STEP_PROTOCOL;
}

static enum step step_protocol(struct walk *walk, struct flow *flow)
{
	switch (flow->protocol) {
	case IP6_HOP_BY_HOP:
	case PROTOCOL_IP6_ROUTING:
	case PROTOCOL_IP6_FRAGMENT:
	case PROTOCOL_IP6_DESTINATION:
		return step_ip6_extension(walk, flow);
	case PROTOCOL_IP_IN_IP:
		return step_tunnel(walk, flow, ETHERTYPE_IP4);
	case PROTOCOL_IP6_IN_IP:
		return step_tunnel(walk, flow, ETHERTYPE_IP6);
	case PROTOCOL_GRE:
		return step_gre(walk, flow);
	default:
		return STEP_END;
	}
}

/* Of the protocol whose header comes next. */
static void ports_read(const struct walk *walk, struct flow *flow)
{
	const uint8_t *ports = NULL;

	switch (flow->protocol) {
	case PROTOCOL_TCP:
	case PROTOCOL_UDP:
	case PROTOCOL_DCCP:
	case PROTOCOL_ESP:
	case PROTOCOL_SCTP:
	case PROTOCOL_UDPLITE:
		ports = walk_see(walk, 0, 4);
		break;
	case PROTOCOL_AH:
		ports = walk_see(walk, 4, 4);
		break;
	}
	if (ports != NULL)
		store32(flow->ports, load32(ports));
	else
		store32(flow->ports, 0);
}

void flow_dissect(const uint8_t *ip, uint32_t length, enum version version, bool outermost, struct flow *flow)
{
	struct walk walk = {
		.packet = ip,
		.length = length,
		.type = version == VERSION_4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6,
		.outermost = outermost,
	};
	enum step step = STEP_NETWORK;

	*flow = (struct flow){ .source = ip, .destination = ip };
	for (unsigned more = 0; more <= MORE_HEADERS && step != STEP_END; more++) {
		if (step == STEP_NETWORK) {
			step = step_network(&walk, flow);
			if (step != STEP_PROTOCOL)
				continue;
		}
		step = step_protocol(&walk, flow);
		if (!walk.fragment)
			ports_read(&walk, flow);
	}
}
