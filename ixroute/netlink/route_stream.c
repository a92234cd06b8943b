/* Route messages from a netlink socket into the RIB (route_stream.h). Called by the mirror's thread.
 *
 * Message formats: linux/rtnetlink.h; who writes them: fib_dump_info (net/ipv4/fib_semantics.c) and rt6_fill_node
 * (net/ipv6/route.c). The bytes are the kernel's, yet nothing here trusts a length in them: every read is bounded by
 * what was received, and what does not add up is counted and passed over.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "netlink/route_stream.h"

#define BATCH 64u
/* An event is far smaller. MSG_TRUNC would say so if that ever changed. */
#define BUFFER_BYTES 32768u

#define LAST_KNOWN_ATTRIBUTE RTA_NH_ID
#define ATTRIBUTE_TYPE_MASK 0x3fffu /* without NLA_F_NESTED, NLA_F_NET_BYTEORDER */

struct route_stream {
	struct rib *rib;
	struct route_stream_stats stats;
	bool interrupted; /* NLM_F_DUMP_INTR was seen in the dump that runs */
	struct path path; /* of the message in hand: too large to clear for each */
	struct mmsghdr header[BATCH];
	struct iovec iov[BATCH];
	struct sockaddr_nl from[BATCH];
	uint8_t *buffer;
};

struct route_stream *route_stream_create(struct rib *rib)
{
	struct route_stream *stream = calloc(1, sizeof(*stream));

	if (stream == NULL)
		return NULL;
	stream->rib = rib;
	stream->buffer = malloc((size_t)BATCH * BUFFER_BYTES);
	if (stream->buffer == NULL) {
		free(stream);
		return NULL;
	}
	for (unsigned i = 0; i < BATCH; i++) {
		stream->iov[i].iov_base = stream->buffer + (size_t)i * BUFFER_BYTES;
		stream->iov[i].iov_len = BUFFER_BYTES;
		stream->header[i].msg_hdr.msg_iov = &stream->iov[i];
		stream->header[i].msg_hdr.msg_iovlen = 1;
		stream->header[i].msg_hdr.msg_name = &stream->from[i];
	}
	return stream;
}

void route_stream_destroy(struct route_stream *stream)
{
	if (stream == NULL)
		return;
	free(stream->buffer);
	free(stream);
}

void route_stream_stats_read(const struct route_stream *stream, struct route_stream_stats *out)
{
	*out = stream->stats;
}

/* ---- attributes ---- */

struct attribute {
	unsigned type;
	size_t len;
	const uint8_t *data;
};

struct attributes {
	const uint8_t *at;
	size_t left;
};

/* Where the next attribute, leg or message begins: all are aligned to four bytes, the last perhaps not. */
static size_t step_over(size_t len, size_t left)
{
	size_t step = (len + 3) & ~(size_t)3;

	return step < left ? step : left;
}

/* 1: `out` is the next; 0: no more (fewer bytes than a header are padding); -1: a length that cannot be. */
static int attribute_next(struct attributes *rest, struct attribute *out)
{
	uint16_t len, type;
	size_t step;

	if (rest->left < sizeof(struct nlattr))
		return 0;
	memcpy(&len, rest->at, sizeof(len));
	memcpy(&type, rest->at + sizeof(len), sizeof(type));
	if (len < sizeof(struct nlattr) || len > rest->left)
		return -1;
	out->type = type & ATTRIBUTE_TYPE_MASK;
	out->len = len - sizeof(struct nlattr);
	out->data = rest->at + sizeof(struct nlattr);
	step = step_over(len, rest->left);
	rest->at += step;
	rest->left -= step;
	return 1;
}

static int attribute_u32(const struct attribute *attribute, uint32_t *out)
{
	if (attribute->len < sizeof(*out))
		return -1;
	memcpy(out, attribute->data, sizeof(*out));
	return 0;
}

