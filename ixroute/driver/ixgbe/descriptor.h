/* Advanced descriptors of the 82599, X540 and X550 as words of 64 bits in the machine's order, which is the card's
 * (little endian). Datasheet 331520: 7.1.6 (receive), 7.2.3.2.4 (transmit, data). Shared by ring.c and ring_life.c. */
#ifndef IXROUTE_DRIVER_IXGBE_DESCRIPTOR_H
#define IXROUTE_DRIVER_IXGBE_DESCRIPTOR_H

#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "descriptors are written as words");

struct ixgbe_descriptor {
	uint64_t low;
	uint64_t high;
};
_Static_assert(sizeof(struct ixgbe_descriptor) == 16, "the card's descriptors");

/* Receive, to the card: low is the buffer's address, high the header buffer's, which must be 0: its lowest bit is where
 * DD will be. From the card: what the packet is in low; status, errors and length in high. */
#define RX_LOW_UDP (1ull << 9)	    /* packet type, when RX_LOW_FILTERED is not set */
#define RX_LOW_FILTERED (1ull << 15) /* packet type is the number of an EtherType filter instead */
#define RX_DONE 1ull
#define RX_END 2ull		    /* EOP: the packet's last descriptor */
#define RX_L4_CHECKED (1ull << 5)   /* L4CS */
#define RX_IP_CHECKED (1ull << 6)   /* IPCS */
#define RX_ERROR (1ull << 29)	    /* RXE: any error of the MAC */
#define RX_L4_ERROR (1ull << 30)    /* TCPE */
#define RX_IP_ERROR (1ull << 31)    /* IPE */

static inline uint32_t rx_length(uint64_t high)
{
	return (uint32_t)(high >> 32) & 0xffff;
}

/* Transmit: low is the packet's address. */
#define TX_DATA (3ull << 20 | 1ull << 29 | 1ull << 24 | 1ull << 25) /* DTYP, DEXT, EOP, IFCS: a whole packet */
#define TX_REPORT (1ull << 27)	     /* RS: say when it is sent */
#define TX_DONE (1ull << 32)	     /* DD, in place of what was 0 */
#define TX_SHORTEST 17u		     /* the card does not take less */

/* DTALEN and PAYLEN: one descriptor, one packet. */
static inline uint64_t tx_data(uint32_t len)
{
	return TX_DATA | len | (uint64_t)len << 46;
}

/* What the card may be writing to. The other word is read after it. */
static inline uint64_t descriptor_load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

#endif
