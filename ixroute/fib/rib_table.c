/* Where the RIB keeps its routes: pools, the hash of prefixes, the sorted list of alternatives (rib_private.h).
 * Knows the order of alternatives, none of the rules. Called by the other rib_*.c.
 *
 * The hash is seeded: whoever may announce prefixes must not be able to choose them so that they all collide.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "fib/rib_private.h"

#define CHUNK_BITS 13
#define CHUNK_ITEMS (1u << CHUNK_BITS)
#define FIRST_SLOTS 1024u

/* ---- pools ---- */

void *pool_at(const struct pool *pool, uint32_t i)
{
	return pool->chunk[i >> CHUNK_BITS] + (i & (CHUNK_ITEMS - 1)) * pool->item;
}

int pool_reserve(struct pool *pool)
{
	if (pool->free_first != NONE || pool->used < pool->chunks * CHUNK_ITEMS)
		return 0;
	if (pool->chunks == pool->room) {
		uint32_t room = pool->room ? 2 * pool->room : 16;
		uint8_t **chunk = realloc(pool->chunk, room * sizeof(*chunk));

		if (chunk == NULL)
			return -ENOMEM;
		pool->chunk = chunk;
		pool->room = room;
	}
	pool->chunk[pool->chunks] = malloc(CHUNK_ITEMS * pool->item);
	if (pool->chunk[pool->chunks] == NULL)
		return -ENOMEM;
	pool->chunks++;
	return 0;
}

/* The first word of a free item links the free list. Nodes keep theirs elsewhere readable: family 0 (node_free). */
uint32_t pool_take(struct pool *pool)
{
	uint32_t i = pool->free_first;

	if (i == NONE)
		return pool->used++;
	memcpy(&pool->free_first, pool_at(pool, i), sizeof(pool->free_first));
	return i;
}

void pool_give(struct pool *pool, uint32_t i)
{
	memcpy(pool_at(pool, i), &pool->free_first, sizeof(pool->free_first));
	pool->free_first = i;
}

uint64_t pool_bytes(const struct pool *pool)
{
	return (uint64_t)pool->chunks * CHUNK_ITEMS * pool->item + pool->room * sizeof(*pool->chunk);
}

static void pool_init(struct pool *pool, size_t item)
{
	*pool = (struct pool){.item = item, .free_first = NONE};
}

static void pool_close(struct pool *pool)
{
	for (uint32_t i = 0; i < pool->chunks; i++)
		free(pool->chunk[i]);
	free(pool->chunk);
}

/* ---- prefixes ---- */

/* Clears the bits from len on. */
static void addr_truncate(uint8_t addr[16], unsigned len)
{
	unsigned whole = len / 8;

	if (len % 8 != 0) {
		addr[whole] &= (uint8_t)(0xff00u >> (len % 8));
		whole++;
	}
	memset(addr + whole, 0, 16 - whole);
}

void prefix_truncate(struct prefix *prefix, unsigned len)
{
	addr_truncate(prefix->addr, len);
	prefix->len = (uint8_t)len;
}

bool prefix_is_valid(const struct prefix *prefix)
{
	uint8_t addr[16];

	if (prefix->family != FAMILY_IP4 && prefix->family != FAMILY_IP6)
		return false;
	if (prefix->len > host_len(prefix->family))
		return false;
	memcpy(addr, prefix->addr, sizeof(addr));
	addr_truncate(addr, prefix->len);
	return memcmp(addr, prefix->addr, sizeof(addr)) == 0;
}

static bool addr_is_under(const uint8_t addr[16], const struct prefix *prefix)
{
	uint8_t truncated[16];

	memcpy(truncated, addr, sizeof(truncated));
	addr_truncate(truncated, prefix->len);
	return memcmp(truncated, prefix->addr, sizeof(truncated)) == 0;
}

bool node_is_under(const struct node *node, const struct prefix *prefix)
{
	return node->family == prefix->family && node->len >= prefix->len && addr_is_under(node->addr, prefix);
}

bool neighbour_is_under(const struct rib *rib, uint32_t position, const struct prefix *prefix)
{
	const struct neighbours *neighbours = &family_of_const(rib, prefix->family)->neighbours;

	return position < neighbours->n &&
	       addr_is_under(neighbour_at(rib, neighbours->sorted[position])->addr, prefix);
}

struct prefix node_prefix(const struct node *node)
{
	struct prefix prefix = {.family = node->family, .len = node->len};

	memcpy(prefix.addr, node->addr, sizeof(prefix.addr));
	return prefix;
}

