/* The choice among several legs (multipath.h). Called by worker.c for packets that have one, which pay for it alone.
 * Reads packets and groups, writes marks that say what was chosen. */
#include "forward/multipath.h"

#include "fib/adjacency.h"
#include "forward/control.h"
#include "forward/flow.h"
#include "forward/ip4.h"
#include "forward/ip6.h"

#define ICMP_HEADER_BYTES 8u

/* ---- What is hashed ---- */

static unsigned address_bytes(unsigned version)
{
	return version == VERSION_4 ? 4 : 16;
}

/* ICMP messages that carry the packet they are about: RFC 792, RFC 4443. */
static bool icmp4_is_error(unsigned type)
{
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

static bool icmp6_is_error(unsigned type)
{
	return type >= 1 && type <= 4;
}

/* The header whose addresses count: an ICMP error belongs to the flow of the packet it is about, since its sender is
 * any router on that flow's way. Of that packet nothing but its length is checked, as in linux. */
static const uint8_t *l3_header4(const uint8_t *ip, uint32_t length)
{
	uint32_t icmp_at = (ip[0] & 15u) * 4;

	if (ip[IP4_PROTOCOL] != PROTOCOL_ICMP || load16_be(ip + 6) & IP4_FRAGMENT_OFFSET)
		return ip;
	if (length < icmp_at + ICMP_HEADER_BYTES + IP4_HEADER_BYTES || !icmp4_is_error(ip[icmp_at]))
		return ip;
	return ip + icmp_at + ICMP_HEADER_BYTES;
}

/* Only when the ICMPv6 header comes first: linux does not walk extension headers here. */
static const uint8_t *l3_header6(const uint8_t *ip, uint32_t length)
{
	if (ip[IP6_NEXT_HEADER] != PROTOCOL_ICMP6)
		return ip;
	if (length < IP6_HEADER_BYTES + ICMP_HEADER_BYTES + IP6_HEADER_BYTES || !icmp6_is_error(ip[IP6_HEADER_BYTES]))
		return ip;
	return ip + IP6_HEADER_BYTES + ICMP_HEADER_BYTES;
}

static void key_l3(const uint8_t *ip, uint32_t length, enum version version, struct multipath_key *key)
{
	key->version = (uint8_t)version;
	if (version == VERSION_4) {
		ip = l3_header4(ip, length);
		memcpy(key->source, ip + IP4_SOURCE, 4);
		memcpy(key->destination, ip + IP4_DESTINATION, 4);
		return;
	}
	ip = l3_header6(ip, length);
	memcpy(key->source, ip + IP6_SOURCE, 16);
	memcpy(key->destination, ip + IP6_DESTINATION, 16);
	key->label = (uint32_t)(ip[1] & 15u) << 16 | load16_be(ip + 2);
	key->protocol = ip[IP6_NEXT_HEADER];
}

/* fields: HASH_*, the outer six. */
static void key_fields(const struct flow *flow, uint32_t fields, struct multipath_key *key)
{
	key->version = flow->version;
	if (fields & HASH_SOURCE)
		memcpy(key->source, flow->source, address_bytes(flow->version));
	if (fields & HASH_DESTINATION)
		memcpy(key->destination, flow->destination, address_bytes(flow->version));
	if (fields & HASH_PROTOCOL)
		key->protocol = flow->protocol;
	if (fields & HASH_LABEL && flow->version == VERSION_6)
		key->label = flow->label;
	if (fields & HASH_SOURCE_PORT)
		store16(key->ports, load16(flow->ports));
	if (fields & HASH_DESTINATION_PORT)
		store16(key->ports + 2, load16(flow->ports + 2));
}

/* linux: fib_multipath_custom_hash_skb. */
static void keys_custom(uint32_t fields, const uint8_t *ip, uint32_t length, enum version version,
			struct multipath_key keys[2])
{
	uint32_t inner = fields >> HASH_INNER_SHIFT;
	struct flow flow;

	if (fields & HASH_OUTER_FIELDS) {
		flow_dissect(ip, length, version, true, &flow);
		key_fields(&flow, fields, &keys[0]);
		if (!flow.encapsulated)
			return;
	}
	if (inner == 0)
		return;
	flow_dissect(ip, length, version, false, &flow);
	if (flow.encapsulated)
		key_fields(&flow, inner, &keys[1]);
}

unsigned multipath_keys(uint32_t policy, uint32_t fields, const uint8_t *ip, uint32_t length, enum version version,
			struct multipath_key keys[2])
{
	const uint32_t l4 = HASH_SOURCE | HASH_DESTINATION | HASH_PROTOCOL | HASH_SOURCE_PORT | HASH_DESTINATION_PORT;
	const uint32_t l3 = HASH_SOURCE | HASH_DESTINATION, l3_6 = l3 | HASH_PROTOCOL | HASH_LABEL;
	struct flow flow;

	memset(keys, 0, 2 * sizeof(*keys));
	switch (policy) {
	case HASH_POLICY_L4:
		flow_dissect(ip, length, version, true, &flow);
		key_fields(&flow, l4, &keys[0]);
		return 1;
	case HASH_POLICY_INNER_L3: /* what is inside may be of the other family */
		flow_dissect(ip, length, version, false, &flow);
		key_fields(&flow, flow.version == VERSION_4 ? l3 : l3_6, &keys[0]);
		return 1;
	case HASH_POLICY_CUSTOM:
		keys_custom(fields, ip, length, version, keys);
		return 2;
	default:
		key_l3(ip, length, version, &keys[0]);
		return 1;
	}
}

/* ---- The hash ---- */

/* Both halves of the product, folded: each bit of either factor reaches all of the result (as in wyhash, mum). */
static uint64_t fold(uint64_t a, uint64_t b)
{
	__extension__ unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* In both of these any order will do, as long as it is the same for both directions. Addresses are loaded as they were
 * stored: a load of more than one store wrote would have to wait for both. */
static uint64_t addresses_hash4(const uint64_t seed[4], const struct multipath_key *key)
{
	uint64_t from = load32(key->source), to = load32(key->destination);

	return from < to ? fold(from ^ seed[0], to ^ seed[1]) : fold(to ^ seed[0], from ^ seed[1]);
}

static uint64_t addresses_hash6(const uint64_t seed[4], const struct multipath_key *key)
{
	const uint8_t *from = key->source, *to = key->destination;
	uint64_t high = load64(from), other = load64(to);

	if (high > other || (high == other && load64(from + 8) > load64(to + 8))) {
		from = key->destination;
		to = key->source;
	}
	return fold(load64(from) ^ seed[0], load64(to) ^ seed[1]) +
	       fold(load64(from + 8) ^ seed[2], load64(to + 8) ^ seed[3]);
}

static uint64_t key_hash(const struct multipath *multipath, const struct multipath_key *key)
{
	const uint64_t *seed = multipath->seed;
	uint64_t port = load16(key->ports), other = load16(key->ports + 2), rest, hash;

	rest = (port < other ? port << 16 | other : other << 16 | port) << 32;
	rest |= (uint64_t)key->label << 12 ^ (uint64_t)key->protocol << 2 ^ key->version;
	hash = key->version == VERSION_6 ? addresses_hash6(seed, key) : addresses_hash4(seed, key);
	return fold(hash ^ seed[2], rest ^ seed[3]);
}

uint32_t multipath_hash(const struct multipath *multipath, const uint8_t *ip, uint32_t length, enum version version)
{
	uint32_t how = atomic_load_explicit(&multipath->how[version == VERSION_6], memory_order_relaxed);
	struct multipath_key keys[2];
	unsigned n = multipath_keys(how & 0xff, how >> 8, ip, length, version, keys);
	uint64_t hash = key_hash(multipath, &keys[0]);

	if (n == 2)
		hash = fold(hash ^ multipath->seed[0], key_hash(multipath, &keys[1]) ^ multipath->seed[1]);
	/* Once more: the legs' stretches of the range are told apart by the highest bits. */
	return (uint32_t)(fold(hash, multipath->seed[1]) >> (64 - ADJ_HASH_BITS));
}

/* splitmix64 (Steele, Lea, Flood): any seed, 0 included, gives four words that look random. Odd, so never zero. */
void multipath_seed(struct multipath *multipath, uint64_t seed)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t word = seed += 0x9e3779b97f4a7c15u;

		word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9u;
		word = (word ^ word >> 27) * 0x94d049bb133111ebu;
		multipath->seed[i] = (word ^ word >> 31) | 1;
	}
}

