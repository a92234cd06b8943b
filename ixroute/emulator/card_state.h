/* What a card and an engine remember: private to card*.c and engine.c, whose functions this declares to each other.
 *
 * Everything here belongs to whoever holds the engine's lock. Registers and descriptors are shared with the client, which
 * may change them at any moment: they are read once into a local and judged there.
 */
#ifndef IXROUTE_EMULATOR_CARD_STATE_H
#define IXROUTE_EMULATOR_CARD_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "emulator/card.h"
#include "emulator/card_regs.h"
#include "emulator/dma.h"

#define LONGEST_FRAME 15868u  /* without FCS: 15.5 KiB with it (7.2.1, 7.1.4) */
#define SHORTEST_FRAME 60u
#define FCS_BYTES 4u
#define DESCRIPTOR_BYTES 16u
#define TX_DATA_DESCRIPTORS 40u /* of one packet */
#define TSO_BYTES ((1u << 18) + 512u)
#define TX_ARENA_BYTES 131072u
#define PACKET_BUFFER_BYTES 0x80000u
#define MAC_ADDRESSES 128u

enum queue_state {
	QUEUE_OFF,
	QUEUE_RUNS,
	QUEUE_STOPPED, /* after a fault; until the client disables it */
};

/* One queue's ring as it was when the queue was enabled. */
struct ring {
	volatile uint32_t *regs; /* QUEUE_… / 4 */
	uint64_t base;
	uint32_t n;
	uint32_t head;
	enum queue_state state;
	struct dma_window window;
};

struct rx_queue {
	struct ring ring;
	struct dma_window data, header;
	uint32_t buffer_bytes, header_bytes;
	uint32_t tail;
	uint8_t type;
	bool touched, drop, strip, wrote;
	uint32_t packets, dropped; /* since the burst began */
	uint64_t bytes;
};

/* A context descriptor (7.2.3.2.3), taken apart. */
struct tx_context {
	bool valid;
	bool ip4;
	uint8_t l4_type;
	uint8_t l4_bytes;
	uint16_t mac_bytes, ip_bytes;
	uint16_t vlan;
	uint16_t mss;
};

struct tx_queue {
	struct ring ring;
	struct dma_window data, write_back;
	struct tx_context context[2];
	uint32_t idle_tail; /* nothing could be done up to this tail: half a packet */
	bool idle;
};

/* A packet being cut into segments: all its bytes were read, its descriptors are done. */
struct tso {
	bool active;
	uint8_t *bytes;
	uint32_t headers, payload, done;
	uint32_t id; /* IPv4 identification of the first segment */
	uint32_t sequence;
	uint16_t flags;
	uint8_t popts;
	uint16_t queue;
	int32_t vlan; /* -1: none */
	struct tx_context context;
};

/* Packets that came and have no descriptor yet: records of a length and bytes. */
struct packet_buffer {
	uint8_t *bytes;
	uint32_t put, taken; /* offsets */
	uint32_t used;
	uint32_t packets;
};

struct irq {
	uint64_t pending, mask; /* queue causes by vector */
	uint32_t other, other_mask;
	uint64_t auto_mask;
	uint32_t other_auto_mask;
	uint32_t auto_clear;
	uint64_t asserted; /* message sent and the cause still there */
	uint64_t held;	   /* waits for its EITR */
	uint64_t due_ns[CARD_VECTORS];
	int fd[CARD_VECTORS];
	unsigned wired; /* vectors from here on have no eventfd */
};

enum stat {
	STAT_NONE,
	STAT_PRC,	      /* 6: by size */
	STAT_PTC = STAT_PRC + 6,
	STAT_GPRC = STAT_PTC + 6,
	STAT_BPRC,
	STAT_MPRC,
	STAT_GPTC,
	STAT_BPTC,
	STAT_MPTC,
	STAT_GORC,
	STAT_GOTC,
	STAT_TOR,
	STAT_TPR,
	STAT_TPT,
	STAT_RUC,
	STAT_ROC,
	STAT_MPC,
	STAT_RXDGPC,
	STAT_RXDGBC,
	STAT_TXDGPC,
	STAT_TXDGBC,
	STAT_QPRC, /* 16 each */
	STAT_QBRC = STAT_QPRC + 16,
	STAT_QPRDC = STAT_QBRC + 16,
	STAT_QPTC = STAT_QPRDC + 16,
	STAT_QBTC = STAT_QPTC + 16,
	STATS = STAT_QBTC + 16,
};

/* Filters and RSS as card_filters_changed left them. */
struct five_tuple {
	uint32_t source, destination; /* bytes as in the packet */
	uint32_t ports;
	uint8_t protocol, mask, priority, queue;
};

struct rx_tables {
	uint64_t mac[MAC_ADDRESSES];
	unsigned macs;
	struct five_tuple tuple[128];
	unsigned tuples;
	uint32_t ethertype[8]; /* with ETQF_FILTER_EN */
	uint32_t ethertype_queue[8];
	bool ethertypes;
	uint32_t mrqc;
	uint8_t reta[128];
	uint8_t key[40];
	uint32_t toeplitz[36][256];
};

/* Registers that count for a whole burst of received packets. */
struct rx_control {
	uint32_t fctrl, vlnctrl, mcstctrl, rxcsum, hlreg0, psrtype;
	uint32_t longest; /* with FCS, without a tag */
	uint16_t vet;
};

