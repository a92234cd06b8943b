/* Undoing a Linux interface's offloads, see offload.h. Called by wire_packet.c for each packet that has any.
 *
 * TCP segmentation as RFC 9293 §3.7.1 and the kernel's tcp_gso_segment understand it: sequence numbers go on, FIN and PSH
 * stay with the last frame, CWR (RFC 3168 §6.1.2) with the first. UDP: datagrams of their own (UDP_SEGMENT). IPv4
 * identification counts up.
 */
#include "emulator/offload.h"

#include <string.h>

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4 /* newer than some C libraries' kernel headers */
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define ETHERNET_BYTES 14u
#define VLAN_BYTES 4u
#define IP4_BYTES 20u
#define IP6_BYTES 40u
#define TCP_BYTES 20u
#define UDP_BYTES 8u
#define TCP_FIN_PSH 0x09u
#define TCP_CWR 0x80u
#define PROTO_TCP 6u
#define PROTO_UDP 17u

static uint32_t load16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static void store16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static uint32_t load32(const uint8_t *p)
{
	return load16(p) << 16 | load16(p + 2);
}

static void store32(uint8_t *p, uint32_t value)
{
	store16(p, value >> 16);
	store16(p + 2, value);
}

/* RFC 1071. len: at most 64 KiB and a bit, so that 64 bits never overflow. */
static uint64_t sum(uint64_t total, const uint8_t *bytes, uint32_t len)
{
	for (; len > 1; bytes += 2, len -= 2)
		total += load16(bytes);
	return len ? total + ((uint32_t)bytes[0] << 8) : total;
}

static uint32_t folded(uint64_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint32_t)~total & 0xffff;
}

bool offload_checksum(uint8_t *packet, uint32_t len, uint32_t start, uint32_t offset)
{
	uint32_t check;

	if (start > len || offset + 2 > len - start)
		return false;
	check = folded(sum(0, packet + start, len - start));
	/* 0 means "no checksum" in UDP (RFC 768), and is the same number as 0xffff everywhere else. */
	store16(packet + start + offset, check ? check : 0xffff);
	return true;
}

/* ---- Segments ---- */

/* Where the IP header is, behind any VLAN tags; 0: no IP. */
static uint32_t find_ip(const uint8_t *packet, uint32_t len, bool *ip6)
{
	uint32_t at = ETHERNET_BYTES;

	for (unsigned tags = 0; tags < 3 && at + IP4_BYTES <= len; tags++, at += VLAN_BYTES) {
		uint32_t type = load16(packet + at - 2);

		if (type == 0x0800 || type == 0x86dd) {
			*ip6 = type == 0x86dd;
			return at;
		}
		if (type != 0x8100 && type != 0x88a8)
			return 0;
	}
	return 0;
}

bool segmenter_begin(struct segmenter *s, const struct virtio_net_hdr *hdr, const uint8_t *packet, uint32_t len,
		     uint32_t longest)
{
	unsigned kind = hdr->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;

	*s = (struct segmenter){ .packet = packet, .size = hdr->gso_size, .l4 = hdr->csum_start };
	if (kind != VIRTIO_NET_HDR_GSO_TCPV4 && kind != VIRTIO_NET_HDR_GSO_TCPV6 && kind != VIRTIO_NET_HDR_GSO_UDP_L4)
		return false;
	s->udp = kind == VIRTIO_NET_HDR_GSO_UDP_L4;
	s->l3 = find_ip(packet, len, &s->ip6);
	if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || !s->l3 || !s->size)
		return false;
	if (s->l4 < s->l3 + (s->ip6 ? IP6_BYTES : IP4_BYTES) || s->l4 + (s->udp ? UDP_BYTES : TCP_BYTES) > len)
		return false;
	/* IPv6 may have extension headers in between; IPv4's options end where TCP starts. */
	if (!s->ip6 && s->l3 + (packet[s->l3] & 0xfu) * 4 != s->l4)
		return false;
	s->l4_bytes = s->udp ? UDP_BYTES : (packet[s->l4 + 12] >> 4) * 4u;
	s->headers = s->l4 + s->l4_bytes;
	if (s->l4_bytes < (s->udp ? UDP_BYTES : TCP_BYTES) || s->headers >= len || s->headers + s->size > longest)
		return false;
	s->payload = len - s->headers;
	return true;
}

static void write_ip(const struct segmenter *s, uint8_t *out, uint32_t len, uint32_t number)
{
	uint8_t *ip = out + s->l3;

	if (s->ip6) {
		store16(ip + 4, len - s->l3 - IP6_BYTES);
		return;
	}
	store16(ip + 2, len - s->l3);
	store16(ip + 4, load16(ip + 4) + number);
	store16(ip + 10, 0);
	store16(ip + 10, folded(sum(0, ip, s->l4 - s->l3)));
}

/* The pseudo header's sum (RFC 9293 §3.1, RFC 8200 §8.1), then that of the segment. */
static void write_checksum(const struct segmenter *s, uint8_t *out, uint32_t len)
{
	const uint8_t *addresses = out + s->l3 + (s->ip6 ? 8 : 12);
	uint8_t *field = out + s->l4 + (s->udp ? 6 : 16);
	uint64_t total = len - s->l4 + (s->udp ? PROTO_UDP : PROTO_TCP);
	uint32_t check;

	store16(field, 0);
	total = sum(total, addresses, s->ip6 ? 32 : 8);
	check = folded(sum(total, out + s->l4, len - s->l4));
	store16(field, check ? check : 0xffff);
}

uint32_t segmenter_next(struct segmenter *s, uint8_t *out)
{
	uint32_t left = s->payload - s->done;
	uint32_t take = left < s->size ? left : s->size;
	uint32_t len = s->headers + take;
	uint8_t *l4 = out + s->l4;

	memcpy(out, s->packet, s->headers);
	memcpy(out + s->headers, s->packet + s->headers + s->done, take);
	write_ip(s, out, len, s->done / s->size);
	if (s->udp) {
		store16(l4 + 4, UDP_BYTES + take);
	} else {
		store32(l4 + 4, load32(l4 + 4) + s->done);
		if (s->done)
			l4[13] &= (uint8_t)~TCP_CWR;
		if (take < left)
			l4[13] &= (uint8_t)~TCP_FIN_PSH;
	}
	write_checksum(s, out, len);
	s->done += take;
	return len;
}
