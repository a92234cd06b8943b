/* What address a device uses for a byte of memory that was mapped for it (transport.py, dma_map). */
#ifndef IXROUTE_DRIVER_DMA_H
#define IXROUTE_DRIVER_DMA_H

#include <stdint.h>

#define DMA_PAGE_SHIFT 21 /* without an IOMMU memory is contiguous within a 2 MiB huge page, no further */

struct dma_map {
	uint64_t base;	       /* iova of offset 0, when pages is NULL: one contiguous range */
	const uint64_t *pages; /* else the iova of each 2 MiB of the memory */
};

static inline uint64_t dma_iova(const struct dma_map *map, uint64_t offset)
{
	if (map->pages)
		return map->pages[offset >> DMA_PAGE_SHIFT] + (offset & ((1ull << DMA_PAGE_SHIFT) - 1));
	return map->base + offset;
}

#endif
