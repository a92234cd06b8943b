/* Lookups for threads that are not workers: Python's, and the benchmark's clock around them (fib.h).
 * Invariant: the borrowed epoch cell is idle before and after. */
#include <time.h>

#include "fib/fib.h"

#define PIECE 64u
#define QUIESCE_EVERY 4096u
#define BURST_MAX 256u

void fib4_read(struct fib *fib, unsigned reader, const uint32_t *addr_be, uint32_t *index, size_t n)
{
	struct epoch *epoch = fib_epoch(fib);

	for (size_t done = 0; done < n; done += QUIESCE_EVERY) {
		size_t piece = n - done < QUIESCE_EVERY ? n - done : QUIESCE_EVERY;

		epoch_quiesce(epoch, reader);
		fib4_lookup_burst(fib, addr_be + done, index + done, (unsigned)piece);
	}
	epoch_idle(epoch, reader);
}

static void point_at(const uint8_t **pointer, const uint8_t *addr, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pointer[i] = addr + 16 * i;
}

void fib6_read(struct fib *fib, unsigned reader, const uint8_t *addr, uint32_t *index, size_t n)
{
	struct epoch *epoch = fib_epoch(fib);
	const uint8_t *pointer[PIECE];

	for (size_t done = 0; done < n; done += PIECE) {
		size_t piece = n - done < PIECE ? n - done : PIECE;

		epoch_quiesce(epoch, reader);
		point_at(pointer, addr + 16 * done, piece);
		fib6_lookup_burst(fib, pointer, index + done, (unsigned)piece);
	}
	epoch_idle(epoch, reader);
}

/* The thread's own time: what other programs take of the machine meanwhile is not the lookup's. */
static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t sum_of(const uint32_t *index, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		sum += index[i];
		__asm__("" : "+r"(sum)); /* one by one: wider loads would wait for the stores just made */
	}
	return sum;
}

uint64_t fib4_time(struct fib *fib, unsigned reader, const uint32_t *addr_be, size_t n, unsigned burst, uint64_t *sum)
{
	uint64_t begin = now_ns();
	uint32_t index[BURST_MAX];

	*sum = 0;
	burst = burst == 0 || burst > BURST_MAX ? BURST_MAX : burst;
	for (size_t done = 0; done < n; done += burst) {
		unsigned piece = n - done < burst ? (unsigned)(n - done) : burst;

		epoch_quiesce(fib_epoch(fib), reader);
		fib4_lookup_burst(fib, addr_be + done, index, piece);
		*sum += sum_of(index, piece);
	}
	epoch_idle(fib_epoch(fib), reader);
	return now_ns() - begin;
}

uint64_t fib6_time(struct fib *fib, unsigned reader, const uint8_t *addr, size_t n, unsigned burst, uint64_t *sum)
{
	uint64_t begin = now_ns();
	const uint8_t *pointer[BURST_MAX];
	uint32_t index[BURST_MAX];

	*sum = 0;
	burst = burst == 0 || burst > BURST_MAX ? BURST_MAX : burst;
	for (size_t done = 0; done < n; done += burst) {
		unsigned piece = n - done < burst ? (unsigned)(n - done) : burst;

		epoch_quiesce(fib_epoch(fib), reader);
		point_at(pointer, addr + 16 * done, piece);
		fib6_lookup_burst(fib, pointer, index, piece);
		*sum += sum_of(index, piece);
	}
	epoch_idle(fib_epoch(fib), reader);
	return now_ns() - begin;
}
