/* Blocks of the FIB's tries (arena.h). Called by the writer only, never on the packet path.
 *
 * Invariants: a page of a size is in with_room exactly when it has a free block; a page with no used block has no
 * size; freed blocks keep the link to the next one in their first two bytes, so nobody may still read them
 * (readers' blocks come here only through retire.c). */
#include "fib/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define COMMIT_STEP (2ull << 20)
#define PAGE_UNITS (ARENA_PAGE / ARENA_UNIT)

/* Address space at a multiple of COMMIT_STEP, so that a huge page can lie there. */
static void *reserve(uint64_t bytes, int prot)
{
	uint8_t *raw = mmap(NULL, bytes + COMMIT_STEP, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before;

	if (raw == MAP_FAILED)
		return NULL;
	before = -(uintptr_t)raw & (COMMIT_STEP - 1);
	if (before != 0)
		munmap(raw, before);
	munmap(raw + before + bytes, COMMIT_STEP - before);
	return raw + before;
}

static int commit(struct arena *arena)
{
	uint8_t *at = arena->base + arena->committed;

	if (arena->committed == arena->reserved || mprotect(at, COMMIT_STEP, PROT_READ | PROT_WRITE) != 0)
		return 0;
	/* The advice of the first step is final: readers are in it by the time it is known not to stay small. */
	if (arena->small && arena->committed == 0)
		madvise(at, COMMIT_STEP, MADV_NOHUGEPAGE);
	else if (arena->huge)
		madvise(at, COMMIT_STEP, MADV_HUGEPAGE);
	arena->committed += COMMIT_STEP;
	return 1;
}

void arena_destroy(struct arena *arena)
{
	if (arena->base == NULL)
		return;
	munmap(arena->page, arena->reserved / ARENA_PAGE * sizeof(struct arena_page));
	munmap(arena->base, arena->reserved);
	arena->base = NULL;
}

int arena_create(struct arena *arena, uint64_t bytes, int huge, int small, struct arena_fault *fault)
{
	uint64_t meta = bytes / ARENA_PAGE * sizeof(struct arena_page);
	void *page;

	memset(arena, 0, sizeof(*arena));
	arena->base = reserve(bytes, PROT_NONE);
	if (arena->base == NULL)
		return -ENOMEM;
	page = mmap(NULL, meta, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (page != MAP_FAILED && small)
		madvise(page, meta, MADV_NOHUGEPAGE);
	if (page == MAP_FAILED) {
		munmap(arena->base, bytes);
		arena->base = NULL;
		return -ENOMEM;
	}
	arena->page = page;
	arena->reserved = bytes;
	arena->pages = 1;
	arena->huge = huge;
	arena->small = small;
	arena->fault = fault;
	if (!commit(arena)) { /* page 0 can be read from the start */
		arena_destroy(arena);
		return -ENOMEM;
	}
	return 0;
}

static void list_push(struct arena *arena, uint32_t *head, uint32_t number)
{
	struct arena_page *page = &arena->page[number];

	page->prev = 0;
	page->next = *head;
	if (*head != 0)
		arena->page[*head].prev = number;
	*head = number;
}

static void list_take(struct arena *arena, uint32_t *head, uint32_t number)
{
	struct arena_page *page = &arena->page[number];

	if (page->prev != 0)
		arena->page[page->prev].next = page->next;
	else
		*head = page->next;
	if (page->next != 0)
		arena->page[page->next].prev = page->prev;
}

/* A page for blocks of `units`, at the head of its list. 0: no memory. */
static uint32_t new_page(struct arena *arena, uint32_t units)
{
	uint32_t number = arena->no_size;

	if (number != 0) {
		list_take(arena, &arena->no_size, number);
	} else {
		/* One page stays unused at the end: readers load 4 bytes where an entry may have 1. */
		if (((uint64_t)arena->pages + 2) * ARENA_PAGE > arena->committed && !commit(arena))
			return 0;
		number = arena->pages++;
	}
	arena->page[number] = (struct arena_page){.units = (uint16_t)units};
	list_push(arena, &arena->with_room[units], number);
	arena->pages_in_use++;
	return number;
}

uint32_t arena_alloc(struct arena *arena, uint32_t bytes)
{
	uint32_t units = (bytes + ARENA_UNIT - 1) / ARENA_UNIT;
	uint32_t number = arena->with_room[units], ref;
	struct arena_page *page;

	if (arena->fault->countdown != 0 && --arena->fault->countdown == 0)
		return 0;
	if (number == 0)
		number = new_page(arena, units);
	if (number == 0)
		return 0;
	page = &arena->page[number];
	if (page->free != 0) {
		ref = number * PAGE_UNITS + page->free - 1u;
		page->free = *(uint16_t *)arena_at(arena, ref);
	} else {
		ref = number * PAGE_UNITS + page->fresh * units;
		page->fresh++;
	}
	page->used++;
	if (page->free == 0 && (page->fresh + 1u) * units > PAGE_UNITS)
		list_take(arena, &arena->with_room[units], number);
	arena->blocks++;
	arena->block_bytes += units * ARENA_UNIT;
	return ref;
}

void arena_free(struct arena *arena, uint32_t ref)
{
	uint32_t number = ref / PAGE_UNITS;
	struct arena_page *page = &arena->page[number];
	uint32_t units = page->units;
	int was_full = page->free == 0 && (page->fresh + 1u) * units > PAGE_UNITS;

	*(uint16_t *)arena_at(arena, ref) = page->free;
	page->free = (uint16_t)(ref % PAGE_UNITS + 1);
	page->used--;
	arena->blocks--;
	arena->block_bytes -= units * ARENA_UNIT;
	if (page->used == 0) {
		if (!was_full)
			list_take(arena, &arena->with_room[units], number);
		page->units = 0;
		list_push(arena, &arena->no_size, number);
		arena->pages_in_use--;
	} else if (was_full) {
		list_push(arena, &arena->with_room[units], number);
	}
}

int lazy_array_create(struct lazy_array *array, uint64_t bytes, int small)
{
	memset(array, 0, sizeof(*array));
	array->written = calloc((bytes / ARENA_PAGE + 63) / 64 + 1, sizeof(uint64_t));
	if (array->written == NULL)
		return -ENOMEM;
	bytes = (bytes + ARENA_PAGE - 1) / ARENA_PAGE * ARENA_PAGE;
	array->base = reserve(bytes, PROT_READ | PROT_WRITE);
	if (array->base == NULL) {
		free(array->written);
		return -ENOMEM;
	}
	array->bytes = bytes;
	if (small)
		madvise(array->base, bytes, MADV_NOHUGEPAGE);
	return 0;
}

void lazy_array_destroy(struct lazy_array *array)
{
	if (array->base == NULL)
		return;
	munmap(array->base, array->bytes);
	free(array->written);
	array->base = NULL;
}
