/* What Python may call: the only declarations that cross the language border (read by cffi, API mode).
 * Each room declares its part here; the meaning is in the room's header. */

/* ---- fib/adjacency.h ---- */
#define ADJ_NO_ROUTE ...
#define ADJ_LOCAL ...
#define ADJ_BROADCAST ...
#define ADJ_MULTICAST ...
#define ADJ_BLACKHOLE ...
#define ADJ_REJECT ...
#define ADJ_KERNEL ...
#define ADJ_POLICY ...
#define ADJ_RESERVED ...
#define ADJ_ACTION_FORWARD ...
#define ADJ_ACTION_GROUP ...
#define ADJ_ACTION_MAX ...
#define ADJ_INTERFACE_MAX ...
#define ADJ_LEGS_MAX ...
#define ADJ_WEIGHT_MAX ...
#define ADJ_BUCKETS_MAX ...
struct adjacency_table;
struct epoch;
struct group_leg {
	uint8_t mac[6];
	uint16_t interface;
	uint8_t action;
	uint32_t mtu;
	uint32_t weight;
};
struct adjacency_table *adjacency_table_create(uint32_t capacity, uint8_t action, struct epoch *epoch);
void adjacency_table_destroy(struct adjacency_table *table);
int adjacency_set(struct adjacency_table *table, uint32_t index, const uint8_t *mac, uint16_t interface, uint8_t action,
		  uint32_t mtu);
int adjacency_get(const struct adjacency_table *table, uint32_t index, uint64_t *word, uint32_t *mtu);
int adjacency_set_group(struct adjacency_table *table, uint32_t index, const struct group_leg *legs, uint32_t n_legs,
			const uint16_t *buckets, uint32_t n_buckets);
uint32_t adjacency_group_size(const struct adjacency_table *table, uint32_t index, uint32_t *n_buckets);
void adjacency_get_group(const struct adjacency_table *table, uint32_t index, struct group_leg *legs, uint16_t *buckets);
void adjacency_take_legs_used(struct adjacency_table *table, uint32_t index, uint8_t *used);
void adjacency_take_buckets_used(struct adjacency_table *table, uint32_t index, uint8_t *used);
void adjacency_collect(struct adjacency_table *table);
uint32_t adjacency_retired(const struct adjacency_table *table);

/* ---- fib/fib.h, epoch.h, prefix.h ---- */
#define EPOCH_READERS ...
#define EPOCH_WORKERS ...
struct prefix {
	uint8_t family;
	uint8_t len;
	uint8_t addr[16];
};
struct fib;
struct epoch;
struct fib_stats {
	uint64_t prefixes4, prefixes6;
	uint64_t lookup_bytes4, lookup_bytes6;
	uint64_t update_bytes;
	uint64_t retired_bytes;
	uint64_t updates;
};
struct fib_update {
	struct prefix prefix;
	uint8_t remove;
	uint8_t unused;
	uint32_t index;
};
struct fib *fib_create(struct epoch *epoch);
void fib_destroy(struct fib *fib);
struct epoch *fib_epoch(struct fib *fib);
void epoch_quiesce(struct epoch *epoch, unsigned reader);
void epoch_idle(struct epoch *epoch, unsigned reader);
uint32_t fib_max_index(void);
int fib_insert(struct fib *fib, const struct prefix *prefix, uint32_t index);
int fib_remove(struct fib *fib, const struct prefix *prefix);
uint64_t fib_apply(struct fib *fib, const struct fib_update *updates, size_t n, uint64_t *worst_ns);
void fib_collect(struct fib *fib);
void fib_stats_read(const struct fib *fib, struct fib_stats *out);
int fib_match(const struct fib *fib, uint8_t family, const uint8_t *addr, struct prefix *prefix, uint32_t *index);
int fib_match_at_most(const struct fib *fib, uint8_t family, const uint8_t *addr, unsigned at_most,
		      struct prefix *prefix, uint32_t *index);
