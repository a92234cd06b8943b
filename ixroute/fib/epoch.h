/* When may memory that workers could still be reading be freed?
 *
 * Each reader (a worker) has a cell. Once per pass, holding nothing of the FIB, it stores the global epoch there
 * (epoch_quiesce); before sleeping it stores EPOCH_IDLE (epoch_idle) and on waking it quiesces again before it
 * reads. The one writer unlinks an object, tags it with the current epoch, advances the epoch, and frees it when
 * every cell is idle or past the tag. Readers never wait and write only their own cache line.
 */
#ifndef IXROUTE_FIB_EPOCH_H
#define IXROUTE_FIB_EPOCH_H

#include <stdatomic.h>
#include <stdint.h>

#define EPOCH_READERS 128
#define EPOCH_WORKERS 64 /* cells below are the workers', by number; the others are lent to lookups from Python */
#define EPOCH_IDLE UINT64_MAX

struct epoch_cell {
	_Alignas(64) _Atomic uint64_t seen;
};

struct epoch {
	_Alignas(64) _Atomic uint64_t now; /* starts at 1 */
	struct epoch_cell reader[EPOCH_READERS]; /* all idle at first: a reader that never ran blocks nothing */
};

static inline void epoch_quiesce(struct epoch *epoch, unsigned reader)
{
	uint64_t now = atomic_load_explicit(&epoch->now, memory_order_acquire);

	/* Nothing changed since the last pass: no store, the line stays clean. The thread's own cell. */
	if (atomic_load_explicit(&epoch->reader[reader].seen, memory_order_relaxed) == now)
		return;
	/* release: what the last pass read of the FIB was read before this says so. */
	atomic_store_explicit(&epoch->reader[reader].seen, now, memory_order_release);
	/* Coming from idle, the store must be visible before any later read of the FIB, or else the writer could find
	 * the cell idle and free what this pass is about to find. The writer has the other fence, between unlinking
	 * and looking at the cells (epoch_advance): one of the two sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
}

static inline void epoch_idle(struct epoch *epoch, unsigned reader)
{
	atomic_store_explicit(&epoch->reader[reader].seen, EPOCH_IDLE, memory_order_release);
}

/* The writer's two steps, after it unlinked and tagged. Advance: what is unlinked from here on gets a later tag. */
static inline void epoch_advance(struct epoch *epoch)
{
	uint64_t now = atomic_load_explicit(&epoch->now, memory_order_relaxed);

	/* release: a reader that saw the new epoch sees everything unlinked before it. */
	atomic_store_explicit(&epoch->now, now + 1, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
}

/* Everything with a tag below this can be freed. */
static inline uint64_t epoch_safe(const struct epoch *epoch)
{
	uint64_t safe = EPOCH_IDLE;

	for (unsigned i = 0; i < EPOCH_READERS; i++) {
		/* acquire: the reader's last reads come before the freed memory's next use. */
		uint64_t seen = atomic_load_explicit(&epoch->reader[i].seen, memory_order_acquire);

		if (seen < safe)
			safe = seen;
	}
	return safe;
}

#endif
