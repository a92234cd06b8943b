/* Memory of another process's file, mapped here: what a vfio-user client lends its device, what a server shows of its
 * registers. Whoever owns the file can make it shorter at any moment (seals are for memfds, and not for all), and the next
 * access here would be SIGBUS: the end of a process that serves others too. Memory that is listed here becomes anonymous
 * zeros instead, the access goes on, and the list remembers.
 *
 * Every thread that touches such memory must leave SIGBUS unblocked. Any thread may call; C or Python may do the access.
 */
#ifndef IXROUTE_VFIO_USER_LENT_H
#define IXROUTE_VFIO_USER_LENT_H

#include <stdint.h>

#define LENT_PIECES 16384u

/* A whole mapping (address: of a page), before anything touches it: its place in the list, or -ENOSPC; -errno when the
 * signal cannot be caught. */
int lent_add(void *address, uint64_t bytes);
/* 1 when what was behind it has gone. */
int lent_lost(int place);
/* Before it is unmapped, and when nothing touches it any more. */
void lent_remove(int place);

#endif
