/* Which packets a card takes, and which queue a filter gives them (7.1.1, 7.1.2.2-7.1.2.5). */
#ifndef IXROUTE_EMULATOR_FILTER_H
#define IXROUTE_EMULATOR_FILTER_H

#include "emulator/card_state.h"
#include "emulator/parse.h"

/* The queue of the first ETQF filter for the packet's type: its number; -1: none. *queue: -1 when it names none. */
int filter_ethertype(const struct rx_tables *tables, const struct parsed *p, int *queue);
/* The queue of the 5-tuple filter with the highest priority, or -1. IPv4 only. */
int filter_five_tuple(const struct rx_tables *tables, const struct parsed *p, const uint8_t *packet);

#endif
