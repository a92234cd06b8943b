/* RTM_NEWROUTE and RTM_DELROUTE, from the bytes of a netlink socket straight into the RIB.
 *
 * In C because a full table is a million messages: pyroute2's decoder needs a minute and a half for what the kernel
 * sends in under a second. Everything else (links, addresses, neighbours, nexthops, rules) is pyroute2's.
 * The socket is Python's; this only receives from it.
 */
#ifndef IXROUTE_NETLINK_ROUTE_STREAM_H
#define IXROUTE_NETLINK_ROUTE_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "fib/rib.h"

struct route_stream;

struct route_stream_stats {
	uint64_t datagrams;
	uint64_t messages;  /* route messages understood and given to the RIB */
	uint64_t ignored;   /* well-formed, not for us: other families, cloned (cache) entries, other types */
	uint64_t malformed; /* lengths or values that cannot be: skipped, nothing else is lost */
	uint64_t overruns;  /* ENOBUFS: the kernel threw messages away */
	uint64_t refused;   /* the RIB returned an error */
};

struct route_stream *route_stream_create(struct rib *rib);
void route_stream_destroy(struct route_stream *stream);

/* What a dump's end looked like (NLMSG_DONE / NLMSG_ERROR). */
#define ROUTE_STREAM_MORE 0 /* the dump goes on */
#define ROUTE_STREAM_DONE 1

/* Before the first datagram of a dump. */
void route_stream_dump_begin(struct route_stream *stream);
/* Applies one datagram. dump: messages are answers to a dump (rib_dumped) instead of events.
 * Returns ROUTE_STREAM_MORE or _DONE, or -errno: the dump failed (errno in NLMSG_DONE/NLMSG_ERROR). Never reads
 * beyond len. NLM_F_DUMP_INTR gives -EINTR at the end of the dump: it must be done again. */
int route_stream_feed(struct route_stream *stream, const uint8_t *bytes, size_t len, int dump);
/* Receives the events that are there, at most max datagrams, without blocking. Only datagrams from the kernel (nl_pid 0)
 * count. Returns the number of datagrams received, or -errno; -ENOBUFS: overrun. */
int route_stream_receive(struct route_stream *stream, int fd, unsigned max);
void route_stream_stats_read(const struct route_stream *stream, struct route_stream_stats *out);

#endif
