/* ixroute's rings (driver/ixgbe/ring.c) on the stand-in card, called in the order in which a worker calls them. */
#include "standin.h"

#include <stdlib.h>
#include <string.h>

#include "driver/ixgbe/ring.h"

#define FRAMES 4096u /* per queue: as many as ixy has */

struct ours {
	struct queue *queue;
	struct frame_pool *pool;
	const struct umem *umem;
	struct doorbell rx_tail, tx_tail;
};

static unsigned pass(void *context, unsigned burst)
{
	struct ours *ours = context;
	struct queue *queue = ours->queue;
	struct frame frame[64];
	unsigned n, taken;

	queue->ops->reclaim(queue, ours->pool);
	n = queue->ops->rx_burst(queue, frame, burst);
	if (n) {
		for (unsigned i = 0; i < n; i++)
			frame_data(ours->umem, frame[i].addr)[1]++;
		taken = queue->ops->tx_burst(queue, frame, n);
		for (unsigned i = taken; i < n; i++)
			frame_pool_put(ours->pool, ours->umem, frame[i].addr);
	}
	queue->ops->refill(queue, ours->pool);
	queue->ops->tx_doorbell(queue);
	return n;
}

static void reg_write(uint8_t *bar, uint32_t offset, uint32_t value)
{
	memcpy(bar + offset, &value, sizeof(value));
}

static void reg_write_address(uint8_t *bar, uint32_t offset, const void *address)
{
	reg_write(bar, offset, (uint32_t)(uintptr_t)address);
	reg_write(bar, offset + 4, (uint32_t)((uintptr_t)address >> 32));
}

static struct ours *ours_create(const struct umem *umem, struct frame_pool *pool, uint8_t *bar, uint8_t *rings,
				const struct dma_map *map, const struct layout *layout)
{
	struct ours *ours = calloc(1, sizeof(*ours));
	struct ixgbe_ring_config config;
	struct ixgbe_ring *ring;

	if (!ours)
		return NULL;
	ours->rx_tail = (struct doorbell){ .reg = (uint32_t *)(void *)(bar + RDT), .event = -1, .socket = -1 };
	ours->tx_tail = (struct doorbell){ .reg = (uint32_t *)(void *)(bar + TDT), .event = -1, .socket = -1 };
	config = (struct ixgbe_ring_config){
		.umem = umem, .frames = *map, .rx_ring = rings, .tx_ring = rings + 16 * RING_SLOTS,
		.rx_slots = RING_SLOTS, .tx_slots = RING_SLOTS, .buffer_bytes = layout->buffer_bytes,
		.headroom = layout->headroom, .rx_tail = &ours->rx_tail, .tx_tail = &ours->tx_tail, .event = -1,
	};
	reg_write_address(bar, RDBAL, config.rx_ring);
	reg_write_address(bar, TDBAL, config.tx_ring);
	reg_write(bar, RDLEN, 16 * RING_SLOTS);
	reg_write(bar, TDLEN, 16 * RING_SLOTS);
	if (layout->head_write_back) {
		config.tx_head = (volatile uint32_t *)(void *)(rings + 32 * RING_SLOTS);
		reg_write_address(bar, TDWBAL, rings + 32 * RING_SLOTS + 1);
	}
	ring = ixgbe_ring_create(&config);
	if (!ring)
		return NULL;
	ours->queue = ixgbe_ring_queue(ring);
	ours->pool = pool;
	ours->umem = umem;
	ours->queue->ops->refill(ours->queue, pool);
	return ours;
}

int forwarder_ours(struct forwarder *forwarder, unsigned queues, const struct layout *layout)
{
	uint32_t n = queues * FRAMES;
	struct umem *umem = calloc(1, sizeof(*umem));
	struct frame_pool *pool = frame_pool_create(n);
	struct dma_map map = { 0 };
	uint64_t *pages;

	if (!umem || !pool)
		return -1;
	*umem = (struct umem){ .bytes = (uint64_t)n * layout->frame_bytes, .frame_bytes = layout->frame_bytes, .n_frames = n };
	umem->base = standin_memory(umem->bytes);
	pages = calloc((umem->bytes >> DMA_PAGE_SHIFT) + 1, sizeof(*pages));
	if (!umem->base || !pages)
		return -1;
	map.base = (uintptr_t)umem->base;
	for (uint64_t i = 0; layout->pages && i <= umem->bytes >> DMA_PAGE_SHIFT; i++)
		pages[i] = map.base + (i << DMA_PAGE_SHIFT);
	if (layout->pages)
		map.pages = pages;
	for (uint32_t i = n; i-- > 0;)
		frame_pool_put(pool, umem, (uint64_t)i * umem->frame_bytes);
	forwarder->pass = pass;
	for (unsigned i = 0; i < queues; i++) {
		uint8_t *bar = standin_memory(BAR_BYTES), *rings = standin_memory(64 * RING_SLOTS);

		if (!bar || !rings)
			return -1;
		forwarder->bar[i] = bar;
		forwarder->queue[i] = ours_create(umem, pool, bar, rings, &map, layout);
		if (!forwarder->queue[i])
			return -1;
	}
	return 0;
}
