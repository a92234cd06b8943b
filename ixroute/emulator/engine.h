/* What cards ask of their engine: its lock, its wake-up, its list. Private to card.c and engine.c. */
#ifndef IXROUTE_EMULATOR_ENGINE_H
#define IXROUTE_EMULATOR_ENGINE_H

struct engine;
struct card;

void engine_enter(struct engine *engine);
void engine_leave(struct engine *engine);
/* Makes an engine that sleeps look at everything once more. Costs a load when it is awake. */
void engine_wake(struct engine *engine);
/* 0 or -ENOMEM. */
int engine_add(struct engine *engine, struct card *card);
void engine_remove(struct engine *engine, struct card *card);

#endif
