/* The RIB over FIBs that refuse on command, and with a reader that holds back. Cases are run by name, one process
 * each, by test_rib_refusals.py. A FIB here is a list: what matters is when it says no.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fib/rib.h"

#define EXPECT(condition) \
	do { \
		if (!(condition)) { \
			printf("line %d: %s\n", __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

/* ---- a FIB ---- */

struct entry {
	struct prefix prefix;
	uint32_t index;
};

static struct epoch epoch;

struct fib {
	struct entry entry[512];
	unsigned n;
	int refuse; /* errno for every insert; 0: none */
	unsigned collected;
};

static struct fib fib, other; /* the merged one, a table's */

struct epoch *fib_epoch(struct fib *f)
{
	(void)f;
	return &epoch;
}

uint32_t fib_max_index(void)
{
	return 1000;
}

static struct entry *entry_find(struct fib *f, const struct prefix *prefix)
{
	for (unsigned i = 0; i < f->n; i++)
		if (memcmp(&f->entry[i].prefix, prefix, sizeof(*prefix)) == 0)
			return &f->entry[i];
	return NULL;
}

int fib_insert(struct fib *f, const struct prefix *prefix, uint32_t index)
{
	struct entry *entry = entry_find(f, prefix);

	if (f->refuse)
		return -f->refuse;
	if (entry == NULL)
		entry = &f->entry[f->n++];
	entry->prefix = *prefix;
	entry->index = index;
	return 0;
}

int fib_remove(struct fib *f, const struct prefix *prefix)
{
	struct entry *entry = entry_find(f, prefix);

	if (f->refuse)
		return -f->refuse;
	if (entry == NULL)
		return -ENOENT;
	*entry = f->entry[--f->n];
	return 0;
}

void fib_collect(struct fib *f)
{
	f->collected++;
}

void fib_stats_read(const struct fib *f, struct fib_stats *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < f->n; i++)
		out->prefixes4 += f->entry[i].prefix.family == FAMILY_IP4;
	out->prefixes6 = f->n - out->prefixes4;
}

int fib_get(const struct fib *f, const struct prefix *prefix, uint32_t *index)
{
	for (unsigned i = 0; i < f->n; i++)
		if (memcmp(&f->entry[i].prefix, prefix, sizeof(*prefix)) == 0) {
			*index = f->entry[i].index;
			return 1;
		}
	return 0;
}

int fib_match(const struct fib *f, uint8_t family, const uint8_t *addr, struct prefix *prefix, uint32_t *index)
{
	return fib_match_at_most(f, family, addr, 128, prefix, index);
}

int fib_match_at_most(const struct fib *f, uint8_t family, const uint8_t *addr, unsigned at_most,
		      struct prefix *prefix, uint32_t *index)
{
	int best = -1;

	for (unsigned i = 0; i < f->n; i++) {
		const struct prefix *p = &f->entry[i].prefix;
		int covers = p->family == family && p->len > best && p->len <= at_most;

		for (unsigned bit = 0; covers && bit < p->len; bit++)
			covers = ((addr[bit / 8] ^ p->addr[bit / 8]) & (0x80 >> (bit % 8))) == 0;
		if (covers) {
			best = p->len;
			*prefix = *p;
			*index = f->entry[i].index;
		}
	}
	return best >= 0;
}

int adjacency_set(struct adjacency_table *table, uint32_t index, const uint8_t *mac, uint16_t interface, uint8_t action,
		  uint32_t mtu)
{
	static const uint8_t none[6];

	EXPECT(index < table->capacity);
	table->entry[index].word = adjacency_word(mac ? mac : none, interface, action);
	table->entry[index].mtu = mtu;
	return 0;
}

/* ---- routes ---- */

static struct rib *rib;

static struct route route_to(unsigned third)
{
	return (struct route){
		.prefix = {.family = FAMILY_IP4, .len = 24, .addr = {10, 0, (uint8_t)third}},
		.table = RIB_TABLE_MAIN,
	};
}

