/* The packet engine of emulated 82599 ports, and one thread that serves any number of them.
 *
 * A card's state is the image of its BAR 0 (512 KiB, shared memory): Python's model writes registers there, the engine
 * reads them in place and writes RDH, TDH. Only canonical offsets count (SRRCTL 0x1014+0x40q, RAL 0xA200+8i, …): the
 * model resolves aliases. Two groups of registers have behaviour and live in C: interrupts and statistics; card_read
 * and card_write do these.
 *
 * Locking: one lock an engine, held by the engine's thread for a pass, by every function here while it runs. A caller
 * never waits longer than a pass.
 *
 * The engine touches only memory that card_dma_map gave it; any other address is a fault: counted, remembered, and
 * the queue that asked for it stops, as a real card's DMA would be refused by the IOMMU.
 */
#ifndef IXROUTE_EMULATOR_CARD_H
#define IXROUTE_EMULATOR_CARD_H

#include <stddef.h>
#include <stdint.h>

#include "emulator/wire.h"

#define CARD_QUEUES 128u
#define CARD_VECTORS 64u
#define CARD_BAR_BYTES 0x80000u
/* In the image, where no register is: a word for each vector, in which a client that can store there may ask for what
 * writing the vector's bit to EIMS_EX does: it stores anything but 0 and wakes the engine as after a tail. One word a
 * vector, so that clients' threads do not overwrite each other's. */
#define CARD_UNMASK_WORDS 0x7F000u

struct engine;
struct card;

/* sleep_word: in shared memory; not 0 while the engine sleeps (see driver/doorbell.h for the other side). event: an
 * eventfd, non-blocking; written here to wake the engine. clients_event: another that does so, which clients write; nothing
 * here does, as they may fill it. poll_ns: how long the engine looks for work before it sleeps.
 * scan: clients map queue registers without telling of their writes: look at them at least every millisecond. */
struct engine *engine_create(volatile uint32_t *sleep_word, int event, int clients_event, uint64_t poll_ns, int scan);
void engine_destroy(struct engine *engine);
/* Runs until engine_stop, in a thread of its own. */
int engine_run(struct engine *engine);
void engine_stop(struct engine *engine);
/* One pass over all cards in the caller's thread, for tests: how many packets moved. Not while engine_run runs. */
unsigned engine_step(struct engine *engine);

/* A card in the engine; registers: CARD_BAR_BYTES, the caller's. NULL: no memory. */
struct card *card_create(struct engine *engine, volatile uint32_t *registers);
void card_destroy(struct card *card);
/* NULL: unplugged. The wire outlives its use; replaced at any time. */
void card_plug(struct card *card, struct wire *wire);
/* Whether the MAC has a link: without one nothing is received or sent (transmit descriptors stay). */
void card_set_link(struct card *card, int up);
/* Everything as after power-on: queues off, statistics and interrupt state 0. Mappings and vectors stay. */
void card_reset(struct card *card);

/* 0, -EEXIST (overlaps), -ENOSPC, -EINVAL (empty, past 2^64, or iova and address differ in their low four bits: an aligned
 * descriptor must be aligned here too). Whole pages not required. */
int card_dma_map(struct card *card, uint64_t iova, uint64_t length, uint8_t *address, int readable, int writable);
/* Every mapping that lies in the range whole; returns how many. No access is under way when it returns. */
int card_dma_unmap(struct card *card, uint64_t iova, uint64_t length);
/* eventfds of vectors first … first+n-1; -1: not wired. The caller's; not used any more when a later call returns. -EINVAL:
 * beyond CARD_VECTORS. */
int card_set_vectors(struct card *card, unsigned first, unsigned n, const int *fds);
void card_raise_vector(struct card *card, unsigned vector);

/* 1 when the engine owns the register and did it; 0: an ordinary register, in the image. */
int card_read(struct card *card, uint32_t offset, uint32_t *value);
int card_write(struct card *card, uint32_t offset, uint32_t value);
/* Causes in EICR (LSC, …) that come from the model. */
void card_cause(struct card *card, uint32_t eicr_bits);
/* After the image was changed: the queue's RXDCTL/TXDCTL, base or length (starts, restarts or stops it) ... */
void card_queue_changed(struct card *card, int is_tx, unsigned queue);
/* ... RSSRK, RETA, MRQC, filters, MAC addresses, FCTRL, VLNCTRL, … (derived tables are made anew) ... */
void card_filters_changed(struct card *card);
/* ... a tail was written, or anything else that may give the engine work: wakes it. */
void card_kick(struct card *card);

struct card_counters {
	uint64_t dma_faults;	  /* accesses to memory the client did not map */
	uint64_t last_fault_iova;
	uint64_t bad_descriptors; /* ones the datasheet forbids: the queue stops */
	uint64_t interrupts;	  /* eventfds written */
	uint64_t rx_packets, tx_packets;
	uint64_t tx_segments; /* packets made by TSO */
};
void card_counters_read(const struct card *card, struct card_counters *out);

struct engine_counters {
	uint64_t passes, busy_passes, sleeps, wakes_by_event;
};
void engine_counters_read(const struct engine *engine, struct engine_counters *out);

#endif
