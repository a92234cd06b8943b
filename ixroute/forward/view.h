/* A view: what `ip rule` says of the packets of one family that come in by an interface, as a short program of FIB
 * lookups. Made and swapped by the mirror (view.c), run by the workers (worker.c, view_run.c).
 *
 * Packets go through the steps in order, from step 0; a step is for all of them or for those that match.
 *
 *     LOOKUP    the FIB's answer is the verdict, unless it is ADJ_NO_ROUTE (a throw route too): then the next step
 *     VERDICT   ends here, as a route with that adjacency would
 *     GOTO      on to a later step; to the number of steps: to the end
 *     the end   no_route
 *
 * Matching is linux's (fib4_rule_match, fib6_rule_match; protocol and ports are what its flow dissector finds, that
 * is no ports in any fragment). What the fast path cannot evaluate, it punts: policy_rule.
 *
 * Invariants. A view is immutable; equal ones are one object. It is reached only through interface.view, which a
 * worker reads once per burst, and is freed when every worker has passed a quiescent point since it was replaced
 * (fib/epoch.h). Every GOTO leads forward, so a program ends after at most VIEW_STEPS steps.
 */
#ifndef IXROUTE_FORWARD_VIEW_H
#define IXROUTE_FORWARD_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "fib/fib.h"

#define VIEW_STEPS 256u

#define VIEW_LOOKUP 0u
#define VIEW_VERDICT 1u
#define VIEW_GOTO 2u

/* A step as it is handed in. All zero but kind and its argument: for all packets. */
struct view_step {
	const struct fib *fib; /* LOOKUP: outlives every view that names it */
	uint8_t kind;	       /* VIEW_LOOKUP, VIEW_VERDICT, VIEW_GOTO */
	uint8_t reason;	       /* VERDICT: no_route, blackhole_route, reject_route, external_route or policy_rule */
	uint16_t to;	       /* GOTO: a later step, or the number of steps */
	uint8_t inverted;      /* 1: for those that do not match */
	uint8_t protocol;      /* 0: any */
	uint8_t tos, tos_mask; /* of the byte with DSCP and ECN (IPv6: traffic class) */
	uint16_t source_first, source_last; /* ports, host order; last 0: any */
	uint16_t destination_first, destination_last;
	uint8_t source_len, destination_len; /* prefixes; bits after the length are 0 */
	uint8_t source[16], destination[16]; /* wire order, IPv4 in the first four */
};

/* Sources are looked up by the same steps, which are then all for all packets. Else packets whose source matters
 * (rp_filter, or it may be one of ours) are punted: source_validation. */
#define VIEW_SAME_SOURCE 1u

/* A prefix as it is compared: words as loaded from the packet. Of IPv4 only the low half of the first counts. */
struct view_prefix {
	uint64_t value[2], mask[2];
};

/* A step as it is run. */
struct view_rule {
	const struct fib *fib;
	uint32_t index; /* VERDICT: adjacency */
	uint16_t to;
	uint8_t kind;
	bool conditional; /* else the rest does not count */
	bool inverted;
	bool has_ports;
	uint8_t protocol, tos, tos_mask;
	uint16_t source_first, source_last; /* 0 .. 65535: any */
	uint16_t destination_first, destination_last;
	struct view_prefix source, destination;
};

struct view {
	const struct fib *first; /* what all packets look up first; NULL: not all do */
	bool same_source;
	uint8_t family;
	uint32_t n;
	/* The writer's. */
	uint32_t users;	   /* interfaces that show it; 0: retired */
	uint64_t tag;	   /* epoch of its retirement */
	struct view *next; /* in the dataplane's list */
	struct view_rule rule[];
};

#define VIEW_OF_IP4 0u /* places in interface.view, ingress.view */
#define VIEW_OF_IP6 1u

/* family: 4 or 6. 0; -EINVAL: not a program (too many steps, a GOTO backward or out of it, a reason that no route
 * has, bits after a prefix's length, a range from high to low, conditions with VIEW_SAME_SOURCE); -ENOMEM. */
int view_create(struct view **out, unsigned family, const struct view_step *steps, uint32_t n, uint32_t flags);
void view_destroy(struct view *view);
bool view_equal(const struct view *a, const struct view *b);

/* At first everybody shows one view each family: a lookup in the dataplane's FIB. 0 or -ENOMEM. */
struct dataplane;
int views_begin(struct dataplane *dataplane);
void views_end(struct dataplane *dataplane);

/* ---- The workers' ---- */

struct packet;
struct adjacency_table;

/* A lookup that is left to do. */
struct view_walk {
	const struct view *view;
	const struct packet *packet;
	const uint8_t *address; /* what is looked up: the destination, or the source */
	uint32_t *into;		/* where the adjacency's index goes */
	uint32_t at;		/* step to go on with */
};

/* Takes n walks (at most VIEW_WALKS) of one family to their ends, by FIB as many together as there are. */
#define VIEW_WALKS 128u
void view_run(const struct adjacency_table *table, unsigned family, struct view_walk *walk, unsigned n);

#endif
