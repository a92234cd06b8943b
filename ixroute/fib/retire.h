/* Nodes that no longer belong to the trie but that a reader may still be walking through: first in, first out,
 * each with the epoch in which it was unlinked (epoch.h). The writer's. */
#ifndef IXROUTE_FIB_RETIRE_H
#define IXROUTE_FIB_RETIRE_H

#include <stdint.h>

#include "fib/arena.h"

struct retired {
	uint64_t tag;
	uint32_t ref;
	uint32_t bytes;
};

struct retire {
	struct retired *ring;
	uint64_t capacity; /* a power of two, or 0 */
	uint64_t head, tail; /* next to write, next to free; they only grow */
	uint64_t bytes;
};

/* Makes room for n more, so that retire_put cannot fail in the middle of an update. 0 or -ENOMEM. */
int retire_reserve(struct retire *retire, uint64_t n);
void retire_put(struct retire *retire, const struct arena *arena, uint32_t ref, uint64_t tag);
/* Frees all with a tag below `safe`. */
void retire_free(struct retire *retire, struct arena *arena, uint64_t safe);
void retire_destroy(struct retire *retire);

#endif
