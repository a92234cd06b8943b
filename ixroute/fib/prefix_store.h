/* The writer's store of prefixes: what is in the table, as opposed to what readers need to see.
 *
 * Prefixes of length 0 .. root_bits lie in one array per trie (trie.h: short_values). Longer ones lie in records,
 * one record per node of the trie and in the same place, so that everything needed to write a node anew is in one
 * record:
 *
 *     inner   which prefixes end here: of length depth+l, l = 1..6, with bits b: bit (1 << l | b), "heap order", 2..127
 *     values  their values, in that order (a shorter prefix before a longer one)
 *     kids    slots with a child record; children: their references, in slot order
 *
 * A record exists if and only if a prefix ends in it or below it. The arrays have room for at least what they hold;
 * they shrink only after an update has succeeded, so that a failed one can always put back what it took.
 */
#ifndef IXROUTE_FIB_PREFIX_STORE_H
#define IXROUTE_FIB_PREFIX_STORE_H

#include <stdint.h>

#include "fib/arena.h"

struct record {
	uint64_t inner[2];
	uint64_t kids;
	uint32_t values;    /* uint32_t[] in the record arena, 0: none */
	uint32_t children;  /* uint32_t[] */
	uint32_t node;	    /* what the slot above holds */
};

/* The place in `inner` of the prefix with `bits` bits at slot (its bits in the slot's high bits). */
static inline unsigned record_place(unsigned slot, unsigned bits)
{
	return 1u << bits | slot >> (6 - bits);
}

static inline int record_has(const struct record *record, unsigned place)
{
	return (int)(record->inner[place / 64] >> (place % 64) & 1);
}

static inline int record_has_kid(const struct record *record, unsigned slot)
{
	return (int)(record->kids >> slot & 1);
}

static inline int record_is_empty(const struct record *record)
{
	return (record->inner[0] | record->inner[1] | record->kids) == 0;
}

/* A new record without anything. 0: no memory. */
uint32_t record_create(struct arena *arena);
void record_destroy(struct arena *arena, uint32_t ref);

/* The value of a prefix that is there. */
uint32_t *record_value(const struct arena *arena, const struct record *record, unsigned place);
/* 0 or -ENOMEM. Not there before. */
int record_insert(struct arena *arena, struct record *record, unsigned place, uint32_t value);
/* Takes out and returns the value. */
uint32_t record_take(struct arena *arena, struct record *record, unsigned place);
/* The longest prefix here of at most `bits` bits, 1..6, that covers slot: its place, or 0. */
unsigned record_cover(const struct record *record, unsigned slot, unsigned bits);

uint32_t record_kid(const struct arena *arena, const struct record *record, unsigned slot);
int record_kid_insert(struct arena *arena, struct record *record, unsigned slot, uint32_t kid);
uint32_t record_kid_take(struct arena *arena, struct record *record, unsigned slot);
/* Gives back room that is not needed, if there is memory for the smaller arrays. */
void record_shrink(struct arena *arena, struct record *record);
/* Each slot's value among the prefixes of this record, 0: none. */
void record_resolve(const struct arena *arena, const struct record *record, uint64_t value[64]);

#endif
