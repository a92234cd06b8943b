/* Which flow does a packet belong to: the fields that tell flows apart, found as linux's flow dissector finds them
 * (net/core/flow_dissector.c), since which packets stay together follows from that. Used by multipath.c. */
#ifndef IXROUTE_FORWARD_FLOW_H
#define IXROUTE_FORWARD_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "forward/packet.h"

struct flow {
	const uint8_t *source, *destination; /* addresses in the packet, as long as `version` says */
	uint8_t ports[4];		     /* source and destination as on the wire; an SPI of ESP or AH; or zeros */
	uint32_t label;			     /* IPv6 flow label of the innermost header that has one, else 0 */
	uint8_t protocol;		     /* behind the last header that was understood */
	uint8_t version;		     /* enum version, of the addresses */
	bool encapsulated;		     /* IP in IP, or GRE, was met */
};

/* length: of the IP packet, by its header; nothing behind it is read. Its first header is sound (ip4_validate,
 * ip6_validate); of all others nothing is believed, and what cannot be read leaves the fields found so far.
 * outermost: stop at the first header that carries another packet, instead of going on into that. */
void flow_dissect(const uint8_t *ip, uint32_t length, enum version version, bool outermost, struct flow *flow);

#endif
