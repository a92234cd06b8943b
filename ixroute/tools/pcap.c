/* Records of a pcap file (draft-ietf-opsawg-pcap, section 5), a burst at a time. */
#include "tools/pcap.h"

#include <string.h>

size_t pcap_append(const struct umem *umem, const struct frame *frames, unsigned n, uint32_t snap_bytes,
		   uint64_t time_ns, uint8_t *out, size_t room)
{
	size_t used = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t kept = frames[i].len < snap_bytes ? frames[i].len : snap_bytes;
		uint32_t header[4] = { (uint32_t)(time_ns / 1000000000), (uint32_t)(time_ns % 1000000000), kept,
				       frames[i].len };

		if (room - used < PCAP_RECORD_BYTES + kept)
			break;
		memcpy(out + used, header, sizeof(header));
		memcpy(out + used + PCAP_RECORD_BYTES, frame_data(umem, frames[i].addr), kept);
		used += PCAP_RECORD_BYTES + kept;
	}
	return used;
}
