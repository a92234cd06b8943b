/* A packet generator: packets are copied from a shape, numbered, and given a flow by their UDP source port. The UDP
 * checksum is brought up to date from the shape's (RFC 1624), never computed anew.
 */
#include "tools/pktgen.h"

#include <endian.h>
#include <string.h>

#define MAX_AHEAD_NS 100000u /* what a late wake-up may catch up on at once: more would be a burst, not a rate */

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return be64toh(value);
}

static uint16_t fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void make_packet(const struct pktgen *gen, const struct pktgen_shape *shape, uint8_t *packet, uint64_t number)
{
	uint8_t *udp = packet + gen->udp_at;
	uint32_t flow = (uint32_t)(number % gen->flows);
	uint64_t number_be = htobe64(number);
	uint16_t sum;

	memcpy(packet, shape->bytes, shape->len);
	put16(udp, (uint16_t)(gen->first_port + flow));
	memcpy(udp + 16, &number_be, sizeof(number_be));
	sum = fold((uint64_t)shape->sum + flow + (number >> 48) + (number >> 32 & 0xffff) + (number >> 16 & 0xffff) +
		   (number & 0xffff));
	put16(udp + 6, sum == 0xffff ? 0xffff : (uint16_t)~sum); /* 0 would say that there is none (RFC 768) */
}

/* From the start to when the next packet is due. Its product of packets and nanoseconds does not fit 64 bits for long. */
static uint64_t due_after_ns(const struct pktgen *gen)
{
	return (uint64_t)((double)gen->tx_packets * 1e9 / (double)gen->rate_pps);
}

/* How many packets may be sent now. */
static uint64_t allowed(struct pktgen *gen, uint64_t now_ns)
{
	uint64_t due = gen->lane.burst;

	if (gen->rate_pps) {
		uint64_t late_ns = due_after_ns(gen) + MAX_AHEAD_NS;

		if (now_ns - gen->started_ns > late_ns) /* forget what could not be sent in time */
			gen->started_ns += now_ns - gen->started_ns - late_ns;
		due = (uint64_t)((double)(now_ns - gen->started_ns) * 1e-9 * (double)gen->rate_pps) + 1;
		due = due > gen->tx_packets ? due - gen->tx_packets : 0;
	}
	if (gen->limit && due > gen->limit - gen->tx_packets)
		due = gen->limit - gen->tx_packets;
	return due < gen->lane.burst ? due : gen->lane.burst;
}

static unsigned send(struct pktgen *gen, uint64_t now_ns)
{
	struct queue *queue = gen->lane.side[0].queue[0];
	uint64_t addr[LANE_BURST];
	struct frame frames[LANE_BURST];
	unsigned n = frame_pool_get(gen->lane.pool, addr, (unsigned)allowed(gen, now_ns));
	unsigned sent;

	for (unsigned i = 0; i < n; i++) {
		uint64_t number = gen->tx_packets + i;
		const struct pktgen_shape *shape = &gen->shape[number % gen->n_shapes];

		make_packet(gen, shape, frame_data(queue->umem, addr[i]), number);
		frames[i] = (struct frame){ .addr = addr[i], .len = shape->len };
	}
	sent = n ? queue_tx_burst(queue, frames, n) : 0;
	for (unsigned i = 0; i < sent; i++)
		gen->tx_bytes += frames[i].len;
	gen->tx_full += sent < n;
	gen->tx_packets += sent;
	lane_free(&gen->lane, queue->umem, frames + sent, n - sent);
	return sent;
}

static void count_packet(struct pktgen *gen, const uint8_t *packet, uint32_t len)
{
	const uint8_t *payload = packet + gen->udp_at + 8;
	uint64_t number;
	uint32_t flow;

	gen->rx_bytes += len;
	if (len < gen->udp_at + 8 + PKTGEN_TAIL || get64(payload) != PKTGEN_MARK) {
		gen->rx_foreign++;
		return;
	}
	gen->rx_packets++;
	number = get64(payload + 8);
	flow = (uint32_t)(get16(packet + gen->udp_at) - gen->first_port);
	if (flow >= gen->flows)
		return;
	if (number < gen->seen[flow])
		gen->rx_late++;
	else
		gen->seen[flow] = number + 1;
}

static unsigned receive(struct pktgen *gen, struct queue *queue)
{
	struct frame frames[LANE_BURST];
	unsigned n = queue_rx_burst(queue, frames, gen->lane.burst);

	for (unsigned i = 0; i < n; i++)
		count_packet(gen, frame_data(queue->umem, frames[i].addr), frames[i].len);
	lane_free(&gen->lane, queue->umem, frames, n);
	return n;
}

/* When the next packet is due, at the latest until_ns. */
static uint64_t next_due_ns(const struct pktgen *gen, uint64_t until_ns)
{
	uint64_t due_ns;

	if (gen->limit && gen->tx_packets >= gen->limit)
		return until_ns;
	if (!gen->rate_pps)
		return 0; /* the transmit ring is full: it is emptied without an event */
	due_ns = gen->started_ns + due_after_ns(gen);
	return due_ns < until_ns ? due_ns : until_ns;
}

void pktgen_run(struct pktgen *gen, uint64_t until_ns)
{
	struct lane *lane = &gen->lane;
	uint64_t idle_since_ns = 0, now_ns;

	lane_tidy(lane); /* the first packet may be back before the first pass is over: it needs a frame to come into */
	now_ns = lane_now_ns();
	if (gen->started_ns == 0)
		gen->started_ns = now_ns;
	do {
		unsigned moved = send(gen, now_ns);

		for (unsigned s = 0; s < 2; s++)
			for (uint32_t i = 0; i < lane->side[s].n; i++)
				moved += receive(gen, lane->side[s].queue[i]);
		lane_tidy(lane);
		if (moved)
			idle_since_ns = 0;
		else if (next_due_ns(gen, until_ns) > now_ns + 2000000) /* shorter sleeps are not kept anyway */
			lane_idle(lane, &idle_since_ns, next_due_ns(gen, until_ns) - 1000000);
		now_ns = lane_now_ns();
	} while (!atomic_load_explicit(&lane->stop, memory_order_relaxed) && now_ns < until_ns);
}
