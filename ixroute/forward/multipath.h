/* Which of several legs does a packet take: a hash of what its flow has in common picks one, so that a flow stays
 * together. What goes into the hash is linux's choice by sysctl (fib_multipath_hash_policy, fib_multipath_hash_fields;
 * net/ipv4/route.c: fib_multipath_hash; net/ipv6/route.c: rt6_multipath_hash); the hash function and its seed are ours,
 * so a flow's leg need not be the one that the kernel would choose. As in linux both directions of a flow have the same
 * hash: the lesser address and the lesser port come first.
 *
 *     policy 0   addresses (IPv6: flow label and next header too); of an ICMP error those of the packet it is about
 *     policy 1   addresses, protocol, ports
 *     policy 2   as 0 but of the packet inside, for IP in IP and GRE; of ICMP errors the outer ones
 *     policy 3   the fields named, of the outer packet and of the one inside
 *
 * Called by worker.c for packets whose adjacency is a group. */
#ifndef IXROUTE_FORWARD_MULTIPATH_H
#define IXROUTE_FORWARD_MULTIPATH_H

#include <stdatomic.h>
#include <stdint.h>

#include "forward/packet.h"

/* Bits of fib_multipath_hash_fields (include/net/ip_fib.h). */
#define HASH_SOURCE 0x001u
#define HASH_DESTINATION 0x002u
#define HASH_PROTOCOL 0x004u
#define HASH_LABEL 0x008u
#define HASH_SOURCE_PORT 0x010u
#define HASH_DESTINATION_PORT 0x020u
#define HASH_INNER_SHIFT 6u /* the same six again, of the packet inside */
#define HASH_OUTER_FIELDS 0x03fu
#define HASH_ALL_FIELDS 0xfffu
#define HASH_DEFAULT_FIELDS 0x007u

#define HASH_POLICY_L3 0u
#define HASH_POLICY_L4 1u
#define HASH_POLICY_INNER_L3 2u
#define HASH_POLICY_CUSTOM 3u

/* The part of the dataplane that belongs to this. */
struct multipath {
	_Atomic uint32_t how[2]; /* IPv4, IPv6: policy, and fields from bit 8 on */
	uint64_t seed[4];	 /* does not change while workers run */
};

/* What is hashed; fields that do not count are zero. */
struct multipath_key {
	uint8_t source[16], destination[16]; /* wire order; IPv4 addresses fill the first 4 bytes */
	uint8_t ports[4];		     /* source, destination: wire order */
	uint32_t label;
	uint8_t protocol;
	uint8_t version; /* enum version of the addresses, 0: there is nothing to hash */
	uint8_t unused[2];
};

/* Fills keys; returns how many (2 for policy 3: outer and inner; else 1). length, version: of a validated packet. */
unsigned multipath_keys(uint32_t policy, uint32_t fields, const uint8_t *ip, uint32_t length, enum version version,
			struct multipath_key keys[2]);
/* 31 bits. */
uint32_t multipath_hash(const struct multipath *multipath, const uint8_t *ip, uint32_t length, enum version version);
void multipath_seed(struct multipath *multipath, uint64_t seed);

struct adjacency_table;

/* For a packet whose adjacency is a group: *word becomes its leg's; returns the leg's mtu. When the group has gone since
 * the word was loaded: what is in its place; never a word that says group. */
uint32_t multipath_choose(const struct multipath *multipath, struct adjacency_table *table, const struct packet *packet,
			  uint64_t *word);
/* For source validation of a packet that came in by `interface`: the word of a leg there, or, when there is none, one
 * that says multipath_route; when the group has gone, what is in its place. (linux: fib_info_nh_uses_dev) */
uint64_t multipath_source(const struct adjacency_table *table, uint32_t index, uint32_t interface);

#endif
