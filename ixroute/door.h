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
#define ADJ_RESERVED ...
#define ADJ_ACTION_FORWARD ...
struct adjacency_table;
struct adjacency_table *adjacency_table_create(uint32_t capacity, uint8_t action);
void adjacency_table_destroy(struct adjacency_table *table);
int adjacency_set(struct adjacency_table *table, uint32_t index, const uint8_t *mac, uint8_t port, uint8_t action,
		  uint32_t mtu);
int adjacency_get(const struct adjacency_table *table, uint32_t index, uint64_t *word, uint32_t *mtu);

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
struct fib *fib_create(void);
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
};
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
	struct prefix prefix;
	struct route route;
};
void rib_lookup(const struct rib *rib, uint8_t family, const uint8_t *addr, struct rib_answer *out);
struct rib_entry {
	struct route route;
	uint32_t path_id;
	uint8_t best;
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
int route_stream_feed(struct route_stream *stream, const uint8_t *bytes, size_t len, int dump);
int route_stream_receive(struct route_stream *stream, int fd, unsigned max);
int route_stream_receive_dump(struct route_stream *stream, int fd, int timeout_ms);
void route_stream_stats_read(const struct route_stream *stream, struct route_stream_stats *out);

/* ---- driver/frame.h, queue.h, memport.h, xsk.h ---- */

/* ---- tap/door.h ---- */

/* ---- forward/reasons.h, counters.h, worker.h ---- */
unsigned reason_count(void);
const char *reason_name(unsigned reason);
const char *reason_text(unsigned reason);
unsigned reason_kind(unsigned reason);