static const struct path *path_via(unsigned last)
{
	static struct path path;

	memset(&path, 0, sizeof(path));
	path.family = FAMILY_IP4;
	path.type = ROUTE_UNICAST;
	path.n_legs = 1;
	path.leg[0] = (struct next_hop){
		.ifindex = 2, .gateway_family = FAMILY_IP4, .weight = 1, .gateway = {192, 0, 2, (uint8_t)last}};
	return &path;
}

static void add(unsigned third, unsigned last)
{
	struct route route = route_to(third);

	EXPECT(rib_add(rib, &route, path_via(last), RIB_REPLACE) == 0);
}

static void take_away(unsigned third)
{
	struct route route = route_to(third);

	EXPECT(rib_remove(rib, &route, NULL) == 0);
}

/* The path id the FIB shows, 0: nothing. */
static uint32_t shown(unsigned third)
{
	struct route route = route_to(third);
	struct entry *entry = entry_find(&fib, &route.prefix);

	return entry == NULL ? 0 : entry->index;
}

static struct rib_stats stats(void)
{
	struct rib_stats out;
	char why[256];

	if (rib_check(rib, why, sizeof(why)) < 0) {
		printf("%s\n", why);
		exit(1);
	}
	rib_stats_read(rib, &out);
	return out;
}

/* ---- cases ---- */

static void a_refused_prefix_is_shown_by_the_next_change(void)
{
	fib.refuse = ENOSPC;
	add(1, 1);
	EXPECT(shown(1) == 0 && stats().failed > 0 && stats().routes4 == 1);
	fib.refuse = 0;
	add(2, 2);
	EXPECT(shown(1) != 0 && shown(2) != 0);
	stats();
}

static void many_refused_prefixes_are_shown_by_the_end_of_the_batch(void)
{
	fib.refuse = ENOMEM;
	for (unsigned i = 0; i < 100; i++)
		add(i, i % 7);
	EXPECT(fib.n == 0);
	fib.refuse = 0;
	rib_settle(rib);
	EXPECT(fib.n == 100);
	stats();
}

static void a_dump_shows_what_was_refused_before(void)
{
	fib.refuse = ENOSPC;
	for (unsigned i = 0; i < 50; i++)
		add(i, 1);
	fib.refuse = 0;
	rib_dump_begin(rib, FAMILY_IP4);
	for (unsigned i = 0; i < 50; i++) {
		struct route route = route_to(i);

		EXPECT(rib_dumped(rib, &route, path_via(1)) == 0);
	}
	EXPECT(rib_dump_end(rib, FAMILY_IP4) == 0);
	EXPECT(fib.n == 50);
	stats();
}

static void a_path_that_a_refusing_fib_still_shows_is_not_given_away(void)
{
	uint32_t before;

	add(1, 1);
	before = shown(1);
	fib.refuse = ENOMEM;
	add(1, 2);
	EXPECT(shown(1) == before && rib_path(rib, before) != NULL && rib_path_routes(rib, before) == 0);
	add(2, 3);
	stats();
	fib.refuse = 0;
	rib_settle(rib);
	EXPECT(shown(1) != before && rib_path(rib, before) == NULL);
	stats();
}

static void a_refused_route_that_goes_is_forgotten(void)
{
	fib.refuse = ENOSPC;
	add(1, 1);
	take_away(1);
	fib.refuse = 0;
	rib_settle(rib);
	EXPECT(fib.n == 0 && stats().routes4 == 0 && stats().paths == 0);
}

static void a_refused_removal_is_done_later(void)
{
	add(1, 1);
	fib.refuse = ENOMEM;
	take_away(1);
	EXPECT(shown(1) != 0);
	stats();
	fib.refuse = 0;
	rib_settle(rib);
	EXPECT(shown(1) == 0 && stats().paths == 0);
}

static void an_id_is_not_given_again_while_a_reader_may_hold_it(void)
{
	uint32_t first;

	epoch_quiesce(&epoch, 3);
	add(1, 1);
	first = shown(1);
	take_away(1);
	add(2, 2);
	EXPECT(shown(2) != first);
	epoch_quiesce(&epoch, 3);
	add(3, 3);
	EXPECT(shown(3) == first);
	take_away(3);
	epoch_idle(&epoch, 3);
	add(4, 4);
	EXPECT(shown(4) == first);
	stats();
}

