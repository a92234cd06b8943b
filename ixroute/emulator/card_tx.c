/* Transmit: descriptors between head and tail become frames on the wire (7.2). Called by the engine once a pass, under its
 * lock.
 *
 * A packet of one descriptor that needs nothing done is offered to the wire where it lies in the client's memory; any other
 * is put together in the engine's arena. Descriptors are done, and reported, when the wire has taken the packet; a packet
 * that is cut into segments is read whole first, its descriptors are done then, and nothing else is sent before its last
 * segment. What a wire does not take is built again by the next pass.
 */
#include "emulator/card_state.h"

#include <string.h>

#include "emulator/sums.h"
#include "emulator/tx_descriptor.h"
#include "emulator/tx_offload.h"

#define SHORTEST_REQUEST 17u /* 7.2.1.1: what is shorter must be padded by the client */
#define TAG_ROOM 4u

/* A burst of one queue on its way to the wire. */
struct burst {
	struct wire_packet packet[WIRE_BURST];
	uint32_t end[WIRE_BURST];   /* the descriptor behind each packet */
	bool report[WIRE_BURST];
	unsigned n;
	uint32_t arena; /* bytes used */
	bool reported;
};

bool card_tx_enabled(const struct card *card)
{
	bool loop = reg(card, REG_HLREG0) & HLREG0_LPBK;

	return card->link && (card->wire || loop) && reg(card, REG_DMATXCTL) & DMATXCTL_TE;
}

static void count_sent(struct card *card, unsigned queue, const struct wire_packet *packets, unsigned n)
{
	uint64_t *stats = card->stats, bytes = 0;
	unsigned set = stat_set(card, REG_TQSM, queue);

	for (unsigned i = 0; i < n; i++) {
		const uint8_t *packet = packets[i].data;
		uint32_t len = packets[i].len + FCS_BYTES;

		bytes += packets[i].len;
		stats[STAT_PTC + stats_size_bin(len)]++;
		if (unlikely(packet[0] & 1))
			stats[memcmp(packet, "\xFF\xFF\xFF\xFF\xFF\xFF", 6) == 0 ? STAT_BPTC : STAT_MPTC]++;
	}
	stats[STAT_GPTC] += n;
	stats[STAT_TPT] += n;
	stats[STAT_GOTC] += bytes + (uint64_t)n * FCS_BYTES;
	stats[STAT_QPTC + set] += n;
	stats[STAT_QBTC + set] += bytes;
	stats[STAT_TXDGPC] += n;
	stats[STAT_TXDGBC] += bytes;
	card->counters.tx_packets += n;
}

/* How many the wire took. */
static unsigned send(struct card *card, unsigned queue, const struct wire_packet *packets, unsigned n)
{
	unsigned taken = n;

	if (reg(card, REG_HLREG0) & HLREG0_LPBK)
		card_rx_loop(card, packets, n);
	else
		taken = card->wire->ops->send(card->wire, packets, n);
	if (taken > n)
		taken = n;
	count_sent(card, queue, packets, taken);
	card->tx_blocked |= taken < n;
	return taken;
}

/* All fragments, one behind the other. */
static int read_fragments(const struct card *card, struct tx_queue *q, const struct tx_request *r, uint8_t *to,
			  uint64_t *fault)
{
	for (unsigned i = 0; i < r->fragments; i++) {
		if (dma_copy_in(&card->dma, &q->data, to, r->fragment[i].iova, r->fragment[i].len, fault))
			return -1;
		to += r->fragment[i].len;
	}
	return 0;
}

/* Without IFCS the client's last four bytes are the frame check sequence: the far end loses a frame whose bytes are wrong,
 * 0 then. */
static uint32_t without_fcs(const uint8_t *packet, uint32_t len)
{
	uint32_t crc, found;

	if (len <= FCS_BYTES)
		return 0;
	memcpy(&found, packet + len - FCS_BYTES, FCS_BYTES);
	crc = crc32_ethernet(packet, len - FCS_BYTES);
	return crc == found ? len - FCS_BYTES : 0;
}

