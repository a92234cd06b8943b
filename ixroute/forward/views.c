/* The views (view.h) of a dataplane: equal ones are shared, an interface's is swapped, retired ones are freed. Called
 * by the mirror in the thread that writes the FIBs, since it advances their epoch.
 *
 * Invariants. Every view is in dataplane->views. users counts the places that show it; without any it is tagged with
 * the epoch and may be freed as soon as every worker has passed that. */
#include <errno.h>

#include "fib/epoch.h"
#include "forward/worker.h"

/* An equal view that there is already, or `view`, which joins the list. A retired one is revived: nobody freed it. */
static struct view *view_share(struct dataplane *dataplane, struct view *view)
{
	for (struct view *known = dataplane->views; known; known = known->next) {
		if (view_equal(known, view)) {
			view_destroy(view);
			return known;
		}
	}
	view->next = dataplane->views;
	dataplane->views = view;
	return view;
}

uint32_t dataplane_collect_views(struct dataplane *dataplane)
{
	uint64_t safe = epoch_safe(fib_epoch(dataplane->fib));
	struct view **at = &dataplane->views;
	uint32_t kept = 0;

	while (*at) {
		struct view *view = *at;

		if (view->users == 0 && view->tag < safe) {
			*at = view->next;
			view_destroy(view);
			continue;
		}
		kept += view->users == 0;
		at = &view->next;
	}
	return kept;
}

/* The view that was there has one user less; without any it is retired. The epoch moves on even if others still have
 * it: collecting is left to the caller. */
static void view_show(struct dataplane *dataplane, struct view *_Atomic *place, struct view *view)
{
	struct view *before = atomic_load_explicit(place, memory_order_relaxed);
	struct epoch *epoch = fib_epoch(dataplane->fib);

	view->users++;
	/* release: whoever finds the view finds its rules. */
	atomic_store_explicit(place, view, memory_order_release);
	if (before && --before->users == 0) {
		before->tag = atomic_load_explicit(&epoch->now, memory_order_relaxed);
		epoch_advance(epoch);
	}
}

static unsigned place_of(uint32_t family)
{
	return family == 4 ? VIEW_OF_IP4 : VIEW_OF_IP6;
}

const struct view *dataplane_view(const struct dataplane *dataplane, uint32_t interface, uint32_t family)
{
	return atomic_load_explicit(&dataplane->interface[interface].view[place_of(family)], memory_order_relaxed);
}

int dataplane_set_view(struct dataplane *dataplane, uint32_t interface, uint32_t family, const struct view_step *steps,
		       uint32_t n, uint32_t flags)
{
	struct view *view;
	int error;

	if (interface >= MAX_INTERFACES)
		return -EINVAL;
	error = view_create(&view, family, steps, n, flags);
	if (error)
		return error;
	view = view_share(dataplane, view);
	view_show(dataplane, &dataplane->interface[interface].view[place_of(family)], view);
	dataplane_collect_views(dataplane);
	return 0;
}

/* Everybody looks up the one FIB that there is at first. */
int views_begin(struct dataplane *dataplane)
{
	const struct view_step step = { .fib = dataplane->fib, .kind = VIEW_LOOKUP };

	for (uint32_t i = 0; i < 2; i++) {
		struct view *view;
		int error = view_create(&view, i == VIEW_OF_IP4 ? 4 : 6, &step, 1, VIEW_SAME_SOURCE);

		if (error)
			return error;
		view = view_share(dataplane, view);
		for (uint32_t interface = 0; interface < MAX_INTERFACES; interface++)
			view_show(dataplane, &dataplane->interface[interface].view[i], view);
	}
	return 0;
}

void views_end(struct dataplane *dataplane)
{
	while (dataplane->views) {
		struct view *view = dataplane->views;

		dataplane->views = view->next;
		view_destroy(view);
	}
}
