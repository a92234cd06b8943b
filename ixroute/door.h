/* What Python may call: the only declarations that cross the language border (read by cffi, API mode).
 * Each room declares its part here; the meaning is in the room's header. */

/* ---- fib/adjacency.h ---- */

/* ---- fib/fib.h ---- */

/* ---- fib/rib.h ---- */

/* ---- netlink/route_stream.h ---- */

/* ---- driver/frame.h, queue.h, memport.h, xsk.h ---- */

/* ---- tap/door.h ---- */

/* ---- forward/reasons.h, counters.h, worker.h ---- */
unsigned reason_count(void);
const char *reason_name(unsigned reason);
const char *reason_text(unsigned reason);
unsigned reason_kind(unsigned reason);