/* FNV-1a. Tells apart routes that differ only in what we do not otherwise look at. */
static uint32_t attribute_digest(uint32_t digest, const struct attribute *attribute)
{
	if (digest == 0)
		digest = 2166136261u;
	digest = (digest ^ attribute->type) * 16777619u;
	for (size_t i = 0; i < attribute->len; i++)
		digest = (digest ^ attribute->data[i]) * 16777619u;
	return digest;
}

/* ---- one route message ---- */

struct message {
	struct route route;
	struct path *path;
	struct next_hop single; /* RTA_OIF, RTA_GATEWAY, RTA_VIA of the route itself */
	bool has_single, has_destination, has_multipath;
	bool too_many_legs;
};

static unsigned family_bytes(uint8_t family)
{
	return family == FAMILY_IP4 ? 4 : 16;
}

static int leg_gateway(struct next_hop *leg, uint8_t family, const uint8_t *data, size_t len)
{
	if (len < family_bytes(family))
		return -1;
	memset(leg->gateway, 0, sizeof(leg->gateway));
	memcpy(leg->gateway, data, family_bytes(family));
	leg->gateway_family = family;
	return 0;
}

/* struct rtvia: a gateway of another family than the route (RFC 8950). Not IP at all: the kernel's business. */
static int leg_via(struct path *path, struct next_hop *leg, const struct attribute *attribute)
{
	uint16_t family;

	if (attribute->len < sizeof(family))
		return -1;
	memcpy(&family, attribute->data, sizeof(family));
	if (family != AF_INET && family != AF_INET6) {
		path->flags |= PATH_KERNEL_ONLY;
		return 0;
	}
	return leg_gateway(leg, family == AF_INET ? FAMILY_IP4 : FAMILY_IP6, attribute->data + sizeof(family),
			   attribute->len - sizeof(family));
}

static int leg_attributes(const struct message *message, struct next_hop *leg, struct attributes rest)
{
	struct attribute attribute;
	int result;

	while ((result = attribute_next(&rest, &attribute)) > 0) {
		switch (attribute.type) {
		case RTA_GATEWAY:
			result = leg_gateway(leg, message->route.prefix.family, attribute.data, attribute.len);
			break;
		case RTA_VIA:
			result = leg_via(message->path, leg, &attribute);
			break;
		case RTA_FLOW: /* a realm: for classifiers, not for forwarding */
			break;
		default: /* RTA_ENCAP, RTA_ENCAP_TYPE, RTA_NEWDST, whatever comes */
			message->path->flags |= PATH_KERNEL_ONLY;
			break;
		}
		if (result < 0)
			return -1;
	}
	return result;
}

/* Dead and linkdown legs are legs: link state is not part of a path. */
static int message_multipath(struct message *message, const struct attribute *attribute)
{
	struct path *path = message->path;
	const uint8_t *at = attribute->data;
	size_t left = attribute->len;

	message->has_multipath = true;
	path->n_legs = 0;
	while (left >= sizeof(struct rtnexthop)) {
		struct rtnexthop hop;
		struct next_hop leg = {0};
		size_t step;

		memcpy(&hop, at, sizeof(hop));
		if (hop.rtnh_len < sizeof(hop) || hop.rtnh_len > left)
			return -1;
		leg.ifindex = (uint32_t)hop.rtnh_ifindex;
		leg.flags = hop.rtnh_flags & RTNH_F_ONLINK;
		leg.weight = (uint16_t)(hop.rtnh_hops + 1);
		if (leg_attributes(message, &leg,
				   (struct attributes){at + sizeof(hop), hop.rtnh_len - sizeof(hop)}) < 0)
			return -1;
		if (path->n_legs < PATH_MAX_LEGS)
			path->leg[path->n_legs++] = leg;
		else
			message->too_many_legs = true;
		step = step_over(hop.rtnh_len, left);
		at += step;
		left -= step;
	}
	return 0;
}