struct prefix prefix_host(uint8_t family, const uint8_t *addr)
{
	struct prefix prefix = {.family = family, .len = (uint8_t)host_len(family)};

	memcpy(prefix.addr, addr, host_len(family) / 8);
	return prefix;
}

/* ---- lengths ---- */

void lengths_add(struct lengths *lengths, unsigned len)
{
	lengths->count[len]++;
	lengths->bits[len / 64] |= 1ull << (len % 64);
}

void lengths_remove(struct lengths *lengths, unsigned len)
{
	if (--lengths->count[len] == 0)
		lengths->bits[len / 64] &= ~(1ull << (len % 64));
}

int lengths_at_most(const struct lengths *lengths, int len)
{
	for (int word = len / 64; len >= 0 && word >= 0; word--) {
		uint64_t bits = lengths->bits[word];

		if (word == len / 64)
			bits &= ~0ull >> (63 - len % 64);
		if (bits != 0)
			return word * 64 + 63 - __builtin_clzll(bits);
	}
	return -1;
}

/* ---- the hash of prefixes ---- */

static uint32_t prefix_hash(const struct rib *rib, const uint8_t addr[16], uint8_t family, uint8_t len)
{
	uint64_t high, low, h;

	memcpy(&high, addr, 8);
	memcpy(&low, addr + 8, 8);
	h = (high ^ rib->seed) * 0x9e3779b97f4a7c15u;
	h ^= h >> 32;
	h = (h ^ low ^ (uint64_t)family << 40 ^ (uint64_t)len << 32) * 0xff51afd7ed558ccdu;
	h ^= h >> 29;
	h *= 0xc4ceb9fe1a85ec53u;
	return (uint32_t)(h >> 32);
}

static uint32_t node_hash(const struct rib *rib, const struct node *node)
{
	return prefix_hash(rib, node->addr, node->family, node->len);
}

static uint32_t slot_find(const struct rib *rib, const struct prefix *prefix, uint32_t hash)
{
	uint32_t i = hash & rib->slot_mask;

	for (; rib->slot[i].node != NONE; i = (i + 1) & rib->slot_mask) {
		const struct node *node;

		if (rib->slot[i].hash != hash)
			continue;
		node = node_at(rib, rib->slot[i].node);
		if (node->len == prefix->len && node->family == prefix->family &&
		    memcmp(node->addr, prefix->addr, sizeof(node->addr)) == 0)
			break;
	}
	return i;
}

uint32_t node_find(const struct rib *rib, const struct prefix *prefix)
{
	uint32_t hash = prefix_hash(rib, prefix->addr, prefix->family, prefix->len);

	return rib->slot[slot_find(rib, prefix, hash)].node;
}

static struct slot *slots_create(uint32_t n)
{
	struct slot *slot = malloc(n * sizeof(*slot));

	if (slot != NULL)
		memset(slot, 0xff, n * sizeof(*slot));
	return slot;
}

/* Doubles at three quarters full. All at once: moving a million slots takes some 10 ms, as they hold their hash. */
static int slots_grow(struct rib *rib)
{
	uint32_t n = rib->slot_mask + 1;
	struct slot *old = rib->slot, *slot;

	if (rib->slots_used < n / 4 * 3)
		return 0;
	slot = slots_create(2 * n);
	if (slot == NULL)
		return -ENOMEM;
	rib->slot = slot;
	rib->slot_mask = 2 * n - 1;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t to = old[i].hash & rib->slot_mask;

		if (old[i].node == NONE)
			continue;
		while (slot[to].node != NONE)
			to = (to + 1) & rib->slot_mask;
		slot[to] = old[i];
	}
	free(old);
	return 0;
}

uint32_t node_get(struct rib *rib, const struct prefix *prefix)
{
	uint32_t hash = prefix_hash(rib, prefix->addr, prefix->family, prefix->len);
	uint32_t i = slot_find(rib, prefix, hash), id;
	struct node *node;

	if (rib->slot[i].node != NONE)
		return rib->slot[i].node;
	if (slots_grow(rib) < 0 || pool_reserve(&rib->nodes) < 0)
		return NONE;
	i = slot_find(rib, prefix, hash);
	id = pool_take(&rib->nodes);
	node = node_at(rib, id);
	*node = (struct node){.shown = NONE, .first = NONE, .family = prefix->family, .len = prefix->len};
	memcpy(node->addr, prefix->addr, sizeof(node->addr));
	rib->slot[i] = (struct slot){.hash = hash, .node = id};
	rib->slots_used++;
	family_of(rib, prefix->family)->nodes++;
	return id;
}

