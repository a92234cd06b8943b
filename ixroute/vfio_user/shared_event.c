/* Eventfds that another process holds too (shared_event.h): called by the driver's doorbells and queues, by the emulator's
 * engine, and by Python.
 */
#define _GNU_SOURCE /* preadv2 */
#include "vfio_user/shared_event.h"

#include <errno.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

/* What of events, or of POLLERR and POLLNVAL, is so now. */
static int state_of(int fd, short events)
{
	struct pollfd now = {.fd = fd, .events = events};

	return poll(&now, 1, 0) == 1 ? now.revents : 0;
}

uint64_t shared_event_take(int fd)
{
	uint64_t count = 0;
	struct iovec room = {&count, sizeof(count)};
	ssize_t n = preadv2(fd, &room, 1, -1, RWF_NOWAIT);

	if (n < 0 && errno == EOPNOTSUPP && state_of(fd, POLLIN) & POLLIN) /* Linux before 5.8 */
		n = read(fd, &count, sizeof(count));
	return n == sizeof(count) ? count : 0;
}

/* The kernel has no write that never waits (6.18). Between the look and the write only somebody who fills the count over
 * and over, with the flag cleared, could still get in. */
int shared_event_give(int fd)
{
	static const uint64_t one = 1;

	int state = state_of(fd, POLLOUT);

	if (!(state & POLLOUT))
		return state ? -EBADF : -EAGAIN;
	return write(fd, &one, sizeof(one)) == sizeof(one) ? 0 : -errno;
}
