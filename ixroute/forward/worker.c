/* A packet's way, in the order of the functions that it meets, from bottom to top of a pass:
 *
 *     rx_burst -> eth_classify -> ip4_validate / ip6_validate -> fib lookup of the whole burst (view_run: and more)
 *     -> adjacency (of several legs one: multipath.c) -> ttl and mtu checks (ip4_decide / ip6_decide) -> rewrite
 *     -> dispose
 *
 * Read worker_poll_once first (last in this file); forward_queue is the stretch that costs. Called by run.c's loop,
 * and by tests one pass at a time.
 *
 * Invariants. A frame belongs to a ring, then to this file, then to exactly one of: an egress stage, the punt stage,
 * the pool; dispose() alone decides which. A packet is not written to before its verdict is forward. Nothing here
 * allocates, waits or logs; the only system call is the write that wakes a sleeping door.
 */
#include "forward/worker.h"

#include <unistd.h>

#include "forward/eth.h"
#include "forward/ip4.h"
#include "forward/ip6.h"
#include "forward/packet.h"
#include "forward/vlan.h"
#include "forward/worker_state.h"

struct burst {
	struct ingress in; /* of untagged packets: the port */
	struct sub_ingress subs;
	unsigned n;
	struct frame frame[BURST];
	struct packet packet[BURST];
};

static const uint8_t kind_of[REASON_COUNT] = {
	[REASON_FORWARD] = REASON_KIND_FORWARD,
#define REASON(kind_, name_, text_) [REASON_##name_] = REASON_KIND_##kind_,
	REASON_LIST(REASON)
#undef REASON
};

/* number: of a sub-interface. */
static inline struct sub_counters *sub_of(struct worker *worker, unsigned number)
{
	return &worker->sub[number - MAX_PORTS];
}

/* ---- Classify and validate ---- */

static inline void packet_validate(struct burst *burst, uint8_t *eth, const struct frame *frame, struct packet *packet)
{
	uint32_t len = frame->len;
	unsigned reason;

	packet->marks = 0;
	packet->version = VERSION_NONE;
	reason = eth_classify(&burst->in, &burst->subs, eth, len, packet);
	if (reason == REASON_FORWARD) {
		uint32_t room = len - (uint32_t)(packet->ip - eth);

		reason = packet->version == VERSION_4 ? ip4_validate(packet->in, packet, room, frame->flags) :
							ip6_validate(packet, room);
	}
	packet->reason = (uint8_t)reason;
}

/* Returns the bytes of the burst. */
static uint64_t burst_validate(struct worker *worker, struct burst *burst)
{
	const struct umem *umem = worker->umem;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < burst->n; i++)
		__builtin_prefetch(frame_data(umem, burst->frame[i].addr), 1);
	for (unsigned i = 0; i < burst->n; i++) {
		struct frame *frame = &burst->frame[i];

		packet_validate(burst, frame_data(umem, frame->addr), frame, &burst->packet[i]);
		bytes += frame->len;
		if (__builtin_expect(burst->packet[i].in->interface >= MAX_PORTS, 0)) {
			sub_of(worker, burst->packet[i].in->interface)->rx_packets++;
			sub_of(worker, burst->packet[i].in->interface)->rx_bytes += frame->len;
		}
	}
	return bytes;
}

/* ---- Look up ---- */

/* Puts the answers where they belong and fetches the adjacencies they name. An index that the table does not have
 * (there is none as long as both have the same writer) counts as no route. Returns whether any found no route. */
static inline bool answers_place(const struct adjacency_table *table, uint32_t *const *into, const uint32_t *index,
				 unsigned n)
{
	bool missed = false;

	for (unsigned i = 0; i < n; i++) {
		uint32_t at = index[i] < table->capacity ? index[i] : ADJ_NO_ROUTE;

		*into[i] = at;
		missed |= at == ADJ_NO_ROUTE;
		__builtin_prefetch(&table->entry[at]);
	}
	return missed;
}