int fib_get(const struct fib *fib, const struct prefix *prefix, uint32_t *index);
int fib_check(const struct fib *fib, char *why, size_t why_bytes);
void fib_fail_allocation(struct fib *fib, uint64_t nth);
uint32_t fib4_lookup(const struct fib *fib, uint32_t addr_be);
uint32_t fib6_lookup(const struct fib *fib, const uint8_t *addr);
void fib4_read(struct fib *fib, unsigned reader, const uint32_t *addr_be, uint32_t *index, size_t n);
void fib6_read(struct fib *fib, unsigned reader, const uint8_t *addr, uint32_t *index, size_t n);
uint64_t fib4_time(struct fib *fib, unsigned reader, const uint32_t *addr_be, size_t n, unsigned burst, uint64_t *sum);
uint64_t fib6_time(struct fib *fib, unsigned reader, const uint8_t *addr, size_t n, unsigned burst, uint64_t *sum);
const char *fib_variant_name(unsigned variant);
int fib_variant_use(unsigned variant);
unsigned fib_variant_used(void);

/* ---- fib/rib.h ---- */
struct next_hop {
	uint32_t ifindex;
	uint8_t gateway_family;
	uint8_t flags;
	uint16_t weight;
	uint8_t gateway[16];
};
struct path {
	uint8_t family;
	uint8_t type;
	uint8_t flags;
	uint8_t n_legs;
	uint32_t nhid;
	uint32_t mtu;
	struct next_hop leg[64];
};
struct route {
	struct prefix prefix;
	uint8_t tos;
	uint8_t protocol;
	uint8_t scope;
	uint8_t source_len;
	uint32_t table;
	uint32_t metric;
	uint32_t other;
};
enum rib_how {
	RIB_ADD,
	RIB_APPEND,
	RIB_REPLACE,
};
struct rib;
struct rib_stats {
	uint64_t routes4, routes6;
	uint64_t paths;
	uint64_t neighbours;
	uint64_t best_changes;
	uint64_t failed;
	uint64_t paths_exhausted;
	uint64_t bytes;
	uint64_t fibs;
};
#define RIB_FIBS_MAX ...
int rib_show_table(struct rib *rib, uint32_t table, unsigned shortest, struct fib *fib);
struct rib *rib_create(struct fib *fib, struct adjacency_table *adjacencies, uint8_t new_path_action);
void rib_destroy(struct rib *rib);
int rib_add(struct rib *rib, const struct route *route, const struct path *path, enum rib_how how);
int rib_remove(struct rib *rib, const struct route *route, const struct path *path);
void rib_dump_begin(struct rib *rib, uint8_t family);
int rib_dumped(struct rib *rib, const struct route *route, const struct path *path);
uint64_t rib_dump_end(struct rib *rib, uint8_t family);
void rib_dump_abort(struct rib *rib, uint8_t family);
int rib_neighbour_add(struct rib *rib, uint8_t family, const uint8_t *addr, uint32_t ifindex);
int rib_neighbour_remove(struct rib *rib, uint8_t family, const uint8_t *addr, uint32_t ifindex);
void rib_settle(struct rib *rib);
unsigned rib_take_new_paths(struct rib *rib, uint32_t *ids, unsigned n);
const struct path *rib_path(const struct rib *rib, uint32_t id);
uint32_t rib_path_routes(const struct rib *rib, uint32_t id);
uint32_t rib_path_limit(const struct rib *rib);
struct rib_answer {
	uint32_t index;
	uint8_t found;
	uint8_t neighbour;
	uint8_t type;
	struct prefix prefix;
	struct route route;
};
void rib_lookup(const struct rib *rib, uint8_t family, const uint8_t *addr, struct rib_answer *out);
int rib_lookup_table(const struct rib *rib, uint32_t table, unsigned shortest, uint8_t family, const uint8_t *addr,
		     struct rib_answer *out);
struct rib_entry {
	struct route route;
	uint32_t path_id;
	uint8_t best;
	uint8_t type;
};
unsigned rib_walk(const struct rib *rib, uint64_t *cursor, struct rib_entry *out, unsigned n);
void rib_stats_read(const struct rib *rib, struct rib_stats *out);
int rib_check(const struct rib *rib, char *why, size_t why_bytes);

