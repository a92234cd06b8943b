/* Transmit descriptors (7.2.3), read once from the client's ring and taken apart. Used by card_tx.c. */
#ifndef IXROUTE_EMULATOR_TX_DESCRIPTOR_H
#define IXROUTE_EMULATOR_TX_DESCRIPTOR_H

#include "emulator/card_state.h"

/* The second quadword: the same places in legacy, context and data descriptors. */
#define TX_LENGTH 0xFFFFull
#define TX_TYPE_SHIFT 20 /* DTYP, 4 bits, with DEXT */
#define TX_TYPE_CONTEXT 2u
#define TX_TYPE_DATA 3u
#define TX_EOP (1ull << 24)
#define TX_IFCS (1ull << 25)
#define TX_IC (1ull << 26) /* legacy: insert a checksum */
#define TX_RS (1ull << 27)
#define TX_DEXT (1ull << 29)
#define TX_VLE (1ull << 30)
#define TX_TSE (1ull << 31)
#define TX_DD 1u /* of the last word */

struct tx_fragment {
	uint64_t iova;
	uint32_t len;
};

/* A packet's descriptors, gathered. */
struct tx_request {
	struct tx_fragment fragment[TX_DATA_DESCRIPTORS];
	unsigned fragments;
	uint32_t len; /* sum of the fragments */
	uint32_t next; /* the descriptor behind */
	bool extended, report; /* advanced descriptors; RS on the last */
	bool ic, fcs, tse;
	uint8_t css, cso;
	uint8_t popts, index;
	uint32_t payload; /* PAYLEN */
	int32_t vlan;	  /* tag to insert (legacy), -1: none, -2: the context's */
};

enum tx_gathered {
	TX_PACKET,
	TX_INCOMPLETE, /* no EOP before the tail */
	TX_NOTHING,
	TX_BAD,
	TX_FAULT,
};

/* From *at to tail: contexts are kept in the queue, and *at moves behind them; then one packet's data descriptors. */
enum tx_gathered tx_gather(const struct card *card, struct tx_queue *q, uint32_t *at, uint32_t tail,
			   struct tx_request *r);
/* DD into the descriptor at `at`. */
void tx_report(const struct card *card, struct tx_queue *q, uint32_t at);

#endif
