/* The smallest forwarder: two ports, no tables. It shows the whole of a queue's life in one loop. */
#include "tools/fwd.h"

static unsigned forward(struct lane *lane, struct queue *in, struct queue *out, struct fwd_way *way)
{
	struct frame frames[LANE_BURST];
	unsigned n = queue_rx_burst(in, frames, lane->burst);
	unsigned sent;

	if (n == 0)
		return 0;
	for (unsigned i = 0; i < n; i++)
		way->rx_bytes += frames[i].len;
	way->rx_packets += n;
	sent = queue_tx_burst(out, frames, n);
	way->tx_packets += sent;
	way->dropped += n - sent;
	lane_free(lane, in->umem, frames + sent, n - sent);
	return n;
}

void fwd_run(struct fwd *fwd, uint64_t until_ns)
{
	struct lane *lane = &fwd->lane;
	uint64_t idle_since_ns = 0;

	do {
		unsigned moved = 0;

		for (unsigned s = 0; s < 2; s++)
			for (uint32_t i = 0; i < lane->side[s].n; i++)
				moved += forward(lane, lane->side[s].queue[i], lane->side[!s].queue[0], &fwd->way[s]);
		lane_tidy(lane);
		if (moved)
			idle_since_ns = 0;
		else
			lane_idle(lane, &idle_since_ns, until_ns);
	} while (!atomic_load_explicit(&lane->stop, memory_order_relaxed) && lane_now_ns() < until_ns);
}
