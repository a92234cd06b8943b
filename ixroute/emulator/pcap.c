/* Reading pcap files in memory (pcap-savefile(5); draft-ietf-opsawg-pcap): either byte order, micro- or nanoseconds.
 * Called by Python to check a file before it is used, and by wire_pcap.c for each packet.
 *
 * A file is hostile until pcap_check said otherwise: every read is checked against the end.
 */
#include "emulator/pcap.h"

#include <string.h>

#define MAGIC_US 0xa1b2c3d4u
#define MAGIC_NS 0xa1b23c4du
#define MAGIC_NG 0x0a0d0d0au
#define ETHERNET 1u
#define FCS_PRESENT 0x04000000u

static uint32_t swapped(uint32_t value)
{
	return __builtin_bswap32(value);
}

static uint32_t field(const struct pcap_file *file, size_t at)
{
	uint32_t value;

	memcpy(&value, file->bytes + at, sizeof(value));
	return file->swap ? swapped(value) : value;
}

static bool magic_is(uint32_t magic)
{
	return magic == MAGIC_US || magic == MAGIC_NS;
}

enum pcap_fault pcap_open(struct pcap_file *file, const uint8_t *bytes, size_t n, uint32_t *value)
{
	uint32_t magic, version, link;

	*file = (struct pcap_file){ .bytes = bytes, .n = n, .at = PCAP_HEADER_BYTES };
	*value = 0;
	if (n < sizeof(magic))
		return PCAP_NO_HEADER;
	memcpy(&magic, bytes, sizeof(magic));
	if (magic == MAGIC_NG)
		return PCAP_NG;
	file->swap = magic_is(swapped(magic));
	if (n < PCAP_HEADER_BYTES || (!file->swap && !magic_is(magic)))
		return PCAP_NO_HEADER;
	/* Two fields of 16 bits: the major one comes first in the file whatever the byte order. */
	version = field(file, 4);
	version = file->swap == (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) ? version >> 16 : version & 0xffff;
	if (version != 2) {
		*value = version;
		return PCAP_VERSION;
	}
	link = field(file, 20);
	*value = link & 0xffff;
	if (*value != ETHERNET)
		return PCAP_NOT_ETHERNET;
	return link & FCS_PRESENT ? PCAP_WITH_FCS : PCAP_FINE;
}

enum pcap_fault pcap_next(struct pcap_file *file, const uint8_t **data, uint32_t *len, uint32_t *missing)
{
	uint32_t captured, original;

	if (file->n - file->at < PCAP_RECORD_BYTES) {
		*missing = PCAP_RECORD_BYTES - (uint32_t)(file->n - file->at);
		return PCAP_CUT;
	}
	captured = field(file, file->at + 8);
	original = field(file, file->at + 12);
	if (captured > file->n - file->at - PCAP_RECORD_BYTES) {
		*missing = captured - (uint32_t)(file->n - file->at - PCAP_RECORD_BYTES);
		return PCAP_CUT;
	}
	if (captured < original) {
		*missing = original - captured;
		return PCAP_SLICED;
	}
	*data = file->bytes + file->at + PCAP_RECORD_BYTES;
	*len = captured;
	file->at += PCAP_RECORD_BYTES + captured;
	return PCAP_FINE;
}

void pcap_check(const uint8_t *bytes, size_t n, struct pcap_check *out)
{
	struct pcap_file file;

	*out = (struct pcap_check){ .fault = PCAP_FINE };
	out->fault = pcap_open(&file, bytes, n, &out->value);
	while (out->fault == PCAP_FINE && file.at < file.n) {
		const uint8_t *data;
		uint32_t len;

		out->offset = file.at;
		out->fault = pcap_next(&file, &data, &len, &out->value);
		if (out->fault != PCAP_FINE)
			break;
		out->packets++;
		out->misfits += !pcap_fits(len);
	}
}
