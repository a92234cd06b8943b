/* The queue of unlinked nodes (retire.h). Called by trie.c when it unlinks, by fib_collect when it frees.
 * Invariant: tags never fall from tail to head, so the first that is too young ends the search. */
#include "fib/retire.h"

#include <errno.h>
#include <stdlib.h>

int retire_reserve(struct retire *retire, uint64_t n)
{
	uint64_t capacity = retire->capacity != 0 ? retire->capacity : 64;
	struct retired *ring;

	while (capacity < retire->head - retire->tail + n)
		capacity *= 2;
	if (capacity == retire->capacity)
		return 0;
	ring = malloc(capacity * sizeof(*ring));
	if (ring == NULL)
		return -ENOMEM;
	for (uint64_t i = retire->tail; i < retire->head; i++)
		ring[i & (capacity - 1)] = retire->ring[i & (retire->capacity - 1)];
	free(retire->ring);
	retire->ring = ring;
	retire->capacity = capacity;
	return 0;
}

void retire_put(struct retire *retire, const struct arena *arena, uint32_t ref, uint64_t tag)
{
	uint32_t bytes = arena_room(arena, ref);

	retire->ring[retire->head++ & (retire->capacity - 1)] = (struct retired){tag, ref, bytes};
	retire->bytes += bytes;
}

void retire_free(struct retire *retire, struct arena *arena, uint64_t safe)
{
	while (retire->tail != retire->head) {
		const struct retired *oldest = &retire->ring[retire->tail & (retire->capacity - 1)];

		if (oldest->tag >= safe)
			break;
		retire->bytes -= oldest->bytes;
		arena_free(arena, oldest->ref);
		retire->tail++;
	}
}

void retire_destroy(struct retire *retire)
{
	free(retire->ring);
	retire->ring = NULL;
}
