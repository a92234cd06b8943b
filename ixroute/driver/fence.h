/* In a build with the address sanitizer, what lies around a packet in its frame is forbidden ground, as what lies
 * around a heap block is: umem is one large mapping, in which the sanitizer would otherwise see no end of a packet.
 * memport.c raises the fence when a packet arrives; it falls when the frame goes back to a pool. In any other build
 * these are nothing. */
#ifndef IXROUTE_DRIVER_FENCE_H
#define IXROUTE_DRIVER_FENCE_H

#include <stdint.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FRAME_FENCES
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FRAME_FENCES
#endif

#ifdef FRAME_FENCES
#include <sanitizer/asan_interface.h>

/* frame: frame_bytes of memory, of which only packet[0 .. len-1] may be touched. */
static inline void fence_raise(uint8_t *frame, uint32_t frame_bytes, const uint8_t *packet, uint32_t len)
{
	__asan_poison_memory_region(frame, (uintptr_t)packet - (uintptr_t)frame);
	__asan_poison_memory_region(packet + len, (uintptr_t)frame + frame_bytes - (uintptr_t)(packet + len));
}

static inline void fence_drop(uint8_t *memory, uint64_t bytes)
{
	__asan_unpoison_memory_region(memory, bytes);
}
#else
static inline void fence_raise(uint8_t *frame, uint32_t frame_bytes, const uint8_t *packet, uint32_t len)
{
	(void)frame, (void)frame_bytes, (void)packet, (void)len;
}

static inline void fence_drop(uint8_t *memory, uint64_t bytes)
{
	(void)memory, (void)bytes;
}
#endif

#endif
