/* Interrupts (7.3, 8.2.3.5): causes, masks, throttling, and the eventfds that stand for MSI-X messages.
 *
 * With GPIE.Multiple_MSIX a queue's cause is the vector that its IVAR entry names, 0 to 63; the first 16 are EICR 15:0. Other
 * causes are EICR 31:16 and share the vector of IVAR_MISC. A vector's message is sent when one of its causes is there and
 * not masked and that was not so before, or when EIMS is written, and not sooner than EITR after the last. Without
 * Multiple_MSIX everything is vector 0.
 *
 * ASSUMED: vectors above 15 have no bit in EICR, so that sending their message clears them (EIAC has no bits for them).
 * ASSUMED: EITR counts in units of 2 us whatever the link's speed.
 */
#include "emulator/card_state.h"
#include "vfio_user/shared_event.h"

#include <string.h>

void irq_reset(struct irq *irq)
{
	irq->pending = irq->mask = irq->auto_mask = irq->asserted = irq->held = 0;
	irq->other = irq->other_mask = irq->other_auto_mask = irq->auto_clear = 0;
	memset(irq->due_ns, 0, sizeof(irq->due_ns));
}

static bool multiple(const struct card *card)
{
	return reg(card, REG_GPIE) & GPIE_MULTIPLE_MSIX;
}

void irq_queue(struct card *card, bool is_tx, unsigned queue)
{
	uint32_t entry = reg(card, REG_IVAR + 4 * (queue / 2)) >> (16 * (queue & 1) + (is_tx ? 8 : 0));

	if (entry & IVAR_VALID)
		card->irq.pending |= 1ull << (entry & (multiple(card) ? IVAR_VECTOR : 15));
}

void irq_other(struct card *card, uint32_t bits)
{
	card->irq.other |= bits & ~EICR_QUEUES;
}

/* The vector of a byte of IVAR_MISC: 0 TCP timer, 1 the others; as a bit, 0 when it has none. */
static uint64_t misc_vector(const struct card *card, unsigned byte)
{
	uint32_t entry = reg(card, REG_IVAR_MISC) >> (8 * byte);

	if (!multiple(card))
		return 1;
	return entry & IVAR_VALID ? 1ull << (entry & IVAR_VECTOR) : 0;
}

/* Vectors that have a cause which is not masked. */
static uint64_t active(const struct card *card)
{
	const struct irq *irq = &card->irq;
	uint64_t queues = irq->pending & irq->mask, vectors = multiple(card) ? queues : queues ? 1 : 0;
	uint32_t other = irq->other & irq->other_mask;

	if (other & EICR_TCP_TIMER)
		vectors |= misc_vector(card, 0);
	if (other & ~EICR_TCP_TIMER)
		vectors |= misc_vector(card, 1);
	return vectors;
}

/* An eventfd whose counter its owner has filled would block, and with it every card: such a message is lost, as the counter
 * says already all that it could. */
void irq_raise(struct card *card, unsigned vector)
{
	if (card->irq.fd[vector] >= 0 && shared_event_give(card->irq.fd[vector]) == 0)
		card->counters.interrupts++;
}

static void send_message(struct card *card, unsigned vector, uint64_t now_ns)
{
	struct irq *irq = &card->irq;
	uint64_t bit = 1ull << vector, interval = reg(card, reg_eitr(vector)) >> 3 & 0x1FF;
	uint64_t queues = multiple(card) ? bit : EICR_QUEUES;
	uint32_t other = misc_vector(card, 0) == bit ? EICR_TCP_TIMER : 0;

	other |= misc_vector(card, 1) == bit ? ~(EICR_TCP_TIMER | EICR_QUEUES) : 0;
	other &= irq->other & irq->other_mask;
	irq->due_ns[vector] = now_ns + interval * 2000;
	if (multiple(card)) { /* EIAC and EIAM under EIAME are of MSI-X, 7.3.1.3 */
		irq->pending &= ~(queues & (irq->auto_clear | ~(uint64_t)EICR_QUEUES));
		irq->other &= ~(other & irq->auto_clear);
	}
	if (reg(card, REG_GPIE) & GPIE_EIAME) {
		irq->mask &= ~(queues & irq->auto_mask);
		irq->other_mask &= ~(other & irq->other_auto_mask);
	}
	irq->asserted = (irq->asserted | bit) & active(card); /* cleared or masked: the next cause is a new one */
	irq_raise(card, vector);
}

void irq_update(struct card *card, uint64_t now_ns)
{
	struct irq *irq = &card->irq;
	uint64_t vectors = active(card), fresh;

	irq->asserted &= vectors;
	fresh = vectors & ~irq->asserted;
	irq->held = 0;
	while (fresh) {
		unsigned vector = (unsigned)__builtin_ctzll(fresh);

		fresh &= fresh - 1;
		if (now_ns < irq->due_ns[vector])
			irq->held |= 1ull << vector;
		else
			send_message(card, vector, now_ns);
	}
}

/* When the next message that waits for its EITR may be sent; UINT64_MAX: none waits. */
uint64_t irq_due_ns(const struct card *card)
{
	uint64_t held = card->irq.held, due = UINT64_MAX;

	for (; held; held &= held - 1) {
		uint64_t one = card->irq.due_ns[__builtin_ctzll(held)];

		due = one < due ? one : due;
	}
	return due;
}