/* What the descriptors ask for, done to the packet at *packet: its length then, 0: it gets lost; -1: forbidden. */
static int32_t finish_packet(const struct card *card, const struct tx_queue *q, const struct tx_request *r,
			     uint8_t **packet)
{
	const struct tx_context *context = &q->context[r->index];
	uint32_t len = r->len, hlreg0 = reg(card, REG_HLREG0);
	int32_t vlan = r->vlan == -2 ? context->vlan : r->vlan;

	if (r->extended && (r->popts & (POPTS_IXSM | POPTS_TXSM) || r->vlan == -2) && !context->valid)
		return -1;
	if (r->extended && !tx_checksums(*packet, len, context, r->popts))
		return -1;
	if (r->ic && !tx_legacy_checksum(*packet, len, r->css, r->cso))
		return -1;
	if (!r->fcs || !(hlreg0 & HLREG0_TXCRCEN))
		len = without_fcs(*packet, len);
	if (vlan >= 0 && len) {
		*packet = tx_insert_tag(*packet, (uint16_t)(reg(card, REG_DMATXCTL) >> DMATXCTL_VT_SHIFT), (uint16_t)vlan);
		len += TAG_ROOM;
	}
	if (hlreg0 & HLREG0_TXPADEN && len && len < SHORTEST_FRAME) {
		memset(*packet + len, 0, SHORTEST_FRAME - len);
		len = SHORTEST_FRAME;
	}
	return (int32_t)len;
}

static bool allowed(const struct tx_request *r)
{
	return r->len >= SHORTEST_REQUEST && (!r->extended || r->payload == r->len) && r->len <= LONGEST_FRAME;
}

static void stop(struct card *card, struct tx_queue *q)
{
	ring_publish_head(&q->ring);
	ring_stop(card, true, (unsigned)(q - card->tx));
}

static bool stop_bad(struct card *card, struct tx_queue *q)
{
	card->counters.bad_descriptors++;
	stop(card, q);
	return false;
}

static bool stop_fault(struct card *card, struct tx_queue *q, uint64_t iova)
{
	card_fault(card, iova);
	stop(card, q);
	return false;
}

static void add(struct burst *b, const struct tx_request *r, const uint8_t *packet, uint32_t len)
{
	b->packet[b->n] = (struct wire_packet){packet, len};
	b->end[b->n] = r->next;
	b->report[b->n++] = r->report;
}

/* Nothing to be done to it, and in one piece: from where it lies. */
static bool add_in_place(const struct card *card, struct tx_queue *q, const struct tx_request *r, struct burst *b)
{
	uint32_t least = reg(card, REG_HLREG0) & HLREG0_TXPADEN ? SHORTEST_FRAME : SHORTEST_REQUEST;
	const uint8_t *packet;

	if (r->fragments != 1 || r->vlan != -1 || r->ic || (r->extended && r->popts) || !r->fcs || r->len < least ||
	    !(reg(card, REG_HLREG0) & HLREG0_TXCRCEN))
		return false;
	packet = dma_at(&card->dma, &q->data, r->fragment[0].iova, r->len, DMA_READ);
	if (!packet)
		return false;
	__builtin_prefetch(packet);
	add(b, r, packet, r->len);
	return true;
}

/* false: the queue has stopped. */
static bool add_packet(struct card *card, struct tx_queue *q, const struct tx_request *r, struct burst *b)
{
	uint8_t *packet = card->engine->arena + b->arena + TAG_ROOM;
	uint64_t fault;
	int32_t len;

	if (!allowed(r))
		return stop_bad(card, q);
	if (likely(add_in_place(card, q, r, b)))
		return true;
	if (read_fragments(card, q, r, packet, &fault))
		return stop_fault(card, q, fault);
	len = finish_packet(card, q, r, &packet);
	if (len < 0)
		return stop_bad(card, q);
	add(b, r, packet, (uint32_t)len);
	b->arena += (TAG_ROOM + r->len + SHORTEST_FRAME + 15) & ~15u;
	return true;
}

