/* A register that C writes: a queue's tail, an interrupt mask. Made by a transport (transport.py, Region.bell), rung
 * by the worker that owns the queue. One of three, by what the transport has:
 *
 *   a mapped register:  reg. A store; the device sees it by itself (VFIO).
 *   the same, shared with an emulator that may sleep: reg, asleep, event. After the store, if *asleep is not 0 the
 *     event is written. The emulator sets *asleep, fences, and looks at the registers once more before it sleeps:
 *     either it sees the store or the writer sees it asleep. asleep NULL with an event: it is always written.
 *   a trapped register: socket. `message` is sent with the value put in at value_at; no reply is asked for.
 */
#ifndef IXROUTE_DRIVER_DOORBELL_H
#define IXROUTE_DRIVER_DOORBELL_H

#include <stdatomic.h>
#include <stdint.h>

struct doorbell {
	volatile uint32_t *reg;			/* NULL: trapped */
	const volatile _Atomic uint32_t *asleep; /* NULL: nobody sleeps, or the event is for every write */
	int event;				/* -1: none */
	int socket;				/* -1: none */
	uint32_t value_at;
	uint32_t message_bytes;
	uint8_t message[64];
	uint64_t kicks;	 /* system calls made. One writer */
	uint64_t failed; /* of these, how many were refused; the value is written again with the next ring */
};

/* Everything stored to memory before is visible to the device when it sees the value. Returns 0, or -EAGAIN when a
 * trapped write was refused (the socket is full or gone). */
int doorbell_ring_slow(struct doorbell *bell, uint32_t value);

/* How a transport makes one. event -1: the device looks by itself; asleep NULL: the event is for every write. */
void doorbell_to_register(struct doorbell *bell, volatile void *reg, int event, const volatile void *asleep);
/* The value (host byte order) goes in at value_at of message. -EINVAL when that does not fit. */
int doorbell_to_socket(struct doorbell *bell, int socket, const void *message, uint32_t bytes, uint32_t value_at);
/* The device is gone: ringing does nothing but count `failed`. No worker may be ringing. */
void doorbell_silence(struct doorbell *bell);

static inline int doorbell_ring(struct doorbell *bell, uint32_t value)
{
	if (__builtin_expect(!bell->reg || bell->event >= 0, 0))
		return doorbell_ring_slow(bell, value);
	atomic_thread_fence(memory_order_release); /* x86: stores stay in order; elsewhere the memory must come first */
	*bell->reg = value;
	return 0;
}

#endif
