/* The FIB's face (fib.h): checks what it is given, keeps the two tries, the epoch and the choice of lookups.
 * Called by the RIB and Python (writer), by workers (lookups). */
#include "fib/fib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fib/lookup.h"
#include "fib/trie.h"

#define INDEX_MAX ((1u << 30) - 1)
#define COLLECT_AT 1024u /* retired nodes that make an update collect by itself */
#define REREADS_MAX 64u	 /* of an address: no reader waits for a writer for ever */

struct fib {
	struct trie trie4, trie6;
	struct epoch *epoch; /* another FIB's, or its own */
	struct epoch *own;   /* NULL: another's */
	uint64_t updates;
	struct arena_fault fault;
};

static _Atomic(const struct lookup_variant *) variant_in_use;

static void choose_variant(void)
{
	const struct lookup_variant *best = lookup_variants;

	if (atomic_load_explicit(&variant_in_use, memory_order_acquire) != NULL)
		return;
	for (const struct lookup_variant *v = lookup_variants; v->name != NULL; v++)
		if (v->usable())
			best = v;
	atomic_store_explicit(&variant_in_use, best, memory_order_release);
}

static struct epoch *epoch_create(void)
{
	struct epoch *epoch = aligned_alloc(64, sizeof(*epoch));

	if (epoch == NULL)
		return NULL;
	atomic_init(&epoch->now, 1);
	for (unsigned i = 0; i < EPOCH_READERS; i++)
		atomic_init(&epoch->reader[i].seen, EPOCH_IDLE);
	return epoch;
}

struct fib *fib_create(struct epoch *epoch)
{
	struct fib *fib = aligned_alloc(64, (sizeof(*fib) + 63) / 64 * 64);
	int small = epoch != NULL, failed;

	if (fib == NULL)
		return NULL;
	memset(fib, 0, sizeof(*fib));
	if (epoch == NULL)
		epoch = fib->own = epoch_create();
	fib->epoch = epoch;
	failed = epoch == NULL || trie_create(&fib->trie4, FAMILY_IP4, small, &fib->fault) != 0 ||
		 trie_create(&fib->trie6, FAMILY_IP6, small, &fib->fault) != 0;
	if (failed) {
		fib_destroy(fib);
		return NULL;
	}
	choose_variant();
	return fib;
}

void fib_destroy(struct fib *fib)
{
	if (fib == NULL)
		return;
	trie_destroy(&fib->trie6);
	trie_destroy(&fib->trie4);
	free(fib->own);
	free(fib);
}

struct epoch *fib_epoch(struct fib *fib)
{
	return fib->epoch;
}

uint32_t fib_max_index(void)
{
	return INDEX_MAX;
}

void fib_fail_allocation(struct fib *fib, uint64_t nth)
{
	fib->fault.countdown = nth;
}

/* ---- the writer's ---- */

static struct key key_of(uint8_t family, const uint8_t *addr)
{
	struct key key = {0, 0};

	memcpy(&key, addr, family == FAMILY_IP4 ? 4 : 16);
	key.hi = be64toh(key.hi);
	key.lo = be64toh(key.lo);
	return key;
}

static int prefix_is_valid(const struct prefix *prefix, struct key key)
{
	unsigned len = prefix->len;

	if (prefix->family == FAMILY_IP4)
		return len <= 32 && (key.hi << len) == 0;
	if (prefix->family != FAMILY_IP6 || len > 128)
		return 0;
	if (len < 64)
		return (key.hi << len) == 0 && key.lo == 0;
	return len == 128 || (key.lo << (len - 64)) == 0;
}

static void collect_if_many(struct fib *fib)
{
	if (fib->trie4.retire.head - fib->trie4.retire.tail >= COLLECT_AT ||
	    fib->trie6.retire.head - fib->trie6.retire.tail >= COLLECT_AT)
		fib_collect(fib);
}

static int apply(struct fib *fib, const struct prefix *prefix, int remove, uint32_t index)
{
	struct key key = key_of(prefix->family, prefix->addr);
	struct trie *trie = prefix->family == FAMILY_IP4 ? &fib->trie4 : &fib->trie6;
	uint64_t tag = atomic_load_explicit(&fib->epoch->now, memory_order_relaxed);
	int code;

	if (!prefix_is_valid(prefix, key) || (!remove && index > INDEX_MAX))
		return -EINVAL;
	code = remove ? trie_remove(trie, key, prefix->len, tag)
		      : trie_insert(trie, key, prefix->len, index + 1, tag);
	if (code == 0)
		fib->updates++;
	/* Not at every update: a reader that stands still must not make each of them look at all cells. */
	if (fib->updates % (COLLECT_AT / 4) == 0)
		collect_if_many(fib);
	return code;
}

