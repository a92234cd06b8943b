/* A stand-in for a card: marks receive descriptors done and consumes transmit descriptors in shared memory, on the
 * core of the driver or on another. What drives it is a forwarder: ixroute's rings (ours.c) or ixy's (ixy.c), each with
 * registers at the 82599's offsets, so that both meet the same card. */
#ifndef IXROUTE_BENCH_STANDIN_H
#define IXROUTE_BENCH_STANDIN_H

#include <stdint.h>

#define BAR_BYTES (512u << 10)
#define MAX_QUEUES 4u
#define RING_SLOTS 512u /* what ixy has, both ways */

/* Registers of queue 0, datasheet 331520 8.2.3.8, 8.2.3.9; the next queue's are 0x40 further. */
#define RDBAL 0x1000u
#define RDLEN 0x1008u
#define RDT 0x1018u
#define TDBAL 0x6000u
#define TDLEN 0x6008u
#define TDT 0x6018u
#define TDWBAL 0x6038u /* with bit 0: the card writes its head there */

struct forwarder {
	/* Takes up to burst packets of a queue, touches a byte of each, sends them by the same. Returns how many. */
	unsigned (*pass)(void *queue, unsigned burst);
	void *queue[MAX_QUEUES];
	uint8_t *bar[MAX_QUEUES]; /* each queue is queue 0 of a card of its own */
};

struct layout {
	uint32_t frame_bytes, headroom, buffer_bytes;
	uint32_t head_write_back;
	uint32_t pages; /* addresses by a table of 2 MiB pages, as without an IOMMU */
};

/* Memory that the card may reach, at the same address: huge pages if the system gives any. NULL: none. */
void *standin_memory(uint64_t bytes);

#define EXPORTED __attribute__((visibility("default")))

/* 0, or -1: no memory. */
int forwarder_ours(struct forwarder *forwarder, unsigned queues, const struct layout *layout);
int forwarder_ixy(struct forwarder *forwarder, unsigned queues, const struct layout *layout);

#endif
