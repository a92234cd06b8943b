/* Token buckets in front of the punt: one per port and reason, of one worker. Included by worker.c alone.
 *
 * A token is 10^9 units, so that a nanosecond at a rate of r per second brings r units and nothing is rounded off.
 */
#ifndef IXROUTE_FORWARD_POLICER_H
#define IXROUTE_FORWARD_POLICER_H

#include <stdbool.h>
#include <stdint.h>

#define TOKEN 1000000000ull
#define BUCKET_SPAN_NS 10000000000ull /* a longer pause fills no more: keeps the product below 2^64 */

struct bucket {
	uint64_t units;
	uint64_t filled_ns; /* 0: never asked; the first packet finds it full */
};

/* A worker's even part of the port's rate or burst; some, if there is any. */
static inline uint32_t policer_share(uint32_t number, uint32_t n_workers)
{
	return number == 0 || number >= n_workers ? number / n_workers : 1;
}

/* Takes a token if there is one. rate per second and burst are this worker's shares; time does not run back. */
static inline bool bucket_take(struct bucket *bucket, uint32_t rate, uint32_t burst, uint64_t now_ns)
{
	uint64_t depth = burst * TOKEN, span_ns = now_ns - bucket->filled_ns;

	if (rate == 0)
		return false;
	if (bucket->filled_ns == 0)
		bucket->units = depth;
	else
		bucket->units += rate * (span_ns < BUCKET_SPAN_NS ? span_ns : BUCKET_SPAN_NS);
	if (bucket->units > depth) /* or the burst was made smaller */
		bucket->units = depth;
	bucket->filled_ns = now_ns;
	if (bucket->units < TOKEN)
		return false;
	bucket->units -= TOKEN;
	return true;
}

#endif