/* ---- netlink/route_stream.h ---- */
struct route_stream;
struct route_stream_stats {
	uint64_t datagrams;
	uint64_t messages;
	uint64_t ignored;
	uint64_t malformed;
	uint64_t overruns;
	uint64_t refused;
};
struct route_stream *route_stream_create(struct rib *rib);
void route_stream_destroy(struct route_stream *stream);
void route_stream_dump_begin(struct route_stream *stream);
int route_stream_feed(struct route_stream *stream, const uint8_t *bytes, size_t len, int dump);
int route_stream_receive(struct route_stream *stream, int fd, unsigned max);
void route_stream_stats_read(const struct route_stream *stream, struct route_stream_stats *out);

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
#define FRAME_IP_BAD ...
#define FRAME_IP_GOOD ...
#define FRAME_L4_BAD ...
#define FRAME_L4_GOOD ...
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
struct frame_pool *frame_pool_resize(struct frame_pool *pool, uint32_t capacity);
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

/* ---- driver/wait.h, tools/ ---- */
#define WAIT_QUEUES ...
#define LANE_QUEUES ...
#define LANE_BURST ...
#define PKTGEN_SIZES ...
#define PKTGEN_MARK ...
#define PKTGEN_TAIL ...
#define PCAP_RECORD_BYTES ...
int queues_wait(struct queue *const *queues, unsigned n, int limit_ms);
struct side {
	struct queue *queue[...];
	uint32_t n;
};
struct lane {
	struct side side[2];
	struct frame_pool *pool;
	uint32_t burst;
	uint64_t idle_ns;
	...;
};
void lane_tidy(struct lane *lane);
void lane_stop(struct lane *lane);
void lane_free(struct lane *lane, const struct umem *umem, const struct frame *frames, unsigned n);
struct fwd_way {
	uint64_t rx_packets, rx_bytes, tx_packets, dropped;
};
struct fwd {
	struct lane lane;
	struct fwd_way way[2];
};
void fwd_run(struct fwd *fwd, uint64_t until_ns);
struct pktgen_shape {
	uint8_t *bytes;
	uint32_t len;
	uint16_t sum;
	...;
};
struct pktgen {
	struct lane lane;
	struct pktgen_shape shape[...];
	uint32_t n_shapes, udp_at;
	uint16_t first_port;
	uint32_t flows;
	uint64_t rate_pps, limit, started_ns;
	uint64_t tx_packets, tx_bytes, tx_full;
	uint64_t rx_packets, rx_bytes, rx_foreign, rx_late;
	uint64_t *seen;
	...;
};
void pktgen_run(struct pktgen *gen, uint64_t until_ns);
size_t pcap_append(const struct umem *umem, const struct frame *frames, unsigned n, uint32_t snap_bytes,
		   uint64_t time_ns, uint8_t *out, size_t room);

/* ---- tap/door.h ---- */
#define DOOR_LANES ...
#define DOOR_PORTS ...
#define LANE_SLOTS ...
#define PUNT_RESERVE ...
struct frame_ring {
	...;
};
struct tap_lane {
	struct frame_ring punt, punt_done, inject, inject_free;
	uint32_t worker_asleep;
	uint32_t door_asleep;
	int worker_event;
	int door_event;
	...;
};
struct door_counters {
	uint64_t written_packets, written_bytes;
	uint64_t write_failed;
	uint64_t read_packets, read_bytes;
	uint64_t read_failed;
	uint64_t read_too_long;
	...;
};
struct tap_door;
unsigned frame_ring_put(struct frame_ring *ring, const struct frame *frames, unsigned n);
unsigned frame_ring_get(struct frame_ring *ring, struct frame *frames, unsigned n);
unsigned frame_ring_count(const struct frame_ring *ring);
struct tap_lane *tap_lane_create(int worker_event, int door_event);
void tap_lane_destroy(struct tap_lane *lane);
struct tap_door *tap_door_create(const struct umem *umem, int door_event);
void tap_door_destroy(struct tap_door *door);
int tap_door_add_lane(struct tap_door *door, struct tap_lane *lane);
int tap_door_add_port(struct tap_door *door, uint32_t port, const int *fds, uint32_t n_fds);
int tap_door_poll_once(struct tap_door *door, int timeout_ms);
int tap_door_run(struct tap_door *door);
void tap_door_stop(struct tap_door *door);
const struct door_counters *tap_door_counters(const struct tap_door *door, uint32_t port);
uint64_t tap_door_passes(const struct tap_door *door);

