/* The translation table of a card (dma.h): called by card.c when the client maps, by queues when a window misses. */
#include "emulator/dma.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void dma_table_create(struct dma_table *table)
{
	*table = (struct dma_table){.generation = 1};
}

void dma_table_destroy(struct dma_table *table)
{
	free(table->ranges);
	table->ranges = NULL;
	table->n = table->capacity = 0;
	table->generation++;
}

/* Index of the first range that ends beyond iova. */
static size_t first_beyond(const struct dma_table *table, uint64_t iova)
{
	size_t low = 0, high = table->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct dma_range *range = &table->ranges[middle];

		if (range->iova + (range->length - 1) < iova)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int grow(struct dma_table *table)
{
	size_t capacity = table->capacity ? 2 * table->capacity : 64;
	struct dma_range *ranges;

	if (table->n < table->capacity)
		return 0;
	if (table->n >= DMA_RANGES)
		return -ENOSPC;
	ranges = realloc(table->ranges, capacity * sizeof(*ranges));
	if (!ranges)
		return -ENOSPC;
	table->ranges = ranges;
	table->capacity = capacity;
	return 0;
}

int dma_map(struct dma_table *table, uint64_t iova, uint64_t length, uint8_t *address, uint32_t access)
{
	size_t at;
	int error;

	if (!length || iova + (length - 1) < iova || !address || ((uintptr_t)address & 15) != (iova & 15))
		return -EINVAL;
	at = first_beyond(table, iova);
	if (at < table->n && table->ranges[at].iova <= iova + (length - 1))
		return -EEXIST;
	error = grow(table);
	if (error)
		return error;
	memmove(&table->ranges[at + 1], &table->ranges[at], (table->n - at) * sizeof(*table->ranges));
	table->ranges[at] = (struct dma_range){iova, length, address, access};
	table->n++;
	table->generation++;
	return 0;
}

int dma_unmap(struct dma_table *table, uint64_t iova, uint64_t length)
{
	uint64_t last = iova + (length - 1);
	size_t from, to;

	if (!length)
		return 0;
	if (last < iova)
		last = UINT64_MAX;
	from = first_beyond(table, iova);
	if (from < table->n && table->ranges[from].iova < iova)
		from++; /* begins before the range: stays */
	for (to = from; to < table->n; to++) {
		const struct dma_range *range = &table->ranges[to];

		if (range->iova > last || range->length - 1 > last - range->iova)
			break;
	}
	if (to == from)
		return 0;
	memmove(&table->ranges[from], &table->ranges[to], (table->n - to) * sizeof(*table->ranges));
	table->n -= to - from;
	table->generation++;
	return (int)(to - from);
}

static bool joined(const struct dma_range *left, const struct dma_range *right)
{
	return left->iova + left->length == right->iova && left->address + left->length == right->address &&
	       left->access == right->access;
}

/* A window over the range and its neighbours that continue it here as well: guests' memory arrives page by page. */
static void open_window(const struct dma_table *table, struct dma_window *window, size_t at)
{
	size_t first = at, last = at;

	while (first > 0 && at - first < 512 && joined(&table->ranges[first - 1], &table->ranges[first]))
		first--;
	while (last + 1 < table->n && last - at < 512 && joined(&table->ranges[last], &table->ranges[last + 1]))
		last++;
	window->iova = table->ranges[first].iova;
	window->address = table->ranges[first].address;
	window->length = table->ranges[last].iova + table->ranges[last].length - window->iova;
	window->access = table->ranges[at].access;
	window->generation = table->generation;
}

uint8_t *dma_find(const struct dma_table *table, struct dma_window *window, uint64_t iova, uint64_t length,
		  uint32_t access)
{
	size_t at = first_beyond(table, iova);
	uint64_t offset;

	if (at == table->n || table->ranges[at].iova > iova || (table->ranges[at].access & access) != access)
		return NULL;
	open_window(table, window, at);
	offset = iova - window->iova;
	return length <= window->length - offset ? window->address + offset : NULL;
}

/* The longest piece at iova, at most `length`; NULL when nothing is mapped there. */
static uint8_t *piece_at(const struct dma_table *table, struct dma_window *window, uint64_t iova, uint64_t *length,
			 uint32_t access)
{
	uint8_t *piece = dma_at(table, window, iova, 1, access);

	if (piece && *length > window->length - (iova - window->iova))
		*length = window->length - (iova - window->iova);
	return piece;
}

int dma_copy_in(const struct dma_table *table, struct dma_window *window, uint8_t *to, uint64_t iova, uint64_t length,
		uint64_t *fault)
{
	while (length) {
		uint64_t n = length;
		const uint8_t *piece = piece_at(table, window, iova, &n, DMA_READ);

		if (!piece) {
			*fault = iova;
			return -EFAULT;
		}
		memcpy(to, piece, n);
		to += n;
		iova += n;
		length -= n;
	}
	return 0;
}

int dma_copy_out(const struct dma_table *table, struct dma_window *window, uint64_t iova, const uint8_t *from,
		 uint64_t length, uint64_t *fault)
{
	while (length) {
		uint64_t n = length;
		uint8_t *piece = piece_at(table, window, iova, &n, DMA_WRITE);

		if (!piece) {
			*fault = iova;
			return -EFAULT;
		}
		memcpy(piece, from, n);
		from += n;
		iova += n;
		length -= n;
	}
	return 0;
}
