/* A tool's thread between its bursts: frames come back, rings are filled, and when nothing moves it sleeps. */
#include "tools/lane.h"

void lane_tidy(struct lane *lane)
{
	for (unsigned s = 0; s < 2; s++) {
		for (uint32_t i = 0; i < lane->side[s].n; i++) {
			struct queue *queue = lane->side[s].queue[i];

			queue_tx_doorbell(queue);
			queue_reclaim(queue, lane->pool);
			queue_refill(queue, lane->pool);
		}
	}
}

void lane_idle(struct lane *lane, uint64_t *idle_since_ns, uint64_t until_ns)
{
	struct queue *queues[2 * LANE_QUEUES];
	unsigned n = 0;
	uint64_t now;

	if (lane->idle_ns == UINT64_MAX)
		return;
	now = lane_now_ns();
	if (*idle_since_ns == 0)
		*idle_since_ns = now;
	if (now - *idle_since_ns < lane->idle_ns || now >= until_ns)
		return;
	for (unsigned s = 0; s < 2; s++)
		for (uint32_t i = 0; i < lane->side[s].n; i++)
			queues[n++] = lane->side[s].queue[i];
	/* A wake without a packet is no sign of one: the next pass in vain sleeps again. */
	queues_wait(queues, n, (int)((until_ns - now) / 1000000 + 1));
}

void lane_stop(struct lane *lane)
{
	atomic_store_explicit(&lane->stop, 1, memory_order_relaxed);
}

void lane_free(struct lane *lane, const struct umem *umem, const struct frame *frames, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		frame_pool_put(lane->pool, umem, frames[i].addr);
}