/* ---- forward/reasons.h, counters.h, worker.h ---- */
unsigned reason_count(void);
const char *reason_name(unsigned reason);
const char *reason_text(unsigned reason);
unsigned reason_kind(unsigned reason);
#define MAX_PORTS ...
#define MAX_INTERFACES ...
#define INTERFACE_TAGS ...
#define MAX_WORKERS ...
#define BURST ...
#define COUNTER_REASONS ...
struct port_counters {
	uint64_t rx_packets;
	uint64_t rx_bytes;
	uint64_t injected_packets;
	uint64_t injected_bytes;
	uint64_t sent_packets;
	uint64_t tx_packets;
	uint64_t tx_bytes;
	uint64_t punted[...];
	uint64_t dropped[...];
	uint64_t policed[...];
	...;
};
struct sub_counters {
	uint64_t rx_packets;
	uint64_t rx_bytes;
	uint64_t sent_packets;
	uint64_t punted;
	uint64_t dropped;
	uint64_t policed;
	uint64_t tx_packets;
	uint64_t tx_bytes;
	...;
};
struct worker_counters {
	uint64_t polls;
	uint64_t busy_polls;
	uint64_t packets;
	uint64_t busy_cycles;
	uint64_t sleeps;
	uint64_t rx_no_frame;
	uint64_t heartbeat_ns;
	uint64_t free_frames;
	...;
};
struct bucket {
	uint64_t units;
	uint64_t filled_ns;
};
uint32_t policer_share(uint32_t number, uint32_t n_workers);
bool bucket_take(struct bucket *bucket, uint32_t rate, uint32_t burst, uint64_t now_ns);
#define HASH_ALL_FIELDS ...
#define HASH_DEFAULT_FIELDS ...
enum version { VERSION_NONE, VERSION_4, VERSION_6 };
struct multipath_key {
	uint8_t source[16], destination[16];
	uint8_t ports[4];
	uint32_t label;
	uint8_t protocol;
	uint8_t version;
	uint8_t unused[2];
};
unsigned multipath_keys(uint32_t policy, uint32_t fields, const uint8_t *ip, uint32_t length, enum version version,
			struct multipath_key keys[2]);
struct dataplane;
struct worker;
#define VIEW_STEPS ...
#define VIEW_LOOKUP ...
#define VIEW_VERDICT ...
#define VIEW_GOTO ...
#define VIEW_SAME_SOURCE ...
struct view_step {
	const struct fib *fib;
	uint8_t kind;
	uint8_t reason;
	uint16_t to;
	uint8_t inverted;
	uint8_t protocol;
	uint8_t tos, tos_mask;
	uint16_t source_first, source_last;
	uint16_t destination_first, destination_last;
	uint8_t source_len, destination_len;
	uint8_t source[16], destination[16];
};
struct dataplane *dataplane_create(struct umem *umem, struct fib *fib, struct adjacency_table *adjacencies,
				   uint32_t n_ports, uint32_t n_workers);
void dataplane_destroy(struct dataplane *dataplane);
int dataplane_set_port(struct dataplane *dataplane, uint32_t port, const uint8_t mac[6], uint32_t mtu, uint32_t flags);
int dataplane_set_vlans(struct dataplane *dataplane, uint32_t interface, const uint16_t *vids, uint32_t n);
struct vlan_tag {
	uint16_t type;
	uint16_t vid;
};
int dataplane_set_interface(struct dataplane *dataplane, uint32_t number, uint32_t port, const struct vlan_tag *tags,
			    uint32_t n_tags, const uint8_t mac[6], uint32_t mtu, uint32_t flags);
int dataplane_clear_interface(struct dataplane *dataplane, uint32_t number);
int dataplane_set_policer(struct dataplane *dataplane, uint32_t reason, uint32_t rate, uint32_t burst);
int dataplane_set_view(struct dataplane *dataplane, uint32_t interface, uint32_t family, const struct view_step *steps,
		       uint32_t n, uint32_t flags);
