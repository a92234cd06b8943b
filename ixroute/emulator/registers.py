"""BAR 0 of the 82599, transcribed: every register a driver touches, where it is and how it can be accessed.

Section numbers are the datasheet's (331520), of the group. One line of TABLE is

    NAME  OFFSET[+STRIDE*COUNT]  MODE  RESET  WRITABLE  [EFFECT]

A name on several lines is one array: the second line goes on where the first ended (RDBAL[64] is at 0xD000).
`= OFFSET[+STRIDE*COUNT] NAME[FIRST]` is a second address of the same registers. Modes:

    RW   stored under WRITABLE; other bits keep their value
    MEM  the same, in a table that only power-on clears: drivers must write it before use
    RO   a write is counted and does nothing
    W1C  a written 1 clears a bit of WRITABLE
    WO   stored for whoever looks, reads as 0
    RC   a counter: reading clears it
    OLD  the 82598's, read by drivers that print all registers: 0

A register named in OWNED is the packet engine's: C does what its bits say (card.h). EFFECT is what the engine must be
told after a write: rxq, txq (that queue changed), tail (there may be work), filters (derived tables are stale).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache

BAR_BYTES = 0x80000
ALL = 0xFFFF_FFFF

TABLE = """
# 8.2.3.1 General control
CTRL            0x00000             RW  0          0x00000004
STATUS          0x00008             RO  0x00080000 0
CTRL_EXT        0x00018             RW  0          0x1C03C000  filters
ESDP            0x00020             RW  0          0x01FFFFFF
I2CCTL          0x00028             RW  0xF        0x0000000A
LEDCTL          0x00200             RW  0x84222104 ALL
EXVET           0x05078             RW  0x81000000 ALL         filters
FRTIMER         0x00048             RO  0          0
TCPTIMER        0x0004C             RW  0          0x00000BFF
# 8.2.3.2 EEPROM and flash
EEC             0x10010             RW  0x00003E10 0x0000007F
EERD            0x10014             RW  0          0x0000FFFF
EEWR            0x10018             RW  0          ALL
FLA             0x1001C             RW  0          0x00000077
EEARBC          0x10024             RW  0          ALL
EEMNGCTL        0x10110             RO  0x000C0000 0
EEMNGDATA       0x10114             RO  0          0
FLMNGCTL        0x10118             RW  0          ALL
FLMNGDATA       0x1011C             RW  0          ALL
FLMNGCNT        0x10120             RW  0          ALL
FLOP            0x1013C             RW  0          0x0000FFFF
GRC             0x10200             RW  0          0x00000003
SRAMREL         0x10210             RW  0          ALL
PHYDBG          0x10218             RO  0          0
VPDDIAG0        0x10204             RO  0          0
VPDDIAG1        0x10208             RO  0          0
# 8.2.3.3 Flow control
PFCTOP          0x03008             RW  0          ALL
FCTTV           0x03200+4*4         RW  0          ALL
FCRTL           0x03220+4*8         RW  0          0x8007FFF0
FCRTH           0x03260+4*8         RW  0          0x8007FFF0
FCRTV           0x032A0             RW  0          0x0000FFFF
TFCS            0x0CE00             RO  0x00000001 0
FCCFG           0x03D00             RW  0          0x00000018
DROPEN          0x03D04             OLD
FCADBUL         0x03210             OLD
FCADBUH         0x03214             OLD
FCAMACL         0x04328             RW  0xC2000001 ALL
FCAMACH         0x0432C             RW  0x00000180 0x0000FFFF
# 8.2.3.4 PCIe
GCR             0x11000             RW  0x00040000 ALL
GTV             0x11004             RW  0          ALL
FUNCTAG         0x11008             RW  0          ALL
GLT             0x1100C             RW  0          ALL
GSCL_1          0x11010             RW  0          ALL
GSCL_2          0x11014             RW  0          ALL
GSCL_3          0x11018             RW  0          ALL
GSCL_4          0x1101C             RW  0          ALL
GSCN            0x11020+4*4         RC  0          0
GSCL_5          0x11030+4*4         RW  0          ALL
PCIEPHYADR      0x11040             RW  0          ALL
PCIEPHYDAT      0x11044             RW  0          ALL
PCIEPHYCTL      0x11048             RW  0          ALL
GCR_EXT         0x11050             RW  0          0xC0000003  filters
MREVID          0x11064             RO  0x00000001 0
PBACL           0x11068             RW  0          ALL
PBACL           0x110C4+4*7         RW  0          ALL
PCIEECCCTL      0x1106C             RW  0          ALL
CIAA            0x11088             RW  0          ALL
CIAD            0x1108C             RO  0          0
PCIE_DIAG       0x11090+4*8         RO  0          0
PICAUSE         0x110B0             W1C 0          ALL
CDQ_MBR         0x110B4             RO  0          0
PIENA           0x110B8             RW  0          ALL
PCIESPARE       0x110BC             RW  0          ALL
ECC_STATUS      0x110E0             W1C 0          ALL
MISC_REG        0x110F0             RW  0          ALL
BARCTRL         0x110F4             RO  0x00000820 0
ECC_CTRL        0x11100+4*2         RW  0          ALL
SWSM            0x10140             MEM 0          0x00000003
FWSM            0x10148             RO  0x00008000 0
GSSR            0x10160             MEM 0          0x000003FF
FACTPS          0x10150             RO  0x00000003 0
# 8.2.3.5 Interrupts
EICR            0x00800             W1C 0          0x7FFFFFFF
EICS            0x00808             WO  0          0x7FFFFFFF
EIMS            0x00880             RW  0          0x7FFFFFFF
EIMC            0x00888             WO  0          0x7FFFFFFF
EIAC            0x00810             RW  0          0x7FFFFFFF
EIAM            0x00890             RW  0          0x7FFFFFFF
EICS_EX         0x00A90+4*2         WO  0          ALL
EIMS_EX         0x00AA0+4*2         RW  0          ALL
EIMC_EX         0x00AB0+4*2         WO  0          ALL
EIAM_EX         0x00AD0+4*2         RW  0          ALL
EITRSEL         0x00894             RW  0          ALL
EITR            0x00820+4*24        RW  0          0x8FFF8FF8
EITR            0x12300+4*105       RW  0          0x8FFF8FF8
IVAR            0x00900+4*64        RW  0          0xBFBFBFBF
IVAR_MISC       0x00A00             RW  0          0x0000BFBF
GPIE            0x00898             RW  0          ALL
RSCINT          0x12000+4*128       RW  0          0x00000FFF
LLITHRESH       0x0EC90             RW  0          ALL
L34TIMIR        0x0E800+4*128       MEM 0          ALL
IMIR            0x05A80+4*8         OLD
IMIREXT         0x05AA0+4*8         OLD
IMIRVP          0x05AC0             OLD
# 8.2.3.7 Receive
FCTRL           0x05080             RW  0          0x00000702  filters
VLNCTRL         0x05088             RW  0x00008100 0xF000FFFF  filters
MCSTCTRL        0x05090             RW  0          0x00000007  filters
PSRTYPE         0x0EA00+4*64        MEM 0          0xE007FFFE  filters
RXCSUM          0x05000             RW  0          0x00003000  filters
RFCTL           0x05008             RW  0          0x0001FFFF  filters
MTA             0x05200+4*128       MEM 0          ALL         filters
RAL             0x0A200+8*128       MEM 0          ALL         filters
RAH             0x0A204+8*128       MEM 0          0x8000FFFF  filters
MPSAR           0x0A600+4*256       MEM 0          ALL         filters
VFTA            0x0A000+4*128       MEM 0          ALL         filters
MRQC            0x0EC80             RW  0          0xFFFFFFFF  filters
RQTC            0x0EC70             RW  0          0x77777777  filters
RSSRK           0x05C80+4*10        MEM 0          ALL         filters
RETA            0x05C00+4*32        MEM 0          0x0F0F0F0F  filters
SAQF            0x0E000+4*128       MEM 0          ALL         filters
DAQF            0x0E200+4*128       MEM 0          ALL         filters
SDPQF           0x0E400+4*128       MEM 0          ALL         filters
FTQF            0x0E600+4*128       MEM 0          ALL         filters
SYNQF           0x0EC30             RW  0          0x800000FF  filters
ETQF            0x05128+4*8         RW  0          0xFC7FFFFF  filters
ETQS            0x0EC00+4*8         RW  0          0xA07F0000  filters
RXFECCERR0      0x051B8             RW  0          ALL
RFVAL           0x050A4             RW  0          ALL
RUPPBMR         0x050A0             OLD
VMD_CTL         0x0581C             OLD
= 0x05400+8*16  RAL[0]
= 0x05404+8*16  RAH[0]
= 0x05480+4*16  PSRTYPE[0]
= 0x05818       MRQC[0]
# 8.2.3.8 Receive DMA
RDBAL           0x01000+0x40*64     RW  0          0xFFFFFF80  rxq
RDBAL           0x0D000+0x40*64     RW  0          0xFFFFFF80  rxq
RDBAH           0x01004+0x40*64     RW  0          ALL         rxq
RDBAH           0x0D004+0x40*64     RW  0          ALL         rxq
RDLEN           0x01008+0x40*64     RW  0          0x000FFF80  rxq
RDLEN           0x0D008+0x40*64     RW  0          0x000FFF80  rxq
RDH             0x01010+0x40*64     RW  0          0x0000FFFF  rxq
RDH             0x0D010+0x40*64     RW  0          0x0000FFFF  rxq
RDT             0x01018+0x40*64     RW  0          0x0000FFFF  tail
RDT             0x0D018+0x40*64     RW  0          0x0000FFFF  tail
SRRCTL          0x01014+0x40*64     RW  0x00000402 0x1FC03F1F  rxq
SRRCTL          0x0D014+0x40*64     RW  0x00000402 0x1FC03F1F  rxq
RXDCTL          0x01028+0x40*64     RW  0          0x4E00BFFF  rxq
RXDCTL          0x0D028+0x40*64     RW  0          0x4E00BFFF  rxq
RSCCTL          0x0102C+0x40*64     RW  0          0x0000000D  rxq
RSCCTL          0x0D02C+0x40*64     RW  0          0x0000000D  rxq
= 0x02100+4*16  SRRCTL[0]
RDRXCTL         0x02F00             RW  0x00100000 0x36BF00F7  filters
RXPBSIZE        0x03C00             RW  0x00080000 0x000FFC00  filters
RXPBSIZE        0x03C04+4*7         RW  0          0x000FFC00  filters
RXCTRL          0x03000             RW  0          0x00000001  filters
RSCDBU          0x03028             RW  0          0x000000FF
RXMEMWRAP       0x03190             RO  0          0
RDDCC           0x02F20             RW  0          ALL
STARCTRL        0x03024             RW  0          ALL
# 8.2.3.9 Transmit
DMATXCTL        0x04A80             RW  0x81000000 0xFFFF00EB  filters
DTXTCPFLGL      0x04A88             RW  0x0FF60FF6 0x0FFF0FFF  filters
DTXTCPFLGH      0x04A8C             RW  0x00000F7F 0x00000FFF  filters
DTXMXSZRQ       0x08100             RW  0x00000010 0x00000FFF
TDBAL           0x06000+0x40*128    RW  0          0xFFFFFF80  txq
TDBAH           0x06004+0x40*128    RW  0          ALL         txq
TDLEN           0x06008+0x40*128    RW  0          0x000FFF80  txq
TDH             0x06010+0x40*128    RW  0          0x0000FFFF  txq
TDT             0x06018+0x40*128    RW  0          0x0000FFFF  tail
TXDCTL          0x06028+0x40*128    RW  0          0x067F7F7F  txq
TDWBAL          0x06038+0x40*128    RW  0          0xFFFFFFFD  txq
TDWBAH          0x0603C+0x40*128    RW  0          ALL         txq
TXPBSIZE        0x0CC00             RW  0x00028000 0x000FFC00
TXPBSIZE        0x0CC04+4*7         RW  0          0x000FFC00
TXPBTHRESH      0x04950             RW  0x00000096 0x000003FF
TXPBTHRESH      0x04954+4*7         RW  0          0x000003FF
MTQC            0x08120             RW  0          0x0000000F  filters
TXLLQ           0x082E0+4*4         RW  0          ALL
LBDRPEN         0x0CA00             RW  0          ALL
MNGTXMAP        0x0CD10             RW  0          0x00000007
TIPG            0x0CB00             OLD
# 8.2.3.10 Data centre bridging
RTRPCS          0x02430             RW  0          ALL
RTTDCS          0x04900             RW  0x00400000 0x00C000FF
RTTPCS          0x0CD00             RW  0          ALL
RTRUP2TC        0x03020             RW  0          0x00FFFFFF  filters
RTTUP2TC        0x0C800             RW  0          0x00FFFFFF
RTRPT4C         0x02140+4*8         RW  0          ALL
RTRPT4S         0x02160+4*8         RO  0          0
RTTDT2C         0x04910+4*8         RW  0          ALL
RTTDT2S         0x04930+4*8         RO  0          0
RTTPT2C         0x0CD20+4*8         RW  0          ALL
RTTPT2S         0x0CD40+4*8         RO  0          0
RTTDQSEL        0x04904             RW  0          0x0000007F
RTTDT1C         0x04908             RW  0          0x00003FFF
RTTDT1S         0x0490C             RO  0          0
RTTDTECC        0x04990             RW  0          ALL
RTTBCNRM        0x04980             RW  0          ALL
RTTBCNRC        0x04984             RW  0          0x8FFFFFFF
RTTBCNRS        0x04988             RO  0          0
RTTBCNRD        0x0498C             RW  0          ALL
RTTBCNTG        0x04A90             RW  0          ALL
RTTBCNRTT       0x05150             RW  0          ALL
RTTBCNCR        0x08B00             RW  0          ALL
RTTBCNACH       0x08B04             RW  0          ALL
RTTBCNACL       0x08B08             RW  0          ALL
RTTBCNIDX       0x08B0C             RW  0          ALL
RTTBCNCP        0x08B10             RW  0          ALL
RTFRTIMER       0x08B14             RO  0          0
# 8.2.3.11 Direct cache access
DCA_RXCTRL      0x0100C+0x40*64     RW  0x0000B200 0xFF00F2E0
DCA_RXCTRL      0x0D00C+0x40*64     RW  0x0000B200 0xFF00F2E0
= 0x02200+4*16  DCA_RXCTRL[0]
DCA_TXCTRL      0x0600C+0x40*128    RW  0x00002A00 0xFF002A20
DCA_ID          0x11070             RO  0          0
DCA_CTRL        0x11074             RW  0x00000001 0x0000001F
# 8.2.3.12 Security
SECTXCTRL       0x08800             RW  0          0x00000007
SECTXSTAT       0x08804             RO  0x00000002 0
SECTXBUFFAF     0x08808             RW  0x00000250 0x000003FF
SECTXMINIFG     0x08810             RW  0x00001001 0x00001F0F
SECRXCTRL       0x08D00             RW  0          0x00000003
SECRXSTAT       0x08D04             RO  0x00000002 0
# 8.2.3.13 LinkSec
LSECTXCAP       0x08A00             RO  0          0
LSECTXCTRL      0x08A04             RW  0          0xFFFFFF27
LSECTXREG       0x08A08+4*13        RW  0          ALL
LSECTXCNT       0x08A3C+4*5         RC  0          0
LSECRXCAP       0x08F00             RO  0          0
LSECRXCTRL      0x08F04             RW  0          0x000000CC
LSECRXREG       0x08F08+4*14        RW  0          ALL
LSECRXCNT       0x08F40+4*17        RC  0          0
# 8.2.3.14 IPsec
IPSTXIDX        0x08900             RW  0          ALL
IPSTXSALT       0x08904             RW  0          ALL
IPSTXKEY        0x08908+4*4         RW  0          ALL
IPSRXIDX        0x08E00             RW  0          ALL
IPSRXIPADDR     0x08E04+4*4         RW  0          ALL
IPSRXSPI        0x08E14             RW  0          ALL
IPSRXIPIDX      0x08E18             RW  0          ALL
IPSRXKEY        0x08E1C+4*4         RW  0          ALL
IPSRXSALT       0x08E2C             RW  0          ALL
IPSRXMOD        0x08E30             RW  0          ALL
# 8.2.3.16 FCoE
FCPTRL          0x02410             RW  0          ALL
FCPTRH          0x02414             RW  0          ALL
FCBUFF          0x02418             RW  0          ALL
FCDMARW         0x02420             RW  0          ALL
FCFLT           0x05108             RW  0          ALL
FCSMAC          0x0510C             RW  0          ALL
FCFLTRW         0x05110             RW  0          ALL
FCD_ID          0x05114             RW  0          ALL
FCRXCTRL        0x05100             RW  0          ALL
FCRECTL         0x0ED00             RW  0          0x00000001
FCRETA          0x0ED10+4*8         RW  0          0x007F007F
TEOFF           0x04A94             RW  0          ALL
TSOFF           0x04A98             RW  0          ALL
REOFF           0x05158             RW  0          ALL
RSOFF           0x051F8             RW  0          ALL
FCCRC           0x05118             RC  0          0
FCOERPDC        0x0241C             RC  0          0
FCLAST          0x02424             RC  0          0
FCOEPRC         0x02428             RC  0          0
FCOEDWRC        0x0242C             RC  0          0
FCOEPTC         0x08784             RC  0          0
FCOEDWTC        0x08788             RC  0          0
# 8.2.3.21 Flow director
FDIRCTRL        0x0EE00             RW  0          0xFF1F7FB3
FDIRSIPV6       0x0EE0C+4*3         RW  0          ALL
FDIRIPSA        0x0EE18             RW  0          ALL
FDIRIPDA        0x0EE1C             RW  0          ALL
FDIRPORT        0x0EE20             RW  0          ALL
FDIRVLAN        0x0EE24             RW  0          ALL
FDIRHASH        0x0EE28             RW  0          0x7FFFFFFF
FDIRCMD         0x0EE2C             RW  0          0x007FBEFC
FDIRFREE        0x0EE38             RO  0          0
FDIRDIP4M       0x0EE3C             RW  0          ALL
FDIRSIP4M       0x0EE40             RW  0          ALL
FDIRTCPM        0x0EE44             RW  0          ALL
FDIRUDPM        0x0EE48             RW  0          ALL
FDIRLEN         0x0EE4C             RO  0          0
FDIRUSTAT       0x0EE50             RC  0          0
FDIRFSTAT       0x0EE54             RC  0          0
FDIRMATCH       0x0EE58             RC  0          0
FDIRMISS        0x0EE5C             RC  0          0
FDIRHKEY        0x0EE68             RW  0          ALL
FDIRSKEY        0x0EE6C             RW  0          ALL
FDIRM           0x0EE70             RW  0          0x0000003F
FDIRIP6M        0x0EE74             RW  0          ALL
# 8.2.3.22 MAC and link
PCS1GCFIG       0x04200             RW  0          ALL
PCS1GLCTL       0x04208             RW  0          ALL
PCS1GLSTA       0x0420C             RO  0          0
PCS1GDBG        0x04210+4*2         RO  0          0
PCS1GANA        0x04218             RW  0          ALL
PCS1GANLP       0x0421C             RO  0          0
PCS1GANNP       0x04220             RW  0          ALL
PCS1GANLPNP     0x04224             RO  0          0
HLREG0          0x04240             RW  0x08010C03 0x1FFFFFFF  filters
HLREG1          0x04244             RO  0          0
PAP             0x04248             RW  0x0000FFFF 0x0000FFFF
MACA            0x0424C             RW  0          ALL
APAE            0x04250             OLD
ARD             0x04254             OLD
AIS             0x04258             OLD
MSCA            0x0425C             RW  0          0x7FFFFFFF
MSRWD           0x04260             RW  0          0x0000FFFF
MLADD           0x04264             RW  0          ALL
MAXFRS          0x04268             RW  0x05EE0000 0xFFFF0000  filters
TREG            0x0426C             RW  0          ALL
PCSS1           0x04288             RO  0          0
PCSS2           0x0428C             RO  0          0
XPCSS           0x04290             RO  0          0
MFLCN           0x04294             RW  0          0x0000FFFF
SERDESC         0x04298             RW  0          ALL
MACS            0x0429C             RO  0          0
AUTOC           0x042A0             RW  0xC09C6004 0xFFFFFFFF
LINKS           0x042A4             RO  0          0
AUTOC2          0x042A8             RW  0x000A0000 0xFFFFFFFF
AUTOC3          0x042AC             RW  0          ALL
ANLP1           0x042B0             RO  0          0
ANLP2           0x042B4             RO  0          0
MDFTC1          0x042B8             RW  0          ALL
MDFTC2          0x042C0             RW  0          ALL
MDFTFIFO1       0x042C4             RO  0          0
MDFTFIFO2       0x042C8             RO  0          0
MDFTS           0x042CC             RO  0          0
MMNGC           0x042D0             RW  0          ALL
ANLPNP          0x042D4+4*2         RO  0          0
KRPCSFC         0x042E0             RW  0          ALL
KRPCSS          0x042E4             RO  0          0
FECS            0x042E8+4*2         RC  0          0
SGMIIC          0x04314             RW  0          ALL
MPVC            0x04318             RW  0          ALL
LINKS2          0x04324             RO  0          0
MACC            0x04330             RW  0          ALL
ATLASCTL        0x04800             OLD
CORECTL         0x14F00             RW  0          ALL
SMADARCTL       0x14F10             RW  0          ALL
# 8.2.3.23 Statistics
CRCERRS         0x04000             RC  0          0
ILLERRC         0x04004             RC  0          0
ERRBC           0x04008             RC  0          0
MSPDC           0x04010             RC  0          0
MPC             0x03FA0+4*8         RC  0          0
RNBC            0x03FC0+4*8         RC  0          0
MLFC            0x04034             RC  0          0
MRFC            0x04038             RC  0          0
RLEC            0x04040             RC  0          0
LXONTXC         0x03F60             RC  0          0
LXONRXC_98      0x0CF60             RC  0          0
LXOFFTXC        0x03F68             RC  0          0
LXOFFRXC_98     0x0CF68             RC  0          0
LXONRXCNT       0x041A4             RC  0          0
LXOFFRXCNT      0x041A8             RC  0          0
PXONRXCNT       0x04140+4*8         RC  0          0
PXOFFRXCNT      0x04160+4*8         RC  0          0
PXON2OFFCNT     0x03240+4*8         RC  0          0
PXONTXC         0x03F00+4*8         RC  0          0
PXOFFTXC        0x03F20+4*8         RC  0          0
PXONRXC_98      0x0CF00+4*8         RC  0          0
PXOFFRXC_98     0x0CF20+4*8         RC  0          0
PRC64           0x0405C             RC  0          0
PRC127          0x04060             RC  0          0
PRC255          0x04064             RC  0          0
PRC511          0x04068             RC  0          0
PRC1023         0x0406C             RC  0          0
PRC1522         0x04070             RC  0          0
GPRC            0x04074             RC  0          0
BPRC            0x04078             RC  0          0
MPRC            0x0407C             RC  0          0
GPTC            0x04080             RC  0          0
GORCL           0x04088             RC  0          0
GORCH           0x0408C             RC  0          0
GOTCL           0x04090             RC  0          0
GOTCH           0x04094             RC  0          0
RUC             0x040A4             RC  0          0
RFC             0x040A8             RC  0          0
ROC             0x040AC             RC  0          0
RJC             0x040B0             RC  0          0
MNGPRC          0x040B4             RC  0          0
MNGPDC          0x040B8             RC  0          0
MNGPTC          0x0CF90             RC  0          0
TORL            0x040C0             RC  0          0
TORH            0x040C4             RC  0          0
TPR             0x040D0             RC  0          0
TPT             0x040D4             RC  0          0
PTC64           0x040D8             RC  0          0
PTC127          0x040DC             RC  0          0
PTC255          0x040E0             RC  0          0
PTC511          0x040E4             RC  0          0
PTC1023         0x040E8             RC  0          0
PTC1522         0x040EC             RC  0          0
MPTC            0x040F0             RC  0          0
BPTC            0x040F4             RC  0          0
XEC             0x04120             RC  0          0
BUPRC           0x04180+4*8         RC  0          0
RXNFGPC         0x041B0             RC  0          0
RXNFGBCL        0x041B4             RC  0          0
RXNFGBCH        0x041B8             RC  0          0
B2OGPRC         0x02F90             RC  0          0
B2OSPC          0x041C0             RC  0          0
O2BGPTC         0x041C4             RC  0          0
O2BSPC          0x087B0             RC  0          0
BXOFFRXC        0x041E0+4*3         RC  0          0
RQSMR           0x02300+4*32        RW  0          0x0F0F0F0F  filters
TQSM            0x08600+4*32        RW  0          0x0F0F0F0F  filters
QPRC            0x01030+0x40*16     RC  0          0
QBRC_L          0x01034+0x40*16     RC  0          0
QBRC_H          0x01038+0x40*16     RC  0          0
QPRDC           0x01430+0x40*16     RC  0          0
QPTC            0x08680+4*16        RC  0          0
= 0x06030+0x40*16 QPTC[0]
QBTC_L          0x08700+8*16        RC  0          0
QBTC_H          0x08704+8*16        RC  0          0
SSVPC           0x08780             RC  0          0
RXDSTATCTRL     0x02F40             RW  0          0x0000007F
RXDGPC          0x02F50             RC  0          0
RXDGBCL         0x02F54             RC  0          0
RXDGBCH         0x02F58             RC  0          0
RXDDGPC         0x02F5C             RC  0          0
RXDDGBCL        0x02F60             RC  0          0
RXDDGBCH        0x02F64             RC  0          0
RXLPBKGPC       0x02F68             RC  0          0
RXLPBKGBCL      0x02F6C             RC  0          0
RXLPBKGBCH      0x02F70             RC  0          0
RXDLPBKGPC      0x02F74             RC  0          0
RXDLPBKGBCL     0x02F78             RC  0          0
RXDLPBKGBCH     0x02F7C             RC  0          0
TXDGPC          0x087A0             RC  0          0
TXDGBCL         0x087A4             RC  0          0
TXDGBCH         0x087A8             RC  0          0
# 8.2.3.24 Wake-up
WUC             0x05800             RW  0          0x0000001F
WUFC            0x05808             RW  0          0x003F80FF
WUS             0x05810             W1C 0          0x003F80FF
IPAV            0x05838             RW  0          0x0001000F
IP4AT           0x05840+4*8         MEM 0          ALL
IP6AT           0x05880+4*4         MEM 0          ALL
WUPL            0x05900             RO  0          0
WUPM            0x05A00+4*32        RO  0          0
FHFT            0x09000+4*256       MEM 0          ALL
FHFT_EXT        0x09800+4*128       MEM 0          ALL
PROXYS          0x05F60             OLD
PROXYFC         0x05F64             OLD
# 8.2.3.25 Management
MAVTV           0x05010+4*8         RO  0          0
MFUTP           0x05030+4*8         RO  0          0
BMCIP           0x05050+4*4         RO  0          0
BMCIPVAL        0x05060             RO  0          0
MANC            0x05820             RO  0          0
MFVAL           0x05824             RO  0          0
MANC2H          0x05860             RO  0          0
MDEF            0x05890+4*8         RO  0          0
MIPAF           0x058B0+4*16        RO  0          0
MMA             0x05910+4*8         RO  0          0
METF            0x05190+4*4         RO  0          0
MDEF_EXT        0x05160+4*8         RO  0          0
LSWFW           0x15F14             RO  0          0
FLEX_MNG        0x15800+4*448       RW  0          ALL
HICR            0x15F00             RO  0          0
HSMC0R          0x15F04             RO  0          0
HSMC1R          0x15F08             RO  0          0
FWSTS           0x15F0C             W1C 0          0x00000200
SWSR            0x15F10             RO  0          0
HFDR            0x15FE8             RO  0          0
# 8.2.3.26 Time stamps
TSYNCRXCTL      0x05188             RW  0          0x0000001E
TSYNCTXCTL      0x08C00             RW  0          0x00000010
RXSTMPL         0x051E8             RO  0          0
RXSTMPH         0x051A4             RO  0          0
RXSATRL         0x051A0             RO  0          0
RXSATRH         0x051A8             RO  0          0
RXMTRL          0x05120             RW  0x319F0000 ALL
TXSTMPL         0x08C04             RO  0          0
TXSTMPH         0x08C08             RO  0          0
SYSTIML         0x08C0C             RW  0          ALL
SYSTIMH         0x08C10             RW  0          ALL
TIMINCA         0x08C14             RW  0          ALL
TIMADJL         0x08C18             RW  0          ALL
TIMADJH         0x08C1C             RW  0          ALL
TSAUXC          0x08C20             RW  0          ALL
TRGTTIML0       0x08C24             RW  0          ALL
TRGTTIMH0       0x08C28             RW  0          ALL
TRGTTIML1       0x08C2C             RW  0          ALL
TRGTTIMH1       0x08C30             RW  0          ALL
CLKTIML         0x08C34             RW  0          ALL
CLKTIMH         0x08C38             RW  0          ALL
AUXSTMP         0x08C3C+4*4         RO  0          0
SYSTIMR         0x08C58             RO  0          0
TSICR           0x08C60             RO  0          0
TSIM            0x08C68             RO  0          0
TSSDP           0x0003C             RW  0          ALL
# 8.2.3.27 Virtualization
PFVTCTL         0x051B0             RW  0          0x60001F81  filters
PFMAILBOX       0x04B00+4*64        RW  0          0x0000000F
PFMBMEM         0x13000+4*1024      MEM 0          ALL
PFMBICR         0x00710+4*4         W1C 0          ALL
PFMBIMR         0x00720+4*2         RW  0xFFFFFFFF ALL
PFVFLRE         0x00600             RO  0          0
PFVFLRE         0x001C0             RO  0          0
PFVFLREC        0x00700+4*4         W1C 0          ALL
PFVFRE          0x051E0+4*2         RW  0          ALL         filters
PFVFTE          0x08110+4*2         RW  0          ALL         filters
PFVMECM         0x08790+4*2         RW  0          ALL
PFQDE           0x02F04             RW  0          0x0007FFFF  filters
PFVMTXSW        0x05180+4*2         RW  0          ALL         filters
PFVFSPOOF       0x08200+4*8         RW  0          ALL         filters
PFDTXGSWC       0x08220             RW  0          0x00000001  filters
PFVMVIR         0x08000+4*64        RW  0          ALL         filters
PFVML2FLT       0x0F000+4*64        MEM 0          0x1FC00000  filters
PFVLVF          0x0F100+4*64        MEM 0          0x80000FFF  filters
PFVLVFB         0x0F200+4*128       MEM 0          ALL         filters
PFUTA           0x0F400+4*128       MEM 0          ALL         filters
PFMRCTL         0x0F600+4*4         RW  0          0x00001F0F
PFMRVLAN        0x0F610+4*8         RW  0          ALL
PFMRVM          0x0F630+4*8         RW  0          ALL
PFFLPL          0x050B0             RW  0          ALL
PFFLPH          0x050B4             RW  0          ALL
# Diagnostics that drivers print
RDSTATCTL       0x02C20             OLD
RDSTAT          0x02C00+4*8         OLD
RDHMPN          0x02F08             RW  0          ALL
RIC_DW          0x02F10+4*4         RO  0          0
RDMAM           0x02F30             RW  0          ALL
RDMAD           0x02F34             RO  0          0
TDHMPN2         0x082FC             RW  0          ALL
TXDESCIC        0x082CC             RO  0x80000000 0
TIC_DW2         0x082B0+4*4         RO  0          0
TXBUFCTRL       0x0C600             RW  0          ALL
TXBUFDATA       0x0C610+4*4         RW  0          ALL
RXBUFCTRL       0x03600             RW  0          ALL
RXBUFDATA       0x03610+4*4         RW  0          ALL
RXWRPTR         0x03100+4*8         RO  0          0
RXUSED          0x03120+4*8         RO  0          0
RXRDPTR         0x03140+4*8         RO  0          0
RXRDWRPTR       0x03160+4*8         RO  0          0
TXWRPTR         0x0C100+4*8         RO  0          0
TXUSED          0x0C120+4*8         RO  0          0
TXRDPTR         0x0C140+4*8         RO  0          0
TXRDWRPTR       0x0C160+4*8         RO  0          0
RXDATAWRPTR     0x03700+4*4         RO  0          0
RXDESCWRPTR     0x03710+4*4         RO  0          0
RXDATARDPTR     0x03720+4*4         RO  0          0
RXDESCRDPTR     0x03730+4*4         RO  0          0
TXDATAWRPTR     0x0C700+4*4         RO  0          0
TXDESCWRPTR     0x0C710+4*4         RO  0          0
TXDATARDPTR     0x0C720+4*4         RO  0          0
TXDESCRDPTR     0x0C730+4*4         RO  0          0
PBTXECC         0x0C300             RW  0          ALL
PBRXECC         0x03300             RW  0          ALL
RXDBUECC        0x03F70             RW  0          ALL
TXDBUECC        0x0CF70             RW  0          ALL
RXDBUEST        0x03F74             RO  0          0
TXDBUEST        0x0CF74             RO  0          0
MSIXPBA_98      0x02000             OLD
DCA_TXCTRL_98   0x07214             OLD
DCA_TXCTRL_98   0x0721C+4*3         OLD
DCA_TXCTRL_98   0x0722C+4*3         OLD
TIC_98          0x07F14             OLD
TIC_98          0x07F1C             OLD
TDPROBE_98      0x07F20             OLD
TXBUF_98        0x07C14             OLD
TXBUF_98        0x07C1C+4*2         OLD
"""

_OWNED = """
    EICR EICS EIMS EIMC EIAC EIAM EICS_EX EIMS_EX EIMC_EX EIAM_EX
    CRCERRS ILLERRC ERRBC MSPDC MPC RNBC MLFC MRFC RLEC LXONTXC LXOFFTXC LXONRXCNT LXOFFRXCNT
    PXONRXCNT PXOFFRXCNT PXONTXC PXOFFTXC MNGPRC MNGPDC MNGPTC
    FCCRC FCOERPDC FCLAST FCOEPRC FCOEDWRC FCOEPTC FCOEDWTC
    PRC64 PRC127 PRC255 PRC511 PRC1023 PRC1522 GPRC BPRC MPRC GPTC GORCL GORCH GOTCL GOTCH RUC RFC ROC RJC
    TORL TORH TPR TPT PTC64 PTC127 PTC255 PTC511 PTC1023 PTC1522 MPTC BPTC XEC
    QPRC QBRC_L QBRC_H QPRDC QPTC QBTC_L QBTC_H SSVPC RXDGPC RXDGBCL RXDGBCH TXDGPC TXDGBCL TXDGBCH
