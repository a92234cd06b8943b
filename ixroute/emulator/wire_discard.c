/* A wire with a link and nobody behind it: what the card sends is counted and gone, nothing ever comes. Called by the
 * engine through wire_ops. For cards that only send, and to measure a card without a wire's cost.
 */
#include <stdlib.h>

#include "emulator/wire_kinds.h"

static unsigned discard_receive(struct wire *wire, struct wire_packet *packets, unsigned n)
{
	(void)wire;
	(void)packets;
	(void)n;
	return 0;
}

static unsigned discard_send(struct wire *wire, const struct wire_packet *packets, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		wire->tx_bytes += packets[i].len;
	wire->tx_packets += n;
	return n;
}

static int discard_arm(struct wire *wire)
{
	(void)wire;
	return 0;
}

static void discard_disarm(struct wire *wire)
{
	(void)wire;
}

static const struct wire_ops discard_ops = {
	.receive = discard_receive,
	.send = discard_send,
	.arm = discard_arm,
	.disarm = discard_disarm,
};

struct wire *wire_discard_create(void)
{
	struct wire *wire = calloc(1, sizeof(*wire));

	if (wire)
		*wire = (struct wire){ .ops = &discard_ops, .wait_fd = -1 };
	return wire;
}

void wire_discard_destroy(struct wire *wire)
{
	free(wire);
}
