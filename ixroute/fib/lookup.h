/* The variants of the lookups: same answers, different machine instructions (lookup.c). */
#ifndef IXROUTE_FIB_LOOKUP_H
#define IXROUTE_FIB_LOOKUP_H

#include <stdint.h>

#include "fib/trie.h"

struct lookup_variant {
	const char *name;
	int (*usable)(void); /* on this CPU */
	/* n <= LOOKUP_BLOCK */
	void (*lookup4)(const struct trie *trie, const uint32_t *addr_be, uint32_t *index, unsigned n);
	void (*lookup6)(const struct trie *trie, const uint8_t *const *addr, uint32_t *index, unsigned n);
};

/* From the plainest to the fastest; ends with a NULL name. */
extern const struct lookup_variant lookup_variants[];

#endif
