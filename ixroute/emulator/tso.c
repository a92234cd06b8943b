/* Segmentation (7.2.4; tx_offload.h): one packet of the client becomes many, each with the headers of the first.
 *
 * What changes from segment to segment (7.2.4.6): IPv4 total length and identification, or IPv6 payload length; TCP
 * sequence number and flags (DTXTCPFLGL/H: the flags that the first, the last and those between keep); UDP length; both
 * checksums. The client's TCP checksum field holds the pseudo header's sum without a length.
 */
#include <string.h>

#include "emulator/sums.h"
#include "emulator/tx_offload.h"

/* DTXTCPFLGL and DTXTCPFLGH after a reset (8.2.3.9.3-4). */
#define FLAGS_FIRST 0xFF6u
#define FLAGS_BETWEEN 0xF76u
#define FLAGS_LAST 0xF7Fu

static void put_be16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static uint32_t get_be16(const uint8_t *at)
{
	return (uint32_t)(at[0] << 8 | at[1]);
}

static bool headers_fit(const struct tx_context *c)
{
	unsigned l4_least = c->l4_type == L4T_TCP ? 20 : 8;

	return c->mac_bytes >= 14 && c->ip_bytes >= (c->ip4 ? 20 : 40) && c->l4_bytes >= l4_least && c->mss &&
	       (c->l4_type == L4T_TCP || c->l4_type == L4T_UDP);
}

bool tso_begin(struct tso *tso, uint32_t len)
{
	const struct tx_context *c = &tso->context;
	uint32_t headers = (uint32_t)c->mac_bytes + c->ip_bytes + c->l4_bytes;
	const uint8_t *l4 = tso->bytes + c->mac_bytes + c->ip_bytes;

	if (!headers_fit(c) || headers >= len || headers + c->mss > LONGEST_FRAME)
		return false;
	tso->headers = headers;
	tso->payload = len - headers;
	tso->done = 0;
	tso->id = c->ip4 ? get_be16(tso->bytes + c->mac_bytes + 4) : 0;
	if (c->l4_type == L4T_TCP) {
		tso->sequence = get_be16(l4 + 4) << 16 | get_be16(l4 + 6);
		tso->flags = (uint16_t)(get_be16(l4 + 12) & 0xFFF);
	}
	tso->active = true;
	return true;
}

/* A mask of 0 would take the flags of every segment: a register that nobody has set. */
static uint32_t flags_kept(const struct card *card, bool first, bool last)
{
	uint32_t low = reg(card, REG_DTXTCPFLGL), high = reg(card, REG_DTXTCPFLGH);
	uint32_t masks[3] = {low & 0xFFF, low >> 16 & 0xFFF, high & 0xFFF};

	/* ASSUMED: a packet of one segment is a last one, whose FIN and PSH stay. */
	if (last)
		return masks[2] ? masks[2] | (first ? 0x80 : 0) : FLAGS_LAST | (first ? 0x80 : 0);
	if (first)
		return masks[0] ? masks[0] : FLAGS_FIRST;
	return masks[1] ? masks[1] : FLAGS_BETWEEN;
}

static void set_ip(const struct tso *tso, uint8_t *ip, uint32_t number, uint32_t n)
{
	const struct tx_context *c = &tso->context;

	if (!c->ip4) {
		put_be16(ip + 4, c->ip_bytes - 40u + c->l4_bytes + n);
		return;
	}
	put_be16(ip + 2, (uint32_t)c->ip_bytes + c->l4_bytes + n);
	put_be16(ip + 4, tso->id + number);
}

static void set_l4(const struct card *card, const struct tso *tso, uint8_t *l4, uint32_t offset, uint32_t n)
{
	const struct tx_context *c = &tso->context;
	uint32_t sequence = tso->sequence + offset, field;
	uint16_t sum, len_be;
	uint32_t flags;

	if (c->l4_type == L4T_TCP) {
		put_be16(l4 + 4, sequence >> 16);
		put_be16(l4 + 6, sequence);
		flags = tso->flags & flags_kept(card, offset == 0, offset + n == tso->payload);
		put_be16(l4 + 12, (get_be16(l4 + 12) & 0xF000) | flags);
		field = 16;
	} else {
		put_be16(l4 + 4, c->l4_bytes + n);
		field = 6;
	}
	if (!(tso->popts & POPTS_TXSM))
		return;
	put_be16((uint8_t *)&len_be, c->l4_bytes + n);
	sum = (uint16_t)~sum_fold(sum_words(l4, c->l4_bytes + n, len_be));
	if (!sum && c->l4_type == L4T_UDP)
		sum = 0xFFFF;
	memcpy(l4 + field, &sum, 2);
}

uint32_t tso_segment(const struct card *card, const struct tso *tso, uint32_t index, uint8_t *out)
{
	const struct tx_context *c = &tso->context;
	uint64_t offset = tso->done + (uint64_t)index * c->mss;
	uint32_t n;

	if (offset >= tso->payload)
		return 0;
	n = tso->payload - (uint32_t)offset < c->mss ? tso->payload - (uint32_t)offset : c->mss;
	memcpy(out, tso->bytes, tso->headers);
	memcpy(out + tso->headers, tso->bytes + tso->headers + offset, n);
	set_ip(tso, out + c->mac_bytes, (uint32_t)offset / c->mss, n);
	set_l4(card, tso, out + c->mac_bytes + c->ip_bytes, (uint32_t)offset, n);
	if (tso->popts & POPTS_IXSM)
		tx_checksums(out, tso->headers, c, POPTS_IXSM);
	return tso->headers + n;
}