int fib_insert(struct fib *fib, const struct prefix *prefix, uint32_t index)
{
	return apply(fib, prefix, 0, index);
}

int fib_remove(struct fib *fib, const struct prefix *prefix)
{
	return apply(fib, prefix, 1, 0);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t fib_apply(struct fib *fib, const struct fib_update *updates, size_t n, uint64_t *worst_ns)
{
	uint64_t refused = 0, worst = 0, before = worst_ns != NULL ? now_ns() : 0;

	for (size_t i = 0; i < n; i++) {
		refused += apply(fib, &updates[i].prefix, updates[i].remove, updates[i].index) != 0;
		if (worst_ns != NULL) {
			uint64_t after = now_ns();

			if (after - before > worst)
				worst = after - before;
			before = after;
		}
	}
	fib_collect(fib);
	if (worst_ns != NULL)
		*worst_ns = worst;
	return refused;
}

void fib_collect(struct fib *fib)
{
	uint64_t safe;

	if (fib->trie4.retire.head == fib->trie4.retire.tail && fib->trie6.retire.head == fib->trie6.retire.tail)
		return;
	epoch_advance(fib->epoch);
	safe = epoch_safe(fib->epoch);
	retire_free(&fib->trie4.retire, &fib->trie4.node_arena, safe);
	retire_free(&fib->trie6.retire, &fib->trie6.node_arena, safe);
}

static uint64_t lookup_bytes(const struct trie *trie)
{
	uint64_t pages = trie->root_array.pages_written + trie->top_array.pages_written;

	return arena_bytes(&trie->node_arena) + pages * ARENA_PAGE;
}

static uint64_t writer_bytes(const struct trie *trie)
{
	uint64_t pages = trie->short_values.pages_written + trie->root_records.pages_written +
			 trie->root_owner.pages_written + trie->top_owner.pages_written +
			 trie->below_count.pages_written;

	return arena_bytes(&trie->record_arena) + pages * ARENA_PAGE + trie->retire.capacity * sizeof(struct retired) +
	       (uint64_t)(trie->record_arena.pages + trie->node_arena.pages) * sizeof(struct arena_page);
}

void fib_stats_read(const struct fib *fib, struct fib_stats *out)
{
	out->prefixes4 = fib->trie4.prefixes;
	out->prefixes6 = fib->trie6.prefixes;
	out->lookup_bytes4 = lookup_bytes(&fib->trie4);
	out->lookup_bytes6 = lookup_bytes(&fib->trie6);
	out->update_bytes = writer_bytes(&fib->trie4) + writer_bytes(&fib->trie6);
	out->retired_bytes = fib->trie4.retire.bytes + fib->trie6.retire.bytes;
	out->updates = fib->updates;
}

static void clear_after(uint8_t *addr, unsigned len, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++) {
		unsigned keep = len > 8 * i ? len - 8 * i : 0;

		if (keep < 8)
			addr[i] &= (uint8_t)(0xff00u >> keep);
	}
}

int fib_match(const struct fib *fib, uint8_t family, const uint8_t *addr, struct prefix *prefix, uint32_t *index)
{
	return fib_match_at_most(fib, family, addr, 128, prefix, index);
}

int fib_match_at_most(const struct fib *fib, uint8_t family, const uint8_t *addr, unsigned at_most,
		      struct prefix *prefix, uint32_t *index)
{
	const struct trie *trie = family == FAMILY_IP4 ? &fib->trie4 : &fib->trie6;
	unsigned len = 0, bytes = family == FAMILY_IP4 ? 4 : 16;
	uint32_t value = trie_match(trie, key_of(family, addr), at_most, &len);

	if (value == 0)
		return 0;
	memset(prefix, 0, sizeof(*prefix));
	prefix->family = family;
	prefix->len = (uint8_t)len;
	memcpy(prefix->addr, addr, bytes);
	clear_after(prefix->addr, len, bytes);
	*index = value - 1;
	return 1;
}