static void ids_held_by_a_reader_count_as_taken(void)
{
	epoch_quiesce(&epoch, 0);
	for (unsigned i = 0; i < 100; i++)
		add(1, i); /* 24 ids */
	EXPECT(shown(1) == ADJ_KERNEL && stats().paths_exhausted > 0);
	epoch_quiesce(&epoch, 0);
	add(2, 200);
	EXPECT(shown(2) >= ADJ_RESERVED);
	stats();
}

static void long_batches_collect_on_the_way(void)
{
	for (unsigned i = 0; i < 200; i++)
		add(i, 1);
	EXPECT(fib.collected >= 2);
}

/* ---- several FIBs ---- */

#define TABLE 100u

static struct route table_route(unsigned third, unsigned len)
{
	return (struct route){
		.prefix = {.family = FAMILY_IP4, .len = (uint8_t)len, .addr = {10, 0, (uint8_t)third}},
		.table = TABLE,
	};
}

static void table_add(unsigned third, unsigned last)
{
	struct route route = table_route(third, 24);

	EXPECT(rib_add(rib, &route, path_via(last), RIB_REPLACE) == 0);
}

static uint32_t table_shows(unsigned third, unsigned fourth, unsigned len)
{
	struct prefix prefix = {.family = FAMILY_IP4, .len = (uint8_t)len, .addr = {10, 0, (uint8_t)third, (uint8_t)fourth}};
	uint32_t index = 0;

	return fib_get(&other, &prefix, &index) ? index : 0;
}

static void a_table_that_refuses_does_not_hold_up_main(void)
{
	EXPECT(rib_show_table(rib, TABLE, 0, &other) == 0);
	other.refuse = ENOSPC;
	for (unsigned i = 0; i < 20; i++)
		table_add(i, 1);
	add(1, 2);
	EXPECT(other.n == 0 && shown(1) != 0 && stats().failed >= 20);
	other.refuse = 0;
	rib_settle(rib);
	EXPECT(other.n == 20);
	stats();
}

static void main_that_refuses_does_not_hold_up_a_table(void)
{
	EXPECT(rib_show_table(rib, TABLE, 0, &other) == 0);
	fib.refuse = ENOMEM;
	add(1, 2);
	table_add(1, 3);
	EXPECT(fib.n == 0 && table_shows(1, 0, 24) != 0);
	stats();
	fib.refuse = 0;
	rib_settle(rib);
	EXPECT(shown(1) != 0 && shown(1) != table_shows(1, 0, 24));
	stats();
}

static void both_refuse_and_mend_one_after_the_other(void)
{
	EXPECT(rib_show_table(rib, TABLE, 0, &other) == 0);
	fib.refuse = other.refuse = ENOMEM;
	add(1, 2);
	table_add(1, 3);
	fib.refuse = 0;
	rib_settle(rib);
	EXPECT(shown(1) != 0 && other.n == 0);
	stats();
	other.refuse = 0;
	rib_settle(rib);
	EXPECT(table_shows(1, 0, 24) != 0);
	stats();
}

static void a_table_goes_on_showing_what_it_refused_to_remove(void)
{
	struct route route = table_route(1, 24);
	uint32_t index;

	EXPECT(rib_show_table(rib, TABLE, 0, &other) == 0);
	table_add(1, 3);
	index = table_shows(1, 0, 24);
	other.refuse = ENOMEM;
	EXPECT(rib_remove(rib, &route, NULL) == 0);
	EXPECT(table_shows(1, 0, 24) == index && rib_path(rib, index) != NULL && rib_path_routes(rib, index) == 0);
	stats();
	other.refuse = 0;
	rib_settle(rib);
	EXPECT(other.n == 0 && stats().paths == 0);
}