/* What is left to do when all packets of a version whose view begins with `first` have that lookup's answer: the rest
 * of their views for those who found nothing, all of it for the others. */
static __attribute__((noinline)) void burst_walk(const struct dataplane *dataplane, struct burst *burst,
						 enum version version, const struct fib *first)
{
	struct view_walk walk[VIEW_WALKS];
	unsigned n = 0, source = version == VERSION_4 ? IP4_SOURCE : IP6_SOURCE,
		 destination = version == VERSION_4 ? IP4_DESTINATION : IP6_DESTINATION;

	for (unsigned i = 0; i < burst->n; i++) {
		struct packet *packet = &burst->packet[i];
		const struct view *view;
		bool began;

		if (packet->reason != REASON_FORWARD || packet->version != version)
			continue;
		view = packet->in->view[version - VERSION_4];
		began = first && view->first == first;
		if (!began || packet->index == ADJ_NO_ROUTE)
			walk[n++] = (struct view_walk){ view, packet, packet->ip + destination, &packet->index, began };
		if (!(packet->marks & MARK_SOURCE))
			continue;
		if (!view->same_source)
			packet->source_index = ADJ_POLICY;
		else if (!began || packet->source_index == ADJ_NO_ROUTE)
			walk[n++] = (struct view_walk){ view, packet, packet->ip + source, &packet->source_index, began };
	}
	view_run(dataplane->adjacencies, version == VERSION_4 ? 4 : 6, walk, n);
}

static void burst_lookup4(const struct dataplane *dataplane, struct burst *burst)
{
	const struct fib *first = burst->in.view[VIEW_OF_IP4]->first;
	uint32_t address[2 * BURST], index[2 * BURST], *into[2 * BURST];
	unsigned n = 0;
	bool more = false;

	for (unsigned i = 0; i < burst->n; i++) {
		struct packet *packet = &burst->packet[i];
		const struct view *view;

		if (packet->reason != REASON_FORWARD || packet->version != VERSION_4)
			continue;
		view = packet->in->view[VIEW_OF_IP4];
		if (!first || view->first != first) {
			more = true;
			continue;
		}
		address[n] = load32(packet->ip + IP4_DESTINATION);
		into[n++] = &packet->index;
		if (packet->marks & MARK_SOURCE) {
			if (!view->same_source) {
				packet->source_index = ADJ_POLICY;
				continue;
			}
			address[n] = load32(packet->ip + IP4_SOURCE);
			into[n++] = &packet->source_index;
		}
	}
	if (n != 0) {
		fib4_lookup_burst(first, address, index, n);
		more |= answers_place(dataplane->adjacencies, into, index, n);
	}
	if (__builtin_expect(more, 0))
		burst_walk(dataplane, burst, VERSION_4, first);
}

static void burst_lookup6(const struct dataplane *dataplane, struct burst *burst)
{
	const struct fib *first = burst->in.view[VIEW_OF_IP6]->first;
	const uint8_t *address[BURST];
	uint32_t index[BURST], *into[BURST];
	unsigned n = 0;
	bool more = false;

	for (unsigned i = 0; i < burst->n; i++) {
		struct packet *packet = &burst->packet[i];

		if (packet->reason != REASON_FORWARD || packet->version != VERSION_6)
			continue;
		if (!first || packet->in->view[VIEW_OF_IP6]->first != first) {
			more = true;
			continue;
		}
		address[n] = packet->ip + IP6_DESTINATION;
		into[n++] = &packet->index;
	}
	if (n != 0) {
		fib6_lookup_burst(first, address, index, n);
		more |= answers_place(dataplane->adjacencies, into, index, n);
	}
	if (__builtin_expect(more, 0))
		burst_walk(dataplane, burst, VERSION_6, first);
}

/* ---- Where a frame goes ---- */