/* Of all metrics forwarding heeds the MTU alone, locked or not (ip_dst_mtu_maybe_forward, ip6_dst_mtu_maybe_forward);
 * the others are for what the kernel itself sends. A lock without an MTU makes IPv4 assume 576 behind a gateway. */
static int message_metrics(struct message *message, const struct attribute *attribute)
{
	struct attributes rest = {attribute->data, attribute->len};
	struct attribute metric;
	uint32_t locked = 0;
	int result;

	while ((result = attribute_next(&rest, &metric)) > 0) {
		if (metric.type == RTAX_MTU && attribute_u32(&metric, &message->path->mtu) < 0)
			return -1;
		if (metric.type == RTAX_LOCK && attribute_u32(&metric, &locked) < 0)
			return -1;
	}
	if ((locked & 1u << RTAX_MTU) && message->path->mtu == 0)
		message->path->flags |= PATH_KERNEL_ONLY;
	return result;
}

static int message_destination(struct message *message, const struct attribute *attribute)
{
	struct prefix *prefix = &message->route.prefix;
	unsigned bytes = family_bytes(prefix->family);

	if (attribute->len < bytes)
		return -1;
	memcpy(prefix->addr, attribute->data, bytes);
	message->has_destination = true;
	/* The kernel keeps nothing after the length; neither may we (rib.h calls that no prefix). */
	for (unsigned bit = prefix->len; bit < bytes * 8; bit = (bit / 8 + 1) * 8)
		prefix->addr[bit / 8] &= (uint8_t)(0xff00u >> (bit % 8));
	return 0;
}

/* What the RIB's `other` is made of. fib_find_info compares all of these; for IPv6 the next hop alone makes a route
 * (rt6_duplicate_nexthop), inside the subtree of its source. */
static void message_other(struct message *message, const struct attribute *attribute)
{
	struct route *route = &message->route;

	if (route->prefix.family == FAMILY_IP4 || attribute->type == RTA_SRC)
		route->other = attribute_digest(route->other, attribute);
}

static void message_kernel_only(struct message *message, const struct attribute *attribute)
{
	message->path->flags |= PATH_KERNEL_ONLY;
	message_other(message, attribute);
}

static int message_attribute(struct message *message, const struct attribute *attribute)
{
	switch (attribute->type) {
	case RTA_DST:
		return message_destination(message, attribute);
	case RTA_OIF:
		message->has_single = true;
		return attribute_u32(attribute, &message->single.ifindex);
	case RTA_GATEWAY:
		message->has_single = true;
		return leg_gateway(&message->single, message->route.prefix.family, attribute->data, attribute->len);
	case RTA_VIA:
		message->has_single = true;
		return leg_via(message->path, &message->single, attribute);
	case RTA_MULTIPATH:
		return message_multipath(message, attribute);
	case RTA_PRIORITY:
		return attribute_u32(attribute, &message->route.metric);
	case RTA_TABLE:
		return attribute_u32(attribute, &message->route.table);
	case RTA_NH_ID:
		return attribute_u32(attribute, &message->path->nhid);
	case RTA_METRICS:
		message_other(message, attribute);
		return message_metrics(message, attribute);
	case RTA_SRC:
	case RTA_PREFSRC:
	case RTA_FLOW:
		message_other(message, attribute);
		return 0;
	case RTA_ENCAP:
	case RTA_ENCAP_TYPE:
	case RTA_NEWDST:
		message_kernel_only(message, attribute);
		return 0;
	default: /* cache info, preference, padding …: known and no matter; what we do not know may matter */
		if (attribute->type > LAST_KNOWN_ATTRIBUTE)
			message_kernel_only(message, attribute);
		return 0;
	}
}

