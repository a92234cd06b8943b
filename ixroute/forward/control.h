/* What a router must hear whatever else happens: routing protocols, and neighbour discovery. Packets to the router
 * are sorted by this before they queue for the kernel, so that a flood of others leaves their token buckets full. */
#ifndef IXROUTE_FORWARD_CONTROL_H
#define IXROUTE_FORWARD_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "forward/packet.h"

#define PROTOCOL_ICMP 1
#define PROTOCOL_IGMP 2
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMP6 58
#define PROTOCOL_OSPF 89
#define PROTOCOL_PIM 103
#define PROTOCOL_VRRP 112

static inline bool control_tcp_port(unsigned port)
{
	return port == 179 /* BGP */ || port == 646 /* LDP */;
}

static inline bool control_udp_port(unsigned port)
{
	switch (port) {
	case 520: /* RIP */
	case 521: /* RIPng */
	case 646: /* LDP */
	case 3784: /* BFD, RFC 5881 */
	case 3785: /* its echo */
	case 4784: /* BFD over several hops, RFC 5883 */
	case 6784: /* BFD on a link of a LAG, RFC 7130 */
		return true;
	default:
		return false;
	}
}

/* payload: behind the IP header (and not of a later fragment), `bytes` long. */
static inline bool control_protocol(unsigned protocol, const uint8_t *payload, unsigned bytes)
{
	switch (protocol) {
	case PROTOCOL_OSPF:
	case PROTOCOL_VRRP:
	case PROTOCOL_PIM:
	case PROTOCOL_IGMP:
		return true;
	case PROTOCOL_TCP: /* we may be the side that called */
		return bytes >= 4 && (control_tcp_port(load16_be(payload)) || control_tcp_port(load16_be(payload + 2)));
	case PROTOCOL_UDP:
		return bytes >= 4 && control_udp_port(load16_be(payload + 2));
	default:
		return false;
	}
}

#endif