/* The packets' descriptors up to here are done. */
static void complete(struct card *card, struct tx_queue *q, struct burst *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!b->report[i])
			continue;
		b->reported = true;
		if (!(ring_reg(&q->ring, QUEUE_WBAL) & WBAL_ENABLE))
			tx_report(card, q, b->end[i] ? b->end[i] - 1 : q->ring.n - 1);
	}
	if (n)
		q->ring.head = b->end[n - 1];
}

/* Sends what the burst holds; true: the wire took it all. Packets of length 0 are those that get lost on it. */
static bool flush(struct card *card, struct tx_queue *q, struct burst *b)
{
	unsigned number = (unsigned)(q - card->tx), done = 0;
	bool all;

	while (done < b->n) {
		unsigned n = 0, taken;

		while (done + n < b->n && b->packet[done + n].len)
			n++;
		taken = n ? send(card, number, b->packet + done, n) : 0;
		done += taken;
		if (taken < n)
			break;
		while (done < b->n && !b->packet[done].len)
			done++;
	}
	all = done == b->n;
	complete(card, q, b, done);
	b->n = b->arena = 0;
	return all;
}

/* Segments of the packet that is being cut: how many were sent. */
static unsigned send_segments(struct card *card)
{
	struct tso *tso = &card->tso;
	struct wire_packet packets[WIRE_BURST];
	uint32_t arena = 0, room = TAG_ROOM + tso->headers + tso->context.mss + SHORTEST_FRAME;
	uint32_t pad = reg(card, REG_HLREG0) & HLREG0_TXPADEN ? SHORTEST_FRAME : 0;
	unsigned n, taken;

	for (n = 0; n < WIRE_BURST && arena + room <= TX_ARENA_BYTES; n++) {
		uint8_t *out = card->engine->arena + arena + TAG_ROOM;
		uint32_t len = tso_segment(card, tso, n, out);

		if (!len)
			break;
		if (tso->vlan >= 0) {
			out = tx_insert_tag(out, (uint16_t)(reg(card, REG_DMATXCTL) >> DMATXCTL_VT_SHIFT),
					    (uint16_t)tso->vlan);
			len += TAG_ROOM;
		}
		for (; len < pad; len++)
			out[len] = 0;
		packets[n] = (struct wire_packet){out, len};
		arena += (room + 15) & ~15u;
	}
	taken = send(card, tso->queue, packets, n);
	tso->done += taken * tso->context.mss;
	tso->active = tso->done < tso->payload;
	card->counters.tx_segments += taken;
	return taken;
}

/* false: the queue has stopped. The packet is read, its descriptors are done. */
static bool begin_tso(struct card *card, struct tx_queue *q, const struct tx_request *r, struct burst *b)
{
	struct tso *tso = &card->tso;
	const struct tx_context *c = &q->context[r->index];
	uint32_t headers = (uint32_t)c->mac_bytes + c->ip_bytes + c->l4_bytes;
	uint64_t fault;

	if (!c->valid || r->len > TSO_BYTES || r->len != headers + r->payload)
		return stop_bad(card, q);
	if (read_fragments(card, q, r, tso->bytes, &fault))
		return stop_fault(card, q, fault);
	tso->context = *c;
	tso->popts = r->popts;
	tso->queue = (uint16_t)(q - card->tx);
	tso->vlan = r->vlan == -2 ? c->vlan : -1;
	if (!tso_begin(tso, r->len))
		return stop_bad(card, q);
	add(b, r, tso->bytes, 0);
	complete(card, q, b, 1);
	b->n = 0;
	return true;
}

static void finish_queue(struct card *card, struct tx_queue *q, const struct burst *b, uint32_t before)
{
	unsigned number = (unsigned)(q - card->tx);
	uint32_t wbal = ring_reg(&q->ring, QUEUE_WBAL), head = q->ring.head;
	uint64_t iova = (uint64_t)ring_reg(&q->ring, QUEUE_WBAH) << 32 | (wbal & ~3u);
	uint8_t *at;

	if (head == before)
		return;
	ring_publish_head(&q->ring);
	if (!b->reported)
		return;
	if (wbal & WBAL_ENABLE) { /* 7.2.3.5.2 */
		at = dma_at(&card->dma, &q->write_back, iova, 4, DMA_WRITE);
		if (!at) {
			stop_fault(card, q, iova);
			return;
		}
		__atomic_store_n((uint32_t *)(void *)at, head, __ATOMIC_RELEASE);
	}
	irq_queue(card, true, number);
}

