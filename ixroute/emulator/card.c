/* A card: its state from create to destroy, and the calls of card.h that change it. Called by Python, by any thread but the
 * engine's; each holds the engine's lock while it runs (enter, leave).
 */
#include "emulator/card.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/card_state.h"
#include "emulator/engine.h"

static void queues_create(struct card *card)
{
	for (unsigned i = 0; i < CARD_QUEUES; i++) {
		card->rx[i].ring.regs = card->registers + reg_rx_queue(i) / 4;
		card->tx[i].ring.regs = card->registers + reg_tx_queue(i) / 4;
	}
}

static void free_card(struct card *card)
{
	dma_table_destroy(&card->dma);
	free(card->buffer.bytes);
	free(card->tso.bytes);
	free(card);
}

struct card *card_create(struct engine *engine, volatile uint32_t *registers)
{
	struct card *card = NULL;

	if (posix_memalign((void **)&card, 64, sizeof(*card)))
		return NULL;
	memset(card, 0, sizeof(*card));
	card->engine = engine;
	card->registers = registers;
	card->buffer.bytes = malloc(PACKET_BUFFER_BYTES);
	card->tso.bytes = malloc(TSO_BYTES);
	dma_table_create(&card->dma);
	for (unsigned i = 0; i < CARD_VECTORS; i++)
		card->irq.fd[i] = -1;
	queues_create(card);
	if (!card->buffer.bytes || !card->tso.bytes || engine_add(engine, card)) {
		free_card(card);
		return NULL;
	}
	return card;
}

void card_destroy(struct card *card)
{
	if (!card)
		return;
	engine_remove(card->engine, card);
	free_card(card);
}

void card_plug(struct card *card, struct wire *wire)
{
	engine_enter(card->engine);
	if (card->armed)
		card->wire->ops->disarm(card->wire);
	card->armed = false;
	card->wire = wire;
	engine_leave(card->engine);
	engine_wake(card->engine);
}

void card_set_link(struct card *card, int up)
{
	engine_enter(card->engine);
	card->link = up != 0;
	engine_leave(card->engine);
	engine_wake(card->engine);
}

void card_reset(struct card *card)
{
	engine_enter(card->engine);
	for (unsigned i = 0; i < CARD_QUEUES; i++) {
		card->rx[i].ring.state = card->tx[i].ring.state = QUEUE_OFF;
		card->tx[i].context[0].valid = card->tx[i].context[1].valid = false;
	}
	memset(card->rx_running, 0, sizeof(card->rx_running));
	memset(card->tx_running, 0, sizeof(card->tx_running));
	memset(card->stats, 0, sizeof(card->stats));
	packet_buffer_clear(&card->buffer);
	card->tso.active = false;
	for (unsigned i = 0; i < CARD_VECTORS; i++)
		card->registers[CARD_UNMASK_WORDS / 4 + i] = 0;
	irq_reset(&card->irq);
	engine_leave(card->engine);
}

int card_dma_map(struct card *card, uint64_t iova, uint64_t length, uint8_t *address, int readable, int writable)
{
	uint32_t access = (readable ? DMA_READ : 0) | (writable ? DMA_WRITE : 0);
	int error;

	engine_enter(card->engine);
	error = dma_map(&card->dma, iova, length, address, access);
	engine_leave(card->engine);
	return error;
}

int card_dma_unmap(struct card *card, uint64_t iova, uint64_t length)
{
	int n;

	engine_enter(card->engine);
	n = dma_unmap(&card->dma, iova, length);
	engine_leave(card->engine);
	return n;
}

int card_set_vectors(struct card *card, unsigned first, unsigned n, const int *fds)
{
	if (first > CARD_VECTORS || n > CARD_VECTORS - first)
		return -EINVAL;
	engine_enter(card->engine);
	for (unsigned i = 0; i < n; i++)
		card->irq.fd[first + i] = fds[i];
	for (card->irq.wired = CARD_VECTORS; card->irq.wired && card->irq.fd[card->irq.wired - 1] < 0;)
		card->irq.wired--;
	engine_leave(card->engine);
	return 0;
}

void card_raise_vector(struct card *card, unsigned vector)
{
	if (vector >= CARD_VECTORS)
		return;
	engine_enter(card->engine);
	irq_raise(card, vector);
	engine_leave(card->engine);
}

int card_read(struct card *card, uint32_t offset, uint32_t *value)
{
	bool owned;

	engine_enter(card->engine);
	owned = irq_read(card, offset, value) || stats_read(card, offset, value);
	engine_leave(card->engine);
	return owned;
}

/* Statistics cannot be written; EITR timers that begin here are seen by an engine that sleeps. */
int card_write(struct card *card, uint32_t offset, uint32_t value)
{
	bool owned, held;

	engine_enter(card->engine);
	owned = irq_write(card, offset, value);
	held = owned && card->irq.held;
	engine_leave(card->engine);
	if (held)
		engine_wake(card->engine);
	return owned || stats_owns(offset);
}

void card_cause(struct card *card, uint32_t eicr_bits)
{
	bool held;

	engine_enter(card->engine);
	irq_other(card, eicr_bits);
	irq_update(card, engine_now_ns());
	held = card->irq.held;
	engine_leave(card->engine);
	if (held)
		engine_wake(card->engine);
}

void card_queue_changed(struct card *card, int is_tx, unsigned queue)
{
	if (queue >= CARD_QUEUES)
		return;
	engine_enter(card->engine);
	ring_look(card, is_tx, queue);
	engine_leave(card->engine);
	engine_wake(card->engine);
}

void card_filters_changed(struct card *card)
{
	engine_enter(card->engine);
	filter_rebuild(card);
	engine_leave(card->engine);
}

void card_kick(struct card *card)
{
	engine_wake(card->engine);
}

void card_counters_read(const struct card *card, struct card_counters *out)
{
	engine_enter(card->engine);
	*out = card->counters;
	engine_leave(card->engine);
}
