/* A wire to an existing interface through AF_PACKET: bursts by recvmmsg(2) and sendmmsg(2). Called by the engine through
 * wire_ops.
 *
 * An interface may leave work to hardware that is not there: checksums, VLAN tags beside the packet, packets of many
 * segments. The socket tells (PACKET_VNET_HDR, PACKET_AUXDATA), and here it is done (offload.c), since a wire carries
 * nothing but finished frames.
 *
 * Invariants: no call blocks. Packets that were received and do not fit into the engine's burst, segments mostly, wait in
 * `next` .. `have`; nothing is received before they are gone, since their memory is the sockets'.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_packet.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "emulator/offload.h"
#include "emulator/wire_kinds.h"

#define VLAN_BYTES 4u
#define MAC_BYTES 12u
#define LARGEST 65600u /* a packet of segments: 64 KiB of IP behind an Ethernet header with tags */

struct slot {
	struct virtio_net_hdr hdr;
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	uint8_t tag_room[VLAN_BYTES]; /* in front of the packet: a tag put back moves only the MACs */
	uint8_t data[LARGEST];
};

struct wire_packet_socket {
	struct wire wire; /* first: the ops get a pointer to it */
	int fd;
	unsigned next, have;
	bool cutting; /* packet `next` is being cut */
	struct segmenter segmenter;
	uint64_t segmented;
	struct mmsghdr rx[WIRE_BURST], tx[WIRE_BURST];
	struct iovec rx_iov[WIRE_BURST][2], tx_iov[WIRE_BURST][2];
	struct virtio_net_hdr plain; /* of what the card sends: finished */
	struct slot slot[WIRE_BURST];
	uint8_t frame[WIRE_BURST][WIRE_LONGEST]; /* segments, which receive made */
};

static struct wire_packet_socket *socket_of(struct wire *wire)
{
	return (struct wire_packet_socket *)wire;
}

/* ---- Towards the card ---- */

static void socket_fetch(struct wire_packet_socket *s, unsigned n)
{
	int got;

	for (unsigned i = 0; i < n; i++) { /* the kernel wrote over these */
		s->rx[i].msg_hdr.msg_controllen = sizeof(s->slot[i].control);
		s->rx[i].msg_hdr.msg_flags = 0;
	}
	s->wire.syscalls++;
	got = recvmmsg(s->fd, s->rx, n, MSG_DONTWAIT, NULL);
	/* EINVAL: a packet with an offload that virtio_net_hdr has no word for; it is gone. Others (ENETDOWN) are told
	 * once, and empty the socket's error. */
	if (got < 0 && errno == EINVAL)
		s->wire.rx_dropped++;
	s->next = 0;
	s->have = got > 0 ? (unsigned)got : 0;
}

static const struct tpacket_auxdata *auxdata(struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
		if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA)
			return (const struct tpacket_auxdata *)(const void *)CMSG_DATA(c);
	return NULL;
}

/* Puts the outermost tag back where it was on the wire. Returns where the packet starts now. */
static uint8_t *tag_restore(uint8_t *data, uint32_t *len, const struct tpacket_auxdata *aux)
{
	uint32_t tpid = aux->tp_status & TP_STATUS_VLAN_TPID_VALID ? aux->tp_vlan_tpid : 0x8100;
	uint8_t *tagged = data - VLAN_BYTES;

	memmove(tagged, data, MAC_BYTES);
	tagged[MAC_BYTES] = (uint8_t)(tpid >> 8);
	tagged[MAC_BYTES + 1] = (uint8_t)tpid;
	tagged[MAC_BYTES + 2] = (uint8_t)(aux->tp_vlan_tci >> 8);
	tagged[MAC_BYTES + 3] = (uint8_t)aux->tp_vlan_tci;
	*len += VLAN_BYTES;
	return tagged;
}

enum shape { SHAPE_FRAME, SHAPE_SEGMENTS, SHAPE_REFUSED };

/* Makes a frame of what was received, or begins to cut it. */
static enum shape slot_finish(struct wire_packet_socket *s, unsigned number, struct wire_packet *out)
{
	struct slot *slot = &s->slot[number];
	struct msghdr *message = &s->rx[number].msg_hdr;
	const struct tpacket_auxdata *aux = auxdata(message);
	struct virtio_net_hdr hdr = slot->hdr;
	uint8_t *data = slot->data;
	uint32_t len = s->rx[number].msg_len;