/* in: the interface it came in by. */
static void frame_drop(struct worker *worker, const struct frame *frame, unsigned in, unsigned reason)
{
	worker->port[frame->port].dropped[reason]++;
	if (in >= MAX_PORTS)
		sub_of(worker, in)->dropped++;
	frame_pool_put(worker->pool, worker->umem, frame->addr);
}

/* The first `taken` are sent. */
static void egress_count_subs(struct worker *worker, struct egress *egress, unsigned taken)
{
	for (unsigned i = 0; i < taken; i++) {
		if (egress->way[i].in >= MAX_PORTS)
			sub_of(worker, egress->way[i].in)->sent_packets++;
		if (egress->way[i].out >= MAX_PORTS) {
			sub_of(worker, egress->way[i].out)->tx_packets++;
			sub_of(worker, egress->way[i].out)->tx_bytes += egress->frame[i].len;
		}
	}
	egress->tagged = false;
}

static void egress_flush(struct worker *worker, unsigned port)
{
	struct egress *egress = &worker->egress[port];
	unsigned taken = egress->queue->ops->tx_burst(egress->queue, egress->frame, egress->n);

	for (unsigned i = 0; i < taken; i++) {
		worker->port[egress->frame[i].port].sent_packets++;
		worker->port[port].tx_bytes += egress->frame[i].len;
	}
	worker->port[port].tx_packets += taken;
	worker->tx_in_flight += taken;
	if (egress->tagged)
		egress_count_subs(worker, egress, taken);
	for (unsigned i = taken; i < egress->n; i++)
		frame_drop(worker, &egress->frame[i], egress->way[i].in, REASON_tx_ring_full);
	egress->n = 0;
	worker->to_send &= ~(1ull << port);
}

static inline void egress_put(struct worker *worker, const struct frame *frame, unsigned in, unsigned out)
{
	unsigned port = atomic_load_explicit(&worker->dataplane->interface[out].port, memory_order_relaxed);
	struct egress *egress = &worker->egress[port];

	if (__builtin_expect(!egress->queue, 0)) { /* the sub-interface went since the verdict */
		frame_drop(worker, frame, in, REASON_tx_ring_full);
		return;
	}
	egress->way[egress->n] = (struct way){ .in = (uint16_t)in, .out = (uint16_t)out };
	egress->tagged |= (in | out) >= MAX_PORTS;
	egress->frame[egress->n++] = *frame;
	worker->to_send |= 1ull << port;
	if (egress->n == BURST)
		egress_flush(worker, port);
}

static bool punt_allowed(struct worker *worker, unsigned port, unsigned reason)
{
	const struct policer *policer = &worker->dataplane->policer[reason];
	uint32_t rate = atomic_load_explicit(&policer->rate, memory_order_relaxed);
	uint32_t burst = atomic_load_explicit(&policer->burst, memory_order_relaxed);
	uint32_t n = worker->dataplane->n_workers;

	if (worker->now_ns == 0) /* the coarse clock is a read of memory, no system call */
		worker->now_ns = clock_ns(CLOCK_MONOTONIC_COARSE);
	return bucket_take(&worker->bucket[port][reason], policer_share(rate, n), policer_share(burst, n),
			   worker->now_ns);
}

/* What the router lives on: its neighbours, their addresses, its routes. */
static bool punt_is_vital(unsigned reason)
{
	return reason == REASON_routing_protocol || reason == REASON_arp_request || reason == REASON_arp_response ||
	       reason == REASON_ipv6_neighbour_discovery || reason == REASON_link_local_frame;
}

/* The last slots of the ring are for what is vital: a flood that the door cannot keep up with (it may not run for
 * tens of milliseconds on a busy machine) loses its own packets, and no session with it. */
