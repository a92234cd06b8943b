/* The making of views (view.h): steps as people say them are judged and turned into rules as workers run them.
 * Called by dataplane.c alone. Invariant: a view is zero where it says nothing, so that equal ones are equal bytes. */
#include "forward/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fib/adjacency.h"
#include "forward/packet.h"

/* The adjacency that does what a verdict says. -EINVAL: none does. */
static int index_of_verdict(unsigned reason)
{
	switch (reason) {
	case REASON_no_route:
		return ADJ_NO_ROUTE;
	case REASON_blackhole_route:
		return ADJ_BLACKHOLE;
	case REASON_reject_route:
		return ADJ_REJECT;
	case REASON_external_route:
		return ADJ_KERNEL;
	case REASON_policy_rule:
		return ADJ_POLICY;
	default:
		return -EINVAL;
	}
}

static int prefix_compile(struct view_prefix *out, unsigned address_bytes, const uint8_t *address, unsigned len)
{
	uint8_t mask[16] = { 0 };

	if (len > 8 * address_bytes)
		return -EINVAL;
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = len > 8 * i ? len - 8 * i : 0;

		mask[i] = (uint8_t)(keep < 8 ? 0xff00u >> keep : 0xffu);
		if (address[i] & ~mask[i])
			return -EINVAL;
	}
	for (unsigned half = 0; half < 2; half++) {
		out->value[half] = load64(address + 8 * half);
		out->mask[half] = load64(mask + 8 * half);
	}
	return 0;
}

static int ports_compile(uint16_t *first, uint16_t *last, uint16_t from, uint16_t to)
{
	/* Linux takes a range with 0 at an end for none; here 0 is what a packet without ports has. */
	if (to != 0 && (from == 0 || from > to))
		return -EINVAL;
	if (to == 0 && from != 0)
		return -EINVAL;
	*first = from;
	*last = to != 0 ? to : UINT16_MAX;
	return 0;
}

static int action_compile(struct view_rule *rule, const struct view_step *step, uint32_t number, uint32_t n)
{
	int index;

	rule->kind = step->kind;
	switch (step->kind) {
	case VIEW_LOOKUP:
		rule->fib = step->fib;
		return step->fib ? 0 : -EINVAL;
	case VIEW_VERDICT:
		index = index_of_verdict(step->reason);
		rule->index = (uint32_t)index;
		return index < 0 ? index : 0;
	case VIEW_GOTO:
		rule->to = step->to;
		return step->to > number && step->to <= n ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

static int rule_compile(struct view_rule *rule, unsigned address_bytes, const struct view_step *step)
{
	if (step->inverted > 1 || step->tos & ~step->tos_mask)
		return -EINVAL;
	rule->inverted = step->inverted;
	rule->protocol = step->protocol;
	rule->tos = step->tos;
	rule->tos_mask = step->tos_mask;
	rule->has_ports = step->source_last != 0 || step->destination_last != 0;
	/* `not from all` is for no packet. */
	rule->conditional = step->inverted || step->protocol || step->tos_mask || rule->has_ports ||
			    step->source_len || step->destination_len;
	if (ports_compile(&rule->source_first, &rule->source_last, step->source_first, step->source_last) ||
	    ports_compile(&rule->destination_first, &rule->destination_last, step->destination_first,
			  step->destination_last) ||
	    prefix_compile(&rule->source, address_bytes, step->source, step->source_len))
		return -EINVAL;
	return prefix_compile(&rule->destination, address_bytes, step->destination, step->destination_len);
}

int view_create(struct view **out, unsigned family, const struct view_step *steps, uint32_t n, uint32_t flags)
{
	unsigned address_bytes = family == 4 ? 4 : 16;
	struct view *view;

	if ((family != 4 && family != 6) || n > VIEW_STEPS || flags & ~VIEW_SAME_SOURCE)
		return -EINVAL;
	view = calloc(1, sizeof(*view) + n * sizeof(view->rule[0]));
	if (!view)
		return -ENOMEM;
	view->family = (uint8_t)family;
	view->same_source = flags & VIEW_SAME_SOURCE;
	view->n = n;
	for (uint32_t i = 0; i < n; i++) {
		struct view_rule *rule = &view->rule[i];

		if (action_compile(rule, &steps[i], i, n) || rule_compile(rule, address_bytes, &steps[i]) ||
		    (view->same_source && rule->conditional)) {
			free(view);
			return -EINVAL;
		}
	}
	if (n != 0 && view->rule[0].kind == VIEW_LOOKUP && !view->rule[0].conditional)
		view->first = view->rule[0].fib;
	*out = view;
	return 0;
}

void view_destroy(struct view *view)
{
	free(view);
}

bool view_equal(const struct view *a, const struct view *b)
{
	return a->family == b->family && a->same_source == b->same_source && a->n == b->n &&
	       memcmp(a->rule, b->rule, a->n * sizeof(a->rule[0])) == 0;
}