static void message_begin(struct message *message, struct path *path, const struct rtmsg *rtm)
{
	uint8_t family = rtm->rtm_family == AF_INET ? FAMILY_IP4 : FAMILY_IP6;

	memset(message, 0, sizeof(*message));
	message->path = path;
	message->route.prefix.family = family;
	message->route.prefix.len = rtm->rtm_dst_len;
	message->route.table = rtm->rtm_table;
	message->route.tos = family == FAMILY_IP4 ? rtm->rtm_tos : 0;
	message->route.protocol = rtm->rtm_protocol;
	message->route.scope = rtm->rtm_scope;
	message->route.source_len = rtm->rtm_src_len;
	message->single.weight = 1;
	message->single.flags = (uint8_t)(rtm->rtm_flags & RTNH_F_ONLINK);
	path->family = family;
	path->type = rtm->rtm_type;
	path->flags = 0;
	path->n_legs = 0;
	path->nhid = 0;
	path->mtu = 0;
}

/* 0, or -1: malformed. */
static int message_parse(struct message *message, struct attributes rest)
{
	unsigned bits = family_bytes(message->route.prefix.family) * 8;
	struct attribute attribute;
	int result;

	if (message->route.prefix.len > bits || message->route.source_len > bits)
		return -1;
	while ((result = attribute_next(&rest, &attribute)) > 0)
		if (message_attribute(message, &attribute) < 0)
			return -1;
	if (result < 0 || (message->route.prefix.len > 0 && !message->has_destination))
		return -1;
	if (message->has_single && !message->has_multipath) {
		message->path->leg[0] = message->single;
		message->path->n_legs = 1;
	}
	/* A nexthop object's legs are only repeated here (rib.h, struct path); those of the object itself count. */
	if (message->too_many_legs && message->path->nhid == 0)
		message->path->flags |= PATH_KERNEL_ONLY;
	return 0;
}

static enum rib_how message_how(const struct nlmsghdr *header)
{
	if (header->nlmsg_flags & NLM_F_REPLACE)
		return RIB_REPLACE;
	return header->nlmsg_flags & NLM_F_APPEND ? RIB_APPEND : RIB_ADD;
}

static void message_apply(struct route_stream *stream, const struct message *message, const struct nlmsghdr *header,
			  bool dump)
{
	int result;

	stream->stats.messages++;
	if (dump)
		result = rib_dumped(stream->rib, &message->route, message->path);
	else if (header->nlmsg_type == RTM_NEWROUTE)
		result = rib_add(stream->rib, &message->route, message->path, message_how(header));
	else
		result = rib_remove(stream->rib, &message->route, message->path);
	/* A deletion of what a dump had already not shown is no error. */
	if (result < 0 && result != -ENOENT)
		stream->stats.refused++;
}

static void route_message(struct route_stream *stream, const struct nlmsghdr *header, const uint8_t *body, size_t len,
			  bool dump)
{
	struct message message;
	struct rtmsg rtm;

	if (len < sizeof(rtm)) {
		stream->stats.malformed++;
		return;
	}
	memcpy(&rtm, body, sizeof(rtm));
	/* Multicast routing's tables have families of their own (RTNL_FAMILY_IPMR); clones are cache entries. */
	if ((rtm.rtm_family != AF_INET && rtm.rtm_family != AF_INET6) || (rtm.rtm_flags & RTM_F_CLONED) ||
	    (dump && header->nlmsg_type != RTM_NEWROUTE)) {
		stream->stats.ignored++;
		return;
	}
	message_begin(&message, &stream->path, &rtm);
	if (message_parse(&message, (struct attributes){body + sizeof(rtm), len - sizeof(rtm)}) < 0)
		stream->stats.malformed++;
	else
		message_apply(stream, &message, header, dump);
}

/* ---- datagrams ---- */

/* The errno in NLMSG_DONE and NLMSG_ERROR: 0 or negative; anything else is not an errno. */
static int end_code(const uint8_t *body, size_t len)
{
	int32_t error = 0;

	if (len >= sizeof(error))
		memcpy(&error, body, sizeof(error));
	if (error < -4095)
		return -EBADMSG;
	return error > 0 ? 0 : error;
}