/* What was found where the queue stands; false: no more can be done in this pass. */
static bool step(struct card *card, struct tx_queue *q, uint32_t *at, uint32_t tail, struct burst *b)
{
	struct tx_request r;

	switch (tx_gather(card, q, at, tail, &r)) {
	case TX_NOTHING:
		if (flush(card, q, b))
			q->ring.head = *at; /* contexts alone */
		return false;
	case TX_INCOMPLETE:
		q->idle = flush(card, q, b);
		q->idle_tail = tail;
		return false;
	case TX_BAD:
		return flush(card, q, b) && stop_bad(card, q);
	case TX_FAULT:
		return flush(card, q, b) && stop_fault(card, q, q->ring.base + (uint64_t)*at * DESCRIPTOR_BYTES);
	case TX_PACKET:
		break;
	}
	if (r.tse) {
		if (!flush(card, q, b) || !begin_tso(card, q, &r, b))
			return false;
		send_segments(card);
		return false; /* a pass stays short, whatever the number of segments */
	}
	if (b->arena + r.len + TAG_ROOM + 2 * SHORTEST_FRAME > TX_ARENA_BYTES && !flush(card, q, b))
		return false;
	if (!add_packet(card, q, &r, b)) {
		flush(card, q, b);
		return false;
	}
	*at = r.next;
	return b->n < WIRE_BURST;
}

static unsigned queue_pass(struct card *card, struct tx_queue *q)
{
	struct ring *ring = &q->ring;
	uint32_t before, at, tail;
	struct burst b;

	if (!(ring_reg(ring, QUEUE_DCTL) & DCTL_ENABLE) || ring_reg(ring, QUEUE_HEAD) != ring->head)
		ring_look(card, true, (unsigned)(q - card->tx));
	tail = ring_tail(ring);
	before = at = ring->head;
	if (ring->state != QUEUE_RUNS || tail == at || tail >= ring->n || (q->idle && q->idle_tail == tail))
		return 0;
	q->idle = false;
	b.n = b.arena = 0;
	b.reported = false;
	while (step(card, q, &at, tail, &b))
		;
	if (b.n && ring->state == QUEUE_RUNS)
		flush(card, q, &b);
	finish_queue(card, q, &b, before);
	return ring_count(ring, before, ring->head);
}

unsigned card_tx_pass(struct card *card, uint64_t now_ns)
{
	unsigned moved = 0, first = card->tx_next;

	card->tx_blocked = false;
	if (!(card->tx_running[0] | card->tx_running[1]) || !card_tx_enabled(card))
		return 0;
	if (card->tso.active)
		moved = send_segments(card);
	for (unsigned i = 0; i < CARD_QUEUES && !card->tx_blocked && !card->tso.active; i++) {
		unsigned number = (first + i) % CARD_QUEUES;

		if (!(card->tx_running[number / 64] >> (number & 63) & 1))
			continue;
		moved += queue_pass(card, &card->tx[number]);
		card->tx_next = (number + 1) % CARD_QUEUES;
	}
	if (moved)
		irq_update(card, now_ns);
	return moved;
}

bool card_tx_has_work(const struct card *card)
{
	if (!card_tx_enabled(card))
		return false;
	if (card->tso.active)
		return true;
	for (unsigned number = 0; number < CARD_QUEUES; number++) {
		const struct tx_queue *q = &card->tx[number];
		uint32_t tail = ring_tail(&q->ring);

		if (!(card->tx_running[number / 64] >> (number & 63) & 1))
			continue;
		if (tail != q->ring.head && tail < q->ring.n && !(q->idle && q->idle_tail == tail))
			return true;
	}
	return false;
}
