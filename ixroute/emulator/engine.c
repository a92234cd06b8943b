/* The engine: one thread, passes over all cards, a sleep that misses nothing. engine_run is called by a Python thread of its
 * own; everything else by any thread.
 *
 * The lock is held for a pass. Between passes the engine lets everybody in who asked before (entered, served): a mutex alone
 * would let a busy engine have it again at once, for ever.
 *
 * Sleep: sleep_word is set, then every tail and every wire is looked at once more, then poll waits for the wires'
 * descriptors and the event. Whoever gives work stores it first and looks at sleep_word then, both with a fence between: one
 * side sees the other. The lock is not held while it sleeps.
 */
#define _GNU_SOURCE /* ppoll */
#include "emulator/engine.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "emulator/card_state.h"
#include "vfio_user/shared_event.h"

#define SCAN_NS 1000000ull	/* how often registers are looked at that nobody tells of */
#define FULL_WIRE_NS 100000ull	/* a wire has no way to say that it takes packets again */
#define LONGEST_SLEEP_NS 10000000000ull
#define WAIT_FDS 64u

uint64_t engine_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct engine *engine_create(volatile uint32_t *sleep_word, int event, int clients_event, uint64_t poll_ns, int scan)
{
	struct engine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return NULL;
	engine->arena = malloc(TX_ARENA_BYTES);
	if (!engine->arena || pthread_mutex_init(&engine->lock, NULL)) {
			free(engine->arena);
		free(engine);
		return NULL;
	}
	engine->sleep_word = sleep_word;
	engine->event = event;
	engine->clients_event = clients_event;
	engine->poll_ns = poll_ns;
	engine->scan = scan != 0;
	return engine;
}

/* No thread runs it and no card is left in it. */
void engine_destroy(struct engine *engine)
{
	if (!engine)
		return;
	pthread_mutex_destroy(&engine->lock);
	free(engine->cards);
	free(engine->arena);
	free(engine);
}

void engine_enter(struct engine *engine)
{
	atomic_fetch_add(&engine->entered, 1);
	pthread_mutex_lock(&engine->lock);
	atomic_fetch_add(&engine->served, 1);
}

void engine_leave(struct engine *engine)
{
	pthread_mutex_unlock(&engine->lock);
}

void engine_wake(struct engine *engine)
{
	uint64_t one = 1;

	atomic_thread_fence(memory_order_seq_cst);
	if (*engine->sleep_word && write(engine->event, &one, sizeof(one)) < 0) {
		/* The counter is full: the event is readable, which is all it has to say. */
	}
}

int engine_add(struct engine *engine, struct card *card)
{
	int error = 0;

	engine_enter(engine);
	if (engine->n_cards == engine->room) {
		unsigned room = engine->room + 8;
		struct card **cards = realloc(engine->cards, room * sizeof(struct card *));

		if (cards) {
			engine->cards = cards;
			engine->room = room;
		} else {
			error = -ENOMEM;
		}
	}
	if (!error)
		engine->cards[engine->n_cards++] = card;
	engine_leave(engine);
	return error;
}

void engine_remove(struct engine *engine, struct card *card)
{
	engine_enter(engine);
	if (card->armed)
		card->wire->ops->disarm(card->wire);
	card->armed = false;
	for (unsigned i = 0; i < engine->n_cards; i++) {
		if (engine->cards[i] != card)
			continue;
		engine->cards[i] = engine->cards[--engine->n_cards];
		break;
	}
	engine_leave(engine);
}

/* Registers that the client writes without telling: which queues are enabled. */
static void scan(struct engine *engine, uint64_t now_ns)
{
	if (!engine->scan || now_ns - engine->scanned_ns < SCAN_NS)
		return;
	engine->scanned_ns = now_ns;
	for (unsigned i = 0; i < engine->n_cards; i++) {
		struct card *card = engine->cards[i];

		for (unsigned queue = 0; queue < CARD_QUEUES; queue++) {
			if (ring_wants_look(&card->rx[queue].ring))
				ring_look(card, false, queue);
			if (ring_wants_look(&card->tx[queue].ring))
				ring_look(card, true, queue);
		}
	}
}

/* One pass, under the lock. */
static unsigned pass(struct engine *engine, uint64_t now_ns)
{
	unsigned moved = 0;

	scan(engine, now_ns);
	for (unsigned i = 0; i < engine->n_cards; i++) {
		struct card *card = engine->cards[i];

		if (unlikely(card->irq.held || irq_asked(card))) {
			irq_take_asked(card);
			irq_update(card, now_ns);
		}
		moved += card_rx_pass(card, now_ns);
		moved += card_tx_pass(card, now_ns);
	}
	engine->counters.passes++;
	engine->counters.busy_passes += moved != 0;
	return moved;
}

