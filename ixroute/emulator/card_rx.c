/* Receive: from the wire through the MAC's rules, the filters and the queues' rings into the client's memory (7.1).
 * Called by the engine once a pass, under its lock.
 *
 * A packet meets, in this order: size (MAXFRS, JUMBOEN), statistics of the MAC, address and tag filters, then the parser,
 * the queue (ETQF, 5-tuple, RSS), the checksums and the ring. A queue without descriptors loses the packet when it is told
 * to (DROP_EN); if not the packet waits in the packet buffer and everything behind it too, and what finds the packet buffer
 * full is lost and counted in MPC.
 *
 * ASSUMED: a descriptor is written back for itself, not in groups; a packet is written when all its descriptors are there.
 */
#include "emulator/card_state.h"

#include <string.h>

#include "emulator/filter.h"
#include "emulator/parse.h"
#include "emulator/rss.h"
#include "emulator/rx_deliver.h"
#include "emulator/sums.h"

/* Registers that hold for a burst. */
static void read_control(struct card *card)
{
	struct rx_control *c = &card->control;
	uint32_t maxfrs = reg(card, REG_MAXFRS) >> MAXFRS_MFS_SHIFT;

	c->fctrl = reg(card, REG_FCTRL);
	c->vlnctrl = reg(card, REG_VLNCTRL);
	c->mcstctrl = reg(card, REG_MCSTCTRL);
	c->rxcsum = reg(card, REG_RXCSUM);
	c->hlreg0 = reg(card, REG_HLREG0);
	c->psrtype = reg(card, REG_PSRTYPE);
	c->vet = (uint16_t)c->vlnctrl;
	c->longest = c->hlreg0 & HLREG0_JUMBOEN ? maxfrs : 1518;
}

/* Counts and judges a packet at the MAC; true: it goes to the packet buffer. */
static bool mac_accepts(struct card *card, const uint8_t *packet, uint32_t len)
{
	uint64_t *stats = card->stats;
	uint32_t bytes = len + FCS_BYTES;
	bool tagged = len >= 18 && parse_be16(packet + 12) == card->control.vet;

	stats[STAT_TPR]++;
	stats[STAT_TOR] += bytes;
	if (len < SHORTEST_FRAME) {
		stats[STAT_RUC]++;
		return false;
	}
	if (bytes > card->control.longest + (tagged ? 4u : 0u) || len > LONGEST_FRAME) {
		stats[STAT_ROC]++;
		return false;
	}
	stats[STAT_GPRC]++;
	stats[STAT_GORC] += bytes;
	stats[STAT_PRC + stats_size_bin(bytes)]++;
	if (!filter_accepts(card, packet, tagged, tagged ? parse_be16(packet + 14) : 0))
		return false;
	if (packet[0] & 1)
		stats[memcmp(packet, "\xFF\xFF\xFF\xFF\xFF\xFF", 6) == 0 ? STAT_BPRC : STAT_MPRC]++;
	return true;
}

/* Upper half of the hash word without PCSD: IP identification and checksum of a UDP fragment (7.1.2.8.4, 7.1.11). */
static void fragment_checksum(const struct card *card, struct rx_verdict *v, const uint8_t *packet)
{
	const struct parsed *p = &v->parsed;
	uint32_t sum, headers;

	if (!(p->type & TYPE_IP4))
		return;
	v->low |= (uint64_t)parse_be16(packet + p->l3 + 4) << 32;
	if (!p->fragment || packet[p->l3 + 9] != 17 || !(card->control.rxcsum & RXCSUM_IPPCSE) || !p->l4_end)
		return;
	headers = (packet[p->l3] & 15) * 4u;
	sum = sum_fold(sum_words(packet + p->l3 + headers, p->l4_end - p->l3 - headers, 0));
	v->low |= (uint64_t)sum << 48;
	if (p->first_fragment && p->l4 && (packet[p->l4 + 6] || packet[p->l4 + 7]))
		v->status |= RX_UDPV;
}

/* Which queue, and what the write-back descriptor says. */
static void classify(const struct card *card, const uint8_t *packet, uint32_t len, struct rx_verdict *v)
{
	struct parsed *p = &v->parsed;
	uint32_t hash = 0;
	unsigned rss;
	int filter, queue;

	parse_packet(p, packet, len, card->control.vet);
	v->status = p->tagged ? RX_VP : 0;
	filter = filter_ethertype(&card->tables, p, &queue);
	if (queue < 0)
		queue = filter_five_tuple(&card->tables, p, packet);
	rss = rss_hash(&card->tables, p, packet, &hash);
	if (queue < 0)
		queue = rss ? card->tables.reta[hash & 127] : 0;
	v->queue = (unsigned)queue;
	v->low = filter >= 0 ? TYPE_L2 | (uint32_t)filter << 4 : p->type;
	if (p->type & TYPE_IP4)
		v->status |= p->ip_ok ? RX_IPCS : RX_IPCS | RX_IPE;
	if (p->l4 && !p->fragment) {
		v->status |= p->type & TYPE_UDP ? RX_L4CS | RX_UDPCS : RX_L4CS;
		v->status |= parse_l4_checksum_ok(p, packet) ? 0 : RX_TCPE;
	}
	if (card->control.rxcsum & RXCSUM_PCSD)
		v->low |= rss | (uint64_t)hash << 32;
	else
		fragment_checksum(card, v, packet);
}