int fib_get(const struct fib *fib, const struct prefix *prefix, uint32_t *index)
{
	const struct trie *trie = prefix->family == FAMILY_IP4 ? &fib->trie4 : &fib->trie6;
	uint32_t value = trie_get(trie, key_of(prefix->family, prefix->addr), prefix->len);

	if (value == 0)
		return 0;
	*index = value - 1;
	return 1;
}

int fib_check(const struct fib *fib, char *why, size_t why_bytes)
{
	int code = trie_check(&fib->trie4, why, why_bytes);

	return code != 0 ? code : trie_check(&fib->trie6, why, why_bytes);
}

/* ---- the readers' ---- */

const char *fib_variant_name(unsigned variant)
{
	for (unsigned i = 0; lookup_variants[i].name != NULL; i++)
		if (i == variant)
			return lookup_variants[i].name;
	return NULL;
}

int fib_variant_use(unsigned variant)
{
	if (fib_variant_name(variant) == NULL)
		return -EINVAL;
	if (!lookup_variants[variant].usable())
		return -ENOTSUP;
	atomic_store_explicit(&variant_in_use, &lookup_variants[variant], memory_order_release);
	return 0;
}

unsigned fib_variant_used(void)
{
	choose_variant();
	return (unsigned)(atomic_load_explicit(&variant_in_use, memory_order_acquire) - lookup_variants);
}

/* Whether what was looked up since `generation` was read stands: no inherited value changed meanwhile. */
static int still(const struct trie *trie, uint64_t generation)
{
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&trie->generation, memory_order_relaxed) == generation;
}

/* One by one: a single lookup takes less time than an update, so that it finds a moment of rest soon, whatever the
 * writer does. */
static void reread4(const struct trie *trie, const struct lookup_variant *variant, const uint32_t *addr_be,
		    uint32_t *index, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned reads = 0;
		uint64_t generation;

		do {
			generation = atomic_load_explicit(&trie->generation, memory_order_acquire);
			variant->lookup4(trie, addr_be + i, index + i, 1);
		} while (!still(trie, generation) && ++reads < REREADS_MAX);
	}
}

static void reread6(const struct trie *trie, const struct lookup_variant *variant, const uint8_t *const *addr,
		    uint32_t *index, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned reads = 0;
		uint64_t generation;

		do {
			generation = atomic_load_explicit(&trie->generation, memory_order_acquire);
			variant->lookup6(trie, addr + i, index + i, 1);
		} while (!still(trie, generation) && ++reads < REREADS_MAX);
	}
}

void fib4_lookup_burst(const struct fib *fib, const uint32_t *addr_be, uint32_t *index, unsigned n)
{
	const struct lookup_variant *variant = atomic_load_explicit(&variant_in_use, memory_order_relaxed);
	const struct trie *trie = &fib->trie4;

	for (unsigned done = 0; done < n; done += LOOKUP_BLOCK) {
		unsigned block = n - done < LOOKUP_BLOCK ? n - done : LOOKUP_BLOCK;
		uint64_t generation = atomic_load_explicit(&trie->generation, memory_order_acquire);

		variant->lookup4(trie, addr_be + done, index + done, block);
		if (!still(trie, generation))
			reread4(trie, variant, addr_be + done, index + done, block);
	}
}

void fib6_lookup_burst(const struct fib *fib, const uint8_t *const *addr, uint32_t *index, unsigned n)
{
	const struct lookup_variant *variant = atomic_load_explicit(&variant_in_use, memory_order_relaxed);
	const struct trie *trie = &fib->trie6;

	for (unsigned done = 0; done < n; done += LOOKUP_BLOCK) {
		unsigned block = n - done < LOOKUP_BLOCK ? n - done : LOOKUP_BLOCK;
		uint64_t generation = atomic_load_explicit(&trie->generation, memory_order_acquire);

		variant->lookup6(trie, addr + done, index + done, block);
		if (!still(trie, generation))
			reread6(trie, variant, addr + done, index + done, block);
	}
}

uint32_t fib4_lookup(const struct fib *fib, uint32_t addr_be)
{
	uint32_t index;

	fib4_lookup_burst(fib, &addr_be, &index, 1);
	return index;
}

uint32_t fib6_lookup(const struct fib *fib, const uint8_t *addr)
{
	uint32_t index;

	fib6_lookup_burst(fib, &addr, &index, 1);
	return index;
}
