/* Undoing what a Linux interface leaves to its hardware: unfinished checksums, and packets of many segments (GSO, GRO), as
 * struct virtio_net_hdr describes them (include/uapi/linux/virtio_net.h). Used by wire_packet.c.
 *
 * All lengths come from outside: nothing is read or written beyond what the callers say there is.
 */
#ifndef IXROUTE_EMULATOR_OFFLOAD_H
#define IXROUTE_EMULATOR_OFFLOAD_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>

/* Writes the checksum at start + offset over everything from start (VIRTIO_NET_HDR_F_NEEDS_CSUM). The field holds the
 * pseudo header's sum. false: that lies outside the packet. */
bool offload_checksum(uint8_t *packet, uint32_t len, uint32_t start, uint32_t offset);

/* A packet that is to be cut into frames, and how far that has come. */
struct segmenter {
	const uint8_t *packet;
	uint32_t headers;  /* bytes before the payload */
	uint32_t payload;  /* bytes in all */
	uint32_t size;	   /* payload of a frame */
	uint32_t done;	   /* payload cut so far */
	uint32_t l3, l4;   /* where these headers start */
	uint32_t l4_bytes; /* and the last one's length */
	bool ip6, udp;
};

/* false: no IPv4/IPv6 TCP or UDP packet that can be cut, or it contradicts itself, or frames would be longer than
 * `longest`. Bytes are looked at again for every frame: packet stays until the last one. */
bool segmenter_begin(struct segmenter *s, const struct virtio_net_hdr *hdr, const uint8_t *packet, uint32_t len,
		     uint32_t longest);
/* The next frame, complete with lengths, sequence number, flags and checksums, into out (`longest` bytes). Returns its
 * length. While done < payload, which holds at the beginning. */
uint32_t segmenter_next(struct segmenter *s, uint8_t *out);

#endif