struct card {
	struct engine *engine;
	volatile uint32_t *registers;
	struct wire *wire;
	bool armed;
	bool link;
	bool tx_blocked; /* the wire did not take everything */
	unsigned tx_next; /* queue to begin the next pass with */
	struct dma_table dma;
	struct rx_queue rx[CARD_QUEUES];
	struct tx_queue tx[CARD_QUEUES];
	uint64_t rx_running[2], tx_running[2]; /* bit q: state is QUEUE_RUNS */
	struct rx_control control;
	struct rx_tables tables;
	struct packet_buffer buffer;
	uint8_t touched[CARD_QUEUES];
	unsigned n_touched;
	struct tso tso;
	struct irq irq;
	uint64_t stats[STATS];
	struct card_counters counters;
	_Alignas(64) uint8_t scratch[16384]; /* a received packet without its tag, or with its FCS */
};

struct engine {
	pthread_mutex_t lock;
	_Atomic uint32_t entered, served; /* calls that wanted the lock, and that got it */
	volatile uint32_t *sleep_word;
	int event, clients_event;
	uint64_t poll_ns;
	bool scan;
	_Atomic int stop;
	struct card **cards;
	unsigned n_cards, room;
	uint64_t scanned_ns;
	struct engine_counters counters;
	uint8_t *arena; /* TX_ARENA_BYTES: packets put together during a burst */
};

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

static inline uint32_t reg(const struct card *card, uint32_t offset)
{
	return card->registers[offset / 4];
}

static inline uint32_t ring_reg(const struct ring *ring, uint32_t offset)
{
	return ring->regs[offset / 4];
}

/* The tail, after which the descriptors before it may be read. */
static inline uint32_t ring_tail(const struct ring *ring)
{
	return __atomic_load_n(&ring->regs[QUEUE_TAIL / 4], __ATOMIC_ACQUIRE) & 0xFFFFu;
}

static inline uint32_t ring_next(const struct ring *ring, uint32_t at)
{
	return at + 1 == ring->n ? 0 : at + 1;
}

static inline uint32_t ring_count(const struct ring *ring, uint32_t from, uint32_t to)
{
	return to >= from ? to - from : to + ring->n - from;
}

/* A queue that is off and stays off, most of them, costs a scan one load. */
static inline bool ring_wants_look(const struct ring *ring)
{
	return ring->state != QUEUE_OFF || ring_reg(ring, QUEUE_DCTL) & DCTL_ENABLE;
}

/* A descriptor is read and written. NULL: not the card's memory. */
static inline uint8_t *ring_descriptor(const struct card *card, struct ring *ring, uint32_t at)
{
	return dma_at(&card->dma, &ring->window, ring->base + (uint64_t)at * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES,
		      DMA_READ | DMA_WRITE);
}

/* A byte of registers in which each byte is a queue's (RQSMR, TQSM). */
static inline unsigned stat_set(const struct card *card, uint32_t offset, unsigned queue)
{
	return reg(card, offset + (queue & ~3u)) >> (8 * (queue & 3)) & 0xF;
}

/* ring.c */
void ring_look(struct card *card, bool is_tx, unsigned queue);
void ring_stop(struct card *card, bool is_tx, unsigned queue);
void ring_publish_head(struct ring *ring);
void card_fault(struct card *card, uint64_t iova);

/* card_rx.c, packet_buffer.c, header_split.c */
unsigned card_rx_pass(struct card *card, uint64_t now_ns);
bool card_rx_has_work(const struct card *card);
/* Whether the wire is asked for packets: always, but for one that waits for the receiver. */
bool card_hears(const struct card *card);
void card_rx_loop(struct card *card, const struct wire_packet *packets, unsigned n);
bool packet_buffer_put(struct packet_buffer *buffer, uint32_t limit, const uint8_t *data, uint32_t len);
const uint8_t *packet_buffer_first(const struct packet_buffer *buffer, uint32_t *len);
void packet_buffer_drop_first(struct packet_buffer *buffer);
void packet_buffer_clear(struct packet_buffer *buffer);

/* card_tx.c */
unsigned card_tx_pass(struct card *card, uint64_t now_ns);
bool card_tx_has_work(const struct card *card);
bool card_tx_enabled(const struct card *card);

/* card_irq.c */
void irq_reset(struct irq *irq);
void irq_queue(struct card *card, bool is_tx, unsigned queue);
void irq_other(struct card *card, uint32_t bits);
void irq_update(struct card *card, uint64_t now_ns);
/* Whether a vector's word asks for its unmasking (card.h), and doing it. */
bool irq_asked(const struct card *card);
void irq_take_asked(struct card *card);
uint64_t irq_due_ns(const struct card *card);
void irq_raise(struct card *card, unsigned vector);
bool irq_read(struct card *card, uint32_t offset, uint32_t *value);
bool irq_write(struct card *card, uint32_t offset, uint32_t value);

/* card_stats.c */
bool stats_read(struct card *card, uint32_t offset, uint32_t *value);
bool stats_owns(uint32_t offset);
unsigned stats_size_bin(uint32_t wire_bytes);

/* filter.c, rss.c */
void filter_rebuild(struct card *card);
bool filter_accepts(const struct card *card, const uint8_t *packet, bool tagged, uint16_t tci);
void rss_rebuild(struct card *card);

/* engine.c */
uint64_t engine_now_ns(void);

#endif
