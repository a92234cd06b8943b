/* The receive packet buffer (7.1.2.9, RXPBSIZE): packets that wait for descriptors of their queue, in order of arrival.
 * Used by card_rx.c alone.
 *
 * Invariants: a record is 8 bytes with the length and the packet, rounded up to 8, never split over the end; where one does
 * not fit a record of length SKIP fills the rest. used = bytes from taken to put, skips included, <= PACKET_BUFFER_BYTES.
 */
#include "emulator/card_state.h"

#include <string.h>

#define SKIP UINT32_MAX
#define RECORD 8u

static uint32_t step_of(uint32_t len)
{
	return RECORD + ((len + 7) & ~7u);
}

static void put_length(struct packet_buffer *b, uint32_t len)
{
	memcpy(b->bytes + b->put, &len, sizeof(len));
}

/* limit: RXPBSIZE in bytes. false: no room. */
bool packet_buffer_put(struct packet_buffer *b, uint32_t limit, const uint8_t *data, uint32_t len)
{
	uint32_t step = step_of(len), rest = PACKET_BUFFER_BYTES - b->put, skip = step > rest ? rest : 0;

	if (limit > PACKET_BUFFER_BYTES)
		limit = PACKET_BUFFER_BYTES;
	if (b->used + skip + step > limit)
		return false;
	if (skip) {
		put_length(b, SKIP);
		b->put = 0;
	}
	put_length(b, len);
	memcpy(b->bytes + b->put + RECORD, data, len);
	b->put = (b->put + step) % PACKET_BUFFER_BYTES;
	b->used += skip + step;
	b->packets++;
	return true;
}

static uint32_t length_at(const struct packet_buffer *b, uint32_t at)
{
	uint32_t len;

	memcpy(&len, b->bytes + at, sizeof(len));
	return len;
}

static uint32_t first_at(const struct packet_buffer *b)
{
	return length_at(b, b->taken) == SKIP ? 0 : b->taken;
}

/* Only while there are packets. */
const uint8_t *packet_buffer_first(const struct packet_buffer *b, uint32_t *len)
{
	uint32_t at = first_at(b);

	*len = length_at(b, at);
	return b->bytes + at + RECORD;
}

void packet_buffer_drop_first(struct packet_buffer *b)
{
	uint32_t at = first_at(b), step = step_of(length_at(b, at));

	if (at != b->taken)
		b->used -= PACKET_BUFFER_BYTES - b->taken;
	b->taken = (at + step) % PACKET_BUFFER_BYTES;
	b->used -= step;
	b->packets--;
	if (!b->packets)
		packet_buffer_clear(b);
}

void packet_buffer_clear(struct packet_buffer *b)
{
	b->put = b->taken = b->used = b->packets = 0;
}
