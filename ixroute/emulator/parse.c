/* The receive parser (parse.h): called for each packet by card_rx.c. Nothing beyond `len` is read, whatever headers say.
 *
 * ASSUMED, where the datasheet leaves it open: extension headers that are walked through are hop-by-hop, routing,
 * destination options and fragment (RFC 8200 section 4), at most eight; behind them TCP and UDP are recognized.
 */
#include "emulator/parse.h"

#include <string.h>

#include "emulator/sums.h"

#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_IP6 0x86DD
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_SCTP 132
#define MOST_EXTENSIONS 8

static void parse_l4(struct parsed *p, const uint8_t *packet, uint32_t at, uint8_t protocol)
{
	uint32_t room = p->l4_end - at, headers;

	if (protocol == PROTOCOL_TCP && room >= 20) {
		headers = (packet[at + 12] >> 4) * 4u;
		if (headers < 20 || headers > room)
			return;
		p->type |= TYPE_TCP;
	} else if (protocol == PROTOCOL_UDP && room >= 8) {
		headers = 8;
		p->type |= TYPE_UDP;
	} else if (protocol == PROTOCOL_SCTP && room >= 12) {
		headers = 12;
		p->type |= TYPE_SCTP;
	} else {
		return;
	}
	p->l4 = (uint16_t)at;
	p->payload = (uint16_t)(at + headers);
}

/* RFC 791 section 3.1. */
static void parse_ip4(struct parsed *p, const uint8_t *packet, uint32_t at, uint32_t len)
{
	uint32_t headers, total, fragment;

	if (len - at < 20 || packet[at] >> 4 != 4)
		return;
	headers = (packet[at] & 15) * 4u;
	total = parse_be16(packet + at + 2);
	if (headers < 20 || headers > len - at)
		return;
	p->type = headers > 20 ? TYPE_IP4_OPTIONS | TYPE_IP4 : TYPE_IP4;
	p->l3 = (uint16_t)at;
	p->payload = (uint16_t)(at + headers);
	p->ip_ok = sum_fold(sum_few(packet + at, headers, 0)) == 0xFFFF;
	if (total < headers || total > len - at)
		return;
	p->l4_end = (uint16_t)(at + total);
	fragment = parse_be16(packet + at + 6);
	p->fragment = fragment & 0x3FFF;
	p->first_fragment = (fragment & 0x3FFF) == 0x2000;
	if (!(fragment & 0x1FFF))
		parse_l4(p, packet, at + headers, packet[at + 9]);
}

/* RFC 8200 sections 3 and 4. */
static void parse_ip6(struct parsed *p, const uint8_t *packet, uint32_t at, uint32_t len)
{
	uint32_t end, next = at + 40;
	uint8_t protocol;

	if (len - at < 40 || packet[at] >> 4 != 6)
		return;
	p->type = TYPE_IP6;
	p->l3 = (uint16_t)at;
	p->payload = (uint16_t)next;
	end = next + parse_be16(packet + at + 4);
	if (end > len)
		return;
	p->l4_end = (uint16_t)end;
	protocol = packet[at + 6];
	for (unsigned i = 0; i < MOST_EXTENSIONS; i++) {
		if (protocol != 0 && protocol != 43 && protocol != 60 && protocol != 44) {
			parse_l4(p, packet, next, protocol);
			return;
		}
		if (end - next < 8)
			return;
		p->type |= TYPE_IP6_EXTENSIONS;
		if (protocol == 44) {
			p->fragment = true;
			return;
		}
		protocol = packet[next];
		if ((packet[next + 1] + 1u) * 8 > end - next)
			return;
		next += (packet[next + 1] + 1u) * 8;
		p->payload = (uint16_t)next;
	}
}

void parse_packet(struct parsed *p, const uint8_t *packet, uint32_t len, uint16_t vet)
{
	uint32_t at = 12;

	memset(p, 0, sizeof(*p));
	p->ethertype = parse_be16(packet + at);
	if (p->ethertype == vet && len >= 18) {
		p->tagged = true;
		p->tci = parse_be16(packet + at + 2);
		at += 4;
		p->ethertype = parse_be16(packet + at);
	}
	at += 2;
	p->payload = (uint16_t)at;
	if (p->ethertype == ETHERTYPE_IP4)
		parse_ip4(p, packet, at, len);
	else if (p->ethertype == ETHERTYPE_IP6)
		parse_ip6(p, packet, at, len);
}

/* RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1: over the addresses, the protocol, the length and the packet. */
static bool internet_ok(const struct parsed *p, const uint8_t *packet)
{
	uint32_t len = (uint32_t)p->l4_end - p->l4;
	uint8_t rest[4] = {(uint8_t)(len >> 8), (uint8_t)len, 0, p->type & TYPE_TCP ? PROTOCOL_TCP : PROTOCOL_UDP};
	uint64_t sum = sum_few(rest, 4, 0);

	sum = p->type & TYPE_IP4 ? sum_few(packet + p->l3 + 12, 8, sum) : sum_few(packet + p->l3 + 8, 32, sum);
	return sum_fold(sum_few(packet + p->l4, len, sum)) == 0xFFFF;
}

bool parse_l4_checksum_ok(const struct parsed *p, const uint8_t *packet)
{
	const uint8_t *l4 = packet + p->l4, zeros[4] = {0};
	uint32_t len = (uint32_t)p->l4_end - p->l4, crc, found;

	/* Erratum: a UDP packet without a checksum is shown as one with a wrong checksum. */
	if (p->type & TYPE_UDP && !l4[6] && !l4[7])
		return false;
	if (!(p->type & TYPE_SCTP))
		return internet_ok(p, packet);
	memcpy(&found, l4 + 8, 4);
	crc = crc32c(l4, 8, 0);
	crc = crc32c(zeros, 4, crc);
	return crc32c(l4 + 12, len - 12, crc) == found;
}
