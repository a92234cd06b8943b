/* A packet between receipt and verdict: what the stops of a packet's way (eth.h, ip4.h, ip6.h) tell each other.
 *
 * Each stop answers with a reason number: REASON_FORWARD means "go on", anything else ends the packet there.
 * Nothing is written to the packet before its verdict is known, so that a punted packet is the one received.
 */
#ifndef IXROUTE_FORWARD_PACKET_H
#define IXROUTE_FORWARD_PACKET_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "forward/reasons.h"

#define ETH_HEADER_BYTES 14u
#define VLAN_TAG_BYTES 4u
#define MAC_MASK 0xffffffffffffull

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a MAC is loaded as the low 48 bits of a word");

enum version { VERSION_NONE, VERSION_4, VERSION_6 };

#define MARK_GROUP 1u		  /* destination MAC is broadcast or multicast */
#define MARK_OPTIONS 2u		  /* IPv4 options, or an IPv6 hop-by-hop header: only the kernel reads those */
#define MARK_SOURCE 4u		  /* the source is looked up too */
#define MARK_LINK_LOCAL 8u	  /* IPv6: source or destination in fe80::/10 */
#define MARK_FROM_UNSPECIFIED 16u /* IPv6: source is :: */
#define MARK_FROM_LOOPBACK 32u	  /* IPv4: source is in 127/8 and route_localnet is on */

struct view;
struct vlan_table;

/* An interface that packets of a burst came in by, read once per burst: a change made meanwhile is seen by the next. */
struct ingress {
	uint64_t mac;		      /* as in an adjacency word */
	const _Atomic uint64_t *vlan; /* bit per VLAN id on it that is the kernel's */
	struct vlan_table *above[2];  /* and those that are ours */
	const _Atomic uint64_t *local_filter;
	const struct view *view[2]; /* by VIEW_OF_IP4, VIEW_OF_IP6: what its packets look up */
	uint32_t flags;	    /* PORT_* */
	uint32_t interface; /* number */
};

struct packet {
	const struct ingress *in; /* the interface it came in by; lives as long as its burst */
	uint8_t *ip;		  /* network header */
	uint32_t index;	       /* adjacency of the destination */
	uint32_t source_index; /* and of the source, with MARK_SOURCE */
	uint16_t length;       /* of the IP packet, by its header; never longer than the frame */
	uint8_t reason;	       /* verdict so far */
	uint8_t version;       /* enum version: in whose table to look */
	uint8_t marks;
};

/* Is `action` a way out by which packets leave now, or will once the kernel has done its part? Then TTL and length
 * are judged before it; other actions (no route, unreachable, blackhole) come before TTL, as in linux. */
static inline bool action_is_path(unsigned action)
{
	return action == REASON_FORWARD || action == REASON_unresolved_neigh || action == REASON_external_route ||
	       action == REASON_multipath_route;
}

/* Packets are not aligned; compilers turn each of these into one instruction. */
static inline uint16_t load16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint32_t load32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint64_t load64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline void store16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline void store32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline void store64(uint8_t *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline uint16_t load16_be(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

#endif
