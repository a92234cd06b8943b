/* Statistics registers (8.2.3.23): which offset shows which count. Called by card_read and card_write.
 *
 * Counts are 64 bits wide inside. A register shows at most its width and reading clears what it showed: the two halves of a
 * 36-bit count clear themselves each, so that no packet between both reads is lost or counted twice.
 * ASSUMED: GPRC, GORC and the size bins count before the address filters, MPRC and BPRC behind them; bytes at the MAC have
 * the frame check sequence in them, bytes of queues and of the DMA engine do not (QBRC: unless the host gets it).
 */
#include "emulator/card_state.h"

enum width {
	WIDTH_32,
	WIDTH_LOW, /* of 36 bits */
	WIDTH_HIGH,
};

struct stat_register {
	uint32_t offset;
	uint16_t stride, n;
	uint16_t stat;
	enum width width;
	bool same; /* all n registers are of the one count, or of none */
};

#define STAT_36BITS ((1ull << 36) - 1)

static const struct stat_register registers[] = {
	{0x01030, 0x40, 16, STAT_QPRC, WIDTH_32, false},
	{0x01034, 0x40, 16, STAT_QBRC, WIDTH_LOW, false},
	{0x01038, 0x40, 16, STAT_QBRC, WIDTH_HIGH, false},
	{0x01430, 0x40, 16, STAT_QPRDC, WIDTH_32, false},
	{0x02F50, 4, 1, STAT_RXDGPC, WIDTH_32, false},
	{0x02F54, 4, 1, STAT_RXDGBC, WIDTH_LOW, false},
	{0x02F58, 4, 1, STAT_RXDGBC, WIDTH_HIGH, false},
	{0x03F00, 4, 16, STAT_NONE, WIDTH_32, true}, /* PXONTXC, PXOFFTXC */
	{0x03F60, 8, 2, STAT_NONE, WIDTH_32, true},  /* LXONTXC, LXOFFTXC */
	{0x03FA0, 4, 1, STAT_MPC, WIDTH_32, false},
	{0x03FA4, 4, 7, STAT_NONE, WIDTH_32, true}, /* MPC of packet buffers 1-7 */
	{0x03FC0, 4, 8, STAT_NONE, WIDTH_32, true}, /* RNBC */
	{0x04000, 4, 5, STAT_NONE, WIDTH_32, true}, /* CRCERRS, ILLERRC, ERRBC, -, MSPDC */
	{0x04034, 4, 2, STAT_NONE, WIDTH_32, true}, /* MLFC, MRFC */
	{0x04040, 4, 1, STAT_NONE, WIDTH_32, true}, /* RLEC */
	{0x0405C, 4, 6, STAT_PRC, WIDTH_32, false},
	{0x04074, 4, 1, STAT_GPRC, WIDTH_32, false},
	{0x04078, 4, 1, STAT_BPRC, WIDTH_32, false},
	{0x0407C, 4, 1, STAT_MPRC, WIDTH_32, false},
	{0x04080, 4, 1, STAT_GPTC, WIDTH_32, false},
	{0x04088, 4, 1, STAT_GORC, WIDTH_LOW, false},
	{0x0408C, 4, 1, STAT_GORC, WIDTH_HIGH, false},
	{0x04090, 4, 1, STAT_GOTC, WIDTH_LOW, false},
	{0x04094, 4, 1, STAT_GOTC, WIDTH_HIGH, false},
	{0x040A4, 4, 1, STAT_RUC, WIDTH_32, false},
	{0x040A8, 4, 1, STAT_NONE, WIDTH_32, true}, /* RFC */
	{0x040AC, 4, 1, STAT_ROC, WIDTH_32, false},
	{0x040B0, 4, 4, STAT_NONE, WIDTH_32, true}, /* RJC, MNGPRC, MNGPDC, - */
	{0x040C0, 4, 1, STAT_TOR, WIDTH_LOW, false},
	{0x040C4, 4, 1, STAT_TOR, WIDTH_HIGH, false},
	{0x040D0, 4, 1, STAT_TPR, WIDTH_32, false},
	{0x040D4, 4, 1, STAT_TPT, WIDTH_32, false},
	{0x040D8, 4, 6, STAT_PTC, WIDTH_32, false},
	{0x040F0, 4, 1, STAT_MPTC, WIDTH_32, false},
	{0x040F4, 4, 1, STAT_BPTC, WIDTH_32, false},
	{0x04120, 4, 1, STAT_NONE, WIDTH_32, true},  /* XEC */
	{0x04140, 4, 16, STAT_NONE, WIDTH_32, true}, /* PXONRXCNT, PXOFFRXCNT */
	{0x041A4, 4, 2, STAT_NONE, WIDTH_32, true},  /* LXONRXCNT, LXOFFRXCNT */
	{0x05118, 4, 1, STAT_NONE, WIDTH_32, true},  /* FCCRC */
	{0x0241C, 4, 1, STAT_NONE, WIDTH_32, true},  /* FCOERPDC */
	{0x02424, 4, 3, STAT_NONE, WIDTH_32, true},  /* FCLAST, FCOEPRC, FCOEDWRC */
	{0x08680, 4, 16, STAT_QPTC, WIDTH_32, false},
	{0x08700, 8, 16, STAT_QBTC, WIDTH_LOW, false},
	{0x08704, 8, 16, STAT_QBTC, WIDTH_HIGH, false},
	{0x08780, 4, 3, STAT_NONE, WIDTH_32, true}, /* SSVPC, FCOEPTC, FCOEDWTC */
	{0x087A0, 4, 1, STAT_TXDGPC, WIDTH_32, false},
	{0x087A4, 4, 1, STAT_TXDGBC, WIDTH_LOW, false},
	{0x087A8, 4, 1, STAT_TXDGBC, WIDTH_HIGH, false},
	{0x0CF90, 4, 1, STAT_NONE, WIDTH_32, true}, /* MNGPTC */
};

static const struct stat_register *find(uint32_t offset, unsigned *index)
{
	for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++) {
		const struct stat_register *r = &registers[i];
		uint32_t at = offset - r->offset;

		if (offset >= r->offset && at % r->stride == 0 && at / r->stride < r->n) {
			*index = at / r->stride;
			return r;
		}
	}
	return NULL;
}

bool stats_owns(uint32_t offset)
{
	unsigned index;

	return find(offset, &index) != NULL;
}

bool stats_read(struct card *card, uint32_t offset, uint32_t *value)
{
	unsigned index;
	const struct stat_register *r = find(offset, &index);
	uint64_t *count;

	if (!r)
		return false;
	*value = 0;
	if (r->same)
		return true;
	count = &card->stats[r->stat + index];
	if (r->width == WIDTH_32) {
		*value = *count > UINT32_MAX ? UINT32_MAX : (uint32_t)*count;
		*count = 0;
		return true;
	}
	if (*count > STAT_36BITS)
		*count = STAT_36BITS;
	if (r->width == WIDTH_LOW) {
		*value = (uint32_t)*count;
		*count &= ~(uint64_t)UINT32_MAX;
	} else {
		*value = (uint32_t)(*count >> 32);
		*count &= UINT32_MAX;
	}
	return true;
}

/* Of PRC64, PRC127, … PRC1522 and their transmit sisters, by the frame's length with FCS. */
unsigned stats_size_bin(uint32_t wire_bytes)
{
	static const uint16_t most[5] = {64, 127, 255, 511, 1023};
	unsigned bin = 0;

	while (bin < 5 && wire_bytes > most[bin])
		bin++;
	return bin;
}
