/* Receive-side scaling (7.1.2.8): the Toeplitz hash of a packet's addresses and ports. */
#ifndef IXROUTE_EMULATOR_RSS_H
#define IXROUTE_EMULATOR_RSS_H

#include "emulator/card_state.h"
#include "emulator/parse.h"

/* RSS type (0: not hashed) as the write-back descriptor names it, and the hash. */
unsigned rss_hash(const struct rx_tables *tables, const struct parsed *p, const uint8_t *packet, uint32_t *hash);

#endif
