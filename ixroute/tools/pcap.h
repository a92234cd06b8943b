/* ixroute dump: a burst of packets as records of a pcap file. */
#ifndef IXROUTE_TOOLS_PCAP_H
#define IXROUTE_TOOLS_PCAP_H

#include <stddef.h>

#include "tools/lane.h"

#define PCAP_RECORD_BYTES 16u /* a record's header, before the packet's bytes */

/* Appends n packets, at most snap_bytes of each, received at time_ns since 1970, to out (room bytes: at least
 * n * (PCAP_RECORD_BYTES + snap_bytes)). Header fields in this machine's byte order, nanoseconds (magic a1b23c4d).
 * Returns the bytes written. */
size_t pcap_append(const struct umem *umem, const struct frame *frames, unsigned n, uint32_t snap_bytes,
		   uint64_t time_ns, uint8_t *out, size_t room);

#endif
