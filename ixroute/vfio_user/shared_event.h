/* Eventfds that another process holds too. Whether reading or writing one may wait is a flag of the file, not of the
 * descriptor: the other side can change it at any moment, fill the count or empty it. Nothing here waits for all that.
 */
#ifndef IXROUTE_VFIO_USER_SHARED_EVENT_H
#define IXROUTE_VFIO_USER_SHARED_EVENT_H

#include <stdint.h>

/* The count, which is 0 afterwards; 0 too when it is no eventfd. */
uint64_t shared_event_take(int fd);
/* Adds one: 0. -EAGAIN: it is full, so that it is readable as it is; -errno when it is no eventfd. */
int shared_event_give(int fd);

#endif
