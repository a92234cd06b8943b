/* The FIB: longest-prefix match over IPv4 and IPv6 prefixes; a lookup always yields an adjacency index.
 *
 * One writer, any number of readers without locks. A reader sees the table before or after an update, never in
 * between, and never memory that was freed (epoch.h).
 */
#ifndef IXROUTE_FIB_FIB_H
#define IXROUTE_FIB_FIB_H

#include <stddef.h>
#include <stdint.h>

#include "fib/epoch.h"
#include "fib/prefix.h"

struct fib;

struct fib_stats {
	uint64_t prefixes4, prefixes6;
	uint64_t lookup_bytes4, lookup_bytes6; /* what lookups can touch */
	uint64_t update_bytes;		       /* the writer's own */
	uint64_t retired_bytes;		       /* waiting for readers */
	uint64_t updates;
};

/* epoch: of the readers, shared with other FIBs and outliving this one; NULL: one of its own. There may be hundreds of
 * the first kind, so that they take memory in small pages while they are small. NULL: no memory. */
struct fib *fib_create(struct epoch *epoch);
void fib_destroy(struct fib *fib);
struct epoch *fib_epoch(struct fib *fib);

/* Largest adjacency index that can be stored. */
uint32_t fib_max_index(void);

/* Writer's side. insert also replaces. 0; -EINVAL: not a prefix (family, len, bits after len) or index too large;
 * -ENOMEM or -ENOSPC: not stored, the table is as before. fib_remove: -ENOENT when it is not there. */
int fib_insert(struct fib *fib, const struct prefix *prefix, uint32_t index);
int fib_remove(struct fib *fib, const struct prefix *prefix);
/* Frees what no reader can see any more; called by the writer after a batch, costs nothing when there is nothing. */
void fib_collect(struct fib *fib);
void fib_stats_read(const struct fib *fib, struct fib_stats *out);
/* The writer's view of the longest match: 1 and the prefix and index, or 0. Not for the packet path. */
int fib_match(const struct fib *fib, uint8_t family, const uint8_t *addr, struct prefix *prefix, uint32_t *index);
/* The same among prefixes of at most `at_most` bits. */
int fib_match_at_most(const struct fib *fib, uint8_t family, const uint8_t *addr, unsigned at_most,
		      struct prefix *prefix, uint32_t *index);
/* 1 and the index of exactly this prefix, or 0. Both are the writer's: some ten loads. */
int fib_get(const struct fib *fib, const struct prefix *prefix, uint32_t *index);
/* Walks the whole structure and recomputes every invariant. 0, or -EINVAL and what is wrong in `why`. For tests. */
int fib_check(const struct fib *fib, char *why, size_t why_bytes);

/* A batch of updates, as a routing protocol sends them. */
struct fib_update {
	struct prefix prefix;
	uint8_t remove; /* 1: remove, 0: insert */
	uint8_t unused;
	uint32_t index;
};
/* Applies all and collects; returns how many were refused (-ENOENT included). worst_ns, unless NULL: the longest
 * one took. */
uint64_t fib_apply(struct fib *fib, const struct fib_update *updates, size_t n, uint64_t *worst_ns);
/* For tests: the nth allocation from now fails (0: none does). */
void fib_fail_allocation(struct fib *fib, uint64_t nth);

/* Reader's side. Addresses in wire order: 4 bytes each (as loaded into a uint32_t from the packet), 16 bytes each
 * (a pointer to each, straight into the packets). */
void fib4_lookup_burst(const struct fib *fib, const uint32_t *addr_be, uint32_t *index, unsigned n);
void fib6_lookup_burst(const struct fib *fib, const uint8_t *const *addr, uint32_t *index, unsigned n);
uint32_t fib4_lookup(const struct fib *fib, uint32_t addr_be);
uint32_t fib6_lookup(const struct fib *fib, const uint8_t *addr);

/* Lookups for a thread that is not a worker: it borrows the epoch cell `reader` (EPOCH_WORKERS ..
 * EPOCH_READERS-1) for the duration. fib6_read: n times 16 bytes in a row. */
void fib4_read(struct fib *fib, unsigned reader, const uint32_t *addr_be, uint32_t *index, size_t n);
void fib6_read(struct fib *fib, unsigned reader, const uint8_t *addr, uint32_t *index, size_t n);
/* The same in bursts of `burst` (at most 256) into one small array, as workers do it; returns nanoseconds of the
 * thread's CPU time, and in *sum the sum of all indexes. For bench. */
uint64_t fib4_time(struct fib *fib, unsigned reader, const uint32_t *addr_be, size_t n, unsigned burst, uint64_t *sum);
uint64_t fib6_time(struct fib *fib, unsigned reader, const uint8_t *addr, size_t n, unsigned burst, uint64_t *sum);

/* Lookups exist in variants for what a CPU can do; the best is chosen when the first FIB is created. Tests force
 * each: 0, -EINVAL: no such number, -ENOTSUP: not on this CPU. Names end at NULL. Not while workers run. */
const char *fib_variant_name(unsigned variant);
int fib_variant_use(unsigned variant);
unsigned fib_variant_used(void);

#endif