static uint32_t eicr(const struct irq *irq)
{
	return irq->other | (uint32_t)(irq->pending & EICR_QUEUES);
}

/* Reading or writing EICR masks what EIAM names, unless EIAME has it done by the message (8.2.3.5.8). */
static void mask_by_access(struct card *card)
{
	if (reg(card, REG_GPIE) & GPIE_EIAME)
		return;
	card->irq.mask &= ~card->irq.auto_mask;
	card->irq.other_mask &= ~card->irq.other_auto_mask;
}

static void clear_causes(struct card *card, uint32_t bits)
{
	struct irq *irq = &card->irq;

	irq->pending &= ~(uint64_t)(bits & EICR_QUEUES);
	irq->other &= ~bits;
	/* Another cause may have come since the client looked: its message must not be lost. */
	irq->asserted &= ~(misc_vector(card, 0) | misc_vector(card, 1));
}

static void unmask(struct card *card, uint64_t queues, uint32_t other)
{
	struct irq *irq = &card->irq;

	irq->mask |= queues;
	irq->other_mask |= other;
	/* A write of EIMS sends the message again while the cause is there. */
	irq->asserted &= ~queues;
	if (other || !multiple(card))
		irq->asserted &= ~(misc_vector(card, 0) | misc_vector(card, 1));
}

static volatile uint32_t *asking(const struct card *card, unsigned vector)
{
	return &card->registers[CARD_UNMASK_WORDS / 4 + vector];
}

bool irq_asked(const struct card *card)
{
	for (unsigned i = 0; i < card->irq.wired; i++)
		if (*asking(card, i))
			return true;
	return false;
}

/* Each word is taken before its vector is unmasked: what is stored after that asks once more. */
void irq_take_asked(struct card *card)
{
	for (unsigned i = 0; i < card->irq.wired; i++)
		if (*asking(card, i) && __atomic_exchange_n(asking(card, i), 0, __ATOMIC_SEQ_CST))
			unmask(card, 1ull << i, 0);
}

/* The 32 bits of an _EX register. */
static bool extended(uint32_t offset, uint32_t base, unsigned *shift)
{
	*shift = (offset - base) * 8;
	return offset == base || offset == base + 4;
}

bool irq_read(struct card *card, uint32_t offset, uint32_t *value)
{
	struct irq *irq = &card->irq;
	unsigned shift;

	if (offset == REG_EICR) {
		*value = eicr(irq);
		clear_causes(card, reg(card, REG_GPIE) & GPIE_OCD ? *value & ~EICR_QUEUES : *value);
		mask_by_access(card);
		irq_update(card, engine_now_ns());
	} else if (offset == REG_EICS) {
		*value = eicr(irq);
	} else if (offset == REG_EIMS || offset == REG_EIMC) {
		*value = irq->other_mask | (uint32_t)(irq->mask & EICR_QUEUES);
	} else if (offset == REG_EIAC) {
		*value = irq->auto_clear;
	} else if (offset == REG_EIAM) {
		*value = irq->other_auto_mask | (uint32_t)(irq->auto_mask & EICR_QUEUES);
	} else if (extended(offset, REG_EICS_EX, &shift)) {
		*value = (uint32_t)(irq->pending >> shift);
	} else if (extended(offset, REG_EIMS_EX, &shift) || extended(offset, REG_EIMC_EX, &shift)) {
		*value = (uint32_t)(irq->mask >> shift);
	} else if (extended(offset, REG_EIAM_EX, &shift)) {
		*value = (uint32_t)(irq->auto_mask >> shift);
	} else {
		return false;
	}
	return true;
}

/* The registers without _EX: vectors 0-15 and the other causes. */
static bool write_plain(struct card *card, uint32_t offset, uint32_t value)
{
	struct irq *irq = &card->irq;
	uint64_t queues = value & EICR_QUEUES;
	uint32_t other = value & ~EICR_QUEUES;

	if (offset == REG_EICR) {
		clear_causes(card, value);
		mask_by_access(card);
	} else if (offset == REG_EICS) {
		irq->pending |= queues;
		irq->other |= other;
	} else if (offset == REG_EIMS) {
		unmask(card, queues, other);
	} else if (offset == REG_EIMC) {
		irq->mask &= ~queues;
		irq->other_mask &= ~other;
	} else if (offset == REG_EIAC) {
		irq->auto_clear = value;
	} else if (offset == REG_EIAM) {
		irq->auto_mask = (irq->auto_mask & ~(uint64_t)EICR_QUEUES) | queues;
		irq->other_auto_mask = other;
	} else {
		return false;
	}
	return true;
}

bool irq_write(struct card *card, uint32_t offset, uint32_t value)
{
	struct irq *irq = &card->irq;
	unsigned shift;

	if (extended(offset, REG_EICS_EX, &shift))
		irq->pending |= (uint64_t)value << shift;
	else if (extended(offset, REG_EIMS_EX, &shift))
		unmask(card, (uint64_t)value << shift, 0);
	else if (extended(offset, REG_EIMC_EX, &shift))
		irq->mask &= ~((uint64_t)value << shift);
	else if (extended(offset, REG_EIAM_EX, &shift))
		irq->auto_mask = (irq->auto_mask & ~(0xFFFFFFFFull << shift)) | (uint64_t)value << shift;
	else if (!write_plain(card, offset, value))
		return false;
	irq_update(card, engine_now_ns());
	return true;
}