struct view;
const struct view *dataplane_view(const struct dataplane *dataplane, uint32_t interface, uint32_t family);
uint32_t dataplane_collect_views(struct dataplane *dataplane);
int dataplane_set_multipath(struct dataplane *dataplane, unsigned family, uint32_t policy, uint32_t fields);
void dataplane_set_seed(struct dataplane *dataplane, uint64_t seed);
uint32_t dataplane_hash(const struct dataplane *dataplane, const uint8_t *ip, uint32_t length, unsigned family);
int dataplane_set_local4(struct dataplane *dataplane, const uint32_t *addr_be, uint32_t n);
struct worker *worker_create(struct dataplane *dataplane, uint32_t number, struct frame_pool *pool, struct tap_lane *lane);
void worker_destroy(struct worker *worker);
int worker_add_queue(struct worker *worker, struct queue *queue);
unsigned worker_poll_once(struct worker *worker);
int worker_run(struct worker *worker, uint64_t idle_ns);
void worker_stop(struct worker *worker);
const struct worker_counters *worker_counters(const struct worker *worker);
const struct port_counters *worker_port_counters(const struct worker *worker, uint32_t port);
const struct sub_counters *worker_sub_counters(const struct worker *worker, uint32_t number);
void worker_take_used(struct worker *worker, uint8_t *used, uint32_t capacity);
uint64_t worker_cycles_now(void);

/* ---- driver/mmio.h ---- */
uint32_t mmio_read32(const void *base, uint64_t offset);
void mmio_write32(void *base, uint64_t offset, uint32_t value);

/* ---- driver/dma.h, driver/doorbell.h ---- */
struct dma_map {
	uint64_t base;
	const uint64_t *pages;
};
struct doorbell {
	volatile uint32_t *reg;
	int event;
	int socket;
	uint64_t kicks;
	uint64_t failed;
	...;
};
int doorbell_ring(struct doorbell *bell, uint32_t value);
void doorbell_to_register(struct doorbell *bell, volatile void *reg, int event, const volatile void *asleep);
int doorbell_to_socket(struct doorbell *bell, int socket, const void *message, uint32_t bytes, uint32_t value_at);
void doorbell_silence(struct doorbell *bell);

/* ---- driver/ixgbe/ring.h ---- */
struct ixgbe_ring_config {
	const struct umem *umem;
	struct dma_map frames;
	uint8_t *rx_ring;
	uint8_t *tx_ring;
	volatile uint32_t *tx_head;
	uint32_t rx_slots;
	uint32_t tx_slots;
	uint32_t buffer_bytes;
	uint32_t headroom;
	uint16_t port;
	uint16_t number;
	struct doorbell *rx_tail;
	struct doorbell *tx_tail;
	struct doorbell *unmask;
	uint32_t vector_bit;
	int event;
	...;
};
struct ixgbe_ring;
struct ixgbe_ring *ixgbe_ring_create(const struct ixgbe_ring_config *config);
void ixgbe_ring_destroy(struct ixgbe_ring *ring, struct frame_pool *pool);
struct queue *ixgbe_ring_queue(struct ixgbe_ring *ring);
void ixgbe_ring_restart(struct ixgbe_ring *ring, struct frame_pool *pool);
uint32_t ixgbe_ring_in_flight(const struct ixgbe_ring *ring);
struct ixgbe_park;
struct ixgbe_park *ixgbe_park_create(struct ixgbe_ring *ring);
void ixgbe_park_destroy(struct ixgbe_park *park);
void ixgbe_park_begin(struct ixgbe_park *park);
int ixgbe_park_seen(const struct ixgbe_park *park);
void ixgbe_park_end(struct ixgbe_park *park, int reset);

