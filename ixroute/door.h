/* What Python may call: the only declarations that cross the language border (read by cffi, API mode).
 * Each room declares its part here; the meaning is in the room's header. */

/* ---- fib/adjacency.h ---- */

/* ---- fib/fib.h ---- */

/* ---- fib/rib.h ---- */

/* ---- netlink/route_stream.h ---- */

/* ---- driver/frame.h, queue.h, memport.h, xsk.h ---- */
struct umem {
	uint8_t *base;
	uint64_t bytes;
	uint32_t frame_bytes;
	uint32_t n_frames;
	...;
};
struct frame {
	uint64_t addr;
	uint32_t len;
	uint16_t port;
	uint16_t flags;
};
struct frame_pool {
	uint32_t n;
	uint32_t capacity;
	...;
};
struct queue {
	int wait_fd;
	uint16_t port;
	uint16_t number;
	uint64_t rx_no_frame;
	uint64_t rx_kicks;
	uint64_t rx_bad;
	uint64_t tx_kicks;
	uint64_t tx_refused;
	uint64_t tx_bad;
	...;
};
struct frame_pool *frame_pool_create(uint32_t capacity);
void frame_pool_destroy(struct frame_pool *pool);
unsigned frame_pool_get(struct frame_pool *pool, uint64_t *out, unsigned want);
void frame_pool_put(struct frame_pool *pool, const struct umem *umem, uint64_t addr);
unsigned queue_rx_burst(struct queue *queue, struct frame *frames, unsigned n);
unsigned queue_tx_burst(struct queue *queue, const struct frame *frames, unsigned n);
void queue_tx_doorbell(struct queue *queue);
unsigned queue_reclaim(struct queue *queue, struct frame_pool *pool);
unsigned queue_refill(struct queue *queue, struct frame_pool *pool);
unsigned queue_arm(struct queue *queue);
void queue_disarm(struct queue *queue);
struct memport;
struct memport *memport_create(const struct umem *umem, uint16_t port, uint16_t number, uint32_t ring_slots);
void memport_destroy(struct memport *memport);
struct queue *memport_queue(struct memport *memport);
void memport_set_event(struct memport *memport, int event);
int memport_deliver(struct memport *memport, const uint8_t *packet, uint32_t len);
uint32_t memport_collect(struct memport *memport, uint8_t *packet, uint32_t room);
#define XSK_RX ...
#define XSK_TX ...
#define XSK_FILL ...
#define XSK_COMPLETION ...
struct queue *xsk_queue_create(const struct umem *umem, int fd, uint16_t port, uint16_t number);
int xsk_queue_set_ring(struct queue *queue, unsigned which, void *map, const uint64_t offsets[4], uint32_t slots);
void xsk_queue_set_budget(struct queue *queue, uint32_t packets);
uint32_t xsk_queue_frames(const struct queue *queue);
uint32_t xsk_queue_recover(struct queue *queue, struct frame_pool *pool);
void xsk_queue_destroy(struct queue *queue);

/* ---- tap/door.h ---- */

/* ---- forward/reasons.h, counters.h, worker.h ---- */
unsigned reason_count(void);
const char *reason_name(unsigned reason);
const char *reason_text(unsigned reason);
unsigned reason_kind(unsigned reason);
