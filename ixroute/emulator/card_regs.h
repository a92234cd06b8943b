/* Registers that the packet engine looks at: byte offsets in BAR 0 and the bits that matter to packets.
 * Intel 82599 datasheet (331520), section 8.2.3; canonical offsets only, the model resolves aliases.
 */
#ifndef IXROUTE_EMULATOR_CARD_REGS_H
#define IXROUTE_EMULATOR_CARD_REGS_H

#include <stdint.h>

/* Interrupts, 8.2.3.5. _EX: two registers, for vectors 0-31 and 32-63. */
#define REG_EICR 0x00800u
#define REG_EICS 0x00808u
#define REG_EIAC 0x00810u
#define REG_EIMS 0x00880u
#define REG_EIMC 0x00888u
#define REG_EIAM 0x00890u
#define REG_GPIE 0x00898u
#define REG_IVAR 0x00900u /* +4n: receive 2n, transmit 2n, receive 2n+1, transmit 2n+1, a byte each */
#define REG_IVAR_MISC 0x00A00u
#define REG_EICS_EX 0x00A90u
#define REG_EIMS_EX 0x00AA0u
#define REG_EIMC_EX 0x00AB0u
#define REG_EIAM_EX 0x00AD0u
#define GPIE_MULTIPLE_MSIX (1u << 4)
#define GPIE_OCD (1u << 5) /* reading EICR leaves the queues' bits */
#define GPIE_EIAME (1u << 30)
#define IVAR_VALID 0x80u
#define IVAR_VECTOR 0x3Fu
#define EICR_QUEUES 0x0000FFFFu
#define EICR_RX_MISS (1u << 17)
#define EICR_TCP_TIMER (1u << 30)

static inline uint32_t reg_eitr(unsigned vector)
{
	return vector < 24 ? 0x00820u + 4 * vector : 0x12300u + 4 * (vector - 24);
}

/* The 64 bytes of registers of a queue: offsets within them. Receive 8.2.3.8, transmit 8.2.3.9. */
#define QUEUE_BAL 0x00u
#define QUEUE_BAH 0x04u
#define QUEUE_LEN 0x08u
#define QUEUE_HEAD 0x10u
#define QUEUE_SRRCTL 0x14u
#define QUEUE_TAIL 0x18u
#define QUEUE_DCTL 0x28u
#define QUEUE_WBAL 0x38u
#define QUEUE_WBAH 0x3Cu
#define DCTL_ENABLE (1u << 25)
#define RXDCTL_VME (1u << 30)
#define BAL_ADDRESS 0xFFFFFF80u
#define LEN_BYTES 0x000FFF80u
#define SRRCTL_BSIZEPKT 0x1Fu /* KiB */
#define SRRCTL_BSIZEHDR_SHIFT 8 /* 6 bits, units of 64 bytes */
#define SRRCTL_DESCTYPE_SHIFT 25
#define SRRCTL_DROP_EN (1u << 28)
#define WBAL_ENABLE 1u

static inline uint32_t reg_rx_queue(unsigned queue)
{
	return queue < 64 ? 0x01000u + 0x40u * queue : 0x0D000u + 0x40u * (queue - 64);
}

static inline uint32_t reg_tx_queue(unsigned queue)
{
	return 0x06000u + 0x40u * queue;
}

/* The port. */
#define REG_RXCTRL 0x03000u
#define RXCTRL_RXEN 1u
#define REG_RXPBSIZE 0x03C00u /* buffer 0 */
#define RXPBSIZE_BYTES 0x000FFC00u
#define REG_HLREG0 0x04240u
#define HLREG0_TXCRCEN (1u << 0)
#define HLREG0_RXCRCSTRP (1u << 1)
#define HLREG0_JUMBOEN (1u << 2)
#define HLREG0_TXPADEN (1u << 10)
#define HLREG0_LPBK (1u << 15)
#define REG_MAXFRS 0x04268u
#define MAXFRS_MFS_SHIFT 16
#define REG_DMATXCTL 0x04A80u
#define DMATXCTL_TE 1u
#define DMATXCTL_VT_SHIFT 16
#define REG_DTXTCPFLGL 0x04A88u /* TCP flags that segments keep: the first 11:0, those between 27:16 */
#define REG_DTXTCPFLGH 0x04A8Cu /* the last 11:0 */

/* Receive filters and RSS, 8.2.3.7. */
#define REG_RXCSUM 0x05000u
#define RXCSUM_IPPCSE (1u << 12)
#define RXCSUM_PCSD (1u << 13)
#define REG_FCTRL 0x05080u
#define FCTRL_MPE (1u << 8)
#define FCTRL_UPE (1u << 9)
#define FCTRL_BAM (1u << 10)
#define REG_VLNCTRL 0x05088u
#define VLNCTRL_CFI (1u << 28)
#define VLNCTRL_CFIEN (1u << 29)
#define VLNCTRL_VFE (1u << 30)
#define REG_MCSTCTRL 0x05090u
#define MCSTCTRL_MO 0x3u
#define MCSTCTRL_MFE (1u << 2)
#define REG_MTA 0x05200u
#define REG_ETQF 0x05128u
#define ETQF_FILTER_EN (1u << 31)
#define REG_ETQS 0x0EC00u
#define ETQS_QUEUE_EN (1u << 31)
#define ETQS_QUEUE_SHIFT 16
#define REG_RETA 0x05C00u
#define REG_RSSRK 0x05C80u
#define REG_MRQC 0x0EC80u
#define MRQC_MRQE 0xFu
#define MRQE_RSS 1u
#define MRQC_TCP4 (1u << 16)
#define MRQC_IP4 (1u << 17)
#define MRQC_IP6 (1u << 20)
#define MRQC_TCP6 (1u << 21)
#define MRQC_UDP4 (1u << 22)
#define MRQC_UDP6 (1u << 23)
#define REG_VFTA 0x0A000u
#define REG_RAL 0x0A200u /* +8i; RAH behind it */
#define RAH_AV (1u << 31)
#define REG_PSRTYPE 0x0EA00u
#define PSRTYPE_TCP (1u << 4)
#define PSRTYPE_UDP (1u << 5)
#define PSRTYPE_IP4 (1u << 8)
#define PSRTYPE_IP6 (1u << 9)
#define PSRTYPE_L2 (1u << 12)
#define REG_PFUTA 0x0F400u
#define REG_SAQF 0x0E000u
#define REG_DAQF 0x0E200u
#define REG_SDPQF 0x0E400u
#define REG_FTQF 0x0E600u
#define REG_L34TIMIR 0x0E800u
#define FTQF_ENABLE (1u << 31)

/* Which of the 16 sets of statistics a queue counts in: a byte for each queue. */
#define REG_RQSMR 0x02300u
#define REG_TQSM 0x08600u

#endif
