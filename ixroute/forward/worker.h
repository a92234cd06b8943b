/* The dataplane that all workers share, and a worker. See worker.c for the packet's way: read that first. */
#ifndef IXROUTE_FORWARD_WORKER_H
#define IXROUTE_FORWARD_WORKER_H

#include <stdatomic.h>
#include <stdint.h>

#include "driver/queue.h"
#include "fib/adjacency.h"
#include "fib/fib.h"
#include "forward/counters.h"
#include "forward/multipath.h"
#include "forward/reasons.h"
#include "forward/view.h"
#include "tap/door.h"

#define MAX_PORTS DOOR_PORTS
#define MAX_WORKERS DOOR_LANES
#define MAX_INTERFACES (ADJ_INTERFACE_MAX + 1)
#define BURST 64u

/* What the kernel's interface (the TAP) says of a port; written by Python, one atomic word each. */
#define PORT_UP 1u		/* IFF_UP; else everything is dropped: port_down */
#define PORT_IP4_FORWARD 2u	/* net.ipv4.conf.IF.forwarding */
#define PORT_IP6_FORWARD 4u	/* net.ipv6.conf.IF.forwarding */
#define PORT_RPF_STRICT 8u	/* rp_filter 1 (of max(all, IF)) */
#define PORT_RPF_LOOSE 16u	/* rp_filter 2 */
#define PORT_SEND_REDIRECTS 32u /* net.ipv4.conf all|IF .send_redirects */
#define PORT_ACCEPT_LOCAL 64u	/* accept_local: own addresses as source go to the kernel instead of being dropped */
#define PORT_ROUTE_LOCALNET 128u /* 127/8 goes to the kernel instead of being dropped */
#define PORT_KERNEL_ALL 256u	/* everything to the kernel, any destination MAC: kernel_interface */
#define PORT_RULES4 512u	/* IPv4 to the kernel: policy_rule. Until its tables and rules have been read; then views say */
#define PORT_RULES6 1024u	/* the same for IPv6 */

#define INTERFACE_TAGS 2u
#define VLAN_IDS 4096u

/* A VLAN tag that an interface has: its TPID, 0x8100 (802.1Q) or 0x88a8 (802.1ad), and its id, 0..4094. */
struct vlan_tag {
	uint16_t type;
	uint16_t vid;
};

/* What is stacked on an interface by tags of one type: VLAN id -> interface number. 0: nothing (interface 0 is a port,
 * and those are on nothing). A table once made lives as long as the dataplane. */
struct vlan_table {
	_Atomic uint16_t number[VLAN_IDS];
};

/* An interface packets come in by and leave by. Numbers below MAX_PORTS are the ports, interface i being port i
 * without a tag; those above are VLAN sub-interfaces of ports. An adjacency names its egress by this number.
 * Port and tags of a number do not change while it is in use; it is published (in a vlan_table, in adjacencies) after
 * they are stored, and used anew only when no worker can remember what it was (dataplane_clear_interface). */
struct interface {
	_Alignas(64) _Atomic uint64_t mac; /* as in an adjacency word: first byte lowest */
	_Atomic uint64_t tags;		   /* as on the wire, the first byte of the outer tag lowest; 0: none */
	_Atomic uint32_t flags;		   /* PORT_* */
	_Atomic uint32_t mtu;		   /* largest IP packet that may leave here (also in each adjacency) */
	_Atomic uint32_t port;		   /* whose queues it uses; MAX_PORTS: no such interface */
	struct vlan_table *_Atomic above[2]; /* its sub-interfaces by type of tag (vlan_kind); NULL: none ever */
	struct view *_Atomic view[2];	     /* by VIEW_OF_IP4, VIEW_OF_IP6; never NULL */
};

/* Token buckets in front of the punt, per port and reason, shared evenly by the workers (at least 1 each). The clock
 * behind them ticks every 1 to 10 ms: a burst below a hundredth of the rate costs rate. */
struct policer {
	_Atomic uint32_t rate;	/* packets per second and port, at most 10^9; 0: nothing passes */
	_Atomic uint32_t burst; /* packets, 1 .. 10^9 */
};

/* Own IPv4 addresses, as a filter: a clear bit says "not ours" for sure, a set bit says "look it up". */
#define LOCAL_FILTER_BITS 4096u
static inline uint32_t local_filter_bit(uint32_t addr_be)
{
	return (addr_be * 2654435761u) >> 20;
}

struct dataplane {
	struct umem *umem;
	struct fib *fib;
	struct adjacency_table *adjacencies;
	uint32_t n_ports;
	uint32_t n_workers;
	struct interface interface[MAX_INTERFACES];
	uint64_t cleared[MAX_INTERFACES];	   /* the epoch in which a number was cleared; the writer's */
	_Atomic uint64_t vlan[MAX_INTERFACES][64]; /* bit per VLAN id with a sub-interface that only the kernel can serve */
	struct policer policer[64];
	_Atomic uint64_t local_filter[LOCAL_FILTER_BITS / 64];
	struct view *views; /* the writer's: all there are, retired ones too */
	struct multipath multipath;
};