	if (message->msg_flags & MSG_TRUNC || len < sizeof(hdr) + MAC_BYTES + 2)
		return SHAPE_REFUSED;
	len -= (uint32_t)sizeof(hdr);
	if (aux && aux->tp_status & TP_STATUS_VLAN_VALID) {
		data = tag_restore(data, &len, aux);
		hdr.csum_start = (uint16_t)(hdr.csum_start + VLAN_BYTES);
	}
	if (hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		return segmenter_begin(&s->segmenter, &hdr, data, len, WIRE_LONGEST) ? SHAPE_SEGMENTS : SHAPE_REFUSED;
	if (len > WIRE_LONGEST)
		return SHAPE_REFUSED;
	if (hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && !offload_checksum(data, len, hdr.csum_start, hdr.csum_offset))
		return SHAPE_REFUSED;
	*out = (struct wire_packet){ .data = data, .len = wire_pad(data, len) };
	return SHAPE_FRAME;
}

/* Fills packets[done] from packet `next`, and goes on to the one after when that is used up. false: it gave no frame. */
static bool socket_frame(struct wire_packet_socket *s, struct wire_packet *packets, unsigned done)
{
	enum shape shape = s->cutting ? SHAPE_SEGMENTS : slot_finish(s, s->next, &packets[done]);
	uint8_t *frame = s->frame[done];
	uint32_t len;

	if (shape == SHAPE_SEGMENTS) {
		s->segmented += !s->cutting;
		len = segmenter_next(&s->segmenter, frame);
		packets[done] = (struct wire_packet){ .data = frame, .len = wire_pad(frame, len) };
		s->cutting = s->segmenter.done < s->segmenter.payload;
	}
	s->next += !s->cutting;
	s->wire.rx_dropped += shape == SHAPE_REFUSED;
	return shape != SHAPE_REFUSED;
}

static unsigned packet_receive(struct wire *wire, struct wire_packet *packets, unsigned n)
{
	struct wire_packet_socket *s = socket_of(wire);
	unsigned done = 0;

	if (n > WIRE_BURST)
		n = WIRE_BURST;
	if (n && s->next == s->have)
		socket_fetch(s, n);
	while (done < n && s->next < s->have)
		if (socket_frame(s, packets, done))
			wire->rx_bytes += packets[done++].len;
	wire->rx_packets += done;
	return done;
}

static int packet_arm(struct wire *wire)
{
	const struct wire_packet_socket *s = socket_of(wire);

	return s->next < s->have; /* poll(2) knows what the socket holds */
}

static void packet_disarm(struct wire *wire)
{
	(void)wire;
}

/* ---- From the card ---- */

/* sendmmsg(2) stopped at packet i of n: how many packets to count as taken and lost. */
static unsigned lost(int error, unsigned i, unsigned n)
{
	switch (error) {
	case EAGAIN: /* the socket's send buffer is full of packets that the interface has not sent yet */
	case EINTR:
		return 0;
	case ENETDOWN:
	case ENXIO:
	case ENODEV:
	case EBADF:
		return n - i; /* the same for all of them: do not ask again for each */
	default: /* ENOBUFS: the interface's queue is full, and this one was lost; EMSGSIZE: above its MTU */
		return 1;
	}
}

static unsigned packet_send(struct wire *wire, const struct wire_packet *packets, unsigned n)
{
	struct wire_packet_socket *s = socket_of(wire);
	unsigned i = 0;

	if (n > WIRE_BURST)
		n = WIRE_BURST;
	for (unsigned k = 0; k < n; k++)
		s->tx_iov[k][1] = (struct iovec){ .iov_base = (void *)(uintptr_t)packets[k].data,
						  .iov_len = packets[k].len };
	while (i < n) {
		int sent;
		unsigned gone;

		wire->syscalls++;
		sent = sendmmsg(s->fd, &s->tx[i], n - i, MSG_DONTWAIT);
		gone = sent > 0 ? 0 : lost(errno, i, n);
		if (sent <= 0 && !gone)
			break;
		wire->tx_dropped += gone;
		i += sent > 0 ? (unsigned)sent : gone;
	}
	for (unsigned k = 0; k < i; k++)
		wire->tx_bytes += packets[k].len;
	wire->tx_packets += i;
	return i;
}

static const struct wire_ops packet_ops = {
	.receive = packet_receive,
	.send = packet_send,
	.arm = packet_arm,
	.disarm = packet_disarm,
};

uint64_t wire_packet_segmented(const struct wire *wire)
{
	return ((const struct wire_packet_socket *)wire)->segmented;
}

struct wire *wire_packet_create(int fd)
{
	struct wire_packet_socket *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->wire = (struct wire){ .ops = &packet_ops, .wait_fd = fd };
	s->fd = fd;
	for (unsigned i = 0; i < WIRE_BURST; i++) {
		struct slot *slot = &s->slot[i];

		s->rx_iov[i][0] = (struct iovec){ .iov_base = &slot->hdr, .iov_len = sizeof(slot->hdr) };
		s->rx_iov[i][1] = (struct iovec){ .iov_base = slot->data, .iov_len = sizeof(slot->data) };
		s->rx[i].msg_hdr.msg_iov = s->rx_iov[i];
		s->rx[i].msg_hdr.msg_iovlen = 2;
		s->rx[i].msg_hdr.msg_control = slot->control;
		s->tx_iov[i][0] = (struct iovec){ .iov_base = &s->plain, .iov_len = sizeof(s->plain) };
		s->tx[i].msg_hdr.msg_iov = s->tx_iov[i];
		s->tx[i].msg_hdr.msg_iovlen = 2;
	}
	return &s->wire;
}

void wire_packet_destroy(struct wire *wire)
{
	free(wire);
}