/* Afterwards: the heads are shown, packets counted, interrupts caused. */
static void finish_queues(struct card *card)
{
	for (unsigned i = 0; i < card->n_touched; i++) {
		unsigned number = card->touched[i], set = stat_set(card, REG_RQSMR, number);
		struct rx_queue *q = &card->rx[number];

		q->touched = false;
		card->stats[STAT_QPRDC + set] += q->dropped;
		card->stats[STAT_QPRC + set] += q->packets;
		card->stats[STAT_QBRC + set] += q->bytes;
		card->stats[STAT_RXDGPC] += q->packets;
		card->stats[STAT_RXDGBC] += q->bytes;
		card->counters.rx_packets += q->packets;
		if (q->packets && q->ring.state != QUEUE_OFF) {
			ring_publish_head(&q->ring);
			irq_queue(card, false, number);
		}
	}
	card->n_touched = 0;
}

/* false: its queue has no descriptors and must not lose it. */
static bool to_queue(struct card *card, const uint8_t *packet, uint32_t len)
{
	struct rx_verdict v;
	struct rx_queue *q;

	classify(card, packet, len, &v);
	q = rx_touch(card, v.queue);
	switch (rx_deliver(card, q, packet, len, &v)) {
	case RX_DELIVERED:
		q->packets++;
		return true;
	case RX_FULL:
		if (!q->drop)
			return false;
		break;
	case RX_LOST:
		break;
	}
	q->dropped++;
	return true;
}

/* Packets that waited, as far as there are descriptors. */
static unsigned drain_buffer(struct card *card)
{
	unsigned n = 0;

	for (; card->buffer.packets && n < WIRE_BURST; n++) {
		uint32_t len;
		const uint8_t *packet = packet_buffer_first(&card->buffer, &len);

		if (!to_queue(card, packet, len))
			break;
		packet_buffer_drop_first(&card->buffer);
	}
	return n;
}

static void to_buffer(struct card *card, const uint8_t *packet, uint32_t len)
{
	if (packet_buffer_put(&card->buffer, reg(card, REG_RXPBSIZE) & RXPBSIZE_BYTES, packet, len))
		return;
	card->stats[STAT_MPC]++;
	irq_other(card, EICR_RX_MISS);
}

/* In the order of their arrival: behind packets that wait there is only the packet buffer. */
static void receive(struct card *card, const struct wire_packet *packets, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *packet = packets[i].data;
		uint32_t len = packets[i].len;

		if (i + 4 < n)
			__builtin_prefetch(packets[i + 4].data);
		if (!mac_accepts(card, packet, len))
			continue;
		if (card->buffer.packets || !to_queue(card, packet, len))
			to_buffer(card, packet, len);
	}
}

static bool receiver_on(const struct card *card)
{
	return reg(card, REG_RXCTRL) & RXCTRL_RXEN && card->link;
}

bool card_hears(const struct card *card)
{
	return card->wire && (!card->wire->waits || receiver_on(card));
}

unsigned card_rx_pass(struct card *card, uint64_t now_ns)
{
	struct wire_packet packets[WIRE_BURST];
	unsigned n = 0, drained = 0;

	if (card_hears(card))
		n = card->wire->ops->receive(card->wire, packets, WIRE_BURST);
	if (!n && !card->buffer.packets)
		return 0;
	if (!receiver_on(card)) {
		packet_buffer_clear(&card->buffer);
		return n;
	}
	read_control(card);
	if (card->buffer.packets)
		drained = drain_buffer(card);
	if (!(card->control.hlreg0 & HLREG0_LPBK))
		receive(card, packets, n);
	finish_queues(card);
	irq_update(card, now_ns);
	return n + drained;
}

/* What the transmitter sends with HLREG0.LPBK: comes back through the packet buffer, whose queues are served by the next
 * pass. */
void card_rx_loop(struct card *card, const struct wire_packet *packets, unsigned n)
{
	if (!receiver_on(card))
		return;
	read_control(card);
	for (unsigned i = 0; i < n; i++)
		if (mac_accepts(card, packets[i].data, packets[i].len))
			to_buffer(card, packets[i].data, packets[i].len);
}

/* Whether the first packet that waits could go on. */
bool card_rx_has_work(const struct card *card)
{
	struct rx_verdict v;
	const struct rx_queue *q;
	const uint8_t *packet;
	uint32_t len;

	if (!card->buffer.packets)
		return false;
	packet = packet_buffer_first(&card->buffer, &len);
	classify(card, packet, len, &v);
	q = &card->rx[v.queue];
	return q->ring.state != QUEUE_RUNS || ring_tail(&q->ring) != q->tail || ring_reg(&q->ring, QUEUE_HEAD) != q->ring.head ||
	       !(ring_reg(&q->ring, QUEUE_DCTL) & DCTL_ENABLE) || !receiver_on(card);
}