static void punt_flush(struct worker *worker)
{
	uint32_t room = LANE_SLOTS - frame_ring_count(&worker->lane->punt);
	unsigned taken = 0;

	for (unsigned i = 0; i < worker->n_punts; i++) {
		const struct frame frame = worker->punt[i];
		unsigned reason = worker->punt_reason[i];

		if (room <= (punt_is_vital(reason) ? 0 : PUNT_RESERVE)) {
			frame_drop(worker, &frame, worker->punt_in[i], REASON_punt_ring_full);
			continue;
		}
		worker->port[frame.port].punted[reason]++;
		if (worker->punt_in[i] >= MAX_PORTS)
			sub_of(worker, worker->punt_in[i])->punted++;
		worker->punt[taken++] = frame;
		room--;
	}
	frame_ring_put(&worker->lane->punt, worker->punt, taken);
	worker->n_punts = 0;
	worker->door_rings |= taken != 0;
}

static void punt_put(struct worker *worker, const struct frame *frame, unsigned in, unsigned reason)
{
	/* ingress_is_egress had to ask its bucket to become the verdict at all (egress_decide). */
	if (reason != REASON_ingress_is_egress && !punt_allowed(worker, frame->port, reason)) {
		worker->port[frame->port].policed[reason]++;
		if (in >= MAX_PORTS)
			sub_of(worker, in)->policed++;
		frame_pool_put(worker->pool, worker->umem, frame->addr);
		return;
	}
	worker->punt[worker->n_punts] = *frame;
	worker->punt_in[worker->n_punts] = (uint16_t)in;
	worker->punt_reason[worker->n_punts++] = (uint8_t)reason;
	if (worker->n_punts == BURST)
		punt_flush(worker);
}

/* The one place where a frame changes hands. The caller does not have it any more. in, out: interfaces; out only
 * of one that is to be forwarded. */
static inline void dispose(struct worker *worker, const struct frame *frame, unsigned in, unsigned reason, unsigned out)
{
	if (__builtin_expect(reason == REASON_FORWARD, 1))
		egress_put(worker, frame, in, out);
	else if (kind_of[reason] == REASON_KIND_PUNT)
		punt_put(worker, frame, in, reason);
	else
		frame_drop(worker, frame, in, reason);
}

/* ---- Decide and rewrite ---- */

/* What the way out says, for a packet that may take it. */
static inline unsigned egress_decide(struct worker *worker, const struct ingress *in, const struct packet *packet,
				     unsigned interface)
{
	unsigned port = atomic_load_explicit(&worker->dataplane->interface[interface].port, memory_order_relaxed);

	if (!worker->egress[port].queue)
		return REASON_external_route; /* not ours to send by */
	/* RFC 1812 5.2.7.2: linux forwards it and tells the sender of a better way. The first few are its to see. */
	if (interface == in->interface && (packet->version == VERSION_6 || in->flags & PORT_SEND_REDIRECTS) &&
	    punt_allowed(worker, port, REASON_ingress_is_egress))
		return REASON_ingress_is_egress;
	return REASON_FORWARD;
}

static inline unsigned packet_decide(struct worker *worker, const struct ingress *in, const struct packet *packet,
				     uint64_t *word)
{
	const struct dataplane *dataplane = worker->dataplane;
	struct adjacency *entry = dataplane->adjacencies->entry;
	uint64_t source_word = 0;
	uint32_t mtu;
	unsigned reason;

	/* acquire, and before the mtu: a new way out is never taken with the old one's mtu (adjacency_set). */
	*word = atomic_load_explicit(&entry[packet->index].word, memory_order_acquire);
	mtu = atomic_load_explicit(&entry[packet->index].mtu, memory_order_relaxed);
	if (__builtin_expect(adjacency_action(*word) == ADJ_ACTION_GROUP, 0))
		mtu = multipath_choose(&dataplane->multipath, dataplane->adjacencies, packet, word);
	if (packet->version == VERSION_4) {
		if (packet->marks & MARK_SOURCE) {
			source_word = atomic_load_explicit(&entry[packet->source_index].word, memory_order_relaxed);
			if (adjacency_action(source_word) == ADJ_ACTION_GROUP)
				source_word = multipath_source(dataplane->adjacencies, packet->source_index, in->interface);
		}
		reason = ip4_decide(in, packet, *word, mtu, source_word);
	} else {
		reason = ip6_decide(in, packet, *word, mtu);
	}
	return reason == REASON_FORWARD ? egress_decide(worker, in, packet, adjacency_interface(*word)) :
					reason;
}

