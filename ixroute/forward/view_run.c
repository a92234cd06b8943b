/* What views (view.h) say of packets, beyond the first lookup that worker.c does for whole bursts: called by it for
 * the packets that go on. On the packet path: nothing here allocates, waits or fails.
 *
 * Invariant: each round of view_run moves at least one walk on by a step, and steps only lead forward. */
#include "fib/adjacency.h"
#include "forward/ip4.h"
#include "forward/ip6.h"

enum match { MATCH_NO, MATCH_YES, MATCH_UNKNOWN };

/* Protocol and ports as linux's flow dissector finds them (skb_flow_dissect with STOP_AT_ENCAP; 6.18 was asked, protocol
 * by protocol, with rules whose table drops). */
struct transport {
	bool read; /* looked for yet? */
	bool known;
	uint8_t protocol;
	uint16_t source_port, destination_port; /* 0: it has none */
};

/* linux: proto_ports_offset. Of ESP and AH the two halves of the SPI. */
static void ports_read(struct transport *transport, const uint8_t *payload, unsigned bytes)
{
	unsigned at = 0;

	switch (transport->protocol) {
	case 6:	  /* TCP */
	case 17:  /* UDP */
	case 33:  /* DCCP */
	case 50:  /* ESP */
	case 132: /* SCTP */
	case 136: /* UDP-Lite */
		break;
	case 51: /* AH */
		at = 4;
		break;
	default:
		return;
	}
	if (bytes < at + 4)
		return;
	transport->source_port = load16_be(payload + at);
	transport->destination_port = load16_be(payload + at + 2);
}

static struct transport transport4(const struct packet *packet)
{
	const uint8_t *ip = packet->ip;
	unsigned header_bytes = (ip[0] & 15u) * 4;
	struct transport transport = { .read = true, .known = true, .protocol = ip[IP4_PROTOCOL] };

	if (!(load16_be(ip + 6) & (IP4_FRAGMENT_OFFSET | IP4_MORE_FRAGMENTS)))
		ports_read(&transport, ip + header_bytes, packet->length - header_bytes);
	return transport;
}

/* Behind other extension headers (RFC 8200 4) the kernel looks. */
static struct transport transport6(const struct packet *packet)
{
	const uint8_t *payload = packet->ip + IP6_HEADER_BYTES;
	unsigned bytes = packet->length - IP6_HEADER_BYTES;
	struct transport transport = { .read = true, .known = true, .protocol = packet->ip[IP6_NEXT_HEADER] };

	switch (transport.protocol) {
	case IP6_HOP_BY_HOP:
	case IP6_ROUTING:
	case IP6_DESTINATION_OPTIONS:
		transport.known = false;
		break;
	case IP6_FRAGMENT: /* no ports, not even in the first or only one */
		transport.known = bytes >= IP6_FRAGMENT_BYTES;
		transport.protocol = transport.known ? payload[0] : 0;
		break;
	default:
		ports_read(&transport, payload, bytes);
	}
	return transport;
}

static bool prefixes_match4(const struct view_rule *rule, const uint8_t *ip)
{
	return (((load32(ip + IP4_SOURCE) ^ rule->source.value[0]) & rule->source.mask[0]) |
		((load32(ip + IP4_DESTINATION) ^ rule->destination.value[0]) & rule->destination.mask[0])) == 0;
}

static bool prefix_matches6(const struct view_prefix *prefix, const uint8_t *address)
{
	return (((load64(address) ^ prefix->value[0]) & prefix->mask[0]) |
		((load64(address + 8) ^ prefix->value[1]) & prefix->mask[1])) == 0;
}

/* Protocol and ports come last: a packet that does not match otherwise need not show them. *transport: those of the
 * packet once they were looked for. */
static enum match conditions_match(const struct view_rule *rule, const struct packet *packet,
				   struct transport *transport)
{
	const uint8_t *ip = packet->ip;
	bool is4 = packet->version == VERSION_4;
	uint8_t tos = is4 ? ip[1] : (uint8_t)(load16_be(ip) >> 4);

