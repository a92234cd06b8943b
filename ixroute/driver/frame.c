/* The life of a frame pool; what is done with it per packet is in frame.h. Called by Python (umem.py). */
#include "driver/frame.h"

#include <stdlib.h>

struct frame_pool *frame_pool_create(uint32_t capacity)
{
	struct frame_pool *pool = malloc(sizeof(*pool) + (size_t)capacity * sizeof(pool->addr[0]));

	if (pool) {
		pool->n = 0;
		pool->capacity = capacity;
	}
	return pool;
}

struct frame_pool *frame_pool_resize(struct frame_pool *pool, uint32_t capacity)
{
	struct frame_pool *larger = realloc(pool, sizeof(*pool) + (size_t)capacity * sizeof(pool->addr[0]));

	if (larger)
		larger->capacity = capacity;
	return larger;
}

void frame_pool_destroy(struct frame_pool *pool)
{
	free(pool);
}
