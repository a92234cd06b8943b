/* A queue over an AF_XDP socket (linux/if_xdp.h): the four rings of one queue of one network interface.
 * Python (af_xdp.py) opens, maps, binds and owns; this moves descriptors. */
#ifndef IXROUTE_DRIVER_XSK_H
#define IXROUTE_DRIVER_XSK_H

#include "driver/queue.h"

struct xsk_queue;

#endif
