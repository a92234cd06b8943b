/* See mmio.h. Its own file, out of line: the compiler cannot merge, split or leave out an access. */
#include "driver/mmio.h"

#include <stdatomic.h>

static volatile uint32_t *reg_at(const void *base, uint64_t offset)
{
	return (volatile uint32_t *)((uintptr_t)base + offset);
}

uint32_t mmio_read32(const void *base, uint64_t offset)
{
	uint32_t value = *reg_at(base, offset);

	atomic_thread_fence(memory_order_acquire); /* what the card wrote to memory before is read after */
	return value;
}

void mmio_write32(void *base, uint64_t offset, uint32_t value)
{
	atomic_thread_fence(memory_order_release);
	*reg_at(base, offset) = value;
}
