/* Checksums of packets: the Internet's (RFC 1071), SCTP's (RFC 9260, CRC-32C) and Ethernet's (CRC-32). Pure functions.
 */
#ifndef IXROUTE_EMULATOR_SUMS_H
#define IXROUTE_EMULATOR_SUMS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Sum of 16-bit words as they lie in memory (an odd last byte is a word with 0 behind it), added to `sum`. Such a sum is
 * the same whichever byte order the machine has, up to a swap: fold it and store it as it is. */
uint64_t sum_words(const uint8_t *bytes, size_t n, uint64_t sum);

/* The same in place, for headers and small packets: a call would cost as much as the sum. sum < 2^48. */
static inline uint64_t sum_few(const uint8_t *bytes, size_t n, uint64_t sum)
{
	uint32_t word = 0;
	uint16_t half;

	if (n > 128)
		return sum_words(bytes, n, sum);
	for (; n >= 4; n -= 4, bytes += 4) {
		memcpy(&word, bytes, 4);
		sum += word;
	}
	if (n >= 2) {
		memcpy(&half, bytes, 2);
		sum += half;
		n -= 2;
		bytes += 2;
	}
	return n ? sum + *bytes : sum;
}

static inline uint16_t sum_fold(uint64_t sum)
{
	sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
	sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
	sum = (sum & 0xFFFFu) + (sum >> 16);
	sum = (sum & 0xFFFFu) + (sum >> 16);
	return (uint16_t)((sum & 0xFFFFu) + (sum >> 16));
}

/* As they are sent: complement taken, in wire order when stored little-endian (RFC 9260 appendix A; IEEE 802.3 3.2.9). */
uint32_t crc32c(const uint8_t *bytes, size_t n, uint32_t crc);
uint32_t crc32_ethernet(const uint8_t *bytes, size_t n);

#endif