	if ((tos ^ rule->tos) & rule->tos_mask)
		return MATCH_NO;
	if (is4 ? !prefixes_match4(rule, ip) :
		  !prefix_matches6(&rule->source, ip + IP6_SOURCE) ||
			  !prefix_matches6(&rule->destination, ip + IP6_DESTINATION))
		return MATCH_NO;
	if (!rule->protocol && !rule->has_ports)
		return MATCH_YES;
	if (!transport->read)
		*transport = is4 ? transport4(packet) : transport6(packet);
	if (!transport->known)
		return MATCH_UNKNOWN;
	return (rule->protocol == 0 || rule->protocol == transport->protocol) &&
			       transport->source_port >= rule->source_first &&
			       transport->source_port <= rule->source_last &&
			       transport->destination_port >= rule->destination_first &&
			       transport->destination_port <= rule->destination_last ?
		       MATCH_YES :
		       MATCH_NO;
}

static enum match rule_match(const struct view_rule *rule, const struct packet *packet, struct transport *transport)
{
	enum match match;

	if (!rule->conditional)
		return MATCH_YES;
	match = conditions_match(rule, packet, transport);
	if (match == MATCH_UNKNOWN || !rule->inverted)
		return match;
	return match == MATCH_YES ? MATCH_NO : MATCH_YES;
}

/* Goes on to the walk's next lookup: true, and walk->at is its step. Or false: it ended, and its answer is placed. */
static bool walk_on(struct view_walk *walk)
{
	const struct view *view = walk->view;
	uint32_t at = walk->at, index = ADJ_NO_ROUTE;
	struct transport transport = { .read = false };

	while (at < view->n) {
		const struct view_rule *rule = &view->rule[at];
		enum match match = rule_match(rule, walk->packet, &transport);

		if (match == MATCH_NO) {
			at++;
			continue;
		}
		if (match == MATCH_YES && rule->kind == VIEW_LOOKUP) {
			walk->at = at;
			return true;
		}
		if (match == MATCH_YES && rule->kind == VIEW_GOTO) {
			at = rule->to;
			continue;
		}
		index = match == MATCH_YES ? rule->index : ADJ_POLICY;
		break;
	}
	*walk->into = index;
	return false;
}

static void lookup(const struct fib *fib, unsigned family, struct view_walk *const *walk, uint32_t *index, unsigned n)
{
	uint32_t address4[VIEW_WALKS];
	const uint8_t *address6[VIEW_WALKS];

	for (unsigned i = 0; i < n; i++) {
		if (family == 4)
			address4[i] = load32(walk[i]->address);
		else
			address6[i] = walk[i]->address;
	}
	if (family == 4)
		fib4_lookup_burst(fib, address4, index, n);
	else
		fib6_lookup_burst(fib, address6, index, n);
}

/* All walks that stand at a lookup in the FIB of the first one. Those without an answer are moved on, perhaps to
 * another lookup; the others leave the list. Returns how many are left. */
static unsigned round_of(const struct adjacency_table *table, unsigned family, struct view_walk **standing, unsigned n)
{
	const struct fib *fib = standing[0]->view->rule[standing[0]->at].fib;
	struct view_walk *walk[VIEW_WALKS];
	uint32_t index[VIEW_WALKS];
	unsigned asking = 0, left = 0;

	for (unsigned i = 0; i < n; i++) {
		if (standing[i]->view->rule[standing[i]->at].fib == fib)
			walk[asking++] = standing[i];
		else
			standing[left++] = standing[i];
	}
	lookup(fib, family, walk, index, asking);
	for (unsigned i = 0; i < asking; i++) {
		if (index[i] != ADJ_NO_ROUTE && index[i] < table->capacity) {
			*walk[i]->into = index[i];
			continue;
		}
		walk[i]->at++;
		if (walk_on(walk[i]))
			standing[left++] = walk[i];
	}
	return left;
}

void view_run(const struct adjacency_table *table, unsigned family, struct view_walk *walk, unsigned n)
{
	struct view_walk *standing[VIEW_WALKS];
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++)
		if (walk_on(&walk[i]))
			standing[left++] = &walk[i];
	while (left != 0)
		left = round_of(table, family, standing, left);
	for (unsigned i = 0; i < n; i++)
		__builtin_prefetch(&table->entry[*walk[i].into]);
}