unsigned engine_step(struct engine *engine)
{
	unsigned moved;

	engine_enter(engine);
	if (engine->scan)
		engine->scanned_ns = 0;
	moved = pass(engine, engine_now_ns());
	engine_leave(engine);
	return moved;
}

/* Lets those in who asked before now. */
static void let_in(struct engine *engine)
{
	uint32_t asked = atomic_load(&engine->entered);

	while ((int32_t)(atomic_load(&engine->served) - asked) < 0 && !atomic_load(&engine->stop))
		sched_yield();
}

/* Whether there is anything to do at once; arms the wires on the way. */
static bool work_left(struct engine *engine)
{
	bool found = atomic_load(&engine->stop);

	for (unsigned i = 0; i < engine->n_cards; i++) {
		struct card *card = engine->cards[i];

		if (card->wire) {
			card->armed = true;
			found |= (card->wire->ops->arm(card->wire) != 0) & card_hears(card);
		}
		found |= !card->tx_blocked && card_tx_has_work(card);
		found |= card_rx_has_work(card) || irq_asked(card);
	}
	return found;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How long nothing has to be done by the clock. */
static uint64_t sleep_ns(const struct engine *engine, uint64_t now_ns)
{
	uint64_t until = now_ns + LONGEST_SLEEP_NS;

	if (engine->scan)
		until = earlier(until, engine->scanned_ns + SCAN_NS);
	for (unsigned i = 0; i < engine->n_cards; i++) {
		const struct card *card = engine->cards[i];

		until = earlier(until, irq_due_ns(card));
		if (card->tx_blocked)
			until = earlier(until, now_ns + FULL_WIRE_NS);
		if (card->wire && card->wire->ops->due_ns && card_hears(card))
			until = earlier(until, card->wire->ops->due_ns(card->wire));
	}
	return until > now_ns ? until - now_ns : 0;
}

/* Both events and every wire that can be waited for; *all: 0 when there was no room for all of them. */
static nfds_t wait_list(const struct engine *engine, struct pollfd fds[WAIT_FDS], bool *all)
{
	nfds_t n = 2;

	*all = true;
	fds[0] = (struct pollfd){.fd = engine->event, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = engine->clients_event, .events = POLLIN};
	for (unsigned i = 0; i < engine->n_cards; i++) {
		const struct wire *wire = engine->cards[i]->wire;

		if (!wire || wire->wait_fd < 0)
			continue;
		if (n < WAIT_FDS)
			fds[n++] = (struct pollfd){.fd = wire->wait_fd, .events = POLLIN};
		else
			*all = false;
	}
	return n;
}

static void disarm(struct engine *engine)
{
	for (unsigned i = 0; i < engine->n_cards; i++) {
		struct card *card = engine->cards[i];

		if (card->armed)
			card->wire->ops->disarm(card->wire);
		card->armed = false;
	}
}

/* Under the lock when it is called and when it returns; without it while it waits. */
static void sleep_until_work(struct engine *engine)
{
	struct pollfd fds[WAIT_FDS];
	uint64_t ns;

	__atomic_store_n(engine->sleep_word, 1, __ATOMIC_SEQ_CST);
	atomic_thread_fence(memory_order_seq_cst);
	ns = work_left(engine) ? 0 : sleep_ns(engine, engine_now_ns());
	if (ns) {
		bool all;
		nfds_t n = wait_list(engine, fds, &all);
		struct timespec limit;

		if (!all)
			ns = earlier(ns, SCAN_NS);
		limit = (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
		engine->counters.sleeps++;
		pthread_mutex_unlock(&engine->lock);
		ppoll(fds, n, &limit, NULL);
		pthread_mutex_lock(&engine->lock);
		engine->counters.wakes_by_event += fds[0].revents || fds[1].revents;
	}
	__atomic_store_n(engine->sleep_word, 0, __ATOMIC_SEQ_CST);
	shared_event_take(engine->event);
	shared_event_take(engine->clients_event);
	disarm(engine);
}

int engine_run(struct engine *engine)
{
	uint64_t now = engine_now_ns(), worked = now;

	while (!atomic_load(&engine->stop)) {
		pthread_mutex_lock(&engine->lock);
		if (pass(engine, now))
			worked = now;
		else if (now - worked >= engine->poll_ns)
			sleep_until_work(engine);
		pthread_mutex_unlock(&engine->lock);
		let_in(engine);
		now = engine_now_ns();
	}
	atomic_store(&engine->stop, 0);
	return 0;
}

void engine_stop(struct engine *engine)
{
	uint64_t one = 1;

	atomic_store(&engine->stop, 1);
	if (write(engine->event, &one, sizeof(one)) < 0) {
		/* Readable already: it wakes. */
	}
}

void engine_counters_read(const struct engine *engine, struct engine_counters *out)
{
	struct engine *e = (struct engine *)(uintptr_t)engine;

	engine_enter(e);
	*out = engine->counters;
	engine_leave(e);
}