/* Linear probing without tombstones: whoever follows and may move back, does. */
static void slot_remove(struct rib *rib, uint32_t hole)
{
	uint32_t mask = rib->slot_mask;

	for (uint32_t i = (hole + 1) & mask; rib->slot[i].node != NONE; i = (i + 1) & mask) {
		if (((i - rib->slot[i].hash) & mask) < ((i - hole) & mask))
			continue;
		rib->slot[hole] = rib->slot[i];
		hole = i;
	}
	rib->slot[hole].node = NONE;
	rib->slots_used--;
}

void node_free_if_empty(struct rib *rib, uint32_t id)
{
	struct node *node = node_at(rib, id);
	struct prefix prefix = node_prefix(node);

	if (node->first != NONE || node->shown != NONE || (node->flags & (NODE_NEIGHBOUR | NODE_BEHIND)))
		return;
	slot_remove(rib, slot_find(rib, &prefix, node_hash(rib, node)));
	family_of(rib, node->family)->nodes--;
	node->family = 0; /* what walks all nodes passes it over */
	node->flags = 0;
	pool_give(&rib->nodes, id);
}

/* ---- alternatives ---- */

static uint64_t table_rank(uint32_t table)
{
	if (table == RIB_TABLE_LOCAL)
		return 0;
	return table == RIB_TABLE_MAIN ? 1 : (uint64_t)table + 2;
}

int alternative_compare(const struct alternative *a, const struct route *route)
{
	if (a->table != route->table)
		return table_rank(a->table) < table_rank(route->table) ? -1 : 1;
	if (a->metric != route->metric)
		return a->metric < route->metric ? -1 : 1;
	return (a->tos > route->tos) - (a->tos < route->tos);
}

uint32_t *group_begin(struct rib *rib, struct node *node, const struct route *route)
{
	uint32_t *link = &node->first;

	while (*link != NONE && alternative_compare(alternative_at(rib, *link), route) < 0)
		link = &alternative_at(rib, *link)->next;
	return link;
}

bool in_group(const struct rib *rib, uint32_t alternative, const struct route *route)
{
	return alternative != NONE && alternative_compare(alternative_at(rib, alternative), route) == 0;
}

uint32_t *group_end(struct rib *rib, uint32_t *link, const struct route *route)
{
	while (in_group(rib, *link, route))
		link = &alternative_at(rib, *link)->next;
	return link;
}

static void node_flag_count(struct node *node, unsigned flag, bool now, struct lengths *lengths)
{
	if (now == ((node->flags & flag) != 0))
		return;
	node->flags ^= (uint8_t)flag;
	if (now)
		lengths_add(lengths, node->len);
	else
		lengths_remove(lengths, node->len);
}

void node_tables_update(struct rib *rib, struct node *node)
{
	struct family_state *state = family_of(rib, node->family);
	uint32_t i = node->first;
	bool local = i != NONE && alternative_at(rib, i)->table == RIB_TABLE_LOCAL;

	while (i != NONE && alternative_at(rib, i)->table == RIB_TABLE_LOCAL)
		i = alternative_at(rib, i)->next;
	node_flag_count(node, NODE_LOCAL, local, &state->local);
	node_flag_count(node, NODE_MAIN, i != NONE && alternative_at(rib, i)->table == RIB_TABLE_MAIN, &state->main);
	while (i != NONE && alternative_at(rib, i)->table == RIB_TABLE_MAIN)
		i = alternative_at(rib, i)->next;
	node->flags = (uint8_t)((node->flags & ~NODE_OTHER) | (i != NONE ? NODE_OTHER : 0));
}

/* ---- the whole ---- */

int rib_table_init(struct rib *rib)
{
	if (getrandom(&rib->seed, sizeof(rib->seed), GRND_NONBLOCK) != sizeof(rib->seed))
		rib->seed = (uintptr_t)rib; /* very early boot: no worse than no seed */
	pool_init(&rib->nodes, sizeof(struct node));
	pool_init(&rib->alternatives, sizeof(struct alternative));
	pool_init(&rib->neighbour_pool, sizeof(struct neighbour));
	rib->slot_mask = FIRST_SLOTS - 1;
	rib->slot = slots_create(FIRST_SLOTS);
	return rib->slot == NULL ? -ENOMEM : 0;
}

void rib_table_close(struct rib *rib)
{
	pool_close(&rib->nodes);
	pool_close(&rib->alternatives);
	pool_close(&rib->neighbour_pool);
	free(rib->slot);
}
