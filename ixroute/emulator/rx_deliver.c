/* A packet into a queue's buffers, and the descriptors written back (rx_deliver.h).
 *
 * The client may change descriptors and buffers at any moment: an address is read once, checked and used; what is written
 * lies in the client's own memory. DD is stored last, with release: who sees it sees the packet.
 */
#include "emulator/rx_deliver.h"

#include <string.h>

#include "emulator/sums.h"

/* SRRCTL.DESCTYPE, 8.2.3.8.7. */
#define TYPE_LEGACY 0u
#define TYPE_ONE_BUFFER 1u
#define TYPE_SPLIT 2u
#define TYPE_SPLIT_ALWAYS 5u
#define AHEAD 3u

static uint64_t load64(const uint8_t *at)
{
	return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

static void store64(uint8_t *at, uint64_t value, int order)
{
	__atomic_store_n((uint64_t *)(void *)at, value, order);
}

static bool known_type(unsigned type)
{
	return type == TYPE_LEGACY || type == TYPE_ONE_BUFFER || type == TYPE_SPLIT || type == TYPE_SPLIT_ALWAYS;
}

struct rx_queue *rx_touch(struct card *card, unsigned queue)
{
	struct rx_queue *q = &card->rx[queue];
	struct ring *ring = &q->ring;
	uint32_t srrctl, dctl = ring_reg(ring, QUEUE_DCTL);

	if (likely(q->touched))
		return q;
	if (!(dctl & DCTL_ENABLE) || ring->state != QUEUE_RUNS || ring_reg(ring, QUEUE_HEAD) != ring->head)
		ring_look(card, false, queue);
	srrctl = ring_reg(ring, QUEUE_SRRCTL);
	q->type = srrctl >> SRRCTL_DESCTYPE_SHIFT & 7;
	q->buffer_bytes = (srrctl & SRRCTL_BSIZEPKT) * 1024;
	q->header_bytes = (srrctl >> SRRCTL_BSIZEHDR_SHIFT & 63) * 64;
	q->drop = srrctl & SRRCTL_DROP_EN;
	q->strip = dctl & RXDCTL_VME;
	q->tail = ring_tail(ring);
	q->packets = q->dropped = 0;
	q->bytes = 0;
	q->touched = true;
	card->touched[card->n_touched++] = (uint8_t)queue;
	if (ring->state == QUEUE_RUNS && (!known_type(q->type) || !q->buffer_bytes)) {
		card->counters.bad_descriptors++;
		ring_stop(card, false, queue);
	}
	return q;
}

static enum rx_outcome fault(struct card *card, struct rx_queue *q, uint64_t iova)
{
	card_fault(card, iova);
	ring_publish_head(&q->ring); /* a head that is not shown would look like the client's restart (ring.c) */
	ring_stop(card, false, (unsigned)(q - card->rx));
	return RX_LOST;
}

/* Descriptors between head and tail. A tail outside of the ring is none. */
static uint32_t available(struct rx_queue *q)
{
	return q->tail < q->ring.n ? ring_count(&q->ring, q->ring.head, q->tail) : 0;
}

static void write_back(const struct rx_queue *q, uint8_t *descriptor, const struct rx_verdict *v, uint64_t low,
		       uint32_t status, uint32_t len)
{
	uint64_t tag = v->parsed.tagged && q->strip ? (uint64_t)v->parsed.tci << 48 : 0;
	uint64_t high = tag | (uint64_t)len << 32 | status;

	if (q->type == TYPE_LEGACY)
		high = tag | (uint64_t)(status >> 24 & 0xC0) << 40 | (uint64_t)(status & 0xFF) << 32 |
		       (v->low >> 48) << 16 | len;
	else
		store64(descriptor, low, __ATOMIC_RELAXED);
	store64(descriptor + 8, high, __ATOMIC_RELEASE);
}

/* Where the header ends that PSRTYPE tells to split off; 0: nothing to split (7.1.10). */
static uint32_t split_at(const struct card *card, const struct parsed *p)
{
	uint32_t psrtype = card->control.psrtype;

	if (p->l4 && !p->fragment &&
	    ((p->type & TYPE_TCP && psrtype & PSRTYPE_TCP) || (p->type & TYPE_UDP && psrtype & PSRTYPE_UDP)))
		return p->payload;
	if ((p->type & TYPE_IP4 && psrtype & PSRTYPE_IP4) || (p->type & TYPE_IP6 && psrtype & PSRTYPE_IP6))
		return p->l4 ? p->l4 : p->payload;
	if (psrtype & PSRTYPE_L2)
		return p->l3 ? p->l3 : p->payload;
	return 0;
}

/* How many bytes go to the header buffer; what the descriptor says of it is added to *low and *status.
 * ASSUMED: a header longer than its buffer is not split off, but HBO and its length say so. */
static uint32_t header_part(const struct card *card, const struct rx_queue *q, const struct rx_verdict *v, uint32_t len,
			    uint64_t *low, uint32_t *status)
{
	uint32_t header, part = 0;

	if (q->type != TYPE_SPLIT && q->type != TYPE_SPLIT_ALWAYS)
		return 0;
	header = split_at(card, &v->parsed);
	if (header && v->parsed.tagged && q->strip)
		header -= 4;
	if (header && header <= q->header_bytes)
		part = header;
	else if (q->type == TYPE_SPLIT_ALWAYS)
		part = len < q->header_bytes ? len : q->header_bytes;
	if (header > q->header_bytes)
		*status |= RX_HBO;
	if (header)
		*low |= 1u << 31;
	*low |= (uint64_t)((header ? header : part) & 0x3FF) << 21;
	return part;
}

/* A packet of several buffers, or with a header buffer. */
static enum rx_outcome deliver_parts(struct card *card, struct rx_queue *q, const uint8_t *packet, uint32_t len,
				     const struct rx_verdict *v)
{
	uint64_t low = v->low, iova, header_iova, at;
	uint32_t status = v->status;
	uint32_t part = header_part(card, q, v, len, &low, &status), rest = len - part;
	uint32_t needed = rest ? (rest + q->buffer_bytes - 1) / q->buffer_bytes : 1;

	if (needed >= q->ring.n)
		return RX_LOST;
	if (needed > available(q))
		q->tail = ring_tail(&q->ring);
	if (needed > available(q))
		return RX_FULL;
	for (const uint8_t *from = packet + part; needed--; from += q->buffer_bytes, part = 0) {
		uint8_t *descriptor = ring_descriptor(card, &q->ring, q->ring.head);
		uint32_t n = rest < q->buffer_bytes ? rest : q->buffer_bytes;

		if (!descriptor)
			return fault(card, q, q->ring.base + (uint64_t)q->ring.head * DESCRIPTOR_BYTES);
		iova = load64(descriptor);
		header_iova = load64(descriptor + 8) & ~1ull;
		if (part && dma_copy_out(&card->dma, &q->header, header_iova, packet, part, &at))
			return fault(card, q, at);
		if (n && dma_copy_out(&card->dma, &q->data, iova, from, n, &at))
			return fault(card, q, at);
		write_back(q, descriptor, v, low, needed ? RX_DD : status | RX_DD | RX_EOP, n);
		q->ring.head = ring_next(&q->ring, q->ring.head);
		rest -= n;
	}
	q->bytes += len;
	return RX_DELIVERED;
}

/* The packet as the host sees it, in card->scratch: without its tag, or with its FCS (RXCRCSTRP off). */
static uint32_t rework(struct card *card, const uint8_t *packet, uint32_t len, bool strip, bool fcs)
{
	uint8_t *out = card->scratch;
	uint32_t crc, n = 12;

	memcpy(out, packet, 12);
	if (!strip) {
		memcpy(out + 12, packet + 12, 4);
		n = 16;
	}
	memcpy(out + n, packet + 16, len - 16);
	n += len - 16;
	if (fcs) {
		crc = crc32_ethernet(packet, len);
		memcpy(out + n, &crc, 4);
		n += 4;
	}
	return n;
}

/* The buffer that will be needed after the next: fetched, when it is where the last one was. A wrong guess costs nothing. */
static void fetch_ahead(struct rx_queue *q, const uint8_t *descriptor)
{
	const struct dma_window *window = &q->ring.window;
	uint64_t offset = (uint64_t)(descriptor - window->address);

	if (q->ring.head + AHEAD >= q->tail || window->length - offset < (AHEAD + 1) * DESCRIPTOR_BYTES)
		return;
	offset = load64(descriptor + AHEAD * DESCRIPTOR_BYTES) - q->data.iova;
	if (offset < q->data.length)
		__builtin_prefetch(q->data.address + offset, 1);
}

enum rx_outcome rx_deliver(struct card *card, struct rx_queue *q, const uint8_t *packet, uint32_t len,
			   const struct rx_verdict *v)
{
	bool fcs = !(card->control.hlreg0 & HLREG0_RXCRCSTRP), strip = q->strip && v->parsed.tagged;
	struct ring *ring = &q->ring;
	uint8_t *descriptor, *buffer;
	uint64_t iova, at;

	if (ring->state != QUEUE_RUNS)
		return RX_LOST;
	if (unlikely(fcs || strip)) {
		len = rework(card, packet, len, strip, fcs);
		packet = card->scratch;
	}
	if (!available(q))
		q->tail = ring_tail(ring);
	if (unlikely(len > q->buffer_bytes || q->type >= TYPE_SPLIT))
		return deliver_parts(card, q, packet, len, v);
	if (!available(q))
		return RX_FULL;
	descriptor = ring_descriptor(card, ring, ring->head);
	if (unlikely(!descriptor))
		return fault(card, q, ring->base + (uint64_t)ring->head * DESCRIPTOR_BYTES);
	iova = load64(descriptor);
	fetch_ahead(q, descriptor);
	buffer = dma_at(&card->dma, &q->data, iova, len, DMA_WRITE);
	if (likely(buffer))
		memcpy(buffer, packet, len);
	else if (dma_copy_out(&card->dma, &q->data, iova, packet, len, &at))
		return fault(card, q, at);
	write_back(q, descriptor, v, v->low, v->status | RX_DD | RX_EOP, len);
	ring->head = ring_next(ring, ring->head);
	q->bytes += len;
	return RX_DELIVERED;
}
