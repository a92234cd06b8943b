/* Registers of a card by Python: one volatile access of 32 bits each, which no copying of bytes (struct, memoryview)
 * promises. Called by the transports' regions (vfio_region.py), never on the packet path: that has doorbells.
 *
 * base is the start of a mapping, offset a multiple of 4 inside it: the caller has checked.
 */
#ifndef IXROUTE_DRIVER_MMIO_H
#define IXROUTE_DRIVER_MMIO_H

#include <stdint.h>

uint32_t mmio_read32(const void *base, uint64_t offset);
/* What was stored to memory before (descriptors, addresses) is visible to the card when it sees the value. */
void mmio_write32(void *base, uint64_t offset, uint32_t value);

#endif
