/* The kinds of wires. Python opens what a wire needs (descriptors, files) and owns it; a wire borrows it from create to
 * destroy. Each create returns NULL when there is no memory. A wire is unplugged from its card before destroy.
 */
#ifndef IXROUTE_EMULATOR_WIRE_KINDS_H
#define IXROUTE_EMULATOR_WIRE_KINDS_H

#include <stddef.h>
#include <stdint.h>

#include "emulator/wire.h"

/* Link up, and nobody there: what the card sends is counted and gone, nothing comes. */
struct wire *wire_discard_create(void);
void wire_discard_destroy(struct wire *wire);

/* fd: a TAP, IFF_TAP | IFF_NO_PI, non-blocking, without offloads. */
struct wire *wire_tap_create(int fd);
void wire_tap_destroy(struct wire *wire);

/* fd: an AF_PACKET socket, SOCK_RAW, bound, non-blocking, with PACKET_VNET_HDR and PACKET_AUXDATA. */
struct wire *wire_packet_create(int fd);
void wire_packet_destroy(struct wire *wire);
/* How many packets with segmentation or receive offload came and were cut into frames. */
uint64_t wire_packet_segmented(const struct wire *wire);

/* Two ends of a cable within one engine. 0 or -ENOMEM. An end whose card does not ask for what arrives makes the other
 * card wait for a while, then loses it. */
int wire_pair_create(struct wire *ends[2]);
void wire_pair_destroy(struct wire *ends[2]);

/* bytes, n: a file that pcap_check finds fine, or NULL: nothing comes. pps 0: as fast as the card takes. out_fd -1: what
 * the card sends is discarded; else a pcap file with nanoseconds is written there, by wire_pcap_write; event: an eventfd,
 * non-blocking, that wakes it. */
struct wire *wire_pcap_create(const uint8_t *bytes, size_t n, int loop, uint64_t pps, int out_fd, int event);
void wire_pcap_destroy(struct wire *wire);
/* Writes the file in a thread of its own until wire_pcap_stop, then what is left. 0, or -errno of the file: what the
 * card sends from then on is counted as tx_dropped. */
int wire_pcap_write(struct wire *wire);
void wire_pcap_stop(struct wire *wire);

#endif