/* From here on the packet is changed. The frame shrinks to what the IP header says, and by the tags it came with; it
 * grows by those of the interface it leaves by, the one returned. */
static inline unsigned packet_rewrite(struct worker *worker, struct frame *frame, const struct packet *packet, uint64_t word)
{
	unsigned out = adjacency_interface(word);
	const struct interface *egress = &worker->dataplane->interface[out];
	_Atomic uint8_t *used = &worker->used[packet->index];
	uint8_t *eth;

	if (packet->version == VERSION_4)
		ip4_decrement_ttl(packet->ip);
	else
		packet->ip[IP6_HOP_LIMIT]--;
	eth = eth_rewrite(packet->ip, word, atomic_load_explicit(&egress->mac, memory_order_relaxed),
			  atomic_load_explicit(&egress->tags, memory_order_relaxed), packet->version);
	frame->addr = (uint64_t)(eth - worker->umem->base);
	frame->len = (uint32_t)(packet->ip - eth) + packet->length;
	if (!atomic_load_explicit(used, memory_order_relaxed)) /* keeps the line shared while it is set */
		atomic_store_explicit(used, 1, memory_order_relaxed);
	return out;
}

static void burst_finish(struct worker *worker, struct burst *burst)
{
	for (unsigned i = 0; i < burst->n; i++) {
		struct packet *packet = &burst->packet[i];
		unsigned reason = packet->reason, out = 0;
		uint64_t word = 0;

		if (reason == REASON_FORWARD) {
			reason = packet_decide(worker, packet->in, packet, &word);
			if (reason == REASON_FORWARD)
				out = packet_rewrite(worker, &burst->frame[i], packet, word);
		}
		dispose(worker, &burst->frame[i], packet->in->interface, reason, out);
	}
}

/* ---- A pass ---- */

static unsigned forward_queue(struct worker *worker, struct queue *queue)
{
	struct burst burst;

	burst.n = queue->ops->rx_burst(queue, burst.frame, BURST);
	if (burst.n == 0)
		return 0;
	ingress_read(&burst.in, worker->dataplane, queue->port);
	burst.subs.dataplane = worker->dataplane;
	burst.subs.at = worker->sub_at;
	burst.subs.n = 0;
	worker->port[queue->port].rx_packets += burst.n;
	worker->port[queue->port].rx_bytes += burst_validate(worker, &burst);
	burst_lookup4(worker->dataplane, &burst);
	burst_lookup6(worker->dataplane, &burst);
	burst_finish(worker, &burst);
	return burst.n;
}

/* What the kernel sends goes out unrouted; only what the port cannot send is stopped. */
static unsigned inject_judge(const struct worker *worker, const struct frame *frame)
{
	const uint8_t *eth = frame_data(worker->umem, frame->addr);
	uint32_t header_bytes = ETH_HEADER_BYTES, mtu;

	if (frame->len < ETH_HEADER_BYTES)
		return REASON_frame_too_short;
	while (header_bytes < ETH_HEADER_BYTES + INTERFACE_TAGS * VLAN_TAG_BYTES && header_bytes <= frame->len &&
	       vlan_is_tag(load16_be(eth + header_bytes - 2)))
		header_bytes += VLAN_TAG_BYTES;
	mtu = atomic_load_explicit(&worker->dataplane->interface[frame->port].mtu, memory_order_relaxed);
	if (frame->len > header_bytes + mtu)
		return REASON_inject_too_long;
	return worker->egress[frame->port].queue ? REASON_FORWARD : REASON_tx_ring_full;
}