"""
OWNED = frozenset(_OWNED.split())


class Mode(Enum):
    RW = "RW"
    MEM = "MEM"
    RO = "RO"
    W1C = "W1C"
    WO = "WO"
    RC = "RC"
    OLD = "OLD"


@dataclass(frozen=True)
class Register:
    """One line of TABLE: `count` registers from index `first`, `stride` bytes apart."""

    name: str
    section: str
    offset: int
    stride: int
    count: int
    first: int
    mode: Mode
    reset: int
    writable: int
    effect: str

    @property
    def owned(self) -> bool:
        return self.name in OWNED

    def places(self) -> Iterator[Place]:
        for i in range(self.count):
            yield Place(self, self.first + i, self.offset + i * self.stride)


@dataclass(frozen=True)
class Place:
    """Where an offset leads: a register of an array, at its canonical offset."""

    register: Register
    index: int
    offset: int

    def __str__(self) -> str:
        array = self.register.count > 1 or self.register.first > 0
        return f"{self.register.name}[{self.index}]" if array else self.register.name


class TableError(Exception):
    """TABLE contradicts itself."""


def _number(text: str) -> int:
    return ALL if text == "ALL" else int(text, 0)


def _where(text: str) -> tuple[int, int, int]:
    """OFFSET[+STRIDE*COUNT] -> offset, stride, count."""
    offset, _, array = text.partition("+")
    stride, _, count = array.partition("*")
    return int(offset, 0), int(stride or "4", 0), int(count or "1", 0)


@cache
def registers() -> tuple[Register, ...]:
    table: list[Register] = []
    seen: dict[str, int] = {}
    section = ""
    for line in TABLE.strip().splitlines():
        if line.startswith("#"):
            words = line.split()
            section = words[1] if words[1][0].isdigit() else ""
            continue
        if line.startswith("="):
            continue
        name, where, mode, *rest = line.split()
        reset, writable, effect = [*rest, "0", "0", ""][:3] if not rest else [*rest, ""][:3]
        offset, stride, count = _where(where)
        first = seen.get(name, 0)
        seen[name] = first + count
        table.append(
            Register(
                name,
                section,
                offset,
                stride,
                count,
                first,
                Mode(mode),
                _number(reset),
                _number(writable),
                effect,
            )
        )
    return tuple(table)


@cache
def aliases() -> dict[int, int]:
    """Second addresses -> canonical ones."""
    first_line = {register.name: register for register in registers() if register.first == 0}
    table: dict[int, int] = {}
    for line in TABLE.strip().splitlines():
        if not line.startswith("="):
            continue
        _, where, target = line.split()
        name, _, index = target.rstrip("]").partition("[")
        offset, stride, count = _where(where)
        register = first_line[name]
        for i in range(count):
            table[offset + i * stride] = register.offset + (int(index) + i) * register.stride
    return table


@cache
def places() -> dict[int, Place]:
    """Every offset that means something, aliases included, -> what is there. Read-only: shared by all cards."""
    table: dict[int, Place] = {}
    for register in registers():
        for place in register.places():
            if place.offset in table:
                raise TableError(f"{place} and {table[place.offset]} are both at {place.offset:#x}")
            table[place.offset] = place
    for alias, offset in aliases().items():
        if alias in table:
            raise TableError(f"{table[alias]} and a second address of {table[offset]} are both at {alias:#x}")
        table[alias] = table[offset]
    return table


@cache
def _arrays() -> dict[str, tuple[Register, ...]]:
    arrays: dict[str, list[Register]] = {}
    for register in registers():
        arrays.setdefault(register.name, []).append(register)
    return {name: tuple(lines) for name, lines in arrays.items()}


def offset_of(name: str, index: int = 0) -> int:
    """The canonical offset. KeyError: no such register."""
    for register in _arrays()[name]:
        if register.first <= index < register.first + register.count:
            return register.offset + (index - register.first) * register.stride
    raise KeyError(f"{name}[{index}]")


def count_of(name: str) -> int:
    return sum(register.count for register in _arrays()[name])


def describe(offset: int) -> str:
    """For people: RXDCTL[3], or the offset itself when nothing is there."""
    place = places().get(offset)
    return str(place) if place else f"{offset:#07x}"
