/* What a transmit descriptor asks the card to do to a packet (7.2.4, 7.2.5): checksums, tag, segments. Used by card_tx.c.
 *
 * Lengths come from the client's context descriptors: each is checked against the packet.
 */
#ifndef IXROUTE_EMULATOR_TX_OFFLOAD_H
#define IXROUTE_EMULATOR_TX_OFFLOAD_H

#include "emulator/card_state.h"

/* POPTS of the first data descriptor. */
#define POPTS_IXSM 1u
#define POPTS_TXSM 2u

/* L4T of a context. */
#define L4T_UDP 0u
#define L4T_TCP 1u
#define L4T_SCTP 2u

/* false: the context's lengths lie outside of the packet, or name no protocol. */
bool tx_checksums(uint8_t *packet, uint32_t len, const struct tx_context *context, unsigned popts);
/* Legacy descriptors' IC: the sum from byte css to the end goes to byte cso. */
bool tx_legacy_checksum(uint8_t *packet, uint32_t len, uint32_t css, uint32_t cso);
/* Moves the addresses four bytes down (there is room before the packet) and puts the tag behind them. */
uint8_t *tx_insert_tag(uint8_t *packet, uint16_t type, uint16_t tci);

/* tso->bytes holds a whole packet of len bytes, context, popts and vlan are set. false: it cannot be cut. */
bool tso_begin(struct tso *tso, uint32_t len);
/* Segment number `index` counted from tso->done, into out (room for a tag before it): its length; 0: there are no more. */
uint32_t tso_segment(const struct card *card, const struct tso *tso, uint32_t index, uint8_t *out);

#endif
