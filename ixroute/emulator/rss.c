/* RSS (rss.h): called for each packet that no filter has given a queue.
 *
 * The hash is linear: the result is the exclusive or of what each byte at each place contributes, and that is a table of
 * 36 places (the longest input: two IPv6 addresses and two ports) by 256 values, made anew when the key changes.
 */
#include "emulator/rss.h"

#include <string.h>

#define PLACES 36u

enum rss_type {
	RSS_NONE = 0,
	RSS_TCP4 = 1,
	RSS_IP4 = 2,
	RSS_TCP6 = 3,
	RSS_IP6 = 5,
	RSS_UDP4 = 7,
	RSS_UDP6 = 8,
};

/* The 32 bits of the key that begin at bit `at`. */
static uint32_t key_window(const uint8_t key[40], unsigned at)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < 5; i++)
		bits = bits << 8 | key[at / 8 + i];
	return (uint32_t)(bits >> (8 - at % 8));
}

static void make_table(struct rx_tables *tables)
{
	for (unsigned place = 0; place < PLACES; place++) {
		uint32_t *row = tables->toeplitz[place];

		row[0] = 0;
		for (unsigned bit = 0; bit < 8; bit++) {
			uint32_t window = key_window(tables->key, 8 * place + bit);
			unsigned value = 0x80u >> bit;

			/* From the highest bit down: each doubles the entries that are there. */
			for (unsigned other = 0; other < 256; other += 2 * value)
				row[other + value] = row[other] ^ window;
		}
	}
}

void rss_rebuild(struct card *card)
{
	struct rx_tables *tables = &card->tables;
	uint8_t key[40];

	for (unsigned i = 0; i < 40; i++)
		key[i] = (uint8_t)(reg(card, REG_RSSRK + (i & ~3u)) >> (8 * (i & 3)));
	for (unsigned i = 0; i < 128; i++)
		tables->reta[i] = (uint8_t)(reg(card, REG_RETA + (i & ~3u)) >> (8 * (i & 3)) & 0xF);
	tables->mrqc = reg(card, REG_MRQC);
	if (memcmp(key, tables->key, sizeof(key)) != 0) {
		memcpy(tables->key, key, sizeof(key));
		make_table(tables);
	}
}

static inline uint32_t mix(const struct rx_tables *tables, unsigned place, const uint8_t *bytes, unsigned n, uint32_t hash)
{
	for (unsigned i = 0; i < n; i++)
		hash ^= tables->toeplitz[place + i][bytes[i]];
	return hash;
}

/* Which of the enabled kinds of hash fits best; fragments and other protocols have their addresses only. */
static unsigned choose(uint32_t mrqc, const struct parsed *p)
{
	bool ports = p->l4 && !p->fragment;

	if (p->type & TYPE_IP4) {
		if (ports && p->type & TYPE_TCP && mrqc & MRQC_TCP4)
			return RSS_TCP4;
		if (ports && p->type & TYPE_UDP && mrqc & MRQC_UDP4)
			return RSS_UDP4;
		return mrqc & MRQC_IP4 ? RSS_IP4 : RSS_NONE;
	}
	if (ports && p->type & TYPE_TCP && mrqc & MRQC_TCP6)
		return RSS_TCP6;
	if (ports && p->type & TYPE_UDP && mrqc & MRQC_UDP6)
		return RSS_UDP6;
	return mrqc & MRQC_IP6 ? RSS_IP6 : RSS_NONE;
}

unsigned rss_hash(const struct rx_tables *tables, const struct parsed *p, const uint8_t *packet, uint32_t *hash)
{
	unsigned type;

	*hash = 0;
	if ((tables->mrqc & MRQC_MRQE) != MRQE_RSS || !p->l3)
		return RSS_NONE;
	type = choose(tables->mrqc, p);
	if (type == RSS_NONE)
		return type;
	if (p->type & TYPE_IP4) {
		*hash = mix(tables, 0, packet + p->l3 + 12, 8, 0);
		if (type != RSS_IP4)
			*hash = mix(tables, 8, packet + p->l4, 4, *hash);
	} else {
		*hash = mix(tables, 0, packet + p->l3 + 8, 32, 0);
		if (type != RSS_IP6)
			*hash = mix(tables, 32, packet + p->l4, 4, *hash);
	}
	return type;
}
