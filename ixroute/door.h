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

/* ---- netlink/route_stream.h ---- */

/* ---- driver/frame.h, queue.h, memport.h, xsk.h ---- */

/* ---- tap/door.h ---- */

/* ---- forward/reasons.h, counters.h, worker.h ---- */
unsigned reason_count(void);
const char *reason_name(unsigned reason);
const char *reason_text(unsigned reason);
unsigned reason_kind(unsigned reason);
