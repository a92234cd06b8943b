/* Filters (filter.h): addresses, tags, ethertypes, 5-tuples. Rebuilt from the registers by card_filters_changed.
 *
 * ASSUMED: the unicast hash table (PFUTA) counts whenever it has a bit set, with the bits of the address that
 * MCSTCTRL.MO selects; the datasheet names no other switch outside of virtualization.
 */
#include "emulator/filter.h"

#include <string.h>

/* Fields of FTQF, SDPQF and L34TIMIR (8.2.3.7.15-19). A set mask bit: that field is not compared. */
#define MASK_SOURCE 1u
#define MASK_DESTINATION 2u
#define MASK_SOURCE_PORT 4u
#define MASK_DESTINATION_PORT 8u
#define MASK_PROTOCOL 16u

/* A packet has more bytes than an address. */
static uint64_t mac_of(const uint8_t *packet)
{
	uint64_t mac;

	memcpy(&mac, packet, 8);
	return mac & 0xFFFFFFFFFFFFull;
}

static void rebuild_tuples(struct card *card)
{
	struct rx_tables *tables = &card->tables;

	tables->tuples = 0;
	for (unsigned i = 0; i < 128; i++) {
		uint32_t ftqf = reg(card, REG_FTQF + 4 * i);

		if (!(ftqf & FTQF_ENABLE))
			continue;
		tables->tuple[tables->tuples++] = (struct five_tuple){
			.source = reg(card, REG_SAQF + 4 * i),
			.destination = reg(card, REG_DAQF + 4 * i),
			.ports = reg(card, REG_SDPQF + 4 * i),
			.protocol = ftqf & 3,
			.priority = ftqf >> 2 & 7,
			.mask = ftqf >> 25 & 31,
			.queue = reg(card, REG_L34TIMIR + 4 * i) >> 21 & 0x7F,
		};
	}
}

void filter_rebuild(struct card *card)
{
	struct rx_tables *tables = &card->tables;

	tables->macs = 0;
	for (unsigned i = 0; i < MAC_ADDRESSES; i++) {
		uint32_t low = reg(card, REG_RAL + 8 * i), high = reg(card, REG_RAL + 8 * i + 4);

		if (high & RAH_AV)
			tables->mac[tables->macs++] = (uint64_t)(high & 0xFFFF) << 32 | low;
	}
	tables->ethertypes = false;
	for (unsigned i = 0; i < 8; i++) {
		tables->ethertype[i] = reg(card, REG_ETQF + 4 * i);
		tables->ethertype_queue[i] = reg(card, REG_ETQS + 4 * i);
		tables->ethertypes |= (tables->ethertype[i] & ETQF_FILTER_EN) != 0;
	}
	rebuild_tuples(card);
	rss_rebuild(card);
}

/* 12 of the 48 bits, MO = 0: 47:36, 1: 46:35, 2: 45:34, 3: 43:32 (8.2.3.7.4). */
static bool hash_bit(const struct card *card, uint32_t table, const uint8_t *mac)
{
	unsigned high = (unsigned)mac[4] | (unsigned)mac[5] << 8;
	static const uint8_t shifts[4] = {4, 3, 2, 0};
	unsigned shift = shifts[card->control.mcstctrl & MCSTCTRL_MO];
	unsigned hash = high >> shift & 0xFFF;

	return reg(card, table + 4 * (hash >> 5)) >> (hash & 31) & 1;
}

static bool exact(const struct rx_tables *tables, uint64_t mac)
{
	for (unsigned i = 0; i < tables->macs; i++)
		if (tables->mac[i] == mac)
			return true;
	return false;
}

static bool mac_accepted(const struct card *card, const uint8_t *packet)
{
	uint32_t fctrl = card->control.fctrl;
	uint64_t mac = mac_of(packet);

	if (mac == 0xFFFFFFFFFFFFull)
		return fctrl & FCTRL_BAM;
	if (packet[0] & 1)
		return fctrl & FCTRL_MPE || exact(&card->tables, mac) ||
		       (card->control.mcstctrl & MCSTCTRL_MFE && hash_bit(card, REG_MTA, packet));
	return fctrl & FCTRL_UPE || exact(&card->tables, mac) || hash_bit(card, REG_PFUTA, packet);
}

bool filter_accepts(const struct card *card, const uint8_t *packet, bool tagged, uint16_t tci)
{
	uint32_t vlnctrl = card->control.vlnctrl;

	if (!mac_accepted(card, packet))
		return false;
	if (!tagged)
		return true;
	if (vlnctrl & VLNCTRL_CFIEN && (tci >> 12 & 1) != (vlnctrl & VLNCTRL_CFI ? 1 : 0))
		return false;
	return !(vlnctrl & VLNCTRL_VFE) || reg(card, REG_VFTA + 4 * (tci >> 5 & 127u)) >> (tci & 31) & 1;
}

int filter_ethertype(const struct rx_tables *tables, const struct parsed *p, int *queue)
{
	*queue = -1;
	if (!tables->ethertypes)
		return -1;
	for (int i = 0; i < 8; i++) {
		uint32_t filter = tables->ethertype[i], target = tables->ethertype_queue[i];

		if (!(filter & ETQF_FILTER_EN) || (filter & 0xFFFF) != p->ethertype)
			continue;
		if (target & ETQS_QUEUE_EN)
			*queue = (int)(target >> ETQS_QUEUE_SHIFT & 0x7F);
		return i;
	}
	return -1;
}

static bool tuple_matches(const struct five_tuple *t, const struct parsed *p, const uint8_t *packet)
{
	uint32_t source, destination, ports = 0, kinds[] = {TYPE_TCP, TYPE_UDP, TYPE_SCTP};
	unsigned other = !(p->type & (TYPE_TCP | TYPE_UDP | TYPE_SCTP));

	memcpy(&source, packet + p->l3 + 12, 4);
	memcpy(&destination, packet + p->l3 + 16, 4);
	if (p->l4)
		memcpy(&ports, packet + p->l4, 4);
	if (!(t->mask & MASK_SOURCE) && source != t->source)
		return false;
	if (!(t->mask & MASK_DESTINATION) && destination != t->destination)
		return false;
	if (!(t->mask & MASK_SOURCE_PORT) && (!p->l4 || (ports ^ t->ports) & 0x0000FFFF))
		return false;
	if (!(t->mask & MASK_DESTINATION_PORT) && (!p->l4 || (ports ^ t->ports) & 0xFFFF0000))
		return false;
	if (t->mask & MASK_PROTOCOL)
		return true;
	return t->protocol == 3 ? other : (p->type & kinds[t->protocol]) != 0;
}

int filter_five_tuple(const struct rx_tables *tables, const struct parsed *p, const uint8_t *packet)
{
	const struct five_tuple *best = NULL;

	if (!tables->tuples || !(p->type & TYPE_IP4) || p->fragment)
		return -1;
	for (unsigned i = 0; i < tables->tuples; i++) {
		const struct five_tuple *t = &tables->tuple[i];

		if ((!best || t->priority > best->priority) && tuple_matches(t, p, packet))
			best = t;
	}
	return best ? best->queue : -1;
}
