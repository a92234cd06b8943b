/* What Python may call: the only declarations that cross the language border (read by cffi, API mode).
 * Each room declares its part here; the meaning is in the room's header. */

/* ---- fib/adjacency.h ---- */

/* ---- fib/fib.h ---- */

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
