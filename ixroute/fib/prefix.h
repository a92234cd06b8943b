/* A prefix, IPv4 and IPv6 alike. */
#ifndef IXROUTE_FIB_PREFIX_H
#define IXROUTE_FIB_PREFIX_H

#include <stdint.h>

#define FAMILY_IP4 4
#define FAMILY_IP6 6

/* addr in wire order; an IPv4 address takes addr[0..3]. Bits after len are 0 (prefix_is_valid checks). */
struct prefix {
	uint8_t family; /* FAMILY_IP4 or FAMILY_IP6 */
	uint8_t len;	/* 0..32 or 0..128 */
	uint8_t addr[16];
};

#endif