static int dump_end(struct route_stream *stream, int error)
{
	bool interrupted = stream->interrupted;

	stream->interrupted = false;
	if (error < 0)
		return error;
	return interrupted ? -EINTR : ROUTE_STREAM_DONE;
}

static int one_message(struct route_stream *stream, const struct nlmsghdr *header, const uint8_t *body, size_t len,
		       bool dump)
{
	int error;

	if (dump && (header->nlmsg_flags & NLM_F_DUMP_INTR))
		stream->interrupted = true;
	switch (header->nlmsg_type) {
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		route_message(stream, header, body, len, dump);
		return ROUTE_STREAM_MORE;
	case NLMSG_DONE:
	case NLMSG_ERROR:
		error = end_code(body, len);
		/* An error of 0 acknowledges; in events there is no dump that could end. */
		if (dump && (header->nlmsg_type == NLMSG_DONE || error < 0))
			return dump_end(stream, error);
		break;
	default:
		break;
	}
	stream->stats.ignored++;
	return ROUTE_STREAM_MORE;
}

void route_stream_dump_begin(struct route_stream *stream)
{
	stream->interrupted = false; /* of one that ended without its end */
}

int route_stream_feed(struct route_stream *stream, const uint8_t *bytes, size_t len, int dump)
{
	stream->stats.datagrams++;
	while (len >= sizeof(struct nlmsghdr)) {
		struct nlmsghdr header;
		size_t step;
		int result;

		memcpy(&header, bytes, sizeof(header));
		if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > len) {
			stream->stats.malformed++; /* where would the next begin? */
			return ROUTE_STREAM_MORE;
		}
		result = one_message(stream, &header, bytes + sizeof(header), header.nlmsg_len - sizeof(header),
				     dump != 0);
		if (result != ROUTE_STREAM_MORE)
			return result;
		step = step_over(header.nlmsg_len, len);
		bytes += step;
		len -= step;
	}
	return ROUTE_STREAM_MORE;
}

/* ---- the socket ---- */

/* Number of datagrams received into the buffers, 0: none there, -errno. */
static int receive_batch(struct route_stream *stream, int fd, unsigned n)
{
	int received;

	for (unsigned i = 0; i < n; i++) {
		stream->header[i].msg_hdr.msg_namelen = sizeof(stream->from[i]);
		stream->header[i].msg_hdr.msg_flags = 0;
	}
	received = recvmmsg(fd, stream->header, n, MSG_DONTWAIT, NULL);
	if (received >= 0)
		return received;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	if (errno == ENOBUFS)
		stream->stats.overruns++;
	return -errno;
}

/* One datagram of a batch. As feed; -ENOBUFS when it was cut off. */
static int batch_feed(struct route_stream *stream, unsigned i)
{
	const struct mmsghdr *header = &stream->header[i];

	/* Another process may send to our port; only the kernel's word counts. */
	if (header->msg_hdr.msg_namelen != sizeof(stream->from[i]) || stream->from[i].nl_pid != 0) {
		stream->stats.ignored++;
		return ROUTE_STREAM_MORE;
	}
	if (header->msg_hdr.msg_flags & MSG_TRUNC) {
		stream->stats.overruns++;
		return -ENOBUFS;
	}
	return route_stream_feed(stream, stream->iov[i].iov_base, header->msg_len, 0);
}

int route_stream_receive(struct route_stream *stream, int fd, unsigned max)
{
	unsigned received = 0;
	int failed = 0;

	while (received < max) {
		unsigned room = max - received < BATCH ? max - received : BATCH;
		int n = receive_batch(stream, fd, room);

		if (n < 0)
			failed = n;
		if (n <= 0)
			break;
		for (unsigned i = 0; i < (unsigned)n; i++)
			if (batch_feed(stream, i) == -ENOBUFS)
				failed = -ENOBUFS;
		received += (unsigned)n;
	}
	rib_settle(stream->rib);
	return failed < 0 ? failed : (int)received;
}
