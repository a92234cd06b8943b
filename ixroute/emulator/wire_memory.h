/* A wire whose far end is calls: tests and benchmarks put packets on it and take what the card sent.
 *
 * Two bounded rings of bytes, each with one writer and one reader: the far end may be another thread than the engine's.
 */
#ifndef IXROUTE_EMULATOR_WIRE_MEMORY_H
#define IXROUTE_EMULATOR_WIRE_MEMORY_H

#include "emulator/wire.h"

/* room_bytes: of each direction, a power of two, at least 65536. event: an eventfd, non-blocking, the caller's; -1: the
 * engine does not sleep while this wire is plugged. NULL: no memory, or another room. */
struct wire *wire_memory_create(uint32_t room_bytes, int event);
void wire_memory_destroy(struct wire *wire);
/* A packet on its way to the card. 1; 0 when the wire is full; -EINVAL when it is empty or longer than an eighth of the
 * wire. */
int wire_memory_put(struct wire *wire, const uint8_t *data, uint32_t len);
/* The oldest packet from the card; its length, 0 when there is none. What does not fit in `room` is cut off. */
uint32_t wire_memory_take(struct wire *wire, uint8_t *data, uint32_t room);
/* While `burst` is not 0: the packets on their way to the card, and those put from now on, come again and again, at most
 * `burst` at a time, and what the card sends is counted and gone. What the card has already taken does not come again. */
void wire_memory_repeat(struct wire *wire, uint32_t burst);
/* While it is held the wire takes nothing from the card, as one that is full. */
void wire_memory_hold(struct wire *wire, int held);

#endif
