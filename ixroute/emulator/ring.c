/* Rings of descriptors: when a queue starts, restarts and stops, and where its descriptors are (card_state.h).
 *
 * A client that writes mapped registers tells nobody: what counts is what the registers say when they are looked at. The
 * head is the engine's while the queue runs; another value there means that the client has disabled and enabled the queue
 * between two looks.
 */
#include "emulator/card_state.h"

static struct ring *ring_of(struct card *card, bool is_tx, unsigned queue)
{
	return is_tx ? &card->tx[queue].ring : &card->rx[queue].ring;
}

static void set_state(struct card *card, bool is_tx, unsigned queue, enum queue_state state)
{
	uint64_t *running = is_tx ? card->tx_running : card->rx_running, bit = 1ull << (queue & 63);

	ring_of(card, is_tx, queue)->state = state;
	if (state == QUEUE_RUNS)
		running[queue / 64] |= bit;
	else
		running[queue / 64] &= ~bit;
}

static void start(struct card *card, bool is_tx, unsigned queue, uint64_t base, uint32_t n, uint32_t head)
{
	struct ring *ring = ring_of(card, is_tx, queue);

	ring->base = base;
	ring->n = n;
	ring->head = head;
	if (is_tx) {
		struct tx_queue *q = &card->tx[queue];

		q->context[0].valid = q->context[1].valid = false;
		q->idle = false;
	} else {
		card->rx[queue].touched = false;
	}
	if (head < n) {
		set_state(card, is_tx, queue, QUEUE_RUNS);
		return;
	}
	set_state(card, is_tx, queue, QUEUE_STOPPED); /* no ring, or a head outside of it */
	card->counters.bad_descriptors++;
}

void ring_look(struct card *card, bool is_tx, unsigned queue)
{
	struct ring *ring = ring_of(card, is_tx, queue);
	uint64_t base;
	uint32_t n, head;

	if (!(__atomic_load_n(&ring->regs[QUEUE_DCTL / 4], __ATOMIC_ACQUIRE) & DCTL_ENABLE)) {
		set_state(card, is_tx, queue, QUEUE_OFF);
		if (is_tx && card->tso.active && card->tso.queue == queue)
			card->tso.active = false;
		return;
	}
	base = (uint64_t)ring_reg(ring, QUEUE_BAH) << 32 | (ring_reg(ring, QUEUE_BAL) & BAL_ADDRESS);
	n = (ring_reg(ring, QUEUE_LEN) & LEN_BYTES) / DESCRIPTOR_BYTES;
	head = ring_reg(ring, QUEUE_HEAD) & 0xFFFF;
	if (head >= n && !is_tx && !(reg(card, REG_RXCTRL) & RXCTRL_RXEN)) {
		/* Nothing is fetched before receive is on; drivers test registers that way (Linux: ethtool -t). */
		set_state(card, is_tx, queue, QUEUE_OFF);
		return;
	}
	if (ring->state == QUEUE_OFF || base != ring->base || n != ring->n || head != ring->head)
		start(card, is_tx, queue, base, n, head);
}

void ring_stop(struct card *card, bool is_tx, unsigned queue)
{
	set_state(card, is_tx, queue, QUEUE_STOPPED);
}

void card_fault(struct card *card, uint64_t iova)
{
	card->counters.dma_faults++;
	card->counters.last_fault_iova = iova;
}

/* Not when the queue has been disabled meanwhile: the client may have written the head for its next start. */
void ring_publish_head(struct ring *ring)
{
	if (!(ring_reg(ring, QUEUE_DCTL) & DCTL_ENABLE))
		return;
	__atomic_store_n(&ring->regs[QUEUE_HEAD / 4], ring->head, __ATOMIC_RELEASE);
}
