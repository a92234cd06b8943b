/* Checksums (sums.h): called by the receive side to verify and by the transmit side to insert. */
#include "emulator/sums.h"

/* Words of 32 bits into 64: no carry is lost below 2^32 of them. */
uint64_t sum_words(const uint8_t *bytes, size_t n, uint64_t sum)
{
	uint64_t a = 0, b = 0, c = 0, d = 0;
	uint16_t last = 0;

	for (; n >= 16; n -= 16, bytes += 16) {
		uint32_t word[4];

		memcpy(word, bytes, 16);
		a += word[0];
		b += word[1];
		c += word[2];
		d += word[3];
	}
	sum = sum_fold(sum) + a + b + c + d;
	for (; n >= 2; n -= 2, bytes += 2) {
		uint16_t word;

		memcpy(&word, bytes, 2);
		sum += word;
	}
	if (n) {
		memcpy(&last, bytes, 1);
		sum += last;
	}
	return sum;
}

/* Bit-reflected CRCs, four bits at a time: sixteen entries need no set-up, and both are off the fast path. */
static uint32_t crc_nibbles(const uint32_t table[16], const uint8_t *bytes, size_t n, uint32_t crc)
{
	for (size_t i = 0; i < n; i++) {
		crc ^= bytes[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return crc;
}

uint32_t crc32c(const uint8_t *bytes, size_t n, uint32_t crc)
{
	static const uint32_t table[16] = {
		0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
		0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
	};

	return ~crc_nibbles(table, bytes, n, ~crc);
}

uint32_t crc32_ethernet(const uint8_t *bytes, size_t n)
{
	static const uint32_t table[16] = {
		0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
		0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
	};

	return ~crc_nibbles(table, bytes, n, 0xFFFFFFFFu);
}
