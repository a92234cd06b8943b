/* A wire to a TAP: the kernel is the card's link partner. Called by the engine through wire_ops.
 *
 * A TAP takes and gives one packet per system call. It has no offloads (Python sees to that), so that the kernel
 * finishes checksums and cuts segments before we read them.
 *
 * Invariants: no call blocks (the descriptor does not). A TAP that was deleted is never waited for again: poll(2) would
 * report its error for ever.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emulator/wire_kinds.h"

struct wire_tap {
	struct wire wire; /* first: the ops get a pointer to it */
	int fd;
	/* One byte more than a frame may have, to tell one that is too long. */
	uint8_t buffer[WIRE_BURST][WIRE_LONGEST + 1];
};

static ssize_t tap_read(struct wire_tap *tap, uint8_t *buffer)
{
	ssize_t got;

	do {
		tap->wire.syscalls++;
		got = read(tap->fd, buffer, WIRE_LONGEST + 1);
	} while (got < 0 && errno == EINTR);
	return got;
}

static unsigned tap_receive(struct wire *wire, struct wire_packet *packets, unsigned n)
{
	struct wire_tap *tap = (struct wire_tap *)wire;
	unsigned done = 0;

	/* Bounded by reads, not by packets: a flood of frames that are too long ends too. */
	for (unsigned reads = 0; reads < n && reads < WIRE_BURST && wire->wait_fd >= 0; reads++) {
		uint8_t *buffer = tap->buffer[done];
		ssize_t got = tap_read(tap, buffer);

		if (got < 0 && errno == EBADFD)
			wire->wait_fd = -1;
		if (got <= 0)
			break;
		if (got > (ssize_t)WIRE_LONGEST) {
			wire->rx_dropped++;
			continue;
		}
		packets[done].data = buffer;
		packets[done++].len = wire_pad(buffer, (uint32_t)got);
		wire->rx_bytes += (uint64_t)got;
	}
	wire->rx_packets += done;
	return done;
}

static unsigned tap_send(struct wire *wire, const struct wire_packet *packets, unsigned n)
{
	struct wire_tap *tap = (struct wire_tap *)wire;

	for (unsigned i = 0; i < n; i++) {
		ssize_t written;

		do {
			wire->syscalls++;
			written = write(tap->fd, packets[i].data, packets[i].len);
		} while (written < 0 && errno == EINTR);
		if (written < 0 && errno == EAGAIN) {
			n = i;
			break;
		}
		if (written < 0) /* EIO: the interface is down; EBADFD: it was deleted; EINVAL: no Ethernet header */
			wire->tx_dropped++;
		wire->tx_packets++;
		wire->tx_bytes += packets[i].len;
	}
	return n;
}

static int tap_arm(struct wire *wire)
{
	(void)wire; /* poll(2) looks at the TAP's queue itself */
	return 0;
}

static void tap_disarm(struct wire *wire)
{
	(void)wire;
}

static const struct wire_ops tap_ops = {
	.receive = tap_receive,
	.send = tap_send,
	.arm = tap_arm,
	.disarm = tap_disarm,
};

struct wire *wire_tap_create(int fd)
{
	struct wire_tap *tap = calloc(1, sizeof(*tap));

	if (!tap)
		return NULL;
	tap->wire = (struct wire){ .ops = &tap_ops, .wait_fd = fd };
	tap->fd = fd;
	return &tap->wire;
}

void wire_tap_destroy(struct wire *wire)
{
	free(wire);
}
