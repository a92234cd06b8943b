/* Counters of one worker. One writer per block (the worker), plain 64-bit stores; Python sums the blocks.
 *
 * Per port, seen from where a packet came in (rx = from the wire, injected = from the kernel by the port's TAP):
 *     rx + injected = sent + Σ punted[reason] + Σ dropped[reason] + Σ policed[reason]
 * exactly, whenever no burst is under way. Seen from where it left: tx. Over all ports Σ sent = Σ tx.
 * Per VLAN sub-interface, of the packets that the fast path met on it, all reasons together:
 *     rx = sent + punted + dropped + policed
 * These packets are in their port's counters too. What the kernel sends through a sub-interface is injected at the
 * port alone, and counted by the kernel.
 * punted means put into the door's ring; what became of it there is tap/door.h's count.
 */
#ifndef IXROUTE_FORWARD_COUNTERS_H
#define IXROUTE_FORWARD_COUNTERS_H

#include <stdint.h>

#define COUNTER_REASONS 64u

struct port_counters {
	_Alignas(64) uint64_t rx_packets;
	uint64_t rx_bytes;
	uint64_t injected_packets;
	uint64_t injected_bytes;
	uint64_t sent_packets; /* came in here, left by some port */
	uint64_t tx_packets;   /* left here, came from anywhere */
	uint64_t tx_bytes;
	uint64_t reserved;
	uint64_t punted[COUNTER_REASONS];
	uint64_t dropped[COUNTER_REASONS];
	uint64_t policed[COUNTER_REASONS]; /* dropped by the token bucket of that punt reason */
};

struct sub_counters {
	_Alignas(64) uint64_t rx_packets;
	uint64_t rx_bytes; /* tags included */
	uint64_t sent_packets;
	uint64_t punted;
	uint64_t dropped;
	uint64_t policed;
	uint64_t tx_packets; /* left here, came from anywhere */
	uint64_t tx_bytes;
};

struct worker_counters {
	_Alignas(64) uint64_t polls;	/* passes over all queues; moves as long as the worker lives: its heartbeat */
	uint64_t busy_polls;	/* passes that had packets */
	uint64_t packets;	/* rx + injected, all ports */
	uint64_t busy_cycles;	/* time-stamp counter cycles in busy passes */
	uint64_t sleeps;
	uint64_t rx_no_frame;
	uint64_t heartbeat_ns;	/* CLOCK_MONOTONIC at the last wake-up or every few thousand passes */
	uint64_t free_frames;
};

#endif
