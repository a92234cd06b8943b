/* Memory of the FIB: small blocks at 32-bit references, in address space that never moves.
 *
 * An arena reserves its address range once (PROT_NONE, costs nothing) and commits it 2 MiB at a time, so that
 * growing it never moves a block under a reader. It is cut into 4 KiB pages, each holding blocks of one size; a
 * page whose blocks are all free serves any size again, so memory after months of churn is that of a fresh build. A
 * reference counts 8-byte units from the base. 0 is no block.
 *
 * Huge pages make lookups faster and small tables large: an arena or array that may stay small asks for none, but an
 * arena does from its second 2 MiB on.
 *
 * A lazy array is a plain array of zeros whose pages the kernel provides when they are first written; which they
 * were is remembered, to count its memory and to check it without reading (and so mapping) all of it.
 *
 * One thread (the writer) allocates and frees.
 */
#ifndef IXROUTE_FIB_ARENA_H
#define IXROUTE_FIB_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define ARENA_UNIT 8u
#define ARENA_PAGE 4096u
#define ARENA_BLOCK_MAX 520u /* the largest node: 64 runs of 8 bytes */
#define ARENA_CLASSES (ARENA_BLOCK_MAX / ARENA_UNIT + 1)

struct arena_page {
	uint16_t units;	   /* of a block here; 0: a page without a size */
	uint16_t used;	   /* blocks given out */
	uint16_t fresh;	   /* blocks never given out begin here */
	uint16_t free;	   /* first freed block, in units from the page's start plus 1; 0: none */
	uint32_t next, prev; /* pages of this size with room, or pages without a size; 0: none */
};

/* Lets a test make the nth allocation from now fail; counts down, 0: never. Shared by all arenas of a FIB. */
struct arena_fault {
	uint64_t countdown;
};

struct arena {
	uint8_t *base;
	uint64_t reserved, committed;
	uint32_t pages; /* ever taken, page 0 (never given out) included */
	uint32_t pages_in_use;
	uint32_t no_size;		   /* list of pages without a size */
	uint32_t with_room[ARENA_CLASSES]; /* lists of pages with a free block */
	uint64_t blocks, block_bytes;	   /* given out */
	struct arena_page *page;
	struct arena_fault *fault;
	int huge, small;
};

/* 0 or -ENOMEM. huge: ask for transparent huge pages; small: it may stay small. bytes: a multiple of 2 MiB, at most
 * 4 GiB. */
int arena_create(struct arena *arena, uint64_t bytes, int huge, int small, struct arena_fault *fault);
void arena_destroy(struct arena *arena);
/* A reference, its bytes undefined; 0 when there is no memory. 0 < bytes <= ARENA_BLOCK_MAX. */
uint32_t arena_alloc(struct arena *arena, uint32_t bytes);
void arena_free(struct arena *arena, uint32_t ref);

static inline void *arena_at(const struct arena *arena, uint32_t ref)
{
	return arena->base + (uint64_t)ref * ARENA_UNIT;
}

/* How many bytes the block has room for (its size rounded up). */
static inline uint32_t arena_room(const struct arena *arena, uint32_t ref)
{
	return arena->page[ref / (ARENA_PAGE / ARENA_UNIT)].units * ARENA_UNIT;
}

static inline uint64_t arena_bytes(const struct arena *arena)
{
	return (uint64_t)arena->pages_in_use * ARENA_PAGE;
}

struct lazy_array {
	void *base;
	uint64_t bytes;
	uint64_t pages_written;
	uint64_t *written; /* a bit per page */
};

int lazy_array_create(struct lazy_array *array, uint64_t bytes, int small);
void lazy_array_destroy(struct lazy_array *array);

static inline int lazy_array_written(const struct lazy_array *array, uint64_t page)
{
	return (int)(array->written[page / 64] >> (page % 64) & 1);
}

/* Before each first write to a page; `offset` in bytes. */
static inline void lazy_array_touch(struct lazy_array *array, uint64_t offset)
{
	uint64_t page = offset / ARENA_PAGE;

	if (!lazy_array_written(array, page)) {
		array->written[page / 64] |= 1ull << (page % 64);
		array->pages_written++;
	}
}

#endif
