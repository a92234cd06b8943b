/* Doorbells that are more than a store (doorbell.h): rung by the worker that owns the queue, made by Python.
 *
 * A trapped register's message is shorter than half of any socket's send buffer, so the kernel takes it whole or not
 * at all (net/unix/af_unix.c): it never lands inside another thread's message, and nothing is ever left half sent.
 * Nothing here waits: a full socket is an answer (-EAGAIN), a dead one too.
 */
#include "driver/doorbell.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "vfio_user/shared_event.h"

static int refused(struct doorbell *bell)
{
	bell->failed++;
	return -EAGAIN;
}

static int ring_socket(struct doorbell *bell, uint32_t value)
{
	memcpy(bell->message + bell->value_at, &value, sizeof(value));
	bell->kicks++;
	ssize_t n = send(bell->socket, bell->message, bell->message_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n == (ssize_t)bell->message_bytes ? 0 : refused(bell);
}

static int ring_event(struct doorbell *bell)
{
	int error;

	bell->kicks++;
	error = shared_event_give(bell->event);
	/* EAGAIN: the eventfd's count is at its end, so it is readable as it is and whoever sleeps on it wakes. */
	return !error || error == -EAGAIN ? 0 : refused(bell);
}

int doorbell_ring_slow(struct doorbell *bell, uint32_t value)
{
	if (!bell->reg)
		return ring_socket(bell, value);
	atomic_thread_fence(memory_order_release);
	*bell->reg = value;
	if (bell->event < 0)
		return 0;
	if (bell->asleep) {
		/* The store above and the load below must not change places, which release and acquire would allow: the
		 * other side does the reverse (sets asleep, looks at the register), and one of us must see the other. */
		atomic_thread_fence(memory_order_seq_cst);
		if (!atomic_load_explicit(bell->asleep, memory_order_relaxed))
			return 0;
	}
	return ring_event(bell);
}

static void clear(struct doorbell *bell)
{
	memset(bell, 0, sizeof(*bell));
	bell->event = -1;
	bell->socket = -1;
}

void doorbell_to_register(struct doorbell *bell, volatile void *reg, int event, const volatile void *asleep)
{
	clear(bell);
	bell->asleep = asleep;
	bell->event = event;
	bell->reg = reg;
}

int doorbell_to_socket(struct doorbell *bell, int socket, const void *message, uint32_t bytes, uint32_t value_at)
{
	if (bytes > sizeof(bell->message) || bytes < sizeof(uint32_t) || value_at > bytes - sizeof(uint32_t))
		return -EINVAL;
	clear(bell);
	memcpy(bell->message, message, bytes);
	bell->message_bytes = bytes;
	bell->value_at = value_at;
	bell->socket = socket;
	return 0;
}

void doorbell_silence(struct doorbell *bell)
{
	bell->reg = NULL;
	bell->event = -1;
	bell->socket = -1;
}
