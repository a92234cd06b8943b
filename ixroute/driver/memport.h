/* A queue made of memory: tests and benchmarks put packets in at one end and look at what comes out at the other.
 * It obeys the queue contract like a card does (finite rings, frames owned by the ring until reclaimed). */
#ifndef IXROUTE_DRIVER_MEMPORT_H
#define IXROUTE_DRIVER_MEMPORT_H

#include "driver/queue.h"

struct memport;

/* Rings of ring_slots packets (a power of two) each way, so it holds up to twice as many frames. NULL: no memory,
 * or no power of two. */
struct memport *memport_create(const struct umem *umem, uint16_t port, uint16_t number, uint32_t ring_slots);
void memport_destroy(struct memport *memport);
struct queue *memport_queue(struct memport *memport);
/* An eventfd of the caller's to wait on: becomes the queue's wait_fd. */
void memport_set_event(struct memport *memport, int event);
/* The wire's side, which may be another thread than the queue's worker. deliver copies a packet into a frame of the receive ring: 0, -ENOBUFS when the ring holds no
 * frame (the packet is lost, as on a wire), -EMSGSIZE. collect copies out the oldest packet sent: its length, 0
 * when there is none. */
int memport_deliver(struct memport *memport, const uint8_t *packet, uint32_t len);
uint32_t memport_collect(struct memport *memport, uint8_t *packet, uint32_t room);

#endif
