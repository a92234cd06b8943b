/* Checksums and tags on packets that the client left unfinished (tx_offload.h). */
#include "emulator/tx_offload.h"

#include <string.h>

#include "emulator/sums.h"

static void store_sum(uint8_t *at, uint16_t sum)
{
	memcpy(at, &sum, 2);
}

static bool ip_checksum(uint8_t *packet, uint32_t len, const struct tx_context *c)
{
	uint8_t *ip = packet + c->mac_bytes;

	if (c->ip_bytes < 20 || (uint32_t)c->mac_bytes + c->ip_bytes > len)
		return false;
	store_sum(ip + 10, 0);
	store_sum(ip + 10, (uint16_t)~sum_fold(sum_words(ip, c->ip_bytes, 0)));
	return true;
}

static bool sctp_checksum(uint8_t *l4, uint32_t len)
{
	uint32_t crc = 0;

	if (len < 12)
		return false;
	memcpy(l4 + 8, &crc, 4);
	crc = crc32c(l4, len, 0);
	memcpy(l4 + 8, &crc, 4);
	return true;
}

/* The field holds the pseudo header's sum, which goes into the result with the rest. */
static bool l4_checksum(uint8_t *packet, uint32_t len, const struct tx_context *c)
{
	uint32_t at = (uint32_t)c->mac_bytes + c->ip_bytes, field;
	uint16_t sum;

	if (at > len)
		return false;
	if (c->l4_type == L4T_SCTP)
		return sctp_checksum(packet + at, len - at);
	if (c->l4_type != L4T_TCP && c->l4_type != L4T_UDP)
		return false;
	field = at + (c->l4_type == L4T_TCP ? 16 : 6);
	if (field + 2 > len)
		return false;
	sum = (uint16_t)~sum_fold(sum_words(packet + at, len - at, 0));
	store_sum(packet + field, !sum && c->l4_type == L4T_UDP ? 0xFFFF : sum);
	return true;
}

bool tx_checksums(uint8_t *packet, uint32_t len, const struct tx_context *c, unsigned popts)
{
	if (popts & POPTS_IXSM && !ip_checksum(packet, len, c))
		return false;
	return !(popts & POPTS_TXSM) || l4_checksum(packet, len, c);
}

bool tx_legacy_checksum(uint8_t *packet, uint32_t len, uint32_t css, uint32_t cso)
{
	if (css >= len || cso + 2 > len)
		return false;
	store_sum(packet + cso, (uint16_t)~sum_fold(sum_words(packet + css, len - css, 0)));
	return true;
}

uint8_t *tx_insert_tag(uint8_t *packet, uint16_t type, uint16_t tci)
{
	const uint8_t tag[4] = {(uint8_t)(type >> 8), (uint8_t)type, (uint8_t)(tci >> 8), (uint8_t)tci};

	memmove(packet - 4, packet, 12);
	memcpy(packet + 8, tag, 4);
	return packet - 4;
}
