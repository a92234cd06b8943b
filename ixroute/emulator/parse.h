/* What the card's parser finds in a received packet (7.1.2, 7.1.6.2, 7.1.11). */
#ifndef IXROUTE_EMULATOR_PARSE_H
#define IXROUTE_EMULATOR_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* Packet type of the advanced write-back descriptor, bits 15:4 of its first word. */
#define TYPE_IP4 0x0010u
#define TYPE_IP4_OPTIONS 0x0020u
#define TYPE_IP6 0x0040u
#define TYPE_IP6_EXTENSIONS 0x0080u
#define TYPE_TCP 0x0100u
#define TYPE_UDP 0x0200u
#define TYPE_SCTP 0x0400u
#define TYPE_L2 0x8000u /* an ETQF filter matched: its number in bits 6:4, nothing else */

struct parsed {
	uint32_t type;	    /* TYPE_… */
	uint16_t ethertype; /* behind the tag */
	uint16_t tci;
	uint16_t l3, l4; /* offsets; 0: none */
	uint16_t l4_end; /* where IP says that the packet ends */
	uint16_t payload; /* behind the last header understood */
	bool tagged;
	bool fragment;
	bool first_fragment; /* IPv4, offset 0, more to come */
	bool ip_ok;	     /* IPv4 header checksum; meaningful when type has TYPE_IP4 */
};

/* len: at least 14. vet: VLNCTRL.VET. Headers that are cut short or contradict themselves end the parsing there. */
void parse_packet(struct parsed *p, const uint8_t *packet, uint32_t len, uint16_t vet);
/* The checksum of TCP, UDP or SCTP (p->type says which, p->l4 != 0, no fragment). */
bool parse_l4_checksum_ok(const struct parsed *p, const uint8_t *packet);

static inline uint16_t parse_be16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

#endif
