/* Reading transmit descriptors (tx_descriptor.h).
 *
 * PAYLEN, POPTS, TSE, IDX and CC count in a packet's first descriptor, EOP and RS in its last (7.2.3.2.4).
 * ASSUMED: IFCS and VLE count in whichever descriptor they are set; CC is not looked at, since without virtualization the
 * context is used whenever the options need one.
 */
#include "emulator/tx_descriptor.h"

static uint64_t load64(const uint8_t *at)
{
	return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

/* 7.2.3.2.3. */
static void keep_context(struct tx_queue *q, uint64_t first, uint64_t second)
{
	q->context[second >> 36 & 1] = (struct tx_context){
		.valid = true,
		.ip4 = second >> 10 & 1,
		.l4_type = second >> 11 & 3,
		.l4_bytes = (uint8_t)(second >> 40),
		.mss = (uint16_t)(second >> 48),
		.ip_bytes = first & 0x1FF,
		.mac_bytes = first >> 9 & 0x7F,
		.vlan = (uint16_t)(first >> 16),
	};
}

static void first_of_packet(struct tx_request *r, uint64_t second)
{
	r->extended = second & TX_DEXT;
	r->tse = r->extended && second & TX_TSE;
	r->index = second >> 36 & 1;
	r->popts = second >> 40 & 0x3F;
	r->payload = (uint32_t)(second >> 46);
	r->ic = false;
	r->vlan = -1;
	r->fcs = false;
	r->fragments = 0;
	r->len = 0;
}

static void every_of_packet(struct tx_request *r, uint64_t second)
{
	r->fcs |= (second & TX_IFCS) != 0;
	if (r->extended) {
		if (second & TX_VLE)
			r->vlan = -2;
		return;
	}
	/* Legacy (7.2.3.2.2): the options are those of the descriptor that has them. */
	if (second & TX_VLE)
		r->vlan = (int32_t)(second >> 48);
	if (second & TX_IC) {
		r->ic = true;
		r->cso = (uint8_t)(second >> 16);
		r->css = (uint8_t)(second >> 40);
	}
}

static enum tx_gathered take_data(struct tx_request *r, uint64_t first, uint64_t second)
{
	if (r->fragments == 0)
		first_of_packet(r, second);
	if (r->extended != ((second & TX_DEXT) != 0) || r->fragments == TX_DATA_DESCRIPTORS)
		return TX_BAD;
	every_of_packet(r, second);
	r->fragment[r->fragments++] = (struct tx_fragment){first, second & TX_LENGTH};
	r->len += second & TX_LENGTH;
	r->report = second & TX_RS;
	return second & TX_EOP ? TX_PACKET : TX_INCOMPLETE;
}

enum tx_gathered tx_gather(const struct card *card, struct tx_queue *q, uint32_t *at, uint32_t tail,
			   struct tx_request *r)
{
	enum tx_gathered found = TX_NOTHING;
	uint32_t cursor = *at;

	r->fragments = 0;
	while (cursor != tail) {
		const uint8_t *descriptor = ring_descriptor(card, &q->ring, cursor);
		uint64_t first, second;
		unsigned type;

		if (unlikely(!descriptor))
			return TX_FAULT;
		first = load64(descriptor);
		second = load64(descriptor + 8);
		type = second & TX_DEXT ? second >> TX_TYPE_SHIFT & 15 : TX_TYPE_DATA;
		cursor = ring_next(&q->ring, cursor);
		if (type == TX_TYPE_CONTEXT && r->fragments == 0) {
			keep_context(q, first, second);
			*at = cursor;
			continue;
		}
		if (type != TX_TYPE_DATA)
			return TX_BAD;
		found = take_data(r, first, second);
		if (found != TX_INCOMPLETE)
			break;
	}
	r->next = cursor;
	return found;
}

void tx_report(const struct card *card, struct tx_queue *q, uint32_t at)
{
	uint8_t *descriptor = ring_descriptor(card, &q->ring, at);

	if (descriptor)
		__atomic_store_n((uint32_t *)(void *)(descriptor + 12), TX_DD, __ATOMIC_RELEASE);
}