static unsigned inject(struct worker *worker)
{
	struct frame frame[BURST];
	unsigned n = frame_ring_get(&worker->lane->inject, frame, BURST);

	for (unsigned i = 0; i < n; i++) {
		worker->port[frame[i].port].injected_packets++;
		worker->port[frame[i].port].injected_bytes += frame[i].len;
		dispose(worker, &frame[i], frame[i].port, inject_judge(worker, &frame[i]), frame[i].port);
	}
	return n;
}

/* Frames come back from the door, and it gets some to read into. */
static void lane_balance(struct worker *worker)
{
	struct tap_lane *lane = worker->lane;
	struct frame frame[BURST];
	uint64_t addr[BURST];
	unsigned n, there;

	do {
		n = frame_ring_get(&lane->punt_done, frame, BURST);
		for (unsigned i = 0; i < n; i++)
			frame_pool_put(worker->pool, worker->umem, frame[i].addr);
	} while (n == BURST);
	there = frame_ring_count(&lane->inject_free);
	if (there >= INJECT_FREE_FRAMES)
		return;
	n = INJECT_FREE_FRAMES - there;
	n = frame_pool_get(worker->pool, addr, n < BURST ? n : BURST);
	for (unsigned i = 0; i < n; i++)
		frame[i] = (struct frame){ .addr = addr[i] };
	frame_ring_put(&lane->inject_free, frame, n);
}

/* The door stores door_asleep and then looks at its rings; we stored into the ring and look at door_asleep: one of
 * us sees the other (the fence makes it so). Whoever takes the flag writes once. */
static void door_wake(struct worker *worker)
{
	struct tap_lane *lane = worker->lane;
	uint64_t one = 1;

	worker->door_rings = false;
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&lane->door_asleep, memory_order_relaxed) &&
	    atomic_exchange_explicit(&lane->door_asleep, 0, memory_order_relaxed) &&
	    write(lane->door_event, &one, sizeof(one)) < 0)
		return; /* a full eventfd is readable: the door wakes all the same */
}

static void pass_end(struct worker *worker, unsigned moved, uint64_t began)
{
	struct worker_counters *counters = &worker->counters;

	counters->polls++;
	counters->free_frames = worker->pool->n;
	if (moved) {
		counters->busy_polls++;
		counters->packets += moved;
		counters->busy_cycles += cycles() - began;
	}
	if (counters->polls % 4096 == 0)
		counters->heartbeat_ns = clock_ns(CLOCK_MONOTONIC);
}

unsigned worker_poll_once(struct worker *worker)
{
	uint64_t began = cycles(), no_frame = 0;
	unsigned moved;

	/* Nothing of the FIB is held between passes: the end of one and the start of the next are the same point. */
	epoch_quiesce(worker->epoch, worker->number);
	worker->now_ns = 0;
	moved = inject(worker);
	for (unsigned i = 0; i < worker->n_queues; i++) {
		struct queue *queue = worker->queue[i];

		worker->tx_in_flight -= queue->ops->reclaim(queue, worker->pool);
		moved += forward_queue(worker, queue);
	}
	while (worker->to_send)
		egress_flush(worker, (unsigned)__builtin_ctzll(worker->to_send));
	punt_flush(worker);
	if (worker->door_rings)
		door_wake(worker);
	lane_balance(worker);
	for (unsigned i = 0; i < worker->n_queues; i++) {
		struct queue *queue = worker->queue[i];

		queue->ops->refill(queue, worker->pool);
		queue->ops->tx_doorbell(queue);
		no_frame += queue->rx_no_frame;
	}
	worker->counters.rx_no_frame = no_frame;
	pass_end(worker, moved, began);
	return moved;
}
