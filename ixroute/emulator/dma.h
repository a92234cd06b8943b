/* What a card may reach of its client's memory: ranges of I/O addresses and where they are in this process.
 *
 * Used under the engine's lock. Ranges are sorted and never overlap. A lookup is one comparison with the range that was
 * found last (struct dma_window, one for each user: a ring, its buffers), then a binary search. Every change of the table
 * changes its generation, which makes all windows forget.
 *
 * Address and I/O address of a mapping agree in their low four bits, so that a descriptor that is aligned for the card is
 * aligned here.
 */
#ifndef IXROUTE_EMULATOR_DMA_H
#define IXROUTE_EMULATOR_DMA_H

#include <stddef.h>
#include <stdint.h>

#define DMA_READ 1u
#define DMA_WRITE 2u
#define DMA_RANGES 262144u

struct dma_range {
	uint64_t iova;
	uint64_t length;
	uint8_t *address;
	uint32_t access;
};

struct dma_table {
	struct dma_range *ranges;
	size_t n, capacity;
	uint64_t generation;
};

struct dma_window {
	uint64_t iova;
	uint64_t length;
	uint8_t *address;
	uint64_t generation; /* 0: nothing found yet */
	uint32_t access;
};

void dma_table_create(struct dma_table *table);
void dma_table_destroy(struct dma_table *table);
/* 0, -EINVAL (empty, past 2^64, unaligned), -EEXIST (overlaps), -ENOSPC. */
int dma_map(struct dma_table *table, uint64_t iova, uint64_t length, uint8_t *address, uint32_t access);
/* Every mapping that lies in the range whole; returns how many. */
int dma_unmap(struct dma_table *table, uint64_t iova, uint64_t length);

/* Sets the window to what surrounds iova; NULL when [iova, iova+length) does not lie in one piece of memory. */
uint8_t *dma_find(const struct dma_table *table, struct dma_window *window, uint64_t iova, uint64_t length,
		  uint32_t access);
/* Copies across mappings that touch. 0, or -EFAULT with the first address that is not mapped for it in *fault; what comes
 * before it has been copied. */
int dma_copy_in(const struct dma_table *table, struct dma_window *window, uint8_t *to, uint64_t iova, uint64_t length,
		uint64_t *fault);
int dma_copy_out(const struct dma_table *table, struct dma_window *window, uint64_t iova, const uint8_t *from,
		 uint64_t length, uint64_t *fault);

/* Where [iova, iova+length) is, in one piece and for this access; NULL when it is not. */
static inline uint8_t *dma_at(const struct dma_table *table, struct dma_window *window, uint64_t iova, uint64_t length,
			      uint32_t access)
{
	uint64_t offset = iova - window->iova;

	if (__builtin_expect(offset < window->length && length <= window->length - offset &&
				     window->generation == table->generation &&
				     (window->access & access) == access,
			     1))
		return window->address + offset;
	return dma_find(table, window, iova, length, access);
}

#endif