/* ---- The leg ---- */

/* The first whose stretch ends above the hash; the last one's ends at 2^31. Without branches that depend on the hash,
 * since nobody could predict them. */
static unsigned leg_of_hash(const struct adjacency_group *group, uint32_t hash)
{
	unsigned first = 0, n = group->n_legs;

	while (n > 1) {
		unsigned half = n / 2;

		first = group->leg[first + half - 1].upper <= hash ? first + half : first;
		n -= half;
	}
	return first;
}

/* For whoever asks which are in use. The line stays shared while the mark is set. */
static void mark(_Atomic uint8_t *used)
{
	if (!atomic_load_explicit(used, memory_order_relaxed))
		atomic_store_explicit(used, 1, memory_order_relaxed);
}

/* The group that *word announced. NULL: it went away between two loads, and *word is what is in its place, which was
 * stored before it went (adjacency_set); or nothing is, and *word leaves the packet to the kernel. */
static struct adjacency_group *group_find(const struct adjacency_table *table, uint32_t index, uint64_t *word)
{
	for (unsigned tries = 0; tries < 2; tries++) {
		struct adjacency_group *group = adjacency_group(table, index);

		if (group != NULL)
			return group;
		*word = atomic_load_explicit(&table->entry[index].word, memory_order_acquire);
		if (adjacency_action(*word) != ADJ_ACTION_GROUP)
			return NULL;
	}
	*word = adjacency_word((const uint8_t[6]){ 0 }, 0, REASON_multipath_route);
	return NULL;
}

uint32_t multipath_choose(const struct multipath *multipath, struct adjacency_table *table, const struct packet *packet,
			  uint64_t *word)
{
	struct adjacency_group *group = group_find(table, packet->index, word);
	unsigned leg, bucket;
	uint32_t hash;

	if (group == NULL)
		return atomic_load_explicit(&table->entry[packet->index].mtu, memory_order_relaxed);
	hash = multipath_hash(multipath, packet->ip, packet->length, packet->version);
	if (group->n_buckets != 0) {
		bucket = hash % group->n_buckets;
		mark(&group->bucket_used[bucket]);
		leg = group->bucket[bucket];
	} else {
		leg = leg_of_hash(group, hash);
	}
	mark(&group->leg[leg].used);
	*word = group->leg[leg].word;
	return group->leg[leg].mtu;
}

uint64_t multipath_source(const struct adjacency_table *table, uint32_t index, uint32_t interface)
{
	uint64_t word;
	const struct adjacency_group *group = group_find(table, index, &word);

	if (group == NULL)
		return word;
	for (unsigned i = 0; i < group->n_legs; i++)
		if (adjacency_interface(group->leg[i].word) == interface)
			return group->leg[i].word;
	return adjacency_word((const uint8_t[6]){ 0 }, 0, REASON_multipath_route);
}