/* NULL: no memory, or numbers out of range. The parts are Python's and outlive it. Policers let nothing pass until
 * they are set; the reserved adjacencies get their reasons as actions. */
struct dataplane *dataplane_create(struct umem *umem, struct fib *fib, struct adjacency_table *adjacencies,
				   uint32_t n_ports, uint32_t n_workers);
void dataplane_destroy(struct dataplane *dataplane);
/* 0 or -EINVAL for numbers out of range. */
int dataplane_set_port(struct dataplane *dataplane, uint32_t port, const uint8_t mac[6], uint32_t mtu, uint32_t flags);
/* The VLAN ids on an interface (port or sub-interface in use) that are the kernel's: their packets are punted. */
int dataplane_set_vlans(struct dataplane *dataplane, uint32_t interface, const uint16_t *vids, uint32_t n);
/* A VLAN sub-interface, number MAX_PORTS .. MAX_INTERFACES-1, with its tags (outer first). The writer of the FIB only.
 * Again with the same port and tags: the rest changes. -EINVAL: out of range; -ENOENT: two tags, and no interface with
 * the outer one; -EEXIST: another number has these tags; -EBUSY: the number has other tags, or had, and some worker may
 * remember it; -ENOMEM. */
int dataplane_set_interface(struct dataplane *dataplane, uint32_t number, uint32_t port, const struct vlan_tag *tags,
			    uint32_t n_tags, const uint8_t mac[6], uint32_t mtu, uint32_t flags);
/* No packet comes in or leaves by it from the next pass of each worker on. Harmless on a number not in use. -EINVAL: out
 * of range; -EBUSY: an interface is stacked on it. */
int dataplane_clear_interface(struct dataplane *dataplane, uint32_t number);
/* -EINVAL also for a reason that is not a punt. */
int dataplane_set_policer(struct dataplane *dataplane, uint32_t reason, uint32_t rate, uint32_t burst);
/* What packets of a family (4, 6) that come in by the interface look up; until then: fib. It stays when the
 * interface is cleared. An equal view that others have is shared. Only in the FIBs' writer's thread, whose epoch it
 * advances. 0; -EINVAL (view_create, or no such interface), -ENOMEM: nothing changed. */
int dataplane_set_view(struct dataplane *dataplane, uint32_t interface, uint32_t family, const struct view_step *steps,
		       uint32_t n, uint32_t flags);
/* The view that an interface below MAX_INTERFACES shows, to be compared only. */
const struct view *dataplane_view(const struct dataplane *dataplane, uint32_t interface, uint32_t family);
/* Frees replaced views that no worker can see any more; returns how many are kept yet. In the same thread. */
uint32_t dataplane_collect_views(struct dataplane *dataplane);
/* All own IPv4 addresses, wire order. An address that was and stays own is not missing for a moment. */
int dataplane_set_local4(struct dataplane *dataplane, const uint32_t *addr_be, uint32_t n);

/* What of a packet chooses among several legs: forward/multipath.h. family: 4 or 6; -EINVAL for a policy above 3, or
 * fields that are none or unknown (they count for policy 3 only). */
int dataplane_set_multipath(struct dataplane *dataplane, unsigned family, uint32_t policy, uint32_t fields);
/* Before workers run. */
void dataplane_set_seed(struct dataplane *dataplane, uint64_t seed);
uint32_t dataplane_hash(const struct dataplane *dataplane, const uint8_t *ip, uint32_t length, unsigned family);

struct worker;

/* number: 0 .. n_workers-1, also its reader number in the FIB's epoch. lane: its rings to the kernel's door.
 * The worker takes its free frames from pool. NULL: no memory. */
struct worker *worker_create(struct dataplane *dataplane, uint32_t number, struct frame_pool *pool, struct tap_lane *lane);
/* Takes back the frames in its lane first: the door that serves the lane must have stopped. */
void worker_destroy(struct worker *worker);
/* Before running: the queues it owns; the first queue added of each port is also the one it sends by. -EINVAL: of a
 * port that the dataplane does not have, or more than it can hold (256). */
int worker_add_queue(struct worker *worker, struct queue *queue);
/* One pass over all queues and the door; returns how many packets it moved. What worker_run repeats. */
unsigned worker_poll_once(struct worker *worker);
/* Runs until worker_stop. idle_ns: how long to poll without a packet before sleeping (0: sleep at once;
 * UINT64_MAX: never sleep). On return everything it received has its verdict and rings are kicked. */
int worker_run(struct worker *worker, uint64_t idle_ns);
/* From any thread; wakes the worker. */
void worker_stop(struct worker *worker);
const struct worker_counters *worker_counters(const struct worker *worker);
const struct port_counters *worker_port_counters(const struct worker *worker, uint32_t port);
/* number: of a sub-interface. */
const struct sub_counters *worker_sub_counters(const struct worker *worker, uint32_t number);
/* Adjacencies that forwarded a packet since the last call: sets bits in `used` (capacity bits) and clears the
 * marks. For the mirror: which stale neighbours are in use. */
void worker_take_used(struct worker *worker, uint8_t *used, uint32_t capacity);
/* The counter that busy_cycles is counted by, now: against a clock, its rate. */
uint64_t worker_cycles_now(void);

#endif
