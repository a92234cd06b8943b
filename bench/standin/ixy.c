/* ixy's driver on the stand-in card: its own driver/ixgbe.c, from a checkout that bench/ixgbe.py is told of, compiled
 * here as it is, with registers that are memory and waits that do not wait. A queue is a device of its own with one
 * queue, since a second one of the same device begins inside the first (its queue structures end in arrays of open
 * length and are indexed as if they did not). */
#define _GNU_SOURCE
#include "log.h"
#undef info
#undef warn
#define info(...) ((void)0)
#define warn(...) ((void)0)
#include "driver/device.h"
#define wait_set_reg32(addr, reg, mask) ((void)0)
#define wait_clear_reg32(addr, reg, mask) ((void)0)
#define usleep(us) ((void)0)
#include "driver/ixgbe.c"
#undef usleep

#include "standin.h"

uint8_t *pci_map_resource(const char *address)
{
	uint8_t *bar = standin_memory(BAR_BYTES);
	uint32_t up = IXGBE_LINKS_UP | IXGBE_LINKS_SPEED_10G_82599;

	(void)address;
	if (bar)
		memcpy(bar + IXGBE_LINKS, &up, sizeof(up));
	return bar;
}

/* ixy calls none of these without VFIO. */
int vfio_init(const char *address) { (void)address; abort(); }
uint8_t *vfio_map_region(int fd, int region) { (void)fd, (void)region; abort(); }
int vfio_setup_interrupt(int fd) { (void)fd; abort(); }
int vfio_enable_msi(int fd) { (void)fd; abort(); }
int vfio_enable_msix(int fd, uint32_t vector) { (void)fd, (void)vector; abort(); }
int vfio_epoll_ctl(int fd) { (void)fd; abort(); }
int vfio_epoll_wait(int fd, int events, int timeout) { (void)fd, (void)events, (void)timeout; abort(); }
void check_interrupt(struct interrupt_queues *queue, uint64_t diff, uint32_t index, uint32_t size)
{
	(void)queue, (void)diff, (void)index, (void)size;
	abort();
}
uint64_t monotonic_time(void) { return 0; }

/* What its forwarder does (app/ixy-fwd.c), out of the same queue. */
static unsigned pass(void *context, unsigned burst)
{
	struct ixy_device *device = context;
	struct pkt_buf *bufs[64];
	uint32_t n = ixy_rx_batch(device, 0, bufs, burst), sent;

	if (n) {
		for (uint32_t i = 0; i < n; i++)
			bufs[i]->data[1]++;
		sent = ixy_tx_batch(device, 0, bufs, n);
		for (uint32_t i = sent; i < n; i++)
			pkt_buf_free(bufs[i]);
	}
	return n;
}

int forwarder_ixy(struct forwarder *forwarder, unsigned queues, const struct layout *layout)
{
	(void)layout;
	forwarder->pass = pass;
	for (unsigned i = 0; i < queues; i++) {
		struct ixy_device *device = ixgbe_init("stand-in", 1, 1, 0);

		forwarder->queue[i] = device;
		forwarder->bar[i] = IXY_TO_IXGBE(device)->addr;
	}
	return 0;
}
