/* The list of lent memory (lent.h) and the handler of SIGBUS. Called by Python (lent.py) for every such mapping.
 *
 * The list's lock spins: it is held for some instructions, by threads that cannot fault meanwhile, since the list is memory
 * of our own. The handler answers for what the list holds and leaves the rest to whoever handled the signal before.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "vfio_user/lent.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

struct piece {
	uintptr_t start;
	uint64_t bytes; /* 0: free */
	int lost;
};

static struct piece pieces[LENT_PIECES];
static unsigned n_pieces; /* places that were ever used */
static atomic_flag locked = ATOMIC_FLAG_INIT;
static struct sigaction before;

static void lock(void)
{
	while (atomic_flag_test_and_set_explicit(&locked, memory_order_acquire))
		;
}

static void unlock(void)
{
	atomic_flag_clear_explicit(&locked, memory_order_release);
}

/* The whole mapping and not a page of it: huge pages can only be replaced together, and a file that was cut once has an owner
 * who will not miss the rest. Returns 0 when the access may be tried again. */
static int replace(uintptr_t address)
{
	int error = -EFAULT;

	lock();
	for (unsigned i = 0; i < n_pieces; i++) {
		struct piece *piece = &pieces[i];

		if (address - piece->start >= piece->bytes)
			continue;
		/* Another thread was quicker: the memory is there. */
		error = 0;
		if (!piece->lost && mmap((void *)piece->start, piece->bytes, PROT_READ | PROT_WRITE,
					 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
			error = -errno;
		piece->lost = 1;
		break;
	}
	unlock();
	return error;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	int error = errno;

	/* A code above 0: the kernel's, for an access of this thread, which therefore does not hold the lock. */
	if (info->si_code > 0 && replace((uintptr_t)info->si_addr) == 0) {
		errno = error;
		return;
	}
	errno = error;
	if (before.sa_flags & SA_SIGINFO && before.sa_sigaction)
		before.sa_sigaction(number, info, context);
	else if (before.sa_handler != SIG_IGN && before.sa_handler != SIG_DFL)
		before.sa_handler(number);
	else if (info->si_code > 0 || before.sa_handler == SIG_DFL) {
		/* The default once more; an access that failed fails again. */
		sigaction(SIGBUS, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
		if (info->si_code <= 0)
			raise(SIGBUS);
	}
}

/* Again for every mapping: somebody else may have taken the signal meanwhile. */
static int catch_bus_errors(void)
{
	struct sigaction now, ours = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	sigemptyset(&ours.sa_mask);
	if (sigaction(SIGBUS, NULL, &now))
		return -errno;
	if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_bus_error)
		return 0;
	before = now;
	return sigaction(SIGBUS, &ours, NULL) ? -errno : 0;
}

int lent_add(void *address, uint64_t bytes)
{
	int place = -ENOSPC, error;

	lock();
	error = catch_bus_errors();
	for (unsigned i = 0; i < LENT_PIECES && place < 0 && !error; i++) {
		if (pieces[i].bytes)
			continue;
		pieces[i] = (struct piece){(uintptr_t)address, bytes, 0};
		if (i == n_pieces)
			n_pieces++;
		place = (int)i;
	}
	unlock();
	return error ? error : place;
}

int lent_lost(int place)
{
	int lost;

	lock();
	lost = pieces[place].lost;
	unlock();
	return lost;
}

void lent_remove(int place)
{
	lock();
	pieces[place] = (struct piece){0};
	unlock();
}
