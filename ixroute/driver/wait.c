/* Sleeping on queues, for programs that own some: the tools, and whoever uses driver/ as a library.
 *
 * No wake-up is lost: each queue is armed before the sleep, and arm looks at the ring after it has asked for the
 * event. A signal ends the wait, so that Python runs its handlers.
 */
#include "driver/wait.h"

#include <poll.h>
#include <stddef.h>

static int sleep_on(struct queue *const *queues, unsigned n, int limit_ms)
{
	struct pollfd wait[WAIT_QUEUES];
	int blind = 0, ready, broken = 0;

	for (unsigned i = 0; i < n; i++) {
		wait[i] = (struct pollfd){ .fd = queues[i]->wait_fd, .events = POLLIN };
		blind |= queues[i]->wait_fd < 0;
	}
	if (blind && (limit_ms < 0 || limit_ms > 1))
		limit_ms = 1;
	ready = poll(wait, n, limit_ms);
	for (unsigned i = 0; ready > 0 && i < n; i++)
		broken |= wait[i].revents && !(wait[i].revents & POLLIN);
	if (broken) /* an interface that is gone says so for ever: do not spin on it */
		poll(NULL, 0, 1);
	return ready > 0 || blind;
}

int queues_wait(struct queue *const *queues, unsigned n, int limit_ms)
{
	unsigned there = 0;
	int ready = 1;

	if (n > WAIT_QUEUES)
		n = WAIT_QUEUES;
	for (unsigned i = 0; i < n; i++)
		there += queue_arm(queues[i]);
	if (there == 0)
		ready = sleep_on(queues, n, limit_ms);
	for (unsigned i = 0; i < n; i++)
		queue_disarm(queues[i]);
	return ready;
}
