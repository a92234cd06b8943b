/* Two cards back to back. Called by the engine's thread through wire_ops; both ends belong to cards of the same engine,
 * so that nothing here is atomic.
 *
 * What is on its way to an end is a ring of bytes: records of a head and a frame in one piece. A record that does not fit
 * before the end of the ring starts at its beginning; a head without a frame skips the rest. What receive gave away is
 * freed by the next receive, since its bytes must stay until then.
 *
 * A full ring holds the sender, as a cable with flow control would. It must not hold it for ever: a card that does not ask
 * for its packets (receiver off, in reset, nobody drives it) would stop its partner's transmitter, which no cable does.
 * So after PATIENCE refusals in a row without a receive at the other end, frames fall on the floor.
 *
 * Invariants: freed <= given <= put <= freed + RING_BYTES; all are multiples of the head's size, so a head always fits
 * before the end of the ring.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/wire_kinds.h"

#define RING_BYTES 262144u
#define PATIENCE 64u
#define SKIP UINT32_MAX

struct head {
	uint32_t len; /* of the frame behind it, or SKIP */
	uint32_t step; /* bytes from here to the next head */
};

struct pair_end {
	struct wire wire; /* first: the ops get a pointer to it */
	struct pair_end *peer;
	/* On the way to this end; positions run freely. */
	uint64_t put, given, freed;
	unsigned refusals;
	_Alignas(64) uint8_t ring[RING_BYTES];
};

struct pair {
	struct pair_end end[2];
};

static struct head *head_at(struct pair_end *end, uint64_t position)
{
	return (struct head *)(void *)&end->ring[position % RING_BYTES];
}

/* Room for a frame in one piece on its way to `end`; NULL: full. */
static uint8_t *end_reserve(struct pair_end *end, uint32_t len)
{
	uint32_t step = (uint32_t)(sizeof(struct head) + len + 7) & ~7u;
	uint32_t before_end = RING_BYTES - (uint32_t)(end->put % RING_BYTES);
	uint32_t skip = step > before_end ? before_end : 0;
	struct head *head;

	if (end->put + skip + step - end->freed > RING_BYTES)
		return NULL;
	if (skip)
		*head_at(end, end->put) = (struct head){ .len = SKIP, .step = skip };
	end->put += skip;
	head = head_at(end, end->put);
	*head = (struct head){ .len = len, .step = step };
	end->put += step;
	return (uint8_t *)(head + 1);
}

static bool end_put(struct pair_end *end, const struct wire_packet *packet)
{
	uint32_t len = packet->len < WIRE_SHORTEST ? WIRE_SHORTEST : packet->len;
	uint8_t *frame = end_reserve(end, len);

	if (!frame)
		return false;
	memcpy(frame, packet->data, packet->len);
	memset(frame + packet->len, 0, len - packet->len);
	return true;
}

static unsigned pair_send(struct wire *wire, const struct wire_packet *packets, unsigned n)
{
	struct pair_end *to = ((struct pair_end *)wire)->peer;

	for (unsigned i = 0; i < n; i++) {
		if (packets[i].len > WIRE_LONGEST) {
			to->wire.rx_dropped++;
		} else if (to->refusals >= PATIENCE) {
			wire->tx_dropped++;
		} else if (!end_put(to, &packets[i])) {
			to->refusals++;
			return i;
		}
		wire->tx_packets++;
		wire->tx_bytes += packets[i].len;
	}
	return n;
}

static unsigned pair_receive(struct wire *wire, struct wire_packet *packets, unsigned n)
{
	struct pair_end *end = (struct pair_end *)wire;
	unsigned done = 0;

	end->refusals = 0;
	end->freed = end->given;
	while (done < n && end->given != end->put) {
		struct head *head = head_at(end, end->given);

		end->given += head->step;
		if (head->len == SKIP)
			continue;
		packets[done++] = (struct wire_packet){ .data = (const uint8_t *)(head + 1), .len = head->len };
		wire->rx_bytes += head->len;
	}
	wire->rx_packets += done;
	return done;
}

/* Whatever the other card sends, it sends in the thread that is about to sleep: what is here now is all there is. */
static int pair_arm(struct wire *wire)
{
	const struct pair_end *end = (const struct pair_end *)wire;

	return end->given != end->put;
}

static void pair_disarm(struct wire *wire)
{
	(void)wire;
}

static const struct wire_ops pair_ops = {
	.receive = pair_receive,
	.send = pair_send,
	.arm = pair_arm,
	.disarm = pair_disarm,
};

int wire_pair_create(struct wire *ends[2])
{
	struct pair *pair = aligned_alloc(64, sizeof(*pair));

	if (!pair)
		return -ENOMEM;
	memset(pair, 0, sizeof(*pair));
	for (unsigned i = 0; i < 2; i++) {
		pair->end[i].wire = (struct wire){ .ops = &pair_ops, .wait_fd = -1 };
		pair->end[i].peer = &pair->end[1 - i];
		ends[i] = &pair->end[i].wire;
	}
	return 0;
}

void wire_pair_destroy(struct wire *ends[2])
{
	struct pair_end *first = (struct pair_end *)ends[0];

	free(first); /* struct pair starts with it */
}