/* ---- emulator/wire.h, wire_kinds.h, pcap.h ---- */
#define WIRE_BURST ...
#define WIRE_LONGEST ...
struct wire_packet {
	const uint8_t *data;
	uint32_t len;
};
struct wire {
	int wait_fd;
	uint64_t rx_packets, rx_bytes;
	uint64_t tx_packets, tx_bytes;
	uint64_t rx_dropped;
	uint64_t tx_dropped;
	uint64_t syscalls;
	...;
};
unsigned wire_receive(struct wire *wire, struct wire_packet *packets, unsigned n);
unsigned wire_send(struct wire *wire, const struct wire_packet *packets, unsigned n);
int wire_arm(struct wire *wire);
void wire_disarm(struct wire *wire);
uint64_t wire_due_ns(struct wire *wire);
struct wire *wire_discard_create(void);
void wire_discard_destroy(struct wire *wire);
struct wire *wire_tap_create(int fd);
void wire_tap_destroy(struct wire *wire);
struct wire *wire_packet_create(int fd);
void wire_packet_destroy(struct wire *wire);
uint64_t wire_packet_segmented(const struct wire *wire);
int wire_pair_create(struct wire *ends[2]);
void wire_pair_destroy(struct wire *ends[2]);
enum pcap_fault {
	PCAP_FINE,
	PCAP_NO_HEADER,
	PCAP_NG,
	PCAP_VERSION,
	PCAP_NOT_ETHERNET,
	PCAP_WITH_FCS,
	PCAP_CUT,
	PCAP_SLICED,
};
struct pcap_check {
	enum pcap_fault fault;
	uint64_t packets;
	uint64_t offset;
	uint64_t misfits;
	uint32_t value;
};
void pcap_check(const uint8_t *bytes, size_t n, struct pcap_check *out);
struct wire *wire_pcap_create(const uint8_t *bytes, size_t n, int loop, uint64_t pps, int out_fd, int event);
void wire_pcap_destroy(struct wire *wire);
int wire_pcap_write(struct wire *wire);
void wire_pcap_stop(struct wire *wire);

/* ---- emulator/card.h, wire_memory.h ---- */
#define CARD_QUEUES ...
#define CARD_VECTORS ...
#define CARD_BAR_BYTES ...
#define CARD_UNMASK_WORDS ...
struct wire;
struct engine;
struct card;
struct card_counters {
	uint64_t dma_faults;
	uint64_t last_fault_iova;
	uint64_t bad_descriptors;
	uint64_t interrupts;
	uint64_t rx_packets, tx_packets;
	uint64_t tx_segments;
};
struct engine_counters {
	uint64_t passes, busy_passes, sleeps, wakes_by_event;
};
struct engine *engine_create(volatile uint32_t *sleep_word, int event, int clients_event, uint64_t poll_ns, int scan);
void engine_destroy(struct engine *engine);
int engine_run(struct engine *engine);
void engine_stop(struct engine *engine);
unsigned engine_step(struct engine *engine);
void engine_counters_read(const struct engine *engine, struct engine_counters *out);
struct card *card_create(struct engine *engine, volatile uint32_t *registers);
void card_destroy(struct card *card);
void card_plug(struct card *card, struct wire *wire);
void card_set_link(struct card *card, int up);
void card_reset(struct card *card);
int card_dma_map(struct card *card, uint64_t iova, uint64_t length, uint8_t *address, int readable, int writable);
int card_dma_unmap(struct card *card, uint64_t iova, uint64_t length);
int card_set_vectors(struct card *card, unsigned first, unsigned n, const int *fds);
void card_raise_vector(struct card *card, unsigned vector);
int card_read(struct card *card, uint32_t offset, uint32_t *value);
int card_write(struct card *card, uint32_t offset, uint32_t value);
void card_cause(struct card *card, uint32_t eicr_bits);
void card_queue_changed(struct card *card, int is_tx, unsigned queue);
void card_filters_changed(struct card *card);
void card_kick(struct card *card);
void card_counters_read(const struct card *card, struct card_counters *out);
struct wire *wire_memory_create(uint32_t room_bytes, int event);
void wire_memory_destroy(struct wire *wire);
int wire_memory_put(struct wire *wire, const uint8_t *data, uint32_t len);
uint32_t wire_memory_take(struct wire *wire, uint8_t *data, uint32_t room);
void wire_memory_repeat(struct wire *wire, uint32_t burst);
void wire_memory_hold(struct wire *wire, int held);
uint64_t sum_words(const uint8_t *bytes, size_t n, uint64_t sum);

/* ---- vfio_user/lent.h, shared_event.h ---- */
int lent_add(void *address, uint64_t bytes);
int lent_lost(int place);
void lent_remove(int place);
uint64_t shared_event_take(int fd);
int shared_event_give(int fd);