static void a_table_refused_at_its_making_is_filled_later(void)
{
	for (unsigned i = 0; i < 10; i++)
		table_add(i, 1);
	other.refuse = ENOMEM;
	EXPECT(rib_show_table(rib, TABLE, 0, &other) == 0);
	EXPECT(other.n == 0);
	stats();
	other.refuse = 0;
	add(1, 1);
	EXPECT(other.n > 0);
	rib_settle(rib);
	EXPECT(other.n == 10);
	stats();
}

static void neighbours_follow_a_connected_route_that_was_refused(void)
{
	const uint8_t host[4] = {10, 0, 1, 5};
	struct route route = table_route(1, 24);
	struct path link = {.family = FAMILY_IP4, .type = ROUTE_UNICAST, .n_legs = 1,
			    .leg[0] = {.ifindex = 2, .weight = 1}};

	EXPECT(rib_show_table(rib, TABLE, 0, &other) == 0);
	EXPECT(rib_neighbour_add(rib, FAMILY_IP4, host, 2) == 0);
	other.refuse = ENOMEM;
	EXPECT(rib_add(rib, &route, &link, RIB_ADD) == 0);
	EXPECT(other.n == 0);
	stats();
	other.refuse = 0;
	rib_settle(rib);
	EXPECT(other.n == 2 && rib_path_routes(rib, table_shows(1, 5, 32)) == 1);
	stats();
	other.refuse = ENOMEM;
	EXPECT(rib_neighbour_remove(rib, FAMILY_IP4, host, 2) == 0);
	EXPECT(rib_path_routes(rib, table_shows(1, 5, 32)) == 0);
	stats();
	other.refuse = 0;
	rib_settle(rib);
	EXPECT(other.n == 1);
	stats();
}

static void a_dump_shows_a_table_what_it_refused_before(void)
{
	EXPECT(rib_show_table(rib, TABLE, 0, &other) == 0);
	table_add(1, 1);
	table_add(2, 1);
	other.refuse = ENOMEM;
	rib_dump_begin(rib, FAMILY_IP4);
	EXPECT(rib_dump_end(rib, FAMILY_IP4) == 2);
	EXPECT(other.n == 2);
	stats();
	other.refuse = 0;
	rib_settle(rib);
	EXPECT(other.n == 0 && stats().paths == 0);
}

#define CASE(name) {#name, name}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	CASE(a_refused_prefix_is_shown_by_the_next_change),
	CASE(many_refused_prefixes_are_shown_by_the_end_of_the_batch),
	CASE(a_dump_shows_what_was_refused_before),
	CASE(a_path_that_a_refusing_fib_still_shows_is_not_given_away),
	CASE(a_refused_route_that_goes_is_forgotten),
	CASE(a_refused_removal_is_done_later),
	CASE(an_id_is_not_given_again_while_a_reader_may_hold_it),
	CASE(ids_held_by_a_reader_count_as_taken),
	CASE(long_batches_collect_on_the_way),
	CASE(a_table_that_refuses_does_not_hold_up_main),
	CASE(main_that_refuses_does_not_hold_up_a_table),
	CASE(both_refuse_and_mend_one_after_the_other),
	CASE(a_table_goes_on_showing_what_it_refused_to_remove),
	CASE(a_table_refused_at_its_making_is_filled_later),
	CASE(neighbours_follow_a_connected_route_that_was_refused),
	CASE(a_dump_shows_a_table_what_it_refused_before),
};

int main(int argc, char **argv)
{
	const size_t bytes = sizeof(struct adjacency_table) + 32 * sizeof(struct adjacency);
	struct adjacency_table *adjacencies = aligned_alloc(64, bytes); /* bytes is a multiple of it */

	EXPECT(argc == 2 && adjacencies != NULL);
	memset(adjacencies, 0, bytes);
	adjacencies->capacity = 32;
	epoch.now = 1;
	for (unsigned i = 0; i < EPOCH_READERS; i++)
		epoch_idle(&epoch, i);
	rib = rib_create(&fib, adjacencies, 9);
	EXPECT(rib != NULL);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (strcmp(cases[i].name, argv[1]) == 0) {
			cases[i].run();
			rib_destroy(rib);
			free(adjacencies);
			return 0;
		}
	printf("no case %s\n", argv[1]);
	return 2;
}
